"""A synthetic volume node as a new DICOM series of the study that its source was loaded from: `imt dicom` in the background."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.nodes import SYNTHETIC_ATTRIBUTE, checkVolume, fileNameFor, markOf
from IMTSlicerLib.runs import Run
from IMTSlicerLib.staged_jobs import StagedJob

INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"  # Slicer's, of a volume that it loaded from its DICOM database
SOURCE_ATTRIBUTE = "IMT.SourceInstanceUIDs"  # the same of the volume that a synthetic one was made from
SPANS = {"read": (0.0, 0.15), "write": (0.15, 0.9), "check": (0.9, 1.0)}
WARNING = "note: Warning: "
DONE = "done: "


class DicomExport(Run):
    """Writes one synthetic volume node as a DICOM series; after a good end `seriesFolder` holds its files.

    `summary` says in words what was written, `addedToDatabase` whether Slicer's database has it now.

    :param node: a volume that IMT made (a translation or an uncertainty), with its mark.
    :param folder: the folder to make; it may be there if it is empty.
    :param sourceFolder: where the files of the source series lie, perhaps among other series; None for Slicer's DICOM database,
        which the source volume was loaded from.
    :param series: which series of `sourceFolder`: number, description or UID; empty for the only one.
    :param addToDatabase: also add the new series to Slicer's DICOM database, which then refers to the files in `folder`.
    :raises ValueError: no synthetic volume, no folder, no source, or no database to add to.
    """

    def __init__(self, node, folder: Path, sourceFolder: Path | None = None, series: str = "", addToDatabase: bool = False) -> None:
        checkVolume(node, _("synthetic volume"))
        if node.GetAttribute(SYNTHETIC_ATTRIBUTE) != "true" or not markOf(node):
            raise ValueError(_("{name} is no synthetic image of IMT. Choose a translated volume.").format(name=node.GetName()))
        if addToDatabase and not hasDatabase():
            raise ValueError(_("Slicer's DICOM database is not open. Open the module DICOM once, or do not add the series to it."))
        super().__init__(node)
        self.seriesFolder = Path(folder)
        self.summary, self.addedToDatabase = "", False
        self._sourceFolder, self._series, self._addToDatabase = sourceFolder, series.strip(), addToDatabase
        self._files = [] if sourceFolder is not None else sourceFiles(node)
        self.progress.connect(self._onProgress)
        self._follow(StagedJob(self._requests, SPANS, ("write",), title=_("Save {name} as DICOM").format(name=self._inputName)))

    def _requests(self, folder: Path) -> list[list[str]]:
        volume = self._writeInput(folder)
        record = {key: value for key, value in markOf(self.inputNode()).items() if key != "output"}  # the hash of another file
        volume.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
        source = self._sourceFolder
        if source is None:
            source = folder / "source series"
            source.mkdir()
            for number, file in enumerate(self._files, 1):
                shutil.copyfile(file, source / f"{number:05d}.dcm")
            self._fileNames[str(source)] = self._fileNames[source.name] = _("Slicer's DICOM database")
        request = ["dicom", str(volume), "--like", str(source), "--output", str(self.seriesFolder), "--progress", "json"]
        return [request + (["--series", self._series] if self._series else [])]

    def _named(self, text: str) -> str:
        text = text.replace("Name one with --series.", _("Enter its number or name beside the folder (in Python: series)."))
        return super()._named(text.replace(" (--like)", ""))

    def _onProgress(self, _fraction: float, message: str, _secondsLeft: float | None) -> None:
        if message.startswith(WARNING) and self._sourceFolder is not None:  # else the volume's own source is known
            self.warnings.append(message.removeprefix(WARNING))
        elif message.startswith(DONE):
            self.summary = message.removeprefix(DONE)

    def _take(self, folder: Path) -> None:
        if self._addToDatabase:
            self.addedToDatabase = addToDatabase(self.seriesFolder)
            if not self.addedToDatabase:
                self.warnings.append(_("The series was written, but Slicer's DICOM database did not take it. Import the folder in the module DICOM."))


def hasDatabase() -> bool:
    """Whether Slicer has a DICOM database that is open."""
    database = getattr(slicer, "dicomDatabase", None)
    return database is not None and bool(database.isOpen)


def rememberSource(node, inputNode) -> None:
    """Write on a synthetic volume which DICOM instances its input was loaded from, if it was."""
    instances = inputNode.GetAttribute(INSTANCES_ATTRIBUTE)
    if instances:
        node.SetAttribute(SOURCE_ATTRIBUTE, instances)
    else:
        node.RemoveAttribute(SOURCE_ATTRIBUTE)


def isFromDatabase(node) -> bool:
    """Whether a synthetic volume was made from one that Slicer loaded from its DICOM database."""
    return node is not None and bool((node.GetAttribute(SOURCE_ATTRIBUTE) or "").split())


def sourceFiles(node) -> list[Path]:
    """The files of the series that a synthetic volume was made from, as Slicer's DICOM database knows them.

    :raises ValueError: its input was not loaded from DICOM, or the database or a file is gone.
    """
    instances = (node.GetAttribute(SOURCE_ATTRIBUTE) or "").split()
    if not instances:
        text = _("The input of {name} was not loaded from Slicer's DICOM database. Choose the folder of the DICOM series that it was made from.")
        raise ValueError(text.format(name=node.GetName()))
    if not hasDatabase():
        raise ValueError(_("Slicer's DICOM database is not open. Open the module DICOM once, or choose the folder of the source series."))
    files = [Path(slicer.dicomDatabase.fileForInstance(uid) or "") for uid in instances]
    missing = sum(not file.is_file() for file in files)
    if missing:
        text = _("{missing} of the {count} files that the input of {name} was loaded from are gone. Choose the folder of the source series.")
        raise ValueError(text.format(missing=missing, count=len(files), name=node.GetName()))
    return files


def addToDatabase(folder: Path) -> bool:
    """Add the files of a folder to Slicer's DICOM database; it refers to them where they lie. Returns whether it has them."""
    try:
        from DICOMLib import DICOMUtils
    except ImportError:
        return False
    return bool(DICOMUtils.importDicom(str(folder)))


def freeFolder(parent: Path, node) -> Path:
    """A folder in `parent` that is not there yet, named after a node."""
    name = fileNameFor(node)
    number, path = 1, parent / name
    while path.exists():
        number += 1
        path = parent / f"{name}_{number}"
    return path
