"""Write a synthetic volume as a DICOM series that no one takes for a real one, into the study that it was made from.

Classic MR images, one file a slice, on the geometry of the source series (`dicom_headers` says what they carry). Needs pydicom.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dicom import read_series
from .dicom_headers import SyntheticImage, SyntheticSeries, check_description, new_uid, series_description, synthetic_header
from .dicom_sources import GRID_TOLERANCE_MM, check_pydicom, on_grid, read_source_headers, read_synthetic_mark
from .errors import BadInput, Cancelled, OutputFailure
from .files import describe_write_error, give_usual_mode, temporary_folder
from .modality_names import guess_from_text
from .progress import Progress, never, quiet
from .provenance import input_sha256, volume_sha256
from .version import VERSION
from .volume import Volume
from .volume_io import read_volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TOP = 65535  # of the stored values, unsigned 16 bit: the largest that a classic MR image holds
SHOWN_PERCENTILE = 99.8  # the initial window goes up to it, so that a few bright voxels do not darken the rest
NUMBER_OFFSET = 9000  # of the source's series number: synthetic series come last in a study's list
LARGEST_NUMBER = 2**31 - 1  # of IS


@dataclass(frozen=True)
class WrittenSeries:
    """A series as it was written.

    Attributes:
        folder: where; its files are 00001.dcm … in the order of the source's slices.
        files: how many.
        uid, number, description: the series' UID, number and description.
        warnings: what the user should check, in words.
    """

    folder: Path
    files: int
    uid: str
    number: int
    description: str
    warnings: list[str]


def write_synthetic_series(
    volume: Path,
    like: Path,
    output: Path,
    description: str | None = None,
    number: int | None = None,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
) -> WrittenSeries:
    """Write a synthetic volume as a new series of the study it was made from, whole or not at all.

    The volume's axes may be stored in another order or sense than the series' (as dcm2niix does); its voxels must be the
    series'. Its values are stored in 16 bits with RescaleSlope and RescaleIntercept, one pair for all slices, from its lowest
    to its highest value: what is read back differs by half a slope at most. The folder is read back before it gets its name.

    Args:
        volume: an image file with its mark beside it: a translation, or its uncertainty.
        like: the folder with the one source series, classic MR images.
        output: the folder to make; it may be there if it is empty.
        description: of the series; "SYNTHETIC" is put before it. Default: "SYNTHETIC T2 from T1".
        number: of the series, 1 to 2147483647. Default: 9000 more than the source's.
        progress, cancelled: as in `Translator.translate`.

    Raises:
        BadInput: no mark, or one of a file changed since; a label map; a volume off the series' grid; a source that is no
            series of classic MR images; an output that is there. OutputFailure: not writable. Cancelled.
        ImtError: pydicom is missing or too old.
    """
    check_pydicom()
    volume, like, output = Path(volume), Path(like), Path(output)
    check_options(description, number)
    check_folders(volume, like, output)
    image = read_synthetic_mark(volume)
    text = series_description(image, description)
    progress("read", 0.0, like.name)
    sources = read_source_headers(like)
    source, synthetic = read_series(like), read_volume(volume)
    array = on_grid(synthetic, source.geometry)
    if array is None:
        raise BadInput(
            f"{volume} is not on the grid of the series in {like} (sizes {synthetic.array.shape[::-1]} and "
            f"{source.array.shape[::-1]} voxels, or another position). Give the series that the volume was made from (--like)."
        )
    synthetic = Volume(array, source.geometry, volume.name)
    from_series = image.input_sha256 == input_sha256(like)
    series = _plan(image, synthetic, sources, text, number, from_series)
    with whole_folder(output) as temporary:
        _write_slices(temporary, synthetic, sources, series, progress, cancelled)
        progress("check", 1.0, output.name)
        _check_written(temporary, synthetic, float(series.slope))
    told = [] if from_series else [_doubt(volume, like, image, sources[0])]
    return WrittenSeries(output, len(sources), series.uid, series.number, series.description, told)


def check_options(description: str | None, number: int | None) -> None:
    """Refuse a description or a series number that DICOM cannot hold, before any work is done.

    Raises:
        BadInput: saying what it can.
    """
    if number is not None and not 1 <= number <= LARGEST_NUMBER:
        raise BadInput(f"The series number must be 1 to {LARGEST_NUMBER}, not {number}.")
    if description is not None:
        check_description(description)


def check_folders(volume: Path, like: Path, output: Path) -> None:
    """Refuse paths of the wrong kind, and an output that is there.

    Raises:
        BadInput: naming the path.
    """
    if not volume.is_file():
        raise BadInput(f"{volume} is not a file. Give the image file that imt translate wrote, with its .json beside it.")
    if not like.is_dir():
        raise BadInput(f"{like} is not a folder. --like takes the folder of the DICOM series that the volume was made from.")
    check_output_folder(output, like)


def check_output_folder(output: Path, source: Path) -> None:
    """Refuse an output that is there, or lies among the slices of the series in `source` (which may be links to them).

    Raises:
        BadInput: naming the path.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BadInput(f"{output} exists and is not an empty folder; nothing in it is changed. Choose another folder.")
    if any(output.resolve().is_relative_to(folder) for folder in {source.resolve(), *(file.resolve().parent for file in source.iterdir())}):
        raise BadInput(f"{output} lies in the source series' folder, which must stay as it is. Choose another folder.")


def rescaling(array: np.ndarray) -> tuple[str, str]:
    """RescaleSlope and RescaleIntercept that put `array` into 0 to 65535, as decimal strings of at most 16 characters.

    Integers of a narrower range keep a slope of 1, and so their values.
    """
    from pydicom.valuerep import format_number_as_ds

    low, high = min(float(array.min()), 0.0), float(array.max())
    exact = np.issubdtype(array.dtype, np.integer) and high - low <= TOP
    return ("1" if exact else format_number_as_ds((high - low) / TOP)), format_number_as_ds(low)


def stored_values(pixels: np.ndarray, slope: str, intercept: str) -> np.ndarray:
    """One slice [row, column] as uint16, rounded to the next step."""
    return np.clip(np.rint((pixels.astype(np.float64) - float(intercept)) / float(slope)), 0, TOP).astype("<u2")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path`, which may be an empty folder, if the block succeeds.

    Raises:
        OutputFailure: if it cannot be made, written or renamed. Nothing is left behind.
    """
    temporary: Path | None = None
    try:
        temporary = temporary_folder(path)
        yield temporary
        give_usual_mode(temporary)
        if path.is_dir():
            path.rmdir()  # Windows renames onto no folder, even an empty one
        os.replace(temporary, path)
    except OSError as error:
        raise OutputFailure(describe_write_error(path, error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _plan(
    image: SyntheticImage, volume: Volume, sources: list[Dataset], description: str, number: int | None, from_series: bool
) -> SyntheticSeries:
    """What the slices share. The UIDs depend on all that the files hold but the time when the volume was computed."""
    from pydicom.valuerep import format_number_as_ds

    first = sources[0]
    if number is None:
        given = _whole_number(first, "SeriesNumber") or 0
        number = given + NUMBER_OFFSET if 0 <= given <= LARGEST_NUMBER - NUMBER_OFFSET else NUMBER_OFFSET
    slope, intercept = rescaling(volume.array)
    low = float(intercept)
    high = max(float(np.percentile(volume.array, SHOWN_PERCENTILE)), low + float(slope))
    hashes = (image.input_sha256, image.model_sha256, volume_sha256(volume))
    texts = (image.what, image.model, image.model_version, description, str(number), str(from_series))
    uid = new_uid("IMT", VERSION, str(first.SeriesInstanceUID), *hashes, *texts)
    return SyntheticSeries(
        image,
        uid,
        number,
        description,
        from_series,
        slope,
        intercept,
        format_number_as_ds((low + high) / 2),
        format_number_as_ds(high - low),
        burned_in=any(source.get("BurnedInAnnotation") == "YES" for source in sources),
    )


def _whole_number(source: Dataset, keyword: str) -> int | None:
    try:
        return int(source.get(keyword, None))
    except (TypeError, ValueError):
        return None


def _write_slices(
    folder: Path, volume: Volume, sources: list[Dataset], series: SyntheticSeries, progress: Progress, cancelled: Callable[[], bool]
) -> None:
    numbers = [_whole_number(source, "InstanceNumber") for source in sources]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(sources) + 1))  # else the source's: viewers then show both series in the same order
    for k, (source, number) in enumerate(zip(sources, numbers, strict=True)):
        if cancelled():
            raise Cancelled("Cancelled: nothing was written.")
        progress("write", k / len(sources), f"slice {k + 1} of {len(sources)}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = synthetic_header(source, series, int(number or 0))
                _add_pixels(data, stored_values(volume.array[k], series.slope, series.intercept))
                _save(folder / f"{k + 1:05d}.dcm", data)
        except OSError:
            raise
        except Exception as error:  # values of the source that pydicom reads but cannot write
            raise BadInput(f"The header of {source.filename} is damaged ({error}). Export the series again.") from error


def _add_pixels(data: Dataset, stored: np.ndarray) -> None:
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.add_new("PixelData", "OW", stored.tobytes())


def _save(path: Path, data: Dataset) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset(str(path), data, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)


def _check_written(folder: Path, volume: Volume, step: float) -> None:
    """Read the folder back with GDCM: pydicom wrote it."""
    fault = OutputFailure(f"The series for {volume.name} does not read back as it was written. Nothing was kept; please report it.")
    try:
        again = read_series(folder)
    except BadInput as error:
        raise fault from error
    if not again.geometry.is_close(volume.geometry, GRID_TOLERANCE_MM):
        raise fault
    error = np.abs(again.array.astype(np.float64) - volume.array).max()
    if error > 0.5 * step * 1.001 + 1e-6 * np.abs(volume.array).max():  # GDCM gives float64, which is rounded to float32
        raise fault


def _doubt(volume: Path, like: Path, image: SyntheticImage, source: Any) -> str:
    texts = [str(source.get(keyword, "") or "") for keyword in ("SeriesDescription", "ProtocolName")]
    text = (
        f"The mark of {volume.name} is of another input file than the series {like.name} (a copy in another format, perhaps): "
        "check that they are of the same patient and scan."
    )
    modality = guess_from_text(*texts)
    if modality and modality != image.source:
        text += f" The series is described as {texts[0] or texts[1]!r}, but the volume was made from {image.source}."
    return text
