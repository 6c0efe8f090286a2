"""The mark goes with the file: where Slicer saves a synthetic volume, `<stem>.json` is written beside it.

The node's attributes are saved in scenes, but Slicer writes them into no image file that all tools read. Slicer tells
of a save only through the storage node, which is therefore watched.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .derived_marks import DERIVED_ATTRIBUTE
from .nodes import SYNTHETIC_ATTRIBUTE, markOf

_watched: dict[str, object] = {}  # by the storage node's address: its observer
_scenes: set[str] = set()
_UNKNOWN = object()


def followSaving(node) -> None:
    """Write the node's mark beside its file at every save from now on; gives it a storage node if it has none."""
    import vtk

    if node.GetStorageNode() is None:
        node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    if storage is None:
        return
    key = storage.GetAddressAsString("vtkObject")
    if key in _watched:
        return
    nodeID = node.GetID()
    seen = {}  # file name → what the file was when the storage node last spoke of it

    def onModified(caller, _event) -> None:
        name = caller.GetFileName() or ""
        before, now = seen.get(name, _UNKNOWN), _stamp(name)
        seen.clear()
        seen[name] = now
        if before is not _UNKNOWN and now is not None and now != before:
            _writeMark(caller, nodeID)

    seen[storage.GetFileName() or ""] = _stamp(storage.GetFileName() or "")
    _watched[key] = onModified
    storage.AddObserver(vtk.vtkCommand.ModifiedEvent, onModified)
    storage.AddObserver(vtk.vtkCommand.DeleteEvent, lambda *_: _watched.pop(key, None))


def followScene() -> None:
    """Follow what is synthetic, or derived from it, in the scene, and of every scene that is loaded into it."""
    import slicer

    scene = slicer.mrmlScene
    _followAll(scene)
    key = scene.GetAddressAsString("vtkObject")
    if key not in _scenes:
        _scenes.add(key)
        scene.AddObserver(scene.EndImportEvent, lambda *_: _followAll(scene))


def _followAll(scene) -> None:
    for name in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
        for index in range(scene.GetNumberOfNodesByClass(name)):
            node = scene.GetNthNodeByClass(index, name)
            if node.GetAttribute(SYNTHETIC_ATTRIBUTE) == "true" or node.GetAttribute(DERIVED_ATTRIBUTE) is not None:
                followSaving(node)


def _stamp(name: str) -> tuple[int, int] | None:
    """What changes when a file is written; None if it is not there."""
    try:
        status = Path(name).stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if Path(name).is_file() else None


def _writeMark(storage, nodeID: str) -> None:
    import slicer

    from IMTCore.files import write_json
    from IMTCore.provenance import is_mark, sidecar_path

    node = slicer.mrmlScene.GetNodeByID(nodeID)
    name = storage.GetFileName()
    if node is None or node.GetStorageNode() is not storage or not name or not Path(name).is_file():
        return
    record = markOf(node)
    path = sidecar_path(Path(name))
    if not record or (path.exists() and not is_mark(path)):
        logging.warning("IMT: the mark of %s was not saved: %s is another file.", node.GetName(), path.name)
        return
    record.pop("output", None)  # the hash of the file that `imt` wrote, which is not this one
    write_json(path, record)
