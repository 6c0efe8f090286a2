"""What IMT needs besides Slicer: asked for when the user starts a run, installed only with consent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path

from .application import makeFolder, removeFolder

# What IMT's own packages need besides Slicer; it lies in the Resources of the modules' common folder.
REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "IMT-requirements.txt"

# Slicer, or its PyTorch extension, brings them; pip is told to fail rather than to change one.
SLICERS_OWN = ("numpy", "scipy", "SimpleITK", "vtk", "itk", "torch")


def checkDependencies(requirementsPath: str | Path = REQUIREMENTS) -> None:
    """Check that all is installed. Nothing is installed or imported, and no dialog is opened.

    :raises RuntimeError: if something is missing; the message says what to do.
    """
    from slicer.i18n import tr as _

    if importlib.util.find_spec("torch") is None:
        raise RuntimeError(
            _("IMT needs PyTorch. Install the PyTorch extension in the Extensions Manager, restart Slicer, and try again.")
        )
    missing = " ".join(_missing(requirementsPath))
    if missing:
        raise RuntimeError(
            _("Python packages are missing: {names}. Install them in Slicer's Python: PythonSlicer -m pip install {names}").format(
                names=missing
            )
        )


def ensureDependencies(requirementsPath: str | Path = REQUIREMENTS) -> None:
    """Install what is missing, with the user's consent: torch through the PyTorch extension, the rest by pip.

    Packages that Slicer brings (numpy, scipy, SimpleITK, vtk) are never touched: their versions go to pip as constraints,
    and what does not fit them is not installed. Without a main window there is nobody to consent, and nothing is installed.

    :raises RuntimeError: if something is missing and was not installed; the message says what to do.
    """
    import slicer
    from slicer.i18n import tr as _

    if slicer.util.mainWindow() is None:
        checkDependencies(requirementsPath)
        return
    try:
        if importlib.util.find_spec("torch") is None and importlib.util.find_spec("PyTorchUtils") is not None:
            import PyTorchUtils

            if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
                raise RuntimeError(_("IMT needs PyTorch, which was not installed."))
            importlib.invalidate_caches()
        if importlib.util.find_spec("torch") is not None and _missing(requirementsPath):
            _install(requirementsPath)
    except subprocess.CalledProcessError as error:
        text = _(
            "The packages that IMT needs could not be installed beside Slicer's own, which are unchanged ({error}). "
            "Check the network, or install them from wheels: see Resources/Documentation/installation.md."
        )
        raise RuntimeError(text.format(error=error)) from error
    checkDependencies(requirementsPath)


def writeConstraints(path: str | Path) -> None:
    """Write the installed versions of Slicer's own packages as a constraints file of pip."""
    lines = []
    for name in SLICERS_OWN:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version:  # Slicer's own build of vtk may leave it out
            lines.append(f"{name}=={version}\n")
    Path(path).write_text("".join(lines), encoding="utf-8")


def _install(requirementsPath: str | Path) -> None:
    from slicer import packaging

    folder = makeFolder()
    try:
        writeConstraints(folder / "slicers-own.txt")
        requirements = packaging.load_requirements(str(requirementsPath))
        packaging.pip_ensure(requirements, constraints=folder / "slicers-own.txt", requester="IMT")
    finally:
        removeFolder(folder)


def _missing(requirementsPath: str | Path) -> list[str]:
    from slicer import packaging

    requirements = packaging.load_requirements(str(requirementsPath))
    return [str(requirement) for requirement in requirements if not packaging.pip_check(requirement)]
