"""What the panel says of the input before a run, and the trust map over the result."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import slicer
from panel_checks import ROOT
from translate_fixtures import SAMPLES, add_head, copy_models, head_array, matrix_of, node_ids

from slicer_harness.host import choose

sys.path.append(str(ROOT / "Testing" / "Core"))
from trust_cards import calibrate, training_range  # no torch


@pytest.fixture
def calibrated(panel, models, tmp_path):
    """The panel with tiny models of which T1 to T2 is calibrated, and no bright voxel was in its training."""
    folder = copy_models(models, tmp_path / "models")
    calibrate(folder / "tiny-T1-T2.json", training_range(neighbourhood=["#" * 24] * 18 + ["." * 24] * 6, coarsest_mm=[1.0, 1.2], finest_mm=[0.9, 0.9]))
    panel.parameters.modelFolder = folder
    return panel


def tiny(panel, node):
    choose(panel.ui.inputSelector, node.GetName())
    choose(panel.ui.modalityComboBox, "T1")
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    return node


def test_what_is_unusual_about_the_input_is_said_before_the_run_and_for_the_chosen_model_alone(calibrated):
    phantom = slicer.util.loadVolume(str(SAMPLES / "IMT-phantom-T1.nii.gz"), properties={"name": "Phantom", "show": False})
    tiny(calibrated, phantom)
    label = calibrated.ui.inputCheckLabel
    assert calibrated.is_shown(label) and "The voxels of Phantom are coarse (2 mm)" in label.text
    assert calibrated.ui.applyButton.enabled, "a warning stops nobody"
    choose(calibrated.ui.modelT2ComboBox, "T1-T2")
    assert not calibrated.is_shown(label), label.text
    choose(calibrated.ui.modelT2ComboBox, "tiny-T1-T2")
    assert calibrated.is_shown(label)
    calibrated.parameters.inputVolume = None
    assert not calibrated.is_shown(label)


def test_a_volume_that_cannot_be_checked_shows_no_warning_and_no_error(panel):
    array = head_array().astype(np.float32)
    array[3, 4, 5] = np.nan
    tiny(panel, add_head("Broken", array=array))
    assert not panel.is_shown(panel.ui.inputCheckLabel)


def test_the_trust_map_lies_over_the_result_with_names_that_the_probe_shows(calibrated):
    panel, node = calibrated, tiny(calibrated, add_head("Kopf T1"))
    panel.ui.trustMapCheckBox.checked = True
    assert panel.ui.samplesSpinBox.enabled
    panel.ui.samplesSpinBox.value = 2
    said = panel.translate()
    result = slicer.util.getNode("Kopf T1 T2 (synthetic)")
    labels = slicer.util.getNode("Kopf T1 T2 trust map (synthetic)")
    assert labels.IsA("vtkMRMLLabelMapVolumeNode") and labels.GetAttribute("IMT.Synthetic") == "true"
    assert labels.GetAttribute("IMT.Content") == "trust map"
    assert np.allclose(matrix_of(labels), matrix_of(node), rtol=0, atol=1e-12)
    array, colours = slicer.util.arrayFromVolume(labels), labels.GetDisplayNode().GetColorNode()
    assert set(np.unique(array)) <= {0, 1, 2, 3} and (array == 3).any()
    assert [colours.GetColorName(code) for code in range(4)] == ["nothing to say", "unsure", "very unsure", "outside the training range"]
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == result.GetID() and composite.GetLabelVolumeID() == labels.GetID()
    assert 0 < composite.GetLabelOpacity() < 1
    assert "outside the range of what model tiny-T1-T2 was trained on" in said
    assert not [one for one in node_ids() if "uncertainty" in slicer.mrmlScene.GetNodeByID(one).GetName()]
    panel.translate()
    assert len(slicer.util.getNodes("IMT trust")) == 1, "one legend for all maps"


def test_a_model_without_calibration_says_that_it_gives_no_trust_map_and_changes_nothing(panel):
    tiny(panel, add_head("Kopf T1"))
    panel.ui.trustMapCheckBox.checked = True
    before = node_ids()
    assert "no calibrated uncertainty" in panel.translate()
    assert node_ids() == before


def test_the_logic_gives_the_map_too(calibrated):
    logic, node = calibrated.widget.logic, add_head("Kopf T1")
    run = logic.translate(node, str(calibrated.parameters.modelFolder / "tiny-T1-T2.json"), trustMap=True, samples=2, wait=False)
    run.wait()
    (labels,) = run.trustNodes
    assert labels.GetName() == "Kopf T1 T2 trust map (synthetic)" and run.uncertaintyNodes == []
