"""A case of a batch in the scene: its input, and its results marked as what they are; all or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IMTCore.bids import AGENT, BidsName, parse_name
from IMTCore.files import sha256_of
from IMTCore.provenance import read_mark, sidecar_path
from IMTSlicerLib.derived_results import DerivedResults, ResultTargets
from IMTSlicerLib.nodes import gridOf, removeNode

LOGS = "logs"
SHOWN = ("translation", "labels")  # what marks say of the volumes that are loaded
RESULT_ROLE = "IMT.BatchResult"  # node references of a case's input
CASE_ATTRIBUTE = "IMT.BatchCase"  # of that input: where it is from


def loadCase(folder: Path, case: str, inputPath: Path | None = None) -> list[Any]:
    """Load a case's input and results; one that is in the scene already is not loaded again.

    :param folder: of the batch's outputs.
    :param inputPath: where the input lies now; None for where it lay during the batch.
    :return: the input node, the synthetic volumes, the segmentations.
    :raises ValueError: there is no such case, or nothing of it is finished. RuntimeError: a file cannot be read, or lies on
        another grid than the input; the scene stays as it was.
    """
    record = readRecord(folder, case)
    image = inputPath or Path(record["input"])
    files = outputsOf(folder, record)
    if not files:
        raise ValueError(_("Nothing of {case} is finished in {folder}.").format(case=case, folder=folder))
    key = json.dumps([str(image.resolve()), *(f"{path.resolve()} {path.stat().st_mtime_ns}" for path in files)])
    known = _nodesOf(key, len(files))
    if known:
        return known
    if not image.exists():
        text = _("{path}, the input of {case}, is not there any more. Put it back, or load the results by hand from {folder}.")
        raise RuntimeError(text.format(path=image, case=case, folder=files[0].parent))
    node = slicer.util.loadVolume(str(image), properties={"name": f"{case} {record.get('modality', '')}".strip(), "show": False})
    try:
        results = CaseResults(node, record, files)
        results.take(folder)
    except Exception:
        storage = node.GetStorageNode()
        removeNode(node)
        slicer.mrmlScene.RemoveNode(storage)
        raise
    node.SetAttribute(CASE_ATTRIBUTE, key)
    for result in results.nodes:
        node.AddNodeReferenceID(RESULT_ROLE, result.GetID())
    return [node, *results.nodes]


def readRecord(folder: Path, case: str) -> dict[str, Any]:
    """What the batch has written down of a case.

    :raises ValueError: there is no such case.
    """
    record = read_mark(folder / LOGS / f"{case}.json")
    if not isinstance(record.get("stages"), dict) or not isinstance(record.get("input"), str):
        raise ValueError(_("{folder} has no record of a case {case}. Choose the output folder of a batch.").format(folder=folder, case=case))
    return record


def outputsOf(folder: Path, record: dict[str, Any]) -> list[Path]:
    """The synthetic volumes and the labels that were made of a case: those with its name after BIDS and a mark."""
    name = parse_name(Path(f"{record.get('name', '')}_T1w.nii.gz"))
    if name is None or not (folder / name.folder).is_dir():
        return []
    found = [(path, parse_name(path)) for path in sorted((folder / name.folder).glob("*.nii.gz"))]
    own = [path for path, other in found if other is not None and _examination(other) == _examination(name)]
    return [path for path in own if kindOf(path) in SHOWN]


def _examination(name: BidsName) -> dict[str, str]:
    """What the names of a case's input and results have in common."""
    return {key: value for key, value in name.entities.items() if key not in ("desc", AGENT)}


def kindOf(path: Path) -> str:
    """What a volume is, as its mark says; empty without one."""
    mark = read_mark(sidecar_path(path))
    return str(mark.get("content", "")) if mark.get("synthetic") is True or "derived_from_synthetic" in mark else ""


def checkWhole(path: Path) -> None:
    """Check that a volume is what its mark is of: Slicer reads files that end in the middle without a word.

    :raises RuntimeError: it is not.
    """
    written = read_mark(sidecar_path(path)).get("output")
    if not isinstance(written, dict) or written.get("sha256") != sha256_of(path):
        text = _("{path} is not as the batch wrote it. If you have changed it, load it by hand; else start the batch again, which makes it anew.")
        raise RuntimeError(text.format(path=path))


def _nodesOf(key: str, count: int) -> list[Any]:
    """The nodes of a case that was loaded before; empty if one was removed since, or a file has changed."""
    for number in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = slicer.mrmlScene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode")
        if node.GetAttribute(CASE_ATTRIBUTE) == key:
            found = [node.GetNthNodeReference(RESULT_ROLE, n) for n in range(node.GetNumberOfNodeReferences(RESULT_ROLE))]
            return [node, *found] if len(found) == count and all(found) else []
    return []


class CaseResults(DerivedResults):
    """The results of one case; `nodes` holds them in the order of the files.

    :param inputNode: the case's input, in the scene.
    :param record: from `readRecord`.
    :param files: the results, with their marks beside them.
    """

    def __init__(self, inputNode, record: dict[str, Any], files: list[Path]) -> None:
        self._record, self._files, self._derived = record, files, False
        matrix, dimensions = gridOf(inputNode)
        super().__init__(ResultTargets(inputID=inputNode.GetID(), inputName=inputNode.GetName(), matrix=matrix, dimensions=dimensions))

    def _forget(self) -> None:
        super()._forget()
        self.nodes: list[Any] = []

    def _readReport(self, folder: Path) -> dict[str, Any]:
        return self._record

    def _suffix(self) -> str:
        return " " + _("(from a synthetic image)") if self._derived else ""

    def _takeAll(self, folder: Path, inputNode) -> None:
        for path in self._files:
            checkWhole(path)
            if kindOf(path) == "translation":
                self._placeTranslated(self._read(path), sidecar_path(path), inputNode)
                self.nodes.append(self.translatedNode)
            else:
                array, structures, mark = self._readLabels(path.parent, path.name)
                self._derived = bool(mark.get("derived_from_synthetic"))
                name = parse_name(path)
                what = name.entities.get("desc", "") if name is not None else ""
                self._placeLabels(array, structures, mark, f"{self._targets.inputName} {what}".strip(), inputNode)
                self.nodes.append(self.segmentationNode)
