"""The panel's section "Save as DICOM series"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.labels import showWhole
from IMTSlicerLib.nodes import SYNTHETIC_ATTRIBUTE
from IMTSlicerLib.run_controller import ERROR_STYLE

from .dicom_export import DicomExport, freeFolder, hasDatabase, isFromDatabase

SAVE = "Save as DICOM series…"


class DicomPage:
    """The section, and the export that it runs.

    :param uiFolder: the folder of the module's .ui files.
    :param logic: the module's logic.
    :param log: takes a line.
    """

    def __init__(self, uiFolder: str, logic, log: Callable[[str], None]) -> None:
        self._logic, self._log = logic, log
        self.widget = slicer.util.loadUI(str(Path(uiFolder) / "IMTDicom.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._run: DicomExport | None = None
        self._offered: str | None = None  # ID of the volume that was put into the selector
        ui = self.ui
        ui.dicomVolumeSelector.addAttribute("vtkMRMLScalarVolumeNode", SYNTHETIC_ATTRIBUTE, "true")  # these alone are offered
        ui.dicomVolumeSelector.setMRMLScene(slicer.mrmlScene)
        ui.dicomVolumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.update)
        ui.dicomSourcePathLineEdit.connect("currentPathChanged(QString)", self.update)
        ui.dicomSaveButton.connect("clicked(bool)", self.onSaveButton)
        ui.dicomProgressBar.visible = False
        self._say("")
        self.update()

    def isRunning(self) -> bool:
        """Whether an export goes on."""
        return self._run is not None and self._run.state == "running"

    def stop(self) -> None:
        """End the export; nothing of it stays."""
        self._offered = None
        if self._run is not None:
            self._run.cancel()

    def offer(self, node) -> None:
        """Put a new result into the selector, once; what the user chooses after that stays. None changes nothing."""
        if node is None or node.GetID() == self._offered or node.GetAttribute(SYNTHETIC_ATTRIBUTE) != "true":
            return
        self._offered = node.GetID()
        self.ui.dicomVolumeSelector.setCurrentNode(node)

    def update(self, *_unused) -> None:
        """Bring the widgets in step."""
        ui, node = self.ui, self.ui.dicomVolumeSelector.currentNode()
        hasFolder = bool(self._sourceFolder())
        ui.dicomSeriesLineEdit.enabled = ui.dicomSeriesLabel.enabled = hasFolder
        ui.dicomDatabaseCheckBox.enabled = hasDatabase()
        if not hasDatabase():
            ui.dicomDatabaseCheckBox.checked = False
        problem = self._problem(node, hasFolder)
        button = ui.dicomSaveButton
        button.text = _("Cancel") if self.isRunning() else _(SAVE)
        button.enabled = self.isRunning() or not problem
        button.toolTip = problem or _("Choose a folder; the series gets a new folder in it. No file is changed.")

    def _problem(self, node, hasFolder: bool) -> str:
        if node is None:
            return _("Choose a synthetic volume.")
        if not hasFolder and not isFromDatabase(node):
            return _("Its input was not loaded from Slicer's DICOM database: choose the folder of the source series.")
        return ""

    def _sourceFolder(self) -> Path | None:
        text = self.ui.dicomSourcePathLineEdit.currentPath.strip()
        return Path(text) if text and text != "." else None

    # ---- the export

    def onSaveButton(self, *_unused) -> None:
        """Ask for a folder and write the series, or cancel."""
        if self.isRunning():
            self._run.cancel()
            return
        parent = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder for the new DICOM series"))
        if not parent:
            return
        ui, node = self.ui, self.ui.dicomVolumeSelector.currentNode()
        try:
            self._logic.ensureDependencies()
            series = ui.dicomSeriesLineEdit.text if self._sourceFolder() else ""
            folder = freeFolder(Path(parent), node)
            self._run = DicomExport(node, folder, self._sourceFolder(), series, ui.dicomDatabaseCheckBox.checked)
            self._run.progress.connect(self._onProgress)
            self._run.logged.connect(self._log)
            self._run.ended.connect(self._onEnded)
            self._run.start()
        except (ValueError, RuntimeError, OSError) as error:
            self._run = None
            self._say(str(error), isError=True)
            return
        ui.dicomProgressBar.value = 0
        ui.dicomProgressBar.visible = True
        self._say(_("Writing the series"))
        self.update()

    def _onProgress(self, fraction: float, _message: str, _secondsLeft: float | None) -> None:
        self.ui.dicomProgressBar.value = int(1000 * fraction)

    def _onEnded(self) -> None:
        run = self._run
        self.ui.dicomProgressBar.visible = False
        if run.state == "finished":
            text = _("Saved {summary}.").format(summary=run.summary)
            text += "\n" + _("Slicer's DICOM database has it.") if run.addedToDatabase else ""
            self._say(text + "".join(f"\n{_('Warning:')} {warning}" for warning in run.warnings))
        elif run.state == "cancelled":
            self._say(_("Cancelled: nothing was written."))
        else:
            self._say(run.errorMessage, isError=True)
        self.update()

    def _say(self, text: str, isError: bool = False) -> None:
        label = self.ui.dicomStatusLabel
        label.styleSheet = ERROR_STYLE if isError else ""
        showWhole(label, text, self.widget.width)
        if text and not self.isRunning():
            self._log(text)
