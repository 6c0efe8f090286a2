"""How good is a segmentation by registration? Against a reference, by landmarks, and to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.nodes import brightest, checkVolume, gridOf, haveSameGrid, placeBeside, showInRange
from IMTSlicerLib.segmentations import Labels, Structure, fillSegmentation, labelsOf
from IMTSlicerLib.transform_nodes import fromWorld, landmarksFromText, toMoving

from .registration_results import ATLAS_ATTRIBUTE, LANDMARKS_ATTRIBUTE, TRANSFORM_ROLE, makeTable

if TYPE_CHECKING:
    import numpy as np

    from IMTCore.label_scores import LabelScores

# The colours of Yang et al. 2020, Figs. 8 to 10: pink, dark red, grey.
REGION_COLOURS = {"true": (1.0, 0.75, 0.8), "false": (0.55, 0.0, 0.0), "missing": (0.5, 0.5, 0.5)}
SQUARES = 8  # of the checkerboard along the longest side


@dataclass
class SegmentationComparison:
    """Scores of the structures that both segmentations have.

    Attributes:
        scores: structure's name -> `IMTCore.label_scores.LabelScores`.
        meanDice: over the structures.
        tableNode: the scores in a table.
    """

    scores: dict[str, LabelScores]
    meanDice: float
    tableNode: Any
    _found: np.ndarray
    _truth: np.ndarray
    _matrix: np.ndarray
    _foundID: str

    def showRegions(self, structure: str | None = None, node=None):
        """Fill a segmentation with the true, false and missing regions of one structure, or of all together.

        :param node: the segmentation node to fill, or None for a new one.
        :return: the node.
        """
        import numpy as np

        from IMTCore.label_scores import FALSE, MISSING, RIGHT, error_regions

        found = slicer.mrmlScene.GetNodeByID(self._foundID)
        if found is None:
            raise RuntimeError(_("The compared segmentation was removed. Compare again."))
        if structure is None:
            wrong = self._found != self._truth
            array = np.where(wrong & (self._found > 0), FALSE, np.where(wrong, MISSING, np.where(self._truth > 0, RIGHT, 0)))
        else:
            array = error_regions(self._truth, self._found, list(self.scores).index(structure) + 1)
        names = {"true": _("true"), "false": _("false"), "missing": _("missing")}
        codes = {"true": RIGHT, "false": FALSE, "missing": MISSING}
        title = _("{name}: true, false and missing ({structure})").format(name=found.GetName(), structure=structure or _("all"))
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        regions = [Structure(code, names[key], REGION_COLOURS[key]) for key, code in codes.items()]
        node.SetName(title)
        fillSegmentation(node, array.astype(np.uint8), self._matrix, regions)
        placeBeside(node, found)
        return node


def compareSegmentations(foundNode, referenceNode) -> SegmentationComparison:
    """Score a segmentation against a reference, structure by structure, matched by their names.

    :param foundNode: segmentation or label map; its grid is that of the comparison.
    :param referenceNode: segmentation (brought to that grid), or label map on that grid.
    :raises ValueError: nodes that cannot be compared.
    """
    from IMTCore.label_scores import score_labels
    from IMTCore.volume import Geometry

    if foundNode is referenceNode:
        raise ValueError(_("The segmentation and the reference are the same. Choose another one."))
    found = labelsOf(foundNode)
    truth = labelsOf(referenceNode, found)
    names = [one.name for one in found.structures if _named(truth, one.name) is not None]
    if not names:
        text = _("No structure has the same name in both: {found}, and {truth}. Rename the segments.")
        listed = {key: ", ".join(one.name for one in labels.structures[:5]) for key, labels in (("found", found), ("truth", truth))}
        raise ValueError(text.format(**listed))
    foundArray, truthArray = _renumber(found, names), _renumber(truth, names)
    geometry = Geometry.from_affine_ras(found.matrix, foundArray.shape)
    scored = score_labels(truthArray, foundArray, geometry, range(1, len(names) + 1))
    scores = {name: scored[number] for number, name in enumerate(names, start=1)}
    meanDice = _mean([one.dice for one in scores.values()])
    title = _("{found} scores against {reference}").format(found=foundNode.GetName(), reference=referenceNode.GetName())
    tableNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(title))
    tableNode.SetAndObserveTable(_scoreTable(scores))
    tableNode.SetLocked(True)
    return SegmentationComparison(scores, meanDice, tableNode, foundArray, truthArray, found.matrix, foundNode.GetID())


def _named(labels: Labels, name: str) -> Structure | None:
    return next((one for one in labels.structures if one.name.strip().casefold() == name.strip().casefold()), None)


def _renumber(labels: Labels, names: list[str]) -> np.ndarray:
    import numpy as np

    table = np.zeros(int(labels.array.max(initial=0)) + 1, np.int32)
    for number, name in enumerate(names, start=1):
        code = _named(labels, name).code
        if code < len(table):  # else no voxel has it
            table[code] = number
    return table[labels.array]


def _mean(values: list[float]) -> float:
    numbers = [value for value in values if value == value]
    return sum(numbers) / len(numbers) if numbers else float("nan")


def _scoreTable(scores: dict[str, LabelScores]):
    columns = {
        _("Structure"): list(scores),
        _("Dice"): [one.dice for one in scores.values()],
        _("95th percentile distance (mm)"): [one.hausdorff_95_mm for one in scores.values()],
        _("Mean surface distance (mm)"): [one.mean_surface_distance_mm for one in scores.values()],
        _("Volume (ml)"): [one.found_ml for one in scores.values()],
        _("Reference volume (ml)"): [one.truth_ml for one in scores.values()],
        _("False (ml)"): [one.false_ml for one in scores.values()],
        _("Missing (ml)"): [one.missing_ml for one in scores.values()],
    }
    return makeTable(columns)


def transformsOf(segmentationNode) -> list:
    """The transform nodes of the registration that made a segmentation, those that are still in the scene."""
    count = segmentationNode.GetNumberOfNodeReferences(TRANSFORM_ROLE)
    found = (segmentationNode.GetNthNodeReference(TRANSFORM_ROLE, number) for number in range(count))
    return [node for node in found if node is not None]


@dataclass
class LandmarkComparison:
    """How far landmarks lie from where a registration takes them: atlas -> landmark -> mm, and the same in a table."""

    distances: dict[str, dict[str, float]]
    meanDistance: float
    tableNode: Any


def compareLandmarks(markupsNode, segmentationNode) -> LandmarkComparison:
    """Take the subject's landmarks to each atlas and measure how far they are from the atlas's own (the paper's Dist).

    :param markupsNode: the subject's landmarks, named as the atlases' are.
    :param segmentationNode: segmentation that a registration made, with its transforms.
    :raises ValueError: nothing to compare.
    """
    import numpy as np

    if markupsNode is None or markupsNode.GetNumberOfControlPoints() == 0:
        raise ValueError(_("Select a point list with the landmarks of the input volume."))
    transforms = [node for node in transformsOf(segmentationNode) if node.GetAttribute(LANDMARKS_ATTRIBUTE)]
    if not transforms:
        text = _("{name} has no transforms of atlases with landmarks. Register with transforms, and with atlases that have a landmarks file.")
        raise ValueError(text.format(name=segmentationNode.GetName()))
    world, names = [], []
    for number in range(markupsNode.GetNumberOfControlPoints()):
        point = [0.0, 0.0, 0.0]
        markupsNode.GetNthControlPointPositionWorld(number, point)
        world.append(point)
        names.append(markupsNode.GetNthControlPointLabel(number))
    distances: dict[str, dict[str, float]] = {}
    for transform in transforms:
        theirs = landmarksFromText(transform.GetAttribute(LANDMARKS_ATTRIBUTE))
        moved = toMoving(transform, fromWorld(transform, np.array(world)))
        own = {name: point for name, point in zip(names, moved, strict=True) if name in theirs}
        distances[transform.GetAttribute(ATLAS_ATTRIBUTE)] = {
            name: float(np.linalg.norm(point - theirs[name])) for name, point in own.items()
        }
    if not any(distances.values()):
        text = _("No landmark of {name} is called as one of the atlases. They have {known}.")
        known = ", ".join(landmarksFromText(transforms[0].GetAttribute(LANDMARKS_ATTRIBUTE)))
        raise ValueError(text.format(name=markupsNode.GetName(), known=known))
    title = _("{name} landmark distances").format(name=segmentationNode.GetName())
    tableNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(title))
    kept = [name for name in names if any(name in found for found in distances.values())]
    columns: dict[str, list] = {_("Atlas"): list(distances)}
    columns |= {_("{landmark} (mm)").format(landmark=name): [found.get(name) for found in distances.values()] for name in kept}
    columns[_("Mean (mm)")] = [_mean(list(found.values())) for found in distances.values()]
    tableNode.SetAndObserveTable(makeTable(columns))
    tableNode.SetLocked(True)
    return LandmarkComparison(distances, _mean([value for found in distances.values() for value in found.values()]), tableNode)


def makeCheckerboard(firstNode, secondNode, squares: int = SQUARES):
    """A new volume of squares of two volumes in turn, the second one's brightness brought to the first one's.

    :param firstNode, secondNode: scalar volumes on one grid, such as the input and a warped atlas.
    :param squares: along the longest side.
    :raises ValueError: volumes that cannot be used, or are not on one grid.
    """
    import numpy as np

    checkVolume(firstNode, _("input volume"))
    checkVolume(secondNode, _("warped atlas"))
    if firstNode is secondNode:
        raise ValueError(_("The two volumes of the checkerboard are the same. Choose another one."))
    if not haveSameGrid(firstNode, secondNode):
        text = _("{second} is not on the grid of {first}. Register with warped atlases, and choose one of those.")
        raise ValueError(text.format(first=firstNode.GetName(), second=secondNode.GetName()))
    first, second = (slicer.util.arrayFromVolume(node).astype(np.float32) for node in (firstNode, secondNode))
    second = second * (brightest(firstNode) / brightest(secondNode))
    sizes = np.array(first.shape) * np.array(firstNode.GetSpacing())[::-1]
    square = sizes.max() / squares
    steps = [(np.arange(n) * spacing // square).astype(int) for n, spacing in zip(first.shape, firstNode.GetSpacing()[::-1], strict=True)]
    odd = (steps[0][:, None, None] + steps[1][:, None] + steps[2]) % 2 == 1
    title = _("{first} and {second}, checkerboard").format(first=firstNode.GetName(), second=secondNode.GetName())
    node = slicer.util.addVolumeFromArray(np.where(odd, second, first), name=slicer.mrmlScene.GenerateUniqueName(title))
    node.SetIJKToRASMatrix(gridOf(firstNode)[0])
    placeBeside(node, firstNode)
    showInRange(node, 0.0, brightest(firstNode))
    return node


def showOutlines(segmentationNode, outlinesOnly: bool) -> None:
    """Show a segmentation's contours alone, or filled."""
    if segmentationNode is None:
        return
    segmentationNode.CreateDefaultDisplayNodes()
    display = segmentationNode.GetDisplayNode()
    display.SetVisibility2DFill(not outlinesOnly)
    display.SetVisibility2DOutline(True)
