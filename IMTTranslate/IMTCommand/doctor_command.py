"""`imt doctor`: what is installed, whether it works, and what to do about what does not."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass

from IMTCore.version import VERSION

MIN_MEMORY_GB = 4.0
MIN_DISK_GB = 1.0
REQUIRED = {
    "numpy": "pip install numpy",
    "torch": "pip install torch (in Slicer: install the PyTorch extension)",
    "SimpleITK": "pip install SimpleITK (Slicer has its own: reinstall Slicer)",
    "safetensors": "pip install safetensors",
    "nibabel": "pip install nibabel",
    "scipy": "pip install scipy",
}


@dataclass(frozen=True)
class Check:
    """One finding: `state` is good, warning or bad; `remedy` is empty if good."""

    name: str
    state: str
    detail: str
    remedy: str = ""


def run(values: argparse.Namespace) -> int:
    """Print the findings; exit 0 unless something that every run needs is bad."""
    checks = examine()
    if values.json:
        print(json.dumps({"imt": VERSION, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            print(f"{check.state:<8} {check.name:<12} {check.detail}")
            if check.remedy:
                print(f"{'':<8} {'':<12} -> {check.remedy}")
    return 1 if any(check.state == "bad" for check in checks) else 0


def examine() -> list[Check]:
    """All findings."""
    checks = [Check("python", "good", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")]
    if sys.version_info < (3, 11):
        checks = [Check("python", "bad", platform.python_version(), "Use Python 3.11 or newer.")]
    packages = [_package(name, remedy) for name, remedy in REQUIRED.items()]
    checks += packages
    checks += [_memory(), _disk()]
    if all(check.state != "bad" for check in packages):
        checks += [_gpu(), _models(), *_segmenters(), *_tiny_run()]
    return checks


def _package(name: str, remedy: str) -> Check:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken binary raises anything
        return Check(name, "bad", f"cannot be imported ({type(error).__name__}: {error})", remedy)
    return Check(name, "good", str(getattr(module, "__version__", "?")))


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return Check("memory", "good", "size not known on this system")
    if total < MIN_MEMORY_GB:
        return Check("memory", "warning", f"{total:.1f} GB", "Use --batch 1; close other programs.")
    return Check("memory", "good", f"{total:.1f} GB")


def _disk() -> Check:
    import tempfile

    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e9
    if free < MIN_DISK_GB:
        return Check("disk", "warning", f"{free:.1f} GB free in {folder}", "Free some space, or set TMPDIR to a larger disk.")
    return Check("disk", "good", f"{free:.1f} GB free in {folder}")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        names = []
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            names.append(f"cuda:{index} {properties.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, capability {properties.major}.{properties.minor}")
        try:
            value = float((torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda"))[0, 0])
            if value != 8:
                raise RuntimeError(f"a product gave {value}")
        except RuntimeError as error:
            remedy = "Install a PyTorch build for this GPU (newer CUDA), or use --device cpu."
            return Check("gpu", "bad", f"{'; '.join(names)}: does not compute ({str(error).splitlines()[0]})", remedy)
        return Check("gpu", "good", "; ".join(names))
    if torch.backends.mps.is_available():
        return Check("gpu", "good", "Apple Metal (mps)")
    if torch.version.cuda is None:
        return Check("gpu", "good", "none used: this PyTorch is a CPU build (with an NVIDIA GPU, install a CUDA build of torch)")
    return Check("gpu", "warning", "PyTorch has CUDA, but finds no GPU", "Check the NVIDIA driver (nvidia-smi), or go on with the CPU.")


def _models() -> Check:
    from IMTCore.catalogue import list_cards, user_folder

    cards, problems = list_cards()
    ready = [card.name for card in cards if card.weights_path.is_file()]
    if problems:
        return Check("models", "warning", problems[0], "Remove or import that model again.")
    if not ready:
        return Check("models", "bad", f"none found (shipped folder, {user_folder()})", "Reinstall IMT, or: imt models import FILE")
    return Check("models", "good", ", ".join(ready))


def _segmenters() -> list[Check]:
    from .model_finding import has_segmenters

    if not has_segmenters():
        return []
    from IMTSegmentLib.segmenter_catalogue import list_segmenters, user_folder

    cards, problems = list_segmenters()
    ready = [card.name for card in cards if card.weights_path.is_file()]
    if problems:
        return [Check("segmenters", "warning", problems[0], "Remove or import that model again.")]
    if not ready:
        return [Check("segmenters", "warning", f"none found (shipped folder, {user_folder()})", "Reinstall IMT, or: imt models import FILE")]
    return [Check("segmenters", "good", ", ".join(ready))]


def _tiny_run() -> list[Check]:
    import torch

    from IMTCore.catalogue import list_cards
    from IMTCore.devices import choose_device, choose_precision, precision_name
    from IMTCore.model_packages import load_network

    cards = [card for card in list_cards()[0] if card.weights_path.is_file() and card.architecture.works_on == "slices"]
    if not cards:
        return []
    try:
        device = choose_device("auto")
        dtype = choose_precision("auto", device)
        network = load_network(cards[0]).to(device)
        image = torch.zeros(1, cards[0].content["network"]["arguments"]["in_channels"], 256, 256, device=device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16 if dtype == torch.float32 else dtype, enabled=dtype != torch.float32):
            network(image)
            start = time.perf_counter()
            finite = bool(torch.isfinite(network(image)).all())
        seconds = time.perf_counter() - start
    except Exception as error:  # whatever goes wrong is the finding
        return [Check("tiny run", "bad", f"{type(error).__name__}: {error}", "Try --device cpu --precision fp32; reinstall torch if that fails too.")]
    if not finite:
        return [Check("tiny run", "bad", "the network gave values that are not finite", "Try --precision fp32.")]
    return [Check("tiny run", "good", f"{cards[0].name} on {device} in {precision_name(dtype)}: {seconds * 1000:.0f} ms a slice of 256 x 256")]
