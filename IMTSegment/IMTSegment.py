"""IMTSegment: segment a brain MRI of the scene from one acquired contrast and a translated second one.

Thin: the work is done by `imt segment` in a child process of Slicer's Python, so Slicer never freezes and never imports
torch itself. What the panel is made of lies in `IMTSegmentPanel`, the algorithms in `IMTSegmentLib`, what modules share in
`IMTSlicerLib` and `IMTCore`.
"""

import importlib.util
import pathlib
import sys
from typing import Annotated, Union

import slicer
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
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

if importlib.util.find_spec("IMTSlicerLib") is None:  # in a checkout of which only this module's folder was added
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "IMTTranslate"))

from IMTSlicerLib.module_widget import ModuleWidget

MODALITIES = ["T1", "T2", "FLAIR", "PD", "T1C"]


class IMTSegment(ScriptedLoadableModule):
    """The module's entry in Slicer's module list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("IMT Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["IMT developers"]
        self.parent.helpText = _(
            "Translated multichannel segmentation with image modality translation (IMT): labels brain tissue or tumours in one "
            "acquired MRI contrast. A second contrast is translated from it, or given, and both are segmented together; volumes, "
            "confidence and a comparison with a reference come with it. "
            "Results are computed, not drawn. For research, not for diagnosis."
        )
        self.parent.acknowledgementText = _(
            "Method: Q. Yang, N. Li, Z. Zhao, X. Fan, E. I-C. Chang, Y. Xu. MRI Cross-Modality Image-to-Image Translation. "
            "Scientific Reports 10, 3753 (2020). Fully convolutional networks: J. Long, E. Shelhamer, T. Darrell. CVPR (2015). "
            "The models name their data and citations."
        )


@parameterNodeWrapper
class IMTSegmentParameterNode:
    """What the panel remembers in the scene."""

    inputVolume: vtkMRMLScalarVolumeNode
    inputModality: Annotated[str, Choice(MODALITIES)] = "T1"
    model: str = ""
    secondVolume: vtkMRMLScalarVolumeNode
    compareModel: str = ""
    outputSegmentation: vtkMRMLSegmentationNode
    makeProbabilities: bool = False
    makeTranslated: bool = True
    show3D: bool = False
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"])] = "auto"
    precision: Annotated[str, Choice(["auto", "fp32", "bf16", "fp16"])] = "auto"
    batch: Annotated[int, WithinRange(0, 256)] = 0
    seed: Annotated[int, WithinRange(0, 2147483647)] = 0
    biasCorrection: bool = False
    checkModality: bool = True
    shownProbability: str = ""
    comparedSegmentation: vtkMRMLSegmentationNode
    outlinesOnly: bool = False
    referenceSegmentation: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007 - the wrapper knows no |


class IMTSegmentWidget(ModuleWidget, ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    packages = ("IMTSegmentPanel", "IMTSegmentLib", "IMTSlicerLib", "IMTCore")

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)  # first: without a parent, the next line runs setup, which adds observers
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel."""
        from IMTSegmentPanel.controller import PanelController

        ScriptedLoadableModuleWidget.setup(self)
        self.build("UI/IMTSegment.ui", IMTSegmentLogic(), IMTSegmentParameterNode, PanelController)


class IMTSegmentLogic(ScriptedLoadableModuleLogic):
    """Segmentation and comparison without a panel; never opens a dialog.

    >>> logic = IMTSegmentLogic()
    >>> result = logic.segment(slicer.util.getNode("T1"), model="tissue")
    >>> result.segmentationNode, result.tableNode, result.report["statistics"]
    >>> logic.compare(result.segmentationNode, slicer.util.getNode("reference")).meanDice
    """

    def __init__(self):
        from IMTSlicerLib.saved_marks import followScene

        ScriptedLoadableModuleLogic.__init__(self)
        followScene()

    def getParameterNode(self):
        """The scene's `IMTSegmentParameterNode`."""
        return IMTSegmentParameterNode(super().getParameterNode())

    @staticmethod
    def models():
        """The cards of all segmentation models.

        >>> [(card.name, card.task, card.source, card.second) for card in logic.models()]
        """
        from IMTSegmentPanel.segmenters import Segmenters

        return Segmenters().cards

    @staticmethod
    def guessModality(inputNode):
        """What a volume seems to be: (modality or None, from what it was told).

        >>> logic.guessModality(slicer.util.getNode("MRHead"))
        """
        from IMTSlicerLib.input_modality import guessInputModality

        return guessInputModality(inputNode)

    def segment(self, inputNode, model="tissue", secondNode=None, segmentationNode=None, wait=True, **options):
        """Segment a volume.

        >>> result = logic.segment(t1)  # the default model for tissue
        >>> result = logic.segment(t1, "tissue-T1-FLAIR", secondNode=slicer.util.getNode("FLAIR"), probabilities=True)
        >>> views = result.probabilityNodes["white matter"], result.translatedNode
        >>> run = logic.segment(t1, wait=False)
        >>> run.ended.connect(lambda: print(run.state, run.results.segmentationNode))

        :param inputNode: vtkMRMLScalarVolumeNode of the model's modality; it is not changed.
        :param model: a model's name, a task such as "tissue" (its default model), or a card's path.
        :param secondNode: volume of the model's second modality, real or translated before; None translates the input, if
            the model takes a second modality.
        :param segmentationNode: node to fill, or None for a new one.
        :param wait: wait for the end, with Slicer alive; else return at once.
        :param options: fields of `IMTSegmentPanel.segmentation_run.SegmentationOptions`: translator, compareWith, device,
            precision, batch, seed, biasCorrection, checkModality, probabilities, translated, surfaces.
        :return: `SegmentationResults` with `segmentationNode`, `tableNode`, `probabilityNodes` (by structure),
            `translatedNode`, `report`, `warnings`; the `SegmentationRun` if not waiting.
        :raises ValueError: bad input or model. RuntimeError: the run failed or was cancelled. The scene stays as it was.
        """
        from IMTSegmentPanel.segmentation_run import SegmentationOptions, SegmentationRun
        from IMTSlicerLib.dependencies import checkDependencies

        run = SegmentationRun(inputNode, model, secondNode, SegmentationOptions(**options), segmentationNode)
        checkDependencies()
        run.start()
        if not wait:
            return run
        run.wait()
        return run.results

    @staticmethod
    def compare(segmentationNode, referenceNode):
        """Score a segmentation against a reference, structure by structure (matched by name).

        >>> comparison = logic.compare(result.segmentationNode, slicer.util.getNode("reference"))
        >>> comparison.meanDice, comparison.scores["white matter"].hausdorff_95_mm, comparison.tableNode
        >>> regions = comparison.showRegions("white matter")  # segments: true, false, missing

        :param referenceNode: segmentation, or label map on the segmentation's grid.
        :return: a `SegmentationComparison`. :raises ValueError: nodes that cannot be compared.
        """
        from IMTSlicerLib.segmentation_quality import compareSegmentations

        return compareSegmentations(segmentationNode, referenceNode)

    @staticmethod
    def ensureDependencies():
        """Install what `imt` lacks, with the user's consent; `RuntimeError` if it stays missing."""
        from IMTSlicerLib.dependencies import ensureDependencies

        ensureDependencies()


class IMTSegmentTest(ScriptedLoadableModuleTest):
    """What can be tested inside Slicer."""

    def runTest(self):
        """Run all tests."""
        for test in (self.test_labelsLieOnTheInput, self.test_missingInputLeavesTheSceneAsItWas, self.test_parametersSurvive):
            self.setUp()
            test()

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def test_labelsLieOnTheInput(self):
        """A phantom's labels lie on its grid, have names, and agree with themselves."""
        from IMTSlicerLib.dependencies import REQUIREMENTS

        logic = IMTSegmentLogic()
        model = next((card for card in logic.models() if card.task == "tissue" and card.source == "T1"), None)
        if model is None or importlib.util.find_spec("torch") is None:  # build machines have the PyTorch extension, not torch
            missing = "PyTorch is not installed." if model is not None else "there is no model for tissue in T1."
            print(f"IMTSegmentTest: no segmentation was tested: {missing}")
            return
        sample = REQUIREMENTS.parent / "IMT-sample-data" / "IMT-phantom-T1.nii.gz"
        loaded = slicer.util.loadVolume(str(sample), properties={"show": False})
        node = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(loaded)[::2, ::2, ::2].copy(), name="T1")
        node.SetSpacing(*(2 * size for size in loaded.GetSpacing()))
        slicer.mrmlScene.RemoveNode(loaded)
        result = logic.segment(node, model.name, checkModality=False)
        names = [entry.name for entry in model.classes.values()]
        found = result.segmentationNode.GetSegmentation()
        self.assertEqual([found.GetNthSegment(number).GetName() for number in range(len(names))], names)
        self.assertEqual(result.tableNode.GetNumberOfRows(), len(names))
        role = result.segmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertIs(result.segmentationNode.GetNodeReference(role), node)
        self.assertEqual(result.segmentationNode.GetAttribute("IMT.Model"), model.name)

    def test_missingInputLeavesTheSceneAsItWas(self):
        """No volume gives one clear message."""
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(ValueError):
            IMTSegmentLogic().segment(None)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_parametersSurvive(self):
        """What was set is there when the scene's parameter node is taken again."""
        logic = IMTSegmentLogic()
        logic.getParameterNode().seed = 12
        self.assertEqual(logic.getParameterNode().seed, 12)
