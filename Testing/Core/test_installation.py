"""Claims on installing and removing: Slicer's own packages stay, wheels are enough, and nothing is left in the user's home."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from installation_faults import MODULES, ROOT, Doctor
from packages import write_tiny_package
from wheels import unpack, write_wheel

HERE = ROOT / "Testing" / "Installation"
PINS = HERE / "slicer-pins.txt"
IN_SLICER = ROOT / "IMTTranslate" / "Resources" / "IMT-requirements.txt"
OWN = {"itk": "5.4.7", "numpy": "2.4.6", "scipy": "1.17.1", "SimpleITK": "2.5.5", "vtk": "9.6.2"}


# ---------------------------------------------------------------- what is installed into Slicer's Python


class Python:
    """A new environment with packages of the names and versions of Slicer's own, and a folder of wheels in the place of an index.

    :param folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "python")], check=True)
        scripts = "Scripts" if sys.platform == "win32" else "bin"
        self.program = folder / "python" / scripts / "python"
        names = {"base": str(folder / "python"), "platbase": str(folder / "python")}
        self.packages = Path(sysconfig.get_path("purelib", "venv", names))
        for name in ("pip", "packaging"):  # the tester's, so that none is to be downloaded
            (self.packages / name).symlink_to(Path(__import__(name).__file__).parent, target_is_directory=True)
        (self.packages / "torch").mkdir()  # stands for what the PyTorch extension installs
        (self.packages / "torch" / "__init__.py").touch()
        for name, version in OWN.items():
            unpack(self.packages, write_wheel(folder / "own", name, version))

    def first_run(self) -> subprocess.CompletedProcess[str]:
        """What IMT does in Slicer once its user agrees."""
        names = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        environment = {**names, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        command = [str(self.program), str(HERE / "slicer_stand_in.py")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120)

    def own(self) -> dict[str, bytes]:
        """The files of Slicer's own packages."""
        folders = [path for name in OWN for path in self.packages.glob(f"{name.lower()}*")]
        return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc" and path.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_the_first_run_in_slicer_installs_from_wheels_and_leaves_slicers_own_packages(tmp_path):
    python = Python(tmp_path)
    write_wheel(python.wheels, "numpy", "3.0")
    write_wheel(python.wheels, "nibabel", "5.4", needs=("numpy>=1.25",))
    write_wheel(python.wheels, "safetensors", "0.8")
    before = python.own()
    assert len(before) >= 4 * len(OWN)
    done = python.first_run()
    assert done.returncode == 0, done.stderr
    assert (python.packages / "nibabel").is_dir() and (python.packages / "safetensors").is_dir()
    assert python.own() == before


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_what_would_replace_numpy_is_not_installed_at_all(tmp_path):
    python = Python(tmp_path)
    write_wheel(python.wheels, "numpy", "3.0")
    write_wheel(python.wheels, "nibabel", "6.0", needs=("numpy>=3",))
    write_wheel(python.wheels, "safetensors", "0.8")
    before = python.own()
    done = python.first_run()
    assert done.returncode == 1 and "numpy==2.4.6" in done.stdout + done.stderr
    assert "unchanged" in done.stderr and "wheels" in done.stderr
    assert python.own() == before and not (python.packages / "safetensors").exists()


def test_the_requirements_fit_slicers_packages_and_pull_in_no_other_of_that_kind(tmp_path):
    """pip's own plan for Python 3.12, with the versions of Slicer 5.12 as constraints. Testing/Installation does it for real."""

    def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", *map(str, arguments), "--disable-pip-version-check", "--retries", "0", "--timeout", "10"]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)

    slicers = ("--python-version", "3.12", "--implementation", "cp", "--only-binary", ":all:")
    if pip("download", "--no-deps", "-d", tmp_path, *slicers, "safetensors").returncode:
        pytest.skip("no package index answers")
    report = tmp_path / "report.json"
    arguments = ("--dry-run", "--quiet", "--report", report, "--target", tmp_path / "target", *slicers, "-c", PINS, "-r", IN_SLICER)
    done = pip("install", *arguments)
    assert done.returncode == 0, done.stderr
    planned = {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in json.loads(report.read_text())["install"]}
    assert {"nibabel", "safetensors"} <= planned.keys()
    own = {name.lower(): version for name, version in re.findall(r"^(\w+)==(.+)$", PINS.read_text(), re.MULTILINE)}
    touched = {name: version for name, version in planned.items() if name in own or name.startswith(("itk", "vtk", "torch"))}
    assert touched == {"numpy": own["numpy"]}  # asked for in an empty target, and met by the version that is there


# ---------------------------------------------------------------- what is left, and its removal


def listing(folder: Path) -> dict[str, bytes | None]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def user(tmp_path) -> Doctor:
    """A user with a home as a desktop has it, and Slicer's settings in it."""
    user = Doctor(tmp_path)
    user.environment.pop("IMT_ENGINES")
    user.environment["RUSTUP_HOME"] = str(tmp_path / "rustup")  # pip asks for rustc's version, and rustup then writes there
    for name in (".local/share", ".config/slicer.org", ".cache"):
        (user.home / name).mkdir(parents=True)
    (user.home / ".config" / "slicer.org" / "Slicer.ini").write_text("[General]\nfont=@Größe\n\n[Modules]\nHome=Data\n", encoding="utf-8")
    return user


def imt(user: Doctor, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return python(user, "-m", "IMTCommand", *arguments, **options)


def python(user: Doctor, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    environment = user.environment | {"PYTHONPATH": os.pathsep.join(map(str, MODULES))}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120, cwd=user.folder, **options)
    return done


def use(user: Doctor) -> None:
    """Leave behind what IMT leaves: models, engines, a cache, settings, temporary folders."""
    card = write_tiny_package(user.folder / "models", name="mine")
    assert imt(user, "models", "import", card).returncode == 0
    write_wheel(user.folder / "wheels", "picsl_greedy", "1.4")
    (user.folder / "needs.txt").write_text("picsl_greedy\n")
    code = (
        "import sys; from IMTSlicerLib.package_folders import PackageFolder, install\n"
        "sys.exit(install(PackageFolder('register', sys.argv[1]), sys.argv[2]))"
    )
    done = python(user, "-c", code, user.folder / "needs.txt", user.folder / "wheels")
    assert done.returncode == 0, done.stderr
    code = (
        "from IMTRegisterLib.registration.settings import default_cache_folder as f\n"
        "f().mkdir(parents=True); (f() / 'warp.npz').write_bytes(bytes(5000))"
    )
    assert python(user, "-c", code).returncode == 0
    leave_settings_and_folders(user)


def leave_settings_and_folders(user: Doctor) -> None:
    """What Slicer's panels remember, and temporary folders of runs that were killed yesterday."""
    settings = user.home / ".config" / "slicer.org" / "Slicer.ini"
    text = "[IMTTranslate]\nsamples=8\n\n" + settings.read_text(encoding="utf-8") + "\n[IMTRegister]\nengine=ants\n"
    settings.write_text(text, encoding="utf-8")
    for name in ("imt-engine-old", "IMT-old", "Slicer-ann/IMT-job"):
        (user.temp / name).mkdir(parents=True)
        (user.temp / name / "half.nii.gz").write_bytes(bytes(100))
        for path in (user.temp / name / "half.nii.gz", user.temp / name):
            os.utime(path, (time.time() - 86400,) * 2)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="where a user's data lies on Linux")
def test_nothing_is_left_in_the_home_after_remove_all(user):
    before = listing(user.home)
    use(user)
    running = user.temp / "imt-engine-running"
    (running / "task1").mkdir(parents=True)
    os.utime(running, (time.time() - 86400,) * 2)  # something in it has changed just now
    (user.temp / "imt-other").mkdir()  # not IMT's
    left = json.loads(imt(user, "doctor", "--where", "--json").stdout)
    sizes = {entry["what"]: entry["bytes"] for entry in left}
    assert sizes.keys() == {"your models", "engines", "registration cache", "temporary", "settings in Slicer"}
    assert sizes["registration cache"] == 5000 and sizes["your models"] > 1000
    new = {name for name in listing(user.home).keys() - before.keys() if (user.home / name).is_file()}
    places = [Path(entry["path"]) for entry in left]
    assert not [name for name in new if not any((user.home / name).is_relative_to(place) for place in places)]

    done = imt(user, "doctor", "--remove-all", "--yes")
    assert done.returncode == 0, done.stderr
    after = listing(user.home)
    settings = ".config/slicer.org/Slicer.ini"
    assert after.pop(settings).decode().strip() == before.pop(settings).decode().strip()
    assert after == before
    assert sorted(path.name for path in user.temp.iterdir()) == ["Slicer-ann", "imt-engine-running", "imt-other"]
    assert "imt-engine-running" in done.stdout and not list((user.temp / "Slicer-ann").iterdir())
    assert "nothing to remove" in imt(user, "doctor", "--remove-all", "--yes").stdout


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="where a user's data lies on Linux")
def test_nothing_is_removed_unasked_and_a_folder_that_a_variable_names_stays(user):
    shared = user.folder / "shared models"
    write_tiny_package(shared, name="everybodys")
    leave_settings_and_folders(user)
    before = listing(user.home)
    refused = imt(user, "doctor", "--remove-all", stdin=subprocess.DEVNULL)
    assert refused.returncode == 2 and "--yes" in refused.stderr and listing(user.home) == before
    assert imt(user, "doctor", "--yes").returncode == 2

    user.environment["IMT_MODELS"] = str(shared)
    done = imt(user, "doctor", "--remove-all", "--yes")
    assert done.returncode == 0 and "IMT_MODELS names it" in done.stdout
    assert (shared / "everybodys.json").is_file()


# ---------------------------------------------------------------- make


def test_make_takes_all_from_a_folder_of_wheels_and_asks_no_index():
    done = subprocess.run(["make", "-n", "setup", "WHEELS=some wheels", "VENV=/nowhere"], capture_output=True, text=True, cwd=ROOT)
    installs = [line for line in done.stdout.replace("\\\n", " ").splitlines() if " install " in line and "-m" in line]
    assert len(installs) == 4
    assert all('--no-index --find-links "some wheels"' in line for line in installs[:3]) and '--wheels "some wheels"' in installs[3]
    refused = subprocess.run(["make", "setup", "WHEELS=/no/such", "VENV=/nowhere"], capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 2 and "no folder of wheels /no/such" in refused.stderr
