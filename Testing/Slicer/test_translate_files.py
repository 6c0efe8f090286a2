"""Results on disk: scenes and files keep what the results are; and scripts without Qt, as in a batch."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import slicer
from panel_checks import ROOT, run_example
from translate_fixtures import add_head, add_rotation, matrix_of

SCRIPT = """
import os
import sys
sys.path.insert(0, sys.argv[1])
from slicer_harness.core import bootstrap_core
bootstrap_core(sys.argv[4])
import numpy as np, slicer
sys.path.insert(0, sys.argv[2])
from IMTTranslate import IMTTranslateLogic
logic = IMTTranslateLogic()
node = slicer.util.loadVolume(sys.argv[5], properties={"show": False})
before = slicer.mrmlScene.GetNumberOfNodes()
try:
    logic.translate(node, "T1-XYZ")
except ValueError as error:
    assert "There is no model" in str(error), error
assert slicer.mrmlScene.GetNumberOfNodes() == before
result, other = logic.translate(node, [sys.argv[3] + "/tiny-T1-T2.json", sys.argv[3] + "/tiny-T1-FLAIR.json"], uncertainty=True, samples=2)
assert result.GetName().endswith(" T2 (synthetic)"), result.GetName()
assert slicer.util.arrayFromVolume(result).shape == slicer.util.arrayFromVolume(node).shape
scores = logic.evaluate(result, other).scores
assert scores[0]["mae"] > 0
assert not {"qt", "PySide6", "torch"} & set(sys.modules)
print("GOOD")
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture
def attributes():
    """All that a node says of itself."""
    return lambda node: {name: node.GetAttribute(name) for name in sorted(node.GetAttributeNames()) if name.startswith("IMT.")}


def test_a_saved_scene_brings_the_result_back_with_name_mark_transform_and_study(run, attributes, tmp_path):
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    node, rotation = add_head("Größe/Kopf T1"), add_rotation("Drehung")
    node.SetAndObserveTransformNodeID(rotation.GetID())
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "2025")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
    result = run(node)
    said, voxels, matrix = attributes(result), slicer.util.arrayFromVolume(result).copy(), matrix_of(result)
    assert len(said) >= 9
    path = tmp_path / "Szene ö 脳.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(path))
    again = slicer.util.getNode("Größe/Kopf T1 T2 (synthetic)")
    assert attributes(again) == said and again.GetDescription() == said["IMT.Notice"]
    assert again.GetParentTransformNode().GetName() == "Drehung"
    assert np.array_equal(slicer.util.arrayFromVolume(again), voxels) and np.allclose(matrix_of(again), matrix, atol=1e-6)
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    assert hierarchy.GetItemName(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(again))) == "2025"


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_a_saved_file_has_its_mark_beside_it(run, tmp_path, ending):
    result = run(add_head("Kopf T1"))
    path = tmp_path / f"Kopf ö{ending}"
    assert slicer.util.saveNode(result, str(path), properties={})
    mark = json.loads((tmp_path / "Kopf ö.json").read_text(encoding="utf-8"))
    assert mark["synthetic"] is True and mark["model"]["name"] == "tiny-T1-T2" and mark["input"]["node"] == "Kopf T1"
    assert "output" not in mark  # the hash of another file than this one
    loaded = slicer.util.loadVolume(str(path), properties={"show": False})
    assert np.allclose(matrix_of(loaded), matrix_of(result), atol=1e-5)


def test_a_file_saved_from_a_reloaded_scene_has_its_mark_too(run, tmp_path):
    importlib.import_module("IMTTranslate").IMTTranslateLogic()  # Slicer makes one with the panel
    run(add_head("Kopf T1"))
    path = tmp_path / "Szene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(path))
    (tmp_path / "later").mkdir()
    again = slicer.util.getNode("Kopf T1 T2 (synthetic)")
    assert slicer.util.saveNode(again, str(tmp_path / "later" / "Kopf.nrrd"), properties={})
    mark = json.loads((tmp_path / "later" / "Kopf.json").read_text(encoding="utf-8"))
    assert mark["synthetic"] is True and mark["model"]["name"] == "tiny-T1-T2"


def test_a_scanners_sidecar_beside_a_saved_file_is_not_replaced(run, tmp_path, caplog):
    result = run(add_head("Kopf T1"))
    (tmp_path / "Kopf.json").write_text('{"RepetitionTime": 2.3}', encoding="utf-8")
    assert slicer.util.saveNode(result, str(tmp_path / "Kopf.nii.gz"), properties={})
    assert (tmp_path / "Kopf.json").read_text(encoding="utf-8") == '{"RepetitionTime": 2.3}'
    assert "Kopf.json is another file" in caplog.text


def test_the_real_image_beside_a_result_gets_no_mark(run, tmp_path):
    node = add_head("Kopf T1")
    run(node)
    assert slicer.util.saveNode(node, str(tmp_path / "T1.nrrd"), properties={})
    assert [path.name for path in tmp_path.iterdir()] == ["T1.nrrd"] and node.GetAttribute("IMT.Synthetic") is None


# --- Without Qt ----------------------------------------------------------------------------------------------------


def small_file(folder):
    """A head's file in a folder with a space and letters that are not ASCII."""
    folder.mkdir()
    path = folder / "Köpf 1.nii.gz"
    assert slicer.util.exportNode(add_head("T1"), str(path), properties={})
    return path


def test_the_logic_works_in_plain_python_without_qt_and_leaves_no_file(slicer_app, models, tmp_path):
    path, workdir = small_file(tmp_path / "Ein gabe ö"), tmp_path / "Arbeit 脳"
    workdir.mkdir()
    arguments = [ROOT / "Testing" / "harness", ROOT / "IMTTranslate", models, workdir, path]
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and "GOOD" in result.stdout, result.stdout + result.stderr[-3000:]
    assert not list(workdir.rglob("IMT-*")) and not list((workdir / "temporary").iterdir())


def test_the_batch_example_translates_the_good_volumes_and_names_the_bad_one(slicer_app, models, tmp_path):
    path = small_file(tmp_path / "Ein gabe ö")
    (path.parent / "kaputt.nii").write_bytes(b"nothing")
    output = tmp_path / "Aus gabe"
    result = run_example("translate_folder.py", path.parent, output, "--model", models / "tiny-T1-T2.json")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "kaputt.nii" in result.stderr and "Traceback" not in result.stderr
    assert sorted(file.name for file in output.iterdir()) == sorted(
        ["Köpf 1.mrb", "Köpf 1_T2_synthetic.json", "Köpf 1_T2_synthetic.nrrd"]
    )
