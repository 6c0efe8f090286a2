"""One segmentation of a volume node: from the scene to `imt segment` and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.derived_results import ResultTargets
from IMTSlicerLib.nodes import SYNTHETIC_ATTRIBUTE, checkVolume
from IMTSlicerLib.runs import Run
from IMTSlicerLib.segmentations import checkSegmentation
from IMTSlicerLib.staged_jobs import StagedJob

from .segmentation_results import SegmentationResults

if TYPE_CHECKING:
    from IMTSegmentLib.segmenter_cards import SegmenterCard

# How long each stage of `imt segment` takes, in shares of a run with all of them.
WEIGHTS = {"read": 0.02, "prepare": 0.03, "load": 0.05, "translate": 0.45, "segment": 0.4, "compare": 0.4, "write": 0.03}
END = 0.99  # the rest is for taking the results into the scene


@dataclass(frozen=True)
class SegmentationOptions:
    """How to segment; the defaults suit most.

    Attributes: `translator` (name or path of another translation model than the card's), `compareWith` (another model of the
    same task, whose volumes and agreement come into the table), `device` (auto, cpu, cuda, cuda:N, mps), `precision` (auto,
    fp32, bf16, fp16), `batch` (slices at once, 0 for automatic), `seed`, `biasCorrection` (N4 first), `checkModality`; and
    what comes into the scene besides the segmentation and its table: `probabilities` (a volume for each structure),
    `translated` (the translated volume), `surfaces` (closed surfaces for the 3D views).
    """

    translator: str = ""
    compareWith: str = ""
    device: str = "auto"
    precision: str = "auto"
    batch: int = 0
    seed: int = 0
    biasCorrection: bool = False
    checkModality: bool = True
    probabilities: bool = False
    translated: bool = True
    surfaces: bool = False

    def arguments(self) -> list[str]:
        """As `imt segment` takes them, without inputs and outputs."""
        arguments = ["--device", self.device, "--precision", self.precision, "--seed", str(self.seed)]
        if self.batch:
            arguments += ["--batch", str(self.batch)]
        if self.biasCorrection:
            arguments.append("--bias-correction")
        if not self.checkModality:
            arguments.append("--no-modality-check")
        if self.compareWith:
            arguments += ["--compare-with", self.compareWith]
        return arguments


class SegmentationRun(Run):
    """Segments one volume node in the background; at the end `results` holds what came out.

    :param model: a model's name, a task such as "tissue", or a card's path.
    :param secondNode: a real volume of the model's second modality, or one's own translation; None translates the input, if
        the model needs it.
    :param segmentationNode: the node to fill, or None for a new one.
    :raises ValueError: an input, the output or the model cannot be used.
    """

    def __init__(
        self, inputNode, model: str, secondNode=None, options: SegmentationOptions | None = None, segmentationNode=None
    ) -> None:
        self.options = options or SegmentationOptions()
        checkVolume(inputNode, _("input volume"))
        checkSegmentation(segmentationNode)
        self.card = findCard(model)
        checkSecond(self.card, inputNode, secondNode)
        super().__init__(inputNode)
        self._secondID = secondNode and secondNode.GetID()
        self._translates = self.card.second is not None and secondNode is None
        self.results = SegmentationResults(
            ResultTargets(
                inputID=self._inputID,
                inputName=self._inputName,
                matrix=self._matrix,
                dimensions=self._dimensions,
                segmentationID=segmentationNode and segmentationNode.GetID(),
            ),
            self.card,
            self.options.surfaces,
            self._translates or (secondNode is not None and secondNode.GetAttribute(SYNTHETIC_ATTRIBUTE) == "true"),
        )
        used = {**WEIGHTS, "translate": self._translates, "compare": bool(self.options.compareWith)}
        title = _("Segment {name}").format(name=self._inputName)
        spans = spansOf([stage for stage in WEIGHTS if used[stage]])
        self._follow(StagedJob(self._requests, spans, ("translate", "segment", "compare"), title=title))

    def _requests(self, folder: Path) -> list[list[str]]:
        image = self._writeInput(folder)
        request = ["segment", str(image), "--model", str(self.card.path), "--output", str(folder / "labels.nrrd")]
        if self._secondID:
            second = slicer.mrmlScene.GetNodeByID(self._secondID)
            request += ["--second", str(self._writeNode(second, folder / "second"))]
        elif self._translates and self.options.translator:
            request += ["--translator", self.options.translator]
        if self._translates and self.options.translated:
            request += ["--output-translated", str(folder / "translated.nrrd")]
        if self.options.probabilities:
            request += ["--probabilities", str(folder / "probabilities.nii")]
        request += ["--report", str(folder / "report.json"), "--progress", "json"]
        return [request + self.options.arguments()]

    def _named(self, text: str) -> str:
        """A message of `imt` in terms of Slicer."""
        text = text.replace("--second)", _("second volume)")).replace("--translator", _("translator= in Python"))
        return super()._named(text)

    def _take(self, folder: Path) -> None:
        self.results.take(folder)
        self.warnings = self.results.warnings = [self._named(text) for text in self.results.warnings]


def spansOf(stages: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each of these stages begins and ends, 0 to 1 of the run."""
    scale = END / sum(WEIGHTS[stage] for stage in stages)
    ends = list(itertools.accumulate(scale * WEIGHTS[stage] for stage in stages))
    return dict(zip(stages, zip([0.0, *ends], ends, strict=False), strict=True))


def findCard(model: str) -> SegmenterCard:
    """The card of a model.

    :raises ValueError: there is none, or it cannot be used.
    """
    from IMTCore.errors import BadModel
    from IMTSegmentLib.segmenter_catalogue import find_segmenter

    try:
        return find_segmenter(str(model))
    except BadModel as error:
        raise ValueError(str(error)) from error


def checkSecond(card: SegmenterCard, inputNode, secondNode) -> None:
    """Check the second volume.

    :raises ValueError: it cannot be used with the input and the model.
    """
    if secondNode is None:
        return
    if card.second is None:
        text = _("The model {model} takes {modality} alone. Choose no second volume, or another model.")
        raise ValueError(text.format(model=card.name, modality=card.source))
    checkVolume(secondNode, _("second volume"))
    if secondNode is inputNode:
        raise ValueError(_("The second volume is the input volume. Choose another one, or none."))
    if secondNode.GetTransformNodeID() != inputNode.GetTransformNodeID():
        text = _("{second} and {first} lie under different transforms. Put both under the same one, or harden them.")
        raise ValueError(text.format(second=secondNode.GetName(), first=inputNode.GetName()))
