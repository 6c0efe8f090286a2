"""Faults of an installation, made for real round a child process that runs `imt doctor`.

A broken package is one that lies first on PYTHONPATH and stands for the real one; a full disk is a small file system, a
blocked network one without its loopback, each in a namespace of the child's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packages import write_tiny_package
from wheels import unpack, write_wheel

ROOT = Path(__file__).resolve().parents[2]
MODULES = [ROOT / name for name in ("IMTTranslate", "IMTRegister", "IMTSegment")]
SHIPPED = ROOT / "IMTTranslate" / "Resources" / "IMT-models"
SECONDS = 180

TORCH = """
import types
version = types.SimpleNamespace(cuda=None, hip=None)
backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
def from_numpy(array): return array
"""
CUDA = TORCH.replace("cuda=None", "cuda='12.8'")
OLD_DRIVER = f"""{CUDA}
def init(): raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver.")
cuda = types.SimpleNamespace(is_available=lambda: False, init=init)
"""
NO_GPU = f"""{CUDA}
def init(): raise RuntimeError("No CUDA GPUs are available")
cuda = types.SimpleNamespace(is_available=lambda: False, init=init)
"""
# The first GPU is too new, the second breaks, the third is full.
THREE_GPUS = f"""{CUDA}
class Product:
    def __matmul__(self, other): return self
    def __getitem__(self, place): return 8.0
def ones(*shape, device):
    if device == "cuda:0": raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
    if device == "cuda:1": raise RuntimeError("CUDA error: unspecified launch failure")
    return Product()
cuda = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 3, mem_get_info=lambda index: (1e9, 8e9),
    get_device_properties=lambda index: types.SimpleNamespace(name="A GPU", major=12, minor=0))
"""
GOOD = {"torch": "2.13.0", "SimpleITK": "2.5.5", "safetensors": "0.8.0", "nibabel": "5.4.2", "scipy": "1.17.1"}


class Doctor:
    """A child process that runs `imt doctor --json`, with what surrounds it.

    :param folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fakes, self.temp, self.home = folder / "fakes", folder / "temp", folder / "home"
        for made in (self.fakes, self.temp, self.home):
            made.mkdir(parents=True)
        names = {name: value for name, value in os.environ.items() if not name.startswith(("IMT_", "PYTHON", "ITK_", "XDG_"))}
        self.modules: list[Path] = MODULES
        self.environment = {**names, "HOME": str(self.home), "TMPDIR": str(self.temp), "IMT_ENGINES": str(folder / "none")}
        self.python = [sys.executable, "-m", "IMTCommand"]
        self.before: list[str] = []  # a command that runs the rest of its line

    def fake(self, name: str, version: str = "", code: str = "", needs: tuple[str, ...] = ()) -> None:
        """Put a package before the real one."""
        number = version or GOOD[name]
        unpack(self.fakes, write_wheel(self.folder / "wheels", name, number, module=name, code=code, needs=needs))

    def fake_all(self, torch: str = f"{TORCH}cuda = types.SimpleNamespace(is_available=lambda: False)\n") -> None:
        """Put light packages in the place of all that are needed but numpy: a run with them takes little time."""
        for name in GOOD:
            self.fake(name, code=torch if name == "torch" else "")

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """The findings."""
        environment = self.environment | {"PYTHONPATH": os.pathsep.join(map(str, [self.fakes, *self.modules]))}
        command = [*self.before, *self.python, "doctor", "--json", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS, cwd=self.folder)
        assert done.returncode in (0, 1), done.stderr
        report = json.loads(done.stdout)
        bad = any(check["state"] == "bad" for check in report["checks"])
        assert done.returncode == int(bad), done.stderr
        return report["checks"]


def can_unshare(*options: str) -> bool:
    """Whether a child may have namespaces of its own here."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------- each makes some faults and returns the findings


def python_of_ten_years(doctor: Doctor) -> list[dict[str, Any]]:
    """Python says that it is 3.10, and has no packages at all."""
    code = (
        "import collections, sys; sys.version_info = collections.namedtuple('V', 'major minor micro releaselevel serial')"
        "(3, 10, 4, 'final', 0); from IMTCommand.__main__ import main; sys.exit(main())"
    )
    doctor.python = [sys.executable, "-S", "-c", code]
    return doctor.run("--only", "packages", "models")


def broken_packages(doctor: Doctor) -> list[dict[str, Any]]:
    """Each package broken in another way."""
    doctor.fake_all()
    doctor.fake("nibabel", code="raise ImportError('DLL load failed while importing _x')")
    doctor.fake("safetensors", code="import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(60)")
    size = "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject"
    doctor.fake("scipy", code=f"raise ValueError({size!r})")
    doctor.fake("SimpleITK", "2.0.0")
    return doctor.run("--only", "packages")


def replaced_packages(doctor: Doctor) -> list[dict[str, Any]]:
    """Packages that other installers have been at."""
    doctor.fake_all()
    doctor.fake("scipy", "1.15.3")
    doctor.fake("antspyx", "0.6.3", needs=("scipy<1.15", "numpy>=1.25"))
    unpack(doctor.fakes, write_wheel(doctor.folder / "wheels", "SimpleITK-SimpleElastix", "2.4", module="SimpleITK"))
    return doctor.run("--only", "packages", "--slicer", "5.12.3")


def cpu_torch_beside_a_gpu(doctor: Doctor) -> list[dict[str, Any]]:
    """A driver whose tool lists a GPU."""
    doctor.fake_all()
    tool = doctor.folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 5090, 575.51'\n")
    tool.chmod(0o755)
    doctor.environment["PATH"] = f"{tool.parent}{os.pathsep}{doctor.environment['PATH']}"
    return doctor.run("--only", "computing")


def old_driver(doctor: Doctor) -> list[dict[str, Any]]:
    """A CUDA build whose driver is too old; and a process that may not have much memory."""
    doctor.fake_all(OLD_DRIVER)
    doctor.before = ["sh", "-c", 'ulimit -v 3900000 && exec "$@"', "sh"]
    return doctor.run("--only", "computing")


def no_gpu(doctor: Doctor) -> list[dict[str, Any]]:
    """A CUDA build on a computer without a GPU."""
    doctor.fake_all(NO_GPU)
    return doctor.run("--only", "computing")


def three_gpus(doctor: Doctor) -> list[dict[str, Any]]:
    """GPUs that do not compute, or have no memory left."""
    doctor.fake_all(THREE_GPUS)
    return doctor.run("--only", "computing")


def bad_folders(doctor: Doctor) -> list[dict[str, Any]]:
    """Files where folders should be."""
    (doctor.folder / "file").touch()
    doctor.environment |= {"TMPDIR": str(doctor.folder / "file"), "IMT_PACKAGES": str(doctor.folder / "file" / "packages")}
    return doctor.run("--only", "folders")


def full_disk(doctor: Doctor) -> list[dict[str, Any]]:
    """A small file system, of a name with other letters, that holds the temporary files and the user's data."""
    small = doctor.folder / "größe"
    small.mkdir()
    doctor.environment |= {"TMPDIR": str(small), "XDG_DATA_HOME": str(small)}
    doctor.before = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=3m none "$0" && exec "$@"', str(small)]
    return doctor.run("--only", "folders")


def odd_temp_folder(doctor: Doctor) -> list[dict[str, Any]]:
    """A folder for temporary files whose name has other letters."""
    doctor.environment["TMPDIR"] = str(doctor.temp / "größe")
    (doctor.temp / "größe").mkdir()
    return doctor.run("--only", "folders")


def bad_models(doctor: Doctor) -> list[dict[str, Any]]:
    """Models of the user's own: one broken in each way."""
    models = doctor.folder / "models"
    doctor.environment["IMT_MODELS"] = str(models)
    changed = write_tiny_package(models, name="changed").with_suffix(".safetensors")
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    write_tiny_package(models, name="gone").with_suffix(".safetensors").unlink()
    (models / "torn.json").write_text('{"name": ')
    return doctor.run("--only", "models")


def no_models(doctor: Doctor) -> list[dict[str, Any]]:
    """A copy of IMT without its Resources."""
    doctor.modules = [copy_of_imt(doctor.folder / "copy")]
    return doctor.run("--only", "models")


def copy_of_imt(folder: Path) -> Path:
    """The core and the command line, in another place."""
    for name in ("IMTCore", "IMTCommand"):
        shutil.copytree(ROOT / "IMTTranslate" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def no_engines(doctor: Doctor) -> list[dict[str, Any]]:
    """A folder of engines that is not there."""
    return doctor.run("--only", "engines")


def broken_engines(doctor: Doctor) -> list[dict[str, Any]]:
    """One engine of three, and that one broken."""
    engines = doctor.folder / "engines"
    code = "raise ImportError('libgomp.so.1: cannot open shared object file')"
    unpack(engines, write_wheel(doctor.folder / "wheels", "picsl_greedy", "1.4.0.3", code=code))
    doctor.environment["IMT_ENGINES"] = str(engines)
    return doctor.run("--only", "engines")


def odd_surroundings(doctor: Doctor) -> list[dict[str, Any]]:
    """Variables that are set, and another copy of IMT."""
    doctor.fake_all()
    doctor.environment["ITK_AUTOLOAD_PATH"] = "/nowhere"
    doctor.modules = [*MODULES, copy_of_imt(doctor.folder / "copy")]
    return doctor.run("--only", "surroundings")


def no_loopback(doctor: Doctor) -> list[dict[str, Any]]:
    """A network in which not even the computer itself is reached."""
    doctor.fake_all()
    doctor.before = ["unshare", "-rn"]
    return doctor.run("--only", "surroundings")


Maker = Callable[[Doctor], list[dict[str, Any]]]
# Problem of the doctor's table -> what makes it, and words that its finding is to have.
FAULTS: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "old-python": (python_of_ten_years, ()),
    "package-missing": (python_of_ten_years, ("No module named",)),
    "not-examined": (python_of_ten_years, ("numpy",)),
    "pydicom-missing": (python_of_ten_years, ("optional",)),
    "dask-missing": (python_of_ten_years, ("optional",)),
    "package-broken": (broken_packages, ("DLL load failed",)),
    "package-crashes": (broken_packages, ("Python ended",)),
    "numpy-abi": (broken_packages, ("numpy.dtype size changed",)),
    "package-old": (broken_packages, ("2.0.0", ">=2.4")),
    "package-overwritten": (replaced_packages, ("SimpleITK",)),
    "slicer-package-changed": (replaced_packages, ("scipy 1.15.3 instead of 1.17.1",)),
    "requirement-conflict": (replaced_packages, ("antspyx 0.6.3 wants scipy<1.15",)),
    "engines-beside": (replaced_packages, ("antspyx",)),
    "torch-cpu-build": (cpu_torch_beside_a_gpu, ("RTX 5090", "CPU build")),
    "driver-too-old": (old_driver, ("too old", "11040")),
    "memory": (old_driver, ("4.0 GB", "limit")),
    "no-gpu": (no_gpu, ()),
    "no-kernel": (three_gpus, ("cuda:0", "no kernel image")),
    "gpu-fails": (three_gpus, ("cuda:1", "launch failure")),
    "gpu-memory": (three_gpus, ("1.0 of 8.0 GB",)),
    "tiny-run": (three_gpus, ("Error",)),
    "temp-folder": (bad_folders, ("cannot be written",)),
    "user-folder": (bad_folders, ("IMT_PACKAGES",)),
    "temp-full": (full_disk, ("0.0 GB",)),
    "user-disk": (full_disk, ("0.0 GB",)),
    "temp-name": (odd_temp_folder, ()),
    "no-models": (no_models, ()),
    "model-card": (bad_models, ("not valid JSON",)),
    "model-weights": (bad_models, ("No such file",)),
    "model-changed": (bad_models, ("not the file",)),
    "engines-missing": (no_engines, ("not installed",)),
    "engines-other": (broken_engines, ("antspyx", "itk-elastix")),
    "engine-broken": (broken_engines, ("Greedy", "libgomp")),
    "pythonpath": (odd_surroundings, ("scipy comes from",)),
    "itk-autoload": (odd_surroundings, ("ITK_AUTOLOAD_PATH",)),
    "two-copies": (odd_surroundings, ("is used; also",)),
    "loopback": (no_loopback, ("127.0.0.1",)),
}
NEEDS_NAMESPACES: dict[Maker, tuple[str, ...]] = {full_disk: ("-rm",), no_loopback: ("-rn",)}
