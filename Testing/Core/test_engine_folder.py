"""The registration engines' own package folder, which `make setup` builds with the code that does it inside Slicer."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from IMTCore.child_environment import worker_environment
from IMTSlicerLib.package_folders import PackageFolder

FOLDER = Path(sys.prefix) / "engines"
REQUIREMENTS = Path(__file__).resolve().parents[2] / "Resources" / "requirements" / "engines.txt"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="there is no folder of engines beside this Python: make setup builds it")


def in_child(code: str) -> str:
    """What a child process with the folder first on its path prints."""
    done = subprocess.run([sys.executable, "-c", code], env=worker_environment([FOLDER]), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_folder_holds_what_the_requirements_say():
    assert PackageFolder("engines", REQUIREMENTS, FOLDER).missing() == []


def test_an_engine_process_sees_the_older_scipy_and_this_one_keeps_its_own():
    mine = importlib.metadata.version("scipy")
    theirs, place = in_child("import scipy; print(scipy.__version__, scipy.__file__)").split(maxsplit=1)
    assert Path(place).is_relative_to(FOLDER)
    assert tuple(map(int, theirs.split(".")[:2])) < (1, 16)
    assert importlib.metadata.version("scipy") == mine and not Path(importlib.util.find_spec("scipy").origin).is_relative_to(FOLDER)


@pytest.mark.parametrize("code", ["import ants; print(ants.image_clone.__name__)", "import itk; print(itk.ElastixRegistrationMethod.__name__)"])
def test_the_engines_can_be_imported_there(code):
    assert in_child(code)


def test_greedy_is_there():
    assert in_child("from picsl_greedy import Greedy3D; print(Greedy3D.__name__)") == "Greedy3D"


def test_nothing_of_the_folder_reaches_the_process_that_starts_an_engine():
    """Its path, its modules and its environment stay as they were, while the engine itself runs with the folder's numpy."""
    code = """
import json, os, sys
import numpy, scipy
from pathlib import Path
before = list(sys.path), dict(os.environ)
from IMTRegisterLib.engines.session import EngineProcess
folder = Path(sys.argv[1])
process = EngineProcess("greedy", folder, 1)
assert process.answer(lambda: False) == {"ready": True}
maps = Path(f"/proc/{process.pid}/maps")
theirs = maps.read_text() if maps.exists() else str(folder / "numpy")
process.end()
mine = [str(module.__file__) for module in sys.modules.values() if getattr(module, "__file__", None)]
print(json.dumps({"same": before == (list(sys.path), dict(os.environ)),
                  "leaked": [path for path in sys.path + mine if Path(path).is_relative_to(folder)],
                  "engine": str(folder / "numpy") in theirs}))
"""
    environment = worker_environment()
    assert str(FOLDER) not in environment["PYTHONPATH"] + environment["IMT_PATHS"]
    done = subprocess.run([sys.executable, "-c", code, str(FOLDER)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"same": True, "leaked": [], "engine": True}
