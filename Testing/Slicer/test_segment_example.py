"""The headless example of IMTSegment, as a user runs it: in a Python of its own, without Qt; and the module's own test."""

from __future__ import annotations

import json

import slicer
from panel_checks import run_example, run_own_test
from segment_fixtures import COLOURS, MODULE
from translate_fixtures import add_head

SCRIPT = "segment_headless.py"


def test_the_headless_example_saves_labels_volumes_surfaces_and_a_scene(slicer_app, tiny_models, tmp_path):
    path = tmp_path / "Köpf T1.nii.gz"
    assert slicer.util.exportNode(add_head("T1"), str(path), properties={})
    output = tmp_path / "Aus gabe"
    result = run_example(SCRIPT, path, output, "--model", "tiny-tms", "--surfaces")
    assert result.returncode == 0, result.stdout + result.stderr
    names = {file.name for file in output.iterdir()}
    assert {"Köpf T1_tissue.seg.nrrd", "Köpf T1_tissue.seg.json", "Köpf T1_volumes.csv", "Köpf T1.mrb"} <= names
    assert len([name for name in names if name.endswith(".stl")]) == len(COLOURS), names
    assert json.loads((output / "Köpf T1_tissue.seg.json").read_text(encoding="utf-8"))["derived_from_synthetic"] is True
    lines = (output / "Köpf T1_volumes.csv").read_text(encoding="utf-8").splitlines()
    assert [line.replace('"', "").split(",")[0] for line in lines] == ["Structure", *COLOURS]
    slicer.mrmlScene.Clear(False)
    segmentation = slicer.util.loadSegmentation(str(output / "Köpf T1_tissue.seg.nrrd")).GetSegmentation()
    assert [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())] == list(COLOURS)


def test_the_headless_example_says_what_is_wrong_without_a_traceback(slicer_app, tiny_models, tmp_path):
    result = run_example(SCRIPT, tmp_path / "fehlt.nii.gz", tmp_path / "out")
    assert result.returncode == 2 and "fehlt.nii.gz" in result.stderr and "Traceback" not in result.stderr
    path = tmp_path / "T1.nrrd"
    assert slicer.util.exportNode(add_head("T1"), str(path), properties={})
    result = run_example(SCRIPT, path, tmp_path / "out", "--model", "nieren")
    assert result.returncode == 2 and "nieren" in result.stderr and "tiny-tms" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_modules_own_test_segments_a_phantom(tiny_models):
    assert "no segmentation was tested" not in run_own_test(MODULE)
