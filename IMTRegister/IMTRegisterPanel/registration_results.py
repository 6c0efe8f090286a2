"""What a registration brings into the scene: segmentation, transforms, warped atlases, maps and a table; all or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from IMTSlicerLib.derived_marks import markDerived
from IMTSlicerLib.nodes import brightest, fillVolume, gridOf, markNode, placeBeside, readVolume, removeVolume, showInRange
from IMTSlicerLib.saved_marks import followSaving
from IMTSlicerLib.segmentations import Structure, fillSegmentation
from IMTSlicerLib.transform_nodes import landmarksAsText, readTransformNode, setImages

from .scene_atlases import landmarkFiles

ATLAS_ATTRIBUTE = "IMT.Atlas"
LANDMARKS_ATTRIBUTE = "IMT.AtlasLandmarks"
ALL_AGREE = 0.9995
TRANSFORM_ROLE = "IMT.Transform"  # node references of a segmentation: the transforms of the run that made it


@dataclass(frozen=True)
class ResultTargets:
    """Where the results belong, as it was when the run started."""

    inputID: str
    inputName: str
    modality: str
    secondModality: str | None
    matrix: Any
    dimensions: tuple[int, int, int]
    segmentationID: str | None = None
    agreementID: str | None = None
    movingIDs: Mapping[str, str] = field(default_factory=dict)
    atlasPath: Path | None = None


class RegistrationResults:
    """What a run brought into the scene; empty until `take` has read the job's folder.

    Attributes:
        segmentationNode: the carried labels as named, coloured segments.
        transformNodes: atlas name -> general transform node; what is put under it comes to lie on the input.
        warpedNodes: the atlases' images on the input's grid, if they were asked for.
        agreementNode: share of the atlases for each voxel's label, 0 to 1; None if it was not asked for.
        translatedNode: the synthetic image of the second modality; None if there was none.
        tableNode: one row an atlas.
        report: what `imt register` reported.
        warnings: what the user should know.
    """

    def __init__(self, targets: ResultTargets) -> None:
        self._targets = targets
        self._made: list = []
        self._forget()

    def _forget(self) -> None:
        self.segmentationNode = self.agreementNode = self.translatedNode = self.tableNode = None
        self.transformNodes: dict[str, Any] = {}
        self.warpedNodes: list = []
        self.report: dict[str, Any] = {}
        self.warnings: list[str] = []

    def inputNode(self):
        """The volume that was registered; None if it is not there any more."""
        return slicer.mrmlScene.GetNodeByID(self._targets.inputID)

    def take(self, folder: Path) -> None:
        """Bring all results into the scene.

        :raises RuntimeError: the input or an output was removed, or a result cannot be read; then nothing has changed.
        """
        targets = self._targets
        inputNode = self.inputNode()
        if inputNode is None:
            text = _("The input volume {name} was removed during the run; its registration was dropped.")
            raise RuntimeError(text.format(name=targets.inputName))
        outputs = {key: slicer.mrmlScene.GetNodeByID(key) for key in (targets.segmentationID, targets.agreementID) if key}
        if None in outputs.values():
            raise RuntimeError(_("An output node was removed during the run; the registration was dropped."))
        try:
            self.report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            self.warnings = list(self.report.get("warnings", []))
            record = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            self._takeTransforms(folder / "transforms", inputNode)
            self._takeWarped(folder / "warped", inputNode)
            translated = self._readIfThere(folder / "translated.nrrd")
            agreement = self._readIfThere(folder / "agreement.nrrd")
            labels = self._read(folder / "labels.nrrd")
            array = slicer.util.arrayFromVolume(labels).copy()
            self._remove(labels)
            structures = structuresOf(folder / "labels_labels.csv")
            self._takeTable()
            # Nodes that were there before are filled last, when nothing can go wrong any more.
            self._placeTranslated(translated, folder / "translated.json", inputNode)
            self._placeAgreement(agreement, folder / "agreement.json", outputs.get(targets.agreementID), inputNode)
            self._placeLabels(array, structures, record, outputs.get(targets.segmentationID), inputNode)
        except Exception:
            for node in filter(slicer.mrmlScene.IsNodePresent, self._made):
                self._remove(node)
            self._forget()
            raise

    def _readIfThere(self, path: Path):
        return self._read(path) if path.is_file() else None

    def _read(self, path: Path):
        node = readVolume(path, self._targets.matrix)
        self._made.append(node)
        if gridOf(node)[1] != tuple(self._targets.dimensions):
            raise RuntimeError(_("The result has another size than the input; it was dropped."))
        return node

    @staticmethod
    def _remove(node) -> None:
        if node.IsA("vtkMRMLDisplayableNode"):
            removeVolume(node)
        else:
            slicer.mrmlScene.RemoveNode(node)

    def _suffix(self) -> str:
        if not self.report.get("derived_from_synthetic"):
            return ""
        return " " + _("(from synthetic {modality})").format(modality=self._targets.secondModality)

    def _takeTransforms(self, folder: Path, inputNode) -> None:
        targets = self._targets
        names = [entry["name"] for entry in self.report["atlases"] if entry["state"] == "done"]
        if not folder.is_dir():
            return
        landmarks = self._landmarks(names)
        for name in names:
            title = _("{atlas} to {name}").format(atlas=name, name=targets.inputName)
            node = readTransformNode(folder / f"{name}.h5", slicer.mrmlScene.GenerateUniqueName(title))
            self._made.append(node)
            moving = slicer.mrmlScene.GetNodeByID(targets.movingIDs.get(name, ""))
            setImages(node, inputNode, moving)
            markDerived(node, self.report, "transform")
            node.SetAttribute(ATLAS_ATTRIBUTE, name)
            if name in landmarks:
                node.SetAttribute(LANDMARKS_ATTRIBUTE, landmarks[name])
            placeBeside(node, inputNode)
            self.transformNodes[name] = node

    def _landmarks(self, names: list[str]) -> dict[str, str]:
        """The atlases' landmarks as texts; a file that cannot be read is a warning, as the labels do not need it."""
        from IMTCore.errors import ImtError
        from IMTRegisterLib.atlases.landmarks import read_landmarks

        if self._targets.atlasPath is None:
            return {}
        found = {}
        for name, path in landmarkFiles(self._targets.atlasPath, names).items():
            try:
                found[name] = landmarksAsText(read_landmarks(path))
            except ImtError as error:
                self.warnings.append(str(error))
        return found

    def _takeWarped(self, folder: Path, inputNode) -> None:
        targets = self._targets
        modalities = [targets.modality] + ([targets.secondModality] if targets.secondModality else [])
        for place in sorted(path for path in folder.glob("*") if path.is_dir()):
            for modality in modalities:
                loaded = self._read(place / f"{modality}.nii.gz")
                node = fillVolume(loaded, None, targets.matrix)
                title = _("{atlas} {modality} warped to {name}").format(atlas=place.name, modality=modality, name=targets.inputName)
                node.SetName(slicer.mrmlScene.GenerateUniqueName(title))
                markDerived(node, self.report, "warped atlas")
                node.SetAttribute(ATLAS_ATTRIBUTE, place.name)
                placeBeside(node, inputNode)
                showInRange(node, 0.0, brightest(node))
                self.warpedNodes.append(node)

    def _takeTable(self) -> None:
        title = _("{name} registration").format(name=self._targets.inputName)
        self.tableNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(title))
        self._made.append(self.tableNode)
        self.tableNode.SetAndObserveTable(tableOfAtlases(self.report["atlases"]))
        self.tableNode.SetLocked(True)
        markDerived(self.tableNode, self.report, "report")
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        item, beside = (hierarchy.GetItemByDataNode(node) for node in (self.tableNode, self.inputNode()))
        if item and beside:
            hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))

    def _placeTranslated(self, loaded, recordPath: Path, inputNode) -> None:
        if loaded is None:
            return
        record = json.loads(recordPath.read_text(encoding="utf-8"))
        node = self.translatedNode = fillVolume(loaded, None, self._targets.matrix)
        title = f"{self._targets.inputName} {record['target_modality']} (synthetic)"
        node.SetName(slicer.mrmlScene.GenerateUniqueName(title))
        markNode(node, {**record, "input": {**record.get("input", {}), "node": self._targets.inputName}})
        followSaving(node)
        placeBeside(node, inputNode)
        showInRange(node, float(record["output_range"][0]), brightest(node))

    def _placeAgreement(self, loaded, recordPath: Path, output, inputNode) -> None:
        if loaded is None:
            return
        record = json.loads(recordPath.read_text(encoding="utf-8"))
        node = self.agreementNode = fillVolume(loaded, output, self._targets.matrix)
        if output is None:
            title = _("{name} agreement of the atlases").format(name=self._targets.inputName) + self._suffix()
            node.SetName(slicer.mrmlScene.GenerateUniqueName(title))
        markDerived(node, record)
        followSaving(node)
        placeBeside(node, inputNode)
        showInRange(node, 0.0, 1.0, heat=True)
        node.GetDisplayNode().SetThreshold(-1.0, ALL_AGREE)  # transparent where all agree, as in the air

    def _placeLabels(self, array, structures: list[Structure], record: dict[str, Any], output, inputNode) -> None:
        targets, node = self._targets, output
        if node is None:
            title = _("{name} labels").format(name=targets.inputName) + self._suffix()
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(title))
            self._made.append(node)
        fillSegmentation(node, array, targets.matrix, structures, inputNode)
        markDerived(node, {**record, "input": {**record.get("input", {}), "node": targets.inputName}})
        followSaving(node)
        placeBeside(node, inputNode)
        node.RemoveNodeReferenceIDs(TRANSFORM_ROLE)
        for transform in self.transformNodes.values():
            node.AddNodeReferenceID(TRANSFORM_ROLE, transform.GetID())
        self.segmentationNode = node


def structuresOf(path: Path) -> list[Structure]:
    """The names, colours and terminology that a colour table gives its codes."""
    from IMTCore.label_names import read_label_names

    names = read_label_names(path).values()
    return [Structure(one.code, one.name, tuple(part / 255 for part in one.colour), one.terminology, one.code) for one in names]


def tableOfAtlases(entries: list[dict[str, Any]]) -> vtk.vtkTable:
    """One row an atlas: state, seconds, similarity of each modality, share of the given one, folds, message."""
    modalities = list(dict.fromkeys(modality for entry in entries for modality in entry.get("similarity", {})))
    columns: dict[str, list] = {_("Atlas"): [entry["name"] for entry in entries], _("State"): [entry["state"] for entry in entries]}
    columns[_("Seconds")] = [sum(entry["seconds"].values()) if "seconds" in entry else None for entry in entries]
    for modality in modalities:
        columns[_("Similarity {modality}").format(modality=modality)] = [entry.get("similarity", {}).get(modality) for entry in entries]
    if any("share" in entry for entry in entries):
        columns[_("Share of the given modality")] = [entry.get("share") for entry in entries]
    columns[_("Folded voxels")] = [entry.get("folds") for entry in entries]
    columns[_("Message")] = [entry.get("message", "") for entry in entries]
    return makeTable(columns)


def makeTable(columns: Mapping[str, list]) -> vtk.vtkTable:
    """A table of texts and numbers; None becomes NaN in a column of numbers."""
    table = vtk.vtkTable()
    for title, values in columns.items():
        texts = any(isinstance(value, str) for value in values)
        column = vtk.vtkStringArray() if texts else vtk.vtkDoubleArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(str(value) if texts else float("nan") if value is None else float(value))
        table.AddColumn(column)
    return table
