"""The module `SampleData`: records what modules register, and downloads file:// addresses only."""

from __future__ import annotations

import os
import shutil
import sys
import types
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer


def _as_list(value: Any, length: int) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value] * length


class SampleDataSource:
    """One sample: addresses, file names, node names and checksums, each one or a list."""

    def __init__(
        self,
        sampleName: str | None = None,
        sampleDescription: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Callable | None = None,
        thumbnailFileName: str | None = None,
        loadFileType: Any = None,
        loadFileProperties: dict | None = None,
    ):
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.uris = _as_list(uris, 1)
        count = len(self.uris)
        self.fileNames, self.nodeNames = _as_list(fileNames, count), _as_list(nodeNames, count)
        self.checksums, self.loadFiles = _as_list(checksums, count), _as_list(loadFiles, count)
        self.loadFileType = _as_list(loadFileType, count)
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}
        lengths = {len(value) for value in (self.fileNames, self.nodeNames, self.checksums, self.loadFiles, self.loadFileType)}
        if lengths != {count}:
            raise ValueError("All fields of sample data source must have the same length")
        for checksum in self.checksums:
            slicer.util.extractAlgoAndDigest(checksum)  # Slicer finds a bad one only when it downloads

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, SampleDataSource) and vars(self) == vars(other)


class SampleDataLogic:
    """Registers samples in slicer.modules.sampleDataSources, and loads them."""

    #: category: title
    categories: dict[str, str | None] = {}
    #: sample name: what stands in for a download; set by `provide`
    providers: dict[str, Callable[[], Any]] = {}

    def __init__(self, logMessage: Callable | None = None):
        self.logMessage = logMessage or (lambda *_: None)

    @classmethod
    def registerCustomSampleDataCategory(cls, category: str, title: str | None = None) -> None:
        cls.categories[category] = title

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom", sampleName: str | None = None, loadFileType: Any = "VolumeFile", **fields: Any
    ) -> None:
        source = SampleDataSource(sampleName=sampleName, loadFileType=loadFileType, **fields)
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if source not in sources:
            sources.append(source)

    @classmethod
    def provide(cls, sampleName: str, function: Callable[[], Any]) -> None:
        """Of the harness: let `function` make the node of a sample, instead of a download."""
        cls.providers[sampleName] = function

    def sourceForSampleName(self, sampleName: str) -> SampleDataSource | None:
        sources = (source for known in slicer.modules.sampleDataSources.values() for source in known)
        return next((source for source in sources if source.sampleName == sampleName), None)

    def downloadSample(self, sampleName: str) -> Any:
        return self.downloadSamples(sampleName)[0]

    def downloadSamples(self, sampleName: str) -> list:
        if sampleName in self.providers:
            return [self.providers[sampleName]()]
        source = self.sourceForSampleName(sampleName)
        return self.downloadFromSource(source) if source else []

    def downloadFromSource(self, source: SampleDataSource, maximumAttemptsCount: int = 3) -> list:
        """The loaded nodes; the paths, if no file has a node name or none is to be loaded."""
        if source.customDownloader:
            return source.customDownloader(source)
        nodes, paths = [], []
        names = zip(source.uris, source.fileNames, source.nodeNames, source.checksums, strict=True)
        for (uri, file_name, node_name, checksum), load, kind in zip(names, source.loadFiles, source.loadFileType, strict=True):
            path = self.downloadFileIntoCache(uri, file_name, checksum)
            paths.append(path)
            if node_name and load is not False:
                nodes.append(self.loadNode(path, node_name, kind or "VolumeFile", dict(source.loadFileProperties)))
            elif load and kind == "SceneFile":
                slicer.util.loadScene(path, properties=dict(source.loadFileProperties))
        return nodes or paths

    def downloadFileIntoCache(self, uri: str, name: str, checksum: str | None = None) -> str:
        return self.downloadFile(uri, slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory(), name, checksum)

    def downloadFile(self, uri: str, destFolderPath: str, name: str, checksum: str | None = None) -> str:
        """Copy the file of a file:// address; ValueError if its checksum is another one."""
        address = urllib.parse.urlparse(uri)
        if address.scheme != "file":
            raise ValueError(f"slicer_harness downloads nothing: {uri} (use SampleDataLogic.provide)")
        path = os.path.join(destFolderPath, name)
        source = Path(urllib.request.url2pathname(address.path))
        if not source.is_file():
            raise ValueError(f"Failed to download {uri} to {path}")
        shutil.copyfile(source, path)
        algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
        if algorithm and slicer.util.computeChecksum(algorithm, path) != digest:
            os.remove(path)
            raise ValueError(f"Checksum verification failed: {uri}")
        return path

    def loadNode(self, uri: str, name: str, fileType: str = "VolumeFile", fileProperties: dict | None = None) -> Any:
        """Load a file; the node forgets it, as it lies in the cache."""
        node = slicer.util.loadNodeFromFile(uri, fileType, properties=dict(fileProperties or {}, name=name))
        if node.IsA("vtkMRMLStorableNode") and node.GetStorageNode():
            slicer.mrmlScene.RemoveNode(node.GetStorageNode())
        return node


def install() -> None:
    """Make `import SampleData` work."""
    slicer.modules.sampleDataSources = {}
    module = sys.modules["SampleData"] = types.ModuleType("SampleData", __doc__)
    module.SampleDataLogic, module.SampleDataSource = SampleDataLogic, SampleDataSource
    module.downloadSample = lambda sampleName: SampleDataLogic().downloadSample(sampleName)
    module.downloadSamples = lambda sampleName: SampleDataLogic().downloadSamples(sampleName)
