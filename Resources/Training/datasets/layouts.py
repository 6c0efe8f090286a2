"""The layouts by name, and the one function that finds subjects in any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from IMTCore.errors import BadInput

from . import adni, bids, brats, folders, iseg, ixi, mrbrains, rire
from .subject import Subject


@dataclass(frozen=True)
class Layout:
    """A way in which a release lays out its files.

    Attributes:
        find: all subjects below a folder, in any order.
        looks_like: what it looks for, for the error when there is none.
    """

    find: Callable[[Path], list[Subject]]
    looks_like: str


LAYOUTS: dict[str, Layout] = {
    "folders": Layout(folders.find, "<dataset>/<subject>/<modality>.nii.gz"),
    "brats": Layout(brats.find, "<case>/<case>_t1ce.nii.gz, <case>/<case>-t1c.nii.gz or <case>/VSD.Brain.XX.O.MR_T1.<n>/*.mha"),
    "iseg2017": Layout(iseg.find, "subject-<n>-T1.hdr"),
    "mrbrains13": Layout(mrbrains.find, "TrainingData/<n>/T2_FLAIR.nii"),
    "adni": Layout(adni.find, "<patient>/<series>/<date>/<image>/*.dcm or *.nii"),
    "rire": Layout(rire.find, "patient_<n>/mr_T1/header.ascii"),
    "ixi": Layout(ixi.find, "IXI-T1/IXI<n>-<site>-<n>-T1.nii.gz"),
    "bids": Layout(bids.find, "sub-<label>/[ses-<label>/]anat/*_T1w.nii.gz"),
}


def find_subjects(root: Path, layout: str = "folders", patterns: list[str] | None = None) -> list[Subject]:
    """The subjects below `root`, sorted by name.

    Args:
        root: the folder that the release was unpacked into.
        layout: one of `LAYOUTS`.
        patterns: keep subjects whose `<dataset>/<subject>` matches one of these (`nichart/*`; case counts); None keeps all.

    Raises:
        BadInput: no such folder or layout, no subject of that layout below it, or two subjects of one name.
            Patterns that match nothing are no error: the list is empty.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise BadInput(f"There is no layout {layout!r}. Choose one of {', '.join(LAYOUTS)}.")
    if not root.is_dir():
        raise BadInput(f"{root} is not a folder. Name the folder that holds the data.")
    subjects = sorted(LAYOUTS[layout].find(root), key=lambda subject: subject.name)
    if not subjects:
        raise BadInput(f"{root} holds no subject of layout {layout!r} ({LAYOUTS[layout].looks_like}). Check --data and --layout.")
    for one, other in zip(subjects, subjects[1:], strict=False):
        if one.name == other.name:
            raise BadInput(f"{root} holds two subjects named {one.name}: {_place(one)} and {_place(other)}. Move one away.")
    if patterns is None:
        return subjects
    return [subject for subject in subjects if any(fnmatchcase(subject.name, pattern) for pattern in patterns)]


def _place(subject: Subject) -> Path:
    return next(iter([*subject.images.values(), *subject.labels.values()]))
