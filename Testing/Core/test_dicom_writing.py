"""Claims on `imt dicom`: no one takes the series for a real one, it lies where its source lies, and nothing is half written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import SMALL_HEAD, rotation_matrix, store
from dicom_studies import write_series
from packages import tiny_card, tiny_network
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from IMTCommand.__main__ import main
from IMTCore.derived_outputs import OutputWriter, base_record
from IMTCore.dicom_sources import on_grid
from IMTCore.dicom_writing import write_synthetic_series
from IMTCore.errors import Cancelled
from IMTCore.model_packages import save_package
from IMTCore.provenance import NOTICE, sidecar_path
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator, translate_file
from IMTCore.version import VERSION
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume

HEAD = store(SMALL_HEAD, spacing_kji=(3.0, 2.5, 2.25), rotation=rotation_matrix(3, 25.0))
SLICES = len(SMALL_HEAD)
# What would pass the source's acquisition off as the synthetic image's, or tell where it was made.
ACQUISITION = {
    "EchoTime": 91.7,
    "RepetitionTime": 4321.5,
    "FlipAngle": 77,
    "InversionTime": 812.25,
    "MagneticFieldStrength": 2.89362,
    "ScanningSequence": "GR",
    "SequenceName": "tfl3d-secret",
    "ProtocolName": "protocol-secret",
    "Manufacturer": "maker-secret",
    "DeviceSerialNumber": "serial-secret",
    "StationName": "station-secret",
    "InstitutionName": "hospital-secret",
    "OperatorsName": "operator-secret",
    "AcquisitionTime": "101112.131415",
    "AcquisitionDate": "20190305",
    "ContrastBolusAgent": "agent-secret",
    "SoftwareVersions": "software-secret",
    "ImageComments": "comment-secret",
}
KEPT = {
    "PatientID": "P-17",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "PatientAge": "049Y",
    "StudyID": "S9",
    "StudyDate": "20190305",
    "StudyTime": "095000",
    "StudyDescription": "Head",
    "AccessionNumber": "A-5",
    "ReferringPhysicianName": "Doe^Jane",
    "PatientPosition": "HFS",
    "BodyPartExamined": "BRAIN",
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 10,
    "LossyImageCompressionMethod": "ISO_10918_1",
}


def write_source(folder: Path, volume: Volume = HEAD, charset: object = "ISO_IR 100", name: str = "Müller^Jörg", **changes: object) -> Path:
    """A classic MR series on `volume`'s grid, with the header of a scanner, private elements and rescaled values."""

    def edit(data: FileDataset, k: int) -> None:
        other = Dataset()
        other.PatientID, other.TypeOfPatientID = "other-17", "TEXT"
        other.private_block(0x11, "MAKER", create=True).add_new(1, "LO", "private-secret")
        data.OtherPatientIDsSequence = [other]
        data.private_block(0x29, "MAKER CSA", create=True).add_new(0x10, "OB", b"private-secret")
        data.SliceThickness, data.SliceLocation = 2.8, 3.0 * k
        data.BitsStored, data.HighBit, data.RescaleSlope, data.RescaleIntercept = 12, 11, 2, -20

    texts = {"SpecificCharacterSet": charset, "PatientName": name, "SeriesDescription": "t1 mprage"}
    return write_series(folder, volume, 4, edit, **{**texts, **ACQUISITION, **KEPT, **changes})


@pytest.fixture(scope="module")
def translator(tmp_path_factory) -> Translator:
    """A tiny T1 to T2 model with dropout; its random network has some contrast."""
    card = tiny_card()
    network = tiny_network(card, seed=5)
    network.decoder[-1].weight.data *= 30
    package = save_package(tmp_path_factory.mktemp("package"), card, network)
    return Translator(package, TranslationSettings(device="cpu", precision="fp32", check_modality=False))


@pytest.fixture(scope="module")
def translated(tmp_path_factory, translator) -> Path:
    """A folder with the source series `t1` and its translation T2.nii.gz; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    translate_file(translator, write_source(folder / "t1"), folder / "T2.nii.gz")
    return folder


@pytest.fixture
def study(translated, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(translated, tmp_path / "study"))


def imt_dicom(study: Path, *more: object, volume: str = "T2.nii.gz", like: str = "t1", output: str = "out") -> int:
    paths = ["dicom", study / volume, "--like", study / like, "--output", study / output, "--progress", "none"]
    return main([str(word) for word in (*paths, *more)])


def slices(folder: Path) -> list[pydicom.FileDataset]:
    """The slices by file name."""
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def sources_by_uid(folder: Path) -> dict[str, pydicom.FileDataset]:
    return {data.SOPInstanceUID: data for data in slices(folder)}


def step_of(folder: Path) -> float:
    return float(slices(folder)[0].RescaleSlope)


@pytest.fixture(scope="module")
def written(translated, tmp_path_factory) -> Path:
    """The synthetic series of the translation; not to be changed."""
    output = tmp_path_factory.mktemp("written") / "series"
    assert main(["dicom", str(translated / "T2.nii.gz"), "--like", str(translated / "t1"), "--output", str(output)]) == 0
    return output


# ---------------------------------------------------------------- what the series says


def test_every_slice_says_that_it_is_synthetic_and_by_which_model_from_what(translated, written):
    mark = json.loads(sidecar_path(translated / "T2.nii.gz").read_text(encoding="utf-8"))
    assert len(slices(written)) == SLICES
    for data in slices(written):
        assert data[0x0008, 0x001C].value == "YES" and data[0x0008, 0x001C].keyword == "SyntheticData"
        assert list(data.ImageType[:2]) == ["DERIVED", "SECONDARY"] and "SYNTHETIC" in data.ImageType
        assert data.SeriesDescription == "SYNTHETIC T2 from T1"
        assert data[0x0018, 0x9004].value == "RESEARCH"
        assert data.BurnedInAnnotation == "NO"
        assert data.ImageComments.startswith("SYNTHETIC") and NOTICE in data.ImageComments
        model = mark["model"]
        for part in ("SYNTHETIC T2 from T1", model["name"], model["version"], model["sha256"], mark["input"]["sha256"], VERSION, NOTICE):
            assert part in data.DerivationDescription
        assert "from the source series, SHA-256" in data.DerivationDescription
        (equipment,) = data.ContributingEquipmentSequence
        assert (equipment.Manufacturer, equipment.SoftwareVersions[0]) == ("IMT", VERSION)
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
        assert (data.Manufacturer, data.SoftwareVersions) == ("IMT", VERSION)


def test_it_is_a_classic_mr_series_of_the_same_patient_study_and_frame_of_reference(translated, written):
    first = slices(translated / "t1")[0]
    for data in slices(written):
        assert data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == MRImageStorage
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert data.Modality == "MR" and "NumberOfFrames" not in data
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", *KEPT):
            assert data[keyword].value == first[keyword].value, keyword
        assert data.OtherPatientIDsSequence[0].PatientID == "other-17"
        assert data.SeriesNumber == 9004
        for keyword in ("PatientName", "PositionReferenceIndicator", "EchoTime", "RepetitionTime", "EchoTrainLength", "ScanOptions"):
            assert keyword in data, "attributes of type 2 must be there, empty if unknown"


def test_each_slice_refers_to_its_source_slice_and_lies_in_its_place(translated, written):
    sources = sources_by_uid(translated / "t1")
    found = set()
    for data in slices(written):
        (reference,) = data.SourceImageSequence
        assert reference.ReferencedSOPClassUID == MRImageStorage
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert reference.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "DCM"
        source = sources[reference.ReferencedSOPInstanceUID]
        assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
        place = "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation Rows Columns"
        for keyword in (*place.split(), "InstanceNumber"):
            assert data[keyword].value == source[keyword].value, keyword
        found.add(source.SOPInstanceUID)
    assert found == set(sources)


def test_nothing_that_describes_the_acquisition_or_the_scanner_is_copied(translated, written):
    for path in (translated / "t1").iterdir():
        assert b"private-secret" in path.read_bytes()
    for path in written.iterdir():
        assert b"secret" not in path.read_bytes()
        data = pydicom.dcmread(path)
        assert not [element for element in data.iterall() if element.tag.is_private]
        for keyword, value in ACQUISITION.items():
            assert str(data.get(keyword, "")) != str(value), keyword
        assert data.ScanningSequence == "RM" and data.SequenceVariant == "NONE"


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("ISO_IR 192", "Ωmega^脳"), (None, "Plain^Ann")],
    ids=["latin", "japanese", "utf8", "none"],
)
def test_the_patients_name_is_the_same_byte_for_byte(study, charset, name):
    write_source(study / "t1", charset=charset, name=name)
    assert imt_dicom(study) == 0
    source = pydicom.dcmread(study / "t1" / "IM001").get_item("PatientName").value
    for path in (study / "out").iterdir():
        assert pydicom.dcmread(path).get_item("PatientName").value == source
        assert pydicom.dcmread(path).PatientName == name


def test_dates_are_those_of_the_translation_in_the_studys_time_zone(study):
    write_source(study / "t1", TimezoneOffsetFromUTC="+0530")
    path = sidecar_path(study / "T2.nii.gz")
    mark = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**mark, "created": "2026-03-31T23:15:07+00:00"}), encoding="utf-8")
    assert imt_dicom(study) == 0
    for data in slices(study / "out"):
        assert (data.ContentDate, data.ContentTime) == ("20260401", "044507")
        assert (data.SeriesDate, data.InstanceCreationTime) == ("20260401", "044507")
        assert data.ContributingEquipmentSequence[0].ContributionDateTime == "20260331231507+0000"
        assert (data.StudyDate, data.TimezoneOffsetFromUTC) == ("20190305", "+0530")


def test_a_source_with_text_burned_in_is_not_declared_free_of_it(study):
    write_source(study / "t1", BurnedInAnnotation="YES")
    assert imt_dicom(study) == 0
    assert {data.BurnedInAnnotation for data in slices(study / "out")} == {"YES"}


def test_description_and_number_can_be_chosen_but_synthetic_comes_first(study, capsys):
    assert imt_dicom(study, "--description", "for the trial", "--series-number", 77) == 0
    assert {(data.SeriesDescription, data.SeriesNumber) for data in slices(study / "out")} == {("SYNTHETIC for the trial", 77)}
    assert "series 77 'SYNTHETIC for the trial'" in capsys.readouterr().out
    assert imt_dicom(study, "--description", "SYNTHETIC once", output="again") == 0
    assert {data.SeriesDescription for data in slices(study / "again")} == {"SYNTHETIC once"}


@pytest.mark.parametrize(
    "option",
    [("--description", "für alle"), ("--description", "a\\b"), ("--description", "x" * 60), ("--description", " "), ("--series-number", 0),
     ("--series-number", 2**31)],
    ids=["letters", "backslash", "long", "empty", "zero", "large"],
)  # fmt: skip
def test_texts_and_numbers_that_dicom_cannot_hold_are_refused(study, capsys, option):
    assert imt_dicom(study, *option) == 2
    assert not (study / "out").exists() and capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------- geometry and values


def test_simpleitk_reads_the_values_within_half_a_step_on_the_sources_grid(translated, written):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(written))
    given = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(translated / "t1"))
    image, source = sitk.ReadImage(names), sitk.ReadImage(given)
    assert image.GetSize() == source.GetSize()
    np.testing.assert_allclose(image.GetOrigin(), source.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(image.GetSpacing(), source.GetSpacing(), atol=1e-9)
    np.testing.assert_allclose(image.GetDirection(), source.GetDirection(), atol=1e-9)
    wanted, step = read_volume(translated / "T2.nii.gz").array, step_of(written)
    assert np.ptp(wanted) > 50 and step == pytest.approx(wanted.max() / 65535, rel=1e-6)
    assert np.abs(sitk.GetArrayFromImage(image) - wanted).max() <= 0.5 * step + 1e-5
    assert np.array_equal(sitk.GetArrayFromImage(image) == 0, wanted < 0.5 * step), "the background stays exactly 0"


def test_imt_reads_it_as_it_reads_the_translation(translated, written):
    again, wanted = read_volume(written), read_volume(translated / "T2.nii.gz")
    assert again.geometry.is_close(wanted.geometry, 1e-3)
    assert again.geometry.is_close(HEAD.geometry, 1e-3)
    np.testing.assert_allclose(again.array, wanted.array, atol=0.5 * step_of(written) + 1e-5)


def test_the_window_shows_the_image_from_black_to_its_bright_voxels(translated, written):
    array = read_volume(translated / "T2.nii.gz").array
    for data in slices(written):
        low, high = data.WindowCenter - data.WindowWidth / 2, data.WindowCenter + data.WindowWidth / 2
        assert low == pytest.approx(0, abs=1e-4) and 0.9 * array.max() < high <= array.max() + 1e-4


def marked(study: Path, volume: Volume, name: str) -> str:
    """`volume` saved under `name` with the translation's mark, as Slicer saves it (without the hash of a file)."""
    mark = json.loads(sidecar_path(study / "T2.nii.gz").read_text(encoding="utf-8"))
    mark.pop("output")
    write_volume(study / name, volume)
    sidecar_path(study / name).write_text(json.dumps(mark), encoding="utf-8")
    return name


def test_values_below_0_and_integers_are_read_back_too(study):
    noise = np.random.default_rng(0).normal(0, 1e-3, HEAD.array.shape).astype(np.float32)
    assert imt_dicom(study, volume=marked(study, HEAD.with_array(noise), "small.nii.gz"), output="small") == 0
    assert np.abs(read_volume(study / "small").array - noise).max() <= 0.51 * step_of(study / "small") < 1e-7
    whole = np.random.default_rng(1).integers(-900, 3000, HEAD.array.shape, dtype=np.int16)
    assert imt_dicom(study, volume=marked(study, HEAD.with_array(whole), "whole.nii.gz"), output="whole") == 0
    assert np.array_equal(read_volume(study / "whole").array, whole)


def test_a_copy_with_its_axes_stored_in_any_order_and_sense_is_put_back_in_the_series_order(orientation):
    copy = store(SMALL_HEAD, orientation, (3.0, 2.5, 2.25), rotation_matrix(3, 25.0))
    assert np.array_equal(on_grid(copy, HEAD.geometry), HEAD.array)
    assert on_grid(replace(copy, geometry=replace(copy.geometry, origin_lps=copy.geometry.origin_lps + 0.05)), HEAD.geometry) is None


def test_a_copy_as_dcm2niix_stores_it_gives_the_same_series(study):
    wanted = read_volume(study / "T2.nii.gz")
    flipped = store(wanted.array, ((0, 1, 2), (False, True, False)), (3.0, 2.5, 2.25), rotation_matrix(3, 25.0))
    assert imt_dicom(study, volume=marked(study, flipped, "flipped.nii.gz")) == 0
    again = read_volume(study / "out")
    assert again.geometry.is_close(HEAD.geometry, 1e-3)
    assert np.abs(again.array - wanted.array).max() <= 0.51 * step_of(study / "out")


def test_a_series_of_a_single_slice_and_an_uncertainty_are_written(tmp_path, translator):
    one = Volume(HEAD.array[4:5], replace(HEAD.geometry, shape=(1, *HEAD.array.shape[1:])), "one")
    write_source(tmp_path / "t1", one)
    unsure = Translator(translator.card, TranslationSettings(device="cpu", precision="fp32", check_modality=False, samples=2))
    translate_file(unsure, tmp_path / "t1", tmp_path / "T2.nii.gz", tmp_path / "sd.nii.gz")
    assert imt_dicom(tmp_path, volume="sd.nii.gz") == 0
    (data,) = slices(tmp_path / "out")
    assert data.SeriesDescription == "SYNTHETIC T2 from T1 uncertainty"
    assert np.abs(read_volume(tmp_path / "out").array - read_volume(tmp_path / "sd.nii.gz").array).max() <= 0.51 * float(data.RescaleSlope)


# ---------------------------------------------------------------- UIDs


def test_all_uids_are_new_and_a_repeat_writes_the_same_files(translated, written, tmp_path):
    data = slices(written)
    series = {one.SeriesInstanceUID for one in data}
    instances = {one.SOPInstanceUID for one in data}
    taken = {uid for one in slices(translated / "t1") for uid in (one.SeriesInstanceUID, one.SOPInstanceUID, one.StudyInstanceUID)}
    assert len(series) == 1 and len(instances) == SLICES
    assert not (series | instances) & taken and not series & instances
    assert all(pydicom.uid.UID(uid).is_valid for uid in series | instances)
    write_synthetic_series(translated / "T2.nii.gz", translated / "t1", tmp_path / "again")
    for path in written.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_another_volume_model_or_description_has_other_uids(study):
    def uids(output: str, *more: object, volume: str = "T2.nii.gz") -> set[str]:
        assert imt_dicom(study, *more, volume=volume, output=output) == 0
        return {uid for data in slices(study / output) for uid in (data.SeriesInstanceUID, data.SOPInstanceUID)}

    volume = read_volume(study / "T2.nii.gz")
    brighter = marked(study, volume.with_array(volume.array * 1.001), "brighter.nii.gz")
    other = marked(study, volume, "other.nii.gz")
    mark = json.loads(sidecar_path(study / other).read_text(encoding="utf-8"))
    mark["model"]["sha256"] = "0" * 64
    sidecar_path(study / other).write_text(json.dumps(mark), encoding="utf-8")
    sets = [uids("a"), uids("b", "--description", "x"), uids("c", volume=brighter), uids("d", volume=other)]
    assert len(set.union(*sets)) == 4 * (SLICES + 1)


# ---------------------------------------------------------------- refusals


def refused(study: Path, capsys, *more: object, **paths: str) -> str:
    """The one-line message of a call that must write nothing."""
    before = sorted(study.rglob("*"))
    assert imt_dicom(study, *more, **paths) == 2
    caught = capsys.readouterr()
    assert sorted(study.rglob("*")) == before and caught.out == "" and caught.err.count("\n") == 1
    return caught.err


def test_a_volume_without_a_mark_is_refused(study, capsys):
    sidecar_path(study / "T2.nii.gz").unlink()
    assert "has no mark of IMT (T2.json beside it)" in refused(study, capsys)
    sidecar_path(study / "T2.nii.gz").write_text('{"EchoTime": 0.1}', encoding="utf-8")
    assert "has no mark of IMT" in refused(study, capsys)


def test_a_volume_that_was_changed_after_it_was_marked_is_refused(study, capsys):
    volume = read_volume(study / "T2.nii.gz")
    write_volume(study / "T2.nii.gz", volume.with_array(volume.array + 1))
    assert "was changed after IMT wrote it" in refused(study, capsys)


@pytest.mark.parametrize("key", ["model", "target_modality", "created", "input"])
def test_a_damaged_mark_is_refused_with_the_entry_at_fault(study, capsys, key):
    path = sidecar_path(study / "T2.nii.gz")
    mark = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**mark, key: ["yesterday"]}), encoding="utf-8")
    message = refused(study, capsys)
    assert "T2.json is damaged" in message and key in message


def test_a_label_map_is_refused(study, capsys):
    labels = read_volume(study / "T2.nii.gz")
    with OutputWriter() as writer:
        record = base_record("imt segment", NOTICE, "labels", derived=True)
        writer.volume(study / "labels.nii.gz", labels.with_array((labels.array > 0).astype(np.uint8)), "labels", record)
    assert "it holds labels" in refused(study, capsys, volume="labels.nii.gz")


def test_a_volume_on_another_grid_is_refused(study, capsys):
    volume = read_volume(study / "T2.nii.gz")
    grid = volume.geometry
    moved = Geometry(grid.shape, grid.spacing_mm, grid.origin_lps + [0.1, 0, 0], grid.direction)
    turned = Geometry(grid.shape, grid.spacing_mm, grid.origin_lps, rotation_matrix(8, 2.0) @ grid.direction)
    shorter = Geometry((SLICES - 1, *grid.shape[1:]), grid.spacing_mm, grid.origin_lps, grid.direction)
    for n, (geometry, array) in enumerate([(moved, volume.array), (turned, volume.array), (shorter, volume.array[:-1])]):
        name = marked(study, Volume(array, geometry), f"other{n}.nii.gz")
        assert "is not on the grid of the series" in refused(study, capsys, volume=name)


def test_a_folder_of_two_series_or_none_is_refused(study, capsys):
    write_source(study / "second")
    for path in (study / "second").iterdir():
        path.rename(study / "t1" / f"second-{path.name}")
    assert "holds 2 DICOM series" in refused(study, capsys)
    assert "no DICOM image series" in refused(study, capsys, like="second")
    assert "is not a folder" in refused(study, capsys, like="T2.nii.gz")
    assert "is not a file" in refused(study, capsys, volume="t1")


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("SOPClassUID", EnhancedMRImageStorage, "no classic MR image, one file a slice (Enhanced MR Image Storage)"),
        ("FrameOfReferenceUID", None, "has no FrameOfReferenceUID"),
        ("PatientID", "P-18", "2 different values of PatientID"),
        ("StudyInstanceUID", "1.2.3.99", "2 different values of StudyInstanceUID"),
    ],
)
def test_a_source_that_is_no_classic_mr_series_of_one_study_is_refused(study, capsys, keyword, value, message):
    path = study / "t1" / "IM004"
    data = pydicom.dcmread(path)
    setattr(data, keyword, value)
    data.save_as(path)
    assert message in refused(study, capsys)


def test_a_missing_slice_is_refused(study, capsys):
    (study / "t1" / "IM004").unlink()
    assert "not evenly spaced" in refused(study, capsys)


def test_an_output_that_is_there_is_refused_unless_it_is_an_empty_folder(study, capsys):
    (study / "out").mkdir()
    (study / "out" / "mine.txt").write_text("mine")
    assert "exists and is not an empty folder" in refused(study, capsys)
    assert "exists and is not an empty folder" in refused(study, capsys, output="t1")
    assert "exists and is not an empty folder" in refused(study, capsys, output="T2.json")
    assert "lies in the source series' folder" in refused(study, capsys, output="t1/new")
    (study / "out" / "mine.txt").unlink()
    assert imt_dicom(study) == 0
    assert len(slices(study / "out")) == SLICES


def test_a_series_that_is_not_the_marks_input_is_taken_with_a_warning_and_said_in_the_file(study, capsys):
    write_source(study / "t2", SeriesDescription="t2 tse axial")
    assert imt_dicom(study, like="t2") == 0
    warning = capsys.readouterr().err
    assert "is of another input file than the series" in warning
    assert "described as 't2 tse axial', but the volume was made from T1" in warning
    assert "from a file on the source series' grid, SHA-256" in slices(study / "out")[0].DerivationDescription
    assert imt_dicom(study, output="right") == 0
    assert "Warning" not in capsys.readouterr().err


# ---------------------------------------------------------------- whole or not at all


def test_a_cancelled_run_leaves_nothing(study):
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 4

    before = sorted(study.rglob("*"))
    with pytest.raises(Cancelled):
        write_synthetic_series(study / "T2.nii.gz", study / "t1", study / "new" / "out", cancelled=cancelled)
    assert [path for path in sorted(study.rglob("*")) if path != study / "new"] == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root, and Windows, write into read-only folders")
def test_a_read_only_parent_is_an_output_failure_that_leaves_nothing(study, capsys):
    (study / "locked").mkdir()
    (study / "locked").chmod(0o555)
    try:
        assert imt_dicom(study, output="locked/out") == 1
        assert "no permission" in capsys.readouterr().err and not any((study / "locked").iterdir())
    finally:
        (study / "locked").chmod(0o755)


def test_a_file_in_the_way_of_the_parent_is_an_output_failure(study, capsys):
    assert imt_dicom(study, output="T2.json/out") == 1
    message = capsys.readouterr().err
    assert "Cannot write" in message and message.count("\n") == 1


def test_without_pydicom_the_command_says_how_to_install_it(study, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert imt_dicom(study) == 1
    assert "pip install pydicom" in capsys.readouterr().err and not (study / "out").exists()
