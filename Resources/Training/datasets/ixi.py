"""IXI: `IXI-T1/IXI002-Guys-0828-T1.nii.gz`, one folder for each of T1, T2, PD and MRA.

T2 and PD are two echoes of one scan and share a grid. T1 and MRA have grids of their own, about the same head in
scanner coordinates but not registered: pairing them needs `prepare_dataset.py --resample`, which trusts these
coordinates. The diffusion series are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from .subject import Subject

_FILE = re.compile(r"(?P<subject>IXI\d{3}-[A-Za-z]+-\d+)-(?P<modality>T1|T2|PD|MRA)\.nii(\.gz)?$")


def find(root: Path) -> list[Subject]:
    """Subjects `ixi/IXI002-Guys-0828`, wherever below `root` their files lie."""
    images: dict[str, dict[str, Path]] = {}
    for path in sorted(root.rglob("IXI*")):
        found = _FILE.match(path.name)
        if found and path.is_file():
            images.setdefault(found["subject"], {})[found["modality"]] = path
    return [Subject(f"ixi/{name}", name.partition("-")[0], files) for name, files in images.items()]
