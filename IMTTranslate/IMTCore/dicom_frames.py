"""Do the frames of an enhanced (multi-frame) DICOM image lie where GDCM puts them?

GDCM takes the voxel size and position from the first frames; of frames in another order, or of several stacks, echoes or time
points in one file, it makes a wrong grid and says nothing. The places of all frames are therefore read with pydicom.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .errors import BadInput

PLACE_TOLERANCE = 0.02  # of the slice distance, as for separate slices
ANGLE_TOLERANCE = 2e-3
REMEDY = "Convert it to one stack, one file a slice or NIfTI, for example with dcm2niix."


def check_frames(path: str, header: Any, series: str) -> None:
    """Check the places of all frames.

    Args:
        path: the file.
        header: a SimpleITK reader that has read its header.
        series: what to call the series in messages.

    Raises:
        BadInput: they are not one even stack, their places are not told, or pydicom is missing.
    """
    count = header.GetSize()[2]
    try:
        import pydicom
    except ImportError as error:
        raise BadInput(
            f"In {series} one file holds {count} frames; to check their places, the Python package pydicom is needed "
            f"(pip install pydicom). {REMEDY}"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            places, axes = _places(pydicom.dcmread(path, stop_before_pixels=True, force=True))
    except Exception as error:  # pydicom raises many kinds for damaged headers; missing elements are among them
        raise BadInput(f"In {series} one file holds {count} frames, and their places cannot be read ({error}). {REMEDY}") from error
    direction = np.reshape(header.GetDirection(), (3, 3))
    step = direction[:, 2] * header.GetSpacing()[2]
    expected = np.asarray(header.GetOrigin()) + np.arange(count)[:, None] * step  # (frames, 3) mm
    tolerance = PLACE_TOLERANCE * abs(header.GetSpacing()[2]) + 1e-3
    turned = np.abs(axes - direction[:, :2].T).max() > ANGLE_TOLERANCE
    if len(places) != count or turned or np.abs(places - expected).max() > tolerance:
        raise BadInput(
            f"In {series} one file holds {count} frames that are not one even stack in order (several stacks, echoes or time points, "
            f"perhaps). {REMEDY}"
        )


def _places(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions (frames, 3) in LPS mm, and directions of rows and columns (frames, 2, 3)."""
    shared, frames = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence
    places = [[float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient] for frame in frames]
    groups = [frame if "PlaneOrientationSequence" in frame else shared for frame in frames]
    axes = [[float(v) for v in group.PlaneOrientationSequence[0].ImageOrientationPatient] for group in groups]
    return np.array(places), np.reshape(axes, (len(axes), 2, 3))
