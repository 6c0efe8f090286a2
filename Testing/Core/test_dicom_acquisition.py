"""Claims on the header of a DICOM series as a check of its modality."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from conftest import SMALL_HEAD, rotation_matrix, store
from dicom_studies import PROTOCOLS, write_series
from packages import write_tiny_package

from IMTCommand.__main__ import main
from IMTCore.dicom_acquisition import Acquisition, acquisition_of
from IMTCore.volume_io import read_volume

HEAD = store(SMALL_HEAD, spacing_kji=(3.0, 2.5, 2.25), rotation=rotation_matrix(3, 25.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny T1 to T2 model's card."""
    return write_tiny_package(tmp_path_factory.mktemp("model"))


def translate(source: Path, output: Path, model: Path, *more: str) -> int:
    return main(["translate", str(source), "--model", str(model), "--output", str(output), "--device", "cpu", "--progress", "none", *more])


def acquisition(**values: object) -> Acquisition:
    """As read from a header with these attributes."""
    header = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(header, keyword, value)

    def value(group: int, element: int) -> str:
        found = header[group, element].value if (group, element) in header else ""
        return "\\".join(map(str, found)) if isinstance(found, pydicom.multival.MultiValue) else str(found)

    return Acquisition.from_header(value)


@pytest.mark.parametrize("modality", PROTOCOLS)
def test_usual_protocols_are_known_by_their_names_and_by_their_times(modality):
    named = acquisition(**PROTOCOLS[modality])
    assert named.modality == modality
    timed = acquisition(**{**PROTOCOLS[modality], "SeriesDescription": "head"})
    assert modality in timed.timed and timed.fits(modality)
    if modality != "T2":  # a FLAIR whose header leaves the inversion time out has the times of a T2
        assert timed.modality == modality


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ScanningSequence": "GR", "RepetitionTime": 8.2, "EchoTime": 3.2, "FlipAngle": 12}, {"T1"}),
        ({"ScanningSequence": "GR", "RepetitionTime": 8.2, "EchoTime": 3.2, "FlipAngle": 12, "InversionTime": 450}, {"T1"}),
        ({"ScanningSequence": "GR", "RepetitionTime": 25, "EchoTime": 20, "FlipAngle": 15}, set()),  # susceptibility
        ({"ScanningSequence": "GR", "RepetitionTime": 22, "EchoTime": 4, "FlipAngle": 18, "AngioFlag": "Y"}, set()),
        ({"ScanningSequence": "GR", "SequenceVariant": ["SS", "SK"], "RepetitionTime": 5, "EchoTime": 2.5, "FlipAngle": 50}, set()),
        ({"ScanningSequence": ["EP", "SE"], "RepetitionTime": 8000, "EchoTime": 90}, set()),  # diffusion
        ({"ScanningSequence": ["SE", "IR"], "RepetitionTime": 4000, "EchoTime": 60, "InversionTime": 160}, set()),  # STIR
        ({"ScanningSequence": ["SE", "IR"], "RepetitionTime": 2000, "EchoTime": 9, "InversionTime": 860}, {"T1"}),  # T1 FLAIR
        ({"ScanningSequence": "SE", "RepetitionTime": 5000, "EchoTime": 388, "InversionTime": 1800}, {"FLAIR"}),  # 3D
        ({"ScanningSequence": "SE", "RepetitionTime": 3200, "EchoTime": 410}, {"T2", "FLAIR"}),
        ({"ScanningSequence": "SE", "RepetitionTime": 1400, "EchoTime": 12}, set()),
        ({"ScanningSequence": "SE", "RepetitionTime": 500, "EchoTime": 12, "ImageType": ["DERIVED", "SECONDARY", "MPR"]}, set()),
        ({"ScanningSequence": "SE", "RepetitionTime": "", "EchoTime": 12}, set()),
        ({"SeriesDescription": "t1"}, set()),
    ],
)
def test_times_tell_the_modality_only_where_they_leave_little_doubt(values, expected):
    assert acquisition(**values).timed == expected


def test_a_series_with_the_times_of_another_modality_is_refused_or_warned_of(model, tmp_path, capsys):
    source = write_series(tmp_path / "series", HEAD, **PROTOCOLS["FLAIR"])
    assert translate(source, tmp_path / "x.nii.gz", model) == 2
    message = capsys.readouterr().err
    assert "times of a FLAIR image (TR 9000 ms, TE 125 ms, TI 2500 ms)" in message and "--no-modality-check" in message
    assert translate(source, tmp_path / "x.nii.gz", model, "--no-modality-check") == 0
    assert "Warning" in (said := capsys.readouterr().err) and "FLAIR" in said


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"SeriesDescription": "t2 tse"}, ["is described as 't2 tse'"]),
        ({"SeriesDescription": "t1 se", "ContrastBolusAgent": "Gadovist 7 ml"}, ["after contrast agent (Gadovist 7 ml)"]),
        ({"SeriesDescription": "t1 se", "ContrastBolusAgent": "NONE"}, []),
        ({"SeriesDescription": "head"}, []),
    ],
    ids=["description", "agent", "no agent", "nothing"],
)
def test_names_and_contrast_agent_are_warned_of(tmp_path, model, capsys, header, words):
    source = write_series(tmp_path / "series", HEAD, **header)
    assert translate(source, tmp_path / "x.nii.gz", model) == 0
    said = capsys.readouterr().err
    assert all(word in said for word in words) and ("Warning" in said) == bool(words)


def test_a_name_that_its_times_contradict_is_said_in_the_list(tmp_path, capsys):
    write_series(tmp_path / "series", HEAD, **{**PROTOCOLS["T2"], "SeriesDescription": "t1_mprage"})
    assert main(["dicom", str(tmp_path / "series"), "--list"]) == 0
    assert "It is named T1, but has the times of FLAIR or T2 (TR 5000 ms, TE 92 ms)" in capsys.readouterr().out


def test_a_volume_from_dicom_knows_how_it_was_acquired(tmp_path):
    found = acquisition_of(read_volume(write_series(tmp_path / "series", HEAD, **PROTOCOLS["T1"])))
    assert (found.modality, found.repetition_ms, found.sequences) == ("T1", 2000, {"GR", "IR"})
