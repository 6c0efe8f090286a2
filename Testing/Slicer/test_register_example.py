"""The headless example of IMTRegister, as a user runs it: in a Python of its own, without Qt."""

from __future__ import annotations

import json

import numpy as np
import slicer
from panel_checks import run_example
from register_fixtures import CODES

SCRIPT = "register_headless.py"


def test_the_headless_example_saves_labels_transforms_and_a_scene(slicer_app, cohort, tmp_path):
    output = tmp_path / "Aus gabe"
    result = run_example(SCRIPT, cohort.subject / "T2.nii.gz", "T2", cohort.atlases, output, "--jobs", 1)
    assert result.returncode == 0, result.stdout + result.stderr
    names = {"T2_labels.seg.nrrd", "T2_labels.seg.json", "head1.h5", "head2.h5", "T2.mrb"}
    assert {file.name for file in output.iterdir()} == names
    assert json.loads((output / "T2_labels.seg.json").read_text(encoding="utf-8"))["derived_from_synthetic"] is False
    slicer.mrmlScene.Clear(False)
    node = slicer.util.loadSegmentation(str(output / "T2_labels.seg.nrrd"))
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())] == list(CODES)
    # The saved transform takes the atlas's landmarks onto the subject's, within a voxel of 5 mm.
    transform = slicer.util.loadTransform(str(output / "head1.h5"))
    theirs = slicer.util.loadMarkups(str(cohort.atlases / "head1" / "landmarks.mrk.json"))
    theirs.SetAndObserveTransformNodeID(transform.GetID())
    for number in range(theirs.GetNumberOfControlPoints()):
        found = [0.0, 0.0, 0.0]
        theirs.GetNthControlPointPositionWorld(number, found)
        wanted = cohort.landmarks[theirs.GetNthControlPointLabel(number)] * [-1, -1, 1]
        assert np.linalg.norm(found - wanted) < 5.0


def test_the_headless_example_says_what_is_wrong_without_a_traceback(slicer_app, cohort, tmp_path):
    cases = ((tmp_path / "fehlt.nii.gz", cohort.atlases, "fehlt.nii.gz"), (cohort.subject / "T2.nii.gz", tmp_path / "leer", "leer"))
    for path, atlases, word in cases:
        result = run_example(SCRIPT, path, "T2", atlases, tmp_path / "out")
        assert result.returncode == 2 and word in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()
