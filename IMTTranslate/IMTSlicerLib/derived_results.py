"""What a command derives from a volume, brought into the scene: labels, maps, tables, the translated image; all or none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IMTCore.label_names import colour_table
from IMTCore.provenance import sidecar_path

from .derived_marks import DERIVED_ATTRIBUTE, markDerived
from .nodes import brightest, fillVolume, forgetFile, markNode, placeBeside, readVolume, removeNode, showInRange
from .saved_marks import followSaving
from .segmentations import Structure, fillSegmentation, nodeIDs, removeNodes, structuresOf
from .tables import addTable


@dataclass(frozen=True, kw_only=True)
class ResultTargets:
    """Where results belong, as it was when the run started: the input's ID, name and grid, and the nodes to fill."""

    inputID: str
    inputName: str
    matrix: Any
    dimensions: tuple[int, int, int]
    segmentationID: str | None = None


class DerivedResults:
    """What a run brought into the scene; empty until `take` has read the job's folder. Subclasses give `_takeAll`.

    The folder holds report.json, labels.nrrd with its mark and colour table, and translated.nrrd with its mark if there is
    one.

    Attributes:
        segmentationNode: the labels as named, coloured segments.
        translatedNode: the synthetic image of the second modality; None if there was none, or it was not asked for.
        tableNode: the report's table.
        report: what `imt` reported.
        warnings: what the user should know.
    """

    def __init__(self, targets: ResultTargets) -> None:
        self._targets = targets
        self._forget()

    def _forget(self) -> None:
        self.segmentationNode = self.translatedNode = self.tableNode = None
        self.report: dict[str, Any] = {}
        self.warnings: list[str] = []

    def inputNode(self):
        """The input volume; None if it is not there any more."""
        return slicer.mrmlScene.GetNodeByID(self._targets.inputID)

    def take(self, folder: Path) -> None:
        """Bring all results into the scene.

        :raises RuntimeError: the input or an output was removed, or a result cannot be read; then nothing has changed.
        """
        if self.inputNode() is None:
            text = _("The input volume {name} was removed during the run; the result was dropped.")
            raise RuntimeError(text.format(name=self._targets.inputName))
        if any(slicer.mrmlScene.GetNodeByID(key) is None for key in self._outputIDs()):
            raise RuntimeError(_("An output node was removed during the run; the result was dropped."))
        before = nodeIDs()
        try:
            self.report = self._readReport(folder)
            self.warnings = list(self.report.get("warnings", []))
            self._takeAll(folder, self.inputNode())
        except Exception:
            removeNodes(nodeIDs() - before)
            self._forget()
            raise

    def _outputIDs(self) -> list[str]:
        """The nodes to fill."""
        return [self._targets.segmentationID] if self._targets.segmentationID else []

    def _takeAll(self, folder: Path, inputNode) -> None:
        """Bring it in; nodes that were there before are filled last, when nothing can go wrong any more."""
        raise NotImplementedError

    def _suffix(self) -> str:
        """What the names of results end with: whether a synthetic image took part."""
        raise NotImplementedError

    # ---- reading

    def _read(self, path: Path):
        return readVolume(path, self._targets.matrix, self._targets.dimensions)

    def _readIfThere(self, path: Path):
        return self._read(path) if path.is_file() else None

    def _readReport(self, folder: Path) -> dict[str, Any]:
        """What `imt` reported."""
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))

    def _readLabels(self, folder: Path, name: str = "labels.nrrd") -> tuple[Any, list[Structure], dict[str, Any]]:
        """The array of codes, the structures and the mark."""
        path = folder / name
        record = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
        labels = self._read(path)
        array = slicer.util.arrayFromVolume(labels).copy()
        removeNode(labels)
        return array, structuresOf(colour_table(path)), record

    # ---- nodes

    def _placeTable(self, title: str, columns: dict[str, list]) -> None:
        self.tableNode = addTable(title, columns, self.inputNode())
        markDerived(self.tableNode, self.report, "report")

    def _placeTranslated(self, loaded, recordPath: Path, inputNode) -> None:
        if loaded is None:
            return
        record = json.loads(recordPath.read_text(encoding="utf-8"))
        node = self.translatedNode = fillVolume(loaded, None, self._targets.matrix)
        title = f"{self._targets.inputName} {record['target_modality']} (synthetic)"
        node.SetName(slicer.mrmlScene.GenerateUniqueName(title))
        markNode(node, self._ofInput(record))
        followSaving(node)
        placeBeside(node, inputNode)
        showInRange(node, float(record["output_range"][0]), brightest(node))

    def _placeMap(self, node, title: str | None, record: dict[str, Any], inputNode, content: str = "") -> None:
        """Name and mark a map of values from 0 to 1, such as a share or a probability, and show it in heat colours."""
        if title is not None:
            node.SetName(slicer.mrmlScene.GenerateUniqueName(title + self._suffix()))
        markDerived(node, self._ofInput(record), content)
        followSaving(node)
        placeBeside(node, inputNode)
        showInRange(node, 0.0, 1.0, heat=True)

    def _placeLabels(self, array, structures: list[Structure], record: dict[str, Any], title: str, inputNode) -> None:
        """Fill the segmentation node that was chosen, or a new one called `title`."""
        node = slicer.mrmlScene.GetNodeByID(self._targets.segmentationID or "")
        if node is None:
            name = slicer.mrmlScene.GenerateUniqueName(title + self._suffix())
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        elif node.GetAttribute(DERIVED_ATTRIBUTE) is None:
            forgetFile(node)
        fillSegmentation(node, array, self._targets.matrix, structures, inputNode)
        markDerived(node, self._ofInput(record))
        followSaving(node)
        placeBeside(node, inputNode)
        self.segmentationNode = node

    def _ofInput(self, record: dict[str, Any]) -> dict[str, Any]:
        """The mark with the input's name in the scene."""
        return {**record, "input": {**record.get("input", {}), "node": self._targets.inputName}}
