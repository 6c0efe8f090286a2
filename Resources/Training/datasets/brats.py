"""BraTS, all releases: .mha in VSD folders (2013, 2015), NIfTI named `_t1ce` (2017 to 2021) or `-t1c` (2023 on).

Layouts, as unpacked:
    BRATS-2/Image_Data/HG/0001/VSD.Brain.XX.O.MR_T1/VSD.Brain.XX.O.MR_T1.684.mha
    BRATS2015_Training/HGG/brats_tcia_pat153_0109/VSD.Brain.XX.O.MR_T1c.35603/VSD.Brain.XX.O.MR_T1c.35603.mha
    MICCAI_BraTS_2018_Data_Training/HGG/Brats18_2013_2_1/Brats18_2013_2_1_t1ce.nii.gz
    MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_flair.nii
    BraTS2021_00000/BraTS2021_00000_flair.nii.gz
    ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz
"""

from __future__ import annotations

import re
from pathlib import Path

from IMTCore.errors import BadInput

from .subject import Subject

_VSD = re.compile(
    r"VSD\.Brain(?:_\d+more)?(?:\.[A-Z]+)*\.(?:MR_(?P<modality>[A-Za-z0-9]+)|(?P<truth>OT))(?:\.\d+)?\.mha$", re.IGNORECASE
)
_NIFTI = re.compile(r".+[_-](?P<word>t1n|t1ce|t1gd|t1c|t1|t2w|t2f|t2|flair|segm?)\.nii(\.gz)?$", re.IGNORECASE)
_MODALITIES = {
    **dict.fromkeys(("t1", "t1n"), "T1"),
    **dict.fromkeys(("t1c", "t1ce", "t1gd"), "T1C"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
}
_GRADES = {"hg": "hgg", "hgg": "hgg", "lg": "lgg", "lgg": "lgg"}
# Several scans of one patient: brats_tcia_pat153_0109, Brats18_TCIA08_469_1, BraTS-GLI-00005-001. In 2020 and 2021 the last
# number is the patient's.
_SCAN = re.compile(r"(?P<patient>brats_(?:tcia|2013)_pat\d+|brats1[789]_.+|brats-[a-z]+-\d+)[_-]\d+$", re.IGNORECASE)


def find(root: Path) -> list[Subject]:
    """One subject a case folder, named `brats-hgg/<folder>`, `brats-lgg/<folder>`, or `brats/<folder>` where a release has no
    grades."""
    images: dict[Path, dict[str, Path]] = {}
    labels: dict[Path, dict[str, Path]] = {}
    for path in sorted(root.rglob("*")):
        if vsd := _VSD.match(path.name):
            case = path.parent.parent if path.parent.name.upper().startswith("VSD.") else path.parent
            word = "seg" if vsd["truth"] else vsd["modality"].lower()
        elif nifti := _NIFTI.match(path.name):
            case, word = path.parent, nifti["word"].lower()
        else:
            continue
        if not path.is_file() or (word not in _MODALITIES and not word.startswith("seg")):
            continue
        files, key = (labels, "tumour") if word.startswith("seg") else (images, _MODALITIES[word])
        there = files.setdefault(case, {})
        if key in there:
            raise BadInput(f"{case} holds {there[key].name} and {path.name}: which is {key}? Remove one.")
        there[key] = path
    return [
        Subject(f"{_dataset(root, case)}/{case.name}", patient_of(case.name), images[case], labels.get(case, {}))
        for case in images
    ]


def patient_of(case: str) -> str:
    """The patient of a case's folder name."""
    found = _SCAN.match(case)
    return found["patient"] if found else case


def _dataset(root: Path, case: Path) -> str:
    folders = [root.name, *case.relative_to(root).parts[:-1]]
    grade = next((_GRADES[name.lower()] for name in reversed(folders) if name.lower() in _GRADES), None)
    return f"brats-{grade}" if grade else "brats"
