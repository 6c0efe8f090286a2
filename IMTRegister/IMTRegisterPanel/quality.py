"""How good is a registration? By landmarks, and to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.nodes import brightest, checkVolume, gridOf, haveSameGrid, placeBeside, showInRange
from IMTSlicerLib.segmentation_quality import meanOf
from IMTSlicerLib.tables import addTable
from IMTSlicerLib.transform_nodes import fromWorld, landmarksFromText, toMoving

from .registration_results import ATLAS_ATTRIBUTE, LANDMARKS_ATTRIBUTE, TRANSFORM_ROLE

SQUARES = 8  # of the checkerboard along the longest side


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
    if segmentationNode is None or not segmentationNode.IsA("vtkMRMLSegmentationNode"):
        raise ValueError(_("Select the segmentation that a registration made."))
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
    kept = [name for name in names if any(name in found for found in distances.values())]
    columns: dict[str, list] = {_("Atlas"): list(distances)}
    columns |= {_("{landmark} (mm)").format(landmark=name): [found.get(name) for found in distances.values()] for name in kept}
    columns[_("Mean (mm)")] = [meanOf(list(found.values())) for found in distances.values()]
    tableNode = addTable(title, columns)
    return LandmarkComparison(distances, meanOf([value for found in distances.values() for value in found.values()]), tableNode)


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
