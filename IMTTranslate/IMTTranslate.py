"""IMTTranslate: translate an MRI volume of the scene into other modalities.

Thin: the work is done by the `imt` command in a child process of Slicer's Python, so Slicer never freezes and never
imports torch itself. What the panel is made of lies in `IMTTranslatePanel`, what modules share in `IMTSlicerLib`.
"""

import pathlib
from typing import Annotated

import slicer
import vtk
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from IMTSlicerLib.module_widget import ModuleWidget


class IMTTranslate(ScriptedLoadableModule):
    """The module's entry in Slicer's module list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("IMT Translate")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        self.parent.dependencies = []
        self.parent.contributors = ["IMT developers"]
        self.parent.helpText = _(
            "Image modality translation (IMT): makes missing contrasts of a brain MRI (T1, T2, FLAIR, PD) from an acquired one, "
            "with an optional map of the model's uncertainty, and compares the result with a real image. "
            "Results are synthetic. For research, not for diagnosis."
        )
        self.parent.acknowledgementText = _(
            "Method: Q. Yang, N. Li, Z. Zhao, X. Fan, E. I-C. Chang, Y. Xu. MRI Cross-Modality Image-to-Image Translation. "
            "Scientific Reports 10, 3753 (2020). Toolkit from any sequence to any other: A. K. Avula. Medical Image Translation "
            "Using Convolutional Neural Networks (2020). The models name their data and citations."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the phantoms that come with IMT in the Sample Data module."""
    from IMTTranslatePanel.sample_data import register

    register(pathlib.Path(__file__).parent / "Resources")


@parameterNodeWrapper
class IMTTranslateParameterNode:
    """What the panel remembers in the scene. One group of three for each row of modalities."""

    inputVolume: vtkMRMLScalarVolumeNode
    inputModality: Annotated[str, Choice(["T1", "T2", "FLAIR", "PD", "T1C"])] = "T1"
    translateToT1: bool = True
    modelT1: str = ""
    outputT1: vtkMRMLScalarVolumeNode
    translateToT2: bool = True
    modelT2: str = ""
    outputT2: vtkMRMLScalarVolumeNode
    translateToFLAIR: bool = False
    modelFLAIR: str = ""
    outputFLAIR: vtkMRMLScalarVolumeNode
    translateToPD: bool = False
    modelPD: str = ""
    outputPD: vtkMRMLScalarVolumeNode
    translateToOther: bool = False
    modelOther: str = ""
    outputOther: vtkMRMLScalarVolumeNode
    uncertainty: bool = False
    trustMap: bool = False
    samples: Annotated[int, WithinRange(2, 100)] = 8
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"])] = "auto"
    precision: Annotated[str, Choice(["auto", "fp32", "bf16", "fp16"])] = "auto"
    batch: Annotated[int, WithinRange(0, 256)] = 0
    seed: Annotated[int, WithinRange(0, 2147483647)] = 0
    singlePlane: bool = False
    biasCorrection: bool = False
    checkModality: bool = True
    keepModelLoaded: bool = False
    modelFolder: pathlib.Path = pathlib.Path()
    comparedVolume: vtkMRMLScalarVolumeNode
    realVolume: vtkMRMLScalarVolumeNode
    regionVolume: vtkMRMLLabelMapVolumeNode


class IMTTranslateWidget(ModuleWidget, ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    packages = ("IMTTranslatePanel", "IMTSlicerLib", "IMTCore")
    readerStudy = None
    dicom = None
    batch = None

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)  # first: without a parent, the next line runs setup, which adds observers
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel."""
        from IMTTranslatePanel.batch_page import BatchPage
        from IMTTranslatePanel.controller import PanelController
        from IMTTranslatePanel.dicom_page import DicomPage
        from IMTTranslatePanel.reader_study_page import ReaderStudyPage

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = self.build("UI/IMTTranslate.ui", IMTTranslateLogic(), IMTTranslateParameterNode, PanelController)
        self.dicom = DicomPage(self.resourcePath("UI"), self.logic, self.ui.logTextEdit.appendPlainText)
        uiWidget.layout().insertWidget(uiWidget.layout().indexOf(self.ui.logCollapsibleButton), self.dicom.widget)
        self.batch = BatchPage(self.resourcePath("UI"), self.logic, lambda: self._parameterNode, self.ui.logTextEdit.appendPlainText)
        uiWidget.layout().insertWidget(uiWidget.layout().indexOf(self.ui.logCollapsibleButton), self.batch.widget)
        self.readerStudy = ReaderStudyPage(self.resourcePath("UI"))
        uiWidget.layout().insertWidget(uiWidget.layout().indexOf(self.ui.logCollapsibleButton), self.readerStudy.widget)

    def cleanup(self):
        """The panel goes away: end what runs."""
        try:
            if self.dicom is not None:
                self.dicom.stop()
            if self.batch is not None:
                self.batch.stop()
            if self.readerStudy is not None:
                self.readerStudy.close()
        finally:
            ModuleWidget.cleanup(self)

    def onSceneStartClose(self, caller, event):
        """The scene goes: runs end, a batch too, which can be resumed."""
        self.dicom.stop()
        self.batch.stop()
        ModuleWidget.onSceneStartClose(self, caller, event)

    def _onParameterNodeModified(self, caller=None, event=None):
        ModuleWidget._onParameterNodeModified(self, caller, event)
        if self.batch is not None:
            self.batch.update()
        if self.dicom is not None and self._parameterNode is not None:
            self.dicom.offer(self._parameterNode.comparedVolume)


class IMTTranslateLogic(ScriptedLoadableModuleLogic):
    """Translation and comparison without a panel; never opens a dialog.

    >>> logic = slicer.modules.imttranslate.widgetRepresentation().self().logic  # or IMTTranslateLogic()
    >>> t2 = logic.translate(slicer.util.getNode("T1"), model="T1-T2")
    >>> t2.GetName()
    'T1 T2 (synthetic)'
    """

    def __init__(self):
        from IMTSlicerLib.saved_marks import followScene

        ScriptedLoadableModuleLogic.__init__(self)
        followScene()

    def getParameterNode(self):
        """The scene's `IMTTranslateParameterNode`."""
        return IMTTranslateParameterNode(super().getParameterNode())

    @staticmethod
    def models(folder=None):
        """The cards of all models; `folder` may hold the user's own.

        >>> [card.name for card in logic.models()]
        """
        from IMTTranslatePanel.model_choice import ModelChoice

        return ModelChoice(pathlib.Path(folder) if folder else None).cards

    @staticmethod
    def guessModality(inputNode):
        """What a volume seems to be: (modality or None, from what it was told).

        >>> logic.guessModality(slicer.util.getNode("MRHead"))
        """
        from IMTSlicerLib.input_modality import guessInputModality

        return guessInputModality(inputNode)

    def translate(self, inputNode, model, outputNode=None, uncertainty=False, wait=True, sourceModality=None, targetModality=None, **options):
        """Translate a volume into another modality, or into several.

        >>> t2 = logic.translate(t1, model="T1-T2")
        >>> t2, flair = logic.translate(t1, model=["T1-T2", "T1-FLAIR"], uncertainty=True, samples=16)
        >>> run = logic.translate(t1, model="T1-T2", wait=False)
        >>> run.ended.connect(lambda: print(run.state, run.outputNodes))

        :param inputNode: vtkMRMLScalarVolumeNode; it is not changed.
        :param model: a model's name, a pair of modalities such as "T1-T2" or a card's path; or a list of them.
        :param outputNode: scalar volume node to fill (or a list), or None for new ones.
        :param uncertainty: also make a volume of the standard deviation over `samples` noise samples.
        :param wait: wait for the end, with Slicer alive; else return at once.
        :param sourceModality, targetModality: the pair, for an any-to-any model.
        :param options: fields of `IMTTranslatePanel.translation_run.TranslationOptions`: samples, device, precision, batch,
            seed, singlePlane, biasCorrection, checkModality, trustMap.
        :return: the output node (a list, if `model` is one), on the input's grid and under its parent transform; the
            `TranslationRun` if not waiting (its `outputNodes`, `uncertaintyNodes`, `trustNodes`, `warnings` hold what came out).
        :raises ValueError: bad input or model. RuntimeError: the run failed or was cancelled. The scene stays as it was.
        """
        from IMTSlicerLib.dependencies import checkDependencies
        from IMTTranslatePanel.translation_run import TranslationOptions, TranslationRun, TranslationTarget

        several = isinstance(model, list | tuple)
        models = [str(name) for name in model] if several else [str(model)]
        outputs = list(outputNode) if isinstance(outputNode, list | tuple) else ([outputNode] + [None] * len(models))[: len(models)]
        if len(outputs) != len(models):
            raise ValueError(_("Give one output volume for each model, or none."))
        targets = [TranslationTarget(name, targetModality, output) for name, output in zip(models, outputs, strict=True)]
        run = TranslationRun(inputNode, targets, TranslationOptions(uncertainty=uncertainty, **options), sourceModality)
        checkDependencies()
        run.start()
        if not wait:
            return run
        run.wait()
        return run.outputNodes if several else run.outputNodes[0]

    def evaluate(self, syntheticNode, realNode, maskNode=None, wait=True):
        """Score a synthetic volume against a real one of the same modality and grid.

        >>> comparison = logic.evaluate(t2, slicer.util.getNode("T2"))
        >>> comparison.scores[0]["psnr"], comparison.tableNode, comparison.errorNode

        :param maskNode: label map: where to compare; None takes the real volume's foreground.
        :return: a `ComparisonRun` with `scores` (MAE, PSNR, SSIM, MI by named convention), `tableNode` and `errorNode`
            (|difference| in percent of the real volume's range).
        :raises ValueError: nodes that cannot be compared. RuntimeError: the comparison failed.
        """
        from IMTSlicerLib.dependencies import checkDependencies
        from IMTTranslatePanel.comparison import ComparisonRun

        comparison = ComparisonRun(syntheticNode, realNode, maskNode)
        checkDependencies()
        comparison.job.start()
        if wait:
            comparison.job.wait()
        return comparison

    def saveAsDicom(self, node, folder, sourceFolder=None, series="", addToDatabase=False, wait=True):
        """Write a synthetic volume as a new DICOM series of the study that its input came from, marked as synthetic.

        >>> export = logic.saveAsDicom(t2, "study/synthetic-T2")  # the input was loaded from Slicer's DICOM database
        >>> export = logic.saveAsDicom(t2, "study/synthetic-T2", sourceFolder="study", series="4")
        >>> export.seriesFolder, export.summary

        :param node: a volume that IMT translated, or its uncertainty.
        :param folder: the folder to make; it may be there if it is empty.
        :param sourceFolder: folder with the files of the source series; None for Slicer's DICOM database.
        :param series: which series of `sourceFolder`: number, description or UID; empty for the only one.
        :param addToDatabase: also add the new series to Slicer's DICOM database.
        :param wait: wait for the end, with Slicer alive; else return at once.
        :return: the `IMTTranslatePanel.dicom_export.DicomExport`: `seriesFolder`, `summary`, `warnings`, `addedToDatabase`.
        :raises ValueError: a volume, folder or series that cannot be used. RuntimeError: the export failed or was cancelled;
            nothing is written then.
        """
        from IMTSlicerLib.dependencies import checkDependencies
        from IMTTranslatePanel.dicom_export import DicomExport

        source = pathlib.Path(sourceFolder) if sourceFolder else None
        run = DicomExport(node, pathlib.Path(folder), source, str(series), addToDatabase)
        checkDependencies()
        run.start()
        return run.wait() if wait else run

    def runBatch(self, inputPath, outputFolder, models=(), segmenter="", wait=True, **options):
        """Translate, and segment, many cases; results are files in `outputFolder`, the scene is not touched.

        >>> batch = logic.runBatch("cohort", "results", ["T1-T2"], segmenter="tissue")
        >>> [(row.case, row.state, row.message) for row in batch.rows()]
        >>> batch.report  # report.html

        What is finished is skipped: the same call goes on after a stop or a crash.

        :param inputPath: a folder with one folder for each case, a folder of images, a BIDS folder, or a CSV file.
        :param models: translation models, by name, pair or card's path.
        :param segmenter: a segmentation model, by name, task or card's path; empty for none.
        :param wait: wait for the end, with Slicer alive; else return at once.
        :param options: as of `translate`, and `uncertainty`; there are no trust maps in a batch.
        :return: the `IMTTranslatePanel.batch_run.BatchRun`: `rows()`, `report`, `state`, `stop()`, and the signals `changed`,
            `progress` and `ended`. That single cases failed is no error.
        :raises ValueError: input, folder or model cannot be used. RuntimeError: the batch broke off or was stopped.
        """
        from IMTSlicerLib.dependencies import checkDependencies
        from IMTTranslatePanel.batch_run import BatchPlan, BatchRun
        from IMTTranslatePanel.translation_run import TranslationOptions

        models = [models] if isinstance(models, str | pathlib.Path) else models
        plan = BatchPlan(
            pathlib.Path(inputPath), pathlib.Path(outputFolder), tuple(map(str, models)), str(segmenter or ""), TranslationOptions(**options)
        )
        run = BatchRun(plan)
        checkDependencies()
        run.start()
        return run.wait() if wait else run

    def loadBatchCase(self, outputFolder, case, inputPath=None):
        """Load a case of a batch into the scene: its input, synthetic volumes and labels, marked as what they are.

        >>> given, t2 = logic.loadBatchCase("results", "sub-01")

        :param case: its name, as in the batch's table.
        :param inputPath: where the input image lies, if it was moved after the batch.
        :return: the input's node, then those of synthetic volumes and segmentations; what is in the scene already is not
            loaded twice.
        :raises ValueError: there is no such case, or nothing of it is finished. RuntimeError: a file is gone, or is not as
            the batch wrote it; the scene stays as it was.
        """
        from IMTTranslatePanel.batch_scene import loadCase

        return loadCase(pathlib.Path(outputFolder), case, inputPath and pathlib.Path(inputPath))

    @staticmethod
    def ensureDependencies():
        """Install what is missing, with the user's consent; `RuntimeError` if it stays missing."""
        from IMTSlicerLib.dependencies import ensureDependencies

        ensureDependencies()


class IMTTranslateTest(ScriptedLoadableModuleTest):
    """What can be tested inside Slicer."""

    def runTest(self):
        """Run all tests."""
        for test in (self.test_resultLiesOnTheInputsGrid, self.test_missingInputLeavesTheSceneAsItWas, self.test_parametersSurvive):
            self.setUp()
            test()

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def test_resultLiesOnTheInputsGrid(self):
        """A translated oblique volume has the input's matrix, is marked as synthetic, and can be compared."""
        import importlib.util

        import numpy as np

        if importlib.util.find_spec("torch") is None:  # build machines have the PyTorch extension, but not torch
            print("IMTTranslateTest: no translation was tested, as PyTorch is not installed.")
            return

        k, j, i = np.indices((12, 60, 50)) - np.array([6, 30, 25])[:, None, None, None]
        radius = np.sqrt((k / 5) ** 2 + (j / 25) ** 2 + (i / 20) ** 2)
        head = np.where(radius < 1, 100 + 80 * np.cos(4 * radius) + i, 0).astype(np.int16)
        node = slicer.util.addVolumeFromArray(head, name="T1")
        node.SetSpacing(2.0, 2.0, 4.0)
        node.SetIJKToRASDirections(0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
        logic = IMTTranslateLogic()
        result = logic.translate(node, "T1-T2", checkModality=False)
        expected, actual = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(expected)
        result.GetIJKToRASMatrix(actual)
        for row in range(4):
            for column in range(4):
                self.assertAlmostEqual(expected.GetElement(row, column), actual.GetElement(row, column), places=9)
        self.assertEqual(slicer.util.arrayFromVolume(result).shape, head.shape)
        self.assertEqual(result.GetName(), "T1 T2 (synthetic)")
        self.assertEqual(result.GetAttribute("IMT.Synthetic"), "true")
        comparison = logic.evaluate(result, node)
        self.assertGreater(comparison.scores[0]["mae"], 0)

    def test_missingInputLeavesTheSceneAsItWas(self):
        """No volume gives one clear message."""
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(ValueError):
            IMTTranslateLogic().translate(None, "T1-T2")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_parametersSurvive(self):
        """What was set is there when the scene's parameter node is taken again."""
        logic = IMTTranslateLogic()
        logic.getParameterNode().samples = 12
        self.assertEqual(logic.getParameterNode().samples, 12)
