"""What the panel does: guesses, checks, runs, shows."""

from __future__ import annotations

import pathlib
import time

import qt
import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.system_check import SystemCheck

from . import words
from .atlas_table import AtlasTable
from .engine_installation import EngineInstallation
from .model_list import ModelList
from .quality_controller import QualityController
from .registration_run import RegistrationOptions, RegistrationRun, Subject
from .scene_atlases import checkSceneAtlases, describeAtlasSet
from .settings import remembered

GUESSED_FOR = "IMT.GuessedFor"  # node reference of the parameter node: the volume whose modality was guessed
NO_MODALITY = "none"


class PanelController:
    """Joins the panel's widgets, the parameter node and the runs.

    :param ui: the widgets by name.
    :param logic: the module's logic.
    :param requirementsPath: what the engines' folder needs.
    """

    def __init__(self, ui, logic, requirementsPath: pathlib.Path) -> None:
        self._ui, self._logic = ui, logic
        self._parameterNode = None
        self._run: RegistrationRun | None = None
        self._started = 0.0
        self._guessed: str | None = None  # what the guess label tells of
        for widget in (ui.progressBar, ui.guessLabel, ui.statusLabel):
            widget.visible = False
        self._atlases = AtlasTable(ui.atlasTableWidget, ui.addAtlasButton, ui.removeAtlasButton, self.update)
        self._models = ModelList(ui.modelComboBox, self.update)
        self.engines = EngineInstallation(requirementsPath, ui, self._showStatus, self._showError, self.update)
        self.quality = QualityController(ui, logic, self._log)
        ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self._check = SystemCheck(ui.checkSystemButton, self._log, engineLines)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node (before it is bound to the widgets), or none."""
        self._parameterNode = parameterNode
        self._atlases.setParameterNode(parameterNode)
        self._models.setParameterNode(parameterNode)
        self.quality.setParameterNode(parameterNode)
        if parameterNode is not None:
            remembered.restore(parameterNode)

    def isRunning(self) -> bool:
        """Whether a registration runs."""
        return self._run is not None and self._run.state == "running"

    def cancel(self) -> None:
        """End the runs; the scene stays as it is."""
        self._check.cancel()
        if self._run is not None:
            self._run.cancel()

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
        running, installing = self.isRunning(), self.engines.isRunning()
        self.engines.update(node.engine, engineProblem(node.engine), not running)
        problem = _("Wait for the engines' installation.") if installing else self._whyNot()
        ui.applyButton.text = _("Cancel") if running else _("Register")
        ui.applyButton.enabled = running or not problem
        ui.applyButton.toolTip = _("Stop; the scene stays as it is.") if running else problem or _("Register the input volume with the atlases.")
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
        self._models.update(node.inputModality, node.translateTo if translates else None)
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
        folder = ui.atlasFolderPathLineEdit
        if folder.currentPath == ".":  # how an empty pathlib.Path is shown
            blocked = folder.blockSignals(True)
            folder.currentPath = ""
            folder.blockSignals(blocked)
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
            return _("{count} atlases of the scene.").format(count=len(atlases)), True
        folder = self._atlasFolder()
        if folder is None:
            return _("Choose a folder with atlases, or take them from the scene."), False
        return describeAtlasSet(folder, [given] + ([second] if second else []))

    def _atlasFolder(self) -> pathlib.Path | None:
        folder = self._parameterNode.atlasFolder
        return None if str(folder) in ("", ".") else pathlib.Path(folder)

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

    # ---- registration

    def onApplyButton(self, *_unused) -> None:
        """Start a registration, or cancel the one that runs."""
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
        remembered.save(self._parameterNode)
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self._showStatus(_("Starting"))
        self.update()

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
        run = RegistrationRun(subject, atlases, options, node.outputSegmentation, agreement)
        run.progress.connect(self._onProgress)
        run.logged.connect(self._log)
        run.ended.connect(self._onRunEnded)
        return run

    def _onProgress(self, fraction: float, message: str, secondsLeft: float | None) -> None:
        self._ui.progressBar.value = int(1000 * fraction)
        text = words.stageInWords(message)
        if secondsLeft is not None:
            text = _("{message}, about {time} left").format(message=text, time=words.duration(secondsLeft))
        self._showStatus(text)

    def _onRunEnded(self) -> None:
        run, seconds = self._run, time.monotonic() - self._started
        self._ui.progressBar.visible = False
        if run.state == "finished":
            text = _("Made {name} in {time}.").format(name=run.results.segmentationNode.GetName(), time=words.duration(seconds))
            text += "".join(f"\n{_('Warning:')} {warning}" for warning in run.results.warnings)
            self._showStatus(text)
            self._log(text)
            self._showResult(run)
        elif run.state == "cancelled":
            self._showStatus(_("Cancelled: nothing was changed."))
        else:
            self._showError(run.errorMessage)
        self.update()

    def _showResult(self, run: RegistrationRun) -> None:
        results = run.results
        self._logic.getParameterNode().comparedSegmentation = results.segmentationNode
        if results.warpedNodes:
            self._logic.getParameterNode().warpedVolume = results.warpedNodes[0]
        if self._parameterNode is None:  # another module is open: its views are left alone
            return
        self.quality.showTable(results.tableNode)
        views.showVolume(results.inputNode())
        if results.agreementNode is not None:
            views.showColorLegend(results.agreementNode)

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


def engineProblem(engine: str) -> str | None:
    """What an engine lacks, in words; None if nothing."""
    from IMTRegisterLib.engines.interface import engine_problem

    return engine_problem(engine)


def engineLines() -> list[str]:
    """Each engine's package and version, or what it lacks."""
    from IMTRegisterLib.engines.interface import ENGINES, engine_problem, engine_version

    return [engine_problem(engine) or engine_version(engine) or engine for engine in ENGINES]
