"""Claims on `imt doctor`: each failure that it knows is made for real and found, a sound installation has none, and its
report holds nothing private."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import sys
import tomllib
from typing import Any

import pytest
from installation_faults import FAULTS, MODULES, NEEDS_NAMESPACES, ROOT, Doctor, Maker, can_unshare
from packages import write_tiny_package

from IMTCommand.doctor_packages import REQUIRED, SLICERS
from IMTCommand.doctor_problems import PROBLEMS, STATES

posix = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand for drivers and limits")


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """The findings of what makes some faults; each runs once."""
    made: dict[Maker, list[dict[str, Any]]] = {}

    def of(maker: Maker) -> list[dict[str, Any]]:
        if maker not in made:
            made[maker] = maker(Doctor(tmp_path_factory.mktemp(maker.__name__)))
        return made[maker]

    return of


def test_each_failure_of_the_table_can_be_made_here():
    assert FAULTS.keys() == PROBLEMS.keys()


@posix
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_failure_is_found_and_its_remedy_told(findings, problem):
    maker, words = FAULTS[problem]
    if maker in NEEDS_NAMESPACES and not can_unshare(*NEEDS_NAMESPACES[maker]):
        pytest.skip(f"unshare {' '.join(NEEDS_NAMESPACES[maker])} is not allowed here")
    found = findings(maker)
    hits = [check for check in found if check["problem"] == problem]
    assert hits, [(check["name"], check["state"], check["detail"]) for check in found]
    for check in hits:
        assert (check["state"], check["remedy"]) == (PROBLEMS[problem].state, PROBLEMS[problem].remedy)
    assert any(all(word in check["detail"] for word in words) for check in hits), [check["detail"] for check in hits]


@posix
def test_a_package_that_ends_python_hides_no_other(findings):
    names = [check["name"] for check in findings(FAULTS["package-crashes"][0])]
    assert set(REQUIRED) <= set(names)


def test_a_sound_installation_has_none_of_them(tmp_path):
    doctor = Doctor(tmp_path)
    found = doctor.run("--only", "packages", "folders", "models", "surroundings", "--slicer", "5.12")
    about_this_computer = {"temp-full", "user-disk", "loopback", "temp-name"}
    wrong = [check for check in found if check["problem"] and check["problem"] not in about_this_computer]
    # The copy of IMT that is installed here may be another one than this, as a wheel is tested.
    assert not [check for check in wrong if check["problem"] != "two-copies"]
    assert {"numpy", "models", "user data", "slicer"} <= {check["name"] for check in found}


def test_the_table_can_be_read():
    for name, problem in PROBLEMS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name) and problem.state in STATES[1:], name
        assert problem.remedy.endswith(".") and len(problem.remedy) < 300 and problem.text and problem.found, name


def load_page_maker():
    sys.path.insert(0, str(ROOT / "Testing"))
    spec = importlib.util.spec_from_file_location("make_doctor_page", ROOT / "Testing" / "make_doctor_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_failures_has_the_table_row_by_row():
    page = ROOT / "Resources" / "Documentation" / "doctor.md"
    assert load_page_maker().main(["--check"]) == 0, "run  python Testing/make_doctor_page.py"
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(name, problem.state) for name, problem in PROBLEMS.items()]


def test_the_troubleshooting_chapters_send_to_failures_that_the_doctor_knows():
    """A row on the installation names the doctor's word for it, as (`imt doctor`: `word`)."""
    about = re.compile(r"not installed|CPU build|NVIDIA|PyTorch build|numpy|SimpleITK|read-only|not writable", re.IGNORECASE)
    chapters = {}
    for path in [ROOT / "README.md", *(module / "README.md" for module in MODULES)]:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if "\n## Troubleshooting" in text:
            chapters[path] = text.partition("\n## Troubleshooting")[2].partition("\n## ")[0]
    assert ROOT / "README.md" in chapters and "doctor.md" in chapters[ROOT / "README.md"]
    for path, chapter in chapters.items():
        named = re.findall(r"`imt doctor`: `([a-z-]+)`", chapter)
        assert set(named) <= PROBLEMS.keys(), path
        for row in (line for line in chapter.splitlines() if line.startswith("|")):
            problem = row.split("|")[1]
            if about.search(problem):
                assert re.search(r"`imt doctor`: `[a-z-]+`", row), f"{path.name}: {row}"


def test_versions_are_those_that_are_declared_elsewhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(project["dependencies"]) == sorted(name + wanted for name, wanted in REQUIRED.items())
    pins = dict(re.findall(r"^(\w+)==(.+)$", (ROOT / "Testing" / "Installation" / "slicer-pins.txt").read_text(), re.MULTILINE))
    assert SLICERS["5.12"].items() <= pins.items()


def test_a_report_holds_no_folder_and_no_name_of_the_users(tmp_path):
    private = tmp_path / "ann.smith"
    doctor = Doctor(private)
    models = private / "patients of smith"
    write_tiny_package(models, name="smith-T1-T2")
    write_tiny_package(models, name="smith-broken").with_suffix(".safetensors").unlink()
    (models / "smith-torn.json").write_text("{")
    doctor.environment |= {"IMT_MODELS": str(models), "IMT_PACKAGES": str(private / "file" / "x"), "USER": "ann.smith", "LOGNAME": "ann.smith"}
    (private / "file").touch()
    found = doctor.run("--only", "folders", "models", "surroundings", "engines")
    text = json.dumps(found, ensure_ascii=False)
    for secret in ("smith", str(tmp_path), str(ROOT), socket.gethostname()):
        assert secret not in text, re.findall(rf".{{60}}{re.escape(secret)}.{{20}}", text)
    assert {"model-weights", "model-card", "user-folder"} <= {check["problem"] for check in found}
    assert all(check["remedy"] == PROBLEMS[check["problem"]].remedy for check in found if check["problem"])
