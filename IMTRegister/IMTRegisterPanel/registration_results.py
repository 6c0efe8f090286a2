"""What a registration brings into the scene: segmentation, transforms, warped atlases, maps and a table; all or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import derived_results
from IMTSlicerLib.derived_marks import markDerived
from IMTSlicerLib.derived_results import DerivedResults
from IMTSlicerLib.nodes import brightest, fillVolume, placeBeside, showInRange
from IMTSlicerLib.transform_nodes import landmarksAsText, readTransformNode, setImages

from .scene_atlases import landmarkFiles

ATLAS_ATTRIBUTE = "IMT.Atlas"
LANDMARKS_ATTRIBUTE = "IMT.AtlasLandmarks"
ALL_AGREE = 0.9995
TRANSFORM_ROLE = "IMT.Transform"  # node references of a segmentation: the transforms of the run that made it


@dataclass(frozen=True, kw_only=True)
class ResultTargets(derived_results.ResultTargets):
    """Where the results belong, as it was when the run started."""

    modality: str
    secondModality: str | None = None
    agreementID: str | None = None
    movingIDs: Mapping[str, str] = field(default_factory=dict)
    atlasPath: Path | None = None


class RegistrationResults(DerivedResults):
    """What a registration brought into the scene; see `DerivedResults`.

    Attributes:
        transformNodes: atlas name -> general transform node; what is put under it comes to lie on the input.
        warpedNodes: the atlases' images on the input's grid, if they were asked for.
        agreementNode: share of the atlases for each voxel's label, 0 to 1; None if it was not asked for.
        tableNode: one row an atlas.
    """

    def _forget(self) -> None:
        super()._forget()
        self.agreementNode = None
        self.transformNodes: dict[str, Any] = {}
        self.warpedNodes: list = []

    def _outputIDs(self) -> list[str]:
        return super()._outputIDs() + ([self._targets.agreementID] if self._targets.agreementID else [])

    def _takeAll(self, folder: Path, inputNode) -> None:
        self._takeTransforms(folder / "transforms", inputNode)
        self._takeWarped(folder / "warped", inputNode)
        translated = self._readIfThere(folder / "translated.nrrd")
        agreement = self._readIfThere(folder / "agreement.nrrd")
        array, structures, record = self._readLabels(folder)
        self._placeTable(_("{name} registration").format(name=self._targets.inputName), tableOfAtlases(self.report["atlases"]))
        # Nodes that were there before are filled last, when nothing can go wrong any more.
        self._placeTranslated(translated, folder / "translated.json", inputNode)
        self._placeAgreement(agreement, folder / "agreement.json", inputNode)
        self._placeLabels(array, structures, record, _("{name} labels").format(name=self._targets.inputName), inputNode)
        self.segmentationNode.RemoveNodeReferenceIDs(TRANSFORM_ROLE)
        for transform in self.transformNodes.values():
            self.segmentationNode.AddNodeReferenceID(TRANSFORM_ROLE, transform.GetID())

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

    def _placeAgreement(self, loaded, recordPath: Path, inputNode) -> None:
        if loaded is None:
            return
        output = slicer.mrmlScene.GetNodeByID(self._targets.agreementID or "")
        node = self.agreementNode = fillVolume(loaded, output, self._targets.matrix)
        title = _("{name} agreement of the atlases").format(name=self._targets.inputName) if output is None else None
        self._placeMap(node, title, json.loads(recordPath.read_text(encoding="utf-8")), inputNode)
        node.GetDisplayNode().SetThreshold(-1.0, ALL_AGREE)  # transparent where all agree, as in the air


def tableOfAtlases(entries: list[dict[str, Any]]) -> dict[str, list]:
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
    return columns
