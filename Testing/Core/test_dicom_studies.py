"""Claims on reading a DICOM study: what its series are is told, and the one that is named is taken."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import SMALL_HEAD, rotation_matrix, store
from dicom_studies import PROTOCOLS, write_series, write_study
from packages import write_tiny_package
from tiny_segmenters import write_tiny_segmenter

from IMTCommand.__main__ import main
from IMTCore.dicom_acquisition import acquisition_of
from IMTCore.dicom_studies import looks_like_dicom
from IMTCore.errors import BadInput
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.volume_io import read_volume

HEAD = store(SMALL_HEAD, spacing_kji=(3.0, 2.5, 2.25), rotation=rotation_matrix(3, 25.0))
SLICES = len(SMALL_HEAD)
T1 = PROTOCOLS["T1"]
USABLE = ["t1_mprage_sag", "t2_tse_tra", "t2_tirm_dark-fluid"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> dict[str, Path]:
    """One study in two layouts; not to be changed."""
    folder = tmp_path_factory.mktemp("studies")
    images = {"T1": HEAD, "T2": HEAD.with_array(HEAD.array * 0.9), "FLAIR": HEAD.with_array(HEAD.array * 0.8)}
    return {name: write_study(folder / name, images, flat=name == "flat") for name in ("nested", "flat")}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny T1 to T2 model's card."""
    return write_tiny_package(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files, which every test must leave empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.glob("IMT-*"))


def imt(*words: object) -> int:
    return main([str(word) for word in words])


def listing(study: Path, capsys) -> list[dict]:
    assert imt("dicom", study, "--list", "--json") == 0
    return json.loads(capsys.readouterr().out)["series"]


def translate(source: Path, output: Path, model: Path, *more: object) -> int:
    return imt("translate", source, "--model", model, "--output", output, "--device", "cpu", "--progress", "none", *more)


# ---------------------------------------------------------------- what is in a study


@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_a_study_is_listed_in_any_layout(studies, layout, capsys):
    assert imt("dicom", studies[layout], "--list") == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line[:1].isdigit()}
    assert list(rows) == ["1", "2", "3", "4", "99"]
    assert rows["2"] == ["2", "t1_mprage_sag", "T1", "-", str(SLICES), "21", "x", "24", "2.25", "x", "2.5", "x", "3", "yes"]
    assert [rows[n][2] for n in ("3", "4")] == ["T2", "FLAIR"]
    assert rows["1"][-1] == rows["99"][-1] == "no"
    assert "series 1 'localizer': In this series the slices do not all lie in one direction" in text
    assert "series 99 'Report': It holds no images (SR)" in text
    assert "Patient P-17, study of 2019-03-05, 'Head'" in text and "Beispiel" not in text


def test_the_list_as_json_holds_what_a_program_needs(studies, capsys):
    series = {entry["number"]: entry for entry in listing(studies["flat"], capsys)}
    flair = series[4]
    assert (flair["modality"], flair["repetition_ms"], flair["echo_ms"], flair["inversion_ms"]) == ("FLAIR", 9000, 125, 2500)
    assert (flair["size"], flair["files"], flair["usable"], flair["problem"]) == ([21, 24, SLICES], SLICES, True, None)
    assert flair["spacing_mm"] == pytest.approx([2.25, 2.5, 3.0], abs=1e-4)
    assert series[99]["size"] is None and not series[99]["usable"]
    assert len({entry["uid"] for entry in series.values()}) == 5


def test_a_second_patient_in_the_folder_is_said(studies, tmp_path, capsys):
    study = shutil.copytree(studies["flat"], tmp_path / "study")
    write_series(study / "other", HEAD, 2, PatientID="P-18", PatientName="Muster^Max", StudyInstanceUID="1.2.3.99", **T1)
    assert imt("dicom", study, "--list") == 0
    text = capsys.readouterr().out
    assert text.startswith("Warning") and "series of 2 patients" in text.splitlines()[0]
    assert "Patient P-17" in text and "Patient P-18" in text
    assert {entry["patient"] for entry in listing(study, capsys)} == {1, 2}


def test_other_files_do_not_disturb(studies, tmp_path, capsys):
    study = shutil.copytree(studies["flat"], tmp_path / "study")
    (study / "notes.txt").write_text("hello")
    (study / "empty").touch()
    (study / "random.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    (study / "cut").write_bytes((study / "2-0001").read_bytes()[:300])
    (study / "begins.bin").write_bytes(b"\x08\x00\x05\x00CS" + bytes(500))
    (study / ".hidden").write_bytes((study / "2-0001").read_bytes())
    (study / "loop").symlink_to(study)
    entries = listing(study, capsys)
    assert [(entry["number"], entry["files"]) for entry in entries] == [(1, 3), (2, SLICES), (3, SLICES), (4, SLICES), (99, 1)]


def test_files_without_preamble_are_found_and_read(tmp_path, capsys):
    folder = tmp_path / "old"
    folder.mkdir()
    for path in sorted(write_series(tmp_path / "new", HEAD, 3, **T1).iterdir()):
        data = pydicom.dcmread(path)
        bare = pydicom.Dataset({element.tag: element for element in data})  # without the group of the file format
        pydicom.dcmwrite(folder / path.name, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    first = next(folder.iterdir()).read_bytes()
    assert first[128:132] != b"DICM" and looks_like_dicom(next(folder.iterdir()))
    (entry,) = listing(folder, capsys)
    assert entry["usable"] and entry["files"] == SLICES
    assert read_volume(folder).geometry.is_close(HEAD.geometry, 1e-3)


def test_a_series_with_a_truncated_file_is_told_to_be_damaged(studies, tmp_path, capsys):
    study = shutil.copytree(studies["flat"], tmp_path / "study")
    path = study / "3-0004"
    path.write_bytes(path.read_bytes()[:-400])
    bad = next(entry for entry in listing(study, capsys) if entry["number"] == 3)
    assert not bad["usable"] and "3-0004 is damaged or truncated" in bad["problem"]


def test_the_same_image_twice_is_one_image(studies, tmp_path, capsys):
    study = tmp_path / "study"
    shutil.copytree(studies["nested"] / "scans/002", study / "a")
    shutil.copytree(study / "a", study / "copy")
    (entry,) = listing(study, capsys)
    assert entry["files"] == SLICES and entry["usable"]
    shutil.copyfile(study / "a/IM0003", study / "a/again")
    np.testing.assert_array_equal(read_volume(study, series="2").array, np.rint(HEAD.array))


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_no_study_is_refused(tmp_path, capsys, kind):
    path = tmp_path / "x"
    {"missing": lambda: None, "file": path.touch, "empty": path.mkdir}[kind]()
    assert imt("dicom", path, "--list") == 2
    message = capsys.readouterr().err
    assert str(path) in message and message.count("\n") == 1


# ---------------------------------------------------------------- taking one series


@pytest.mark.parametrize("name", ["2", "t1_mprage_sag", "MPRAGE", "t1", "UID"])
@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_the_named_series_is_translated(studies, model, tmp_path, capsys, layout, name):
    uid = next(entry["uid"] for entry in listing(studies[layout], capsys) if entry["number"] == 2)
    output = tmp_path / "T2.nii.gz"
    assert translate(studies[layout], output, model, "--series", uid if name == "UID" else name) == 0
    assert read_volume(output).geometry.is_close(HEAD.geometry, 1e-3)
    mark = read_mark(sidecar_path(output))
    if layout == "nested":
        assert mark["input"]["sha256"] == input_sha256(studies["nested"] / "scans/002")
    else:
        assert "t1_mprage_sag" in mark["input"]["name"]


def test_a_series_gives_the_same_image_whatever_the_layout(studies, model, tmp_path):
    for layout, study in studies.items():
        assert translate(study, tmp_path / f"{layout}.nii.gz", model, "--series", "2") == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "nested.nii.gz").array, read_volume(tmp_path / "flat.nii.gz").array)


def test_a_series_is_segmented_too(studies, tmp_path):
    card = write_tiny_segmenter(tmp_path / "models")
    labels = tmp_path / "labels.nii.gz"
    assert imt("segment", studies["flat"], "--series", 2, "--model", card.path, "--output", labels, "--device", "cpu", "--progress", "none") == 0
    assert read_volume(labels, constant=True).geometry.is_close(HEAD.geometry, 1e-3)


def test_a_script_reads_a_series_by_its_name(studies):
    for study in studies.values():
        volume = read_volume(study, series="tirm")
        np.testing.assert_array_equal(volume.array, np.rint(HEAD.array * 0.8))
        assert acquisition_of(volume).modality == "FLAIR"
    with pytest.raises(BadInput, match="is not a folder"):
        read_volume(next((studies["flat"]).iterdir()), series="2")


def test_a_study_of_one_series_needs_no_name(studies, model, tmp_path):
    shutil.copytree(studies["nested"] / "scans/002", tmp_path / "patient/study/series")
    assert translate(tmp_path / "patient", tmp_path / "T2.nii.gz", model) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["translate", "--model", "T1-T2", "--output", "x.nii.gz"],
        ["segment", "--model", "tissue", "--output", "x.nii.gz"],
        ["register", "--modality", "T1", "--atlases", "none", "--output-labels", "x.nii.gz"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_of_several_series_none_is_guessed_and_all_are_named(studies, capsys, layout, words):
    assert imt(words[0], studies[layout], *words[1:], "--progress", "none") == 2
    message = capsys.readouterr().err
    assert all(f"series {n} '{name}'" in message for n, name in enumerate(USABLE, 2))
    assert "Name one with --series" in message and "series 1 'localizer' (cannot be used)" in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("7", ["No series", "is named '7'", "series 2 't1_mprage_sag'"]),
        ("t2_", ["2 series", "named 't2_'", "by its UID", "series 3", "series 4", "1.2.826"]),
        ("1", ["series 1 'localizer'", "do not all lie in one direction"]),
        ("99", ["series 99 'Report'", "holds no images"]),
        ("", ["No series", "is named ''"]),
    ],
    ids=["unknown", "ambiguous", "localiser", "report", "empty"],
)
def test_a_name_that_does_not_do_is_refused(studies, model, tmp_path, capsys, name, words):
    output = tmp_path / "x.nii.gz"
    assert translate(studies["flat"], output, model, "--series", name) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words) and not output.exists() and message.count("\n") == 1


def test_messages_name_the_study_and_not_a_temporary_folder(studies, model, tmp_path, capsys, temporary):
    study = shutil.copytree(studies["flat"], tmp_path / "study")
    for name in ("2-0003", "2-0004"):
        path = study / name
        path.write_bytes(path.read_bytes()[:-400])  # its pixels end early
    assert translate(study, tmp_path / "x.nii.gz", model, "--series", "2") == 2
    message = capsys.readouterr().err
    assert str(study) in message and "t1_mprage_sag" in message and str(temporary) not in message


def test_series_is_for_folders(tmp_path, model, capsys):
    (tmp_path / "T1.nii.gz").touch()
    assert translate(tmp_path / "T1.nii.gz", tmp_path / "x.nii.gz", model, "--series", "2") == 2
    assert "is no folder" in capsys.readouterr().err


def test_without_pydicom_a_folder_of_one_series_is_read_and_a_study_says_what_is_missing(studies, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert translate(studies["nested"] / "scans/002", tmp_path / "x.nii.gz", model) == 0
    assert translate(studies["flat"], tmp_path / "y.nii.gz", model, "--series", "2") == 1
    assert "pip install pydicom" in capsys.readouterr().err


# ---------------------------------------------------------------- in one go


def test_a_series_is_translated_and_written_into_its_study_in_one_go(studies, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert imt("dicom", studies["flat"], "--series", 2, "--translate", model, "--output", out, "--device", "cpu") == 0
    assert "series 9002 'SYNTHETIC T2 from T1'" in capsys.readouterr().out
    first = pydicom.dcmread(sorted(out.iterdir())[0])
    assert first.SyntheticData == "YES" and "from the source series, SHA-256" in first.DerivationDescription
    assert first.StudyInstanceUID == "1.2.3.4"
    translate(studies["flat"], tmp_path / "T2.nii.gz", model, "--series", 2)
    assert imt("dicom", tmp_path / "T2.nii.gz", "--like", studies["flat"], "--series", 2, "--output", tmp_path / "two") == 0
    assert "Warning" not in capsys.readouterr().err, "the source series is known by its hash"
    assert pydicom.dcmread(sorted((tmp_path / "two").iterdir())[0]).SeriesInstanceUID == first.SeriesInstanceUID
    assert read_volume(out).geometry.is_close(HEAD.geometry, 1e-3)


def test_a_synthetic_series_is_listed_as_such_and_not_taken_as_an_input(studies, model, tmp_path, capsys):
    study = shutil.copytree(studies["nested"], tmp_path / "study")
    command = ["dicom", study, "--series", 2, "--translate", model, "--output", study / "scans/9002", "--device", "cpu"]
    assert imt(*command) == 0
    capsys.readouterr()
    entry = next(entry for entry in listing(study, capsys) if entry["number"] == 9002)
    assert entry["synthetic"] and not entry["usable"]
    assert imt(*command[:3], 9002, *command[4:-3], tmp_path / "again") == 2
    assert "It is synthetic" in capsys.readouterr().err
    assert "synthetic image" in translate_warning(study / "scans/9002", tmp_path, model, capsys)


def translate_warning(source: Path, folder: Path, model: Path, capsys) -> str:
    assert translate(source, folder / "w.nii.gz", model, "--no-modality-check") == 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--list, --like STUDY and --translate"]),
        (["--list", "--like", "x"], ["--list, --like STUDY and --translate"]),
        (["--list", "--output", "x"], ["--output does not go with --list"]),
        (["--like", "x", "--device", "cpu", "--output", "y"], ["--device does not go with --like"]),
        (["--translate", "T1-T2"], ["needs --output"]),
        (["--translate", "T1-T2", "--output", "x", "--series", "2", "--series-number", "0"], ["series number must be 1 to"]),
        (["--translate", "T1-T2", "--output", "x"], ["Name one with --series"]),
        (["--translate", "T9-T2", "--output", "x", "--series", "2"], ["T9-T2"]),
    ],
    ids=["none", "two", "list with output", "like with device", "no output", "number", "several", "model"],
)
def test_options_that_do_not_fit_are_refused(studies, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert imt("dicom", studies["flat"], *options) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words) and not (tmp_path / "x").exists()


def test_the_output_must_not_lie_among_the_slices(studies, model, tmp_path, capsys):
    study = shutil.copytree(studies["flat"], tmp_path / "study")
    assert imt("dicom", study, "--series", 2, "--translate", model, "--output", study / "new", "--device", "cpu") == 2
    assert "lies in the source series' folder" in capsys.readouterr().err and not (study / "new").exists()
