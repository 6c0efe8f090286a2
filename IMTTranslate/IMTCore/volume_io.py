"""Read and write volumes: NIfTI and MGH by nibabel, NRRD and MetaImage by SimpleITK, DICOM series by `dicom`.

NIfTI goes through nibabel because a result must carry the input's qform, sform and their codes unchanged, which
ITK's writer does not keep.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .dicom import read_series
from .errors import BadInput
from .files import whole_file
from .itk_volume import volume_from_sitk
from .machine import check_size
from .meta_image import check_meta_data
from .nrrd_data import check_data_files
from .volume import Geometry, Volume, check_image

NIFTI = (".nii", ".nii.gz", ".hdr", ".img")
MGH = (".mgz", ".mgh")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
READABLE = NIFTI + MGH + ITK
WRITABLE = (".nii", ".nii.gz", ".mgz", ".mgh", ".nrrd", ".mha")
DESCRIPTION_LENGTH = 79  # NIfTI's descrip field, less the terminating zero


def image_suffix(path: Path, known: tuple[str, ...] = READABLE) -> str | None:
    """The image suffix of `path` in lower case, or None if it is none of `known`."""
    name = Path(path).name.lower()
    return next((s for s in sorted(known, key=len, reverse=True) if name.endswith(s) and len(name) > len(s)), None)


def check_output_path(path: Path) -> None:
    """Refuse an output name whose format cannot be written.

    Raises:
        BadInput: naming the formats that can.
    """
    if image_suffix(path, WRITABLE) is None:
        raise BadInput(f"Cannot tell the format of {path}: end its name in one of {', '.join(WRITABLE)}.")


def read_volume(path: Path | str, constant: bool = False, series: str | None = None) -> Volume:
    """Read an image file or a DICOM series.

    Args:
        path: file, folder that holds one series, or with `series` a folder of DICOM files in any layout.
        constant: take an image of one value too, as an empty label map is.
        series: which series of the folder: its number, description or UID. Needs pydicom.

    Returns:
        A checked volume: array [k, j, i] in the file's real-world values (float32, or the file's integers).

    Raises:
        BadInput: missing, not an image, truncated, 4D, colour, complex, empty, constant, with NaN or infinite
            values, or with a singular or sheared grid; the message names the file.
    """
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long
        raise BadInput(f"{path} cannot be opened ({error.strerror}). Check the path.") from error
    if not there:
        raise BadInput(f"{path} does not exist. Check the path.")
    if series is not None:
        from .dicom_selection import series_folder

        with series_folder(path, series) as folder:
            volume = read_series(folder)
    elif path.is_dir():
        volume = read_series(path)
    else:
        suffix = image_suffix(path)
        if not path.is_file():  # a pipe would be waited for, a device read for ever
            raise BadInput(f"{path} is not a file. Give the image's file itself.")
        if suffix is None:
            raise BadInput(f"{path} is not an image that IMT reads ({', '.join(READABLE)}, or a folder with one DICOM series).")
        if path.stat().st_size == 0:
            raise BadInput(f"{path} is an empty file. Export or copy it again.")
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadInput(f"{path} cannot be opened ({error.strerror}). Check its permissions.") from error
        try:
            volume = _read_with_itk(path) if suffix in ITK else _read_with_nibabel(path)
        except BadInput as error:
            raise BadInput(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    check_image(volume, constant)
    return volume


def _read_with_nibabel(path: Path) -> Volume:
    import nibabel

    try:
        with np.errstate(all="ignore"), _quiet_nibabel():  # absurd numbers are refused below, in words
            image = nibabel.load(path)
        shape = image.shape
        dtype = image.get_data_dtype()
    except Exception as error:  # nibabel raises many kinds for damaged headers
        reason = _first_line(error)
        raise BadInput(f"{path} is not a readable image, whatever its name says ({reason}). Export it again.") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise BadInput(f"{path} is a {len(shape)}D image of size {shape}. IMT takes one 3D volume: export one frame of it.")
    if len(shape) < 2:
        raise BadInput(f"{path} is not an image of two or three dimensions: its size is {shape}.")
    if dtype.fields is not None:
        raise BadInput(f"{path} is a colour image. IMT needs a scalar image: export one channel or the original.")
    if np.issubdtype(dtype, np.complexfloating):
        raise BadInput(f"{path} has complex values. IMT needs a magnitude image: export its magnitude.")
    shape = shape + (1,) * (3 - len(shape))
    if 0 in shape:
        raise BadInput(f"{path} is empty: its size is {shape} voxels.")
    if min(shape) < 0:
        raise BadInput(f"{path} is damaged: its header says {shape} voxels. Export it again.")
    voxels_file = Path(image.file_map["image"].filename)  # of a pair, not the header
    if voxels_file.is_file():
        check_size(path, shape, dtype.itemsize, voxels_file.stat().st_size, voxels_file.suffix.lower() in (".gz", ".mgz", ".bz2", ".zst"))
    try:
        scaled = image.dataobj.slope != 1 or image.dataobj.inter != 0
        with np.errstate(all="ignore"):
            values = np.asarray(image.dataobj, dtype=np.float32) if scaled else np.asanyarray(image.dataobj)
            # A copy in the machine's byte order: nibabel maps the file into memory, and neither torch nor ITK takes another order.
            kind = values.dtype.newbyteorder("=") if np.issubdtype(values.dtype, np.integer) else np.float32
            values = np.array(values, dtype=kind)
    except (OSError, EOFError, ValueError, zlib.error, MemoryError, AttributeError, OverflowError) as error:
        raise BadInput(f"{path} is damaged or truncated: its voxels cannot be read. Copy or export it again.") from error
    array = np.ascontiguousarray(values.reshape(shape).T)  # (i, j, k) → [k, j, i]
    return Volume(array, Geometry.from_affine_ras(nifti_affine_ras(image), array.shape), path.name, image.header)


@contextlib.contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel from telling, in its own words, of each field of a header that it mends."""
    import nibabel

    logger = nibabel.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def nifti_affine_ras(image: Any) -> np.ndarray:
    """The image's affine in mm, read as ITK (and so Slicer) reads it where nibabel differs."""
    import nibabel

    header, affine = image.header, np.array(image.affine, dtype=np.float64)
    if not isinstance(header, nibabel.Nifti1Header):
        return affine
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        # No orientation is stored. ITK lets i, j, k run to left, posterior, superior from the origin.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([*np.abs(header["pixdim"][1:4]).astype(np.float64), 1.0])
    elif header["qform_code"] > 0 and header["sform_code"] > 1:
        affine = header.get_qform()  # ITK takes the sform only if it is the scanner's (code 1), or the only form
    # A code that there is not counts as none, as in ITK: nibabel would raise a KeyError.
    affine[:3] *= {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _read_with_itk(path: Path) -> Volume:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    # Named, since ITK finds no reader for `.MHA`, and would take another format under a wrong name.
    reader.SetImageIO("NrrdImageIO" if image_suffix(path) in (".nrrd", ".nhdr") else "MetaImageIO")
    if reader.GetImageIO() == "NrrdImageIO":
        check_data_files(path)
    try:
        reader.ReadImageInformation()
        components, dimension = reader.GetNumberOfComponents(), reader.GetDimension()
        if dimension > 3 and reader.GetSize()[-1] > 1:
            raise BadInput(f"{path} is a {dimension}D image. IMT takes one 3D volume: export one frame of it.")
        if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
            raise BadInput(f"{path} has complex values. IMT needs a magnitude image: export its magnitude.")
        if components > 1:
            raise BadInput(f"{path} has {components} values a voxel (colour or vectors). IMT needs a scalar image: export one.")
        check_size(path, reader.GetSize(), _pixel_bytes(reader.GetPixelID()))
        if reader.GetImageIO() == "MetaImageIO":
            check_meta_data(path)
        image = reader.Execute()
    except RuntimeError as error:
        reason = "its direction matrix is singular" if "determinant" in str(error) else _itk_reason(error)
        raise BadInput(f"{path} cannot be read: {reason}. Repair or export it again.") from error
    return volume_from_sitk(image, path.name)


def _pixel_bytes(pixel: int) -> int:
    import SimpleITK as sitk

    return 8 if pixel in (sitk.sitkFloat64, sitk.sitkInt64, sitk.sitkUInt64) else 4


def write_volume(path: Path | str, volume: Volume, description: str = "", metadata: dict[str, str] | None = None) -> None:
    """Write `volume`, whole or not at all.

    Args:
        path: its suffix decides the format (`WRITABLE`).
        volume: array [k, j, i]; a header of the same format is carried over (NIfTI: qform, sform and their codes).
        description: put where the format has a place for it (NIfTI's descrip: its first 79 characters).
        metadata: further key–value pairs for formats that hold them (NRRD, MetaImage).

    Raises:
        BadInput: if the format cannot be written.
        OutputFailure: if writing fails.
    """
    path = Path(path)
    check_output_path(path)
    with whole_file(path) as temporary:
        save_volume(temporary, volume, description, metadata)


def save_volume(path: Path, volume: Volume, description: str = "", metadata: dict[str, str] | None = None) -> None:
    """As `write_volume`, straight into `path`, with an `OSError` on failure: for callers that care for wholeness
    themselves."""
    if image_suffix(path, WRITABLE) in ITK:
        try:
            _write_with_itk(path, volume, description, metadata or {})
        except RuntimeError as error:
            raise system_error(path, _itk_reason(error, system=True)) from error
    else:
        _write_with_nibabel(path, volume, description)


def system_error(path: Path, reason: str) -> OSError:
    """Why ITK could not write `path`: what the system says when something is put to the file's end, as ITK often does not tell;
    else `reason`.
    """
    try:
        with open(path, "ab", buffering=0) as stream:
            for _ in range(2):  # of what is too much for the disk, the first may be taken in part
                stream.write(bytes(1 << 16))
    except OSError as error:
        return error
    return OSError(reason)


def _write_with_nibabel(path: Path, volume: Volume, description: str) -> None:
    import nibabel

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    data = array.T  # [k, j, i] → (i, j, k)
    if image_suffix(path, WRITABLE) in MGH:
        if array.dtype.newbyteorder("=") not in (np.uint8, np.int16, np.int32, np.float32):  # MGH has no other types
            data = data.astype(np.int32 if np.can_cast(array.dtype, np.int32) else np.float32)
        header = volume.header.copy() if isinstance(volume.header, nibabel.freesurfer.mghformat.MGHHeader) else None
        if header is not None:
            header.set_data_dtype(data.dtype)
        nibabel.freesurfer.mghformat.MGHImage(data, volume.geometry.affine_ras, header).to_filename(path)
        return
    if isinstance(volume.header, nibabel.Nifti1Header):
        header = volume.header.copy()
        header.extensions.clear()
        header.set_data_dtype(array.dtype)
        header.set_data_shape(data.shape)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        kind = nibabel.Nifti2Image if isinstance(volume.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        image = kind(data, None, header)  # no affine: both forms stay as they were
    else:
        image = nibabel.Nifti1Image(data, volume.geometry.affine_ras, dtype=data.dtype)
        image.header.set_qform(volume.geometry.affine_ras, code=1)
        image.header.set_sform(volume.geometry.affine_ras, code=1)
        image.header.set_xyzt_units("mm")
    image.header["descrip"] = _one_line(description).encode()[:DESCRIPTION_LENGTH]
    image.to_filename(path)


def _write_with_itk(path: Path, volume: Volume, description: str, metadata: dict[str, str]) -> None:
    import SimpleITK as sitk

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(volume.geometry.spacing_mm.tolist())
    image.SetOrigin(volume.geometry.origin_lps.tolist())
    image.SetDirection(volume.geometry.direction.ravel().tolist())
    if description:
        # NRRD's content field and MetaImage's Comment; ITK writes other keys as they are.
        image.SetMetaData("Comment" if path.name.lower().endswith(".mha") else "NRRD_content", _one_line(description))
    for key, value in metadata.items():
        image.SetMetaData(key, _one_line(value))
    sitk.WriteImage(image, str(path), useCompression=True)


def _one_line(text: str) -> str:
    """One line of ASCII: a line break in a value would make a MetaImage header unreadable."""
    return " ".join(text.split()).encode("ascii", "replace").decode()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _itk_reason(error: BaseException, system: bool = False) -> str:
    """The last line of ITK's message. `system`: MetaImage's "Reason:", the last system error, counts. In reading it
    does not: it says "No such file" of a truncated one."""
    lines = [re.sub(r"^ITK ERROR: \w+\(0x\w+\): ", "", line.strip()) for line in str(error).splitlines() if line.strip()]
    lines = [line.removeprefix("Reason: ") for line in lines if system or not line.startswith("Reason: ")]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")[:200]
