"""What IMT needs besides Slicer: asked for when the user starts a run, installed only with consent."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def ensureDependencies(requirementsPath: str | Path) -> None:
    """Install what is missing, with the user's consent: torch through the PyTorch extension, the rest by pip.

    Packages that Slicer brings (numpy, scipy, SimpleITK, vtk) are never touched. Nothing is imported.

    :raises RuntimeError: if something is missing and was not installed; the message says what to do.
    """
    import slicer
    from slicer import packaging
    from slicer.i18n import tr as _

    if importlib.util.find_spec("torch") is None:
        try:
            import PyTorchUtils
        except ModuleNotFoundError as error:
            raise RuntimeError(
                _("IMT needs PyTorch. Install the PyTorch extension in the Extensions Manager, restart Slicer, and try again.")
            ) from error
        if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=slicer.util.mainWindow() is not None) is None:
            raise RuntimeError(_("IMT needs PyTorch, which was not installed."))
    requirements = packaging.load_requirements(str(requirementsPath))
    missing = [str(requirement) for requirement in requirements if not packaging.pip_check(requirement)]
    if not missing:
        return
    if slicer.util.mainWindow() is None:  # a question would wait for ever for an answer
        raise RuntimeError(
            _("Python packages are missing: {names}. Install them in Slicer's Python: PythonSlicer -m pip install {names}").format(
                names=" ".join(missing)
            )
        )
    packaging.pip_ensure(requirements, requester="IMT")
