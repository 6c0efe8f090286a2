"""What can be wrong with an installation: the table that `imt doctor` finds by and that the troubleshooting page is written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

STATES = ("good", "note", "warning", "bad")


@dataclass(frozen=True)
class Problem:
    """A failure that the doctor knows.

    Attributes:
        state: "bad" (nothing works), "warning" (something does not) or "note" (something optional is not there).
        text: what is wrong.
        found: how the doctor finds it.
        remedy: what to do.
    """

    state: str
    text: str
    found: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """One finding: `state` is one of STATES; `remedy` and `problem`, a key of PROBLEMS, are empty if it is good."""

    name: str
    state: str
    detail: str
    remedy: str = ""
    problem: str = ""


Findings = Iterator[Finding]


def good(name: str, detail: str) -> Finding:
    """A finding that all is well."""
    return Finding(name, "good", detail)


def trouble(problem: str, name: str, detail: str) -> Finding:
    """A finding that there is one of PROBLEMS."""
    known = PROBLEMS[problem]
    return Finding(name, known.state, detail, known.remedy, problem)


REINSTALL = "In Slicer: reinstall Slicer and its PyTorch extension. Elsewhere: make a new environment with make setup."

PROBLEMS: dict[str, Problem] = {
    # --- packages
    "old-python": Problem("bad", "Python is older than 3.11", "its version", "Use Slicer 5.12 or newer, or Python 3.11 or newer."),
    "package-missing": Problem(
        "bad",
        "a package that every run needs is not installed",
        "it is imported in a process of its own",
        "In Slicer: torch comes with the PyTorch extension, nibabel and safetensors with IMT's first run; numpy, scipy and SimpleITK are "
        "Slicer's own (reinstall it). Elsewhere: make setup, or pip install the package.",
    ),
    "package-broken": Problem(
        "bad", "a package is there, but cannot be imported", "it is imported in a process of its own", REINSTALL
    ),
    "package-crashes": Problem(
        "bad", "a package ends Python when it is imported", "the process that imports it ends", f"Unset PYTHONPATH. {REINSTALL}"
    ),
    "numpy-abi": Problem(
        "bad",
        "a package was built for another numpy (`compiled using NumPy 1.x`, `numpy.dtype size changed`)",
        "the words of its import's error or warning",
        f"Something has replaced numpy or that package. {REINSTALL}",
    ),
    "package-old": Problem(
        "bad",
        "a package is older than IMT needs, such as after a downgrade of scipy",
        "its version",
        f"Something has put an older version there. {REINSTALL}",
    ),
    "package-overwritten": Problem(
        "warning",
        "files of numpy, scipy, SimpleITK or torch were overwritten or removed, or two packages share a folder",
        "sizes of files against the package's own list; who else lists them",
        f"Some extension's pip has written into it. {REINSTALL}",
    ),
    "slicer-package-changed": Problem(
        "warning",
        "numpy, scipy or SimpleITK is not the version that Slicer brought",
        "the panel's Check system compares them; on a terminal: imt doctor --slicer VERSION",
        "Some extension has replaced it, which can break Slicer itself: reinstall Slicer. IMT never does that.",
    ),
    "requirement-conflict": Problem(
        "warning",
        "an installed package wants another version of numpy, scipy, SimpleITK or torch than is there",
        "the requirements in the packages' metadata",
        "That package may fail. Uninstall it, or put it into an environment of its own.",
    ),
    "engines-beside": Problem(
        "warning",
        "a registration engine's package is installed in this Python itself",
        "the packages' metadata",
        "It pulls an older scipy in. Uninstall it (pip uninstall): IMT keeps its engines in a folder of their own.",
    ),
    "not-examined": Problem(
        "note", "a part could not be looked at, because a package that it needs is broken", "its error", "Mend what is bad first, then look again."
    ),
    "pydicom-missing": Problem(
        "note", "pydicom is not installed (optional)", "it is looked for", "Only DICOM series need it: pip install pydicom."
    ),
    "dask-missing": Problem(
        "note",
        "Dask is not installed (optional)",
        "it is looked for",
        'Only --workers and --scheduler need it: pip install "dask[distributed]".',
    ),
    # --- computing
    "torch-cpu-build": Problem(
        "warning",
        "there is an NVIDIA GPU, but this PyTorch is a CPU build",
        "nvidia-smi lists GPUs, and torch has no CUDA",
        "In Slicer: install torch again in the PyTorch Utils module, with a CUDA backend. Elsewhere: make setup with TORCH=... and "
        "TORCH_INDEX=... of a CUDA build. Without it: --device cpu.",
    ),
    "driver-too-old": Problem(
        "warning",
        "the NVIDIA driver is too old for this PyTorch",
        "torch's own message",
        "Update the NVIDIA driver, or install a PyTorch build for an older CUDA. Without it: --device cpu.",
    ),
    "no-gpu": Problem(
        "warning",
        "PyTorch has CUDA, but finds no GPU",
        "torch.cuda",
        "Check the driver with nvidia-smi. If there is no GPU, nothing is wrong: the CPU is used.",
    ),
    "no-kernel": Problem(
        "bad",
        "PyTorch has no code for this GPU (`no kernel image is available`)",
        "a small product on each GPU",
        "Install a newer PyTorch build (a newer CUDA) for a new GPU, an older one for an old GPU, or use --device cpu.",
    ),
    "gpu-fails": Problem(
        "bad", "the GPU does not compute", "a small product on each GPU", "Restart the computer; update the driver; or use --device cpu."
    ),
    "gpu-memory": Problem(
        "warning", "less than 2 GB of the GPU's memory are free", "torch.cuda", "Close what uses the GPU, use --batch 1, or --device cpu."
    ),
    "memory": Problem(
        "warning",
        "less than 4 GB of memory, for the computer or for this process",
        "the computer's size and the limits set for the process",
        "Close other programs; use --batch 1 and --jobs 1; raise the limit of the container or the job.",
    ),
    "tiny-run": Problem(
        "bad",
        "a network does not run",
        "one slice through a shipped model",
        f"Try --device cpu --precision fp32. If that fails too: {REINSTALL[0].lower()}{REINSTALL[1:]}",
    ),
    # --- folders
    "temp-folder": Problem(
        "bad",
        "the folder for temporary files cannot be written to",
        "a file is written there",
        "Make it writable, or set TMPDIR (on Windows TEMP) to another folder.",
    ),
    "temp-full": Problem(
        "warning", "less than 1 GB is free for temporary files", "the disk's free space", "Free some space, or set TMPDIR to a larger disk."
    ),
    "temp-name": Problem(
        "warning",
        "the folder for temporary files has letters other than plain English ones in its name",
        "its name",
        "Engines may not open files there: set TMPDIR (on Windows TEMP) to a folder such as C:\\Temp.",
    ),
    "user-folder": Problem(
        "warning",
        "a folder for your models, engines or caches cannot be written to",
        "a file is written there",
        "Make it writable, or name another one: IMT_MODELS, IMT_SEGMENT_MODELS, IMT_PACKAGES or IMT_REGISTER_CACHE.",
    ),
    "user-disk": Problem(
        "warning",
        "less than 1 GB is free for your models, engines or caches",
        "the disk's free space",
        "Free some space (imt doctor --where lists what IMT holds), or name another folder as for user-folder.",
    ),
    # --- models
    "no-models": Problem("bad", "no model is there", "the shipped and your own model folder", "Reinstall IMT, or: imt models import FILE."),
    "model-card": Problem(
        "warning", "a model's card cannot be read", "all cards are read and checked", "Remove that model, or import it again."
    ),
    "model-weights": Problem(
        "warning",
        "a model has a card, but no weights",
        "the file that the card names",
        "imt models download NAME if its card has an address; else import it again, or remove it.",
    ),
    "model-changed": Problem(
        "bad",
        "a model's weights are not those of its card (size or SHA-256)",
        "every weights file is hashed",
        "Import or download it again; a shipped one: reinstall IMT.",
    ),
    # --- engines
    "engines-missing": Problem(
        "warning",
        "the registration engines are not installed",
        "their folder and its metadata",
        "Only IMT Register needs them: press its button Install the engines; on the command line make setup.",
    ),
    "engines-other": Problem(
        "warning",
        "the engines' folder lacks something, or holds other versions than IMT was tested with",
        "its metadata against the requirements",
        "Install the engines again: the button of IMT Register, or make setup.",
    ),
    "engine-broken": Problem(
        "warning",
        "an engine is installed, but does not start",
        "each engine is started in its own process",
        "Install the engines again. If that does not help, use another engine (--engine).",
    ),
    # --- surroundings
    "pythonpath": Problem(
        "warning",
        "PYTHONPATH puts other packages before those of this Python",
        "where the packages were imported from",
        "Unset PYTHONPATH before you start Slicer or imt.",
    ),
    "itk-autoload": Problem(
        "warning",
        "ITK_AUTOLOAD_PATH is set, which makes ITK's packages crash",
        "the environment",
        "IMT clears it for its own processes; unset it for other programs.",
    ),
    "two-copies": Problem(
        "warning",
        "two copies of IMT are on the path, such as a source checkout and an installed one",
        "all places that Python imports from",
        "Keep one: remove the other's folder from Slicer's module paths, or pip uninstall slicer-imt.",
    ),
    "loopback": Problem(
        "warning",
        "programs of this computer cannot reach each other over 127.0.0.1",
        "a connection to itself",
        "Only --workers needs it: allow it in the firewall, or leave --workers out.",
    ),
}
