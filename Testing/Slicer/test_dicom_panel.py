"""The panel's section "Save as DICOM series"."""

from __future__ import annotations

from pathlib import Path

import pytest
import slicer
from dicom_fixtures import add_from_dicom, check_series
from panel_checks import ROOT, without_tooltip
from translate_fixtures import wait_until

from slicer_harness.host import choose

UI = ROOT / "IMTTranslate" / "Resources" / "UI" / "IMTDicom.ui"



@pytest.fixture
def page(panel, dicom_study):
    """The section, after a translation of a volume from the database."""
    from IMTTranslatePanel.dicom_page import DicomPage

    add_from_dicom(dicom_study)
    choose(panel.ui.inputSelector, "2: t1_mprage_sag")
    panel.parameters.checkModality = False
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    panel.translate()
    page = panel.widget.dicom
    assert isinstance(page, DicomPage)
    page.widget.collapsed = False
    page.ui.dicomSourcePathLineEdit.currentPath = page.ui.dicomSeriesLineEdit.text = ""
    page.ui.dicomDatabaseCheckBox.checked = False
    return page


def save(page, dialogs, folder: Path) -> str:
    """Click the button and choose a folder; returns what is said at the end."""
    dialogs.answer("QFileDialog.getExistingDirectory", str(folder))
    assert page.ui.dicomSaveButton.enabled, page.ui.dicomSaveButton.toolTip
    page.ui.dicomSaveButton.click()
    wait_until(lambda: not page.isRunning())
    return page.ui.dicomStatusLabel.text


def test_a_new_translation_is_offered_and_saved_with_one_click(page, dialogs, dicom_study, tmp_path):
    node = page.ui.dicomVolumeSelector.currentNode()
    assert node.GetName() == "2: t1_mprage_sag T2 (synthetic)"
    assert not page.ui.dicomSeriesLineEdit.enabled
    page.ui.dicomDatabaseCheckBox.checked = True
    text = save(page, dialogs, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert text.startswith("Saved ") and str(folder) in text and "DICOM database has it" in text and "Warning" not in text
    check_series(folder, node, dicom_study)
    assert page.ui.dicomSaveButton.text == "Save as DICOM series…" and page.ui.dicomProgressBar.isHidden()
    save(page, dialogs, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "the second is written beside the first"


def test_the_button_says_what_is_missing(page, dicom_study):
    node = page.ui.dicomVolumeSelector.currentNode()
    node.RemoveAttribute("IMT.SourceInstanceUIDs")
    page.update()
    assert not page.ui.dicomSaveButton.enabled and "choose the folder of the source series" in page.ui.dicomSaveButton.toolTip
    page.ui.dicomSourcePathLineEdit.currentPath = str(dicom_study)
    assert page.ui.dicomSaveButton.enabled and page.ui.dicomSeriesLineEdit.enabled
    page.ui.dicomVolumeSelector.setCurrentNode(None)
    assert not page.ui.dicomSaveButton.enabled


def test_an_error_is_said_once_and_leaves_nothing(page, dialogs, dicom_study, tmp_path):
    page.ui.dicomSourcePathLineEdit.currentPath = str(dicom_study)
    text = save(page, dialogs, tmp_path)
    assert "holds 4 DICOM series" in text and "#c0392b" in page.ui.dicomStatusLabel.styleSheet
    assert not list(tmp_path.iterdir())
    page.ui.dicomSeriesLineEdit.text = "2"
    assert save(page, dialogs, tmp_path).startswith("Saved ") and page.ui.dicomStatusLabel.styleSheet == ""


def test_cancel_and_a_closed_scene_leave_nothing(page, dialogs, tmp_path):
    for end in (page.ui.dicomSaveButton.click, lambda: slicer.mrmlScene.Clear(False)):
        dialogs.answer("QFileDialog.getExistingDirectory", str(tmp_path))
        page.ui.dicomSaveButton.click()
        assert page.isRunning() and page.ui.dicomSaveButton.text == "Cancel"
        end()
        assert not page.isRunning() and page.ui.dicomStatusLabel.text == "Cancelled: nothing was written."
        assert not list(tmp_path.iterdir())


def test_no_folder_chosen_changes_nothing(page, dialogs):
    dialogs.answer("QFileDialog.getExistingDirectory", "")
    page.ui.dicomSaveButton.click()
    assert not page.isRunning()


def test_without_a_database_the_box_is_off(page, monkeypatch):
    page.ui.dicomDatabaseCheckBox.checked = True
    monkeypatch.delattr(slicer, "dicomDatabase")
    page.update()
    assert not page.ui.dicomDatabaseCheckBox.enabled and not page.ui.dicomDatabaseCheckBox.checked


def test_everything_that_can_be_clicked_has_a_tooltip():
    assert not without_tooltip(UI)
