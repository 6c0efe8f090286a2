"""The panel as its users have it: what it shows, what it makes, what it says."""

from __future__ import annotations

import json

import pytest
import slicer
from panel_checks import ROOT, check_bindings, without_tooltip
from translate_fixtures import add_head

from slicer_harness.host import choose

UI = ROOT / "IMTTranslate" / "Resources" / "UI" / "IMTTranslate.ui"
# Kept by the rows of modalities, as the lists of models change: Slicer's own binding cannot do that.
HANDLED = {"modelT1", "modelT2", "modelFLAIR", "modelPD", "modelOther"}

# --- What it shows -------------------------------------------------------------------------------------------------


def test_the_panel_opens_with_nothing_to_do_and_says_why(panel):
    assert not panel.ui.applyButton.enabled and panel.ui.applyButton.toolTip == "Select an input volume."
    assert "not for diagnosis" in panel.ui.noticeLabel.text and panel.is_shown(panel.ui.noticeLabel)
    for widget in (panel.ui.progressBar, panel.ui.guessLabel, panel.ui.scoresLabel):
        assert not panel.is_shown(widget)


def test_every_parameter_is_shown_by_one_widget_and_each_follows_the_other(panel):
    check_bindings(panel, UI, HANDLED)


def test_everything_that_can_be_clicked_or_read_has_a_tooltip():
    assert not without_tooltip(UI)


# --- Choosing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "modality"), [("sub-01_FLAIR", "FLAIR"), ("Anna T2w", "T2"), ("Kopf T1", "T1"), ("PD axial", "PD")]
)
def test_a_chosen_volume_stays_chosen_and_its_modality_is_guessed_from_its_name(panel, name, modality):
    node = add_head(name)
    choose(panel.ui.inputSelector, name)
    assert panel.ui.inputSelector.currentNode() is node and panel.parameters.inputVolume is node
    assert panel.parameters.inputModality == panel.ui.modalityComboBox.currentText == modality
    assert panel.is_shown(panel.ui.guessLabel) and panel.ui.guessLabel.text == f"Taken for {modality} by its name."


def test_a_corrected_modality_stays_after_leaving_the_module_and_choosing_the_volume_again(panel):
    add_head("Kopf T1"), add_head("Other T2", "T2")
    choose(panel.ui.inputSelector, "Kopf T1")
    choose(panel.ui.modalityComboBox, "PD")
    panel.widget.parent.exit()
    panel.widget.parent.enter()
    assert panel.parameters.inputModality == panel.ui.modalityComboBox.currentText == "PD"
    assert panel.ui.inputSelector.currentNode().GetName() == "Kopf T1"
    choose(panel.ui.inputSelector, "Other T2")
    assert panel.parameters.inputModality == "T2"


def test_of_a_volume_that_neither_name_nor_image_tells_the_modality_is_asked_for(panel):
    add_head("Series 7")  # of every second voxel: too small for a head
    choose(panel.ui.inputSelector, "Series 7")
    assert panel.is_shown(panel.ui.guessLabel) and panel.ui.guessLabel.text == "Its modality is not clear: choose it."
    choose(panel.ui.modalityComboBox, "PD")
    assert not panel.is_shown(panel.ui.guessLabel)


def test_the_modalities_offered_follow_the_input_and_rows_without_models_are_hidden(panel):
    choose(panel.ui.modalityComboBox, "T1")
    offered = panel.offered()
    assert list(offered) == ["T2", "FLAIR", "PD", "Other"]
    assert {"T1-T2", "tiny-T1-T2", "tiny-any"} == set(offered["T2"]) and offered["PD"] == ["tiny-any"]
    choose(panel.ui.modalityComboBox, "PD")
    assert panel.offered() == {"T1": ["tiny-any"], "T2": ["tiny-any"]}
    choose(panel.ui.modalityComboBox, "T1C")
    assert panel.offered() == {} and "No model translates T1C" in panel.ui.noModelLabel.text
    assert panel.is_shown(panel.ui.noModelLabel) and not panel.is_shown(panel.ui.modelTextBrowser)
    panel.parameters.inputVolume = add_head()
    choose(panel.ui.modalityComboBox, "T1C")
    assert not panel.ui.applyButton.enabled and "T1C" in panel.ui.applyButton.toolTip


def test_the_chosen_models_data_and_limits_are_told(panel):
    choose(panel.ui.modelT2ComboBox, "T1-T2")
    text = panel.ui.modelTextBrowser.plainText
    card = json.loads((ROOT / "IMTTranslate/Resources/IMT-models/T1-T2.json").read_text(encoding="utf-8"))
    assert card["title"] in text and all(" ".join(limit.split()) in " ".join(text.split()) for limit in card["limits"])
    assert "Learned from:" in text and "PSNR" in text
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    assert "Random weights." in panel.ui.modelTextBrowser.plainText and panel.parameters.modelT2 == "tiny-T1-T2"


def test_a_new_scene_starts_with_the_default_model(panel):
    choose(panel.ui.modelT2ComboBox, "tiny-any")
    slicer.mrmlScene.Clear(False)
    assert panel.ui.modelT2ComboBox.currentIndex == 0 and panel.ui.modelT2ComboBox.currentData == "T1-T2"


def test_without_a_modality_to_make_nothing_can_be_started(panel):
    panel.parameters.inputVolume = add_head()
    panel.ui.translateToT2CheckBox.click()
    assert not panel.ui.applyButton.enabled and "at least one modality" in panel.ui.applyButton.toolTip
    assert not panel.ui.modelT2ComboBox.enabled and not panel.ui.outputT2Selector.enabled
    panel.ui.translateToFLAIRCheckBox.click()
    assert panel.ui.applyButton.enabled
