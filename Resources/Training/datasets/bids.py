"""BIDS: `sub-01[/ses-02]/anat/sub-01[_ses-02][_acq-..][_ce-..][_run-..]_T1w.nii.gz`; the folder `derivatives` is left alone."""

from __future__ import annotations

import re
from pathlib import Path

from .subject import Subject, add_image

_SUFFIXES = {
    "T1w": "T1",
    "T2w": "T2",
    "PDw": "PD",
    "PD": "PD",  # deprecated
    "FLAIR": "FLAIR",
    "T2starw": "T2star",
    "inplaneT1": "inplaneT1",
    "inplaneT2": "inplaneT2",
}
_FILE = re.compile(rf"(?P<entities>sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>{'|'.join(_SUFFIXES)})\.nii(\.gz)?$")


def find(root: Path) -> list[Subject]:
    """Subjects `<root's name>/sub-01` or `<root's name>/sub-01_ses-02`.

    T1w with the entity `ce` (contrast agent) is T1C. Of several files of one modality, that with the fewest entities is T1, the
    next T1-2. Phase images are left out.
    """
    subjects = []
    for anat in [*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]:
        images: dict[str, Path] = {}
        found = [(match, path) for path in anat.iterdir() if (match := _FILE.match(path.name)) and path.is_file()]
        for match, path in sorted(found, key=lambda pair: (pair[0]["entities"].count("_"), pair[1].name)):
            entities = dict(entity.split("-", 1) for entity in match["entities"].split("_"))
            if entities.get("part") in ("phase", "real", "imag"):
                continue
            contrast = match["suffix"] == "T1w" and "ce" in entities
            add_image(images, "T1C" if contrast else _SUFFIXES[match["suffix"]], path)
        parts = anat.relative_to(root).parts[:-1]
        if images:
            subjects.append(Subject(f"{root.resolve().name}/{'_'.join(parts)}", parts[0], images))
    return subjects
