"""Plain folders: `<dataset>/<subject>/<modality>.nii.gz`, as prepare_dataset.py writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from IMTCore.errors import BadInput
from IMTCore.files import stem_of
from IMTCore.volume_io import image_suffix

from .labels import RULES
from .subject import Subject

RECORD = "prepared.json"  # what prepare_dataset.py writes of each subject
LABELS = {*RULES, "lesions", "labels", "brainmask"}
# Probability maps are neither images to translate nor label maps.
_PROBABILITY = "prob_"
_SESSION = re.compile(r"[_-](study|session|ses|visit|timepoint|scan|tp)[_-]?\w+$", re.IGNORECASE)


def find(root: Path) -> list[Subject]:
    """All folders two levels below `root` that hold an image or a label map."""
    subjects = []
    for folder in (path for path in root.glob("*/*") if path.is_dir()):
        files = _image_files(folder)
        if files:
            images = {stem: path for stem, path in files.items() if stem not in LABELS}
            labels = {stem: path for stem, path in files.items() if stem in LABELS}
            subjects.append(Subject(folder.relative_to(root).as_posix(), patient_of(folder), images, labels))
    return subjects


def patient_of(folder: Path) -> str:
    """The patient of a subject's folder: as its record says, else by its name (`patient01_study2` is of `patient01`).

    Raises:
        BadInput: the record is damaged.
    """
    record = folder / RECORD
    if not record.exists():
        return _SESSION.sub("", folder.name)
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["patient"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{record} is damaged. Prepare the subject again, or remove the file.") from error


def _image_files(folder: Path) -> dict[str, Path]:
    """{stem: image file} of a folder; of an Analyze pair the header."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", _PROBABILITY)) or image_suffix(path) in (None, ".img"):
            continue
        stem = stem_of(path)
        if stem in files:
            raise BadInput(f"{folder} holds {files[stem].name} and {path.name}: which is {stem}? Remove one.")
        files[stem] = path
    return files
