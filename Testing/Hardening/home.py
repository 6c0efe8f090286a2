"""What honest users have: tiny models, heads in all formats, an atlas set. The hostile cases are damaged copies of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE_TESTS = ROOT / "Testing" / "Core"
if str(CORE_TESTS) not in sys.path:
    sys.path.insert(0, str(CORE_TESTS))

import numpy as np
from packages import write_tiny_package
from tiny_segmenters import write_tiny_segmenter

from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import write_volume

SHAPE, SPACING_IJK = (12, 32, 28), (5.0, 5.0, 10.0)
FORMATS = ("nii", "nii.gz", "nrrd", "mha", "mgz", "mgh")
MODALITIES = ("T1", "T2")


@dataclass(frozen=True)
class Home:
    """Where the honest files are."""

    folder: Path

    @property
    def model(self) -> Path:
        """The card of a tiny T1 to T2 model."""
        return self.folder / "models" / "T1-T2.json"

    @property
    def segmenter(self) -> Path:
        """The card of a tiny tissue model of T1."""
        return self.folder / "models" / "tissue-T1.json"

    @property
    def atlases(self) -> Path:
        """An atlas set of two."""
        return self.folder / "atlases"

    @property
    def dicom(self) -> Path:
        """A folder with one DICOM series."""
        return self.folder / "dicom"

    def head(self, suffix: str = "nii.gz") -> Path:
        """A head's file in a format."""
        return self.folder / "heads" / f"T1.{suffix}"


def head_volume(seed: int = 0) -> Volume:
    """A small head with skull and scalp, float32 [k, j, i]; each seed is another one. Air is exactly 0."""
    k, j, i = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in SHAPE), indexing="ij")
    stream = np.random.default_rng(seed)
    a, b = stream.uniform(-0.1, 0.1, 2)
    tissue = 400 + 150 * k + 120 * j + 60 * i + 300 * np.exp(-((k - 0.3 - a) ** 2 + (j - b) ** 2 + (i - 0.2) ** 2) / 0.1)
    tissue = (tissue - 200 * np.exp(-((k + 0.1) ** 2 + (j - 0.45 - a) ** 2 + i**2) / 0.06)) * stream.uniform(0.98, 1.02, SHAPE)
    radius = np.sqrt((k / 1.05) ** 2 + (j / (1 + a / 2)) ** 2 + (i / 0.9) ** 2)
    array = np.where(radius < 0.8, tissue, np.where(radius < 0.9, 120, np.where(radius < 1, 900, 0))).astype(np.float32)
    return Volume(array, Geometry(SHAPE, np.array(SPACING_IJK), np.array([-70.0, -80.0, -60.0]), np.eye(3)), "head")


def make_home(folder: Path) -> Home:
    """Write everything into `folder`."""
    home = Home(folder)
    write_tiny_package(folder / "models")
    write_tiny_segmenter(folder / "models")
    for suffix in FORMATS:
        write_volume(home.head(suffix), head_volume())
    for number in (1, 2):
        volume = head_volume(number)
        place = folder / "atlases" / f"a{number}"
        for modality in MODALITIES:
            write_volume(place / f"{modality}.nii.gz", volume)
        write_volume(place / "labels.nii.gz", volume.with_array((volume.array > 0).astype(np.uint8) + (volume.array > 500)))
    (folder / "atlases" / "labels.csv").write_text("code,name,red,green,blue\n1,brain,255,0,0\n2,bright,0,255,0\n")
    (folder / "atlases" / "a1" / "landmarks.json").write_text('{"coordinateSystem": "LPS", "L1": [0, 0, 0], "L2": [5, 5, 5]}')
    write_series(home.dicom, head_volume())
    return home


def write_series(folder: Path, volume: Volume) -> None:
    """An MR series of a volume, one file a slice."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    folder.mkdir(parents=True)
    for k, pixels in enumerate(volume.array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, f"1.2.3.4.{k + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
        data.Modality, data.PatientID, data.PatientName, data.InstanceNumber = "MR", "phantom", "Phantom", k + 1
        data.Rows, data.Columns = pixels.shape
        data.PixelSpacing, data.SliceThickness = [SPACING_IJK[1], SPACING_IJK[0]], SPACING_IJK[2]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [float(v) for v in volume.geometry.origin_lps + [0, 0, k * SPACING_IJK[2]]]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelData = pixels.astype("<u2").tobytes()
        data.save_as(folder / f"{k + 1:03d}.dcm", enforce_file_format=True)
