"""What the panel does: guesses, checks, runs, shows."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.run_controller import RunController, folderOf
from IMTSlicerLib.workers import Worker

from .comparison import ComparisonRun, scoresAsHtml
from .model_choice import ModelChoice, describeModel
from .settings import remembered
from .target_rows import TargetRows
from .translation_run import TranslationOptions, TranslationRun
from .trust_input_check import InputCheck
from .trust_map_node import showTrustMap

KEEP_SECONDS = 300


class PanelController(RunController):
    """Joins the panel's widgets, the parameter node and the runs.

    :param ui: the widgets by name.
    :param logic: the module's logic.
    """

    def __init__(self, ui, logic) -> None:
        super().__init__(ui, logic, _("Translate"), _("Translate the input volume."), remembered)
        self._choice: ModelChoice | None = None
        self._shownCards: list | None = None
        self._comparison: ComparisonRun | None = None
        self._worker: Worker | None = None
        self._rows = TargetRows(ui, self.update)
        self._inputCheck = InputCheck(ui.inputCheckLabel)
        ui.scoresLabel.visible = False
        ui.compareButton.connect("clicked(bool)", self.onCompareButton)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node (before it is bound to the widgets), or none."""
        super().setParameterNode(parameterNode)
        if slicer.mrmlScene.IsClosing():
            self._ui.scoresLabel.visible = False  # of volumes that are gone
        self._rows.setParameterNode(parameterNode)

    def cancel(self) -> None:
        """End all runs; the scene stays as it is."""
        super().cancel()
        if self._comparison is not None:
            self._comparison.job.cancel()

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
        self._choice = ModelChoice(folderOf(self._parameterNode.modelFolder, self._ui.modelFolderPathLineEdit))
        source = self._parameterNode.inputModality
        self._rows.update(self._choice, source)
        self._updateModelText(source)
        ui = self._ui
        ui.samplesLabel.enabled = ui.samplesSpinBox.enabled = self._parameterNode.uncertainty or self._parameterNode.trustMap
        self._inputCheck.update(self._parameterNode.inputVolume, self._rows.chosenCards())
        if not self.isRunning() and not self._parameterNode.keepModelLoaded:
            self._stopWorker()
        self._updateApplyButton(self._whyNot(source))
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

    # ---- translation

    def _makeRun(self) -> TranslationRun:
        node = self._parameterNode
        options = TranslationOptions.of(node)
        return TranslationRun(node.inputVolume, self._rows.targets(), options, node.inputModality, self._workerToUse())

    def _workerToUse(self) -> Worker | None:
        if not self._parameterNode.keepModelLoaded:
            self._stopWorker()
            return None
        if self._worker is None:
            self._worker = Worker(keepSeconds=KEEP_SECONDS)
        return self._worker

    def _stageInWords(self, message: str) -> str:
        return stageInWords(message)

    def _madeNodes(self, run: TranslationRun) -> list:
        return run.outputNodes

    def _showResult(self, run: TranslationRun) -> None:
        self._parameters().comparedVolume = run.outputNodes[0]
        if self._parameterNode is None:  # another module is open: its views are left alone
            return
        if run.trustNodes:
            showTrustMap(run.outputNodes[0], run.trustNodes[0])
        elif run.uncertaintyNodes:
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
            if self._parameterNode is not None:  # else another module is open: its views are left alone
                synthetic, real = comparison.comparedNodes()
                views.showSideBySide(real, synthetic, comparison.errorNode)
                views.showColorLegend(comparison.errorNode)
        elif comparison.job.state == "cancelled":
            self._ui.scoresLabel.text = _("Cancelled.")
        else:
            self._ui.scoresLabel.text = comparison.errorMessage or comparison.job.errorMessage
        self.update()


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
