"""A segmentation by click and by logic, with real tiny networks: what comes into the scene, where it lies, what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
import vtk
from panel_checks import wait_until
from segment_fixtures import COLOURS, GREY_MATTER, columns_of, segments
from translate_fixtures import add_head, add_rotation, matrix_of, set_matrix

from slicer_harness.host import choose


def codes_of(segmentation, node) -> np.ndarray:
    """The segments on a volume's grid: 1, 2, 3 in the order of `COLOURS`."""
    codes = np.zeros(slicer.util.arrayFromVolume(node).shape, np.uint8)
    for code, name in enumerate(COLOURS, start=1):
        identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        codes[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, node) > 0] = code
    return codes


def test_a_click_gives_named_coloured_segments_maps_a_table_and_the_translation_beside_the_input(segment_panel):
    panel, ui = segment_panel, segment_panel.ui
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Anna"), "2025")
    node, rotation = panel.prepare("tiny-tms"), add_rotation()
    node.SetAndObserveTransformNodeID(rotation.GetID())
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
    ui.probabilitiesCheckBox.click(), choose(ui.compareModelComboBox, "tissue: tiny-given")
    before, said = slicer.util.arrayFromVolume(node).copy(), {}
    panel.start()
    assert ui.applyButton.text == "Cancel" and panel.is_shown(ui.progressBar)
    wait_until(lambda: said.setdefault(ui.statusLabel.text, ui.progressBar.value) is None or not panel.widget.panel.isRunning())
    assert ui.statusLabel.text.startswith("Made Kopf T1 tissue (from synthetic T2) in "), ui.statusLabel.text
    assert any(text.startswith("Segmenting: slice") for text in said) and not [text for text in said if "IMT-" in text or ".nrrd" in text]
    assert np.array_equal(slicer.util.arrayFromVolume(node), before)

    results = panel.results
    check_segments(results.segmentationNode, node)
    maps = list(results.probabilityNodes.values())
    assert list(results.probabilityNodes) == list(COLOURS) and maps[0].GetName() == "Kopf T1 probability of CSF (from synthetic T2)"
    for made in (results.segmentationNode, *maps):
        assert made.GetTransformNodeID() == rotation.GetID(), made.GetName()
        assert made.GetAttribute("IMT.DerivedFromSynthetic") == "true" and "not for diagnosis" in made.GetDescription()
        assert made.GetAttribute("IMT.Model") == "tiny-tms" and made.GetAttribute("IMT.Synthetic") is None
    for made in (results.segmentationNode, results.translatedNode, results.tableNode, *maps):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(made)) == study, made.GetName()
    assert results.translatedNode.GetName() == "Kopf T1 T2 (synthetic)" and results.translatedNode.GetAttribute("IMT.Synthetic") == "true"
    check_maps(results, node)
    check_table(results, node)
    assert panel.is_shown(ui.structuresTableView) and panel.parameters.comparedSegmentation is results.segmentationNode
    check_overlay(panel, results)
    check_quality(panel, results)


def check_segments(segmentation, node) -> None:
    found = segments(segmentation)
    assert list(found) == list(COLOURS)
    for name, colour in COLOURS.items():
        assert found[name].GetColor() == pytest.approx([part / 255 for part in colour])
    text = vtk.reference("")
    assert found["grey matter"].GetTag(found["grey matter"].GetTerminologyEntryTagName(), text) and str(text) == GREY_MATTER
    assert segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole()) is node
    mark = json.loads(segmentation.GetAttribute("IMT.Mark"))
    assert mark["input"]["node"] == node.GetName() and mark["made_by"] == "imt segment"


def check_maps(results, node) -> None:
    """The probabilities lie on the input's grid, and the labels are where theirs is largest."""
    codes = codes_of(results.segmentationNode, node)
    maps = np.stack([slicer.util.arrayFromVolume(one) for one in results.probabilityNodes.values()])
    assert all(np.abs(matrix_of(one) - matrix_of(node)).max() < 1e-12 for one in results.probabilityNodes.values())
    total = maps.sum(axis=0)
    assert 0 <= maps.min() and total.max() <= 1 + 3 / 255 and set(np.unique(codes)) == {0, 1, 2, 3}
    labelled = codes > 0
    own = np.take_along_axis(maps, np.maximum(codes, 1)[None].astype(int) - 1, axis=0)[0]
    assert (own[labelled] >= maps.max(axis=0)[labelled] - 1.01 / 255).all()


def check_table(results, node) -> None:
    columns = columns_of(results.tableNode)
    assert columns["Structure"] == list(COLOURS)
    codes, voxel_ml = codes_of(results.segmentationNode, node), np.prod(node.GetSpacing()) / 1000
    counts = [int((codes == code).sum()) for code in (1, 2, 3)]
    assert columns["Voxels"] == counts
    assert columns["Volume (ml)"] == pytest.approx([count * voxel_ml for count in counts], abs=6e-4)
    assert all(0.25 <= value <= 1 for value in columns["Confidence"])
    assert len(columns["Volume by tiny-given (ml)"]) == 3 and all(0 <= value <= 1 for value in columns["Dice with tiny-given"])


def check_overlay(panel, results) -> None:
    """A structure's probability over the input, and surfaces in 3D."""
    segmented = panel.parameters.inputVolume
    panel.parameters.inputVolume = add_head("Danach T1")  # what is chosen later is not what was segmented
    choose(panel.ui.probabilityComboBox, "grey matter")
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == results.probabilityNodes["grey matter"].GetID()
    assert composite.GetBackgroundVolumeID() == segmented.GetID()
    panel.parameters.inputVolume = segmented
    choose(panel.ui.probabilityComboBox, "(none)")
    assert not composite.GetForegroundVolumeID()
    segmentation = results.segmentationNode
    name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    assert not segmentation.GetSegmentation().ContainsRepresentation(name)
    panel.ui.surfacesCheckBox.click()
    assert segmentation.GetSegmentation().ContainsRepresentation(name) and segmentation.GetDisplayNode().GetVisibility3D()
    panel.ui.surfacesCheckBox.click()
    assert not segmentation.GetDisplayNode().GetVisibility3D()


def check_quality(panel, results) -> None:
    """Compared with itself, without one structure: what both have is right."""
    ui = panel.ui
    reference = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    reference.Copy(results.segmentationNode)
    reference.SetName("Wahrheit")
    found = reference.GetSegmentation()
    found.RemoveSegment(found.GetSegmentIdBySegmentName("CSF"))
    panel.parameters.referenceSegmentation = reference
    ui.compareButton.click()
    scores = panel.widget.panel.quality._comparison.scores
    assert list(scores) == ["grey matter", "white matter"] and scores["white matter"].dice == 1
    assert "Dice" in ui.scoresLabel.text and panel.is_shown(ui.regionsComboBox)
    regions = slicer.util.getNode("*true, false and missing (all)")
    assert [tuple(one.GetColor()) for one in segments(regions).values()] == [(1.0, 0.75, 0.8), (0.55, 0.0, 0.0), (0.5, 0.5, 0.5)]


def test_the_same_head_on_a_left_handed_oblique_grid_gets_the_same_labels(segment_logic):
    node = add_head("T1")
    expected = codes_of(segment_logic.segment(node, "tiny-given", checkModality=False).segmentationNode, node)
    assert len(np.unique(expected)) > 2
    turned = add_head("T1 turned", array=slicer.util.arrayFromVolume(node)[:, :, ::-1].copy())
    matrix = matrix_of(node) @ np.diag([-1.0, 1.0, 1.0, 1.0])
    matrix[:3, 3] += matrix_of(node)[:3, 0] * (expected.shape[2] - 1)
    set_matrix(turned, matrix)
    result = segment_logic.segment(turned, "tiny-given", checkModality=False, probabilities=True)
    found = codes_of(result.segmentationNode, turned)[:, :, ::-1]
    assert (found == expected).mean() > 0.999
    assert np.abs(matrix_of(result.probabilityNodes["CSF"]) - matrix).max() < 1e-12
    assert result.translatedNode is None and result.segmentationNode.GetName() == "T1 turned tissue"
    assert result.segmentationNode.GetAttribute("IMT.DerivedFromSynthetic") == "false"


def test_a_real_second_volume_on_another_grid_is_resampled_and_told_and_a_synthetic_one_leaves_its_trace(segment_logic, tmp_path):
    node, second = add_head("T1"), add_head("Mein T2", "T2")
    second.SetOrigin(-19.0, 15.0, 40.0)
    output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Meine")
    output.GetSegmentation().AddEmptySegment("old", "old")
    assert slicer.util.saveNode(output, str(tmp_path / "by-hand.seg.nrrd"), properties={})
    result = segment_logic.segment(node, "tiny-tms", second, output, checkModality=False)
    assert result.segmentationNode is output and output.GetName() == "Meine" and list(segments(output)) == list(COLOURS)
    assert any("Mein T2" in warning and "grid" in warning for warning in result.warnings), result.warnings
    assert result.translatedNode is None and output.GetAttribute("IMT.DerivedFromSynthetic") == "false"
    assert not output.GetStorageNode().GetFileName(), "saving the scene would write over what was drawn by hand"
    mark = {"synthetic": True, "source_modality": "T1", "target_modality": "T2", "notice": "Synthetic."}
    second.SetAttribute("IMT.Synthetic", "true")
    second.SetAttribute("IMT.Mark", json.dumps(mark))
    again = segment_logic.segment(node, "tiny-tms", second, checkModality=False, surfaces=True)
    assert again.segmentationNode.GetAttribute("IMT.DerivedFromSynthetic") == "true"
    assert again.segmentationNode.GetName() == "T1 tissue (from synthetic T2)"
    name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    assert again.segmentationNode.GetSegmentation().ContainsRepresentation(name)
    for attribute in ("IMT.Synthetic", "IMT.Mark"):  # now the input is synthetic, and the second volume real
        node.SetAttribute(attribute, second.GetAttribute(attribute))
        second.SetAttribute(attribute, None)
    other = segment_logic.segment(node, "tiny-tms", second, checkModality=False)
    assert other.segmentationNode.GetName() == "T1 tissue (from a synthetic image)"
    assert slicer.util.saveNode(again.segmentationNode, str(tmp_path / "labels.seg.nrrd"), properties={})
    (record,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json"))
    assert record["made_by"] == "imt segment" and record["derived_from_synthetic"] is True


def test_a_result_that_came_while_another_module_was_open_is_shown_on_return(segment_panel):
    node = segment_panel.prepare("tiny-given")
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    composite.SetBackgroundVolumeID(None)
    segment_panel.start()
    segment_panel.widget.parent.exit()
    segment_panel.wait()
    assert not composite.GetBackgroundVolumeID(), "the views belong to the other module"
    segment_panel.widget.parent.enter()
    assert segment_panel.parameters.comparedSegmentation.GetName() == f"{node.GetName()} tissue"
    assert segment_panel.is_shown(segment_panel.ui.structuresTableView) and not segment_panel.ui.resultCollapsibleButton.collapsed
