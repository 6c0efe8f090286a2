"""The house rules: what is installed is what is on disk, layers import downwards only, nothing names a machine."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import source_tree
from source_tree import (
    MODULE,
    MODULES,
    PANELS,
    ROOT,
    cmake_list,
    imported_at_start,
    imports,
    load_script,
    module_files,
    project_files,
    pyproject,
    python_files,
    top_names,
)

# In Slicer all modules install into one folder: the segmenters' cards must not lie among the translators'.
MODELS = {"IMTTranslate": "Resources/IMT-models", "IMTRegister": "Resources/IMT-models", "IMTSegment": "Resources/IMT-segment-models"}

SLICER_ONLY = {"ctk", "mrml", "qt", "sitkUtils", "slicer", "vtk"}
CORE_AT_FILE_SCOPE = {"numpy", "torch", "SimpleITK", "safetensors", "IMTCore"}
# A fresh Slicer has none of these: the panel must open without them.
NOT_IN_SLICER = {"nibabel", "safetensors", "torch"}


# --- What is installed ---------------------------------------------------------------------------------------------


def test_file_lists_are_up_to_date():
    script = load_script(ROOT / "Testing" / "update_cmake_lists.py")
    assert script.main(["--check"]) == 0, "run  python Testing/update_cmake_lists.py"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_slicer_installs_every_file_of_the_module(module):
    listed = {entry.replace("${MODULE_NAME}", module.name) for entry in cmake_list("MODULE_PYTHON_SCRIPTS", module)}
    listed |= set(cmake_list("MODULE_PYTHON_RESOURCES", module))
    here = {path.relative_to(module).as_posix() for path in project_files() if path.is_relative_to(module)}
    documents = {name for name in here if name.endswith(".md") and "/" not in name}
    assert listed == here - {"CMakeLists.txt"} - documents


def test_no_two_modules_install_a_file_of_the_same_name():
    """Slicer puts all modules of an extension into one folder."""
    owners: dict[str, list[str]] = {}
    for module in MODULES:
        for entry in cmake_list("MODULE_PYTHON_SCRIPTS", module) + cmake_list("MODULE_PYTHON_RESOURCES", module):
            owners.setdefault(entry.replace("${MODULE_NAME}", module.name).lower(), []).append(module.name)
    assert not {entry: names for entry, names in owners.items() if len(names) > 1}


def test_lists_follow_the_disk(tmp_path, monkeypatch, capsys):
    script = load_script(ROOT / "Testing" / "update_cmake_lists.py")
    module = tmp_path / "IMTTranslate"
    for name in ("IMTCore/b.py", "IMTCore/a.py", "IMTCore/__pycache__/a.pyc", "Resources/IMT-models/m.json", "Resources/.hidden"):
        (module / name).parent.mkdir(parents=True, exist_ok=True)
        (module / name).touch()
    (module / "CMakeLists.txt").write_text(
        "set(MODULE_PYTHON_SCRIPTS\n  gone.py\n  )\n\nset(MODULE_PYTHON_RESOURCES\n  )\nrest\n"
    )
    (tmp_path / "pyproject.toml").write_text('packages = [\n  "Gone",\n]\nrest\n')
    monkeypatch.setattr(script, "ROOT", tmp_path)

    assert script.main(["--check"]) == 1
    assert "gone.py" in (module / "CMakeLists.txt").read_text()
    assert script.main([]) == 0
    assert (module / "CMakeLists.txt").read_text() == (
        "set(MODULE_PYTHON_SCRIPTS\n  IMTCore/a.py\n  IMTCore/b.py\n  )\n\n"
        "set(MODULE_PYTHON_RESOURCES\n  Resources/IMT-models/m.json\n  )\nrest\n"
    )
    assert (tmp_path / "pyproject.toml").read_text() == 'packages = [\n  "IMTCore",\n  "IMTModels",\n]\nrest\n'
    assert script.main(["--check"]) == 0


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_wheel_and_slicer_hold_the_same_packages_and_data(module):
    setuptools = pyproject()["tool"]["setuptools"]
    folders = {PurePosixPath(entry).parent for entry in cmake_list("MODULE_PYTHON_SCRIPTS", module)} - {PurePosixPath()}
    names = {".".join(folder.parts) for folder in folders}
    assert names <= set(setuptools["packages"])
    if module != MODULE:  # the folder of the others is named for each top package
        tops = {name.partition(".")[0] for name in names}
        assert {setuptools["package-dir"][top] for top in tops} == {f"{module.name}/{top}" for top in tops}

    prefix = "IMT" if module == MODULE else module.name
    resources = cmake_list("MODULE_PYTHON_RESOURCES", module)
    models_folder = MODELS[module.name]
    models = {entry for entry in resources if entry.startswith(f"{models_folder}/")}
    read = {entry for entry in resources if re.fullmatch(r"Resources/[^/]+\.json", entry)}
    for files, name, folder in ((models, f"{prefix}Models", models_folder), (read, f"{prefix}Resources", "Resources")):
        assert bool(files) == (name in setuptools["packages"])
        if not files:
            continue
        assert setuptools["package-dir"][name] == f"{module.name}/{folder}"
        patterns = setuptools["package-data"][name]
        packed = {entry for entry in files if any(fnmatch(entry.removeprefix(f"{folder}/"), pattern) for pattern in patterns)}
        nested = {entry for entry in packed if entry.count("/") != folder.count("/") + 1}
        assert files == packed - nested, "package-data takes files directly in the folder only"


def test_the_wheel_holds_no_package_that_slicer_does_not():
    installed = {
        ".".join(PurePosixPath(entry).parent.parts) for module in MODULES for entry in cmake_list("MODULE_PYTHON_SCRIPTS", module)
    }
    data = re.compile(r"IMT(Register|Segment)?(Models|Resources)")
    assert {name for name in pyproject()["tool"]["setuptools"]["packages"] if not data.fullmatch(name)} == installed - {""}


def test_one_version():
    settings = pyproject()
    written = re.search(r'^VERSION = "(.+)"$', (MODULE / "IMTCore" / "version.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert written
    declared = settings["project"].get("version")
    if declared is None:
        assert "version" in settings["project"]["dynamic"]
        assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "IMTCore.version.VERSION"}
    else:
        assert declared == written[1]


def test_requirements_agree():
    def names(lines: list[str]) -> dict[str, str]:
        found = (re.match(r"([\w-]+)(.*)", line) for line in lines if re.match(r"\w", line))
        return {match[1].lower(): match[2].strip() for match in found}

    def in_file(path: Path) -> dict[str, str]:
        return names(path.read_text(encoding="utf-8").splitlines())

    project = pyproject()["project"]
    pins, test_pins = (in_file(ROOT / "Resources" / "requirements" / name) for name in ("runtime.txt", "test.txt"))
    extras = project["optional-dependencies"]
    assert pins.keys() == names(project["dependencies"]).keys()
    assert test_pins.keys() == names(extras["test"]).keys()
    assert names(extras["training"]).keys() <= test_pins.keys()
    assert all(pin.startswith("==") for pin in (pins | test_pins).values())

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"TORCH ?= torch{pins['torch']}\n" in makefile

    # Slicer and its PyTorch extension bring their own builds; pip must not replace them.
    in_slicer = in_file(MODULE / "Resources" / "IMT-requirements.txt")
    assert in_slicer.keys() == pins.keys() - {"numpy", "scipy", "simpleitk", "torch"}
    assert in_slicer.items() <= names(project["dependencies"]).items()


# --- Layers --------------------------------------------------------------------------------------------------------


def test_the_import_reader_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(source_tree, "MODULES", [tmp_path])
    path = tmp_path / "IMTCore" / "x.py"
    path.parent.mkdir()
    path.write_text(
        "import a.b as c, d\nfrom e import f\nfrom . import g\nfrom .h import i\ntry:\n    import j\nexcept ImportError:\n    pass\n"
        "def k():\n    import l\n    __import__('m')\nclass N:\n    import o\n"
    )
    top = {"a.b", "d", "e", "e.f", "IMTCore", "IMTCore.g", "IMTCore.h", "IMTCore.h.i", "j", "o"}
    assert imports(path, file_scope_only=True) == top
    assert imports(path) == top | {"l", "m"}


def test_core_imports_little_at_file_scope():
    allowed = set(sys.stdlib_module_names) | CORE_AT_FILE_SCOPE
    wrong = {path.name: top_names(imports(path, file_scope_only=True)) - allowed for path in python_files(MODULE / "IMTCore")}
    assert not {name: names for name, names in wrong.items() if names}


LIBRARIES = {"IMTRegisterLib", "IMTSegmentLib"}


@pytest.mark.parametrize(
    ("package", "above"),
    [
        ("IMTTranslate/IMTCore", {"IMTCommand"} | LIBRARIES),
        ("IMTTranslate/IMTCommand", set()),
        ("IMTRegister/IMTRegisterLib", {"IMTCommand", "IMTSegmentLib"}),
        ("IMTSegment/IMTSegmentLib", {"IMTCommand", "IMTRegisterLib"}),
    ],
)
def test_no_slicer_below_the_panel(package, above):
    forbidden = SLICER_ONLY | PANELS | above
    wrong = {path.name: top_names(imports(path)) & forbidden for path in python_files(ROOT / package)}
    assert not {name: names for name, names in wrong.items() if names}


def test_panels_know_no_panel_but_their_own():
    for module in MODULES:
        own = {module.name, f"{module.name}Panel", "IMTSlicerLib"}
        wrong = {path.name: top_names(imports(path)) & (PANELS - own) for path in python_files(module)}
        assert not {name: names for name, names in wrong.items() if names}


def test_nobody_imports_the_command():
    command = MODULE / "IMTCommand"
    files = [path for folder in [*MODULES, ROOT / "Resources"] for path in python_files(folder) if not path.is_relative_to(command)]
    assert not [path for path in files if "IMTCommand" in top_names(imports(path))]


def test_the_module_does_not_import_training():
    training = {path.stem for path in python_files(ROOT / "Resources" / "Training")} | {"Resources", "Training"}
    files = [path for module in MODULES for path in python_files(module)]
    assert not {path.name: names for path in files if (names := top_names(imports(path)) & training)}


def test_the_panel_opens_without_torch():
    files = module_files()
    for name, chain in imported_at_start().items():
        wrong = top_names(imports(files[name], file_scope_only=True)) & NOT_IN_SLICER
        assert not wrong, f"{chain} imports {', '.join(sorted(wrong))} at file scope"


# --- Machines ------------------------------------------------------------------------------------------------------

# In pieces, so that this file does not match itself.
MACHINE_PATTERNS = {
    "a path of one machine": r"(?<![\w.:/~-])/(?:wo[r]k|ro[o]t|ho[m]e|U[s]ers|opt/p[y]pi|opt/wh[e]els)(?:/|\b)",
    "a path of one machine (Windows)": r"\b[A-Z]:\\+U[s]ers\\",
    "a registry": r"\b(?:p[y]pi\.org/simple|files\.pythonh[o]sted\.org|index-url\s*=|(?:artif[a]ctory|dev[p]i|ne[x]us)[\w.-]*/)",
    "an internal host": r"https?://(?:loc[a]lhost|[\w.-]+\.(?:inter[n]al|loc[a]l|l[a]n)|(?!127\.)(?:\d{1,3}\.){3}\d{1,3})\b",
}


def machine_traces(text: str) -> list[str]:
    return [f"{what}: {match[0]}" for what, pattern in MACHINE_PATTERNS.items() for match in re.finditer(pattern, text)]


def test_machine_patterns():
    join = "".join
    for trace in (
        "/wo|rk/main",
        "see /ro|ot",
        "'/ho|me/ann/x'",
        "http://10.0|.0.7:3141/",
        "https://p|ypi.org/simple",
    ):
        assert machine_traces(join(trace.split("|"))), trace
    for fine in (
        "https://example.org/ho|me/x",
        "a/wo|rk/b",
        "/wo|rkspace",
        "~/ho|me",
        "https://download.pytorch.org/whl/cpu",
        "/path/to/python3",
    ):
        assert not machine_traces(join(fine.split("|"))), fine


def test_no_traces_of_a_machine():
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT).as_posix()}: {trace}" for trace in machine_traces(text)]
    assert not found, "\n".join(found)


def test_models_are_listed_without_torch():
    code = "import sys; from IMTCore.catalogue import list_cards; list_cards(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=MODULE)
