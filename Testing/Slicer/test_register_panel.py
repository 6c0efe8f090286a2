"""The panel of IMTRegister as its users have it: what it shows, what it offers, what it remembers. Nothing is registered."""

from __future__ import annotations

import numpy as np
import pytest
import qt
import slicer
from panel_checks import HEAVY, ROOT, check_bindings, modules_of_opening, without_tooltip
from register_fixtures import MODULE, UI, RegisterPanel
from translate_fixtures import add_head

from slicer_harness import host
from slicer_harness.host import choose

# Bound by the panel itself: lists that change, and the table of atlases.
HANDLED = {"model"}

# --- What it shows -------------------------------------------------------------------------------------------------


def test_the_panel_opens_with_nothing_to_do_and_says_why(register_panel):
    ui = register_panel.ui
    assert not ui.applyButton.enabled and ui.applyButton.toolTip == "Select an input volume."
    assert "not for diagnosis" in ui.noticeLabel.text
    for widget in (ui.progressBar, ui.guessLabel, ui.atlasTableView, ui.scoresLabel, ui.regionsComboBox, ui.atlasTableWidget):
        assert not register_panel.is_shown(widget)
    parameters = register_panel.parameters
    assert (parameters.engine, parameters.preset, parameters.labelFusion) == ("greedy", "fast", "mean")
    assert parameters.weightAutomatic and not ui.weightSlider.enabled


def test_every_parameter_is_shown_by_one_widget_and_each_follows_the_other(register_panel):
    check_bindings(register_panel, UI, HANDLED)


def test_everything_that_can_be_clicked_or_read_has_a_tooltip():
    assert not without_tooltip(UI)


# --- Choosing ------------------------------------------------------------------------------------------------------


def test_the_modality_is_guessed_and_a_correction_stays(register_panel):
    node = add_head("Anna T2", "T2")
    choose(register_panel.ui.inputSelector, "Anna T2")
    assert register_panel.parameters.inputVolume is node and register_panel.parameters.inputModality == "T2"
    assert register_panel.ui.guessLabel.text == "Taken for T2 by its name."
    choose(register_panel.ui.modalityComboBox, "PD")
    register_panel.widget.parent.exit()
    register_panel.widget.parent.enter()
    assert register_panel.parameters.inputModality == register_panel.ui.modalityComboBox.currentText == "PD"


def test_a_second_modality_offers_the_models_that_make_it_or_a_real_volume(register_panel):
    ui = register_panel.ui
    add_head("Anna T2", "T2"), add_head("Anna T1")
    choose(ui.inputSelector, "Anna T2")
    assert not register_panel.is_shown(ui.modelComboBox) and not ui.fusionComboBox.enabled
    choose(ui.translateToComboBox, "T1")
    offered = [ui.modelComboBox.itemData(index) for index in range(ui.modelComboBox.count)]
    assert register_panel.is_shown(ui.modelComboBox) and offered[0] == "" and "T2-T1" in offered and "T1-T2" not in offered
    assert "synthetic" in ui.secondNoteLabel.text and ui.fusionComboBox.enabled and "T2 and T1" in ui.methodLabel.text
    choose(ui.modelComboBox, "T2-T1")
    assert register_panel.parameters.model == "T2-T1"
    choose(ui.secondSelector, "Anna T1")
    assert not register_panel.is_shown(ui.modelComboBox) and not register_panel.is_shown(ui.secondNoteLabel)
    choose(ui.translateToComboBox, "PD")
    choose(ui.secondSelector, "(translate the input)")
    assert "No model translates T2 to PD" in ui.secondNoteLabel.text
    assert ui.applyButton.toolTip == ui.secondNoteLabel.text and not ui.applyButton.enabled
    choose(ui.translateToComboBox, "T2")
    assert "that of the input" in ui.applyButton.toolTip


def test_the_share_can_be_set_by_hand_where_it_counts(register_panel):
    ui = register_panel.ui
    choose(ui.modalityComboBox, "T2"), choose(ui.translateToComboBox, "T1")
    assert ui.weightCheckBox.enabled and not ui.weightSlider.enabled
    ui.weightCheckBox.click()
    assert ui.weightSlider.enabled
    choose(ui.fusionComboBox, "local")
    assert not ui.weightSlider.enabled and not ui.weightCheckBox.enabled
    choose(ui.fusionComboBox, "none")
    assert "T1 is not used" in ui.methodLabel.text


# --- Atlases -------------------------------------------------------------------------------------------------------


def write_names(folder, atlases: dict[str, tuple[str, ...]]):
    """An atlas folder as far as the names of its files go."""
    for name, files in atlases.items():
        (folder / name).mkdir(parents=True)
        for file in files:
            (folder / name / file).touch()
    return folder


def test_an_atlas_folder_is_described_at_once_and_a_wrong_one_is_told(register_panel, tmp_path):
    ui = register_panel.ui
    add_head("Anna T2", "T2")
    choose(ui.inputSelector, "Anna T2")
    both = ("T1.nii.gz", "T2.nii.gz", "labels.nii.gz")
    good = write_names(tmp_path / "good ö", {"a": both, "b": both})
    poor = write_names(tmp_path / "poor", {"a": both, "b": ("T2.nii.gz", "labels.nii.gz")})
    ui.atlasFolderPathLineEdit.currentPath = str(good)
    assert ui.atlasLabel.text == "2 atlases: a, b" and ui.applyButton.enabled
    ui.atlasFolderPathLineEdit.currentPath = str(poor)
    assert ui.applyButton.enabled
    choose(ui.translateToComboBox, "T1")
    assert "1 of 2 atlases have no T1 image: b" in ui.atlasLabel.text == ui.applyButton.toolTip and not ui.applyButton.enabled
    for path, words in ((tmp_path / "fehlt", "There is no folder"), (tmp_path, "holds no atlas")):
        ui.atlasFolderPathLineEdit.currentPath = str(path)
        assert words in ui.atlasLabel.text and not ui.applyButton.enabled


def fill_row(panel, row: int, **nodes) -> None:
    """Choose a row's nodes in the table."""
    for kind, node in nodes.items():
        panel.widget.panel._atlases._selectors[row][kind].setCurrentNode(node)


def test_the_table_of_atlases_takes_nodes_and_keeps_them_when_the_module_is_left(register_panel):
    ui = register_panel.ui
    add_head("Anna T1")
    choose(ui.inputSelector, "Anna T1")
    ui.atlasesFromSceneCheckBox.click()
    assert register_panel.is_shown(ui.atlasTableWidget) and not register_panel.is_shown(ui.atlasFolderPathLineEdit)
    assert "no atlas" in ui.atlasLabel.text
    images = [add_head(f"Kopf {n}") for n in (1, 2)]
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels 1")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Labels 2")
    ui.addAtlasButton.click()
    assert ui.atlasLabel.text == "Select the image of atlas atlas1."
    fill_row(register_panel, 0, Image=images[0], Labels=labels)
    ui.addAtlasButton.click()
    fill_row(register_panel, 1, Image=images[1], Labels=segmentation)
    ui.atlasTableWidget.item(1, 0).setText("bert")
    assert ui.atlasLabel.text == "2 atlases of the scene." and ui.applyButton.enabled
    register_panel.widget.parent.exit()
    register_panel.widget.parent.enter()
    atlases = register_panel.widget.panel._atlases.atlases()
    assert [(one.name, one.image, one.labels) for one in atlases] == [("atlas1", images[0], labels), ("bert", images[1], segmentation)]
    assert ui.atlasTableWidget.item(1, 0).text() == "bert"
    choose(ui.translateToComboBox, "T2")
    assert "T2 image of atlas atlas1" in ui.atlasLabel.text
    choose(ui.translateToComboBox, "none")
    ui.atlasTableWidget.setCurrentCell(0, 0)
    ui.removeAtlasButton.click()
    assert [one.name for one in register_panel.widget.panel._atlases.atlases()] == ["bert"] and ui.atlasTableWidget.rowCount == 1
    ui.atlasTableWidget.item(0, 0).setText("../x")
    assert "cannot be an atlas's name" in ui.atlasLabel.text and not ui.applyButton.enabled


def test_a_scene_loaded_into_the_open_panel_brings_its_table_of_atlases(register_panel, tmp_path):
    register_panel.ui.atlasesFromSceneCheckBox.click()
    register_panel.ui.addAtlasButton.click()
    fill_row(register_panel, 0, Image=add_head("Kopf 1"), Labels=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "L"))
    register_panel.ui.atlasTableWidget.item(0, 0).setText("bert")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    assert register_panel.ui.atlasTableWidget.rowCount == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert register_panel.ui.atlasTableWidget.rowCount == 1 and register_panel.ui.atlasTableWidget.item(0, 0).text() == "bert"
    selectors = register_panel.widget.panel._atlases._selectors[0]
    assert [selectors[kind].currentNode().GetName() for kind in ("Image", "Labels")] == ["Kopf 1", "L"]
    assert register_panel.ui.atlasLabel.text == "One atlas of the scene."


def test_structures_of_one_name_get_one_code_however_each_atlas_numbers_them(register_panel):
    from IMTRegisterPanel.scene_atlases import CommonCodes
    from IMTSlicerLib.segmentations import Structure, fillSegmentation, labelsOf

    head = add_head("Kopf 1")
    array = np.zeros(slicer.util.arrayFromVolume(head).shape, np.uint8)
    array[2:5, 10:20, 10:20], array[6:9, 10:20, 10:20] = 1, 2
    found = []
    for number, order in enumerate((("grey", "white"), ("white", "grey"))):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"S{number}")
        structures = [Structure(code, name, (1, 0, 0)) for code, name in enumerate(order, start=1)]
        swapped = array if number == 0 else np.where(array > 0, 3 - array, 0).astype(np.uint8)
        fillSegmentation(node, swapped, np.eye(4), structures)
        before = slicer.mrmlScene.GetNumberOfNodes()
        found.append(labelsOf(node))
        assert slicer.mrmlScene.GetNumberOfNodes() == before, "an export leaves nothing in the scene"
    codes = CommonCodes()
    first, second = (codes.renumber(labels) for labels in found)
    assert np.array_equal(first, second) and set(np.unique(first)) == {0, 1, 2}
    assert {one.name: code for code, one in codes.names().items()} == {"grey": 1, "white": 2}


# --- Engines -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_engines(register_panel, monkeypatch, tmp_path) -> RegisterPanel:
    """The panel where no engine is installed, and pip without a network."""
    monkeypatch.setenv("IMT_ENGINES", str(tmp_path / "none"))
    monkeypatch.setenv("IMT_PACKAGES", str(tmp_path / "packages"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    register_panel.widget.panel.update()
    return register_panel


def test_a_missing_engine_is_told_and_offered(no_engines):
    ui = no_engines.ui
    assert "Greedy is not installed" in ui.engineLabel.text and no_engines.is_shown(ui.installEnginesButton)
    choose(ui.engineComboBox, "ants")
    assert "ANTs is not installed" in ui.engineLabel.text


def test_engines_are_installed_only_after_a_yes_and_the_installation_can_be_cancelled(no_engines, monkeypatch, tmp_path):
    ui, asked = no_engines.ui, []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_: bool(asked.append(text)))
    ui.installEnginesButton.click()
    assert not no_engines.widget.panel.engines.isRunning() and str(tmp_path / "packages") in asked[0]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    ui.installEnginesButton.click()
    assert no_engines.widget.panel.engines.isRunning() and ui.installEnginesButton.text == "Cancel the installation"
    assert not ui.applyButton.enabled
    ui.installEnginesButton.click()
    assert not no_engines.widget.panel.engines.isRunning() and "nothing was changed" in ui.statusLabel.text
    assert not list((tmp_path / "packages").iterdir())


def test_a_folder_without_the_engines_wheels_is_told(no_engines, dialogs, tmp_path):
    dialogs.answer("QFileDialog.getExistingDirectory", str(tmp_path / "fehlt"))
    no_engines.ui.installWheelsButton.click()
    assert "no folder of wheels" in no_engines.ui.statusLabel.text


def test_the_engines_folder_in_slicer_gets_what_make_setup_gives_it():
    shipped = ROOT / "IMTRegister" / "Resources" / "IMT-register-requirements.txt"
    assert shipped.read_bytes() == (ROOT / "Resources" / "requirements" / "engines.txt").read_bytes()


# --- The module ----------------------------------------------------------------------------------------------------

def test_opening_the_panel_alone_from_a_checkout_imports_nothing_heavy():
    new, _said = modules_of_opening(MODULE, "widget.ui.translateToComboBox.currentIndex = 2")
    assert "IMTRegisterPanel.controller" in new and not {name.split(".")[0] for name in new} & HEAVY


def test_settings_are_remembered_in_a_new_scene_but_not_the_input(register_panel, tmp_path):
    from IMTRegisterPanel.settings import remembered

    choose(register_panel.ui.engineComboBox, "elastix")
    choose(register_panel.ui.fusionComboBox, "local")
    register_panel.parameters.memory, register_panel.parameters.seed = 2.5, 7
    register_panel.parameters.atlasFolder = tmp_path
    remembered.save(register_panel.parameters)
    slicer.mrmlScene.Clear(False)
    parameters = register_panel.parameters
    assert (parameters.engine, parameters.fusion, parameters.memory, parameters.seed) == ("elastix", "local", 2.5, 0)
    assert parameters.atlasFolder == tmp_path
    qt.QSettings().setValue("IMTRegister/engine", "abacus")
    slicer.mrmlScene.Clear(False)
    assert register_panel.parameters.engine == "greedy"


def test_help_and_acknowledgement_name_the_paper_the_engines_and_the_purpose(slicer_app):
    module = host.load_module(MODULE)
    assert "not for diagnosis" in module.helpText and module.categories == ["Registration"]
    assert all(word in module.acknowledgementText for word in ("Yang", "Scientific Reports", "Greedy", "ANTs", "elastix"))
