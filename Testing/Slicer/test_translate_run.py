"""A translation by click: what comes into the scene, and that cancelling or meddling leaves it whole."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import slicer
from translate_fixtures import add_head, add_rotation, children, head_array, matrix_of, node_ids, wait_until

from slicer_harness.host import choose


def tiny(panel, node=None):
    """Choose an input, T2 as the only target, and the tiny model; returns the input."""
    node = node or add_head("Kopf T1")
    choose(panel.ui.inputSelector, node.GetName())
    choose(panel.ui.modalityComboBox, "T1")
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    return node


def long_run(panel, node=None):
    """The same, with so many samples that it goes on for longer than any test waits."""
    node = tiny(panel, node)
    panel.ui.uncertaintyCheckBox.checked = True
    panel.ui.samplesSpinBox.value = 100
    panel.ui.batchSpinBox.value = 1
    return node


def volumes() -> set[str]:
    return {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}


# --- What comes out ------------------------------------------------------------------------------------------------


def test_the_result_lies_where_the_input_does_and_says_what_it_is(panel):
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Anna"), "2025")
    node, rotation = tiny(panel), add_rotation()
    node.SetAndObserveTransformNodeID(rotation.GetID())
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
    before = slicer.util.arrayFromVolume(node).copy()
    panel.translate()
    result = slicer.util.getNode("Kopf T1 T2 (synthetic)")
    assert np.allclose(matrix_of(result), matrix_of(node), rtol=0, atol=1e-12) and np.array_equal(
        slicer.util.arrayFromVolume(node), before
    )
    assert slicer.util.arrayFromVolume(result).shape == before.shape
    assert result.GetTransformNodeID() == rotation.GetID()
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result)) == study
    card = json.loads((panel.parameters.modelFolder / "tiny-T1-T2.json").read_text(encoding="utf-8"))
    attributes = {
        name: result.GetAttribute(f"IMT.{name}")
        for name in ("Synthetic", "Model", "ModelSHA256", "Seed", "SourceModality", "TargetModality")
    }
    assert attributes == {
        "Synthetic": "true",
        "Model": "tiny-T1-T2",
        "ModelSHA256": card["weights"]["sha256"],
        "Seed": "0",
        "SourceModality": "T1",
        "TargetModality": "T2",
    }
    assert "torch" in json.loads(result.GetAttribute("IMT.Versions")) and "diagnos" in result.GetDescription()
    display, array = result.GetDisplayNode(), slicer.util.arrayFromVolume(result)
    assert display.GetWindowLevelMin() == 0 and display.GetWindowLevelMax() == pytest.approx(
        np.percentile(array[array != 0], 99.5)
    )
    assert result.GetStorageNode().GetFileName() is None
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == result.GetID() and panel.parameters.comparedVolume is result


def test_two_modalities_come_out_of_one_run_with_an_uncertainty_each(panel):
    tiny(panel)
    said = set()
    panel.ui.translateToFLAIRCheckBox.checked = True
    choose(panel.ui.modelFLAIRComboBox, "tiny-T1-FLAIR")
    panel.ui.uncertaintyCheckBox.checked = True
    panel.ui.samplesSpinBox.value = 2
    assert panel.ui.samplesSpinBox.enabled
    before = volumes()
    panel.start()
    wait_until(lambda: said.add(panel.ui.statusLabel.text) or not panel.widget.panel.isRunning())
    assert not [text for text in said if "IMT-" in text or ".nrrd" in text], "names of temporary files are not the user's"
    made = volumes() - before
    assert made == {f"Kopf T1 {m}{what} (synthetic)" for m in ("T2", "FLAIR") for what in ("", " uncertainty")}
    uncertainty = slicer.util.getNode("Kopf T1 FLAIR uncertainty (synthetic)")
    assert slicer.util.arrayFromVolume(uncertainty).max() > 0 and uncertainty.GetAttribute("IMT.Synthetic") == "true"
    assert uncertainty.GetDisplayNode().GetColorNode().GetName() == "IMT heat"
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == slicer.util.getNode("Kopf T1 T2 uncertainty (synthetic)").GetID()


def test_any_to_any_and_other_modalities_are_made(panel):
    tiny(panel)
    panel.ui.translateToT2CheckBox.checked = False
    panel.ui.translateToPDCheckBox.checked = panel.ui.translateToOtherCheckBox.checked = True
    assert "tiny-T1-CT" in panel.ui.modelOtherComboBox.currentText
    panel.translate()
    assert slicer.util.getNode("Kopf T1 PD (synthetic)").GetAttribute("IMT.Model") == "tiny-any"
    assert slicer.util.getNode("Kopf T1 CT (synthetic)").GetAttribute("IMT.TargetModality") == "CT"


def test_a_chosen_output_volume_is_filled_and_renamed_and_nothing_else_comes_into_the_scene(panel):
    node, output = tiny(panel), add_head("Mein Bild", array=np.zeros((2, 3, 4), np.int16))
    choose(panel.ui.outputT2Selector, "Mein Bild")
    panel.translate()
    after = node_ids()
    assert output.GetName() == "Mein Bild (synthetic)" and output.GetAttribute("IMT.Synthetic") == "true"
    assert slicer.util.arrayFromVolume(output).shape == head_array().shape and np.allclose(
        matrix_of(output), matrix_of(node), rtol=0, atol=1e-12
    )
    panel.translate()
    assert node_ids() == after and output.GetName() == "Mein Bild (synthetic)"
    assert volumes() == {"Kopf T1", "Mein Bild (synthetic)"}


def test_saving_the_scene_cannot_overwrite_the_real_image_whose_volume_was_chosen_as_output(panel, tmp_path):
    path = tmp_path / "real.nrrd"
    tiny(panel)
    assert slicer.util.exportNode(add_head("real", "T2"), str(path), properties={})
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("real"))
    output = slicer.util.loadVolume(str(path), properties={"show": False})
    choose(panel.ui.outputT2Selector, "real")
    panel.translate()
    assert output.GetName() == "real (synthetic)" and not output.GetStorageNode().GetFileName(), panel.ui.statusLabel.text


def test_the_input_is_refused_as_output(panel):
    node = tiny(panel)
    choose(panel.ui.outputT2Selector, node.GetName())
    before = node_ids()
    panel.start()
    assert not panel.widget.panel.isRunning() and "is the input volume" in panel.ui.statusLabel.text
    assert node_ids() == before and panel.ui.applyButton.text == "Translate"


def test_one_output_for_two_modalities_is_refused(panel):
    tiny(panel)
    add_head("Ziel")
    panel.ui.translateToFLAIRCheckBox.checked = True
    choose(panel.ui.outputT2Selector, "Ziel"), choose(panel.ui.outputFLAIRSelector, "Ziel")
    panel.start()
    assert not panel.widget.panel.isRunning() and "same output volume" in panel.ui.statusLabel.text


def test_the_same_seed_gives_the_same_image_and_names_do_not_clash(panel):
    tiny(panel)
    panel.translate(), panel.translate()
    first, second = (slicer.util.getNode(f"Kopf T1 T2 (synthetic){end}") for end in ("", "_1"))
    assert np.array_equal(slicer.util.arrayFromVolume(first), slicer.util.arrayFromVolume(second))


# --- Cancel, and meddling during a run -----------------------------------------------------------------------------


def test_cancel_ends_everything_within_a_second_and_leaves_the_scene_as_it_was(panel, temporary):
    long_run(panel)
    before = node_ids()
    panel.start()
    wait_until(lambda: panel.ui.progressBar.value > 170)  # in the middle of translating
    working = children()  # the process may be one that an earlier test has left with its model loaded
    assert panel.widget.panel._worker.pid in working
    begin = time.monotonic()
    panel.ui.applyButton.click()
    assert time.monotonic() - begin < 1
    assert not children() & working
    assert panel.ui.statusLabel.text == "Cancelled: nothing was changed." and panel.ui.applyButton.text == "Translate"
    assert node_ids() == before and not list(temporary.iterdir()) and not panel.is_shown(panel.ui.progressBar)
    panel.ui.uncertaintyCheckBox.checked = False
    assert panel.translate().startswith("Made Kopf T1 T2 (synthetic)")


def test_cancel_right_after_the_start_leaves_nothing(panel, temporary):
    tiny(panel)
    before = node_ids()
    panel.start()
    panel.ui.applyButton.click()
    assert not panel.widget.panel.isRunning() and node_ids() == before and not list(temporary.iterdir())


def test_what_is_selected_during_a_run_changes_nothing_of_it(panel):
    node, other = tiny(panel), add_head("Other T2", "T2")
    output, grid = add_head("Ziel"), matrix_of(node)
    choose(panel.ui.outputT2Selector, "Ziel")
    panel.start()
    choose(panel.ui.inputSelector, "Other T2")
    choose(panel.ui.outputT1Selector, "Other T2")
    panel.ui.seedSpinBox.value = 7
    node.SetName("Renamed")
    node.SetOrigin(100.0, 0.0, 0.0)
    panel.wait()
    assert np.allclose(matrix_of(output), grid, rtol=0, atol=1e-12)  # where the image was that was translated
    assert output.GetAttribute("IMT.Seed") == "0" and output.GetAttribute("IMT.SourceModality") == "T1"
    assert other.GetAttribute("IMT.Synthetic") is None and "Ziel (synthetic)" in panel.ui.statusLabel.text


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_volume_removed_during_a_run_ends_it_with_a_message_and_nothing_half_made(panel, which):
    node, output = tiny(panel), add_head("Ziel")
    choose(panel.ui.outputT2Selector, "Ziel")
    panel.start()
    slicer.mrmlScene.RemoveNode(node if which == "input" else output)
    before = node_ids()
    panel.wait()
    assert "was removed during the run" in panel.ui.statusLabel.text and "was dropped" in panel.ui.statusLabel.text
    assert node_ids() == before


def test_closing_the_scene_during_a_run_ends_it_and_the_next_scene_stays_empty(panel, temporary):
    long_run(panel)
    panel.start()
    wait_until(lambda: panel.ui.progressBar.value > 170)
    slicer.mrmlScene.Clear(False)
    assert not panel.widget.panel.isRunning() and not list(temporary.iterdir())
    assert panel.ui.applyButton.text == "Translate" and not panel.ui.applyButton.enabled
    assert not volumes()
    panel.parameters.modelFolder = panel.parameters.modelFolder
    add_head("Kopf T1")
    choose(panel.ui.inputSelector, "Kopf T1")
    assert panel.ui.applyButton.enabled


def test_a_run_goes_on_while_the_user_is_in_another_module(panel):
    tiny(panel)
    panel.start()
    panel.widget.parent.exit()
    panel.wait()
    panel.widget.parent.enter()
    assert "Kopf T1 T2 (synthetic)" in volumes() and panel.ui.applyButton.text == "Translate"


def test_a_click_starts_one_run_also_after_leaving_and_entering_the_module(panel):
    tiny(panel)
    for _ in range(3):
        panel.widget.parent.exit()
        panel.widget.parent.enter()
    before = volumes()
    panel.translate()
    assert len(volumes() - before) == 1


# --- Keeping the model ---------------------------------------------------------------------------------------------


def test_a_kept_model_is_used_again_and_unticking_frees_it_at_once(panel):
    tiny(panel)
    panel.translate()
    pid = panel.widget.panel._worker.pid
    assert pid in children()
    panel.translate()
    assert panel.widget.panel._worker.pid == pid
    panel.ui.keepModelCheckBox.click()
    wait_until(lambda: pid not in children(), 2)
    panel.translate()
    assert not children()
