"""What all panels do with their runs: Apply and Cancel, progress, status line, log, system check, the guess of the modality."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .runs import Run
from .system_check import SystemCheck

GUESSED_FOR = "IMT.GuessedFor"  # node reference of the parameter node: the volume whose modality was guessed
ERROR_STYLE = "color: #c0392b"


class RunController:
    """Base of the panels' controllers; subclasses give `update`, `_makeRun`, `_stageInWords`, `_madeNodes` and `_showResult`.

    :param ui: the widgets by name: applyButton, progressBar, statusLabel, guessLabel, logTextEdit, checkSystemButton.
    :param logic: the module's logic, with `ensureDependencies` and `guessModality`.
    :param verb: what the button says while nothing runs.
    :param tip: its tool tip when it can be pressed.
    :param remembered: the panel's `UserSettings`.
    :param systemParts: what the module adds to the system check, see `SystemCheck`.
    """

    def __init__(self, ui, logic, verb: str, tip: str, remembered, systemParts: tuple[str, ...] = ()) -> None:
        self._ui, self._logic, self._verb, self._tip, self._remembered = ui, logic, verb, tip, remembered
        self._parameterNode: Any = None
        self._run: Run | None = None
        self._started = 0.0
        self._guessed: str | None = None  # what the guess label tells of
        for widget in (ui.progressBar, ui.guessLabel, ui.statusLabel):
            widget.visible = False
        ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self._check = SystemCheck(ui.checkSystemButton, self._log, systemParts)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node (before it is bound to the widgets), or none."""
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._remembered.restore(parameterNode)

    def isRunning(self) -> bool:
        """Whether a run goes on."""
        return self._run is not None and self._run.state == "running"

    def cancel(self) -> None:
        """End all runs; the scene stays as it is."""
        self._check.cancel()
        if self._run is not None:
            self._run.cancel()

    def stop(self) -> None:
        """End all runs: the panel goes away."""
        self.cancel()

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        raise NotImplementedError

    def _parameters(self):
        """The scene's parameter node, also while another module is open."""
        return self._parameterNode if self._parameterNode is not None else self._logic.getParameterNode()

    # ---- the run

    def onApplyButton(self, *_unused) -> None:
        """Start a run, or cancel the one that runs."""
        if self.isRunning():
            self._run.cancel()
            return
        try:
            self._logic.ensureDependencies()
            self._run = self._makeRun()
            self._run.progress.connect(self._onProgress)
            self._run.logged.connect(self._log)
            self._run.ended.connect(self._onRunEnded)
            self._started = time.monotonic()
            self._run.start()
        except (ValueError, RuntimeError, OSError) as error:
            self._run = None
            self._showError(str(error))
            return
        self._remembered.save(self._parameterNode)
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self._showStatus(_("Starting"))
        self.update()

    def _makeRun(self) -> Run:
        """A run as the parameter node says, not started."""
        raise NotImplementedError

    def _stageInWords(self, message: str) -> str:
        """What `imt` is doing, from its "stage: details"."""
        raise NotImplementedError

    def _madeNodes(self, run) -> list:
        """The nodes that the status line names."""
        raise NotImplementedError

    def _showResult(self, run) -> None:
        """Show what a run has brought into the scene."""
        raise NotImplementedError

    def _onProgress(self, fraction: float, message: str, secondsLeft: float | None) -> None:
        self._ui.progressBar.value = int(1000 * fraction)
        text = self._stageInWords(message)
        if secondsLeft is not None:
            text = _("{message}, about {time} left").format(message=text, time=duration(secondsLeft))
        self._showStatus(text)

    def _onRunEnded(self) -> None:
        run, seconds = self._run, time.monotonic() - self._started
        self._ui.progressBar.visible = False
        if run.state == "finished":
            names = ", ".join(node.GetName() for node in self._madeNodes(run))
            text = _("Made {names} in {time}.").format(names=names, time=duration(seconds))
            text += "".join(f"\n{_('Warning:')} {warning}" for warning in run.warnings)
            self._showStatus(text)
            self._log(text)
            self._showResult(run)
        elif run.state == "cancelled":
            self._showStatus(_("Cancelled: nothing was changed."))
        else:
            self._showError(run.errorMessage)
        self.update()

    # ---- state of the widgets

    def _updateApplyButton(self, problem: str) -> None:
        """Let the button be pressed unless there is a problem, which it tells then."""
        button, running = self._ui.applyButton, self.isRunning()
        button.text = _("Cancel") if running else self._verb
        button.enabled = running or not problem
        button.toolTip = _("Stop; the scene stays as it is.") if running else problem or self._tip

    def _guessModality(self) -> None:
        """Guess the modality of a newly chosen volume.

        Not in a slot of the selector: it is called before the parameter node knows the volume, and whatever changes the
        node then makes the selector show the old volume again.
        """
        label, node, holder = self._ui.guessLabel, self._parameterNode.inputVolume, self._parameterNode.parameterNode
        if node is None or node.GetImageData() is None:
            label.visible = False
        elif holder.GetNodeReference(GUESSED_FOR) is not node:  # else chosen before, perhaps corrected by the user
            guess = self._logic.guessModality(node)
            self._guessed = guess.modality or self._parameterNode.inputModality
            label.text = _("Its modality is not clear: choose it.")
            if guess.modality is not None:
                label.text = _("Taken for {modality} by {reason}.").format(modality=guess.modality, reason=guess.reason)
            label.visible = True
            with slicer.util.NodeModify(holder):
                holder.SetNodeReferenceID(GUESSED_FOR, node.GetID())
                self._parameterNode.inputModality = self._guessed
        elif self._parameterNode.inputModality != self._guessed:
            label.visible = False

    # ---- words

    def _showStatus(self, text: str) -> None:
        self._ui.statusLabel.visible = True
        self._ui.statusLabel.styleSheet = ""
        self._ui.statusLabel.text = text

    def _showError(self, text: str) -> None:
        self._ui.statusLabel.visible = True
        self._ui.statusLabel.styleSheet = ERROR_STYLE
        self._ui.statusLabel.text = text
        self._log(_("Error: {text}").format(text=text))

    def _log(self, line: str) -> None:
        self._ui.logTextEdit.appendPlainText(f"{qt.QTime.currentTime().toString('HH:mm:ss')}  {line}")


def duration(seconds: float) -> str:
    """Seconds in words: "12 s", "3 min 20 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def folderOf(path: pathlib.Path, pathLineEdit) -> pathlib.Path | None:
    """The folder that a parameter holds, None for none; its widget is kept from showing none as "."."""
    if pathLineEdit.currentPath == ".":  # how an empty pathlib.Path is shown
        blocked = pathLineEdit.blockSignals(True)
        pathLineEdit.currentPath = ""
        pathLineEdit.blockSignals(blocked)
    return None if str(path) in ("", ".") else pathlib.Path(path)
