"""IMTRegister: carry atlas labels to an MRI volume of the scene, with a translated second modality to help.

Thin: the work is done by `imt register` in a child process of Slicer's Python, so Slicer never freezes and never
imports torch or a registration engine itself. What the panel is made of lies in `IMTRegisterPanel`, the algorithms in
`IMTRegisterLib`, what modules share in `IMTSlicerLib` and `IMTCore`.
"""

import importlib.util
import pathlib
import sys
from typing import Annotated, Union

import slicer
import vtk
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
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

ENGINE_REQUIREMENTS = pathlib.Path(__file__).parent / "Resources" / "IMT-register-requirements.txt"
MODALITIES = ["T1", "T2", "FLAIR", "PD", "T1C"]


class IMTRegister(ScriptedLoadableModule):
    """The module's entry in Slicer's module list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("IMT Register")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["IMT developers"]
        self.parent.helpText = _(
            "Multi-atlas registration with image modality translation (IMT): a brain MRI gets the labels of registered "
            "atlases. A second contrast, acquired or translated from the first, is registered as well, and the two "
            "deformations of each atlas are fused. Results are computed, not drawn. For research, not for diagnosis."
        )
        self.parent.acknowledgementText = _(
            "Method: Q. Yang, N. Li, Z. Zhao, X. Fan, E. I-C. Chang, Y. Xu. MRI Cross-Modality Image-to-Image Translation. "
            "Scientific Reports 10, 3753 (2020). Engines: Greedy (P. Yushkevich), ANTs (B. Avants and others), "
            "elastix (S. Klein, M. Staring and others)."
        )


@parameterNodeWrapper
class IMTRegisterParameterNode:
    """What the panel remembers in the scene. The table of atlases is kept by `IMTRegisterPanel.atlas_table`."""

    inputVolume: vtkMRMLScalarVolumeNode
    inputModality: Annotated[str, Choice(MODALITIES)] = "T1"
    translateTo: Annotated[str, Choice(["none", *MODALITIES])] = "none"
    secondVolume: vtkMRMLScalarVolumeNode
    model: str = ""
    atlasFolder: pathlib.Path = pathlib.Path()
    atlasesFromScene: bool = False
    engine: Annotated[str, Choice(["greedy", "ants", "elastix"])] = "greedy"
    preset: Annotated[str, Choice(["fast", "paper"])] = "fast"
    fusion: Annotated[str, Choice(["none", "mean", "log", "local", "joint"])] = "mean"
    weightAutomatic: bool = True
    weight: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    labelFusion: Annotated[str, Choice(["mean", "majority", "staple", "joint"])] = "mean"
    structures: str = ""
    outputSegmentation: vtkMRMLSegmentationNode
    makeAgreement: bool = True
    agreementVolume: vtkMRMLScalarVolumeNode
    makeTransforms: bool = True
    makeWarped: bool = False
    makeTranslated: bool = True
    mask: Annotated[str, Choice(["auto", "none", "volume"])] = "auto"
    maskVolume: vtkMRMLLabelMapVolumeNode
    slicePairs: bool = False
    seed: Annotated[int, WithinRange(0, 2147483646)] = 0
    jobs: Annotated[int, WithinRange(0, 256)] = 0
    memory: Annotated[float, WithinRange(0.0, 4096.0)] = 0.0
    comparedSegmentation: vtkMRMLSegmentationNode
    referenceSegmentation: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007 - the wrapper knows no |
    outlinesOnly: bool = False
    landmarks: vtkMRMLMarkupsFiducialNode
    warpedVolume: vtkMRMLScalarVolumeNode


class IMTRegisterWidget(ModuleWidget, ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    packages = ("IMTRegisterPanel", "IMTRegisterLib", "IMTSlicerLib", "IMTCore")

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)  # first: without a parent, the next line runs setup, which adds observers
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel."""
        from IMTRegisterPanel.controller import PanelController

        ScriptedLoadableModuleWidget.setup(self)
        self.build(
            "UI/IMTRegister.ui",
            IMTRegisterLogic(),
            IMTRegisterParameterNode,
            lambda ui, logic: PanelController(ui, logic, ENGINE_REQUIREMENTS),
        )


class IMTRegisterLogic(ScriptedLoadableModuleLogic):
    """Registration and comparison without a panel; never opens a dialog.

    >>> logic = IMTRegisterLogic()
    >>> result = logic.register(slicer.util.getNode("T2"), "T2", "/data/atlases", translateTo="T1")
    >>> result.segmentationNode, result.transformNodes["atlas1"], result.report["folds"]
    >>> logic.compare(result.segmentationNode, slicer.util.getNode("reference")).meanDice
    """

    def __init__(self):
        from IMTSlicerLib.saved_marks import followScene

        ScriptedLoadableModuleLogic.__init__(self)
        followScene()

    def getParameterNode(self):
        """The scene's `IMTRegisterParameterNode`."""
        return IMTRegisterParameterNode(super().getParameterNode())

    @staticmethod
    def guessModality(inputNode):
        """What a volume seems to be: (modality or None, from what it was told).

        >>> logic.guessModality(slicer.util.getNode("MRHead"))
        """
        from IMTSlicerLib.input_modality import guessInputModality

        return guessInputModality(inputNode)

    def register(
        self,
        inputNode,
        modality,
        atlases,
        translateTo=None,
        secondNode=None,
        model=None,
        maskNode=None,
        segmentationNode=None,
        agreementNode=None,
        wait=True,
        **options,
    ):
        """Register a volume with atlases, modality by modality, and carry their labels over.

        >>> result = logic.register(t2, "T2", "/data/atlases", translateTo="T1", warped=True)
        >>> result = logic.register(t2, "T2", [SceneAtlas("a", imageNode, labelsNode)])  # IMTRegisterPanel.scene_atlases
        >>> run = logic.register(t2, "T2", "/data/atlases", wait=False)
        >>> run.ended.connect(lambda: print(run.state, run.results.segmentationNode))

        :param inputNode: vtkMRMLScalarVolumeNode; it is not changed.
        :param modality: what it is, such as "T2"; the atlases must have it.
        :param atlases: path of an atlas folder or CSV, or a list of `SceneAtlas`.
        :param translateTo: second modality, which the atlases have too; None registers the input alone.
        :param secondNode: real image of it; None translates the input, with `model` (None for the default of the pair).
        :param maskNode: label map on the input's grid: where to register.
        :param segmentationNode, agreementNode: nodes to fill, or None for new ones.
        :param wait: wait for the end, with Slicer alive; else return at once.
        :param options: fields of `IMTRegisterPanel.registration_run.RegistrationOptions`: engine, preset, fusion, weight,
            labels, structures, mask, slicePairs, seed, jobs, memory, cache, agreement, transforms, warped, translated.
        :return: `RegistrationResults` with `segmentationNode`, `transformNodes` (by atlas), `warpedNodes`, `agreementNode`,
            `translatedNode`, `tableNode`, `report`, `warnings`; the `RegistrationRun` if not waiting.
        :raises ValueError: bad input. RuntimeError: an engine is missing, the run failed or was cancelled. The scene stays
            as it was.
        """
        from IMTRegisterPanel.registration_run import RegistrationOptions, RegistrationRun, Subject
        from IMTSlicerLib.dependencies import checkDependencies

        subject = Subject(inputNode, modality, translateTo, secondNode, model, maskNode)
        atlases = pathlib.Path(atlases) if isinstance(atlases, str | pathlib.Path) else atlases
        if isinstance(options.get("structures"), str):
            options["structures"] = (options["structures"],)
        run = RegistrationRun(subject, atlases, RegistrationOptions(**options), segmentationNode, agreementNode)
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
    def compareLandmarks(markupsNode, segmentationNode):
        """How far the input's landmarks, taken to each atlas, are from the atlas's own, in mm.

        >>> logic.compareLandmarks(slicer.util.getNode("ventricles"), result.segmentationNode).distances["atlas1"]["L1"]

        :param segmentationNode: made by `register` with transforms and atlases that have landmarks.
        :return: a `LandmarkComparison`. :raises ValueError: nothing to compare.
        """
        from IMTRegisterPanel.quality import compareLandmarks

        return compareLandmarks(markupsNode, segmentationNode)

    @staticmethod
    def checkerboard(firstNode, secondNode, squares=8):
        """A new volume with squares of two volumes in turn, such as the input and a warped atlas.

        >>> logic.checkerboard(t2, result.warpedNodes[0])

        :raises ValueError: volumes that cannot be used, or are on different grids.
        """
        from IMTRegisterPanel.quality import makeCheckerboard

        return makeCheckerboard(firstNode, secondNode, squares)

    @staticmethod
    def ensureDependencies():
        """Install what `imt` itself lacks, with the user's consent; `RuntimeError` if it stays missing."""
        from IMTSlicerLib.dependencies import ensureDependencies

        ensureDependencies()


class IMTRegisterTest(ScriptedLoadableModuleTest):
    """What can be tested inside Slicer."""

    def runTest(self):
        """Run all tests."""
        for test in (self.test_labelsFollowTheSubject, self.test_missingInputLeavesTheSceneAsItWas, self.test_parametersSurvive):
            self.setUp()
            test()

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def test_labelsFollowTheSubject(self):
        """An atlas that is the subject, turned and shifted, gives its labels back in the right place."""
        import numpy as np

        from IMTRegisterPanel.controller import engineProblem
        from IMTRegisterPanel.scene_atlases import SceneAtlas
        from IMTSlicerLib.dependencies import REQUIREMENTS

        sample = REQUIREMENTS.parent / "IMT-sample-data" / "IMT-phantom-T1.nii.gz"
        problem = engineProblem("greedy")
        if importlib.util.find_spec("torch") is None or problem:
            print(f"IMTRegisterTest: no registration was tested: {problem or 'PyTorch is not installed.'}")
            return
        loaded = slicer.util.loadVolume(str(sample), properties={"show": False})
        head = slicer.util.arrayFromVolume(loaded)[::2, ::2, ::2].copy()
        slicer.mrmlScene.RemoveNode(loaded)
        bright = (head > np.percentile(head[head > 0.1 * head.max()], 60)).astype(np.uint8)
        subject = slicer.util.addVolumeFromArray(head, name="T1")
        image = slicer.util.addVolumeFromArray(head, name="Atlas")
        labels, truth = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name) for name in ("Labels", "Truth"))
        spacing = [4.0, 4.0, 4.0]
        for node in (labels, truth):
            slicer.util.updateVolumeFromArray(node, bright)
        for node in (subject, truth, image, labels):
            node.SetSpacing(spacing)
        for node in (image, labels):
            node.SetIJKToRASDirections(0.9962, -0.0872, 0, 0.0872, 0.9962, 0, 0, 0, 1)  # 5 degrees
            node.SetOrigin(9.0, -6.0, 4.0)
        result = IMTRegisterLogic().register(subject, "T1", [SceneAtlas("head", image, labels)], jobs=1, cache=False)
        self.assertGreater(IMTRegisterLogic().compare(result.segmentationNode, truth).meanDice, 0.85)
        image.SetAndObserveTransformNodeID(result.transformNodes["head"].GetID())
        # The same voxel of both: under its transform the atlas's lies where the subject's does.
        matrices = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        subject.GetIJKToRASMatrix(matrices[0])
        image.GetIJKToRASMatrix(matrices[1])
        voxel = [shape / 2 for shape in head.shape[::-1]] + [1.0]
        wanted, found = np.array(matrices[0].MultiplyPoint(voxel)[:3]), [0.0, 0.0, 0.0]
        image.TransformPointToWorld(matrices[1].MultiplyPoint(voxel)[:3], found)
        self.assertLess(np.linalg.norm(wanted - found), 4.0)

    def test_missingInputLeavesTheSceneAsItWas(self):
        """No volume gives one clear message."""
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(ValueError):
            IMTRegisterLogic().register(None, "T1", "/nowhere")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_parametersSurvive(self):
        """What was set is there when the scene's parameter node is taken again."""
        logic = IMTRegisterLogic()
        logic.getParameterNode().seed = 12
        self.assertEqual(logic.getParameterNode().seed, 12)
