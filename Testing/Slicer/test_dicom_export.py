"""A synthetic volume of the scene as a DICOM series by a script: from Slicer's database or a folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import slicer
from dicom_fixtures import add_from_dicom, check_series
from translate_fixtures import head_array, node_ids


@pytest.fixture
def translated(run, dicom_study):
    """A translation of a volume from the database."""
    return run(add_from_dicom(dicom_study), checkModality=False)


def test_a_volume_from_the_database_is_written_beside_its_source_and_added(translated, logic, dicom_study, tmp_path):
    before = node_ids()
    export = logic.saveAsDicom(translated, tmp_path / "new" / "T2", addToDatabase=True)
    check_series(tmp_path / "new" / "T2", translated, dicom_study)
    assert export.seriesFolder == tmp_path / "new" / "T2" and export.addedToDatabase and not export.warnings
    assert "series 9002 'SYNTHETIC T2 from T1'" in export.summary
    uid = pydicom.dcmread(next(export.seriesFolder.iterdir())).SOPInstanceUID
    assert Path(slicer.dicomDatabase.fileForInstance(uid)).parent == export.seriesFolder
    assert node_ids() == before


def test_the_source_is_known_after_it_was_removed_and_the_result_renamed(translated, logic, dicom_study, tmp_path):
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("2: t1_mprage_sag"))
    translated.SetName("Ergebnis")
    logic.saveAsDicom(translated, tmp_path / "T2")
    check_series(tmp_path / "T2", translated, dicom_study)


def test_a_folder_of_the_users_gives_the_source_with_a_warning_to_look_twice(translated, logic, dicom_study, tmp_path):
    translated.RemoveAttribute("IMT.SourceInstanceUIDs")
    export = logic.saveAsDicom(translated, tmp_path / "T2", sourceFolder=dicom_study, series="2")
    check_series(tmp_path / "T2", translated, dicom_study)
    assert len(export.warnings) == 1 and "check that they are of the same patient and scan" in export.warnings[0]
    assert f"The mark of {translated.GetName()} is of another input" in export.warnings[0]


def test_a_result_that_gets_a_new_input_forgets_the_old_ones_source(run, dicom_study):
    result = run(add_from_dicom(dicom_study), checkModality=False)
    assert result.GetAttribute("IMT.SourceInstanceUIDs")
    plain = slicer.util.addVolumeFromArray(head_array(), name="T1")
    assert run(plain, result, checkModality=False).GetAttribute("IMT.SourceInstanceUIDs") is None


def test_what_cannot_be_written_is_refused_and_nothing_is_left(translated, logic, dicom_study, tmp_path):
    def refused(*words: str, node=translated, folder=tmp_path / "x", **options) -> None:
        with pytest.raises(ValueError) as caught:
            logic.saveAsDicom(node, folder, **options)
        assert all(word in str(caught.value) for word in words), caught.value
        assert not (tmp_path / "x").exists()

    refused("no synthetic image", node=slicer.util.getNode("2: t1_mprage_sag"))
    refused("Select the synthetic volume", node=None)
    refused("holds 4 DICOM series", "series 2 't1_mprage_sag'", "in Python: series", sourceFolder=dicom_study)
    refused("No series", "'77'", sourceFolder=dicom_study, series="77")
    refused("is not a folder", sourceFolder=dicom_study / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    refused("is not an empty folder", folder=tmp_path / "full")
    moved = slicer.util.getNode(translated.GetName())
    moved.SetOrigin(1, 2, 3)
    refused("is not on the grid of the series in Slicer's DICOM database", translated.GetName())


def test_a_database_or_files_that_are_gone_are_said(translated, logic, dicom_study, tmp_path, monkeypatch):
    slicer.dicomDatabase.initializeDatabase()
    with pytest.raises(ValueError, match="12 of the 12 files"):
        logic.saveAsDicom(translated, tmp_path / "x")
    monkeypatch.setattr(slicer.dicomDatabase, "isOpen", False)
    for options in ({}, {"sourceFolder": dicom_study, "series": "2", "addToDatabase": True}):
        with pytest.raises(ValueError, match="database is not open"):
            logic.saveAsDicom(translated, tmp_path / "x", **options)
    monkeypatch.delattr(slicer, "dicomDatabase")
    with pytest.raises(ValueError, match="database is not open"):
        logic.saveAsDicom(translated, tmp_path / "x")
    translated.RemoveAttribute("IMT.SourceInstanceUIDs")
    with pytest.raises(ValueError, match="was not loaded from Slicer's DICOM database"):
        logic.saveAsDicom(translated, tmp_path / "x")
    assert not (tmp_path / "x").exists()
