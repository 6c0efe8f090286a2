"""RIRE: `patient_001/mr_T1/header.ascii` and `image.bin` (training_001 too), also `mr_T2`, `mr_PD`, `ct`, `pet`, rectified ones.

The format, after the project's page "Protocols for accessing information": `header.ascii` holds `keyword := value` lines;
`image.bin` holds two-byte integers, big-endian, row by row, slice by slice. "Patient orientation" names where columns, rows and
slices run to. No position is stored: scans of equal size are taken to lie on one grid, as the paper does.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume, check_image

from .subject import Subject

_FOLDERS = {"t1": "T1", "t2": "T2", "pd": "PD", "mp-rage": "T1-MPRAGE", "ct": "CT", "pet": "PET"}
_TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}  # LPS


def find(root: Path) -> list[Subject]:
    """Subjects `rire/patient_001`; scans with corrected distortion are `T1-rectified`, `T2-rectified`, `PD-rectified`."""
    images: dict[Path, dict[str, Path]] = {}
    for header in root.rglob("header.ascii"):
        kind, _, rectified = header.parent.name.lower().removeprefix("mr_").partition("_")
        if kind in _FOLDERS:
            modality = _FOLDERS[kind] + ("-rectified" if rectified == "rectified" else "")
            images.setdefault(header.parent.parent, {})[modality] = header.parent
    return [
        Subject(f"rire/{folder.name}", folder.name, dict(sorted(files.items())), readers=dict.fromkeys(files, read_rire))
        for folder, files in images.items()
    ]


def read_rire(folder: Path) -> Volume:
    """Read one scan's folder.

    Returns:
        int16 [k, j, i]; the origin is the first voxel.

    Raises:
        BadInput: a file is missing, the header lacks or misstates a value, or the data are of another length.
    """
    header = _read_header(folder / "header.ascii")
    shape = tuple(int(_number(folder, header, key)) for key in ("slices", "rows", "columns"))
    bits = header.get("bits allocated", "16")
    if bits.strip() != "16":
        raise BadInput(f"{folder}: header.ascii says {bits} bits a voxel; RIRE images have 16.")
    data = folder / "image.bin"
    if not data.exists():
        packed = " Unpack image.bin.Z first (uncompress)." if (folder / "image.bin.Z").exists() else " Download it again."
        raise BadInput(f"{folder} has no image.bin.{packed}")
    values = np.fromfile(data, dtype=">i2")
    if values.size != np.prod(shape) or data.stat().st_size != 2 * values.size:
        raise BadInput(
            f"{data} is damaged or truncated: {data.stat().st_size} bytes, not {2 * np.prod(shape)} "
            f"({shape[2]}x{shape[1]}x{shape[0]} voxels)."
        )
    array = values.astype(np.int16).reshape(shape)
    volume = Volume(array, Geometry(shape, _spacing(folder, header), np.zeros(3), _direction(folder, header)), folder.name)
    check_image(volume)
    return volume


def _read_header(path: Path) -> dict[str, str]:
    if not path.exists():
        raise BadInput(f"{path.parent} has no header.ascii. Download it again.")
    pairs = (line.partition(":=") for line in path.read_text(encoding="latin-1").splitlines() if ":=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _number(folder: Path, header: dict[str, str], key: str, part: int = 0) -> float:
    try:
        value = float(header[key].split(":")[part])
    except (KeyError, ValueError, IndexError):
        raise BadInput(f"{folder}: header.ascii has no usable value for {key!r}. Download it again.") from None
    if not 0 < value < 1e5:
        raise BadInput(f"{folder}: header.ascii has {key!r} = {header[key]}, which cannot be.")
    return value


def _spacing(folder: Path, header: dict[str, str]) -> tuple[float, float, float]:
    # As in DICOM, the pixel size gives the distance of rows first.
    rows, columns = (_number(folder, header, "pixel size", part) for part in (0, 1))
    return columns, rows, _number(folder, header, "slice thickness")


def _direction(folder: Path, header: dict[str, str]) -> np.ndarray:
    letters = re.split(r"\s*:\s*", header.get("patient orientation", "L : P : H").upper())
    direction = np.array([_TOWARDS.get(letter, (0, 0, 0)) for letter in letters], dtype=float).T
    if direction.shape != (3, 3) or abs(np.linalg.det(direction)) != 1:
        raise BadInput(f"{folder}: header.ascii has an unknown patient orientation {header['patient orientation']!r}.")
    return direction
