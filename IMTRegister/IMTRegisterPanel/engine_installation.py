"""The panel's offer to install the registration engines into a folder of their own, with consent, progress and cancel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.package_folders import PackageFolder

TITLES = {"greedy": "Greedy", "ants": "ANTs", "elastix": "Elastix"}
SIZE = "2.5 GB"  # on the disk, with all that they need


class EngineInstallation:
    """Installs the packages of a requirements file for the engines' processes; Slicer's own packages stay as they are.

    :param requirementsPath: what to install.
    :param ui: the panel's widgets.
    :param say, fail: show a message, or an error.
    :param changed: called at the start and at the end.
    """

    def __init__(
        self, requirementsPath: Path, ui, say: Callable[[str], None], fail: Callable[[str], None], changed: Callable[[], None]
    ) -> None:
        self._requirementsPath = requirementsPath
        self._ui, self._say, self._fail, self._changed = ui, say, fail, changed
        self._job = None
        ui.installEnginesButton.connect("clicked(bool)", self.onInstallButton)
        ui.installWheelsButton.connect("clicked(bool)", self.onWheelsButton)

    def _packages(self) -> PackageFolder:
        return PackageFolder("register", self._requirementsPath)

    def isRunning(self) -> bool:
        """Whether an installation runs."""
        return self._job is not None and self._job.state == "running"

    def cancel(self) -> None:
        """End the installation; the folder stays as it was."""
        if self._job is not None:
            self._job.cancel()

    def update(self, engine: str, problem: str | None, allowed: bool) -> None:
        """Show the offer where an engine is missing.

        :param engine: the chosen one.
        :param problem: what the chosen engine lacks; None if nothing.
        :param allowed: whether nothing else runs.
        """
        ui, running = self._ui, self.isRunning()
        text = _("{engine} is not installed. Install the engines, or choose another one.")
        ui.engineLabel.text = text.format(engine=TITLES.get(engine, engine)) if problem else ""
        ui.engineLabel.toolTip = problem or ""
        for widget in (ui.engineLabel, ui.installEnginesButton, ui.installWheelsButton):
            widget.visible = running or problem is not None
        ui.installEnginesButton.text = _("Cancel the installation") if running else _("Install the engines")
        ui.installEnginesButton.enabled = running or allowed
        ui.installWheelsButton.enabled = allowed and not running

    def onInstallButton(self, *_unused) -> None:
        """Install from the network after a yes, or cancel the installation that runs."""
        if self.isRunning():
            self.cancel()
            return
        text = _(
            "IMT will download the registration engines Greedy, ANTs and Elastix from the Python Package Index and install "
            "them into {folder} (about {size}). Slicer's own packages are not changed. Go on?"
        )
        if slicer.util.confirmOkCancelDisplay(text.format(folder=self._packages().folder, size=SIZE), _("Install the engines")):
            self._start(None)

    def onWheelsButton(self, *_unused) -> None:
        """Install from a folder of wheels, without a network."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder with the engines' wheels"))
        if folder:
            self._start(Path(folder))

    def _start(self, wheels: Path | None) -> None:
        self._job = self._packages().installJob(wheels)
        self._job.progress.connect(lambda _fraction, message, _left: message and self._say(message))
        self._job.ended.connect(self._onEnded)
        try:
            self._job.start()
        except (ValueError, RuntimeError, OSError) as error:
            self._job = None
            self._fail(str(error))
            return
        self._say(_("Installing the registration engines…"))
        self._changed()

    def _onEnded(self) -> None:
        job = self._job
        if job.state == "finished":
            self._say(_("The registration engines are installed."))
        elif job.state == "cancelled":
            self._say(_("The installation was cancelled: nothing was changed."))
        else:
            self._fail(_("The engines could not be installed: {reason}").format(reason=job.errorMessage))
        self._changed()
