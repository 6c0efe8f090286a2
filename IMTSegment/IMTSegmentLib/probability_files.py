"""Probabilities of all classes as one file: 4D NIfTI (class last), or NRRD with a vector in each voxel.

Values are kept in steps of 1/255: a file of float32 would take ten times the room and time for digits without meaning.
NIfTI holds them as uint8 with the slope 1/255, which every reader applies; NRRD, which knows no slope, as float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import image_suffix, nifti_affine_ras, system_error

WRITABLE = (".nii", ".nii.gz", ".nrrd")
STEPS = 255


def check_probability_path(path: Path) -> None:
    """Refuse an output name whose format cannot hold probabilities.

    Raises:
        BadInput: naming the formats that can.
    """
    if image_suffix(path, WRITABLE) is None:
        raise BadInput(f"Probabilities cannot be written as {path}: end its name in one of {', '.join(WRITABLE)}.")


def save_probabilities(path: Path, probabilities: np.ndarray, grid: Volume, description: str) -> None:
    """Write probabilities straight into `path`, with an `OSError` on failure: for callers that care for wholeness.

    Args:
        probabilities: [classes + 1, k, j, i] float32 in [0, 1], class 0 the background.
        grid: a volume on the same grid; its NIfTI header's forms are carried over.
        description: put where the format has a place for it.
    """
    steps = np.empty(probabilities.shape, np.uint8)
    for structure, rounded in zip(probabilities, steps, strict=True):
        rounded[...] = np.rint(structure * STEPS)
    if image_suffix(path, WRITABLE) == ".nrrd":
        _save_nrrd(path, steps, grid.geometry, description)
    else:
        _save_nifti(path, steps, grid, description)


def _save_nifti(path: Path, steps: np.ndarray, grid: Volume, description: str) -> None:
    import nibabel

    data = steps.T  # [class, k, j, i] → (i, j, k, class)
    if isinstance(grid.header, nibabel.Nifti1Header):
        header = grid.header.copy()
        header.extensions.clear()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(data.shape)
        header["cal_min"] = header["cal_max"] = 0
        kind = nibabel.Nifti2Image if isinstance(grid.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        image = kind(data, None, header)  # no affine: both forms stay as they were
    else:
        image = nibabel.Nifti1Image(data, grid.geometry.affine_ras, dtype=np.uint8)
        image.header.set_qform(grid.geometry.affine_ras, code=1)
        image.header.set_sform(grid.geometry.affine_ras, code=1)
        image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1 / STEPS, 0)
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    image.to_filename(path)


def _save_nrrd(path: Path, steps: np.ndarray, geometry: Geometry, description: str) -> None:
    import SimpleITK as sitk

    values = np.moveaxis(steps, 0, -1).astype(np.float32)  # [k, j, i, class]
    values /= STEPS
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetSpacing(geometry.spacing_mm.tolist())
    image.SetOrigin(geometry.origin_lps.tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    image.SetMetaData("NRRD_content", description.encode("ascii", "replace").decode())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise system_error(path, str(error).strip().splitlines()[-1]) from error


def read_probabilities(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read what `save_probabilities` wrote.

    Returns:
        [classes + 1, k, j, i] float32 in [0, 1], class 0 the background, and their grid.

    Raises:
        BadInput: missing, not readable, or no file of probabilities.
    """
    path = Path(path)
    check_probability_path(path)
    if not path.is_file():
        raise BadInput(f"{path} does not exist. Check the path.")
    try:
        values, geometry = _read_nrrd(path) if image_suffix(path, WRITABLE) == ".nrrd" else _read_nifti(path)
    except BadInput:
        raise
    except Exception as error:  # nibabel and ITK raise many kinds for damaged files
        raise BadInput(f"{path} cannot be read ({(str(error).splitlines() or [''])[-1]}). Write it again.") from error
    if values.ndim != 4 or values.min() < 0 or values.max() > 1 + 1e-6:
        raise BadInput(f"{path} holds no probabilities: they are one volume a class, with values from 0 to 1.")
    return values, geometry


def _read_nifti(path: Path) -> tuple[np.ndarray, Geometry]:
    import nibabel

    image = nibabel.load(path)
    values = np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T)
    return values, Geometry.from_affine_ras(nifti_affine_ras(image), values.shape[-3:])


def _read_nrrd(path: Path) -> tuple[np.ndarray, Geometry]:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat32)
    values = np.ascontiguousarray(np.moveaxis(sitk.GetArrayFromImage(image), -1, 0))
    return values, Geometry(values.shape[1:], image.GetSpacing(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)))
