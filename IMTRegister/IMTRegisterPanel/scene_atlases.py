"""Atlases made of nodes of the scene: checked, and written as the atlas folder that `imt register` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.nodes import checkVolume, haveSameGrid, writeVolume
from IMTSlicerLib.segmentations import Labels, Structure, labelsOf


@dataclass(frozen=True)
class SceneAtlas:
    """One atlas of the scene.

    Attributes:
        name: letters, digits and . _ + -; the outputs bear it.
        image: scalar volume node of the subject's modality.
        labels: label map or segmentation node; a label map lies on the image's grid.
        second: scalar volume node of the second modality, on the image's grid; None if there is no second modality.
    """

    name: str
    image: Any
    labels: Any
    second: Any = None


def checkSceneAtlases(atlases: Sequence[SceneAtlas], secondModality: str | None = None) -> None:
    """Check what can be checked without exporting anything.

    :raises ValueError: no atlas, a name that cannot be used or comes twice, a node that is missing or of another kind,
        images of one atlas on different grids.
    """
    from IMTCore.cases import SAFE_NAME

    if not atlases:
        raise ValueError(_("There is no atlas. Add one to the table, or choose a folder."))
    seen = set()
    for atlas in atlases:
        if not SAFE_NAME.fullmatch(atlas.name) or atlas.name.startswith("."):
            text = _("{name} cannot be an atlas's name: use letters, digits and . _ + - only.")
            raise ValueError(text.format(name=repr(atlas.name)))
        if atlas.name.casefold() in seen:
            raise ValueError(_("Two atlases are called {name}. Give each its own name.").format(name=atlas.name))
        seen.add(atlas.name.casefold())
        checkVolume(atlas.image, _("image of atlas {name}").format(name=atlas.name))
        if secondModality is not None:
            checkVolume(atlas.second, _("{modality} image of atlas {name}").format(modality=secondModality, name=atlas.name))
            if not haveSameGrid(atlas.image, atlas.second):
                text = _("Atlas {name}: {second} is not on the grid of {first}. Resample it with the module Resample Scalar/Vector/DWI Volume first.")
                raise ValueError(text.format(name=atlas.name, second=atlas.second.GetName(), first=atlas.image.GetName()))
        if atlas.labels is None:
            raise ValueError(_("Select the labels of atlas {name}.").format(name=atlas.name))


def writeSceneAtlases(folder: Path, atlases: Sequence[SceneAtlas], modality: str, secondModality: str | None = None) -> Path:
    """Write an atlas set: images, labels with common codes, and `labels.csv`; the scene is left as it was.

    :return: the set's folder.
    :raises ValueError: labels that cannot be used. RuntimeError: a file cannot be written.
    """
    from IMTCore.label_names import FILE_NAME, write_label_names

    codes = CommonCodes()
    for atlas in atlases:
        place = folder / atlas.name
        place.mkdir(parents=True, exist_ok=True)
        writeVolume(atlas.image, place / f"{modality}.nrrd")
        if secondModality is not None:
            writeVolume(atlas.second, place / f"{secondModality}.nrrd")
        labels = labelsOf(atlas.labels, atlas.image)
        if not labels.array.any():
            raise ValueError(_("The labels {name} of atlas {atlas} are empty.").format(name=atlas.labels.GetName(), atlas=atlas.name))
        _writeLabels(codes.renumber(labels), labels, place / "labels.nrrd")
    write_label_names(folder / FILE_NAME, codes.names())
    return folder


def _writeLabels(array, labels: Labels, path: Path) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "IMT atlas labels")
    try:
        slicer.util.updateVolumeFromArray(node, array)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(labels.matrix))
        writeVolume(node, path)
    finally:
        for number in reversed(range(node.GetNumberOfDisplayNodes())):
            slicer.mrmlScene.RemoveNode(node.GetNthDisplayNode(number))
        slicer.mrmlScene.RemoveNode(node)


class CommonCodes:
    """One code for each name of a structure, the same in all atlases: segmentations number theirs as they like."""

    def __init__(self) -> None:
        self._found: dict[str, Structure] = {}

    def renumber(self, labels: Labels):
        """The labels' array, uint16 [k, j, i], with the common codes."""
        import numpy as np

        table = np.zeros(int(labels.array.max(initial=0)) + 1, np.uint16)
        for structure in labels.structures:
            if (labels.array == structure.code).any():
                table[structure.code] = self._codeOf(structure)
        return table[labels.array]

    def _codeOf(self, structure: Structure) -> int:
        key = structure.name.strip().casefold()
        if key not in self._found:
            taken = {known.code for known in self._found.values()}
            code = structure.label
            if not 1 <= code <= 65535 or code in taken:
                code = max(taken, default=0) + 1
            self._found[key] = Structure(code, structure.name.strip(), structure.colour, structure.terminology)
        return self._found[key].code

    def names(self):
        """The `LabelNames` of all codes."""
        from IMTCore.label_names import LabelName, LabelNames

        return LabelNames(
            LabelName(one.code, one.name, tuple(round(255 * part) for part in one.colour), one.terminology)
            for one in self._found.values()
        )


def landmarkFiles(atlasSet: Path, names: Iterable[str]) -> dict[str, Path]:
    """Atlas name -> its landmark file, of those atlases of a set (folder or CSV) that have one."""
    from IMTCore.label_names import read_rows
    from IMTRegisterLib.atlases.landmarks import landmark_suffix

    found: dict[str, Path] = {}
    wanted = set(names)
    if atlasSet.is_file():
        rows = [row for _number, row in read_rows(atlasSet, ("atlas", "modality", "path"), "atlas,modality,path")]
        listed = [(row["atlas"], atlasSet.parent / row["path"]) for row in rows if row["modality"].lower() == "landmarks"]
        return {name: path for name, path in listed if name in wanted and path.is_file()}
    for name in sorted(wanted):
        for path in sorted((atlasSet / name).glob("*")):
            suffix = landmark_suffix(path)
            if suffix and path.name[: -len(suffix)].lower() == "landmarks":
                found.setdefault(name, path)
    return found


def describeAtlasSet(path: Path, modalities: Sequence[str]) -> tuple[str, bool]:
    """What a folder or CSV seems to hold, from the names of its files alone, and whether a registration can use it.

    `imt register` reads the files and checks everything.
    """
    from IMTCore.files import stem_of

    if path.is_file():
        return _("The atlases that {name} lists.").format(name=path.name), path.suffix.lower() == ".csv"
    if not path.is_dir():
        return _("There is no folder {path}.").format(path=path), False
    try:
        folders = [sub for sub in sorted(path.iterdir()) if sub.is_dir() and not sub.name.startswith(".")]
        kinds = {sub.name: {stem_of(file).lower() for file in sub.iterdir() if file.is_file()} for sub in folders}
    except OSError as error:
        return _("The folder {path} cannot be read ({reason}).").format(path=path, reason=error.strerror), False
    atlases = {name: found for name, found in kinds.items() if "labels" in found}
    if not atlases:
        text = _("{path} holds no atlas: it needs one folder for each, with {modality}.nii.gz and labels.nii.gz.")
        return text.format(path=path, modality=modalities[0]), False
    for modality in modalities:
        lacking = [name for name, found in atlases.items() if modality.lower() not in found]
        if lacking:
            text = _("{count} of {total} atlases have no {modality} image: {names}.")
            shown = ", ".join(lacking[:5]) + ("…" if len(lacking) > 5 else "")
            return text.format(count=len(lacking), total=len(atlases), modality=modality, names=shown), False
    text = _("{count} atlases: {names}") if len(atlases) > 1 else _("One atlas: {names}")
    return text.format(
        count=len(atlases), names=", ".join(list(atlases)[:6]) + ("…" if len(atlases) > 6 else "")
    ), True
