"""iSeg-2017: `iSeg-2017-Training/subject-1-T1.hdr` with `.img`, `-T2`, `-label` (Analyze 7.5).

Analyze 7.5 stores no position, and an orientation that no reader trusts. The core reads it through nibabel by the format's
convention, as SPM does: i, j, k run to left, anterior and superior, the origin lies in the middle. Axial slices are thus those
of the last axis, as in the paper. ITK (and so Slicer) lets j run to posterior instead; the release does not say which is right.
T1, T2 and labels of a subject are read alike, so pairs do not depend on it; which side is left, or front, may.
"""

from __future__ import annotations

import re
from pathlib import Path

from .subject import Subject

_FILE = re.compile(r"(?P<subject>subject-\d+)-(?P<what>T1|T2|label)\.(hdr|nii|nii\.gz)$")


def find(root: Path) -> list[Subject]:
    """Subjects `iseg2017/subject-1`, training (with the label map `iseg_tissues`) and testing alike."""
    images: dict[str, dict[str, Path]] = {}
    labels: dict[str, dict[str, Path]] = {}
    for path in sorted(root.rglob("subject-*")):
        found = _FILE.match(path.name)
        if found and path.is_file():
            key = f"{path.parent}/{found['subject']}"
            if found["what"] == "label":
                labels.setdefault(key, {})["iseg_tissues"] = path
            else:
                images.setdefault(key, {})[found["what"]] = path
    return [Subject(f"iseg2017/{Path(key).name}", Path(key).name, files, labels.get(key, {})) for key, files in images.items()]
