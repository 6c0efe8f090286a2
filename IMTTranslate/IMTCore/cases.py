"""Many images as cases: from a folder, a BIDS data set or a CSV file."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .bids import bids_images, is_bids_folder, siblings
from .errors import BadInput
from .files import stem_of
from .volume_io import image_suffix

COLUMNS = ("case", "subject", "session", "modality", "path")
LONGEST_NAME_BYTES = 255  # that file systems take
MAX_NAME_BYTES = 100  # of a case: more is put to it, as sub-<case>_desc-synthetic_T2w.nii.gz
SAFE_NAME = re.compile(r"[\w.+@=-][\w .+@=-]*")


@dataclass(frozen=True)
class Case:
    """One image of one examination. `case` names the output folder."""

    case: str
    subject: str
    session: str
    modality: str
    path: Path


def is_case_folder(folder: Path) -> bool:
    """Whether the folder holds image files, sub-folders with image files, or a BIDS data set, rather than one DICOM series."""
    return bool(_images_in(folder)) or any(_images_in(sub) for sub in _entries(folder) if sub.is_dir()) or is_bids_folder(folder)


def read_cases(source: Path, modality: str) -> list[Case]:
    """The images of `modality` in a folder or a CSV file.

    A folder holds either one sub-folder a case with `<modality>.<suffix>` (several modalities may lie there), or
    image files, each a case of `modality`. Or it is a BIDS data set: its cases are the images of `modality` in the anat
    folders, by their names without suffix. A CSV file has the columns case, subject, session, modality, path; relative
    paths start at the CSV's folder.

    Raises:
        BadInput: nothing fits, columns are missing, a case's name is no plain name or comes twice.
    """
    cases = _from_csv(source, modality) if source.is_file() else _from_folder(source, modality)
    if not cases:
        raise BadInput(
            f"{source} holds no {modality} image. A folder needs <case>/{modality}.nii.gz, image files or "
            f"sub-<label>/anat/ after BIDS; a CSV needs rows with modality {modality}."
        )
    seen: set[str] = set()
    for case in cases:
        if not SAFE_NAME.fullmatch(case.case) or case.case in (".", ".."):
            raise BadInput(f"{source}: the case name {case.case!r} cannot be a folder's name. Use letters, digits and . _ + - only.")
        if len(os.fsencode(case.case)) > MAX_NAME_BYTES:
            raise BadInput(f"{source}: the case name {case.case[:40]}... is too long for a folder's name. Give it at most {MAX_NAME_BYTES} bytes.")
        if case.case.lower() in seen:
            raise BadInput(f"{source}: case {case.case} has two {modality} images. Give every image its own case name.")
        seen.add(case.case.lower())
    return cases


def companions(source: Path, cases: list[Case], modality: str) -> dict[str, list[Path]]:
    """The images of another modality that lie beside those of `cases`: case -> files, more than one if it is not clear which.

    In a CSV file they are the rows of the same case, after BIDS the images of the same examination (`siblings`), else
    `<modality>.<suffix>` in the image's folder.
    """
    rows = {case.case: case.path for case in _from_csv(source, modality)} if source.is_file() else {}
    found = {}
    for case in cases:
        if case.case in rows:
            found[case.case] = [rows[case.case]]
            continue
        beside = _images_in(case.path.parent) if case.path.parent.is_dir() else []
        plain = [path for path in beside if stem_of(path).lower() == modality.lower() and path != case.path]
        found[case.case] = plain or siblings(case.path, modality)
    return found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted. Raises BadInput if it may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"The folder {folder} cannot be read ({error.strerror}). Check its permissions.") from error


def _images_in(folder: Path) -> list[Path]:
    """The image files of a folder: no hidden ones (macOS's `._…`, our temporaries), a `.hdr`/`.img` pair once."""
    files = [p for p in _entries(folder) if p.is_file() and image_suffix(p) and not p.name.startswith(".")]
    headers = {p.with_suffix("") for p in files if image_suffix(p) == ".hdr"}
    return [p for p in files if image_suffix(p) != ".img" or p.with_suffix("") not in headers]


def _from_folder(folder: Path, modality: str) -> list[Case]:
    if is_bids_folder(folder):
        images = [(path, name) for path, name in bids_images(folder) if name.modality.lower() == modality.lower()]
        return [Case(name.examination, name.entities["sub"], name.entities.get("ses", ""), modality, path) for path, name in images]
    files = _images_in(folder)
    if files:
        return [Case(stem_of(p), stem_of(p), "", modality, p) for p in files]
    cases = []
    for sub in (p for p in _entries(folder) if p.is_dir()):
        fitting = [p for p in _images_in(sub) if stem_of(p).lower() == modality.lower()]
        cases += [Case(sub.name, sub.name, "", modality, p) for p in fitting]
    return cases


def _from_csv(path: Path, modality: str) -> list[Case]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a readable CSV file in UTF-8 ({error}).") from error
    if not rows:
        raise BadInput(f"{path} has no rows. It needs a header line {','.join(COLUMNS)} and one line an image.")
    missing = [c for c in ("case", "modality", "path") if c not in rows[0]]
    if missing:
        raise BadInput(f"{path} lacks the column(s) {', '.join(missing)}. The header line must be {','.join(COLUMNS)}.")
    cases = []
    for number, row in enumerate(rows, start=2):
        if any(not (row.get(c) or "").strip() for c in ("case", "modality", "path")):
            raise BadInput(f"{path}, line {number}: case, modality and path must not be empty.")
        if "\0" in row["path"]:
            raise BadInput(f"{path}, line {number}: the path holds a NUL character, which no file's name has.")
        if any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in Path(row["path"]).parts):
            raise BadInput(f"{path}, line {number}: the path holds a name of more than {LONGEST_NAME_BYTES} bytes, which no file has.")
        if row["modality"].strip().upper() != modality.upper():
            continue
        case = row["case"].strip()
        image = path.parent / row["path"].strip()
        cases.append(Case(case, (row.get("subject") or case).strip(), (row.get("session") or "").strip(), modality, image))
    return cases
