"""What the panel does: guesses, checks, runs, shows."""

from __future__ import annotations

import pathlib
import time

import qt
import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.jobs import Job
from IMTSlicerLib.workers import Worker

from . import settings
from .comparison import ComparisonRun, scoresAsHtml
from .model_choice import ModelChoice, describeModel
from .target_rows import TargetRows
from .translation_run import TranslationOptions, TranslationRun

KEEP_SECONDS = 300
GUESSED_FOR = "IMT.GuessedFor"  # node reference of the parameter node: the volume whose modality was guessed


class PanelController:
    """Joins the panel's widgets, the parameter node and the runs.

    :param ui: the widgets by name.
    :param logic: the module's logic.
    """

    def __init__(self, ui, logic) -> None:
        self._ui, self._logic = ui, logic
        self._parameterNode = None
        self._choice: ModelChoice | None = None
        self._shownCards: list | None = None
        self._run: TranslationRun | None = None
        self._comparison: ComparisonRun | None = None
        self._check: Job | None = None
        self._worker: Worker | None = None
        self._started = 0.0
        self._guessed: str | None = None  # what the guess label tells of
        self._rows = TargetRows(ui, self.update)
        for widget in (ui.progressBar, ui.guessLabel, ui.statusLabel, ui.scoresLabel):
            widget.visible = False
        ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        ui.compareButton.connect("clicked(bool)", self.onCompareButton)
        ui.checkSystemButton.connect("clicked(bool)", self.onCheckSystemButton)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node (before it is bound to the widgets), or none."""
        self._parameterNode = parameterNode
        self._rows.setParameterNode(parameterNode)
        if parameterNode is not None:
            settings.restore(parameterNode)

    def isRunning(self) -> bool:
        """Whether a translation runs."""
        return self._run is not None and self._run.state == "running"

    def cancel(self) -> None:
        """End all runs; the scene stays as it is."""
        for job in (self._run, self._comparison and self._comparison.job, self._check):
            if job is not None:
                job.cancel()

    def stop(self) -> None:
        """End all runs and the process that holds a model."""
        self.cancel()
        self._stopWorker()

    def _stopWorker(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    # ---- state of the widgets

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        if self._parameterNode is None:
            return
        self._guessModality()
        self._choice = ModelChoice(self._modelFolder())
        source = self._parameterNode.inputModality
        self._rows.update(self._choice, source)
        self._updateModelText(source)
        ui = self._ui
        folder = ui.modelFolderPathLineEdit
        if folder.currentPath == ".":  # how an empty pathlib.Path is shown
            blocked = folder.blockSignals(True)
            folder.currentPath = ""
            folder.blockSignals(blocked)
        ui.samplesLabel.enabled = ui.samplesSpinBox.enabled = self._parameterNode.uncertainty
        problem = self._whyNot(source)
        running = self.isRunning()
        if not running and not self._parameterNode.keepModelLoaded:
            self._stopWorker()
        ui.applyButton.text = _("Cancel") if running else _("Translate")
        ui.applyButton.enabled = running or not problem
        ui.applyButton.toolTip = _("Stop; the scene stays as it is.") if running else problem or _("Translate the input volume.")
        ui.compareButton.enabled = (
            self._parameterNode.comparedVolume is not None
            and self._parameterNode.realVolume is not None
            and (self._comparison is None or self._comparison.job.state != "running")
        )

    def _whyNot(self, source: str) -> str:
        if self._parameterNode.inputVolume is None:
            return _("Select an input volume.")
        if not self._rows.isAnyOffered():
            return _("No model translates {modality}.").format(modality=source)
        if not self._rows.chosenCards():
            return _("Choose at least one modality to translate to.")
        return ""

    def _modelFolder(self) -> pathlib.Path | None:
        folder = self._parameterNode.modelFolder
        return None if str(folder) in ("", ".") else pathlib.Path(folder)

    def _updateModelText(self, source: str) -> None:
        cards = self._rows.chosenCards()
        ui = self._ui
        notes = list(self._choice.problems)
        if not self._rows.isAnyOffered():
            notes.append(_("No model translates {modality}. Give a folder with your own models under Advanced.").format(modality=source))
        ui.noModelLabel.text = "\n".join(notes)
        ui.noModelLabel.visible = bool(notes)
        ui.modelTextBrowser.visible = bool(cards)
        shown = [(card.path, card.sha256) for card in cards]
        if shown != self._shownCards:  # so that the text does not jump back while the user reads it
            self._shownCards = shown
            ui.modelTextBrowser.setHtml("<hr>".join(describeModel(card) for card in cards))

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

    # ---- translation

    def onApplyButton(self, *_unused) -> None:
        """Start a translation, or cancel the one that runs."""
        if self.isRunning():
            self._run.cancel()
            return
        try:
            self._logic.ensureDependencies()
            self._run = self._makeRun()
            self._started = time.monotonic()
            self._run.start()
        except (ValueError, RuntimeError, OSError) as error:
            self._run = None
            self._showError(str(error))
            return
        settings.save(self._parameterNode)
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self._showStatus(_("Starting"))
        self.update()

    def _makeRun(self) -> TranslationRun:
        node = self._parameterNode
        options = TranslationOptions(
            node.uncertainty,
            node.samples,
            node.device,
            node.precision,
            node.batch,
            node.seed,
            node.singlePlane,
            node.biasCorrection,
            node.checkModality,
        )
        run = TranslationRun(node.inputVolume, self._rows.targets(), options, node.inputModality, self._workerToUse())
        run.progress.connect(self._onProgress)
        run.logged.connect(self._log)
        run.ended.connect(self._onRunEnded)
        return run

    def _workerToUse(self) -> Worker | None:
        if not self._parameterNode.keepModelLoaded:
            self._stopWorker()
            return None
        if self._worker is None:
            self._worker = Worker(keepSeconds=KEEP_SECONDS)
        return self._worker

    def _onProgress(self, fraction: float, message: str, secondsLeft: float | None) -> None:
        self._ui.progressBar.value = int(1000 * fraction)
        text = stageInWords(message)
        self._showStatus(text if secondsLeft is None else _("{message}, about {time} left").format(message=text, time=duration(secondsLeft)))

    def _onRunEnded(self) -> None:
        run, seconds = self._run, time.monotonic() - self._started
        self._ui.progressBar.visible = False
        if run.state == "finished":
            names = ", ".join(node.GetName() for node in run.outputNodes)
            warnings = "".join(f"\n{_('Warning:')} {text}" for text in run.warnings)
            self._showStatus(_("Made {names} in {time}.").format(names=names, time=duration(seconds)) + warnings)
            self._log(_("Made {names} in {time}.").format(names=names, time=duration(seconds)) + warnings)
            self._showResult(run)
        elif run.state == "cancelled":
            self._showStatus(_("Cancelled: nothing was changed."))
        else:
            self._showError(run.errorMessage)
        self.update()

    def _showResult(self, run: TranslationRun) -> None:
        self._logic.getParameterNode().comparedVolume = run.outputNodes[0]
        if self._parameterNode is None:  # another module is open: its views are left alone
            return
        if run.uncertaintyNodes:
            views.showOver(run.outputNodes[0], run.uncertaintyNodes[0])
            views.showColorLegend(run.uncertaintyNodes[0])
        else:
            views.showVolume(run.outputNodes[0])

    # ---- comparison

    def onCompareButton(self, *_unused) -> None:
        """Compare the chosen volumes."""
        node = self._parameterNode
        self._ui.scoresLabel.visible = True
        self._ui.scoresLabel.text = _("Comparing…")
        try:
            self._logic.ensureDependencies()
            self._comparison = ComparisonRun(node.comparedVolume, node.realVolume, node.regionVolume)
            self._comparison.job.logged.connect(self._log)
            self._comparison.job.ended.connect(self._onComparisonEnded)
            self._comparison.job.start()
        except (ValueError, RuntimeError, OSError) as error:
            self._comparison = None
            self._ui.scoresLabel.text = str(error)
        self.update()

    def _onComparisonEnded(self) -> None:
        comparison = self._comparison
        if comparison.scores and comparison.tableNode is not None:
            self._ui.scoresLabel.text = scoresAsHtml(comparison.scores)
            synthetic, real = comparison.comparedNodes()
            views.showSideBySide(real, synthetic, comparison.errorNode)
            views.showColorLegend(comparison.errorNode)
        elif comparison.job.state == "cancelled":
            self._ui.scoresLabel.text = _("Cancelled.")
        else:
            self._ui.scoresLabel.text = comparison.errorMessage or comparison.job.errorMessage
        self.update()

    # ---- system check

    def onCheckSystemButton(self, *_unused) -> None:
        """Say in the log what `imt doctor` finds."""
        self._ui.checkSystemButton.enabled = False
        self._log(_("Checking the system…"))
        self._check = Job([["doctor"]], title=_("Check system"))
        self._check.logged.connect(self._log)
        self._check.ended.connect(self._onCheckEnded)
        try:
            self._check.start()
        except (RuntimeError, OSError) as error:
            self._ui.checkSystemButton.enabled = True
            self._log(_("Error: {text}").format(text=error))

    def _onCheckEnded(self) -> None:
        self._ui.checkSystemButton.enabled = True
        verdicts = {"finished": _("The system is fit for IMT."), "failed": _("Something must be mended: see above.")}
        self._log(verdicts.get(self._check.state, _("Cancelled.")))

    # ---- words

    def _showStatus(self, text: str) -> None:
        self._ui.statusLabel.visible = True
        self._ui.statusLabel.styleSheet = ""
        self._ui.statusLabel.text = text

    def _showError(self, text: str) -> None:
        self._ui.statusLabel.visible = True
        self._ui.statusLabel.styleSheet = "color: #c0392b"
        self._ui.statusLabel.text = text
        self._log(_("Error: {text}").format(text=text))

    def _log(self, line: str) -> None:
        self._ui.logTextEdit.appendPlainText(f"{qt.QTime.currentTime().toString('HH:mm:ss')}  {line}")


def stageInWords(message: str) -> str:
    """What `imt` is doing, from its "stage: details"; the details of most stages are names of temporary files."""
    stage, _separator, details = message.partition(": ")
    words = {
        "read": _("Reading the volume"),
        "load": _("Loading the model"),
        "prepare": _("Preparing the volume"),
        "translate": _("Translating"),
        "write": _("Writing the result"),
        "done": _("Taking the result into the scene"),
    }
    if stage == "translate" and details:
        return f"{words[stage]}: {details}"
    return words.get(stage, details or message)


def duration(seconds: float) -> str:
    """Seconds in words: "12 s", "3 min 20 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
