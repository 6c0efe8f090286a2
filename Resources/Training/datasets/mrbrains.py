"""MRBrainS13: `TrainingData/1/T1.nii`, `T2_FLAIR.nii`, `T1_IR.nii`, `LabelsForTraining.nii`; `TestData/1/...` without labels.

The release of 2013 is NIfTI, an older one MetaImage (.mhd). `T1_1mm` is the scan before it was registered to the FLAIR: it
lies on a grid of its own.
"""

from __future__ import annotations

from pathlib import Path

from IMTCore.files import stem_of
from IMTCore.volume_io import image_suffix

from .subject import Subject

_IMAGES = {"T1": "T1", "T2_FLAIR": "FLAIR", "T1_IR": "T1-IR", "T1_1mm": "T1-1mm"}
_LABELS = {"LabelsForTraining": "structures", "LabelsForTesting": "tissues"}


def find(root: Path) -> list[Subject]:
    """Subjects `mrbrains13/training-1` and `mrbrains13/test-1`: the numbers begin anew in each set."""
    subjects = []
    for flair in root.rglob("T2_FLAIR.*"):
        folder = flair.parent
        files = {stem_of(path): path for path in sorted(folder.iterdir()) if image_suffix(path)}
        images = {_IMAGES[stem]: path for stem, path in files.items() if stem in _IMAGES}
        labels = {_LABELS[stem]: path for stem, path in files.items() if stem in _LABELS}
        if image_suffix(flair):
            name = f"{_set_of(folder.parent.name)}-{folder.name}"
            subjects.append(Subject(f"mrbrains13/{name}", name, images, labels))
    return subjects


def _set_of(folder: str) -> str:
    return next((word for word, part in (("training", "train"), ("test", "test")) if part in folder.lower()), folder)
