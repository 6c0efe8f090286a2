"""Prove that installing what IMT needs into a Python like Slicer's changes none of Slicer's own packages.

    python Testing/Installation/check_slicer_pins.py [--python python3.12] [--torch WHEEL_OR_REQUIREMENT] [--no-engines]

It makes a new environment with the packages of slicer-pins.txt, hashes every file of theirs, and installs as IMT does inside Slicer:
the packages of the first run (IMTSlicerLib.dependencies), the registration engines (IMTSlicerLib.package_folders), then what a user may
add for DICOM and for cohorts. After each step versions and files are compared, and `pip check` is run. The exit code is 1 if anything
has changed. It downloads some gigabytes; --no-engines leaves out most of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PINS = HERE / "slicer-pins.txt"
ENGINES = ROOT / "IMTRegister" / "Resources" / "IMT-register-requirements.txt"
SLICERS_PYTHON = "3.12"

# Version, number of files and one hash over the content of all files, of each distribution named.
SNAPSHOT = """
import hashlib, importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    distribution = importlib.metadata.distribution(name)
    digest, count = hashlib.sha256(), 0
    for file in sorted(distribution.files, key=str):
        path = distribution.locate_file(file)
        if str(file).endswith((".pyc", "RECORD", "REQUESTED", "INSTALLER")):
            continue
        count += 1
        digest.update(str(file).encode() + b"\\0")
        digest.update(path.read_bytes() if path.is_file() else b"missing")
    found[name] = [distribution.version, count, digest.hexdigest()]
print(json.dumps(found))
"""


def find_python(wish: str | None) -> str:
    """The interpreter to make the environment with: the one wished for, one of Slicer's version, else this one."""
    if wish:
        return wish
    places = [shutil.which(f"python{SLICERS_PYTHON}"), *sorted(Path.home().glob(f".pyenv/versions/{SLICERS_PYTHON}.*/bin/python"))]
    for place in filter(None, places):
        try:
            done = subprocess.run([str(place), "--version"], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.returncode == 0 and f" {SLICERS_PYTHON}." in done.stdout:
            return str(place)
    print(f"There is no Python {SLICERS_PYTHON} here: {platform.python_version()} stands in for Slicer's.")
    return sys.executable


class Environment:
    """A new virtual environment that stands for Slicer's Python."""

    def __init__(self, python: str, folder: Path) -> None:
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        self.python = next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())
        self.pinned = [line.partition("==")[0] for line in PINS.read_text().splitlines() if "==" in line]

    def run(self, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run its Python, without the packages of the Python that this script runs in."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run([str(self.python), *map(str, arguments)], env=environment, text=True, check=False, **options)

    def install(self, *arguments: object) -> None:
        """Plain pip, which must succeed."""
        done = self.run("-m", "pip", "install", "--quiet", "--only-binary", ":all:", *arguments)
        if done.returncode:
            raise SystemExit(f"pip could not install {' '.join(map(str, arguments))}.")

    def names(self) -> list[str]:
        """The pinned packages, and those that came with itk, in which its files are."""
        freeze = json.loads(self.run("-m", "pip", "list", "--format", "json", capture_output=True).stdout)
        return [*self.pinned, *sorted(entry["name"] for entry in freeze if entry["name"].lower().startswith(("itk-", "itk_")))]

    def snapshot(self, names: list[str]) -> dict[str, list]:
        """Name -> version, number of files, hash of their content."""
        return json.loads(self.run("-c", SNAPSHOT, *names, capture_output=True).stdout)

    def conflicts(self) -> list[str]:
        """What `pip check` finds wrong."""
        done = self.run("-m", "pip", "check", capture_output=True)
        return [] if done.returncode == 0 else done.stdout.strip().splitlines()


def compare(step: str, before: dict[str, list], after: dict[str, list]) -> bool:
    """Print a step's table; returns whether nothing has changed."""
    print(f"\nAfter {step}:\n{'package':<22}{'before':<12}{'after':<12}{'files':>7}  content")
    for name, (version, count, digest) in before.items():
        new = after.get(name, ["gone", 0, ""])
        print(f"{name:<22}{version:<12}{new[0]:<12}{count:>7}  {'same' if new[2] == digest else 'CHANGED'} {digest[:12]}")
    return before == after


def main(arguments: list[str] | None = None) -> int:
    """Make the environment, install, compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", metavar="PYTHON", help=f"interpreter to use (default: Python {SLICERS_PYTHON} if there is one)")
    parser.add_argument("--torch", metavar="WHAT", help="wheel or requirement to install for torch (default: an empty package)")
    parser.add_argument("--no-engines", action="store_true", help="leave the registration engines out")
    parser.add_argument("--folder", type=Path, help="where to work; kept (default: a temporary folder, removed)")
    values = parser.parse_args(arguments)
    folder = values.folder or Path(tempfile.mkdtemp(prefix="imt-pins-"))
    try:
        return check(find_python(values.python), values.torch, not values.no_engines, folder)
    finally:
        if values.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def check(python: str, torch: str | None, with_engines: bool, folder: Path) -> int:
    """All steps in a folder; returns the exit code."""
    environment = Environment(python, folder / "python")
    version = environment.run("-c", "import platform; print(platform.python_version())", capture_output=True).stdout.strip()
    print(f"Python {version}, pins of Slicer 5.12: {', '.join(line for line in PINS.read_text().splitlines() if '==' in line)}", flush=True)
    environment.install("-r", PINS)
    provide_torch(environment, torch)
    names = environment.names()
    before, conflicts = environment.snapshot(names), environment.conflicts()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    steps = {"the first run's packages (IMTSlicerLib.dependencies)": [HERE / "slicer_stand_in.py"]}
    if with_engines:
        where = folder / "packages" / "register"
        install = ["-m", "IMTSlicerLib.package_folders", "install", "--requirements", ENGINES, "--folder", where]
        steps["the engines (IMTSlicerLib.package_folders)"] = install
    optional = [*extras["dicom"], *extras["cohort"]]
    steps[f"what a user may add ({', '.join(optional)})"] = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", *optional]
    good = True
    for step, command in steps.items():
        done = environment.run(*command, cwd=ROOT / "IMTTranslate", stdout=subprocess.DEVNULL)
        if done.returncode:
            print(f"\nInstalling {step} failed (exit code {done.returncode}).")
            return 1
        good = compare(step, before, environment.snapshot(names)) and good
        new = [line for line in environment.conflicts() if line not in conflicts]
        print("pip check: " + ("; ".join(new) if new else "no new conflict"), flush=True)
        good = good and not new
    print(f"\n{'Nothing of Slicer has changed.' if good else 'SOMETHING OF SLICER HAS CHANGED.'}")
    return 0 if good else 1


def provide_torch(environment: Environment, torch: str | None) -> None:
    """What Slicer's PyTorch extension would have installed before IMT."""
    if torch:
        environment.install(torch, "-c", PINS)
        return
    place = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", capture_output=True).stdout.strip()
    (Path(place) / "torch").mkdir()
    (Path(place) / "torch" / "__init__.py").write_text('"""Stands for what the PyTorch extension installs."""\n')


if __name__ == "__main__":
    sys.exit(main())
