"""What a synthetic DICOM series is made from: the volume with its mark, and the series that it was translated from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dicom import series_files
from .dicom_headers import MR_IMAGE_STORAGE, SyntheticImage
from .errors import BadInput, ImtError
from .files import sha256_of
from .orientation import AxisMap
from .provenance import is_mark, read_mark, sidecar_path
from .volume import Geometry, Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# A NIfTI's float32 forms place voxel centres to about 1e-4 mm, DICOM's 16-character decimals better.
GRID_TOLERANCE_MM = 1e-2
NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
ONE_OF_EACH = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName")


def check_pydicom() -> None:
    """Raises ImtError, with how to install it, if pydicom is missing or too old."""
    try:
        import pydicom
    except ImportError as error:
        raise ImtError("This work on DICOM needs the Python package pydicom: pip install pydicom") from error
    if int(pydicom.__version__.split(".")[0]) < 3:
        raise ImtError(f"This work on DICOM needs pydicom 3 or newer, not {pydicom.__version__}: pip install --upgrade pydicom")


def read_synthetic_mark(volume: Path) -> SyntheticImage:
    """What the mark beside `volume` says.

    Raises:
        BadInput: no mark, one of something derived (labels), one that is damaged, or of a file that was changed since.
    """
    path = sidecar_path(volume)
    record = read_mark(path)
    if record.get("synthetic") is not True:
        if is_mark(path):
            raise BadInput(
                f"{volume} is no synthetic image: its mark says that it holds {record.get('content', 'something derived')!s}. "
                "Only translated images can be written as an MR series."
            )
        raise BadInput(
            f"{volume} has no mark of IMT ({path.name} beside it) that says which model made it from what. "
            "Only images that IMT translated are written; keep the .json file with the image when you move it."
        )
    try:
        image = SyntheticImage.from_mark(record)
    except BadInput as error:
        raise BadInput(f"The mark {path} is damaged: {error}. Translate again.") from error
    output = record.get("output")  # Slicer saves marks without it
    if isinstance(output, dict) and output.get("sha256") not in (None, sha256_of(volume)):
        raise BadInput(f"{volume} was changed after IMT wrote it: its mark is of another file. Translate again.")
    return image


def read_source_headers(folder: Path) -> list[Dataset]:
    """The headers of the one series in `folder`, in the order of its slices.

    Raises:
        BadInput: no series or several; not classic MR images; unreadable, or without the UIDs that a reference to them needs.
    """
    sources = [_source_header(Path(name)) for name in series_files(folder)]
    for keyword in ONE_OF_EACH:
        found = {str(source.get(keyword, "")) for source in sources}
        if len(found) > 1:
            raise BadInput(f"The slices in {folder} have {len(found)} different values of {keyword}: they are not of one series.")
    if len({str(source.SOPInstanceUID) for source in sources}) < len(sources):
        raise BadInput(f"Two slices in {folder} have the same SOPInstanceUID. Export the series again.")
    return sources


def _source_header(path: Path) -> Dataset:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values of slightly wrong form are common, and copied as they are
            # `force`: GDCM also reads files without the preamble that pydicom asks for.
            source = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            kind, frames = str(source.get("SOPClassUID", "")), int(source.get("NumberOfFrames", None) or 1)
            missing = [keyword for keyword in NEEDED if not source.get(keyword)]
            source.get("PatientID"), source.get("PatientName")  # read now: values are converted when they are first asked for
    except Exception as error:  # pydicom raises many kinds for damaged headers
        raise BadInput(f"The header of {path} cannot be read ({error}). Export the series again.") from error
    if kind != MR_IMAGE_STORAGE or frames > 1:
        raise BadInput(
            f"{path} is no classic MR image, one file a slice ({pydicom.uid.UID(kind).name or 'no SOP class'}). Convert an "
            "enhanced (multi-frame) MR image to classic ones first, for example with dcm4che's emf2sf."
        )
    if missing:
        raise BadInput(f"{path} has no {', '.join(missing)}, which a series of the same study refers to. Export it again.")
    return source


def on_grid(volume: Volume, wanted: Geometry) -> np.ndarray | None:
    """The volume's array in the order and sense of `wanted`'s axes, or None if its voxels are not those of `wanted`.

    Returns:
        [k, j, i] of `wanted`'s shape (a view).
    """
    stored = volume.geometry
    cosines = wanted.direction.T @ stored.direction  # [axis i, j, k of `wanted`, axis i, j, k as stored]
    axes = np.abs(cosines).argmax(axis=1)
    if sorted(axes) != [0, 1, 2]:
        return None
    flips = cosines[range(3), axes] < 0
    axis_map = AxisMap(tuple(int(2 - axis) for axis in axes[::-1]), tuple(bool(flip) for flip in flips[::-1]))  # type: ignore[arg-type]
    array = axis_map.apply(volume.array)
    first = np.zeros(3)  # where the new first voxel is stored, in i, j, k
    first[axes] = np.where(flips, np.array(array.shape[::-1]) - 1, 0)
    geometry = Geometry(
        array.shape,
        stored.spacing_mm[axes],
        stored.origin_lps + stored.direction @ (stored.spacing_mm * first),
        stored.direction[:, axes] * np.where(flips, -1, 1),
    )
    return array if geometry.is_close(wanted, GRID_TOLERANCE_MM) else None
