"""One registration of a volume node with atlases: from the scene to `imt register` and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.nodes import checkOutput, checkVolume, haveSameGrid
from IMTSlicerLib.runs import Run
from IMTSlicerLib.segmentations import checkSegmentation
from IMTSlicerLib.staged_jobs import StagedJob

from .registration_results import RegistrationResults, ResultTargets
from .scene_atlases import SceneAtlas, checkSceneAtlases, writeSceneAtlases

# Which part of the whole each stage of `imt register` takes.
SPANS = {"read": (0.0, 0.02), "translate": (0.02, 0.15), "register": (0.15, 0.93), "labels": (0.93, 0.97), "write": (0.97, 0.99)}
AUTOMATIC = "auto"


@dataclass(frozen=True)
class RegistrationOptions:
    """How to register; the defaults suit most.

    Attributes: `engine` (greedy, ants, elastix), `preset` (fast, paper), `fusion` of the two modalities' deformations
    (mean, log, local, joint; None is mean with a second modality), `weight` (share of the given modality, 0 to 1; auto; or the
    path of a JSON file of weights for structures), `labels` (mean, majority, staple, joint), `structures` (names or codes;
    none means all), `mask` (auto, none; a mask node is given to the run), `slicePairs` (register slice by slice, as the paper
    did), `seed`, `jobs` (atlases at once, 0 for automatic), `memory` (GB, 0 for automatic), `cache` (keep registrations for later
    runs with other weights or labels), and what comes into the scene besides the segmentation: `agreement`, `transforms`,
    `warped`, `translated`.
    """

    engine: str = "greedy"
    preset: str = "fast"
    fusion: str | None = None
    weight: float | str = AUTOMATIC
    labels: str = "mean"
    structures: tuple[str, ...] = ()
    mask: str = AUTOMATIC
    slicePairs: bool = False
    seed: int = 0
    jobs: int = 0
    memory: float = 0.0
    cache: bool = True
    agreement: bool = True
    transforms: bool = True
    warped: bool = False
    translated: bool = True

    def arguments(self, hasSecond: bool) -> list[str]:
        """As `imt register` takes them, without inputs and outputs.

        :param hasSecond: whether there is a second modality.
        """
        fusion = (self.fusion or "mean") if hasSecond else "none"
        arguments = ["--engine", self.engine, "--preset", self.preset, "--fusion", fusion, "--labels", self.labels]
        if fusion in ("mean", "log", "joint"):
            arguments += ["--weight", str(self.weight)]
        if self.structures:
            arguments += ["--structures", *self.structures]
        if self.slicePairs:
            arguments += ["--dimension", "2"]
        if self.jobs:
            arguments += ["--jobs", str(self.jobs)]
        if self.memory:
            arguments += ["--memory-gb", f"{self.memory:g}"]
        if not self.cache:
            arguments += ["--cache", "none"]
        return [*arguments, "--seed", str(self.seed)]


@dataclass(frozen=True)
class Subject:
    """What is registered.

    Attributes:
        image: scalar volume node.
        modality: its modality, such as "T2".
        secondModality: the modality to add, such as "T1"; None registers the image alone.
        second: scalar volume node with a real image of it; None translates `image`.
        model: name, pair or card's path of the model that translates; None for the one that IMT takes for the pair.
        mask: label map node on the image's grid: where to register; None as the options say.
    """

    image: object
    modality: str
    secondModality: str | None = None
    second: object | None = None
    model: str | None = None
    mask: object | None = None

    def check(self) -> None:
        """Check the nodes.

        :raises ValueError: one cannot be used.
        """
        checkVolume(self.image, _("input volume"))
        if self.secondModality == self.modality:
            raise ValueError(_("The second modality is that of the input, {modality}. Choose another, or none.").format(modality=self.modality))
        if self.second is not None:
            if self.secondModality is None:
                raise ValueError(_("Say which modality {name} is.").format(name=self.second.GetName()))
            checkVolume(self.second, _("second volume"))
            if self.second is self.image:
                raise ValueError(_("The second volume is the input volume. Choose another one, or none."))
            if self.second.GetTransformNodeID() != self.image.GetTransformNodeID():
                text = _("{second} and {first} lie under different transforms. Put both under the same one, or harden them.")
                raise ValueError(text.format(second=self.second.GetName(), first=self.image.GetName()))
        if self.mask is not None:
            if not hasattr(self.mask, "IsA") or not self.mask.IsA("vtkMRMLLabelMapVolumeNode"):
                name = self.mask.GetName() if hasattr(self.mask, "GetName") else repr(self.mask)
                raise ValueError(_("The mask {name} is no label map. Export a segmentation to a label map first.").format(name=name))
            if self.mask.GetImageData() is None or not slicer.util.arrayFromVolume(self.mask).any():
                raise ValueError(_("The mask {name} is empty. Draw it, or choose none.").format(name=self.mask.GetName()))
            if not haveSameGrid(self.image, self.mask):
                text = _("The mask {name} is not on the grid of {other}.")
                raise ValueError(text.format(name=self.mask.GetName(), other=self.image.GetName()))


class RegistrationRun(Run):
    """Registers one volume node with the atlases of a set and carries their labels over; at the end `results` holds what came out.

    :param atlases: path of an atlas folder or CSV, or a list of `SceneAtlas`.
    :param segmentationNode, agreementNode: nodes to fill, or None for new ones.
    :raises ValueError: if something cannot be used. RuntimeError: the engine is not installed.
    """

    def __init__(
        self,
        subject: Subject,
        atlases: Path | Sequence[SceneAtlas],
        options: RegistrationOptions | None = None,
        segmentationNode=None,
        agreementNode=None,
    ) -> None:
        subject.check()
        self.options = options or RegistrationOptions()
        checkEngine(self.options.engine)
        self._atlasPath = atlases if isinstance(atlases, Path) else None
        self._sceneAtlases = () if self._atlasPath is not None else tuple(atlases)
        if self._atlasPath is None:
            checkSceneAtlases(self._sceneAtlases, subject.secondModality)
        elif not self._atlasPath.exists():
            raise ValueError(_("There is no atlas folder {path}. Choose another one.").format(path=self._atlasPath))
        self._checkOutputs(subject, segmentationNode, agreementNode)
        super().__init__(subject.image)
        self._subject = subject
        self.results = RegistrationResults(
            ResultTargets(
                inputID=self._inputID,
                inputName=self._inputName,
                modality=subject.modality,
                secondModality=subject.secondModality,
                matrix=self._matrix,
                dimensions=self._dimensions,
                segmentationID=segmentationNode and segmentationNode.GetID(),
                agreementID=agreementNode and agreementNode.GetID(),
                movingIDs={atlas.name: atlas.image.GetID() for atlas in self._sceneAtlases},
                atlasPath=self._atlasPath,
            )
        )
        title = _("Register {name}").format(name=self._inputName)
        self._follow(StagedJob(self._requests, SPANS, ("register",), title=title))

    @staticmethod
    def _checkOutputs(subject: Subject, segmentationNode, agreementNode) -> None:
        checkSegmentation(segmentationNode)
        if agreementNode is not None:
            checkOutput(agreementNode)
            if agreementNode in (subject.image, subject.second):
                raise ValueError(_("The agreement map would overwrite {name}. Choose another volume.").format(name=agreementNode.GetName()))

    def start(self) -> RegistrationRun:
        """Write the inputs and start the process; returns at once."""
        super().start()
        self._subject = None  # nodes are found again by their IDs
        self._sceneAtlases = ()
        return self

    def _requests(self, folder: Path) -> list[list[str]]:
        subject, options = self._subject, self.options
        image = self._writeInput(folder)
        atlases = self._atlasPath
        if atlases is None:
            atlases = writeSceneAtlases(folder / "atlases", self._sceneAtlases, subject.modality, subject.secondModality)
        request = ["register", str(image), "--modality", subject.modality, "--atlases", str(atlases)]
        if subject.secondModality is not None:
            request += ["--translate-to", subject.secondModality]
            if subject.second is not None:
                request += ["--second-image", str(self._writeNode(subject.second, folder / "second"))]
            elif subject.model:
                request += ["--model", subject.model]
        request += options.arguments(subject.secondModality is not None)
        request += ["--mask", options.mask if subject.mask is None else str(self._writeNode(subject.mask, folder / "mask"))]
        request += ["--output-labels", str(folder / "labels.nrrd"), "--report", str(folder / "report.json")]
        if options.agreement:
            request += ["--output-agreement", str(folder / "agreement.nrrd")]
        if options.transforms:
            request += ["--output-transforms", str(folder / "transforms")]
        if options.warped:
            request += ["--output-warped", str(folder / "warped")]
        if options.translated and subject.secondModality is not None and subject.second is None:
            request += ["--output-translated", str(folder / "translated.nrrd")]
        return [[*request, "--progress", "json"]]

    def _take(self, folder: Path) -> None:
        self.results.take(folder)
        self.warnings = self.results.warnings = [self._named(text) for text in self.results.warnings]


def checkEngine(engine: str) -> None:
    """Check that an engine is installed; none is started.

    :raises RuntimeError: it is not; the message says what to do.
    """
    from IMTRegisterLib.engines.interface import engine_problem

    problem = engine_problem(engine)
    if problem:
        raise RuntimeError(problem)
