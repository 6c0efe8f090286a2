"""How IMT's own processes are started: with which Python, and what that Python finds.

Standard library only: a child process is started from Slicer, from `imt`, and from `make setup`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

# The second half is there only if those modules are installed.
MODULE_PACKAGES = ("IMTCore", "IMTCommand", "IMTRegisterLib", "IMTSegmentLib")


def python_executable() -> str:
    """Slicer's Python interpreter (in Slicer, sys.executable may be the application itself), or this one."""
    found = shutil.which("PythonSlicer")
    if found:
        return found
    name = "PythonSlicer.exe" if sys.platform == "win32" else "PythonSlicer"
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else sys.executable


def module_folders() -> list[str]:
    """The folders in which IMT's packages lie: one if installed, one a module in a checkout. Nothing is imported."""
    here = Path(__file__).resolve().parents[1]
    beside = sorted(folder for folder in here.parent.glob("IMT*") if folder.is_dir())
    folders: list[str] = []
    for name in MODULE_PACKAGES:
        # This package's own folder comes first: its protocol fits the command beside it, not one installed elsewhere.
        places = [here, _imported_from(name), *beside]
        place = next((place for place in places if place and (place / name / "__init__.py").is_file()), None)
        if place and str(place) not in folders:
            folders.append(str(place))
    return folders


def _imported_from(name: str) -> Path | None:
    try:
        specification = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a half-imported package
        return None
    if specification is None or not specification.submodule_search_locations:
        return None
    return Path(next(iter(specification.submodule_search_locations))).resolve().parent


PATHS_VARIABLE = "IMT_PATHS"
# PythonSlicer is a launcher that puts Slicer's own packages before what PYTHONPATH says: an engine's older scipy would
# lose against Slicer's. So the paths come in a variable of our own, and are put first inside the process.
_BOOTSTRAP = (
    "import os, runpy, sys; "
    f"sys.path[:0] = [path for path in os.environ.get('{PATHS_VARIABLE}', '').split(os.pathsep) if path]; "
    "runpy.run_module('{module}', run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a Python module as `python -m` does, with `worker_environment`'s paths before all others."""
    # -P: a file torch.py in the folder that Slicer was started from is not the torch that is meant.
    return [python_executable(), "-P", "-c", _BOOTSTRAP.replace("{module}", module), *arguments]


def worker_environment(package_folders: Iterable[str | Path] = ()) -> dict[str, str]:
    """The environment of a worker process.

    :param package_folders: folders of packages that come before all others, such as the registration engines'.
    """
    environment = dict(os.environ)
    paths = [str(folder) for folder in package_folders] + module_folders()
    environment[PATHS_VARIABLE] = os.pathsep.join(paths)
    paths += [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in paths]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["PYTHONUTF8"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    environment.pop("ITK_AUTOLOAD_PATH", None)  # it makes ITK's wheels crash; PythonSlicer sets it again, and `imt` pops it again
    return environment
