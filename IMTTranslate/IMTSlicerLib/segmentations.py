"""Segmentations and label maps in and out: as arrays of codes on a grid, and segments made of such arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NO_NAME = ("", "(none)", "none")  # what colour tables call a code that they do not name


@dataclass(frozen=True)
class Structure:
    """One structure of an array of labels.

    Attributes:
        code: its voxels' value in the array.
        name: as users see it.
        colour: red, green, blue, 0 to 1.
        terminology: Slicer's text for the segment's terminology; empty if none.
        label: the value that it has in its own node (a segment's label value), which may differ from `code`.
    """

    code: int
    name: str
    colour: tuple[float, float, float]
    terminology: str = ""
    label: int = 0


@dataclass(frozen=True)
class Labels:
    """Labels on a grid: `array` [k, j, i] of codes, `matrix` (4, 4) IJK to RAS, the parent transform's ID, the structures."""

    array: np.ndarray
    matrix: np.ndarray
    transformID: str | None
    structures: tuple[Structure, ...]

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """(i, j, k)."""
        return self.array.shape[::-1]


def labelsOf(node, reference=None) -> Labels:
    """The labels of a segmentation or label map node; the scene is left as it was.

    :param reference: a volume node or `Labels` whose grid the result shall have, with its parent transform; None for the
        node's own grid.
    :raises ValueError: no such node, no segments, or a label map on another grid than `reference`.
    """
    from slicer.i18n import tr as _

    if node is None or not hasattr(node, "IsA"):
        raise ValueError(_("Select a segmentation or a label map."))
    if node.IsA("vtkMRMLSegmentationNode"):
        return _fromSegmentation(node, reference)
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _fromLabelMap(node, reference)
    raise ValueError(_("{name} is neither a segmentation nor a label map.").format(name=node.GetName()))


def checkSegmentation(node) -> None:
    """Check the segmentation node that is to be filled; None is none.

    :raises ValueError: it is no segmentation of the scene.
    """
    import slicer
    from slicer.i18n import tr as _

    if node is None:
        return
    if not hasattr(node, "IsA") or not node.IsA("vtkMRMLSegmentationNode"):
        name = node.GetName() if hasattr(node, "GetName") else repr(node)
        raise ValueError(_("{name} is no segmentation. Choose one, or none.").format(name=name))
    if not slicer.mrmlScene.IsNodePresent(node):
        raise ValueError(_("{name} is not in the scene. Choose another segmentation.").format(name=node.GetName()))


def _fromLabelMap(node, reference) -> Labels:
    import numpy as np
    import slicer
    from slicer.i18n import tr as _

    if node.GetImageData() is None or 0 in node.GetImageData().GetDimensions():
        raise ValueError(_("The label map {name} has no image.").format(name=node.GetName()))
    array = slicer.util.arrayFromVolume(node)
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)):
            raise ValueError(_("The label map {name} holds fractions; labels are whole numbers.").format(name=node.GetName()))
        array = array.astype(np.int32)
    matrix = _matrixOf(node)
    if reference is not None:
        grid = reference if isinstance(reference, Labels) else gridLabels(reference)
        same = grid.array.shape == array.shape and grid.transformID == node.GetTransformNodeID()
        if not (same and np.allclose(grid.matrix, matrix, rtol=0, atol=1e-3)):
            text = _("The label map {name} is on another grid than the image that it belongs to. Resample it first, or import it to a segmentation.")
            raise ValueError(text.format(name=node.GetName()))
    display = node.GetDisplayNode()
    colours = display.GetColorNode() if display is not None else None
    structures, used = [], set()
    for code in (int(value) for value in np.unique(array) if value):
        structure = _named(code, colours)
        if structure.name.casefold() in used:
            structure = Structure(code, f"{structure.name} {code}", structure.colour, "", code)
        used.add(structure.name.casefold())
        structures.append(structure)
    return Labels(array.copy(), matrix, node.GetTransformNodeID(), tuple(structures))


def _named(code: int, colours) -> Structure:
    name, colour = "", [0.6, 0.6, 0.6, 1.0]
    if colours is not None and 0 < code < colours.GetNumberOfColors():
        name = colours.GetColorName(code) or ""
        colours.GetColor(code, colour)
    if name.strip().casefold() in NO_NAME or name == str(code):
        name = f"label {code}"
    return Structure(code, name, tuple(colour[:3]), "", code)


def _fromSegmentation(node, reference) -> Labels:
    import slicer
    import vtk
    from slicer.i18n import tr as _

    segmentation = node.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs())
    if not ids:
        raise ValueError(_("The segmentation {name} has no segments.").format(name=node.GetName()))
    names = vtk.vtkStringArray()
    for identifier in ids:
        names.InsertNextValue(identifier)
    logic = slicer.modules.segmentations.logic()
    before = nodeIDs()
    try:
        grid = _labelMapOn(reference) if isinstance(reference, Labels) else reference
        exported = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "IMT export")
        extent = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
        if not logic.ExportSegmentsToLabelmapNode(node, names, exported, grid, extent) or exported.GetImageData() is None:
            raise ValueError(_("The segments of {name} cannot be read. Are they empty?").format(name=node.GetName()))
        array, matrix = slicer.util.arrayFromVolume(exported).copy(), _matrixOf(exported)
        transformID = (grid if grid is not None else node).GetTransformNodeID()
    finally:
        removeNodes(nodeIDs() - before)
    structures = [_structure(segmentation.GetSegment(identifier), code) for code, identifier in enumerate(ids, start=1)]
    return Labels(array, matrix, transformID, tuple(structures))


def _structure(segment, code: int) -> Structure:
    import vtk

    text = vtk.reference("")
    found = segment.GetTag(segment.GetTerminologyEntryTagName(), text)
    return Structure(code, segment.GetName(), tuple(segment.GetColor()), str(text) if found else "", segment.GetLabelValue())


def gridLabels(volumeNode) -> Labels:
    """The empty labels on a volume's grid: what other labels are brought to."""
    import numpy as np

    dimensions = volumeNode.GetImageData().GetDimensions()
    return Labels(np.zeros(dimensions[::-1], np.uint8), _matrixOf(volumeNode), volumeNode.GetTransformNodeID(), ())


def _labelMapOn(labels: Labels):
    """A temporary label map on the grid of `labels`."""
    import numpy as np
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "IMT grid")
    slicer.util.updateVolumeFromArray(node, np.zeros(labels.array.shape, np.uint8))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(labels.matrix))
    node.SetAndObserveTransformNodeID(labels.transformID)
    return node


def structuresOf(path: Path) -> list[Structure]:
    """The names, colours and terminology that a colour table gives its codes."""
    from IMTCore.label_names import read_label_names

    names = read_label_names(path).values()
    return [Structure(one.code, one.name, tuple(part / 255 for part in one.colour), one.terminology, one.code) for one in names]


def fillSegmentation(node, array, matrix, structures: Iterable[Structure], referenceNode=None) -> None:
    """Fill a segmentation node with one segment for each structure, in their order of codes; what it had before goes.

    :param array: [k, j, i] codes; 0 is the background.
    :param matrix: IJK to RAS of the array, (4, 4) or vtkMatrix4x4, without parent transforms.
    :param structures: one that the array does not have becomes an empty segment.
    :param referenceNode: volume whose geometry the segmentation shall take for its own, if it is on this grid still.
    """
    import numpy as np
    import slicer

    matrix = matrix if isinstance(matrix, np.ndarray) else slicer.util.arrayFromVTKMatrix(matrix)
    wanted = {structure.code: structure for structure in structures}
    kept = np.isin(array, list(wanted))
    image = _orientedImage(np.where(kept, array, 0).astype(np.uint16), matrix)
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    node.SetSourceRepresentationToBinaryLabelmap()
    _setGeometry(node, image, matrix, referenceNode)
    if kept.any() and not slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(image, node):
        raise RuntimeError("Slicer could not make segments of the labels.")
    made = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    present = {segment.GetLabelValue(): segment for segment in made}
    for code, structure in sorted(wanted.items()):
        segment = present.get(code)
        if segment is None:
            segment = segmentation.GetSegment(segmentation.AddEmptySegment("", structure.name, structure.colour))
        segment.SetName(structure.name)
        segment.SetColor(*structure.colour)
        if structure.terminology:
            segment.SetTag(segment.GetTerminologyEntryTagName(), structure.terminology)
    node.CreateDefaultDisplayNodes()


def showSurfaces(segmentationNode, shown: bool) -> None:
    """Show a segmentation's closed surfaces in the 3D views, made if need be, or hide them."""
    import slicer

    if segmentationNode is None:
        return
    segmentationNode.CreateDefaultDisplayNodes()
    name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    if shown and not segmentationNode.GetSegmentation().ContainsRepresentation(name):
        segmentationNode.CreateClosedSurfaceRepresentation()
    segmentationNode.GetDisplayNode().SetVisibility3D(shown)


def _setGeometry(node, image, matrix, referenceNode) -> None:
    import numpy as np
    import slicer

    if referenceNode is not None and referenceNode.GetImageData() is not None:
        same = referenceNode.GetImageData().GetDimensions() == image.GetDimensions()
        if same and np.allclose(_matrixOf(referenceNode), matrix, rtol=0, atol=1e-6):
            node.SetAndObserveTransformNodeID(referenceNode.GetTransformNodeID())
            node.SetReferenceImageGeometryParameterFromVolumeNode(referenceNode)
            return
    converter = slicer.vtkSegmentationConverter
    geometry = converter.SerializeImageGeometry(image)
    node.GetSegmentation().SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), geometry)


def _orientedImage(array, matrix) -> Any:
    import numpy as np
    import slicer
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return image


def _matrixOf(node) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def nodeIDs() -> set[str]:
    """The IDs of all nodes of the scene."""
    import slicer

    scene = slicer.mrmlScene
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def removeNodes(identifiers: Iterable[str]) -> None:
    """Remove nodes; one that went with another does no harm."""
    import slicer

    for node in filter(None, map(slicer.mrmlScene.GetNodeByID, identifiers)):
        slicer.mrmlScene.RemoveNode(node)
