"""What IMTSegment says when something is wrong, and that cancelling or meddling leaves the scene whole."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
import slicer
from panel_checks import wait_until
from segment_fixtures import COLOURS, segments
from translate_fixtures import SAMPLES, add_head, add_rotation, bad_volumes, children, matrix_of, node_ids

from slicer_harness.host import choose


def assert_refused(panel, *words: str) -> str:
    """Click Segment: one message with these words, nothing new in the scene; returns the message."""
    before = node_ids()
    text = panel.segment()
    assert all(word in text for word in words), text
    assert "Traceback" not in text and "IMT-" not in text and "--" not in text
    assert node_ids() == before and panel.ui.applyButton.text == "Segment"
    assert f"Error: {text}" in panel.ui.logTextEdit.plainText and "color" in panel.ui.statusLabel.styleSheet
    assert not panel.is_shown(panel.ui.progressBar)
    return text


# --- Cancel, and meddling during a run -----------------------------------------------------------------------------


def test_cancel_ends_everything_within_a_second_and_leaves_the_scene_as_it_was(segment_panel, temporary):
    segment_panel.prepare()
    before, idle = node_ids(), children()
    segment_panel.start()
    wait_until(lambda: segment_panel.ui.progressBar.value > 0 and len(children() - idle) > 0)
    scratch = segment_panel.widget.panel._run.job.scratch
    begin = time.monotonic()
    segment_panel.ui.applyButton.click()
    assert time.monotonic() - begin < 1
    assert segment_panel.ui.statusLabel.text == "Cancelled: nothing was changed."
    assert node_ids() == before and not list(temporary.iterdir()) and not segment_panel.is_shown(segment_panel.ui.progressBar)
    wait_until(lambda: children() <= idle, 2)
    assert not scratch.exists()


def test_closing_the_scene_during_a_run_ends_it_and_the_next_scene_stays_empty(segment_panel, temporary):
    segment_panel.prepare()
    segment_panel.start()
    wait_until(lambda: segment_panel.ui.progressBar.value > 0)
    slicer.mrmlScene.Clear(False)
    assert not segment_panel.widget.panel.isRunning() and not list(temporary.iterdir())
    assert segment_panel.ui.applyButton.text == "Segment" and not segment_panel.ui.applyButton.enabled
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") + slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_what_is_selected_during_a_run_changes_nothing_of_it(segment_panel):
    node = segment_panel.prepare("tiny-given")
    segment_panel.parameters.makeProbabilities = True
    grid = matrix_of(node)
    segment_panel.start()
    add_head("Other T1")
    choose(segment_panel.ui.inputSelector, "Other T1")
    choose(segment_panel.ui.modelComboBox, "tissue: tiny-tms")
    segment_panel.ui.probabilitiesCheckBox.click()
    node.SetOrigin(500.0, 0.0, 0.0)
    segment_panel.wait()
    results = segment_panel.results
    assert results.segmentationNode.GetName() == "Kopf T1 tissue", segment_panel.ui.statusLabel.text
    assert results.segmentationNode.GetAttribute("IMT.Model") == "tiny-given"
    assert np.abs(matrix_of(results.probabilityNodes["CSF"]) - grid).max() < 1e-12  # where the image was
    assert list(segments(results.segmentationNode)) == list(COLOURS)


def test_an_input_removed_during_a_run_drops_the_result_with_a_message(segment_panel):
    node = segment_panel.prepare("tiny-given")
    segment_panel.start()
    slicer.mrmlScene.RemoveNode(node)
    before = node_ids()
    segment_panel.wait()
    assert "Kopf T1 was removed during the run" in segment_panel.ui.statusLabel.text
    assert node_ids() == before


def test_a_result_that_cannot_be_taken_brings_nothing_into_the_scene(segment_logic, monkeypatch):
    from IMTSlicerLib import derived_results

    node = add_head("T1")
    before = node_ids()

    def broken(*_unused):
        raise RuntimeError("The segments are broken.")

    monkeypatch.setattr(derived_results, "fillSegmentation", broken)  # the last step: all else is in the scene already
    with pytest.raises(RuntimeError, match="The segments are broken"):
        segment_logic.segment(node, "tiny-tms", probabilities=True)
    assert node_ids() == before


# --- Bad input and models ------------------------------------------------------------------------------------------


def test_a_volume_of_another_modality_is_refused_until_the_user_insists(segment_panel):
    slicer.util.loadVolume(str(SAMPLES / "IMT-phantom-T2.nii.gz"), properties={"name": "Series 7", "show": False})
    choose(segment_panel.ui.inputSelector, "Series 7")
    assert segment_panel.ui.guessLabel.text == "Taken for T2 by the image itself."
    choose(segment_panel.ui.modalityComboBox, "T1")
    choose(segment_panel.ui.modelComboBox, "tissue: tiny-given")
    assert_refused(segment_panel, "Series 7 looks like a T2 image", "under Advanced", "checkModality=False")


def test_damaged_weights_are_refused_by_panel_and_logic_alike(segment_panel, tiny_models, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    shutil.copytree(tiny_models.segmenters, folder)
    weights = folder / "tiny-given.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 0xFF
    weights.write_bytes(bytes(content))
    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(folder))
    node = segment_panel.prepare("tiny-given")
    text = assert_refused(segment_panel, "SHA-256", "tiny-given")
    with pytest.raises(ValueError) as caught:
        segment_panel.widget.logic.segment(node, "tiny-given")
    assert str(caught.value) == text


def test_a_translator_that_is_not_here_is_named(segment_panel, tmp_path, monkeypatch):
    segment_panel.prepare("tiny-tms")
    monkeypatch.setenv("IMT_MODELS", str(tmp_path))
    assert_refused(segment_panel, "tiny-T1-T2", "(translator= in Python)", "(second volume)")


@pytest.mark.parametrize("what", ["NaN", "4D", "empty volume", "label map", "table", "nothing"])
def test_a_volume_that_cannot_be_segmented_is_named(segment_logic, what):
    make, words = bad_volumes()[what]
    node = make()
    before = node_ids()
    with pytest.raises(ValueError, match=words):
        segment_logic.segment(node, "tiny-given")
    assert node_ids() == before


def refusals(node):
    """What a script may get wrong: what the message must say -> arguments of `segment` besides the input."""
    moved = add_head("Moved")
    moved.SetAndObserveTransformNodeID(add_rotation().GetID())
    return {
        "no segmentation model 'nieren'": {"model": "nieren"},
        "takes T1 alone": {"model": "tiny-given", "secondNode": add_head("Second", "T2")},
        "is the input volume": {"model": "tiny-tms", "secondNode": node},
        "under different transforms": {"model": "tiny-tms", "secondNode": moved},
        "is no segmentation": {"model": "tiny-given", "segmentationNode": moved},
    }


def test_what_a_script_gets_wrong_is_told_before_anything_runs(segment_logic):
    node = add_head("T1")
    for words, arguments in refusals(node).items():
        before = node_ids()
        with pytest.raises(ValueError, match=words):
            segment_logic.segment(node, **arguments)
        assert node_ids() == before


def test_a_reference_with_other_structures_is_told(segment_logic):
    from IMTSlicerLib.segmentations import Structure, fillSegmentation

    array = np.zeros((12, 58, 49), np.uint8)
    array[4:8, 20:30, 20:30] = 1
    nodes = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in ("A", "B")]
    for node, structure in zip(nodes, ("CSF", "Leber"), strict=True):
        fillSegmentation(node, array, np.eye(4), [Structure(1, structure, (1, 0, 0))])
    before = node_ids()
    for other, words in ((nodes[1], "No structure has the same name"), (nodes[0], "are the same")):
        with pytest.raises(ValueError, match=words):
            segment_logic.compare(nodes[0], other)
    assert node_ids() == before
