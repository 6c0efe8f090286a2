"""Read one DICOM series from a folder (GDCM through SimpleITK)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadInput
from .itk_volume import volume_from_sitk
from .volume import Volume

# Slice positions may differ from an even grid by this share of the slice distance (rounding in the headers).
POSITION_TOLERANCE = 0.02
# Directions may differ by this much, and the stack lean from the slices' normal by this share of its length (rounding).
ANGLE_TOLERANCE = 2e-3


def series_in(folder: Path) -> list[str]:
    """The UIDs of the DICOM image series in `folder` itself (not below)."""
    import SimpleITK as sitk

    previous = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # GDCM warns of every other file in the folder
    try:
        return list(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
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
            f"{folder} holds {len(series)} DICOM series: {', '.join(series[:5])}. "
            "Put the series to translate in a folder of its own."
        )
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))


def read_series(folder: Path) -> Volume:
    """Read the one image series in `folder`.

    Returns:
        Array [k, j, i] in rescaled values; geometry from the slices' positions.

    Raises:
        BadInput: no series, more than one, unreadable, colour, slices missing, unevenly spaced or turned, or a tilted
            gantry.
    """
    import SimpleITK as sitk

    names = series_files(folder)
    try:
        headers = [_header_of(name) for name in names]
        if len(names) > 1:
            _check_positions(folder, headers)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        if len({header.GetPixelID() for header in headers}) > 1 and headers[0].GetNumberOfComponents() == 1:
            # Rescaled slice by slice: the first slice's type, an integer perhaps, would round the others.
            reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
        thickness = headers[0].GetMetaData("0018|0050") if headers[0].HasMetaDataKey("0018|0050") else ""
        if image.GetSize()[2] == 1 and not headers[0].HasMetaDataKey("0018|0088") and _positive(thickness):
            image.SetSpacing((*image.GetSpacing()[:2], float(thickness)))  # GDCM says 1 mm for a slice alone
    except RuntimeError as error:
        raise BadInput(f"The DICOM series in {folder} cannot be read: {str(error).strip().splitlines()[-1].strip()}") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise BadInput(f"The DICOM series in {folder} is a colour image. IMT needs a scalar image.")
    return volume_from_sitk(image, folder.name)


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


def _check_positions(folder: Path, headers: list[Any]) -> None:
    steps = np.diff(np.array([header.GetOrigin() for header in headers]), axis=0)
    distances = np.linalg.norm(steps, axis=1)
    middle = float(np.median(distances))
    if middle <= 0 or (np.abs(steps - np.median(steps, axis=0)) > POSITION_TOLERANCE * middle + 1e-3).any():
        raise BadInput(
            f"The slices of the DICOM series in {folder} are not evenly spaced "
            f"({distances.min():.3g} to {distances.max():.3g} mm): "
            "slices are missing, double, or the series holds several stacks. Export it as one complete stack."
        )
    directions = np.array([header.GetDirection() for header in headers])
    if (np.abs(directions - directions[0]) > ANGLE_TOLERANCE).any():
        raise BadInput(f"The slices of the DICOM series in {folder} do not all lie in one direction. Export one stack of it.")
    stack, normal = steps.sum(axis=0), directions[0].reshape(3, 3)[:, 2]
    if np.linalg.norm(stack - normal * (normal @ stack)) > ANGLE_TOLERANCE * np.linalg.norm(stack) + 1e-3:
        raise BadInput(
            f"The slices of the DICOM series in {folder} are not stacked at right angles to their plane (a tilted gantry). "
            "Resample it to a regular grid first, for example with Slicer's Acquisition Geometry Regularization."
        )
