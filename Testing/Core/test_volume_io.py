"""Claims on reading and writing images: geometry, values, refusals, and what a failure leaves behind."""

from __future__ import annotations

import errno
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import head_phantom, rotation_matrix, store
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import IMTCore
from IMTCore.errors import BadInput, OutputFailure
from IMTCore.files import describe_write_error
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import WRITABLE, check_output_path, read_volume, write_volume

HEAD = head_phantom((9, 12, 10))
SPACING_KJI = (3.0, 0.9, 1.2)
NIFTI = (".nii", ".nii.gz")
DTYPES = ("uint8", "int16", "int32", "uint16", "float32", "float64")


def oblique_head(dtype: str = "float32", left_handed: bool = False) -> Volume:
    volume = store(HEAD, ((0, 1, 2), (False, False, left_handed)), SPACING_KJI, rotation_matrix(2, 20.0))
    return volume.with_array((volume.array / 4).astype(dtype))


def affine(seed: int, left_handed: bool = False) -> np.ndarray:
    """A rigid RAS affine with voxels of 1.2 × 0.9 × 3 mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(seed, 20.0) * [-1.2 if left_handed else 1.2, 0.9, 3.0]
    matrix[:3, 3] = (10.25 * seed, -7.5, 3.125)
    return matrix


def save_nifti(path, data_ijk, qform, qcode, sform, scode, kind=nibabel.Nifti1Image):
    header = kind.header_class()
    header.set_data_dtype(data_ijk.dtype)
    header.set_data_shape(data_ijk.shape)
    header.set_qform(qform, code=qcode)
    header.set_sform(sform, code=scode)
    kind(data_ijk, None, header).to_filename(path)


def raw_bytes(path) -> bytes:
    data = Path(path).read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def form_bytes(path) -> tuple[bytes, ...]:
    """The bytes, by the offsets in nifti1.h and nifti2.h: qfac and voxel size; codes, quaternion, offsets and sform."""
    data = raw_bytes(path)
    if struct.unpack("<i", data[:4])[0] == 348:
        return data[76:92], data[252:328]
    return data[104:136], data[344:496]


# ---------------------------------------------------------------- NIfTI to NIfTI


@pytest.mark.parametrize("suffix", NIFTI)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1), (2, 3), (4, 2), (3, 4)])
@pytest.mark.parametrize("left_handed", [False, True])
def test_a_nifti_result_has_the_inputs_forms_and_codes_byte_for_byte(tmp_path, suffix, kind, codes, left_handed):
    # The qform and the sform differ, as after a registration.
    source, result = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    save_nifti(source, HEAD.T, affine(1, left_handed), codes[0], affine(2, left_handed), codes[1], kind)
    volume = read_volume(source)
    write_volume(result, volume.with_array(volume.array * 0.5), "IMT")
    assert form_bytes(result) == form_bytes(source)
    qfac = np.frombuffer(form_bytes(source)[0], "<f4" if kind is nibabel.Nifti1Image else "<f8")[0]
    assert qfac == (-1 if left_handed else 1)
    assert np.array_equal(np.asarray(nibabel.load(result).dataobj), HEAD.T * 0.5)


def test_forms_are_kept_from_one_nifti_suffix_and_byte_order_to_another(tmp_path):
    source, result = tmp_path / "in.nii", tmp_path / "out.nii.gz"
    save_nifti(source, HEAD.T, affine(1), 2, affine(2), 3)
    write_volume(result, read_volume(source))
    assert form_bytes(result) == form_bytes(source)


def test_forms_are_kept_from_a_nifti_pair(tmp_path):
    source, result = tmp_path / "in.hdr", tmp_path / "out.nii"
    save_nifti(source, HEAD.T, affine(1), 2, affine(2), 3, nibabel.Nifti1Pair)
    write_volume(result, read_volume(source))
    assert form_bytes(result) == form_bytes(source)
    assert np.array_equal(read_volume(tmp_path / "in.img").array, HEAD)


@pytest.mark.parametrize("codes", [(q, s) for q in range(5) for s in range(5)])
def test_of_two_forms_a_nifti_is_placed_by_the_one_that_itk_takes(tmp_path, codes):
    path = tmp_path / "a.nii"
    save_nifti(path, HEAD.T, affine(1), codes[0], affine(2), codes[1])
    ours, itks = read_volume(path).geometry, sitk.ReadImage(str(path))
    np.testing.assert_allclose(ours.origin_lps, itks.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(ours.direction.ravel(), itks.GetDirection(), atol=1e-5)


@pytest.mark.parametrize("suffix", NIFTI)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nifti_values_are_the_real_world_values(tmp_path, suffix, dtype):
    path = tmp_path / f"in{suffix}"
    data = (HEAD.T / 4).astype(dtype)
    save_nifti(path, data, affine(1), 1, affine(1), 1)
    assert np.array_equal(read_volume(path).array, data.T.astype(np.float32))
    assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_scaled_nifti_is_read_scaled_and_its_result_is_not_scaled_again(tmp_path, dtype):
    source, result = tmp_path / "in.nii", tmp_path / "out.nii"
    stored = (HEAD.T / 4).astype(dtype)
    save_nifti(source, stored, affine(1), 1, affine(2), 2)
    data = bytearray(source.read_bytes())
    data[112:120] = struct.pack("<ff", 0.25, -3.0)  # scl_slope, scl_inter
    source.write_bytes(data)
    volume = read_volume(source)
    assert np.allclose(volume.array, stored.T * 0.25 - 3.0, rtol=1e-6)
    write_volume(result, volume)
    assert np.array_equal(read_volume(result).array, volume.array)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(result))), volume.array)
    assert form_bytes(result) == form_bytes(source)


def test_images_of_the_other_byte_order_are_read_and_written_in_every_format(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.set_data_shape(HEAD.T.shape)
    header.set_sform(affine(2), code=1)
    nibabel.Nifti1Image(HEAD.T.astype(">i2"), None, header).to_filename(tmp_path / "big.nii")
    nibabel.freesurfer.MGHImage(HEAD.T.astype(np.int16), affine(2)).to_filename(tmp_path / "big.mgz")
    for name in ("big.nii", "big.mgz"):
        volume = read_volume(tmp_path / name)
        assert volume.array.dtype.isnative
        for suffix in WRITABLE:
            write_volume(tmp_path / f"out{suffix}", volume)
            again = read_volume(tmp_path / f"out{suffix}")
            assert np.array_equal(again.array, HEAD.astype(np.int16)), (name, suffix)
            assert again.geometry.is_close(volume.geometry), (name, suffix)


def test_a_volume_does_not_hang_on_its_file(tmp_path):
    path = tmp_path / "in.nii"
    save_nifti(path, HEAD.T, affine(1), 1, affine(1), 1)
    volume = read_volume(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(volume.array, HEAD)


# ---------------------------------------------------------------- all formats


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("left_handed", [False, True])
def test_a_round_trip_keeps_grid_and_values(tmp_path, suffix, left_handed):
    volume = oblique_head(left_handed=left_handed)
    write_volume(tmp_path / f"a{suffix}", volume)
    again = read_volume(tmp_path / f"a{suffix}")
    assert np.array_equal(again.array, volume.array)
    assert again.geometry.is_close(volume.geometry, 2e-4)  # float32 headers
    assert np.linalg.det(again.geometry.direction) * (-1 if left_handed else 1) > 0.99


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "int64", "bool"])
def test_every_format_takes_every_type_of_value(tmp_path, suffix, dtype):
    volume = oblique_head()
    volume = volume.with_array((volume.array / 4).astype(dtype))
    write_volume(tmp_path / f"a{suffix}", volume)
    assert np.array_equal(read_volume(tmp_path / f"a{suffix}").array, volume.array.astype(np.float32))


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_volume_read_from_any_format_can_be_written_in_any_other(tmp_path, suffix):
    write_volume(tmp_path / f"a{suffix}", oblique_head("int16"))
    volume = read_volume(tmp_path / f"a{suffix}")
    for other in WRITABLE:
        write_volume(tmp_path / f"b{other}", volume)
        again = read_volume(tmp_path / f"b{other}")
        assert np.array_equal(again.array, volume.array)
        assert again.geometry.is_close(volume.geometry, 2e-4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("left_handed", [False, True])
def test_simpleitk_finds_a_written_image_where_it_was_put(tmp_path, suffix, left_handed):
    volume = oblique_head(left_handed=left_handed)
    write_volume(tmp_path / f"a{suffix}", volume)
    image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    corner = [n - 1 for n in volume.array.shape[::-1]]
    expected = volume.geometry.origin_lps + volume.geometry.direction @ (volume.geometry.spacing_mm * corner)
    assert np.allclose(image.TransformIndexToPhysicalPoint(corner), expected, atol=2e-4)
    assert np.allclose(image.GetOrigin(), volume.geometry.origin_lps, atol=1e-5)
    assert np.allclose(image.GetSpacing(), volume.geometry.spacing_mm, rtol=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)


@pytest.mark.parametrize("left_handed", [False, True])
def test_simpleitk_and_imt_agree_on_where_a_nifti_lies(tmp_path, left_handed):
    save_nifti(tmp_path / "a.nii.gz", HEAD.T, affine(3, left_handed), 1, affine(3, left_handed), 1)
    image, geometry = sitk.ReadImage(str(tmp_path / "a.nii.gz")), read_volume(tmp_path / "a.nii.gz").geometry
    other = Geometry(geometry.shape, image.GetSpacing(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)))
    assert geometry.is_close(other, 2e-4)


@pytest.mark.parametrize("name", ["A.NII", "A.NII.GZ", "A.MGZ", "A.NRRD", "A.MHA", "a b.nii.GZ", "ünï.nrrd", "ünï.mha"])
def test_capital_letters_blanks_and_accents_in_names_do_no_harm(tmp_path, name):
    volume = oblique_head()
    write_volume(tmp_path / name, volume)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_volume(tmp_path / name).array, volume.array)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mgz"])
def test_single_slices_are_read_and_written(tmp_path, suffix):
    volume = store(HEAD[4:5], spacing_kji=SPACING_KJI, rotation=rotation_matrix(2, 20.0))
    write_volume(tmp_path / f"a{suffix}", volume)
    again = read_volume(tmp_path / f"a{suffix}")
    assert again.array.shape == (1, 12, 10)
    assert again.geometry.is_close(volume.geometry, 2e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii"])
def test_two_dimensional_files_are_read_as_one_slice(tmp_path, suffix):
    image = sitk.GetImageFromArray(HEAD[4])
    image.SetSpacing((0.5, 0.75))
    image.SetOrigin((3.0, -4.0))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert np.array_equal(volume.array, HEAD[4:5])
    assert np.allclose(volume.geometry.spacing_mm[:2], (0.5, 0.75))
    assert np.allclose(volume.geometry.origin_lps, (3, -4, 0))


def test_a_four_dimensional_nifti_of_one_frame_is_a_volume_and_keeps_its_forms(tmp_path):
    for extra in ((None,), (None, None)):
        save_nifti(tmp_path / "a.nii", HEAD.T[(..., *extra)], affine(1), 2, affine(2), 3)
        volume = read_volume(tmp_path / "a.nii")
        assert np.array_equal(volume.array, HEAD)
        write_volume(tmp_path / "b.nii", volume)
        assert form_bytes(tmp_path / "b.nii") == form_bytes(tmp_path / "a.nii")
        assert nibabel.load(tmp_path / "b.nii").shape == HEAD.T.shape


# ---------------------------------------------------------------- DICOM


def write_dicom(folder, array, geometry: Geometry, *, slopes=1.0, skip=(), uid=None, step=None, first_name=0, thickness=None):
    """Write uint16 slices [k, j, i] with shuffled names; `slopes` is one RescaleSlope or one a slice, intercept −10."""
    folder.mkdir(exist_ok=True)
    uid = uid or generate_uid()
    step = geometry.direction[:, 2] * geometry.spacing_mm[2] if step is None else step
    order = np.random.default_rng(4).permutation(len(array))
    for k, pixels in enumerate(array):
        if k in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3.4", uid, "MR"
        data.PatientName = data.PatientID = "phantom"
        data.InstanceNumber = int(order[-1 - k]) + 1
        data.Rows, data.Columns = pixels.shape
        data.PixelSpacing = [float(geometry.spacing_mm[1]), float(geometry.spacing_mm[0])]
        data.SliceThickness = float(geometry.spacing_mm[2]) if thickness is None else thickness
        data.ImageOrientationPatient = [f"{v:.10f}" for v in geometry.direction[:, :2].T.ravel()]
        data.ImagePositionPatient = [f"{v:.8f}" for v in geometry.origin_lps + k * step]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleSlope, data.RescaleIntercept = float(np.broadcast_to(slopes, len(array))[k]), -10.0
        data.PixelData = pixels.astype("<u2").tobytes()
        data.save_as(folder / f"{first_name + order[k]:03d}.dcm", enforce_file_format=True)


STORED = HEAD.astype(np.uint16)
GRID = store(HEAD, spacing_kji=SPACING_KJI, rotation=rotation_matrix(6, 25.0)).geometry


def test_a_dicom_series_is_read_where_its_headers_put_it_whatever_its_file_names(tmp_path):
    write_dicom(tmp_path / "s", STORED, GRID, slopes=0.5)
    (tmp_path / "s" / "notes.txt").write_text("not DICOM")
    assert sorted(p.name for p in (tmp_path / "s").glob("*.dcm")) != [
        Path(n).name for n in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "s"))
    ]
    volume = read_volume(tmp_path / "s")
    assert volume.geometry.is_close(GRID, 1e-4)
    assert np.allclose(volume.array, STORED * 0.5 - 10, rtol=1e-6)
    assert volume.array.max() > 300  # the head is there


def test_a_series_that_is_rescaled_slice_by_slice_keeps_its_fractions(tmp_path):
    slopes = np.array([1.0, *(0.37 * np.arange(1, 9))])
    write_dicom(tmp_path / "s", STORED + 1, GRID, slopes=slopes)
    expected = (STORED + 1.0) * slopes[:, None, None] - 10
    assert np.abs(read_volume(tmp_path / "s").array - expected).max() < 1e-3


def test_a_single_dicom_slice_has_its_thickness(tmp_path):
    write_dicom(tmp_path / "s", STORED[4:5], GRID)
    volume = read_volume(tmp_path / "s")
    assert volume.array.shape == (1, 12, 10)
    assert np.allclose(volume.geometry.spacing_mm, GRID.spacing_mm)
    assert np.allclose(volume.geometry.direction, GRID.direction, atol=1e-6)


def test_a_gap_between_thick_slices_counts_as_slice_distance(tmp_path):
    write_dicom(tmp_path / "s", STORED, GRID, thickness=1.0)
    assert read_volume(tmp_path / "s").geometry.is_close(GRID, 1e-4)


def test_a_dicom_series_with_a_missing_slice_is_refused(tmp_path):
    write_dicom(tmp_path / "s", STORED, GRID, skip=(4,))
    with pytest.raises(BadInput, match=r"(?s)not evenly spaced \(3 to 6 mm\)") as refusal:
        read_volume(tmp_path / "s")
    assert str(tmp_path / "s") in str(refusal.value)


def test_a_dicom_series_with_a_double_slice_is_refused(tmp_path):
    uid = generate_uid()
    write_dicom(tmp_path / "s", STORED, GRID, uid=uid)
    write_dicom(tmp_path / "s", STORED, GRID, uid=uid, skip=(0, 1, 2, 4, 5, 6, 7, 8), first_name=100)
    with pytest.raises(BadInput, match="not evenly spaced"):
        read_volume(tmp_path / "s")


def test_a_tilted_gantry_is_refused_and_not_straightened_in_silence(tmp_path):
    step = GRID.direction @ np.array([0, 0.2, 3.0])
    write_dicom(tmp_path / "s", STORED, GRID, step=step)
    with pytest.raises(BadInput, match="tilted"):
        read_volume(tmp_path / "s")


def test_two_series_in_a_folder_are_refused(tmp_path):
    write_dicom(tmp_path / "s", STORED, GRID)
    write_dicom(tmp_path / "s", STORED, GRID, first_name=100)
    with pytest.raises(BadInput, match="holds 2 DICOM series"):
        read_volume(tmp_path / "s")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(BadInput, match="no DICOM image series"):
        read_volume(tmp_path)


def test_a_truncated_dicom_series_is_refused(tmp_path):
    write_dicom(tmp_path / "s", STORED, GRID)
    victim = sorted((tmp_path / "s").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-100])
    assert len(pydicom.dcmread(sorted((tmp_path / "s").iterdir())[0]).PixelData) == 240
    with pytest.raises(BadInput):
        read_volume(tmp_path / "s")


# ---------------------------------------------------------------- refusals


def refused(path) -> str:
    """The message with which `path` is refused; it must name the file."""
    with pytest.raises(BadInput) as refusal:
        read_volume(path)
    assert Path(path).name in str(refusal.value)
    return str(refusal.value)


def test_a_missing_file_is_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mgz", ".mgh", ".hdr"])
def test_text_under_an_image_name_is_refused(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_text("This is a note, not an image.\n" * 40)
    refused(path)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).normal(size=HEAD.shape).astype(np.float32)
    path = tmp_path / f"part{suffix}"
    write_volume(path, store(noise))
    read_volume(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "No such file" not in refused(path)


@pytest.mark.parametrize("suffix", [*WRITABLE, ".hdr"])
def test_an_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"empty{suffix}"
    path.write_bytes(b"")
    assert "empty file" in refused(path)


def test_a_series_of_volumes_is_refused(tmp_path):
    nibabel.Nifti1Image(np.stack([HEAD.T] * 2, -1), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert "4D" in refused(tmp_path / "a.nii")
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(HEAD)] * 2), str(tmp_path / f"a{suffix}"))
        assert "4D" in refused(tmp_path / f"a{suffix}")


def test_colour_images_and_vectors_are_refused(tmp_path):
    rgb = np.zeros(HEAD.T.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"] = 7
    nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "a.nii")
    assert "colour" in refused(tmp_path / "a.nii")
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([HEAD] * 3, -1), isVector=True), str(tmp_path / f"a{suffix}"))
        assert "scalar" in refused(tmp_path / f"a{suffix}")


def test_complex_images_are_refused(tmp_path):
    nibabel.Nifti1Image(HEAD.T.astype(np.complex64), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert "complex" in refused(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", WRITABLE)
def test_constant_images_are_refused_with_their_value(tmp_path, suffix):
    write_volume(tmp_path / f"a{suffix}", store(np.full((3, 4, 5), 12.5, np.float32)))
    assert "constant (every voxel is 12.5)" in refused(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mgz"])
def test_voxels_that_are_no_numbers_are_refused_with_their_count(tmp_path, suffix):
    array = HEAD.copy()
    array[0, 0, :3] = np.nan
    array[1, 2, 3], array[1, 2, 4] = np.inf, -np.inf
    write_volume(tmp_path / f"a{suffix}", store(array))
    assert " 5 voxels that are NaN or infinite" in refused(tmp_path / f"a{suffix}")


def patched(tmp_path, change) -> Path:
    """A NIfTI whose sform's three rows are changed in the file's bytes (offset 280)."""
    path = tmp_path / "a.nii"
    save_nifti(path, HEAD.T, affine(1), 1, affine(1), 1)
    data = bytearray(path.read_bytes())
    rows = np.frombuffer(bytes(data[280:328]), "<f4").reshape(3, 4).copy()
    change(rows)
    data[280:328] = rows.astype("<f4").tobytes()
    path.write_bytes(data)
    return path


def test_a_nifti_with_an_axis_of_no_length_is_refused(tmp_path):
    def change(rows):
        rows[:, 1] = 0

    assert "singular" in refused(patched(tmp_path, change))


def test_a_nifti_with_two_parallel_axes_is_refused(tmp_path):
    def change(rows):
        rows[:, 1] = rows[:, 0]

    assert "singular" in refused(patched(tmp_path, change))


def test_a_sheared_nifti_is_refused(tmp_path):
    def change(rows):
        rows[:, 1] += 0.05 * rows[:, 0]

    assert "sheared" in refused(patched(tmp_path, change))


def test_a_nifti_with_a_position_that_is_no_number_is_refused(tmp_path):
    def change(rows):
        rows[0, 3] = np.nan

    assert "finite" in refused(patched(tmp_path, change))


@pytest.mark.parametrize("directions", ["(1,0,0) (2,0,0) (0,0,3)", "(1,0,0) (0,1,0) (0,0,0)", "(1,0,0) (0.2,1,0) (0,0,3)"])
def test_an_nrrd_with_a_singular_or_sheared_grid_is_refused(tmp_path, directions):
    path = tmp_path / "a.nrrd"
    head = (
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 12 9\n"
        "space directions: {}\nkinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    path.write_bytes(head.format("(1,0,0) (0,2,0) (0,0,3)").encode() + HEAD.tobytes())
    assert np.allclose(read_volume(path).geometry.spacing_mm, (1, 2, 3))
    path.write_bytes(head.format(directions).encode() + HEAD.tobytes())
    refused(path)


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a", "nii", ".nii.gz", "a.nii.zip"])
def test_names_of_other_kinds_are_refused_in_reading_and_writing(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 500)
    assert ".nii.gz" in refused(tmp_path / name)
    with pytest.raises(BadInput, match=r"end its name in one of \.nii, \.nii\.gz"):
        check_output_path(tmp_path / name)
    with pytest.raises(BadInput):
        write_volume(tmp_path / name, oblique_head())
    assert (tmp_path / name).read_bytes() == b"x" * 500


def test_another_image_format_under_an_image_name_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(HEAD[4].astype(np.uint8)), str(tmp_path / "a.png"))
    for suffix in (".nrrd", ".mha", ".nii"):
        (tmp_path / f"a{suffix}").write_bytes((tmp_path / "a.png").read_bytes())
        refused(tmp_path / f"a{suffix}")


# ---------------------------------------------------------------- descriptions


@pytest.mark.parametrize("from_nifti", [False, True])
def test_a_description_is_in_the_nifti_header_and_cut_to_its_field(tmp_path, from_nifti):
    volume = oblique_head()
    if from_nifti:
        save_nifti(tmp_path / "in.nii", HEAD.T, affine(1), 1, affine(2), 2)
        volume = read_volume(tmp_path / "in.nii")
    texts = {"synthetic T2w; IMT": b"synthetic T2w; IMT", "x" * 200: b"x" * 79, "two\nlines ü": b"two lines ?"}
    for text, expected in texts.items():
        write_volume(tmp_path / "a.nii", volume, text)
        assert raw_bytes(tmp_path / "a.nii")[148:228].rstrip(b"\0") == expected


def test_a_description_and_metadata_are_in_the_nrrd_and_metaimage_headers(tmp_path):
    for suffix in (".nrrd", ".mha"):
        write_volume(tmp_path / f"a{suffix}", oblique_head(), "synthetic T2w; IMT", {"IMT_model": "t1-t2"})
        assert sitk.ReadImage(str(tmp_path / f"a{suffix}")).GetMetaData("IMT_model") == "t1-t2"
    assert sitk.ReadImage(str(tmp_path / "a.nrrd")).GetMetaData("NRRD_content") == "synthetic T2w; IMT"
    assert b"\nComment = synthetic T2w; IMT\n" in (tmp_path / "a.mha").read_bytes()  # ITK does not hand it on


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii", ".mgz"])
def test_line_breaks_and_accents_in_a_description_do_not_break_the_file(tmp_path, suffix):
    volume = oblique_head()
    write_volume(tmp_path / f"a{suffix}", volume, "two\n\nlines = ünï\nDimSize = 1 1 1", {"IMT_note": "a\nNDims = 2\n\nb"})
    assert np.array_equal(read_volume(tmp_path / f"a{suffix}").array, volume.array)


# ---------------------------------------------------------------- failures in writing


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_file_used_as_a_folder_is_an_output_failure_and_stays(tmp_path, suffix):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputFailure, match="file is in the way of its folder"):
        write_volume(tmp_path / "file" / f"a{suffix}", oblique_head())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_the_targets_name_is_an_output_failure_and_stays(tmp_path):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(OutputFailure, match="folder of that name"):
        write_volume(tmp_path / "a.nii", oblique_head())
    assert [p.name for p in tmp_path.rglob("*")] == ["a.nii"]


def test_missing_folders_are_made(tmp_path):
    write_volume(tmp_path / "new" / "deep" / "a.nii", oblique_head())
    assert read_volume(tmp_path / "new" / "deep" / "a.nii").array.shape == HEAD.shape


def test_a_full_disk_is_named_as_such():
    assert "disk is full" in describe_write_error(Path("a.nii"), OSError(errno.ENOSPC, "No space left on device"))


# The kernel refuses to let a file of this child grow beyond the limit: like a full disk, amid the writing.
CHILD = """
import resource, sys
import numpy as np
from IMTCore.errors import OutputFailure
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import WRITABLE, write_volume
array = np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32)
volume = Volume(array, Geometry(array.shape, (1, 1, 1), (0, 0, 0), np.eye(3)))
for suffix in WRITABLE:  # once in full, so that all modules are loaded
    write_volume(sys.argv[1] + "/whole" + suffix, volume)
for limit in (150_000, 3_000, 10):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for suffix in WRITABLE:
        for name in ("new", "old"):
            try:
                write_volume(sys.argv[1] + "/" + name + suffix, volume)
                print("WRITTEN", limit, name + suffix)
            except OutputFailure as failure:
                print("FAILED", str(failure).startswith("Cannot write " + sys.argv[1] + "/" + name + suffix + ":"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes to set")
def test_a_write_that_fails_midway_leaves_nothing_new_and_the_old_file_as_it_was(tmp_path):
    for suffix in WRITABLE:
        (tmp_path / f"old{suffix}").write_bytes(b"the old result")
    places = os.environ | {"PYTHONPATH": str(Path(IMTCore.__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, env=places)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == ["FAILED True"] * (3 * 2 * len(WRITABLE))
    for suffix in WRITABLE:
        assert (tmp_path / f"old{suffix}").read_bytes() == b"the old result"
        assert (tmp_path / f"whole{suffix}").stat().st_size > 150_000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{n}{s}" for n in ("old", "whole") for s in WRITABLE)


@pytest.mark.parametrize("units", ["mm", "meter", "micron"])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 1)])
def test_nifti_units_and_missing_forms_are_read_as_itk_reads_them(tmp_path, units, codes):
    affine = np.diag([-1.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = 5, 6, 7
    affine[:3] *= {"mm": 1, "meter": 1e-3, "micron": 1e3}[units]
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((4, 5, 6), dtype=np.float32), affine)
    image.header.set_xyzt_units(units)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    path = tmp_path / "a.nii"
    image.to_filename(path)
    ours, itks = read_volume(path).geometry, sitk.ReadImage(str(path))
    np.testing.assert_allclose(ours.spacing_mm, itks.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(ours.origin_lps, itks.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(ours.direction.ravel(), itks.GetDirection(), atol=1e-6)
