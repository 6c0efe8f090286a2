"""Slicer's DICOM database as far as scripts ask it for files and values: an index in memory. pydicom reads the files.

>>> DICOMUtils.importDicom("folder")
>>> slicer.dicomDatabase.fileForInstance(uid)
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import slicer


class DICOMDatabase:
    """The part of ctkDICOMDatabase that is imitated; anything else is an AttributeError."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, str]] = {}  # instance UID: (file, series UID)
        self.isOpen = True

    def initializeDatabase(self) -> bool:
        """Forget all."""
        self._files.clear()
        return True

    def insert(self, path: str) -> None:
        """Index a file; one that is not DICOM is passed over."""
        import pydicom

        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError):
            return
        self._files[str(header.SOPInstanceUID)] = (str(path), str(header.SeriesInstanceUID))

    def fileForInstance(self, uid: str) -> str:
        return self._files.get(uid, ("", ""))[0]

    def instancesForSeries(self, uid: str) -> tuple[str, ...]:
        return tuple(instance for instance, (_file, series) in self._files.items() if series == uid)

    def filesForSeries(self, uid: str) -> tuple[str, ...]:
        return tuple(file for file, series in self._files.values() if series == uid)

    def seriesForFile(self, path: str) -> str:
        return next((series for file, series in self._files.values() if file == path), "")

    def fileValue(self, path: str, tag: str) -> str:
        """The text of an element such as "0008,103e"; empty if there is none."""
        import pydicom

        header = pydicom.dcmread(path, stop_before_pixels=True)
        key = tuple(int(part, 16) for part in tag.split(","))
        return str(header[key].value) if key in header else ""


def importDicom(dicomDataDir: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
    """Index the files of a folder and its sub-folders where they lie."""
    if copyFiles:
        raise NotImplementedError("slicer_harness: the DICOM database copies no files")
    for path in sorted(Path(dicomDataDir).rglob("*")):
        if path.is_file():
            (dicomDatabase or slicer.dicomDatabase).insert(str(path))
    return True


def install() -> None:
    """Give slicer.dicomDatabase, and make `from DICOMLib import DICOMUtils` work."""
    slicer.dicomDatabase = DICOMDatabase()
    utils = sys.modules["DICOMLib.DICOMUtils"] = types.ModuleType("DICOMLib.DICOMUtils", __doc__)
    utils.importDicom = importDicom
    library = sys.modules["DICOMLib"] = types.ModuleType("DICOMLib", __doc__)
    library.DICOMUtils = utils
