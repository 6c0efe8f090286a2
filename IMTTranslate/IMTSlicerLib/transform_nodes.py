"""Transform nodes of registrations: files that map a fixed image to a moving one (LPS), as nodes that users can apply.

Slicer applies a node's transform to parent to what is under it. A resampling map, fixed to moving, is therefore a
node's transform FROM parent: a moving image under the node comes to lie on the fixed one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LPS_TO_RAS = (-1.0, -1.0, 1.0)


def readTransformNode(path: Path, name: str):
    """A new general transform node from a transform file, fixed to moving, LPS; the node forgets the file.

    :raises RuntimeError: it cannot be read; nothing is left in the scene.
    """
    import slicer
    from slicer.i18n import tr as _

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    if not storage.ReadData(node, True) or node.GetTransformFromParent() is None:
        slicer.mrmlScene.RemoveNode(node)
        raise RuntimeError(_("The transform {path} cannot be read.").format(path=path.name))
    return node


def setImages(node, fixedNode=None, movingNode=None) -> None:
    """Tell a transform node which images it was made from."""
    for role, image in ((node.GetFixedNodeReferenceRole(), fixedNode), (node.GetMovingNodeReferenceRole(), movingNode)):
        if image is not None:
            node.SetNodeReferenceID(role, image.GetID())


def toMoving(node, points: np.ndarray) -> np.ndarray:
    """(N, 3) RAS points of the fixed image (in its own coordinates) to (N, 3) of the moving one."""
    import numpy as np

    transform = node.GetTransformFromParent()
    return np.array([transform.TransformPoint(point) for point in np.asarray(points, float)]).reshape(-1, 3)


def fromWorld(node, points: np.ndarray) -> np.ndarray:
    """(N, 3) RAS points of the world to (N, 3) in the coordinates of the node's parent: those of the fixed image."""
    import numpy as np
    import slicer
    import vtk

    general = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node.GetParentTransformNode(), general)
    return np.array([general.TransformPoint(point) for point in np.asarray(points, float)]).reshape(-1, 3)


def landmarksAsText(landmarksLps: Mapping[str, np.ndarray]) -> str:
    """Named points, LPS mm, as a node's attribute."""
    return json.dumps({name: [float(value) for value in point] for name, point in landmarksLps.items()})


def landmarksFromText(text: str | None) -> dict[str, np.ndarray]:
    """The named points of an attribute, now RAS mm; empty if there are none."""
    import numpy as np

    try:
        found = json.loads(text or "{}")
        return {str(name): np.array(point, float) * LPS_TO_RAS for name, point in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {}
