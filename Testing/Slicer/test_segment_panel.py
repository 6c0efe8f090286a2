"""The panel of IMTSegment as its users have it: what it shows, what it offers, what it remembers. Nothing is segmented."""

from __future__ import annotations

import shutil

import numpy as np
import qt
import slicer
from panel_checks import HEAVY, check_bindings, modules_of_opening, without_tooltip
from segment_fixtures import MODULE, UI, segments
from translate_fixtures import add_head

from slicer_harness import host
from slicer_harness.host import choose

# Bound by the panel itself: lists that change.
HANDLED = {"model", "compareModel", "shownProbability"}


# --- What it shows -------------------------------------------------------------------------------------------------


def test_the_panel_opens_with_nothing_to_do_and_says_why(segment_panel):
    ui = segment_panel.ui
    assert not ui.applyButton.enabled and ui.applyButton.toolTip == "Select an input volume."
    assert "not for diagnosis" in ui.noticeLabel.text
    for widget in (ui.progressBar, ui.guessLabel, ui.structuresTableView, ui.scoresLabel, ui.regionsComboBox, ui.probabilityComboBox):
        assert not segment_panel.is_shown(widget)
    assert segment_panel.parameters.makeTranslated and not segment_panel.parameters.makeProbabilities


def test_every_parameter_is_shown_by_one_widget_and_each_follows_the_other(segment_panel):
    check_bindings(segment_panel, UI, HANDLED)


def test_everything_that_can_be_clicked_or_read_has_a_tooltip():
    assert not without_tooltip(UI)


# --- Choosing ------------------------------------------------------------------------------------------------------


def test_the_models_offered_follow_the_inputs_modality(segment_panel):
    ui = segment_panel.ui
    add_head("Anna T1"), add_head("Anna T2", "T2")
    choose(ui.inputSelector, "Anna T1")
    assert ui.guessLabel.text == "Taken for T1 by its name." and ui.applyButton.enabled
    assert {"tiny-tms", "tiny-given"} <= set(segment_panel.offered()) and "tiny-t2" not in segment_panel.offered()
    choose(ui.inputSelector, "Anna T2")
    assert "tiny-t2" in segment_panel.offered() and "tiny-tms" not in segment_panel.offered()
    choose(ui.modalityComboBox, "T1C")
    assert not segment_panel.is_shown(ui.modelComboBox) and not segment_panel.is_shown(ui.modelTextBrowser)
    assert "No model segments T1C" in ui.noModelLabel.text and not ui.applyButton.enabled
    assert ui.applyButton.toolTip in ui.noModelLabel.text


def test_the_chosen_model_tells_what_it_segments_from_what_and_its_licence(segment_panel):
    segment_panel.prepare("tiny-tms")
    text = segment_panel.ui.modelTextBrowser.plainText
    assert "Segments: CSF, grey matter, white matter" in text and "From: T1, T1, T2 (T2 translated by tiny-T1-T2)" in text
    assert "CC0-1.0" in text and "Random weights." in text and "none: random weights" in text
    choose(segment_panel.ui.modelComboBox, "tissue: tiny-given")
    assert "From: T1\n" in segment_panel.ui.modelTextBrowser.plainText
    assert segment_panel.parameters.model == "tiny-given"


def test_a_second_volume_is_asked_for_only_where_the_model_takes_one(segment_panel):
    ui = segment_panel.ui
    segment_panel.prepare("tiny-given")
    assert not segment_panel.is_shown(ui.secondSelector) and not ui.translatedCheckBox.enabled
    choose(ui.modelComboBox, "tissue: tiny-tms")
    assert segment_panel.is_shown(ui.secondSelector) and ui.secondLabel.text == "T2 volume:"
    assert "translated from the input with tiny-T1-T2" in ui.secondNoteLabel.text and ui.translatedCheckBox.enabled
    add_head("Echtes T2", "T2")
    choose(ui.secondSelector, "Echtes T2")
    assert "Nothing is translated" in ui.secondNoteLabel.text and not ui.translatedCheckBox.enabled


def test_another_model_of_the_same_task_can_be_compared_with(segment_panel):
    ui = segment_panel.ui
    segment_panel.prepare("tiny-tms")
    offered = [ui.compareModelComboBox.itemData(index) for index in range(ui.compareModelComboBox.count)]
    assert offered[0] == "" and "tiny-given" in offered and not {"tiny-tms", "tiny-t2"} & set(offered)
    assert segment_panel.parameters.compareModel == ""


def test_a_broken_card_is_told_and_the_other_models_stay(segment_panel, tiny_models, tmp_path, monkeypatch):
    shutil.copytree(tiny_models.segmenters, tmp_path / "models")
    (tmp_path / "models" / "broken.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(tmp_path / "models"))
    segment_panel.prepare()
    assert "broken.json" in segment_panel.ui.noModelLabel.text and "not valid JSON" in segment_panel.ui.noModelLabel.text
    assert "tiny-tms" in segment_panel.offered() and segment_panel.ui.applyButton.enabled


def test_a_model_without_its_weights_says_so(segment_panel, tiny_models, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(tiny_models.segmenters / "tiny-given.json", folder)
    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(folder))
    segment_panel.prepare("tiny-given")
    assert "weights are not here" in segment_panel.ui.modelTextBrowser.plainText


# --- Scenes --------------------------------------------------------------------------------------------------------


def add_segmentation(name: str):
    """A box of grey matter."""
    from IMTSlicerLib.segmentations import Structure, fillSegmentation

    array = np.zeros((12, 58, 49), np.uint8)
    array[4:8, 20:30, 20:30] = 1
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    fillSegmentation(node, array, np.eye(4), [Structure(1, "grey matter", (0.5, 0.5, 0.5))])
    return node


def test_a_comparison_of_a_closed_scene_touches_nothing_of_the_next(segment_panel):
    ui, parameters = segment_panel.ui, segment_panel.parameters
    parameters.comparedSegmentation, parameters.referenceSegmentation = add_segmentation("A"), add_segmentation("B")
    ui.compareButton.click()
    assert segment_panel.is_shown(ui.scoresLabel) and segment_panel.is_shown(ui.structuresTableView)
    tables, regions = slicer.util.getNodesByClass("vtkMRMLTableNode"), slicer.util.getNode("*(all)")
    identifiers = [tables[-1].GetID(), regions.GetID()]
    segment_panel.widget.parent.exit()
    slicer.mrmlScene.Clear(False)
    for name in ("C", "D", "Meine"):
        mine = add_segmentation(name)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    assert [table.GetID(), mine.GetID()] == identifiers, "scenes number their nodes alike"
    segment_panel.widget.parent.enter()
    for widget in (ui.scoresLabel, ui.structuresTableView, ui.regionsComboBox):
        assert not segment_panel.is_shown(widget)
    ui.regionsComboBox.currentIndex = 1 - ui.regionsComboBox.currentIndex
    assert list(segments(mine)) == ["grey matter"] and mine.GetName() == "Meine"


def test_how_the_user_shows_a_segmentation_stays_until_outlines_are_wanted(segment_panel):
    node = add_segmentation("A")
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    segment_panel.parameters.comparedSegmentation = node
    segment_panel.parameters.seed = 3  # anything else that changes
    assert not display.GetVisibility2DFill()
    segment_panel.ui.outlinesCheckBox.click()
    segment_panel.ui.outlinesCheckBox.click()
    assert display.GetVisibility2DFill()


def test_a_scene_loaded_into_the_open_panel_brings_its_choices_also_where_files_are_missing(segment_panel, tmp_path):
    node = segment_panel.prepare("tiny-given")
    assert slicer.util.saveNode(node, str(tmp_path / "T1.nrrd"), properties={})
    segment_panel.parameters.comparedSegmentation = add_segmentation("A")
    segment_panel.parameters.show3D, segment_panel.parameters.device = True, "cpu"
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()
    (tmp_path / "T1.nrrd").unlink()
    slicer.mrmlScene.Clear(False)
    try:
        slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    except RuntimeError:  # Slicer tells of the missing files
        pass
    parameters = segment_panel.parameters
    assert (parameters.model, parameters.device, parameters.show3D) == ("tiny-given", "cpu", True)
    assert segment_panel.ui.modelComboBox.currentData == "tiny-given" and segment_panel.ui.deviceComboBox.currentText == "cpu"
    assert segment_panel.ui.inputSelector.currentNode() is parameters.inputVolume
    if segment_panel.ui.applyButton.enabled:
        assert "has no image" in segment_panel.segment()


# --- The module ----------------------------------------------------------------------------------------------------


def test_opening_the_panel_alone_from_a_checkout_imports_nothing_heavy(tiny_models):
    new, _said = modules_of_opening(MODULE)
    assert "IMTSegmentPanel.controller" in new and not {name.split(".")[0] for name in new} & HEAVY


def test_settings_are_remembered_in_a_new_scene_but_not_the_input(segment_panel):
    from IMTSegmentPanel.settings import remembered

    segment_panel.prepare()
    choose(segment_panel.ui.deviceComboBox, "cpu")
    segment_panel.parameters.makeProbabilities, segment_panel.parameters.seed = True, 7
    remembered.save(segment_panel.parameters)
    slicer.mrmlScene.Clear(False)
    parameters = segment_panel.parameters
    assert (parameters.device, parameters.makeProbabilities, parameters.seed) == ("cpu", True, 0)
    assert parameters.inputVolume is None
    qt.QSettings().setValue("IMTSegment/device", "abacus")
    slicer.mrmlScene.Clear(False)
    assert segment_panel.parameters.device == "auto"


def test_leaving_the_module_and_coming_back_keeps_the_choice(segment_panel):
    segment_panel.prepare("tiny-given")
    segment_panel.widget.parent.exit()
    segment_panel.widget.parent.enter()
    assert segment_panel.ui.modelComboBox.currentData == segment_panel.parameters.model == "tiny-given"


def test_help_and_acknowledgement_name_the_papers_and_the_purpose(slicer_app):
    module = host.load_module(MODULE)
    assert "not for diagnosis" in module.helpText and module.categories == ["Segmentation"]
    assert all(word in module.acknowledgementText for word in ("Yang", "Scientific Reports", "Long", "Shelhamer"))
