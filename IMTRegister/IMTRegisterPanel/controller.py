"""What the panel does: guesses, checks, runs, shows."""

from __future__ import annotations

import pathlib

from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.run_controller import RunController, folderOf

from . import words
from .atlas_table import AtlasTable
from .engine_installation import EngineInstallation
from .model_list import ModelList
from .quality_controller import QualityController
from .registration_run import RegistrationOptions, RegistrationRun, Subject
from .scene_atlases import checkSceneAtlases, describeAtlasSet
from .settings import remembered

NO_MODALITY = "none"


class PanelController(RunController):
    """Joins the panel's widgets, the parameter node and the runs.

    :param ui: the widgets by name.
    :param logic: the module's logic.
    :param requirementsPath: what the engines' folder needs.
    """

    def __init__(self, ui, logic, requirementsPath: pathlib.Path) -> None:
        super().__init__(ui, logic, _("Register"), _("Register the input volume with the atlases."), remembered, ("engines",))
        self._atlases = AtlasTable(ui.atlasTableWidget, ui.addAtlasButton, ui.removeAtlasButton, self.update)
        self._models = ModelList(ui.modelComboBox, self.update)
        self.engines = EngineInstallation(requirementsPath, ui, self._showStatus, self._showError, self.update)
        self.quality = QualityController(ui, logic, self._log)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node (before it is bound to the widgets), or none."""
        super().setParameterNode(parameterNode)
        self._atlases.setParameterNode(parameterNode)
        self._models.setParameterNode(parameterNode)
        self.quality.setParameterNode(parameterNode)

    def stop(self) -> None:
        """End the runs and an installation."""
        self.cancel()
        self.engines.cancel()

    # ---- state of the widgets

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        if self._parameterNode is None:
            return
        self._guessModality()
        node, ui = self._parameterNode, self._ui
        second = self._secondModality()
        self._updateSecond()
        self._updateAtlases(node.inputModality, second)
        weighs = second is not None and node.fusion in ("mean", "log", "joint")
        ui.weightCheckBox.enabled = weighs
        ui.weightSlider.enabled = weighs and not node.weightAutomatic
        ui.fusionComboBox.enabled = node.translateTo != NO_MODALITY
        ui.agreementSelector.enabled = node.makeAgreement
        ui.maskSelector.visible = ui.maskSelectorLabel.visible = node.mask == "volume"
        modalities = (node.inputModality, None if node.translateTo == NO_MODALITY else node.translateTo)
        ui.methodLabel.text = words.methodInWords(node.engine, node.preset, node.fusion, node.weightAutomatic, node.labelFusion, modalities)
        self.engines.update(node.engine, engineProblem(node.engine), not self.isRunning())
        self._updateApplyButton(_("Wait for the engines' installation.") if self.engines.isRunning() else self._whyNot())
        self.quality.update()

    def _secondModality(self) -> str | None:
        node = self._parameterNode
        return None if NO_MODALITY in (node.translateTo, node.fusion) else node.translateTo

    def _updateSecond(self) -> None:
        node, ui = self._parameterNode, self._ui
        wanted = node.translateTo != NO_MODALITY
        for widget in (ui.secondLabel, ui.secondSelector):
            widget.visible = wanted
        translates = wanted and node.secondVolume is None
        self._models.offer(node.inputModality, node.translateTo if translates else None)
        for widget in (ui.modelLabel, ui.modelComboBox):
            widget.visible = translates
        note = ""
        if translates and node.translateTo == node.inputModality:
            note = _("The second modality is that of the input. Choose another, or none.")
        elif translates and not self._models.isAnyOffered():
            text = _("No model translates {source} to {target}. Choose another modality, or a real second volume.")
            note = text.format(source=node.inputModality, target=node.translateTo)
        elif translates:
            note = _("The second image is synthetic: what comes out says so.")
        ui.secondNoteLabel.text = note
        ui.secondNoteLabel.visible = bool(note)

    def _updateAtlases(self, given: str, second: str | None) -> None:
        node, ui = self._parameterNode, self._ui
        fromScene = node.atlasesFromScene
        for widget in (ui.atlasTableWidget, ui.addAtlasButton, ui.removeAtlasButton):
            widget.visible = fromScene
        for widget in (ui.atlasFolderLabel, ui.atlasFolderPathLineEdit):
            widget.visible = not fromScene
        self._atlases.setModalities(given, second)
        self._atlasNote, self._atlasesGood = self._describeAtlases(given, second)
        ui.atlasLabel.text = self._atlasNote

    def _describeAtlases(self, given: str, second: str | None) -> tuple[str, bool]:
        if self._parameterNode.atlasesFromScene:
            atlases = self._atlases.atlases()
            try:
                checkSceneAtlases(atlases, second)
            except ValueError as error:
                return str(error), False
            text = _("{count} atlases of the scene.") if len(atlases) > 1 else _("One atlas of the scene.")
            return text.format(count=len(atlases)), True
        folder = self._atlasFolder()
        if folder is None:
            return _("Choose a folder with atlases, or take them from the scene."), False
        return describeAtlasSet(folder, [given] + ([second] if second else []))

    def _atlasFolder(self) -> pathlib.Path | None:
        return folderOf(self._parameterNode.atlasFolder, self._ui.atlasFolderPathLineEdit)

    def _whyNot(self) -> str:
        node = self._parameterNode
        if node.inputVolume is None:
            return _("Select an input volume.")
        second = self._secondModality()
        if second is not None and node.secondVolume is None and (second == node.inputModality or not self._models.isAnyOffered()):
            return self._ui.secondNoteLabel.text
        if not self._atlasesGood:
            return self._atlasNote
        if node.mask == "volume" and node.maskVolume is None:
            return _("Select the mask, or choose auto or none.")
        return ""

    # ---- registration

    def _makeRun(self) -> RegistrationRun:
        node = self._parameterNode
        second = self._secondModality()
        subject = Subject(
            node.inputVolume,
            node.inputModality,
            second,
            node.secondVolume if second else None,
            self._models.chosenPath() if second and node.secondVolume is None else None,
            node.maskVolume if node.mask == "volume" else None,
        )
        options = RegistrationOptions(
            engine=node.engine,
            preset=node.preset,
            fusion=node.fusion,
            weight="auto" if node.weightAutomatic else round(node.weight, 4),
            labels=node.labelFusion,
            structures=tuple(part.strip() for part in node.structures.split(",") if part.strip()),
            mask="auto" if node.mask == "volume" else node.mask,
            slicePairs=node.slicePairs,
            seed=node.seed,
            jobs=node.jobs,
            memory=node.memory,
            agreement=node.makeAgreement,
            transforms=node.makeTransforms,
            warped=node.makeWarped,
            translated=node.makeTranslated,
        )
        atlases = self._atlases.atlases() if node.atlasesFromScene else self._atlasFolder()
        agreement = node.agreementVolume if node.makeAgreement else None
        return RegistrationRun(subject, atlases, options, node.outputSegmentation, agreement)

    def _stageInWords(self, message: str) -> str:
        return words.stageInWords(message)

    def _madeNodes(self, run: RegistrationRun) -> list:
        return [run.results.segmentationNode]

    def _showResult(self, run: RegistrationRun) -> None:
        results = run.results
        parameters = self._parameters()
        parameters.comparedSegmentation = results.segmentationNode
        if results.warpedNodes:
            parameters.warpedVolume = results.warpedNodes[0]
        self.quality.showTable(results.tableNode)
        if self._parameterNode is None:  # another module is open: its views are left alone
            return
        views.showVolume(results.inputNode())
        if results.agreementNode is not None:
            views.showColorLegend(results.agreementNode)


def engineProblem(engine: str) -> str | None:
    """What an engine lacks, in words; None if nothing."""
    from IMTRegisterLib.engines.interface import engine_problem

    return engine_problem(engine)
