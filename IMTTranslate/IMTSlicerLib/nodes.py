"""Volume nodes in and out: checked, written for a command, and filled with what the command made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SYNTHETIC_ATTRIBUTE = "IMT.Synthetic"
MARK_ATTRIBUTE = "IMT.Mark"
GRID_TOLERANCE = 0.01  # of a voxel
HEAT_NAME = "IMT heat"
# Black through violet and orange to pale yellow, of even steps in lightness: (position, red, green, blue).
HEAT = ((0.0, 0.0, 0.0, 0.02), (0.25, 0.32, 0.06, 0.43), (0.5, 0.73, 0.21, 0.33), (0.75, 0.97, 0.55, 0.04), (1.0, 0.99, 1.0, 0.65))


def checkVolume(node, what: str = "input volume") -> None:
    """Check that a node is a volume that IMT can work with.

    :param node: what was chosen, or None.
    :param what: what it is for, in the message.
    :raises ValueError: none chosen, no scalar volume, a label map, not in the scene, without image, of several components, or with NaN.
    """
    import numpy as np
    import slicer
    from slicer.i18n import tr as _

    if node is None:
        raise ValueError(_("Select the {what}.").format(what=what))
    if not hasattr(node, "IsA"):
        text = _("{given} is no node. Give the {what} itself, for example slicer.util.getNode({name}).")
        raise ValueError(text.format(given=repr(node), what=what, name=repr(str(node))))
    name = node.GetName()
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ValueError(_("{name} is no scalar volume. Select an MR image as the {what}.").format(name=name, what=what))
    if not slicer.mrmlScene.IsNodePresent(node):
        text = _("{name} is not in the scene. Add it with slicer.mrmlScene.AddNode, or select another {what}.")
        raise ValueError(text.format(name=name, what=what))
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise ValueError(_("{name} has no image. Load its data, or select another {what}.").format(name=name, what=what))
    if image.GetNumberOfScalarComponents() != 1:
        text = _(
            "{name} has {count} values a voxel (a colour, vector or 4D image). "
            "Select a volume of single intensities as the {what}."
        )
        raise ValueError(text.format(name=name, count=image.GetNumberOfScalarComponents(), what=what))
    array = slicer.util.arrayFromVolume(node)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        text = _("{name} holds values that are not numbers (NaN or infinite). Replace them, for example by 0.")
        raise ValueError(text.format(name=name))


def checkOutput(node) -> None:
    """Check that a node can be filled with a scalar image.

    :raises ValueError: it is no scalar volume, or not in the scene.
    """
    import slicer
    from slicer.i18n import tr as _

    if not hasattr(node, "IsA"):
        raise ValueError(_("{given} is no node. Give the output volume itself, or none.").format(given=repr(node)))
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode") or node.IsA("vtkMRMLTensorVolumeNode"):
        text = _("{name} cannot hold an image of intensities. Choose a scalar volume.")
        raise ValueError(text.format(name=node.GetName()))
    if not slicer.mrmlScene.IsNodePresent(node):
        raise ValueError(_("{name} is not in the scene. Choose another output volume.").format(name=node.GetName()))


def gridOf(node):
    """The node's IJK-to-RAS matrix and dimensions, as they are now: (vtkMatrix4x4, (i, j, k))."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix, tuple(node.GetImageData().GetDimensions())


def haveSameGrid(first, second) -> bool:
    """Whether two volumes have the same voxels at the same places (to a hundredth of a voxel), transforms included."""
    import slicer

    if first.GetTransformNodeID() != second.GetTransformNodeID():
        return False
    (matrix, dimensions), (other, otherDimensions) = gridOf(first), gridOf(second)
    one, two = slicer.util.arrayFromVTKMatrix(matrix), slicer.util.arrayFromVTKMatrix(other)
    return dimensions == otherDimensions and _farthest(one, two, dimensions) <= GRID_TOLERANCE * min(first.GetSpacing())


def _farthest(one, two, dimensions) -> float:
    """By how many mm a voxel's place differs at most between two IJK-to-RAS arrays (4, 4): at one of the grid's corners."""
    import itertools

    import numpy as np

    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in dimensions))])
    return float(np.linalg.norm((corners @ (one - two).T)[:, :3], axis=1).max())


def fileNameFor(node) -> str:
    """A file name without suffix that tells whose file it is, made of characters that every system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", node.GetName()).strip("._")[:60] or "volume"


def writeVolume(node, path: Path) -> Path:
    """Write a volume node's voxels and grid, without parent transforms, to a file.

    :raises RuntimeError: if it cannot be written.
    """
    import slicer
    from slicer.i18n import tr as _

    # A dictionary of its own: exportNode's default remembers the format of the call before.
    if not slicer.util.exportNode(node, str(path), properties={"useCompression": 0}) or not path.is_file():
        text = _("Cannot write {name} to {folder}. Is the disk full?")
        raise RuntimeError(text.format(name=node.GetName(), folder=path.parent))
    return path


def writeMark(node, path: Path) -> None:
    """Write the mark of a node that IMT made beside its file, so that what is derived from a synthetic image says so."""
    mark = markOf(node)
    if mark:
        path.with_suffix(".json").write_text(json.dumps(mark), encoding="utf-8")


def readVolume(path: Path, matrix, dimensions=None):
    """Load a result file as a new hidden volume node without storage; the caller removes it or keeps it.

    :param matrix: IJK-to-RAS that the voxels must have. :param dimensions: (i, j, k) that it must have, if given.
    :raises RuntimeError: if it cannot be read, its voxels lie elsewhere or are more or fewer; nothing is left in the scene.
    """
    import slicer
    from slicer.i18n import tr as _

    # Not slicer.util.loadVolume: it would put the temporary file into the menu of recent files.
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", path.stem)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(1)
    try:
        if not storage.ReadData(node, True):  # True: the node does not keep this storage
            raise RuntimeError(_("The result {path} cannot be read.").format(path=path))
        _turnVoxels(node, matrix)
        if dimensions is not None and gridOf(node)[1] != tuple(dimensions):
            raise RuntimeError(_("The result has another size than the input; it was dropped."))
    except Exception:
        removeNode(node)
        raise
    return node


def _turnVoxels(node, matrix) -> None:
    """Bring the voxels into the order of a grid: Slicer turns an axis of left-handed images when it reads them."""
    import numpy as np
    import slicer
    from slicer.i18n import tr as _

    loaded, dimensions = gridOf(node)
    found, wanted = slicer.util.arrayFromVTKMatrix(loaded), slicer.util.arrayFromVTKMatrix(matrix)
    turned = [axis for axis in range(3) if found[:3, axis] @ wanted[:3, axis] < 0]
    for axis in turned:
        found[:3, 3] += found[:3, axis] * (dimensions[axis] - 1)
        found[:3, axis] *= -1
    if _farthest(found, wanted, dimensions) > GRID_TOLERANCE * min(node.GetSpacing()):
        raise RuntimeError(_("The result does not lie on the grid of the input; it was dropped."))
    if turned:
        array = slicer.util.arrayFromVolume(node)
        slicer.util.updateVolumeFromArray(node, np.flip(array, [2 - axis for axis in turned]).copy())


def fillVolume(loaded, output, matrix) -> Any:
    """Give a loaded image its exact grid, and move it into an output node if there is one.

    An output that was no synthetic image before forgets its file.

    :param loaded: node from `readVolume`.
    :param output: the node to fill, or None to keep `loaded`.
    :param matrix: IJK-to-RAS of the result.
    :return: the node that holds the image now.
    """
    node = output or loaded
    if output is not None:
        output.SetAndObserveImageData(loaded.GetImageData())
        removeNode(loaded)
        if output.GetAttribute(SYNTHETIC_ATTRIBUTE) != "true":
            forgetFile(output)
    node.SetIJKToRASMatrix(matrix)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    return node


def forgetFile(node) -> None:
    """Let a node forget its file: saving the scene would write a result over the data that the node was loaded from."""
    if node.GetStorageNode() is not None:
        node.GetStorageNode().SetFileName("")
        node.GetStorageNode().ResetFileNameList()


def removeNode(node) -> None:
    """Remove a node, with the display that Slicer gave it."""
    import slicer

    if node.IsA("vtkMRMLDisplayableNode"):
        for number in reversed(range(node.GetNumberOfDisplayNodes())):
            slicer.mrmlScene.RemoveNode(node.GetNthDisplayNode(number))
    slicer.mrmlScene.RemoveNode(node)


def markNode(node, record: dict[str, Any]) -> None:
    """Mark a node as made by a model: attributes, a description, and a name that says so.

    :param node: the node; its name gets " (synthetic)" unless it has the word already.
    :param record: the mark that `imt` wrote beside the file.
    """
    model = record.get("model", {})
    values = {
        SYNTHETIC_ATTRIBUTE: "true",
        "IMT.Notice": record.get("notice", ""),
        "IMT.Content": record.get("content", ""),
        "IMT.SourceModality": record.get("source_modality", ""),
        "IMT.TargetModality": record.get("target_modality", ""),
        "IMT.Model": model.get("name", ""),
        "IMT.ModelSHA256": model.get("sha256", ""),
        "IMT.Seed": str(record.get("seed", "")),
        "IMT.Versions": json.dumps(record.get("versions", {}), sort_keys=True),
        MARK_ATTRIBUTE: json.dumps(record, sort_keys=True, ensure_ascii=True),
    }
    for key, value in values.items():
        node.SetAttribute(key, value)
    node.SetDescription(record.get("notice", ""))
    if "synthetic" not in node.GetName().lower():
        node.SetName(f"{node.GetName()} (synthetic)")


def markOf(node) -> dict[str, Any]:
    """The mark of a node that IMT made, or an empty dictionary."""
    try:
        record = json.loads(node.GetAttribute(MARK_ATTRIBUTE) or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def placeBeside(node, other) -> None:
    """Put a node under the parent transform and into the subject hierarchy folder (study) of another."""
    import slicer

    node.SetAndObserveTransformNodeID(other.GetTransformNodeID())
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    if hierarchy is None:
        return
    item, otherItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(other)
    if item and otherItem:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(otherItem))


def showInRange(node, low: float, high: float, heat: bool = False) -> None:
    """Set a volume's window to [low, high].

    :param heat: show it in heat colours instead of grey, transparent where it is 0.
    """
    display = node.GetDisplayNode()
    if display is None:
        return
    high = max(high, low + 1e-6)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(low, high)
    if heat:
        display.SetAndObserveColorNodeID(heatColorTable().GetID())
        display.SetAutoThreshold(False)
        display.SetThreshold(1e-6 * high, 1e9)
        display.SetApplyThreshold(True)


def heatColorTable():
    """The scene's colour table for uncertainty and error maps; made at its first use, and saved with the scene.

    Slicer's own tables of this kind lie in files, which a run without the application does not have.
    """
    import numpy as np
    import slicer

    found = slicer.mrmlScene.GetFirstNodeByName(HEAT_NAME)
    if found is not None and found.IsA("vtkMRMLColorTableNode"):
        return found
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", HEAT_NAME)
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    position, *channels = np.array(HEAT).T
    for index in range(256):
        red, green, blue = (float(np.interp(index / 255, position, channel)) for channel in channels)
        node.SetColor(index, red, green, blue, 1.0)
    node.SetNamesFromColors()
    node.SetHideFromEditors(True)
    return node


def brightest(node, percentile: float = 99.5) -> float:
    """The percentile of what is not 0 in a volume; 1 for an empty one. A sensible top of its window."""
    import numpy as np
    import slicer

    array = slicer.util.arrayFromVolume(node)
    values = array[array != 0]
    return float(np.percentile(values, percentile)) if values.size else 1.0
