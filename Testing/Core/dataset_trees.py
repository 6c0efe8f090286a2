"""Small trees of generated heads in the layouts and formats of the public releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import head_phantom, store

from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import write_volume

SHAPE = (8, 12, 10)
SPACING_KJI = (3.0, 1.5, 1.5)
CONTRASTS = ("T1", "T1C", "T2", "FLAIR", "PD")


def image(modality: str, shape: tuple[int, int, int] = SHAPE, subject: int = 0) -> np.ndarray:
    """A head whose brightness tells the modality and the subject: int16 [k, j, i]."""
    scale = 300.0 * (CONTRASTS.index(modality) + 1) + 20 * subject
    return head_phantom(shape, scale).astype(np.int16)


def tumour(codes: tuple[int, ...], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A label map with one voxel of each code, more of the first: uint8 [k, j, i]."""
    labels = np.zeros(shape, np.uint8)
    labels[3, 4:7, 4:7] = codes[0]
    for n, code in enumerate(codes):
        labels[4, 4, 2 + n] = code
    return labels


def volume(array: np.ndarray, spacing_kji: tuple[float, float, float] = SPACING_KJI) -> Volume:
    return store(array, spacing_kji=spacing_kji)


def write(path: Path, array: np.ndarray) -> None:
    write_volume(path, volume(array))


# --- BraTS ---------------------------------------------------------------------------------------------------------

VSD_WORDS = {"T1": "MR_T1", "T1C": "MR_T1c", "T2": "MR_T2", "FLAIR": "MR_Flair"}


def brats_vsd_case(case: Path, codes: tuple[int, ...] = (1, 2, 3, 4), first_number: int = 54512, year: int = 2015) -> None:
    """A case of BraTS 2013 (numbers in the file names only) or 2015 (in the folders too)."""
    files = {f"VSD.Brain.XX.O.{word}": image(modality) for modality, word in VSD_WORDS.items()}
    files["VSD.Brain_3more.XX.O.OT" if year == 2015 else "VSD.Brain_3more.XX.XX.OT"] = tumour(codes)
    for n, (stem, array) in enumerate(files.items()):
        numbered = f"{stem}.{first_number + n}"
        write(case / (numbered if year == 2015 else stem) / f"{numbered}.mha", array)


def brats_nifti_case(case: Path, separator: str, words: dict[str, str], codes: tuple[int, ...], suffix: str = ".nii.gz") -> None:
    for modality, word in words.items():
        write(case / f"{case.name}{separator}{word}{suffix}", image(modality))
    write(case / f"{case.name}{separator}seg{suffix}", tumour(codes))


# --- iSeg-2017, MRBrainS13, IXI, BIDS --------------------------------------------------------------------------------


def write_analyze(path: Path, array: np.ndarray) -> None:
    """An Analyze 7.5 pair with a fourth axis of length 1, as in iSeg-2017."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    pair = nibabel.AnalyzeImage(array.T[..., None].astype(np.int16), None)
    pair.header.set_zooms((*SPACING_KJI[::-1], 1))
    nibabel.save(pair, path)


def iseg(root: Path) -> None:
    labels = np.select([image("T1") > 250, image("T1") > 120, image("T1") > 0], [250, 150, 10], 0)
    for number, part in ((1, "Training"), (2, "Training"), (11, "Testing")):
        folder = root / f"iSeg-2017-{part}"
        for modality in ("T1", "T2"):
            write_analyze(folder / f"subject-{number}-{modality}.hdr", image(modality, subject=number))
        if part == "Training":
            write_analyze(folder / f"subject-{number}-label.hdr", labels)


def mrbrains(root: Path) -> None:
    structures = np.zeros(SHAPE, np.uint8)
    structures[4, 4, 1:9] = np.arange(1, 9)
    for part, number in (("TrainingData", 1), ("TrainingData", 2), ("TestData", 1)):
        folder = root / part / str(number)
        for name, modality in (("T1", "T1"), ("T1_IR", "PD"), ("T2_FLAIR", "FLAIR")):
            write(folder / f"{name}.nii", image(modality, subject=number))
        write_volume(folder / "T1_1mm.nii", store(image("T1", (20, 16, 14)), spacing_kji=(1.0, 1.0, 1.0)))
        if part == "TrainingData":
            write(folder / "LabelsForTraining.nii", structures)
            write(folder / "LabelsForTesting.nii", np.array([0, 2, 2, 3, 3, 1, 1, 0, 0], np.uint8)[structures])


def ixi(root: Path) -> None:
    """T2 and PD on one grid, T1 sagittal on another."""
    for number, site in ((2, "Guys"), (12, "HH")):
        stem = f"IXI{number:03d}-{site}-{800 + number:04d}"
        for modality in ("T2", "PD"):
            write(root / f"IXI-{modality}" / f"{stem}-{modality}.nii.gz", image(modality))
        sagittal = store(image("T1", (12, 10, 14)), ((2, 0, 1), (False, True, False)), (2.0, 1.8, 1.1))
        write_volume(root / "IXI-T1" / f"{stem}-T1.nii.gz", sagittal)
        write(root / "IXI-DTI" / f"{stem}-DTI-00.nii.gz", image("T2"))


def bids(root: Path) -> None:
    names = {
        "sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz": "T1",
        "sub-01/ses-01/anat/sub-01_ses-01_T2w.nii.gz": "T2",
        "sub-01/ses-01/anat/sub-01_ses-01_inplaneT2.nii.gz": "FLAIR",
        "sub-01/ses-02/anat/sub-01_ses-02_acq-highres_run-01_T1w.nii.gz": "T1",
        "sub-01/ses-02/anat/sub-01_ses-02_acq-highres_run-02_T1w.nii.gz": "T2",
        "sub-01/ses-02/anat/sub-01_ses-02_ce-gadolinium_T1w.nii.gz": "T1C",
        "sub-02/anat/sub-02_T1w.nii": "T1",
        "sub-02/anat/sub-02_FLAIR.nii.gz": "FLAIR",
        "sub-02/anat/sub-02_PDw.nii.gz": "PD",
        "sub-02/func/sub-02_task-rest_bold.nii.gz": "T1",
        "derivatives/fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz": "T1",
    }
    for name, modality in names.items():
        write(root / name, image(modality))
    (root / "dataset_description.json").write_text("{}")


# --- RIRE ----------------------------------------------------------------------------------------------------------

RIRE_HEADER = """Group length := 194
Length to end := 1011
Modality := MR
Manufacturer := Siemens
Institution ID := Vanderbilt University

Group length := 176
Other Patient ID := 1

Group length := 223
Contrast/Bolus agent := none
Scanning sequence := SE
Slice thickness := {thickness:f}
Comments := {modality}

Group length := 100
Study := 3
Series := 1
Acquisition := 1
Patient orientation := {orientation}

Group length := 279
Image dimensions := 3
Rows := {rows}
Columns := {columns}
Slices := {slices}
Pixel size := {row_mm:f} : {column_mm:f}
Compression code := .Z
Bits allocated := 16
Bits stored := 16
High bit := 15
Pixel representation := 1
"""


def rire_scan(folder: Path, array: np.ndarray, modality: str, orientation: str = "L : P : H") -> None:
    """header.ascii and image.bin, big-endian."""
    folder.mkdir(parents=True)
    slices, rows, columns = array.shape
    text = RIRE_HEADER.format(
        thickness=SPACING_KJI[0],
        row_mm=SPACING_KJI[1],
        column_mm=SPACING_KJI[2],
        rows=rows,
        columns=columns,
        slices=slices,
        modality=modality,
        orientation=orientation,
    )
    (folder / "header.ascii").write_text(text, encoding="ascii", newline="\n")
    (folder / "image.bin").write_bytes(array.astype(">i2").tobytes())


def rire(root: Path) -> None:
    for patient in ("patient_001", "training_001"):
        for modality in ("T1", "T2", "PD"):
            rire_scan(root / patient / f"mr_{modality}", image(modality), modality)
        rire_scan(root / patient / "mr_T1_rectified", image("T1", subject=1), "T1")
        rire_scan(root / patient / "ct", image("FLAIR", (6, 16, 16)), "CT")


# --- ADNI ----------------------------------------------------------------------------------------------------------


def dicom_slices(
    folder: Path, array: np.ndarray, echo_ms: float, number: int, series: str, stem: str, geometry: Geometry
) -> None:
    """One echo's slices [k, j, i]; echoes of one series share `series`."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    for k, pixels in enumerate(array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", series, "MR"
        data.PatientID, data.EchoTime, data.InstanceNumber = "phantom", echo_ms, number + k
        data.Rows, data.Columns = pixels.shape
        data.PixelSpacing = [float(geometry.spacing_mm[1]), float(geometry.spacing_mm[0])]
        data.SliceThickness = float(geometry.spacing_mm[2])
        data.ImageOrientationPatient = [f"{v:.8f}" for v in geometry.direction[:, :2].T.ravel()]
        step = geometry.direction[:, 2] * geometry.spacing_mm[2]
        data.ImagePositionPatient = [f"{v:.6f}" for v in geometry.origin_lps + k * step]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelData = pixels.astype("<u2").tobytes()
        data.save_as(folder / f"{stem}_{number + k}_S1.dcm", enforce_file_format=True)


def adni(root: Path) -> None:
    """Two visits of one patient as DICOM, with PD and T2 in one series, and one of another as NIfTI files by echo."""
    geometry = volume(image("T2")).geometry
    for day, uid in (("2006-04-18_08_20_30.0", "1.2.3.41"), ("2006-11-02_08_16_44.0", "1.2.3.42")):
        folder = root / "ADNI" / "002_S_0295" / "Axial_PD_T2_FSE" / day / "S13405"
        stem = "ADNI_002_S_0295_MR_Axial_PD_T2_FSE__br_raw_20060418201717292"
        for modality, echo, number in (("T2", 98.2, 1), ("PD", 10.6, 9)):
            dicom_slices(folder, image(modality), echo, number, uid, stem, geometry)
    folder = root / "ADNI" / "005_S_0553" / "Double_TSE" / "2006-07-10_11_06_54.0" / "I19093"
    for modality, echo in (("PD", "e1"), ("T2", "e2")):
        write(folder / f"ADNI_005_S_0553_MR_Double_TSE_br_raw_20060713114526412_2_S16324_I19093_{echo}.nii", image(modality))
    for series in ("MP-RAGE", "MP-RAGE_REPEAT"):
        path = root / "ADNI" / "005_S_0553" / series / "2006-07-10_11_06_54.0" / "I19094" / "a.nii"
        write_volume(path, store(image("T1", (16, 14, 12)), spacing_kji=(1.2, 1.0, 1.0)))
