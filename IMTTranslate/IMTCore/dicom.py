"""Read one DICOM series from a folder (GDCM through SimpleITK)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .dicom_acquisition import Acquisition, header_value
from .dicom_frames import check_frames
from .dicom_lengths import check_lengths
from .errors import BadInput
from .itk_volume import volume_from_sitk
from .machine import check_size
from .volume import Volume

# Slice positions may differ from an even grid by this share of the slice distance (rounding in the headers).
POSITION_TOLERANCE = 0.02
# Directions may differ by this much, and the stack lean from the slices' normal by this share of its length (rounding).
ANGLE_TOLERANCE = 2e-3
SAME_PLACE_MM = 1e-3  # no two slices of a stack are nearer


def series_in(folder: Path) -> list[str]:
    """The UIDs of the DICOM image series in `folder` itself (not below).

    Raises:
        BadInput: a file is so damaged that GDCM gives up, or would take memory without end.
    """
    import SimpleITK as sitk

    check_lengths(folder)
    previous = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # GDCM warns of every other file in the folder
    try:
        return list(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    except RuntimeError as error:
        raise _unreadable(str(folder), error) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(previous)


def series_files(folder: Path) -> list[str]:
    """The files of the one image series in `folder`, in the order of the slices.

    Raises:
        BadInput: no series, or more than one.
    """
    import SimpleITK as sitk

    series = series_in(folder)
    if not series:
        raise BadInput(f"{folder} holds no DICOM image series. Choose the folder that holds the slices' files.")
    if len(series) > 1:
        raise BadInput(
            f"{folder} holds {len(series)} DICOM series: {', '.join(series[:5])}. Put the one to use in a folder of its own, "
            f"or name it with --series (imt dicom {folder} --list shows them)."
        )
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))


def read_series(folder: Path) -> Volume:
    """Read the one image series in `folder`.

    Returns:
        Array [k, j, i] in rescaled values; geometry from the slices' positions; its `header` is an `Acquisition`.

    Raises:
        BadInput: no series, more than one, unreadable, colour, a mosaic or several frames a file, slices missing, double,
            unevenly spaced or turned, or a tilted gantry.
    """
    import SimpleITK as sitk

    names, series = series_files(folder), f"the DICOM series in {folder}"
    headers = slice_headers(names, series)
    check_stack(headers, series)
    check_size(folder, (*headers[0].GetSize(), len(names)), voxel_bytes=4)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    if len({header.GetPixelID() for header in headers}) > 1:
        # Rescaled slice by slice: the first slice's type, an integer perhaps, would round the others.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(series, error) from error
    thickness = header_value(headers[0])(0x18, 0x50)
    if image.GetSize()[2] == 1 and not headers[0].HasMetaDataKey("0018|0088") and _positive(thickness):
        image.SetSpacing((*image.GetSpacing()[:2], float(thickness)))  # GDCM says 1 mm for a slice alone
    return replace(volume_from_sitk(image, folder.name), header=Acquisition.from_header(header_value(headers[0])))


def slice_headers(names: Sequence[str], series: str) -> list[Any]:
    """SimpleITK readers that have read the headers of a series' files.

    Args:
        names: the files, one a slice.
        series: what to call the series in messages.

    Raises:
        BadInput: one cannot be read.
    """
    try:
        return [_header_of(name) for name in names]
    except RuntimeError as error:
        raise _unreadable(series, error) from error


def check_stack(headers: Sequence[Any], series: str) -> None:
    """Check that slices are one stack on a regular grid.

    Args:
        headers: as from `slice_headers`, in the order of the slices.
        series: what to call the series in messages.

    Raises:
        BadInput: colour, a mosaic, several frames a file, slices missing, double, unevenly spaced or turned, a tilted gantry.
    """
    if headers[0].GetNumberOfComponents() > 1:
        raise BadInput(f"In {series} the images are in colour. IMT needs a scalar image.")
    if any("MOSAIC" in header_value(header)(0x08, 0x08).upper().split("\\") for header in headers):
        raise BadInput(f"In {series} all slices lie in one picture (a mosaic). Convert it to one file a slice, for example with dcm2niix.")
    if len(headers) > 1:
        _check_single_frames(headers, series)
        _check_positions(headers, series)
    elif headers[0].GetSize()[2] > 1:
        check_frames(headers[0].GetFileName(), headers[0], series)


def _unreadable(series: str, error: Exception) -> BadInput:
    reason = str(error).strip().splitlines()[-1].strip()
    return BadInput(f"In {series} a file cannot be read: {reason} Copy or export the series again, without compression if it had one.")


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < np.inf
    except ValueError:
        return False


def _header_of(name: str) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.LoadPrivateTagsOff()
    reader.ReadImageInformation()
    return reader


def _check_single_frames(headers: Sequence[Any], series: str) -> None:
    if any(len(header.GetSize()) > 2 and header.GetSize()[2] > 1 for header in headers):
        raise BadInput(f"In {series} several files hold several frames each. Export one stack of it, one file a slice.")


def _check_positions(headers: Sequence[Any], series: str) -> None:
    directions = np.array([header.GetDirection() for header in headers])
    if (np.abs(directions - directions[0]) > ANGLE_TOLERANCE).any():
        raise BadInput(f"In {series} the slices do not all lie in one direction. Export one stack of it.")
    sizes = {header.GetSize()[:2] for header in headers}
    if len(sizes) > 1:
        raise BadInput(f"In {series} the slices differ in size ({len(sizes)} sizes): it holds several stacks. Export one stack of it.")
    normal = directions[0].reshape(3, 3)[:, 2]
    positions = np.array([header.GetOrigin() for header in headers])
    _check_places(headers, np.sort(positions @ normal), series)
    steps = np.diff(positions, axis=0)
    distances = np.linalg.norm(steps, axis=1)
    middle = float(np.median(distances))
    if (np.abs(steps - np.median(steps, axis=0)) > POSITION_TOLERANCE * middle + 1e-3).any():
        raise BadInput(
            f"In {series} the slices are not evenly spaced ({distances.min():.3g} to {distances.max():.3g} mm): "
            "slices are missing, double, or it holds several stacks. Export it as one complete stack."
        )
    stack = steps.sum(axis=0)
    if np.linalg.norm(stack - normal * (normal @ stack)) > ANGLE_TOLERANCE * np.linalg.norm(stack) + 1e-3:
        raise BadInput(
            f"In {series} the slices are not stacked at right angles to their plane (a tilted gantry). "
            "Resample it to a regular grid first, for example with Slicer's Acquisition Geometry Regularization."
        )


def _check_places(headers: Sequence[Any], places: np.ndarray, series: str) -> None:
    """Refuse several slices at one place, along the normal in mm: echoes, time points, magnitude and phase."""
    count = 1 + int((np.diff(places) > SAME_PLACE_MM).sum())
    if count == len(headers) or len(headers) % count:  # a few double slices are found as an uneven distance
        return
    echoes = sorted({header_value(header)(0x18, 0x81) for header in headers} - {""}, key=lambda text: (len(text), text))
    kinds = {header_value(header)(0x08, 0x08) for header in headers}
    what = "time points or repetitions, perhaps"
    if len(echoes) > 1:
        what = f"{len(echoes)} echoes, TE {', '.join(echoes[:6])} ms"
    elif len(kinds) > 1:
        what = f"{len(kinds)} kinds of image, such as magnitude and phase"
    raise BadInput(
        f"In {series} {len(headers)} slices lie at {count} places: {what}. Export one of them as a series of its own."
    )
