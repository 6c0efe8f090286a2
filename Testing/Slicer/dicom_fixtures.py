"""What the tests of saving as DICOM share: a study, a volume as Slicer loads it from its database, and what must come out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import slicer
from panel_checks import ROOT
from translate_fixtures import head_array, set_matrix

sys.path.append(str(ROOT / "Testing" / "Core"))


def head_volume(array: np.ndarray | None = None, spacing_ijk: tuple[float, float, float] = (2.0, 2.0, 6.0)):
    """The phantom's head (or another array, [k, j, i]) on an oblique grid."""
    from scipy.spatial.transform import Rotation

    from IMTCore.volume import Geometry, Volume

    array = (head_array() if array is None else array).astype(np.float32)
    direction = Rotation.from_rotvec([0.1, -0.2, 0.15]).as_matrix()
    return Volume(array, Geometry(array.shape, spacing_ijk, (-40.0, -55.0, -30.0), direction))


@pytest.fixture(scope="module")
def dicom_study(tmp_path_factory) -> Path:
    """A study with the head as T1 and T2, all files in one folder; not to be changed."""
    from dicom_studies import write_study

    head = head_volume()
    return write_study(tmp_path_factory.mktemp("Studie ö") / "study", {"T1": head, "T2": head}, flat=True)


def instances(study: Path, number: int) -> list[str]:
    """The UIDs of a series' slices, in the order of their files."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(study.glob(f"{number}-*"))]
    return [str(header.SOPInstanceUID) for header in headers]


def add_from_dicom(study: Path, head=None):
    """A volume node as Slicer has it after loading series 2, of `head`, from its database, with the slices in the other order."""
    from DICOMLib import DICOMUtils

    slicer.dicomDatabase.initializeDatabase()
    DICOMUtils.importDicom(str(study))
    head = head or head_volume()
    array, matrix = head.array.astype(np.int16)[::-1].copy(), head.geometry.affine_ras
    matrix = matrix @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(array) - 1], [0, 0, 0, 1.0]])
    node = slicer.util.addVolumeFromArray(array, name="2: t1_mprage_sag")
    set_matrix(node, matrix)
    node.SetAttribute("DICOM.instanceUIDs", " ".join(instances(study, 2)))
    return node


def check_series(folder: Path, node, study: Path) -> None:
    """The files are the node's image, marked as synthetic, in the place of the source's slices."""
    from IMTCore.volume_io import read_volume

    files = sorted(folder.iterdir())
    headers = [pydicom.dcmread(path) for path in files]
    assert len(files) == node.GetImageData().GetDimensions()[2]
    assert all(header.SyntheticData == "YES" and header.SeriesDescription.startswith("SYNTHETIC T2 from T1") for header in headers)
    assert {header.StudyInstanceUID for header in headers} == {"1.2.3.4"} and {header.SeriesNumber for header in headers} == {9002}
    assert {header.SourceImageSequence[0].ReferencedSOPInstanceUID for header in headers} == set(instances(study, 2))
    written = read_volume(folder)
    assert written.geometry.is_close(head_volume().geometry, 1e-2)
    shown = slicer.util.arrayFromVolume(node)[::-1]
    assert np.abs(written.array - shown).max() <= np.ptp(shown) / 65535
