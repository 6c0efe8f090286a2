"""Volume nodes in and out: checked, written for a command, and filled with what the command made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SYNTHETIC_ATTRIBUTE = "IMT.Synthetic"
MARK_ATTRIBUTE = "IMT.Mark"
COLOURS = "vtkMRMLColorTableNodeIron"  # one of the few colour tables that Slicer does not read from a file


def checkVolume(node, what: str = "input volume") -> None:
    """Check that a node is a volume that IMT can work with.

    :param node: what was chosen, or None.
    :param what: what it is for, in the message.
    :raises ValueError: none chosen, no scalar volume, a label map, without image, of several components, or with NaN.
    """
    import numpy as np
    import slicer

    if node is None:
        raise ValueError(f"Select the {what}.")
    name = node.GetName()
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ValueError(f"{name} is no scalar volume. Select an MR image as the {what}.")
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise ValueError(f"{name} has no image. Load its data, or select another {what}.")
    if image.GetNumberOfScalarComponents() != 1:
        raise ValueError(
            f"{name} has {image.GetNumberOfScalarComponents()} values a voxel (a colour, vector or 4D image). "
            f"Select a volume of single intensities as the {what}."
        )
    array = slicer.util.arrayFromVolume(node)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not numbers (NaN or infinite). Replace them, for example by 0.")


def gridOf(node):
    """The node's IJK-to-RAS matrix and dimensions, as they are now: (vtkMatrix4x4, (i, j, k))."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix, tuple(node.GetImageData().GetDimensions())


def haveSameGrid(first, second) -> bool:
    """Whether two volumes have the same voxels at the same places (to a hundredth of a voxel), transforms included."""
    if first.GetTransformNodeID() != second.GetTransformNodeID():
        return False
    (matrix, dimensions), (other, otherDimensions) = gridOf(first), gridOf(second)
    tolerance = 0.01 * min(first.GetSpacing())
    close = all(abs(matrix.GetElement(r, c) - other.GetElement(r, c)) <= tolerance for r in range(4) for c in range(4))
    return close and dimensions == otherDimensions


def fileNameFor(node) -> str:
    """A file name without suffix that tells whose file it is, made of characters that every system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", node.GetName()).strip("._")[:60] or "volume"


def writeVolume(node, path: Path) -> Path:
    """Write a volume node's voxels and grid, without parent transforms, to a file.

    :raises RuntimeError: if it cannot be written.
    """
    import slicer

    # A dictionary of its own: exportNode's default remembers the format of the call before.
    if not slicer.util.exportNode(node, str(path), properties={"useCompression": 0}) or not path.is_file():
        raise RuntimeError(f"Cannot write {node.GetName()} to {path.parent}. Is the disk full?")
    return path


def readVolume(path: Path):
    """Load a result file as a new hidden volume node without storage; the caller removes it or keeps it.

    :raises RuntimeError: if it cannot be read.
    """
    import slicer

    node = slicer.util.loadVolume(str(path), properties={"show": False, "singleFile": True})
    storage = node.GetStorageNode()
    if storage is not None:  # it points to a file that is about to go
        node.SetAndObserveStorageNodeID(None)
        slicer.mrmlScene.RemoveNode(storage)
    return node


def fillVolume(loaded, output, matrix) -> Any:
    """Give a loaded image its exact grid, and move it into an output node if there is one.

    :param loaded: node from `readVolume`.
    :param output: the node to fill, or None to keep `loaded`.
    :param matrix: IJK-to-RAS of the result.
    :return: the node that holds the image now.
    """
    import slicer

    node = output or loaded
    if output is not None:
        output.SetAndObserveImageData(loaded.GetImageData())
        slicer.mrmlScene.RemoveNode(loaded)
    node.SetIJKToRASMatrix(matrix)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    return node


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


def showInRange(node, low: float, high: float, colours: str | None = None) -> None:
    """Set a volume's window to [low, high], and its colours (grey if None)."""
    import slicer

    display = node.GetDisplayNode()
    if display is None:
        return
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(low, max(high, low + 1e-6))
    if colours is not None and slicer.mrmlScene.GetNodeByID(colours) is not None:
        display.SetAndObserveColorNodeID(colours)


def brightest(node, percentile: float = 99.5) -> float:
    """The percentile of what is not 0 in a volume; 1 for an empty one. A sensible top of its window."""
    import numpy as np
    import slicer

    array = slicer.util.arrayFromVolume(node)
    values = array[array != 0]
    return float(np.percentile(values, percentile)) if values.size else 1.0
