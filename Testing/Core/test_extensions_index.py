"""What the checks of Slicer's Extensions Index ask for, as far as it can be seen without the network.

After `scripts/check_description_files.py` and the questions of `scripts/extension_ai_analysis.py` of the index, and the
schema of catalogue entries in Slicer's own repository.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_pages import Page
from source_tree import (
    MODULES,
    RAW_FILES,
    REPOSITORY,
    ROOT,
    imported_at_start,
    imports,
    module_files,
    project_files,
    pyproject,
    top_names,
)

DESCRIPTION = ROOT / "Testing" / "ExtensionsIndex" / "IMT.json"
SCHEMA = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
# Schema 1.0.1: key -> type, and those that must be there.
TEXTS = ("$schema", "category", "scm_url", "scm_revision", "scm_type", "build_subdirectory", "dicom_support_rule")
KEYS = dict.fromkeys(TEXTS, str) | {"build_dependencies": list, "enabled": bool, "tier": int}
REQUIRED = {"$schema", "category", "scm_url"}
# Those of the index's accepted categories that fit.
CATEGORIES = {"Image Synthesis", "Registration", "Segmentation", "Neuroimaging"}
MOST_MEGABYTES = 100
PNG = b"\x89PNG\r\n\x1a\n"

# What a module may import when Slicer starts: the standard library, Slicer's own, and these.
ALLOWED = {"slicer", "qt", "ctk", "vtk", "mrml", "sitkUtils", "SimpleITK", "numpy", "scipy"}
# Calls in an assignment at file scope that only make a value.
MAKES_A_VALUE = {
    *("Path", "PurePosixPath", "compile", "dict", "frozenset", "set", "tuple", "range", "sorted", "join", "namedtuple", "TypeVar"),
    *("Signal", "translate", "_", "getLogger", "resolve", "object", "encode", "fromkeys", "full", "len"),
}


def description() -> dict:
    return json.loads(DESCRIPTION.read_text(encoding="utf-8"))


def cmake() -> str:
    return (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def variable(name: str) -> str:
    """A variable that is set on one line, as the index reads it."""
    found = re.findall(rf'^set\({name} "([^"\n]+)"\)$', cmake(), re.MULTILINE)
    assert len(found) == 1, f"{name} must be set once, on one line"
    return found[0]


# --- The description file ------------------------------------------------------------------------------------------


def test_the_description_has_the_keys_of_the_schema_and_no_other():
    content = description()
    assert REQUIRED <= content.keys() <= KEYS.keys()
    assert content["$schema"] == SCHEMA
    for key, value in content.items():
        assert isinstance(value, KEYS[key]), key
    assert content["category"] in CATEGORIES
    assert content["scm_type"] == "git"
    assert 1 <= content["tier"] <= 5
    assert content["build_subdirectory"] == "."


def test_the_repository_is_named_as_the_index_wants():
    address = urlsplit(description()["scm_url"])
    assert address.scheme in ("git", "https")
    assert "slicer" in Path(address.path).stem.lower()
    assert address.geturl().removesuffix(".git") == REPOSITORY == variable("EXTENSION_HOMEPAGE")
    assert pyproject()["project"]["urls"]["Homepage"] == REPOSITORY


def test_text_files_have_unix_line_endings():
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    texts = {".json", ".py", ".md", ".txt", ".ui", ".cff", ".toml", ".yml", ".sh"}
    wrong = [path for path in project_files() if (path.suffix in texts or path.name == "Makefile") and b"\r\n" in path.read_bytes()]
    assert not wrong


# --- CMake ---------------------------------------------------------------------------------------------------------


def test_the_project_is_named_as_the_description():
    assert re.findall(r"^project\((\S+)\)$", cmake(), re.MULTILINE) == [DESCRIPTION.stem]
    assert not DESCRIPTION.stem.lower().startswith("slicer")


def test_the_acronym_is_told_in_title_and_description():
    assert "image modality translation" in variable("EXTENSION_DESCRIPTION").lower()
    title = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0]
    assert title.startswith("# ") and "image modality translation" in title.lower()


@pytest.mark.parametrize("name", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_are_raw_files_of_the_repository(name):
    addresses = variable(name).split()
    assert addresses
    for address in addresses:
        assert address.startswith(RAW_FILES)
        path = ROOT / address.removeprefix(RAW_FILES)
        assert path in project_files(), f"{address} is not a file of the repository"
        assert path.read_bytes().startswith(PNG)


def test_what_is_built_before_is_what_is_depended_on():
    assert description()["build_dependencies"] == variable("EXTENSION_DEPENDS").split(";")


def test_cmake_adds_every_module_and_ends_with_the_packaging():
    lines = [line for line in cmake().splitlines() if line and not line.startswith("#")]
    assert [f"add_subdirectory({module.name})" for module in MODULES] == sorted(line for line in lines if line.startswith("add_subdirectory"))
    assert lines[-2:] == ["include(${Slicer_EXTENSION_GENERATE_CONFIG})", "include(${Slicer_EXTENSION_CPACK})"]


# --- The repository ------------------------------------------------------------------------------------------------


def test_the_licence_is_there():
    assert "END OF TERMS AND CONDITIONS" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache-2.0" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_checkout_is_small():
    megabytes = sum(path.stat().st_size for path in project_files()) / 1e6
    assert megabytes < MOST_MEGABYTES


def test_the_repository_holds_no_binaries():
    binaries = {".exe", ".dll", ".so", ".dylib", ".whl", ".zip", ".tar", ".jar"}
    assert not [path for path in project_files() if path.suffix in binaries]


# --- The code ------------------------------------------------------------------------------------------------------


def statements_that_run(tree: ast.Module) -> Iterator[ast.stmt]:
    """What does something when a file is imported: neither imports, definitions, values nor a script's own entry."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.AnnAssign | ast.Assign):
            calls = [child for child in ast.walk(node) if isinstance(child, ast.Call)] if isinstance(node, ast.Assign | ast.AnnAssign) else []
            inside = {id(child) for part in ast.walk(node) if isinstance(part, ast.Lambda) for child in ast.walk(part)}
            names = {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls if id(call) not in inside}
            # A name with a capital is a class: it makes a value.
            if any(name not in MAKES_A_VALUE and not name[:1].isupper() for name in names):
                yield node
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            pass  # a docstring
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            pass
        else:
            yield node


def is_harmless(node: ast.stmt) -> bool:
    """Finding the sister module's folder, and a function to be called at the end of the process."""
    text = ast.unparse(node)
    finds_sister = text.startswith("if importlib.util.find_spec('IMTSlicerLib') is None:\n    sys.path.append(")
    return (finds_sister and len(text.splitlines()) == 2) or re.fullmatch(r"atexit\.register\(\w+\)", text) is not None


def test_no_code_runs_when_slicer_imports_the_modules():
    files = module_files()
    wrong = []
    for name in imported_at_start():
        tree = ast.parse(files[name].read_text(encoding="utf-8"))
        wrong += [f"{name}, line {node.lineno}: {ast.unparse(node)}" for node in statements_that_run(tree) if not is_harmless(node)]
    assert not wrong, "\n".join(wrong)


def test_the_reader_of_statements_sees_what_runs():
    source = "import a\nX = 1\nY = re.compile('x')\nZ = open('f').read()\nprint(1)\nfor i in X:\n    pass\nW = lambda: run()\n'text'\nV: int = run()\n"
    assert [node.lineno for node in statements_that_run(ast.parse(source))] == [4, 5, 6, 10]


def test_slicer_starts_with_what_it_has():
    files = module_files()
    own = {name.partition(".")[0] for name in files}
    allowed = set(sys.stdlib_module_names) | ALLOWED | own
    for name, chain in imported_at_start().items():
        wrong = top_names(imports(files[name], file_scope_only=True)) - allowed
        assert not wrong, f"{chain} imports {', '.join(sorted(wrong))} at file scope"


def test_pytorch_is_left_to_its_extension():
    """No file of the modules asks pip for torch, and torch is in no list that a module installs."""
    for path in (path for module in MODULES for path in project_files() if path.is_relative_to(module)):
        text = path.read_text(encoding="utf-8") if path.suffix in (".py", ".txt") else ""
        if path.name.endswith("requirements.txt"):
            assert not re.search("^torch", text, re.MULTILINE), path
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" and "pip_" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("pip_install", "pip_ensure"):
                assert "torch" not in ast.unparse(node), path


# --- The page ------------------------------------------------------------------------------------------------------


def test_the_readme_answers_the_reviewers_questions():
    readme = Page(ROOT / "README.md")
    summary = readme.text.split("\n\n")[1]
    assert 1 <= len(re.findall(r"\.(?=\s|$)", summary)) <= 2, "the summary has one or two sentences"
    assert any(is_picture and (ROOT / address).is_file() for is_picture, address in readme.links)
    for module in MODULES:
        title = re.sub("^IMT", "IMT ", module.name)
        row = next(line for line in readme.text.splitlines() if line.startswith("| **") and title in line)
        assert re.search(r"\| [A-Z][^|]+\. \|", row) or re.search(r"\| [A-Z][^|]+\.", row), f"{title} has a sentence"
        assert "![" in row, f"{title} has a picture"
    assert {"citing", "quick-start-in-slicer", "install", "licence"} <= readme.anchors
    assert "doi.org/" in readme.text


def test_a_tutorial_goes_step_by_step_and_says_where_the_data_are():
    tutorial = Page(ROOT / "Resources" / "Documentation" / "tutorial.md")
    assert len(re.findall(r"^\d+\. ", tutorial.text, re.MULTILINE)) >= 10
    samples = {entry["name"] for path in project_files() if path.name == "IMT-sample-data.json" for entry in json.loads(path.read_text(encoding="utf-8"))}
    assert "Sample Data" in tutorial.text
    assert samples & set(re.findall(r"\w+", tutorial.text))
    assert any(is_picture for is_picture, _ in tutorial.links)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_tells_its_category_and_that_it_is_for_research(module):
    text = (module / f"{module.name}.py").read_text(encoding="utf-8")
    assert re.search(r'self\.parent\.categories = \[translate\("qSlicerAbstractCoreModule", "(Image Synthesis|Registration|Segmentation)"\)\]', text)
    assert "For research, not for diagnosis" in " ".join(text.split())
    assert "acknowledgementText" in text
