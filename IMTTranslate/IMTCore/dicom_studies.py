"""The DICOM series in a folder, in any layout: what they are, and whether IMT can use them. Needs pydicom."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dicom import check_stack, slice_headers
from .dicom_acquisition import Acquisition
from .dicom_lengths import check_file_lengths
from .dicom_sources import check_pydicom
from .errors import BadInput

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PREAMBLE = 128  # bytes before the letters DICM
# Read of every file; all others are skipped.
TAGS = (
    "SpecificCharacterSet SOPClassUID SOPInstanceUID SyntheticData ImageType Modality PatientID PatientName StudyInstanceUID StudyDate "
    "StudyDescription SeriesInstanceUID SeriesNumber SeriesDescription ProtocolName SequenceName ScanningSequence SequenceVariant "
    "RepetitionTime EchoTime InversionTime FlipAngle AngioFlag ContrastBolusAgent Rows Columns NumberOfFrames InstanceNumber "
    "ImagePositionPatient ImageOrientationPatient"
).split()


@dataclass(frozen=True)
class StudySeries:
    """One series as it lies in a folder.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, None if there is none.
        description: SeriesDescription, or the protocol's name.
        kind: DICOM's modality, such as MR.
        patient: patient ID and name, a key to tell patients apart.
        study_uid, study_date, study_description: of the study.
        files: in the order of the slices where they have positions; of files with the same SOPInstanceUID the first alone.
        copies: the others.
        acquisition: of the first file.
        size: columns, rows, slices; None if it holds no images.
        spacing_mm: (3,) along columns, rows, slices; None if it is not known.
        problem: why IMT cannot use it; empty if it can.
    """

    uid: str
    number: int | None
    description: str
    kind: str
    patient: tuple[str, str]
    study_uid: str
    study_date: str
    study_description: str
    files: tuple[Path, ...]
    copies: tuple[Path, ...]
    acquisition: Acquisition
    size: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    problem: str

    @property
    def title(self) -> str:
        """Such as "series 4 't1 mprage'"."""
        name = f"series {self.number}" if self.number is not None else f"series {self.uid}"
        return name + (f" {self.description!r}" if self.description else "")


def read_study(folder: Path) -> list[StudySeries]:
    """All DICOM series in `folder` and below it, of whatever kind; hidden files and folders are left out.

    Returns:
        By patient, study date and number.

    Raises:
        BadInput: no folder, or one that holds no DICOM series. ImtError: pydicom is missing or too old.
    """
    check_pydicom()
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder. Give the folder that holds the DICOM files of a study.")
    groups: dict[tuple[str, str], list[tuple[Path, Dataset]]] = defaultdict(list)
    for path in _files_below(folder):
        header = _header(path)
        if header is not None:
            groups[_text(header, "StudyInstanceUID"), _text(header, "SeriesInstanceUID")].append((path, header))
    if not groups:
        raise BadInput(f"{folder} holds no DICOM image series. Give the folder that holds the DICOM files of a study.")
    found = [_series(slices) for slices in groups.values()]
    order = {False: 0, True: 1}
    return sorted(found, key=lambda s: (s.patient, s.study_date, s.study_uid, order[s.number is None], s.number or 0, s.uid))


def choose_series(study: list[StudySeries], wanted: str, folder: Path) -> StudySeries:
    """The series that `wanted` names: a UID, a number, a description, the modality that only one usable series seems to show, or
    a part of a description (capitals do not matter).

    Raises:
        BadInput: none, or several, are named so; the message lists them.
    """
    text = wanted.strip().lower()
    rules = (
        lambda s: s.uid == text,
        lambda s: text.isdecimal() and s.number == int(text),
        lambda s: s.description.lower() == text,
        lambda s: s.acquisition.modality is not None and s.acquisition.modality.lower() == text and not s.problem,
        lambda s: bool(text) and text in s.description.lower(),
    )
    for rule in rules:
        found = [series for series in study if rule(series)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = "; ".join(f"{series.title}, UID {series.uid}" for series in found)
            raise BadInput(f"{len(found)} series in {folder} are named {wanted!r}: {listed}. Name one by its UID.")
    raise BadInput(f"No series in {folder} is named {wanted!r}. It holds: {list_of(study)}. Give a number, a description, a modality or a UID.")


def list_of(study: list[StudySeries]) -> str:
    """The series on one line, those that IMT can use first."""
    usable = [series.title for series in study if not series.problem]
    others = [f"{series.title} (cannot be used)" for series in study if series.problem]
    return "; ".join(usable + others)


def looks_like_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by the letters after its preamble or, where that is missing, by its first element's group."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(PREAMBLE + 4)
    except OSError:
        return False
    if start[PREAMBLE:] == b"DICM":
        return True
    # Group 2 or 8, little-endian, with an element and a length that such a header begins with.
    return len(start) == PREAMBLE + 4 and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0 and start[4:8].strip(b"\0") != b""


def _files_below(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _header(path: Path) -> Dataset | None:
    """The header of a file of a series; None for any other file."""
    import pydicom

    if not path.is_file() or not looks_like_dicom(path):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values of slightly wrong form are common
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)
            for element in header:
                _ = element.value  # converted now, while its errors can be caught
    except Exception:  # pydicom raises many kinds for damaged headers; GDCM skips such files too
        return None
    return header if _text(header, "SeriesInstanceUID") else None


def _series(slices: list[tuple[Path, Dataset]]) -> StudySeries:
    slices, copies = _without_copies(slices)
    slices = _in_order(slices)
    first, files = slices[0][1], tuple(path for path, _ in slices)
    number = _text(first, "SeriesNumber")
    frames = int(_text(first, "NumberOfFrames") or 1) if _text(first, "NumberOfFrames").isdecimal() else 1
    images = all("Rows" in header and "Columns" in header for _, header in slices)
    given = StudySeries(
        uid=_text(first, "SeriesInstanceUID"),
        number=int(number) if number.lstrip("-").isdecimal() else None,
        description=_text(first, "SeriesDescription") or _text(first, "ProtocolName"),
        kind=_text(first, "Modality"),
        patient=(_text(first, "PatientID"), _text(first, "PatientName")),
        study_uid=_text(first, "StudyInstanceUID"),
        study_date=_text(first, "StudyDate"),
        study_description=_text(first, "StudyDescription"),
        files=files,
        copies=copies,
        acquisition=Acquisition.from_header(lambda group, element: _element_text(first, (group, element))),
        size=(int(first.Columns or 0), int(first.Rows or 0), len(files) if len(files) > 1 else frames) if images else None,
        spacing_mm=None,
        problem="",
    )
    return _examined(given, [header for _, header in slices], images)


def _examined(given: StudySeries, headers: list[Dataset], images: bool) -> StudySeries:
    """The series with its voxel size and, if it cannot be used, the problem."""
    if not images:
        return replace(given, problem=f"It holds no images ({given.kind or 'no modality'}).")
    if len({_text(header, "PatientID") for header in headers}) > 1:
        return replace(given, problem="Its files are of several patients. Export it again.")
    try:
        for path in given.files:
            check_file_lengths(path)
        readers = slice_headers([str(path) for path in given.files], "this series")
        spacing = _spacing(readers)
        check_stack(readers, "this series")
        problem = _unfit(given)
    except BadInput as error:
        return replace(given, problem=str(error))
    return replace(given, spacing_mm=spacing, problem=problem)


def _unfit(given: StudySeries) -> str:
    if given.kind != "MR":
        return f"It is no MR image but {given.kind or 'of an unknown kind'}."
    return "It is synthetic: IMT takes acquired images." if given.acquisition.synthetic else ""


def _spacing(readers: list[Any]) -> tuple[float, float, float]:
    step = abs(readers[0].GetSpacing()[2])
    if len(readers) > 1:
        step = float(np.linalg.norm(np.subtract(readers[-1].GetOrigin(), readers[0].GetOrigin())) / (len(readers) - 1))
    return (*(float(value) for value in readers[0].GetSpacing()[:2]), step)


def _without_copies(slices: list[tuple[Path, Dataset]]) -> tuple[list[tuple[Path, Dataset]], tuple[Path, ...]]:
    """One file for each SOPInstanceUID, and the files left out: exports often hold the same image twice."""
    kept: dict[str, tuple[Path, Dataset]] = {}
    for path, header in slices:
        kept.setdefault(_text(header, "SOPInstanceUID") or str(path), (path, header))
    found = {path for path, _ in kept.values()}
    return list(kept.values()), tuple(path for path, _ in slices if path not in found)


def _in_order(slices: list[tuple[Path, Dataset]]) -> list[tuple[Path, Dataset]]:
    """Along the slices' normal; by instance number where a position is missing."""
    try:
        row, column = np.reshape([float(value) for value in slices[0][1].ImageOrientationPatient], (2, 3))
        normal = np.cross(row, column)
        places = [float(normal @ [float(value) for value in header.ImagePositionPatient]) for _, header in slices]
    except (AttributeError, TypeError, ValueError):
        places = [0.0] * len(slices)

    def key(entry: tuple[float, tuple[Path, Dataset]]) -> tuple[float, int, str]:
        number = _text(entry[1][1], "InstanceNumber")
        return round(entry[0], 3), int(number) if number.isdecimal() else 0, str(entry[1][0])

    return [entry for _, entry in sorted(zip(places, slices, strict=True), key=key)]


def _text(header: Dataset, keyword: str) -> str:
    return " ".join(str(header.get(keyword, "") or "").split())


def _element_text(header: Dataset, tag: tuple[int, int]) -> str:
    from pydicom.multival import MultiValue

    value = header[tag].value if tag in header else None
    if isinstance(value, MultiValue | list):
        return "\\".join(str(part) for part in value)
    return "" if value is None else str(value)
