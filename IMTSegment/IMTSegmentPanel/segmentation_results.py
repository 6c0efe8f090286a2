"""What a segmentation brings into the scene: segments, probability volumes, the translated volume, a table; all or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.derived_results import DerivedResults, ResultTargets
from IMTSlicerLib.segmentations import Structure, showSurfaces

if TYPE_CHECKING:
    import numpy as np

    from IMTSegmentLib.segmenter_cards import SegmenterCard

PROBABILITY_ROLE = "IMT.Probability"  # node references of a segmentation: the probability volumes of the run that made it
STRUCTURE_ATTRIBUTE = "IMT.Structure"
DIGITS = 3  # of the table
HARDLY_POSSIBLE = 0.02  # a probability below it is shown clear


class SegmentationResults(DerivedResults):
    """What a run brought into the scene; see `DerivedResults`.

    Attributes:
        probabilityNodes: structure's name -> scalar volume of its probability, 0 to 1; empty if they were not asked for.
        tableNode: one row a structure: voxels, ml, confidence, and another model's volume and agreement if one was asked for.
        inputNode(): the volume that was segmented.

    :param card: the model's.
    :param surfaces: also make closed surfaces.
    :param syntheticSecond: the second volume is a translation, made in this run or before.
    """

    def __init__(self, targets: ResultTargets, card: SegmenterCard, surfaces: bool, syntheticSecond: bool) -> None:
        self._card, self._surfaces, self._syntheticSecond = card, surfaces, syntheticSecond
        super().__init__(targets)

    def _forget(self) -> None:
        super()._forget()
        self.probabilityNodes: dict[str, Any] = {}

    def _takeAll(self, folder: Path, inputNode) -> None:
        targets = self._targets
        array, structures, record = self._readLabels(folder)
        other = self.report.get("compared_with") or {}
        self.warnings += [f"{other['model']['name']}: {warning}" for warning in other.get("warnings", [])]
        translated = self._readIfThere(folder / "translated.nrrd")
        title = _("{name} {task}").format(name=targets.inputName, task=self._card.task)
        self._takeProbabilities(folder / "probabilities.nii", structures, inputNode)
        self._placeTable(_("{title} volumes").format(title=title), tableOfStructures(self.report))
        # A segmentation that was there before is filled last, when nothing can go wrong any more.
        self._placeTranslated(translated, folder / "translated.json", inputNode)
        self._placeLabels(array, structures, record, title, inputNode)
        self.segmentationNode.RemoveNodeReferenceIDs(PROBABILITY_ROLE)
        for node in self.probabilityNodes.values():
            self.segmentationNode.AddNodeReferenceID(PROBABILITY_ROLE, node.GetID())
        if self._surfaces:
            showSurfaces(self.segmentationNode, True)

    def _suffix(self) -> str:
        if not self.report.get("derived_from_synthetic"):
            return ""
        if not self._syntheticSecond:  # the input itself is
            return " " + _("(from a synthetic image)")
        return " " + _("(from synthetic {modality})").format(modality=self._card.second)

    def _takeProbabilities(self, path: Path, structures: list[Structure], inputNode) -> None:
        """One volume for each structure; the background's is left out."""
        if not path.is_file():
            return
        from IMTSegmentLib.probability_files import read_probabilities

        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        values, _geometry = read_probabilities(path)
        if values.shape[:0:-1] != tuple(self._targets.dimensions):
            raise RuntimeError(_("The probabilities have another size than the input; the result was dropped."))
        names = {structure.code: structure.name for structure in structures}
        for entry, array in zip(record["volumes"], values, strict=True):
            if entry["code"] in names:
                name = names[entry["code"]]
                self.probabilityNodes[name] = self._addProbability(name, array, record, inputNode)

    def _addProbability(self, structure: str, array: np.ndarray, record: dict[str, Any], inputNode):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "IMT probability")
        slicer.util.updateVolumeFromArray(node, array)
        node.SetIJKToRASMatrix(self._targets.matrix)
        node.CreateDefaultDisplayNodes()
        title = _("{name} probability of {structure}").format(name=self._targets.inputName, structure=structure)
        content = _("probability of {structure}").format(structure=structure)
        self._placeMap(node, title, record, inputNode, content)
        node.GetDisplayNode().SetThreshold(HARDLY_POSSIBLE, 2.0)
        node.SetAttribute(STRUCTURE_ATTRIBUTE, structure)
        return node


def probabilitiesOf(segmentationNode) -> dict[str, Any]:
    """Structure's name -> probability volume, of the run that made a segmentation, those that are still in the scene."""
    if segmentationNode is None:
        return {}
    count = segmentationNode.GetNumberOfNodeReferences(PROBABILITY_ROLE)
    found = (segmentationNode.GetNthNodeReference(PROBABILITY_ROLE, number) for number in range(count))
    return {node.GetAttribute(STRUCTURE_ATTRIBUTE): node for node in found if node is not None}


def tableOfStructures(report: dict[str, Any]) -> dict[str, list]:
    """One row a structure: voxels, volume in ml, confidence; with another model's, if there was one."""
    entries = report["statistics"]
    columns = {
        _("Structure"): [entry["name"] for entry in entries],
        _("Voxels"): [entry["voxels"] for entry in entries],
        _("Volume (ml)"): [_rounded(entry["volume_ml"]) for entry in entries],
        _("Confidence"): [_rounded(entry["confidence"]) for entry in entries],
    }
    other = report.get("compared_with")
    if other is not None:
        volumes = {entry["name"]: entry["volume_ml"] for entry in other["statistics"]}
        name = other["model"]["name"]
        columns[_("Volume by {model} (ml)").format(model=name)] = [_rounded(volumes.get(entry["name"])) for entry in entries]
        columns[_("Dice with {model}").format(model=name)] = [_rounded(other["dice"].get(entry["name"])) for entry in entries]
    return columns


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
