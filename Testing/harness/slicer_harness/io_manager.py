"""Loading and saving for slicer.util: the part of qSlicerCoreIOManager that it calls. No Qt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import slicer
import vtk

#: file type: (extensions, node class). The first type that has the longest matching extension is taken.
FILE_TYPES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "SceneFile": ((".mrml", ".mrb"), None),
    "SegmentationFile": ((".seg.nrrd", ".seg.nhdr", ".seg.vtm"), "vtkMRMLSegmentationNode"),
    "MarkupsFile": ((".mrk.json", ".fcsv"), "vtkMRMLMarkupsNode"),
    "TransformFile": ((".h5", ".tfm", ".mat"), "vtkMRMLTransformNode"),
    "VolumeFile": ((".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".dcm"), "vtkMRMLVolumeNode"),
    "ModelFile": ((".vtk", ".vtp", ".stl", ".ply", ".obj"), "vtkMRMLModelNode"),
    "TableFile": ((".tsv", ".csv"), "vtkMRMLTableNode"),
    "ColorTableFile": ((".ctbl",), "vtkMRMLColorTableNode"),
    "TextFile": ((".txt", ".json", ".xml"), "vtkMRMLTextNode"),
}
_EXTENSIONS = sorted({extension for known, _ in FILE_TYPES.values() for extension in known}, key=len, reverse=True)


class CoreIOManager:
    """slicer.app.coreIOManager(): reads and writes with the nodes' own storage nodes and the real module logics."""

    def __init__(self, app: Any):
        self._app = app

    # --- Names ---

    def extractKnownExtension(self, filename: str, node: Any = None) -> str:
        """The longest known extension that the name ends with."""
        name = os.path.basename(str(filename)).lower()
        return next((extension for extension in _EXTENSIONS if name.endswith(extension)), os.path.splitext(name)[1])

    def fileType(self, filename: str) -> str:
        """Which kind of file a name means."""
        extension = self.extractKnownExtension(filename)
        return next((kind for kind, (known, _) in FILE_TYPES.items() if extension in known), "VolumeFile")

    def fileWriterFileType(self, node: Any) -> str:
        """Which kind of file a node is written as."""
        return next((kind for kind, (_, name) in FILE_TYPES.items() if name and node.IsA(name)), "NodeFile")

    def fileWriterExtensions(self, node: Any) -> list[str]:
        """The formats that the node's storage node writes, such as "NRRD (.nrrd)"."""
        storage = node.GetStorageNode() or node.CreateDefaultStorageNode()
        storage.SetScene(self._app.mrmlScene())  # without a scene it knows no formats
        formats = storage.GetSupportedWriteFileTypes()
        return [formats.GetValue(index) for index in range(formats.GetNumberOfValues())]

    # --- Reading ---

    def loadNodes(self, filetype: str, properties: dict, collection: Any = None, messages: Any = None) -> bool:
        """Load the file properties["fileName"]; the nodes go into `collection`."""
        path = str(properties["fileName"])
        if not os.path.exists(path):
            if messages is not None:
                messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"File not found: {path}")
            return False
        if filetype == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear", False)))
        name = properties.get("name") or os.path.basename(path).removesuffix(_ending(path, self.extractKnownExtension(path)))
        node = self._load_node(filetype, path, name, properties)
        if node is not None and collection is not None:
            collection.AddItem(node)
        return node is not None

    def _load_node(self, filetype: str, path: str, name: str, properties: dict) -> Any:
        scene = self._app.mrmlScene()
        if filetype == "VolumeFile":
            return self._load_volume(path, name, properties)
        if filetype == "TransformFile":
            return slicer.modules.transforms.logic().AddTransform(path, scene)
        if filetype == "SegmentationFile":
            colors = scene.GetNodeByID(properties.get("colorNodeID") or "")
            logic = slicer.modules.segmentations.logic()
            return logic.LoadSegmentationFromFile(path, bool(properties.get("autoOpacities", True)), name, colors)
        if filetype == "MarkupsFile":
            return scene.GetNodeByID(slicer.modules.markups.logic().LoadMarkups(path, name) or "")
        if filetype not in FILE_TYPES:
            raise NotImplementedError(f"slicer_harness does not imitate reading a {filetype}")
        node = scene.AddNewNodeByClass(FILE_TYPES[filetype][1], name)
        node.AddDefaultStorageNode(path)
        if not node.GetStorageNode().ReadData(node):
            scene.RemoveNode(node)
            return None
        if hasattr(node, "CreateDefaultDisplayNodes"):
            node.CreateDefaultDisplayNodes()
        return node

    def _load_volume(self, path: str, name: str, properties: dict) -> Any:
        flags = (("labelmap", 1, False), ("center", 2, False), ("singleFile", 4, False))
        flags += (("autoWindowLevel", 8, True), ("discardOrientation", 16, False))
        options = sum(bit for key, bit, default in flags if properties.get(key, default))
        files = None
        if properties.get("fileNames"):
            files = vtk.vtkStringArray()
            for file in properties["fileNames"]:
                files.InsertNextValue(str(file))
        node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options, files)
        if node is None:
            return None
        if properties.get("colorNodeID"):
            node.GetDisplayNode().SetAndObserveColorNodeID(properties["colorNodeID"])
        if properties.get("show", True):
            selection = self._app.applicationLogic().GetSelectionNode()
            if node.IsA("vtkMRMLLabelMapVolumeNode"):
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            self._app.applicationLogic().PropagateVolumeSelection()
        return node

    def _load_scene(self, path: str, clear: bool) -> bool:
        scene = self._app.mrmlScene()
        if clear:
            scene.Clear(False)
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path))
        scene.SetURL(path)
        return bool(scene.Import())

    # --- Writing ---

    def saveNodes(self, filetype: str, properties: dict, messages: Any = None) -> bool:
        """Save the scene, or the node properties["nodeID"], as properties["fileName"]."""
        path = os.path.abspath(str(properties["fileName"]))
        scene = self._app.mrmlScene()
        if filetype == "SceneFile":
            scene.SetRootDirectory(os.path.dirname(path))
            if path.lower().endswith(".mrb"):
                return bool(scene.WriteToMRB(path))
            if not path.lower().endswith(".mrml"):
                os.makedirs(path, exist_ok=True)
                return bool(self._app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(path, None))
            scene.SetURL(path)
            return bool(scene.Commit(path))
        node = scene.GetNodeByID(properties["nodeID"])
        return _write(node, _storage_node(node), path, properties)

    def exportNodes(
        self, nodeIDs: list[str], fileNames: list[str], properties: dict, hardenTransform: bool = False, messages: Any = None
    ) -> bool:
        """Write copies, so that the nodes' own storage nodes and parent transforms stay as they are."""
        good = True
        for nodeID, fileName in zip(nodeIDs, fileNames, strict=True):
            node = self._app.mrmlScene().GetNodeByID(nodeID)
            scene = slicer.vtkMRMLScene()
            copy = scene.AddNewNodeByClass(node.GetClassName())
            copy.CopyContent(node, True)
            if hardenTransform and node.IsA("vtkMRMLTransformableNode") and node.GetParentTransformNode():
                transform = vtk.vtkGeneralTransform()
                node.GetParentTransformNode().GetTransformToWorld(transform)
                copy.ApplyTransform(transform)
            storage = copy.CreateDefaultStorageNode()
            good = _write(copy, storage, os.path.abspath(str(fileName)), properties) and good
        return good


def _ending(path: str, extension: str) -> str:
    """The extension as it is written in the path."""
    return path[-len(extension) :] if extension else ""


def _storage_node(node: Any) -> Any:
    if node.GetStorageNode() is None:
        node.AddDefaultStorageNode()
    return node.GetStorageNode()


def _write(node: Any, storage: Any, path: str, properties: dict) -> bool:
    if not Path(path).parent.is_dir():
        return False
    storage.SetFileName(path)
    if "useCompression" in properties:
        storage.SetUseCompression(int(properties["useCompression"]))
    return bool(storage.WriteData(node))
