"""What the panel does: guesses, checks, runs, shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.choice_list import ChoiceList
from IMTSlicerLib.comparison_section import ComparisonSection
from IMTSlicerLib.run_controller import RunController
from IMTSlicerLib.segmentations import showSurfaces

from .segmentation_results import probabilitiesOf
from .segmentation_run import SegmentationOptions, SegmentationRun
from .segmenters import Segmenters, describeSegmenter, titleOf
from .settings import remembered

if TYPE_CHECKING:
    from IMTSegmentLib.segmenter_cards import SegmenterCard


class PanelController(RunController):
    """Joins the panel's widgets, the parameter node and the runs.

    :param ui: the widgets by name.
    :param logic: the module's logic.
    """

    def __init__(self, ui, logic) -> None:
        super().__init__(ui, logic, _("Segment"), _("Segment the input volume."), remembered)
        self._segmenters: Segmenters | None = None
        self._shownCard: tuple | None = None
        self._surfaces: tuple | None = None  # of which segmentation, and whether they are shown
        self._models = ChoiceList(ui.modelComboBox, "model", self.update)
        self._others = ChoiceList(ui.compareModelComboBox, "compareModel", self.update)
        self._probabilities = ChoiceList(ui.probabilityComboBox, "shownProbability", self.onProbabilityChosen)
        self.quality = ComparisonSection(ui, ui.structuresTableView, logic, self._log)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node (before it is bound to the widgets), or none."""
        super().setParameterNode(parameterNode)
        if slicer.mrmlScene.IsClosing():
            self._surfaces = None
        for part in (self._models, self._others, self._probabilities, self.quality):
            part.setParameterNode(parameterNode)

    # ---- state of the widgets

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        if self._parameterNode is None:
            return
        self._guessModality()
        node = self._parameterNode
        self._segmenters = Segmenters()
        self._models.update([(titleOf(card), card.name) for card in self._segmenters.forModality(node.inputModality)])
        card = self._card()
        others = self._segmenters.inPlaceOf(card) if card is not None else []
        self._others.update([(_("(no other model)"), ""), *((titleOf(other), other.name) for other in others)])
        for widget in (self._ui.compareModelLabel, self._ui.compareModelComboBox):
            widget.visible = bool(others)
        self._updateModelText(card)
        self._updateSecond(card)
        self._updateApplyButton(self._whyNot(card))
        self.quality.update()
        self._updateResult()

    def _card(self) -> SegmenterCard | None:
        """The chosen model."""
        return self._segmenters.named(self._models.chosen())

    def _noModel(self) -> str:
        text = _("No model segments {modality}. Choose another input, or put a model for it into {folder}.")
        return text.format(modality=self._parameterNode.inputModality, folder=self._segmenters.userFolder)

    def _whyNot(self, card: SegmenterCard | None) -> str:
        if self._parameterNode.inputVolume is None:
            return _("Select an input volume.")
        return self._noModel() if card is None else ""

    def _updateModelText(self, card: SegmenterCard | None) -> None:
        ui, notes = self._ui, list(self._segmenters.problems)
        if card is None:
            notes.append(self._noModel())
        ui.noModelLabel.text = "\n".join(notes)
        ui.noModelLabel.visible = bool(notes)
        for widget in (ui.modelLabel, ui.modelComboBox, ui.modelTextBrowser):
            widget.visible = card is not None
        shown = (card.path, card.sha256) if card is not None else None
        if shown != self._shownCard:  # so that the text does not jump back while the user reads it
            self._shownCard = shown
            ui.modelTextBrowser.setHtml(describeSegmenter(card) if card is not None else "")

    def _updateSecond(self, card: SegmenterCard | None) -> None:
        ui, node = self._ui, self._parameterNode
        second = card.second if card is not None else None
        for widget in (ui.secondLabel, ui.secondSelector):
            widget.visible = second is not None
        ui.secondLabel.text = _("{modality} volume:").format(modality=second) if second else _("Second volume:")
        translates = second is not None and node.secondVolume is None
        ui.translatedCheckBox.enabled = translates
        note = ""
        if translates and card.translator is not None:
            text = _("The {second} is translated from the input with {model}: what comes out says so.")
            note = text.format(second=second, model=card.translator["name"])
        elif translates:
            note = _("The {second} is translated from the input: what comes out says so.").format(second=second)
        elif second is not None:
            note = _("Nothing is translated. On another grid than the input's, the {second} is resampled.").format(second=second)
        ui.secondNoteLabel.text = note
        ui.secondNoteLabel.visible = bool(note)

    def _updateResult(self) -> None:
        node, ui = self._parameterNode, self._ui
        found = node.comparedSegmentation
        names = list(probabilitiesOf(found))
        self._probabilities.update([(_("(none)"), ""), *((name, name) for name in names)])
        for widget in (ui.probabilityLabel, ui.probabilityComboBox):
            widget.visible = bool(names)
        ui.surfacesCheckBox.enabled = found is not None
        before, self._surfaces = self._surfaces, (found, node.show3D) if found is not None else None
        # What the user has made of another segmentation stays, unless surfaces are wanted.
        changed = before != self._surfaces and found is not None and found.GetSegmentation().GetNumberOfSegments()
        if changed and (node.show3D or (before is not None and before[0] is found)):
            showSurfaces(found, node.show3D)

    def onProbabilityChosen(self) -> None:
        """Show the probability of the chosen structure over the input, or the input alone."""
        node = self._parameterNode
        found = probabilitiesOf(node.comparedSegmentation).get(self._probabilities.chosen())
        if found is not None:
            segmentation = node.comparedSegmentation  # of this volume, whatever is chosen as the input now
            image = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
            views.showOver(image or node.inputVolume, found)
            views.showColorLegend(found)
        elif node.inputVolume is not None:
            views.showVolume(node.inputVolume)
        self.update()

    # ---- segmentation

    def _makeRun(self) -> SegmentationRun:
        node, card = self._parameterNode, self._card()
        other = self._segmenters.named(self._others.chosen())
        options = SegmentationOptions(
            compareWith=str(other.path) if other is not None else "",
            device=node.device,
            precision=node.precision,
            batch=node.batch,
            seed=node.seed,
            biasCorrection=node.biasCorrection,
            checkModality=node.checkModality,
            probabilities=node.makeProbabilities,
            translated=node.makeTranslated,
            surfaces=node.show3D,
        )
        second = node.secondVolume if card.second is not None else None
        return SegmentationRun(node.inputVolume, str(card.path), second, options, node.outputSegmentation)

    def _stageInWords(self, message: str) -> str:
        return stageInWords(message)

    def _madeNodes(self, run: SegmentationRun) -> list:
        return [run.results.segmentationNode]

    def _showResult(self, run: SegmentationRun) -> None:
        results, parameters = run.results, self._parameters()
        parameters.comparedSegmentation, parameters.shownProbability = results.segmentationNode, ""
        self._ui.resultCollapsibleButton.collapsed = False
        self.quality.showTable(results.tableNode)
        if self._parameterNode is not None:  # else another module is open: its views are left alone
            views.showVolume(results.inputNode())


def stageInWords(message: str) -> str:
    """What `imt segment` is doing, from its "stage: details"; the details of most stages are names of temporary files."""
    stage, _separator, details = message.partition(": ")
    words = {
        "read": _("Reading the volume"),
        "prepare": _("Preparing the volume"),
        "load": _("Loading the model"),
        "translate": _("Translating"),
        "segment": _("Segmenting"),
        "compare": _("Segmenting with the other model"),
        "write": _("Writing the result"),
        "done": _("Taking the result into the scene"),
    }
    if stage in ("translate", "segment", "compare") and details:
        return f"{words[stage]}: {details}"
    return words.get(stage, details or message)
