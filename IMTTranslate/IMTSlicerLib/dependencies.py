"""What IMT needs besides Slicer: asked for when the user starts a run, installed only with consent."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

# What IMT's own packages need besides Slicer; it lies in the Resources of the modules' common folder.
REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "IMT-requirements.txt"


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

    Packages that Slicer brings (numpy, scipy, SimpleITK, vtk) are never touched. Without a main window there is nobody
    to consent, and nothing is installed.

    :raises RuntimeError: if something is missing and was not installed; the message says what to do.
    """
    import slicer
    from slicer import packaging
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
            packaging.pip_ensure(packaging.load_requirements(str(requirementsPath)), requester="IMT")
    except subprocess.CalledProcessError as error:
        text = _("The packages that IMT needs could not be installed ({error}). Check the network, or install them from wheels: see the README.")
        raise RuntimeError(text.format(error=error)) from error
    checkDependencies(requirementsPath)


def _missing(requirementsPath: str | Path) -> list[str]:
    from slicer import packaging

    requirements = packaging.load_requirements(str(requirementsPath))
    return [str(requirement) for requirement in requirements if not packaging.pip_check(requirement)]
