"""The logic as a script uses it: what it returns, what it refuses, and that a result lies exactly where its input does."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from translate_fixtures import (
    add_head,
    add_rotation,
    add_warp,
    bad_volumes,
    children,
    head_array,
    matrix_of,
    node_ids,
    set_matrix,
    wait_until,
)

ROTATION = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


# --- Geometry ------------------------------------------------------------------------------------------------------


def axial(spacing=(1.0, 1.0, 3.0), rotation=None):
    """IJK to RAS of the phantom: i to the left, j to the back, k up."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(spacing)
    matrix[:3, 3] = (31.25, -17.5, 42.125)
    return matrix


GRIDS = {
    "oblique": axial(rotation=ROTATION),
    "left-handed": axial() @ np.diag([-1.0, 1.0, 1.0, 1.0]),
    "one to eight": axial((0.7, 0.7, 5.6)),
    "oblique, left-handed, uneven": axial((0.9, 1.1, 4.3), ROTATION) @ np.diag([1.0, -1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_result_has_exactly_the_inputs_grid_and_lies_on_the_same_head(run, name):
    node = add_head("T1")
    set_matrix(node, GRIDS[name])
    before = matrix_of(node)
    result = run(node)
    assert np.abs(matrix_of(result) - before).max() < 1e-12 and np.array_equal(matrix_of(node), before)
    head, made = slicer.util.arrayFromVolume(node) > 0, slicer.util.arrayFromVolume(result)
    assert made.shape == head.shape
    assert (made[~head] != 0).mean() < 0.02 and (made[head] != 0).mean() > 0.5


def test_the_same_head_in_another_axis_order_gives_the_same_image_in_the_world(run):
    node = add_head("T1")
    set_matrix(node, axial(rotation=ROTATION))
    expected = slicer.util.arrayFromVolume(run(node)).copy()
    scale = np.ptp(expected)
    assert scale > 10
    for axes, flipped in (((1, 2, 0), ()), ((2, 0, 1), (0, 2)), ((0, 1, 2), (1,)), ((2, 1, 0), ())):
        stored = np.flip(head_array().transpose(axes), flipped)
        matrix = matrix_of(node)
        columns = matrix[:3, [2 - axis for axis in axes][::-1]].copy()  # of i, j, k
        origin = matrix[:3, 3].copy()
        for axis in flipped:
            origin += columns[:, 2 - axis] * (stored.shape[axis] - 1)
            columns[:, 2 - axis] *= -1
        other = slicer.util.addVolumeFromArray(np.ascontiguousarray(stored), name="T1 stored otherwise")
        set_matrix(other, np.vstack([np.column_stack([columns, origin]), [0, 0, 0, 1]]))
        result = run(other)
        back = np.flip(slicer.util.arrayFromVolume(result), flipped).transpose(np.argsort(axes))
        assert np.abs(back - expected).max() < 1e-3 * scale, (axes, flipped)


@pytest.mark.parametrize("make", [add_rotation, add_warp])
def test_the_result_moves_with_the_transform_that_moves_its_input(run, make):
    node, transform = add_head("T1"), make()
    plain = slicer.util.arrayFromVolume(run(node)).copy()
    node.SetAndObserveTransformNodeID(transform.GetID())
    result = run(node)
    assert result.GetTransformNodeID() == node.GetTransformNodeID() == transform.GetID()
    assert np.array_equal(slicer.util.arrayFromVolume(result), plain) and np.allclose(
        matrix_of(result), matrix_of(node), rtol=0, atol=1e-12
    )


def test_an_output_under_another_transform_comes_to_the_input(run):
    node, output = add_head("T1"), add_head("Ziel")
    output.SetAndObserveTransformNodeID(add_rotation().GetID())
    assert run(node, output) is output and output.GetTransformNodeID() is None


@pytest.mark.parametrize("shift", [(0, 0, 0.1), (0, 0, 0.5), (3, 0, 0)], ids=str)
def test_a_result_that_lies_elsewhere_than_the_input_is_not_taken(slicer_app, tmp_path, shift):
    from IMTSlicerLib.nodes import readVolume, writeVolume

    node = add_head("T1")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    path, before = writeVolume(node, tmp_path / "T2.nrrd"), node_ids()
    loaded = readVolume(path, matrix)
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), head_array())
    slicer.mrmlScene.RemoveNode(loaded)
    for axis, millimetres in enumerate(shift):
        matrix.SetElement(axis, 3, matrix.GetElement(axis, 3) + millimetres)
    with pytest.raises(RuntimeError, match="does not lie on the grid of the input"):
        readVolume(path, matrix)
    assert node_ids() == before


@pytest.mark.parametrize("name", ["Größe/Köpfchen: T1 ä", "脳 T1", "../T1", "T1.nii.gz", "  "])
def test_any_name_of_a_volume_works_and_is_kept(run, name, temporary):
    result = run(add_head(name))
    assert result.GetName() == f"{name} T2 (synthetic)" and not list(temporary.iterdir())


# --- What it gives back --------------------------------------------------------------------------------------------


def test_several_models_give_a_list_with_the_uncertainties_beside(logic, models):
    names = [str(models / f"tiny-T1-{target}.json") for target in ("T2", "FLAIR")]
    node = add_head("T1")
    made = logic.translate(node, names, uncertainty=True, samples=2)
    assert [one.GetName() for one in made] == ["T1 T2 (synthetic)", "T1 FLAIR (synthetic)"]
    assert [one.GetAttribute("IMT.TargetModality") for one in made] == ["T2", "FLAIR"]
    for target in ("T2", "FLAIR"):
        uncertainty = slicer.util.getNode(f"T1 {target} uncertainty (synthetic)")
        assert slicer.util.arrayFromVolume(uncertainty).max() > 0
        assert [uncertainty.GetAttribute(f"IMT.{name}") for name in ("Content", "TargetModality")] == ["uncertainty", target]


def test_without_waiting_the_end_is_told_and_nothing_blocks(logic, models):
    node, said = add_head("T1"), []
    run = logic.translate(node, str(models / "tiny-any.json"), wait=False, sourceModality="T1", targetModality="PD", seed=5)
    run.ended.connect(lambda: said.append((run.state, [one.GetName() for one in run.outputNodes])))
    assert run.state == "running" and not said
    wait_until(lambda: bool(said))
    assert said == [("finished", ["T1 PD (synthetic)"])] and run.outputNodes[0].GetAttribute("IMT.Seed") == "5"
    run.wait()


def test_a_cancelled_run_raises_and_leaves_the_scene_as_it_was(logic, models):
    node = add_head("T1")
    before = node_ids()
    run = logic.translate(node, str(models / "tiny-T1-T2.json"), wait=False)
    run.cancel()
    with pytest.raises(RuntimeError, match="Cancelled: nothing was changed"):
        run.wait()
    assert run.state == "cancelled" and node_ids() == before


def test_a_volume_compared_with_its_copy_has_no_error(logic):
    first, second = add_head("T2", "T2"), add_head("T2 copy", "T2")
    comparison = logic.evaluate(first, second)
    for row in comparison.scores:
        assert row["mae"] == 0 and row["ssim"] == pytest.approx(1, abs=1e-9) and row["mi"] > 0
    assert slicer.util.arrayFromVolume(comparison.errorNode).max() == 0
    assert comparison.tableNode.GetTable().GetNumberOfRows() == len(comparison.scores)


def test_the_models_are_listed_with_the_users_own(logic, models, tmp_path):
    assert {"T1-T2", "T1-FLAIR"} <= {card.name for card in logic.models()}
    assert {"T1-T2", "tiny-any"} <= {card.name for card in logic.models(str(models))}
    assert {card.name for card in logic.models(tmp_path)} == {card.name for card in logic.models()}


# --- What it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", bad_volumes())
def test_a_bad_input_is_one_clear_valueerror_and_nothing_changes(logic, dialogs, what):
    make, words = bad_volumes()[what]
    node = make()
    before = node_ids()
    with pytest.raises(ValueError, match=words):
        logic.translate(node, "T1-T2")
    with pytest.raises(ValueError):
        logic.evaluate(node, node)
    assert node_ids() == before and not dialogs.asked


def test_bad_arguments_are_told_before_anything_starts(logic, dialogs):
    node, label = add_head("T1"), slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    vector = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Colours")
    outside = slicer.vtkMRMLScalarVolumeNode()
    outside.SetName("Outside")
    before, processes = node_ids(), children()
    for words, arguments in (
        ("is the input volume", {"outputNode": node}),
        ("Labels cannot hold", {"outputNode": label}),
        ("Colours cannot hold", {"outputNode": vector}),
        ("Outside is not in the scene", {"outputNode": outside}),
        ("'T2' is no node", {"outputNode": "T2"}),
        ("one output volume for each model", {"outputNode": [None, None]}),
        ("at least one modality", {"model": []}),
    ):
        with pytest.raises(ValueError, match=words):
            logic.translate(node, **{"model": "T1-T2", **arguments})
    for wrong, words in (("T1", "'T1' is no node"), (outside, "Outside is not in the scene")):
        with pytest.raises(ValueError, match=words):
            logic.translate(wrong, "T1-T2")
    with pytest.raises(TypeError, match="sample"):
        logic.translate(node, "T1-T2", sample=3)
    assert node_ids() == before and children() == processes and not dialogs.asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "T1-XYZ"}, "There is no model 'T1-XYZ'. Models here: "),
        ({"model": "T1-T2", "device": "abacus"}, "abacus"),
        ({"model": "T1-T2", "uncertainty": True, "samples": 1}, "at least 2 samples"),
    ],
)
def test_what_the_command_refuses_is_a_valueerror_in_its_words(logic, dialogs, options, words):
    node = add_head("T1")
    before = node_ids()
    with pytest.raises(ValueError, match=words) as caught:
        logic.translate(node, **options)
    assert "Traceback" not in str(caught.value) and node_ids() == before and not dialogs.asked
