"""Claims on DICOM series that are no single even stack, and on how files are stored: refused with what they are, never read wrongly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import SMALL_HEAD, rotation_matrix, store
from dicom_studies import new_slice, set_pixels, set_place, write_enhanced, write_localizer, write_series
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from IMTCore.dicom_studies import read_study
from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume

HEAD = store(SMALL_HEAD, spacing_kji=(3.0, 2.5, 2.25), rotation=rotation_matrix(3, 25.0))
SLICES = len(SMALL_HEAD)


def refused(folder: Path) -> str:
    """What reading says, which is also what the list says."""
    with pytest.raises(BadInput) as caught:
        read_volume(folder)
    (series,) = read_study(folder)
    assert series.problem.removeprefix("In this series") == str(caught.value).removeprefix(f"In the DICOM series in {folder}")
    assert str(folder) in str(caught.value)
    return series.problem


def write_twice(folder: Path, **second: object) -> Path:
    """Two stacks at the same places in one series."""

    def edit(data: pydicom.FileDataset, _k: int) -> None:
        data.SeriesInstanceUID = "1.2.3.77"

    write_series(folder, HEAD, 5, edit, names="a{:03d}", EchoTime=14, ImageType=["ORIGINAL", "PRIMARY", "M"])
    return write_series(folder, HEAD, 5, edit, names="b{:03d}", **{"EchoTime": 14, "ImageType": ["ORIGINAL", "PRIMARY", "M"], **second})


@pytest.mark.parametrize(
    ("second", "what"),
    [({"EchoTime": 98}, "2 echoes, TE 14.0, 98.0 ms"), ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "magnitude and phase"), ({}, "time points")],
    ids=["echoes", "phase", "time"],
)
def test_several_stacks_in_one_series_are_refused_with_what_they_are(tmp_path, second, what):
    message = refused(write_twice(tmp_path / "series", **second))
    assert f"{2 * SLICES} slices lie at {SLICES} places" in message and what in message


def test_a_mosaic_is_refused(tmp_path):
    big = Volume(np.tile(SMALL_HEAD[:4], (1, 2, 2)), Geometry((4, 48, 42), (2, 2, 3), (0, 0, 0), np.eye(3)))
    assert "mosaic" in refused(write_series(tmp_path / "series", big, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]))


def test_a_tilted_stack_and_slices_of_two_sizes_are_refused(tmp_path):
    def tilt(data: pydicom.FileDataset, k: int) -> None:
        place = HEAD.geometry.origin_lps + HEAD.geometry.direction @ np.array([0, 0.6, 3.0]) * k
        data.ImagePositionPatient = [f"{v:.6f}" for v in place]

    assert "tilted" in refused(write_series(tmp_path / "tilted", HEAD, edit=tilt))

    def crop(data: pydicom.FileDataset, k: int) -> None:
        set_pixels(data, np.rint(HEAD.array[k][: 24 - (k == 3)]))

    assert "differ in size" in refused(write_series(tmp_path / "cropped", HEAD, edit=crop))
    assert "one direction" in refused(write_localizer(tmp_path / "localizer", HEAD))


def test_a_colour_series_and_another_kind_of_image_are_not_usable(tmp_path):
    def paint(data: pydicom.FileDataset, k: int) -> None:
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit = 7
        data.PixelData = np.repeat(HEAD.array[k][..., None], 3, -1).astype(np.uint8).tobytes()

    assert "in colour" in refused(write_series(tmp_path / "colour", HEAD, edit=paint))
    write_series(tmp_path / "ct", HEAD, Modality="CT")
    (series,) = read_study(tmp_path / "ct")
    assert "no MR image but CT" in series.problem


@pytest.mark.parametrize("order", [range(SLICES), range(SLICES)[::-1]], ids=["up", "down"])
def test_an_enhanced_image_of_one_stack_is_read_where_its_frames_lie(tmp_path, order):
    write_enhanced(tmp_path / "e/x.dcm", HEAD, order)
    volume = read_volume(tmp_path / "e")
    for k in (0, 4):
        n = list(order).index(k)
        place = volume.geometry.origin_lps + volume.geometry.direction[:, 2] * volume.geometry.spacing_mm[2] * n
        np.testing.assert_allclose(place, HEAD.geometry.origin_lps + HEAD.geometry.direction[:, 2] * 3.0 * k, atol=1e-3)
        np.testing.assert_array_equal(volume.array[n], np.rint(HEAD.array[k]))


def test_an_enhanced_image_whose_frames_are_no_even_stack_is_refused(tmp_path):
    for name, order in (("shuffled", [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]), ("gap", [0, 1, 2, 3, 5, 6, 7]), ("twice", [0, 1, 2, 3, 0, 1, 2, 3])):
        write_enhanced(tmp_path / name / "x.dcm", HEAD, order)
        assert "not one even stack" in refused(tmp_path / name), name


def test_an_enhanced_image_is_not_read_on_trust_where_its_frames_cannot_be_checked(tmp_path, monkeypatch):
    write_enhanced(tmp_path / "e/x.dcm", HEAD, range(SLICES))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BadInput, match="pip install pydicom"):
        read_volume(tmp_path / "e")


def test_several_frames_without_places_are_refused(tmp_path):
    data = new_slice()
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID, data.PatientID = "MR", "1.2.3.8", "1.2.3.9", "P"
    set_place(data, HEAD.geometry, 0)
    set_pixels(data, np.rint(HEAD.array).reshape(-1, 21))
    data.Rows, data.NumberOfFrames = 24, SLICES
    (tmp_path / "m").mkdir()
    data.save_as(tmp_path / "m/x.dcm", enforce_file_format=True)
    assert "their places cannot be read" in refused(tmp_path / "m")


def test_compressed_files_are_read(tmp_path):
    def compress(data: pydicom.FileDataset, _k: int) -> None:
        data.compress(RLELossless, generate_instance_uid=False)

    write_series(tmp_path / "rle", HEAD, edit=compress)
    np.testing.assert_array_equal(read_volume(tmp_path / "rle").array, np.rint(HEAD.array))
    (series,) = read_study(tmp_path / "rle")
    assert not series.problem


def test_implicit_vr_is_read(tmp_path):
    def implicit(data: pydicom.FileDataset, _k: int) -> None:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    write_series(tmp_path / "implicit", HEAD, edit=implicit)
    np.testing.assert_array_equal(read_volume(tmp_path / "implicit").array, np.rint(HEAD.array))
