"""What IMTRegister says when something is wrong, and that cancelling or meddling leaves the scene whole."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
import slicer
from translate_fixtures import add_head, add_rotation, bad_volumes, children, matrix_of, node_ids, wait_until

from slicer_harness.host import choose


def long_run(panel, cohort):
    """A run that is in no cache and takes longer than any test waits."""
    node = panel.prepare(cohort, "T2")
    choose(panel.ui.engineComboBox, "greedy"), choose(panel.ui.presetComboBox, "paper")
    panel.parameters.seed = time.monotonic_ns() % 10**9
    return node


def assert_refused(panel, *words: str) -> str:
    """Click Register: one message with these words, nothing new in the scene; returns the message."""
    before = node_ids()
    text = panel.register()
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert "IMT-" not in text.replace("IMT-register-requirements.txt", ""), "a temporary folder's name tells a user nothing"
    assert node_ids() == before and panel.ui.applyButton.text == "Register"
    assert f"Error: {text}" in panel.ui.logTextEdit.plainText and "color" in panel.ui.statusLabel.styleSheet
    assert not panel.is_shown(panel.ui.progressBar)
    return text


# --- Cancel, and meddling during a run -----------------------------------------------------------------------------


def test_cancel_ends_everything_within_a_second_and_leaves_the_scene_as_it_was(register_panel, cohort, temporary):
    long_run(register_panel, cohort)
    before, idle = node_ids(), children()
    register_panel.start()
    wait_until(lambda: "Atlas head1: linear" in register_panel.ui.statusLabel.text and len(children() - idle) > 1, 120)
    scratch = register_panel.widget.panel._run.job.scratch
    assert list(scratch.rglob("*"))
    begin = time.monotonic()
    register_panel.ui.applyButton.click()
    assert time.monotonic() - begin < 1
    assert register_panel.ui.statusLabel.text == "Cancelled: nothing was changed."
    assert node_ids() == before and not list(temporary.iterdir()) and not register_panel.is_shown(register_panel.ui.progressBar)
    wait_until(lambda: children() <= idle, 2)
    assert not scratch.exists()


def test_closing_the_scene_during_a_run_ends_it_and_the_next_scene_stays_empty(register_panel, cohort, temporary):
    long_run(register_panel, cohort)
    register_panel.start()
    wait_until(lambda: register_panel.ui.progressBar.value > 0)
    slicer.mrmlScene.Clear(False)
    assert not register_panel.widget.panel.isRunning() and not list(temporary.iterdir())
    assert register_panel.ui.applyButton.text == "Register" and not register_panel.ui.applyButton.enabled
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") + slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_what_is_selected_during_a_run_changes_nothing_of_it(register_panel, cohort):
    node = register_panel.prepare(cohort, "T2")
    grid = matrix_of(node)
    register_panel.start()
    add_head("Other T1")
    choose(register_panel.ui.inputSelector, "Other T1")
    register_panel.ui.transformsCheckBox.click()
    node.SetOrigin(500.0, 0.0, 0.0)
    register_panel.wait()
    results = register_panel.widget.panel._run.results
    assert results.segmentationNode.GetName() == "Anna T2 labels", register_panel.ui.statusLabel.text
    assert len(results.transformNodes) == 2
    assert np.allclose(matrix_of(results.agreementNode), grid, rtol=0, atol=1e-9)  # where the image was
    bounds = [0.0] * 6
    results.segmentationNode.GetRASBounds(bounds)
    assert bounds[0] < 200


def test_an_input_removed_during_a_run_drops_the_results_with_a_message(register_panel, cohort):
    node = register_panel.prepare(cohort, "T2")
    register_panel.start()
    slicer.mrmlScene.RemoveNode(node)
    before = node_ids()
    register_panel.wait()
    assert "Anna T2 was removed during the run" in register_panel.ui.statusLabel.text
    assert node_ids() == before


def test_a_result_that_cannot_be_read_brings_nothing_into_the_scene(register_logic, cohort, monkeypatch):
    from IMTRegisterPanel import registration_results

    node = cohort.volume("T2")
    before = node_ids()

    def broken(*_unused):
        raise RuntimeError("The table is broken.")

    monkeypatch.setattr(registration_results, "tableOfAtlases", broken)
    with pytest.raises(RuntimeError, match="The table is broken"):
        register_logic.register(node, "T2", cohort.atlases, jobs=1)
    assert node_ids() == before


# --- Bad input -----------------------------------------------------------------------------------------------------


def test_an_atlas_that_cannot_be_read_is_named_and_nothing_is_made(register_panel, cohort, tmp_path):
    folder = tmp_path / "atlases"
    shutil.copytree(cohort.atlases, folder)
    (folder / "head2" / "T2.nii.gz").write_bytes(b"no image")
    register_panel.prepare(cohort, "T2")
    register_panel.ui.atlasFolderPathLineEdit.currentPath = str(folder)
    assert_refused(register_panel, "head2", "T2.nii.gz")


def test_an_unknown_structure_is_told_with_those_there_are(register_panel, cohort):
    register_panel.prepare(cohort, "T2")
    register_panel.ui.structuresLineEdit.text = "white, putamen"
    assert_refused(register_panel, "putamen", "grey")


def test_a_missing_engine_is_told_by_panel_and_logic_alike(register_panel, cohort, monkeypatch, tmp_path):
    node = register_panel.prepare(cohort, "T2")
    monkeypatch.setenv("IMT_ENGINES", str(tmp_path / "none"))
    text = assert_refused(register_panel, "Greedy is not installed", "installs the engines")
    with pytest.raises(RuntimeError) as caught:
        register_panel.widget.logic.register(node, "T2", cohort.atlases)
    assert str(caught.value) == text


@pytest.mark.parametrize("what", ["NaN", "4D", "empty volume", "label map", "table", "nothing"])
def test_a_volume_that_cannot_be_registered_is_named(register_logic, tmp_path, what):
    make, words = bad_volumes()[what]
    node = make()
    before = node_ids()
    with pytest.raises(ValueError, match=words):
        register_logic.register(node, "T1", tmp_path)
    assert node_ids() == before


def refusals():
    """What a script may get wrong: arguments of `register` besides the input T1 -> what the message must say."""
    from IMTRegisterPanel.scene_atlases import SceneAtlas

    def moved():
        node = add_head("Second")
        node.SetAndObserveTransformNodeID(add_rotation().GetID())
        return node

    def mask(filled: bool):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Maske")
        slicer.util.updateVolumeFromArray(node, np.full((4, 8, 9), int(filled), np.uint8))
        return node

    labels = mask(True)
    return {
        "There is no atlas folder": {"atlases": "/there/is/none"},
        "There is no atlas. Add": {"atlases": []},
        "Two atlases are called": {"atlases": [SceneAtlas("a", add_head("A"), labels), SceneAtlas("A", add_head("B"), labels)]},
        "Select the labels of atlas a": {"atlases": [SceneAtlas("a", add_head("A"), None)]},
        "that of the input, T1": {"translateTo": "T1"},
        "Say which modality": {"secondNode": add_head("Second")},
        "under different transforms": {"secondNode": moved(), "translateTo": "T2"},
        "mask Maske is empty": {"maskNode": mask(False)},
        "is not on the grid of": {"maskNode": mask(True)},
        "X is no segmentation": {"segmentationNode": add_head("X")},
        "'Meine' is no segmentation": {"segmentationNode": "Meine"},
        "mask Kopf is no label map": {"maskNode": add_head("Kopf")},
    }


def test_what_a_script_gets_wrong_is_told_before_anything_runs(register_logic, tmp_path):
    node = add_head("T1")
    for words, arguments in refusals().items():
        before = node_ids()
        with pytest.raises(ValueError, match=words):
            register_logic.register(node, "T1", **{"atlases": tmp_path, **arguments})
        assert node_ids() == before
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.AddControlPoint([0.0, 0.0, 0.0], "L1")
    with pytest.raises(ValueError, match="Select the segmentation that a registration made"):
        register_logic.compareLandmarks(points, None)


def test_labels_of_an_atlas_on_another_grid_are_named(register_logic):
    from IMTRegisterPanel.scene_atlases import SceneAtlas

    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Maske")
    slicer.util.updateVolumeFromArray(labels, np.ones((4, 8, 9), np.uint8))
    node, image = add_head("T1"), add_head("A")
    before = node_ids()
    with pytest.raises(ValueError, match="Maske is on another grid"):
        register_logic.register(node, "T1", [SceneAtlas("a", image, labels)])
    assert node_ids() == before
