"""The modality that a file's name or a DICOM series description tells."""

from __future__ import annotations

import pytest

from IMTCore.modality_names import guess_from_text


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("sub-01_T1w.nii.gz", "T1"),
        ("T1", "T1"),
        ("Sag MPRAGE", "T1"),
        ("ax t1 se", "T1"),
        ("3DT1", "T1"),
        ("sub-01_T2w", "T2"),
        ("AX T2 TSE", "T2"),
        ("t2_space_sag", "T2"),
        ("FLAIR", "FLAIR"),
        ("t2_flair_tra", "FLAIR"),
        ("T2FLAIR", "FLAIR"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("PD", "PD"),
        ("Proton Density ax", "PD"),
        ("pdw_tse", "PD"),
        ("BraTS_case_t1ce", "T1C"),
        ("T1 post Gd", "T1C"),
        ("MPRAGE +C km", "T1C"),
        ("Phantom T1", "T1"),
    ],
)
def test_a_name_that_tells_is_read(text, modality):
    assert guess_from_text(text) == modality


@pytest.mark.parametrize("text", ["", "patient2", "part1", "start1_scan", "case_12", "subject_t1me", "T1 and T2", "t2*_gre", "SWI", "PDF report", "DWI b1000"])
def test_a_name_that_does_not_tell_gives_none(text):
    assert guess_from_text(text) is None


def test_the_first_text_that_tells_is_believed():
    assert guess_from_text(None, "localizer", "t2_tse", "T1") == "T2"
    assert guess_from_text("T1 T2 map", "FLAIR") is None
