"""Comparing a synthetic volume with a real one, and the system check."""

from __future__ import annotations

import re

import numpy as np
import pytest
import slicer
from translate_fixtures import add_head, add_rotation, children, matrix_of, node_ids, wait_until

from slicer_harness.host import choose

# --- Compare -------------------------------------------------------------------------------------------------------


def test_comparing_gives_scores_an_error_map_and_linked_views(panel):
    synthetic, real, rotation = add_head("Kopf T2 (synthetic)", "T2"), add_head("Kopf T2", "T2"), add_rotation()
    slicer.util.arrayFromVolume(synthetic)[4, 20:30, 20:30] += 50
    for node in (synthetic, real):
        node.SetIJKToRASDirections(1, 0, 0, 0, 0.8, 0.6, 0, 0.6, -0.8)  # oblique and left-handed
        node.SetAndObserveTransformNodeID(rotation.GetID())
    choose(panel.ui.syntheticSelector, synthetic.GetName())
    assert not panel.ui.compareButton.enabled
    choose(panel.ui.realSelector, real.GetName())
    text = panel.compare()
    assert all(word in text for word in ("MAE", "PSNR", "SSIM", "MI"))
    table = slicer.util.getNode("*scores against Kopf T2").GetTable()
    columns = {table.GetColumnName(n): table.GetColumn(n) for n in range(table.GetNumberOfColumns())}
    assert list(columns) == ["Scaling", "Region", "MAE", "PSNR (dB)", "SSIM", "MI (nats)"]
    rows = {(columns["Scaling"].GetValue(n), columns["Region"].GetValue(n)): n for n in range(table.GetNumberOfRows())}
    difference = np.abs(slicer.util.arrayFromVolume(synthetic).astype(float) - slicer.util.arrayFromVolume(real))
    assert columns["MAE"].GetValue(rows["none", "volume"]) == pytest.approx(difference.mean(), rel=1e-6)
    assert 0.9 < columns["SSIM"].GetValue(rows["none", "volume"]) < 1
    error = slicer.util.getNode("*error (%)*")
    values = slicer.util.arrayFromVolume(error)
    assert (
        np.allclose(matrix_of(error), matrix_of(synthetic), rtol=0, atol=1e-12) and error.GetTransformNodeID() == rotation.GetID()
    )
    changed = difference > 0
    assert values[changed].min() > 5 * values[~changed].max()  # the scales of both images differ a little
    assert values[changed].mean() == pytest.approx(5000 / np.percentile(slicer.util.arrayFromVolume(real), 99.5), rel=0.25)
    assert error.GetDisplayNode().GetColorNode().GetName() == "IMT heat"
    assert slicer.modules.colors.logic().GetColorLegendDisplayNode(error) is not None
    manager = slicer.app.layoutManager()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    red, yellow = (manager.sliceWidget(name).mrmlSliceCompositeNode() for name in ("Red", "Yellow"))
    assert (red.GetBackgroundVolumeID(), red.GetForegroundVolumeID()) == (real.GetID(), None)
    assert (yellow.GetBackgroundVolumeID(), yellow.GetForegroundVolumeID()) == (synthetic.GetID(), error.GetID())
    assert red.GetLinkedControl() == yellow.GetLinkedControl() == 1
    assert {manager.sliceWidget(name).mrmlSliceNode().GetOrientation() for name in ("Red", "Yellow")} == {"Axial"}


def test_a_translation_is_ready_to_be_compared_within_a_region(panel):
    node, real = add_head("Kopf T1"), add_head("Kopf T2", "T2")
    choose(panel.ui.inputSelector, "Kopf T1")
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    panel.translate()
    assert panel.ui.syntheticSelector.currentNode().GetName() == "Kopf T1 T2 (synthetic)"
    region = slicer.modules.volumes.logic().CreateAndAddLabelVolume(slicer.mrmlScene, node, "Region")
    slicer.util.arrayFromVolume(region)[3:6, 10:30, 10:30] = 1
    choose(panel.ui.realSelector, real.GetName())
    choose(panel.ui.maskSelector, "Region")
    assert "mask" in panel.compare()


def test_closing_the_scene_ends_a_comparison(panel, temporary):
    panel.parameters.comparedVolume, panel.parameters.realVolume = add_head("A"), add_head("B", "T2")
    before = children()
    panel.ui.compareButton.click()
    slicer.mrmlScene.Clear(False)
    assert panel.ui.scoresLabel.text == "Cancelled." and not list(temporary.iterdir())
    wait_until(lambda: children() <= before, 2)
    assert not slicer.util.getNodesByClass("vtkMRMLTableNode")


def test_a_comparison_that_ends_while_another_module_is_open_leaves_the_views_alone(panel):
    panel.parameters.comparedVolume, panel.parameters.realVolume = add_head("A"), add_head("B", "T2")
    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    panel.ui.compareButton.click()
    panel.widget.parent.exit()
    wait_until(lambda: panel.widget.panel._comparison.job.state != "running")
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    panel.widget.parent.enter()
    assert "PSNR" in panel.ui.scoresLabel.text and panel.is_shown(panel.ui.scoresLabel)


def refused_comparison(panel, *words):
    before = node_ids()
    text = panel.compare()
    assert all(word in text for word in words), text
    assert node_ids() == before
    return text


def tilt(node):
    """Turn a volume by half a degree: hardly a change of its matrix, a third of a voxel at its end."""
    angle = np.radians(0.5)
    node.SetIJKToRASDirections(np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)


@pytest.mark.parametrize("move", [lambda node: node.SetOrigin(3, 0, 0), tilt], ids=["shifted", "tilted"])
def test_volumes_on_other_grids_are_not_compared(panel, move):
    panel.parameters.comparedVolume, panel.parameters.realVolume = add_head("A"), add_head("B")
    move(panel.parameters.realVolume)
    text = refused_comparison(panel, "B is not on the grid of A", "Resample")
    with pytest.raises(ValueError) as caught:
        panel.widget.logic.evaluate(panel.parameters.comparedVolume, panel.parameters.realVolume)
    assert str(caught.value) == text


@pytest.mark.parametrize("kind", ["without image", "empty"])
def test_an_empty_region_is_refused(panel, kind):
    first, second = add_head("A"), add_head("B", "T2")
    if kind == "empty":
        region = slicer.modules.volumes.logic().CreateAndAddLabelVolume(slicer.mrmlScene, first, "Region")
    else:
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Region")
    parameters = panel.parameters
    parameters.comparedVolume, parameters.realVolume, parameters.regionVolume = first, second, region
    refused_comparison(panel, "The region Region is empty")


def test_a_volume_is_not_compared_with_itself(panel):
    panel.parameters.comparedVolume = panel.parameters.realVolume = add_head("A")
    refused_comparison(panel, "are the same")


def test_a_compared_volume_removed_meanwhile_drops_the_comparison(panel, slot_errors):
    panel.parameters.comparedVolume, panel.parameters.realVolume = add_head("A"), add_head("B", "T2")
    panel.ui.compareButton.click()
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("B"))
    before = node_ids()
    wait_until(lambda: panel.ui.scoresLabel.text != "Comparing…")
    assert "was removed meanwhile" in panel.ui.scoresLabel.text and node_ids() == before


# --- Check system --------------------------------------------------------------------------------------------------


def test_check_system_writes_its_findings_to_the_log(panel):
    before = node_ids()
    panel.ui.checkSystemButton.click()
    assert not panel.ui.checkSystemButton.enabled
    wait_until(lambda: panel.ui.checkSystemButton.enabled)
    log = panel.ui.logTextEdit.plainText
    assert all(word in log for word in ("python", "torch", "models")) and node_ids() == before
    states = re.findall(r"\b(good|warning|bad) +\w", log)  # of python, numpy, torch …
    assert len(states) >= 8
    assert log.strip().endswith("Something must be mended: see above." if "bad" in states else "The system is fit for IMT.")


def test_a_check_that_the_closing_scene_ends_judges_nothing(panel):
    panel.ui.checkSystemButton.click()
    slicer.mrmlScene.Clear(False)
    assert panel.ui.checkSystemButton.enabled and "mended" not in panel.ui.logTextEdit.plainText


def test_a_check_that_cannot_start_is_told(panel, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "file" / "below"))
    panel.ui.checkSystemButton.click()
    assert panel.ui.checkSystemButton.enabled and "Error: " in panel.ui.logTextEdit.plainText
