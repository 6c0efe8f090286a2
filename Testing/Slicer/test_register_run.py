"""A registration by click and by logic, with the real engine: what comes into the scene, where it lies, what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
import vtk
from panel_checks import run_own_test, wait_until
from register_fixtures import CODES, GREY_MATTER, MODULE, load_volume
from translate_fixtures import add_rotation, matrix_of, node_ids, set_matrix

VOXEL_MM = 5.0


def segments(node) -> dict[str, object]:
    """Name -> segment."""
    found = node.GetSegmentation()
    return {found.GetNthSegment(n).GetName(): found.GetNthSegment(n) for n in range(found.GetNumberOfSegments())}


def world_points(markups) -> dict[str, np.ndarray]:
    """Label -> RAS in the world."""
    points = {}
    for number in range(markups.GetNumberOfControlPoints()):
        point = [0.0, 0.0, 0.0]
        markups.GetNthControlPointPositionWorld(number, point)
        points[markups.GetNthControlPointLabel(number)] = np.array(point)
    return points


def distances(one, other) -> list[float]:
    first, second = world_points(one), world_points(other)
    return [float(np.linalg.norm(first[name] - second[name])) for name in first]


def test_a_click_gives_named_coloured_segments_transforms_maps_and_a_table_beside_the_input(register_panel, cohort):
    panel, ui = register_panel, register_panel.ui
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Anna"), "2025")
    node, rotation = panel.prepare(cohort, "T2", "T1"), add_rotation()
    for volume in (node, slicer.util.getNode("Anna T1")):
        volume.SetAndObserveTransformNodeID(rotation.GetID())
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
    ui.warpedCheckBox.click()
    before, said = slicer.util.arrayFromVolume(node).copy(), set()
    panel.start()
    assert ui.applyButton.text == "Cancel" and panel.is_shown(ui.progressBar)
    wait_until(lambda: said.add(ui.statusLabel.text) or not panel.widget.panel.isRunning(), 200)
    assert ui.statusLabel.text.startswith("Made Anna T2 labels in "), ui.statusLabel.text
    assert any("Atlas head1: deformation by T1 (0 of 2 finished)" in text for text in said)
    assert not [text for text in said if "IMT-" in text or ".nrrd" in text]
    assert np.array_equal(slicer.util.arrayFromVolume(node), before)

    results = panel.widget.panel._run.results
    check_segments(results.segmentationNode, node)
    beside = [results.segmentationNode, results.agreementNode, *results.transformNodes.values(), *results.warpedNodes]
    for made in beside:
        assert made.GetTransformNodeID() == rotation.GetID(), made.GetName()
        assert made.GetAttribute("IMT.DerivedFromSynthetic") == "false" and "not for diagnosis" in made.GetDescription()
    for made in [*beside, results.tableNode]:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(made)) == study, made.GetName()
    agreement = slicer.util.arrayFromVolume(results.agreementNode)
    assert 0 < agreement.min() < 1 == agreement.max()
    assert np.allclose(matrix_of(results.agreementNode), matrix_of(node), rtol=0, atol=1e-9)
    assert [one.GetName() for one in results.warpedNodes][:2] == ["head1 T2 warped to Anna T2", "head1 T1 warped to Anna T2"]
    table = results.tableNode.GetTable()
    columns = {table.GetColumnName(n): table.GetColumn(n) for n in range(table.GetNumberOfColumns())}
    assert [columns["Atlas"].GetValue(n) for n in range(2)] == ["head1", "head2"]
    assert columns["State"].GetValue(1) == "done" and 0 < columns["Similarity T1"].GetValue(0) <= 1
    assert 0 < columns["Share of the given modality"].GetValue(0) < 1 and columns["Folded voxels"].GetValue(0) >= 0
    assert panel.is_shown(ui.atlasTableView) and panel.parameters.comparedSegmentation is results.segmentationNode
    check_quality(panel, cohort, results, rotation)


def check_segments(segmentation, node) -> None:
    found = segments(segmentation)
    assert list(found) == list(CODES) and found["grey"].GetColor() == pytest.approx([130 / 255] * 3)
    text = vtk.reference("")
    assert found["grey"].GetTag(found["grey"].GetTerminologyEntryTagName(), text) and str(text) == GREY_MATTER
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is node
    identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName("white")
    assert slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, node).shape == slicer.util.arrayFromVolume(node).shape
    mark = json.loads(segmentation.GetAttribute("IMT.Mark"))
    assert mark["input"]["node"] == node.GetName() and mark["settings"]["engine"] == "greedy"


def check_quality(panel, cohort, results, rotation) -> None:
    """The quality section on the results of the run."""
    ui = panel.ui
    reference, points = cohort.labels(), cohort.points()
    for node in (reference, points):
        node.SetAndObserveTransformNodeID(rotation.GetID())
    panel.parameters.referenceSegmentation, panel.parameters.landmarks = reference, points
    ui.compareButton.click()
    scores = panel.widget.panel.quality._comparison.scores
    assert list(scores) == list(CODES) and min(scores["grey"].dice, scores["white"].dice) > 0.7
    assert f"{scores['white'].dice:.3f}" in ui.scoresLabel.text
    regions = slicer.util.getNode("*true, false and missing (all)")
    assert [(name, tuple(one.GetColor())) for name, one in segments(regions).items()] == [
        ("true", (1.0, 0.75, 0.8)),
        ("false", (0.55, 0.0, 0.0)),
        ("missing", (0.5, 0.5, 0.5)),
    ]
    ui.regionsComboBox.currentIndex = 3
    node = panel.parameters.inputVolume
    area = [
        slicer.util.arrayFromSegmentBinaryLabelmap(regions, regions.GetSegmentation().GetSegmentIdBySegmentName(name), node).sum()
        for name in ("true", "false", "missing")
    ]
    assert regions.GetName().endswith("(white)") and 2 * area[0] / (2 * area[0] + area[1] + area[2]) == pytest.approx(scores["white"].dice)
    ui.landmarksButton.click()
    text = ui.scoresLabel.text
    assert "head1: L1" in text and float(text.split("Mean: ")[1].split()[0]) < 0.6 * VOXEL_MM
    panel.parameters.warpedVolume = results.warpedNodes[0]
    ui.checkerboardButton.click()
    board = slicer.util.arrayFromVolume(slicer.util.getNode("*checkerboard"))
    same = board == slicer.util.arrayFromVolume(node)
    inside = slicer.util.arrayFromVolume(node) > 100
    assert 0.3 < same[inside].mean() < 0.7
    ui.outlinesCheckBox.click()
    assert not results.segmentationNode.GetDisplayNode().GetVisibility2DFill()


def test_an_atlas_under_its_transform_comes_to_lie_on_the_input_and_can_be_hardened(register_logic, cohort):
    node, rotation = cohort.volume("T2"), add_rotation()
    node.SetAndObserveTransformNodeID(rotation.GetID())
    result = register_logic.register(node, "T2", str(cohort.atlases), jobs=1, agreement=False)
    assert result.agreementNode is None and list(result.transformNodes) == ["head1", "head2"]
    transform = result.transformNodes["head2"]
    assert transform.GetClassName() == "vtkMRMLTransformNode"
    assert transform.GetNodeReference(transform.GetFixedNodeReferenceRole()) is node
    ours = cohort.points()
    ours.SetAndObserveTransformNodeID(rotation.GetID())
    theirs = slicer.util.loadMarkups(str(cohort.atlases / "head2" / "landmarks.mrk.json"))
    apart = distances(ours, theirs)
    theirs.SetAndObserveTransformNodeID(transform.GetID())
    assert max(distances(ours, theirs)) < VOXEL_MM < min(apart)
    atlas = load_volume(cohort.atlases / "head2" / "T2.nii.gz", "head2")
    corners = np.zeros(6)
    atlas.SetAndObserveTransformNodeID(transform.GetID())
    atlas.GetRASBounds(corners)
    atlas.HardenTransform()
    hardened = np.zeros(6)
    atlas.GetRASBounds(hardened)
    assert atlas.GetTransformNodeID() is None and np.allclose(hardened, corners, atol=4 * VOXEL_MM)


def test_a_left_handed_oblique_input_gets_its_labels_where_it_lies(register_logic, cohort):
    plain = cohort.volume("T2")
    array = slicer.util.arrayFromVolume(plain)
    turned = slicer.util.addVolumeFromArray(np.ascontiguousarray(array[:, ::-1]), name="turned")
    matrix = matrix_of(plain)
    matrix[:3, 3] += matrix[:3, 1] * (array.shape[1] - 1)
    matrix[:3, 1] *= -1
    set_matrix(turned, matrix)
    result = register_logic.register(turned, "T2", cohort.atlases, jobs=1, transforms=False)
    assert np.allclose(matrix_of(result.agreementNode), matrix, rtol=0, atol=1e-9)
    assert register_logic.compare(result.segmentationNode, cohort.labels()).scores["white"].dice > 0.75


def test_atlases_of_the_scene_work_as_a_folder_does_and_chosen_outputs_are_filled(register_logic, cohort):
    from IMTRegisterPanel.scene_atlases import SceneAtlas

    node = cohort.volume("T2")
    image = load_volume(cohort.atlases / "head1" / "T2.nii.gz", "Atlasbild")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Atlaslabels")
    file = load_volume(cohort.atlases / "head1" / "labels.nii.gz", "tmp")
    slicer.util.updateVolumeFromArray(labels, slicer.util.arrayFromVolume(file))
    set_matrix(labels, matrix_of(file))
    slicer.mrmlScene.RemoveNode(file)
    output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Meine")
    output.GetSegmentation().AddEmptySegment("old", "old")
    result = register_logic.register(
        node, "T2", [SceneAtlas("bild", image, labels)], segmentationNode=output, structures=["7"], jobs=1, agreement=False
    )
    assert result.segmentationNode is output and output.GetName() == "Meine" and list(segments(output)) == ["label 7"]
    transform = result.transformNodes["bild"]
    assert transform.GetNodeReference(transform.GetMovingNodeReferenceRole()) is image
    truth = cohort.labels()
    truth.GetSegmentation().GetSegment(truth.GetSegmentation().GetSegmentIdBySegmentName("white")).SetName("LABEL 7")
    assert register_logic.compare(output, truth).meanDice > 0.7


def test_what_a_synthetic_image_took_part_in_says_so(register_logic, cohort, models):
    result = register_logic.register(
        cohort.volume("T2"), "T2", cohort.atlases, translateTo="T1", model=str(models / "tiny-T2-T1.json"), jobs=1
    )
    assert result.segmentationNode.GetName() == "Anna T2 labels (from synthetic T1)"
    assert result.translatedNode.GetName() == "Anna T2 T1 (synthetic)" and result.translatedNode.GetAttribute("IMT.Synthetic") == "true"
    for made in (result.segmentationNode, result.agreementNode, result.tableNode, *result.transformNodes.values()):
        assert made.GetAttribute("IMT.DerivedFromSynthetic") == "true" and made.GetAttribute("IMT.Synthetic") is None
        assert made.GetAttribute("IMT.Model") == "tiny-T2-T1" and "synthetic image took part" in made.GetDescription()
    again = register_logic.register(
        cohort.volume("T2"), "T2", cohort.atlases, translateTo="T1", secondNode=result.translatedNode, jobs=1
    )
    assert again.segmentationNode.GetAttribute("IMT.DerivedFromSynthetic") == "true", "one's own translation is one too"


def test_labels_of_a_loaded_scene_are_saved_with_their_mark_though_only_this_module_is_open(register_logic, tmp_path):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "labels")
    node.SetAttribute("IMT.DerivedFromSynthetic", "true")
    node.SetAttribute("IMT.Mark", json.dumps({"made_by": "imt register", "derived_from_synthetic": True}))
    type(register_logic)()  # as the panel makes one when it opens
    assert slicer.util.saveNode(node, str(tmp_path / "labels.seg.nrrd"), properties={})
    assert json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))["derived_from_synthetic"] is True


def test_saving_the_labels_writes_how_they_came_to_be_beside_them(register_logic, cohort, tmp_path):
    result = register_logic.register(cohort.volume("T2"), "T2", cohort.atlases, jobs=1, transforms=False, agreement=False)
    assert slicer.util.saveNode(result.segmentationNode, str(tmp_path / "labels.seg.nrrd"))
    (record,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json"))
    assert record["made_by"] == "imt register" and record["derived_from_synthetic"] is False
    assert not result.transformNodes
    with pytest.raises(ValueError, match="no transforms of atlases with landmarks"):
        register_logic.compareLandmarks(cohort.points(), result.segmentationNode)
    before = node_ids()
    with pytest.raises(ValueError, match="are the same"):
        register_logic.compare(result.segmentationNode, result.segmentationNode)
    assert node_ids() == before


def test_the_modules_own_test_passes():
    run_own_test(MODULE)
