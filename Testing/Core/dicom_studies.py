"""DICOM studies as scanners and archives leave them, for tests: classic MR series on a volume's grid, a localiser, other things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, RawDataStorage, generate_uid

from IMTCore.volume import Geometry, Volume

STUDY_UID, FRAME_UID = "1.2.3.4", "1.2.3.5"
PATIENT = {"PatientName": "Beispiel^Anna", "PatientID": "P-17", "PatientBirthDate": "19700102", "PatientSex": "F"}
STUDY = {"StudyInstanceUID": STUDY_UID, "StudyDate": "20190305", "StudyTime": "095000", "StudyDescription": "Head", "StudyID": "S9"}
# Of usual brain protocols at 3 T.
PROTOCOLS = {
    "T1": {"SeriesDescription": "t1_mprage_sag", "ScanningSequence": ["GR", "IR"], "RepetitionTime": 2000, "EchoTime": 2.98, "InversionTime": 900,
           "FlipAngle": 9},
    "T2": {"SeriesDescription": "t2_tse_tra", "ScanningSequence": "SE", "RepetitionTime": 5000, "EchoTime": 92, "FlipAngle": 150},
    "FLAIR": {"SeriesDescription": "t2_tirm_dark-fluid", "ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 125, "InversionTime": 2500,
              "FlipAngle": 150},
    "PD": {"SeriesDescription": "pd_tse_tra", "ScanningSequence": "SE", "RepetitionTime": 3000, "EchoTime": 14, "FlipAngle": 150},
    "T1C": {"SeriesDescription": "t1_se_km", "ScanningSequence": "SE", "RepetitionTime": 600, "EchoTime": 12, "FlipAngle": 90,
            "ContrastBolusAgent": "Gadovist"},
}  # fmt: skip
Edit = Callable[[FileDataset, int], None]


def new_slice(sop_class: str = MRImageStorage, preamble: bool = True) -> FileDataset:
    """An empty data set with the UIDs that every file has."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128 if preamble else None)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    return data


def set_place(data: Dataset, grid: Geometry, k: int) -> None:
    """Where slice k of a grid lies."""
    data.PixelSpacing = [float(grid.spacing_mm[1]), float(grid.spacing_mm[0])]
    data.SliceThickness = data.SpacingBetweenSlices = float(grid.spacing_mm[2])
    data.ImageOrientationPatient = [f"{v:.10f}" for v in grid.direction[:, :2].T.ravel()]
    data.ImagePositionPatient = [f"{v:.8f}" for v in grid.origin_lps + k * grid.direction[:, 2] * grid.spacing_mm[2]]


def set_pixels(data: Dataset, pixels: np.ndarray) -> None:
    """One slice [row, column], of 0 to 65535."""
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelData = pixels.astype("<u2").tobytes()


def write_series(folder: Path, volume: Volume, number: int = 1, edit: Edit | None = None, names: str = "IM{:03d}", **header: object) -> Path:
    """A classic MR series of `volume`, rounded to whole numbers; its slices' names and numbers run against their order.

    Args:
        number: the series number.
        edit: called with each slice's data set and its k before it is written.
        names: of the files, with the instance number.
        header: further attributes by keyword; those of the patient and the study have defaults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid, count = generate_uid(), len(volume.array)
    for k, pixels in enumerate(np.rint(volume.array)):
        data = new_slice()
        data.Modality, data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = "MR", uid, number, count - k
        data.FrameOfReferenceUID, data.ImageType = FRAME_UID, ["ORIGINAL", "PRIMARY", "M", "ND"]
        for keyword, value in {"SpecificCharacterSet": "ISO_IR 100", **PATIENT, **STUDY, **header}.items():
            setattr(data, keyword, value)
        set_place(data, volume.geometry, k)
        set_pixels(data, pixels)
        if edit is not None:
            edit(data, k)
        data.save_as(folder / names.format(data.InstanceNumber), enforce_file_format=data.preamble is not None)
    return folder


def write_localizer(folder: Path, volume: Volume, number: int = 1, **header: object) -> Path:
    """Three orthogonal slices through the middle of `volume`, in one series."""
    axes, uid, grid = ((0, 1, 2), (1, 0, 2), (2, 0, 1)), generate_uid(), volume.geometry
    for instance, order in enumerate(axes, 1):
        turned = volume.array.transpose(order)
        middle = len(turned) // 2
        ijk = [2 - axis for axis in order[::-1]]  # which of i, j, k its columns, rows and slices are
        place = Geometry(turned.shape, grid.spacing_mm[ijk], grid.origin_lps, grid.direction[:, ijk])

        def edit(data: FileDataset, _k: int, place: Geometry = place, middle: int = middle, instance: int = instance) -> None:
            set_place(data, place, middle)
            data.SeriesInstanceUID, data.InstanceNumber = uid, instance

        slice_alone = Geometry((1, *place.shape[1:]), place.spacing_mm, place.origin_lps, np.eye(3))
        write_series(folder, Volume(turned[middle : middle + 1], slice_alone), number, edit, SeriesDescription="localizer", **header)
    return folder


def write_enhanced(path: Path, volume: Volume, order: Sequence[int], **header: object) -> Path:
    """An enhanced (multi-frame) MR image of `volume` with its slices in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = new_slice(EnhancedMRImageStorage)
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = "MR", generate_uid(), 1
    for keyword, value in {**PATIENT, **STUDY, **header}.items():
        setattr(data, keyword, value)
    set_pixels(data, np.rint(volume.array[list(order)]).reshape(-1, volume.array.shape[2]))
    data.Rows, data.NumberOfFrames = volume.array.shape[1], len(order)
    frames = []
    for k in order:
        place = Dataset()
        set_place(place, volume.geometry, int(k))
        frames.append(_item(PlanePositionSequence=[_item(ImagePositionPatient=place.ImagePositionPatient)]))
    measures = _item(PixelSpacing=place.PixelSpacing, SliceThickness=place.SliceThickness, SpacingBetweenSlices=place.SpacingBetweenSlices)
    orientation = _item(ImageOrientationPatient=place.ImageOrientationPatient)
    data.SharedFunctionalGroupsSequence = [_item(PlaneOrientationSequence=[orientation], PixelMeasuresSequence=[measures])]
    data.PerFrameFunctionalGroupsSequence = frames
    data.save_as(path, enforce_file_format=True)
    return path


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def write_report(folder: Path, number: int = 99, **header: object) -> Path:
    """A series without images, such as an archive holds among the others."""
    folder.mkdir(parents=True, exist_ok=True)
    data = new_slice(RawDataStorage)
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription = "SR", generate_uid(), number, "Report"
    for keyword, value in {**PATIENT, **STUDY, **header}.items():
        setattr(data, keyword, value)
    data.save_as(folder / f"report{number}.dcm", enforce_file_format=True)
    return folder


def write_study(folder: Path, images: Mapping[str, Volume], flat: bool = False, **header: object) -> Path:
    """A study of a localiser (series 1), one series a modality (2, 3 …) and a report (99).

    Args:
        folder: to make; each series has a folder of its own below it, or all lie in it (`flat`).
        images: by modality, one of `PROTOCOLS`.
        header: attributes of all files.
    """

    def place(number: int) -> tuple[Path, str]:
        return (folder, f"{number}-" + "{:04d}") if flat else (folder / f"scans/{number:03d}", "IM{:04d}")

    first = next(iter(images.values()))
    where, names = place(1)
    write_localizer(where, first, 1, names=names, **header)
    for number, (modality, volume) in enumerate(images.items(), 2):
        where, names = place(number)
        write_series(where, volume, number, names=names, **{**PROTOCOLS[modality], **header})
    write_report(place(99)[0], **header)
    return folder
