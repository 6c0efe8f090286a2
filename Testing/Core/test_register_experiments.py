"""Claims on the registration experiments: tables, known transforms, chosen weights, and the cohort of phantoms they run on."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from IMTCommand import experiment_arguments, experiment_command
from IMTCore.errors import BadInput, SomeCasesFailed
from IMTCore.label_scores import dice_scores
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTRegisterLib.atlases.atlas_sets import AtlasSet, read_atlas_set
from IMTRegisterLib.atlases.landmarks import read_landmarks
from IMTRegisterLib.deformations.resampling import warp_image
from IMTRegisterLib.deformations.transforms import Transform
from IMTRegisterLib.engines.interface import engine_problem
from IMTRegisterLib.experiments.cases import clean, keep_plan, read_sets, translated_images
from IMTRegisterLib.experiments.measures import AGAINST_BETTER, AGAINST_GIVEN, comparisons_of, harms_of
from IMTRegisterLib.experiments.methods import parse_methods, with_real, without_translation
from IMTRegisterLib.experiments.rotation import RotationExperiment, RotationRecord, Turned, score_rotation, turn
from IMTRegisterLib.experiments.rotation_geometry import about_centre, axis_vector, covering, rotation, spread_points
from IMTRegisterLib.experiments.rotation_report import is_lost, is_recovered
from IMTRegisterLib.experiments.table import Record
from IMTRegisterLib.experiments.weights import Scored, choose, overall
from IMTRegisterLib.registration.cache import RegistrationCache
from IMTRegisterLib.registration.settings import RegistrationSettings, read_structure_weights
from IMTRegisterLib.registration.translation import model_for, translate_subject

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Resources" / "Experiments"))

import make_phantom_cohort

needs_greedy = pytest.mark.skipif(engine_problem("greedy") is not None, reason=engine_problem("greedy") or "")
SMALL = ["--spacing", 5, "--skull-stripped", "--atlases", 2, "--subjects", 1]  # 36 x 43 x 34 voxels: Greedy takes no less


def make(*words: object) -> None:
    make_phantom_cohort.main([*map(str, words)])


def experiment(*words: object) -> None:
    """Run `imt experiment`."""
    parser = argparse.ArgumentParser()
    experiment_arguments.add_arguments(parser)
    assert experiment_command.run(parser.parse_args([*map(str, words), "--progress", "none"])) == 0


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nilearn", reason="the ICBM152 template lies in nilearn's wheel")
    folder = tmp_path_factory.mktemp("cohort") / "phantoms"
    make(*SMALL, "--output", folder)
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options of every run: a cache that they share, one process."""
    return ["--cache", tmp_path_factory.mktemp("cache"), "--jobs", 1, "--threads", 1]


# --- The cohort ----------------------------------------------------------------------------------------------------------


def test_a_cohort_is_two_atlas_sets_with_exact_landmarks(cohort):
    atlases, subjects = (read_atlas_set(cohort / name, ("T1", "T2")) for name in ("atlases", "subjects"))
    assert [len(s.atlases) for s in (atlases, subjects)] == [2, 1]
    assert [atlases.names.name_of(code) for code in atlases.codes] == ["csf", "grey", "white"]
    for atlas in (*atlases.atlases, *subjects.atlases):
        points = read_landmarks(atlas.landmarks)
        assert list(points) == ["L1", "L2", "L3", "L4", "L5", "L6", "L7"]
        volume = read_volume(atlas.labels)
        i_j_k = (np.array(list(points.values())) - volume.geometry.origin_lps) @ volume.geometry.direction / volume.geometry.spacing_mm
        assert all(volume.array[tuple(np.rint(index[::-1]).astype(int))] > 0 for index in i_j_k), "a landmark is outside the brain"
    first, second = (read_landmarks(atlas.landmarks)["L1"] for atlas in atlases.atlases)
    assert np.linalg.norm(first - second) > 0.5, "two heads have the same warp"


def test_a_cohort_is_finished_where_it_stopped_and_never_written_over(cohort, capsys):
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*") if path.is_file()}
    make(*SMALL, "--output", cohort)
    assert capsys.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*") if path.is_file()} == before
    with pytest.raises(SystemExit, match="another cohort .other noise"):
        make(*SMALL, "--noise", 0.1, "--output", cohort)
    with pytest.raises(SystemExit, match="no multiple"):
        make(*SMALL, "--spacing", 2.5, "--output", cohort.parent / "other")


def test_label_maps_give_deep_structures_and_ventricle_points(tmp_path):
    codes = np.zeros((32, 32, 32), np.int16)
    codes[4:28, 4:28, 4:28] = 2
    codes[8:24, 8:24, 8:24] = 3
    codes[10:20, 12:20, 18:22] = 4  # left lateral ventricle: i grows towards the left
    codes[10:20, 12:20, 10:14] = 43
    codes[12:16, 9:12, 18:22] = 17
    (tmp_path / "maps" / "a").mkdir(parents=True)
    write_volume(tmp_path / "maps" / "a" / "labels.nii.gz", Volume(codes, Geometry(codes.shape, (2, 2, 2), (0, 0, 0), np.eye(3))))
    still = ["--warp-mm", 0, "--rotation-deg", 0, "--translation-mm", 0]
    make("--labels", tmp_path / "maps", "--spacing", 4, "--atlases", 1, "--subjects", 0, *still, "--output", tmp_path / "out")
    found = read_atlas_set(tmp_path / "out" / "atlases", ("T1", "T2"))
    assert [found.names.name_of(code) for code in found.codes] == ["grey", "white", "hippocampus", "lateral ventricle"]
    points = read_landmarks(found.atlases[0].landmarks)
    assert np.allclose(points["L1"], (23, 31, 37), atol=1.1)  # LPS: right top
    assert np.allclose(points["L7"], (39, 37, 29), atol=1.1)  # left posterior
    assert np.allclose(points["L5"], (31, 31, 29), atol=1e-3)
    assert np.allclose(points["left hippocampus"], (39, 20, 27), atol=1e-3)
    with pytest.raises(SystemExit, match="holds 1 .* and 4 are needed"):
        make("--labels", tmp_path / "maps", "--atlases", 3, "--subjects", 1, "--output", tmp_path / "more")


# --- The table -----------------------------------------------------------------------------------------------------------


def table_words(cohort: Path, output: Path, *more: object) -> list[object]:
    sets = ["register-table", "--atlases", cohort / "atlases", "--subjects", cohort / "subjects", "--atlas-names", "template01"]
    return [*sets, "--modality", "T1", "--second", "T2", "--no-translation", "--output", output, *more]


@needs_greedy
def test_the_table_scores_what_was_registered_and_is_not_computed_twice(cohort, machine, tmp_path, capsys):
    words = table_words(cohort, tmp_path, "--methods", "given", "real", "real-mean", "--keep-labels", *machine)
    experiment(*words)
    page = capsys.readouterr().out
    for text in ("| T1 |", "| T2 real |", "| T1 + T2 real, mean 0.5 |", "Does fusion do harm?", "landmarks, mm", "no method can leave"):
        assert text in page
    assert (tmp_path / "table.md").read_text(encoding="utf-8") in page
    (subject,) = read_atlas_set(cohort / "subjects", ("T1",)).atlases
    truth = read_volume(subject.labels).array
    scores = rows(tmp_path / "scores.csv")
    for method in ("given", "real-mean"):
        labels = read_volume(tmp_path / "labels" / "greedy" / method / f"{subject.name}.nii.gz").array
        for code, name in ((1, "csf"), (2, "grey"), (3, "white")):
            (row,) = [r for r in scores if (r["method"], r["measure"], r["structure"]) == (method, "dice", name)]
            assert float(row["value"]) == pytest.approx(dice_scores(truth, labels, [code])[code], abs=1e-5)
            assert float(row["value"]) > (0.5 if name == "csf" else 0.75)
        distances = [float(r["value"]) for r in scores if (r["method"], r["measure"]) == (method, "landmarks_mm")]
        assert len(distances) == 7
        assert np.mean(distances) < 3.0  # the phantoms are up to 15 mm apart

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    assert len(kept) == 3
    experiment(*words)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")} == kept
    assert capsys.readouterr().out == page
    with pytest.raises(BadInput, match="another experiment .other settings"):
        experiment(*words, "--labels", "majority")


@needs_greedy
def test_a_run_that_fails_is_named_and_the_others_are_kept(cohort, machine, tmp_path, capsys):
    broken = tmp_path / "sets" / "atlases" / "broken"
    broken.mkdir(parents=True)
    (atlas, *_) = read_atlas_set(cohort / "atlases", ("T1",)).atlases
    far = read_volume(atlas.images["T1"])
    moved = Geometry(far.geometry.shape, far.geometry.spacing_mm * 0.02, far.geometry.origin_lps, far.geometry.direction)
    for name, path in (("T1", atlas.images["T1"]), ("labels", atlas.labels)):
        write_volume(broken / f"{name}.nii.gz", Volume(read_volume(path).array, moved))
    words = ["--atlases", broken.parent, "--subjects", cohort / "subjects", "--modality", "T1", "--output", tmp_path / "out"]
    with pytest.raises(SomeCasesFailed, match="1 run failed"):
        experiment("register-table", *words, *machine)
    assert re.search(r"FAILED: template03, greedy, given: .*broken", (tmp_path / "out" / "table.md").read_text(encoding="utf-8"))
    assert not list((tmp_path / "out" / "results").rglob("*.json")), "a failed run must be tried again"


def test_a_subject_is_left_out_of_its_own_atlases_by_name_and_by_content(cohort, tmp_path):
    _, subjects, warnings = read_sets(cohort / "atlases", cohort / "atlases", "T1", "T2", False)
    assert [subject.left_out for subject in subjects] == [("template01",), ("template02",)]
    assert any("template01 is among the atlases" in warning for warning in warnings)
    copy = tmp_path / "copies" / "somebody"
    copy.mkdir(parents=True)
    for name in ("T1.nii.gz", "labels.nii.gz"):
        (copy / name).write_bytes((cohort / "atlases" / "template02" / name).read_bytes())
    _, subjects, _ = read_sets(cohort / "atlases", copy.parent, "T1", None, False)
    assert [subject.left_out for subject in subjects] == [("template02",)]
    with pytest.raises(BadInput, match="is the only atlas"):
        read_sets(cohort / "atlases", copy.parent, "T1", None, False, atlas_names=["template02"])
    with pytest.raises(BadInput, match="no atlas nobody. It has template01"):
        read_sets(cohort / "atlases", copy.parent, "T1", None, False, atlas_names=["nobody"])
    with pytest.raises(BadInput, match="has a real T2"):
        read_sets(cohort / "atlases", copy.parent, "T1", "T2", True)
    (copy.parent / "labels.csv").write_text("code,name,red,green,blue\n1,grey,1,1,1\n2,csf,2,2,2\n3,white,3,3,3\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"codes 1 \(csf, grey\)"):
        read_sets(cohort / "atlases", copy.parent, "T1", None, False)


def test_translated_images_are_found_as_imt_translate_names_them(cohort, tmp_path):
    _, subjects, _ = read_sets(cohort / "atlases", cohort / "subjects", "T1", None, False)
    with pytest.raises(BadInput, match="no T2 image of template03"):
        translated_images(tmp_path, subjects, "T2")
    (tmp_path / "template03").mkdir()
    (tmp_path / "template03" / "T2.nii.gz").touch()
    assert translated_images(tmp_path, subjects, "T2") == {"template03": tmp_path / "template03" / "T2.nii.gz"}
    (tmp_path / "template03.nii").touch()
    with pytest.raises(BadInput, match="2 translated images"):
        translated_images(tmp_path, subjects, "T2")


def test_methods_say_what_they_do():
    methods = with_real(parse_methods(["given", "second", "mean:0.3", "local"], "0.5"))
    assert [m.title("T2", "T1") for m in methods] == [
        "T2",
        "T1 translated",
        "T2 + T1 translated, mean 0.3",
        "T2 + T1 translated, local",
        "T1 real",
        "T2 + T1 real, mean 0.3",
        "T2 + T1 real, local",
    ]
    for names, message in (
        (["gven"], "no method 'gven'"),
        (["mean", "mean"], "named twice"),
        (["given:0.3"], "takes no weight"),
        (["mean:0"], "method second"),
        ([], "at least one"),
    ):
        with pytest.raises(BadInput, match=message):
            parse_methods(names, "0.5")
    with pytest.raises(BadInput, match="no method mean"):
        without_translation(parse_methods(["given", "mean"], "0.5"), "T1")


def record(method: str, subject: str, **dice: float) -> Record:
    return Record(subject, "greedy", method, {"dice": dice, "folds": 0, "seconds": {}, "failed": {}})


def test_harm_is_measured_against_the_better_single_modality_of_each_structure():
    methods = parse_methods(["given", "second", "mean"], "0.5")
    records = []
    for n, subject in enumerate("abcd"):
        records.append(record("given", subject, grey=0.80 + n / 100, white=0.90))
        records.append(record("second", subject, grey=0.84 + n / 100, white=0.70))
        records.append(record("mean", subject, grey=0.8385 + n / 100, white=0.89))
    (harm,) = harms_of(records, methods)
    assert harm.better == {"grey": "second", "white": "given"}
    assert harm.differences == pytest.approx({"grey": -0.0015, "white": -0.01})
    assert (harm.holding, harm.holds, harm.worst) == (["grey"], False, "white")
    assert harms_of(records, methods, margin=0.02)[0].holds
    assert harms_of([r for r in records if r.method != "second"], methods) == []
    found = {(c.against, c.measure.structure, c.result.first): c.result for c in comparisons_of(records, methods)}
    assert found[AGAINST_GIVEN, "grey", "mean"].difference.mean == pytest.approx(0.0385)
    assert found[AGAINST_BETTER, "grey", "mean"].second == "second"
    assert found[AGAINST_GIVEN, "grey", "mean"].wilcoxon_p == pytest.approx(0.125)


def test_a_method_with_fewer_subjects_is_compared_on_those_it_has():
    methods = parse_methods(["given", "real", "real-mean"], "0.5")
    records = [record("given", s, grey=v) for s, v in (("a", 0.5), ("b", 0.6), ("c", 0.9))]
    records += [record("real-mean", s, grey=v) for s, v in (("a", 0.6), ("b", 0.7))]
    records.append(Record("c", "greedy", "real-mean", None, "it failed"))
    (result,) = [c.result for c in comparisons_of(records, methods) if c.measure.structure == "grey"]
    assert result.subjects == 2
    assert result.difference.mean == pytest.approx(0.1)


def test_an_output_folder_is_of_one_experiment(tmp_path):
    keep_plan(tmp_path / "plan.json", {"labels": "mean"}, {"engines": ["greedy"]})
    keep_plan(tmp_path / "plan.json", {"labels": "mean"}, {"engines": ["greedy", "ants"]})
    with pytest.raises(BadInput, match="another experiment .other labels"):
        keep_plan(tmp_path / "plan.json", {"labels": "staple"}, {})
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["engines"] == ["greedy", "ants"]
    assert clean({"a": [np.float32(0.5), float("nan")], "b": np.int64(3)}) == {"a": [0.5, None], "b": 3}


# --- The known transform -------------------------------------------------------------------------------------------------

GRID = Geometry((20, 24, 22), (2.0, 2.5, 3.0), (-20.0, 5.0, 11.0), np.eye(3))


def turned_labels(degrees: float) -> tuple[Turned, Volume]:
    labels = np.zeros(GRID.shape, np.uint16)
    labels[4:14, 6:18, 5:16] = 1
    labels[8:12, 8:12, 8:12] = 2
    true = about_centre(rotation(axis_vector((1, 2, 2), GRID), degrees), np.array([10.0, 30.0, 40.0]))
    geometry = covering(GRID, true)
    points = spread_points(labels, GRID)
    fixed = dict(zip(points, Transform(np.linalg.inv(true.matrix)).to_moving(np.array(list(points.values()))), strict=True))
    from IMTRegisterLib.deformations.resampling import warp_labels

    volume = Volume(labels, GRID, "labels")
    return Turned(true, geometry, warp_labels(volume, true, geometry).array, points, fixed, {}), volume


def test_the_true_transform_scores_as_perfect_and_the_identity_by_the_angle():
    turned, labels = turned_labels(30.0)
    perfect = score_rotation(turned, turned.transform, labels, {1: "a", 2: "b"})
    assert perfect["dice"] == {"a": 1.0, "b": 1.0}
    assert max(perfect["landmarks_mm"].values()) < 1e-9
    assert (perfect["turn_deg"], perfect["labels_mm"]) == pytest.approx((0, 0), abs=1e-5)
    nothing = score_rotation(turned, Transform(), labels, {1: "a", 2: "b"})
    assert nothing["turn_deg"] == pytest.approx(30)
    assert nothing["dice"]["a"] < 0.9
    assert np.mean(list(nothing["landmarks_mm"].values())) > 3
    records = [RotationRecord("s", 30, "greedy", "given", scores) for scores in (perfect, nothing, None)]
    assert [is_recovered(r) for r in records] == [True, False, False]
    assert [is_lost(r) for r in records] == [False, True, True]


@pytest.mark.parametrize("degrees", [0.0, 45.0, 90.0])
def test_the_turned_grid_holds_the_whole_head(degrees):
    true = about_centre(rotation(axis_vector("S", GRID), degrees), np.array([10.0, 30.0, 40.0]))
    head = np.zeros(GRID.shape, np.float32)
    head[1:-1, 1:-1, 1:-1] = 1
    turned = warp_image(Volume(head, GRID), true, covering(GRID, true)).array
    # Volume is kept, and nothing reaches the edge: all of the head is there.
    assert turned.sum() * np.prod(GRID.spacing_mm) == pytest.approx(head.sum() * np.prod(GRID.spacing_mm), rel=0.01)
    assert max(np.abs(np.take(turned, (0, -1), axis=axis)).max() for axis in range(3)) < 0.5


def test_generated_points_spread_over_the_labels_and_are_always_the_same():
    labels = np.zeros(GRID.shape, np.uint16)
    labels[2:18, 3:20, 4:18] = 1
    points = np.array(list(spread_points(labels, GRID).values()))
    assert len(points) >= 7
    assert np.array_equal(points, np.array(list(spread_points(labels, GRID).values())))
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(len(points))
    assert apart.min() > 8
    with pytest.raises(BadInput, match="too few"):
        spread_points(labels * (np.arange(22) == 5) * (np.arange(24) == 5)[:, None] * (np.arange(20) == 5)[:, None, None], GRID)
    for axis in ("X", (0.0, 0.0, 0.0)):
        with pytest.raises(BadInput, match="axis|vector"):
            axis_vector(axis, GRID)


@needs_greedy
def test_a_known_rotation_is_recovered_and_reported(cohort, machine, tmp_path, capsys):
    words = ["--subjects", cohort / "subjects", "--modality", "T1", "--angles", 10, "--axis", "S", "--output", tmp_path]
    experiment("known-transform", *words, *machine)
    page = capsys.readouterr().out
    assert "| 10 | T1 | 1 |" in page
    values = {(r["measure"], r["structure"]): float(r["value"]) for r in rows(tmp_path / "scores.csv")}
    assert values["turn_deg", ""] < 1.0
    assert values["labels_mm", ""] < 1.0  # a fifth of a voxel
    assert values["dice", "white"] > 0.95
    with pytest.raises(BadInput, match="from 0 to 180"):
        experiment("known-transform", *words, "--angles", 200, *machine)


def test_the_upright_head_is_translated_and_then_turned(cohort, model, tmp_path):
    methods = parse_methods(["second", "real"], "0.5")
    subjects = read_atlas_set(cohort / "subjects", ("T1", "T2"))
    base = RegistrationSettings("T1", cache=None)
    one = RotationExperiment(subjects, base, "T2", ["greedy"], methods, [30.0], "S", tmp_path / "out", str(model))
    turned = turn(one, subjects.atlases[0], 30.0, tmp_path)
    upright = read_volume(subjects.atlases[0].images["T1"])
    settings = RegistrationSettings("T1", "T2", str(model), cache=None)
    result, _ = translate_subject(upright, model_for(settings), settings, RegistrationCache(None))
    expected = warp_image(result.translation, turned.transform, turned.geometry).array
    found = {source: read_volume(path) for source, path in turned.images.items()}
    assert list(found) == ["", "real", "translated"]
    assert all(volume.geometry.is_close(turned.geometry) for volume in found.values())
    assert np.allclose(found["translated"].array, expected, atol=1e-3)
    assert not np.allclose(found["real"].array, found["translated"].array)
    with pytest.raises(BadInput, match="does not translate T2 to T1"):
        model_for(replace(settings, modality="T2", translate_to="T1"))


# --- Weights -------------------------------------------------------------------------------------------------------------


def scored(curves: dict[str, Sequence[float]], weights: Sequence[str] = ("0", "0.4", "0.5", "1"), subjects: str = "abcd") -> Scored:
    dice = {w: {s: {name: curve[n] for name, curve in curves.items()} for s in subjects} for n, w in enumerate(weights)}
    return Scored(dice, {w: {} for w in weights})


def test_each_structure_gets_its_best_weight_and_ties_go_to_one_half():
    curves = {"peak": (0.5, 0.6, 0.55, 0.4), "tie": (0.5, 0.6, 0.6, 0.6), "flat": (0.7, 0.7, 0.7, 0.7005), "edge": (0.3, 0.4, 0.5, 0.6)}
    choices = {c.structure: c for c in choose(scored(curves), "0.5", [["a", "b"], ["c", "d"]])}
    assert {name: c.chosen for name, c in choices.items()} == {"peak": "0.4", "tie": "0.5", "flat": "1", "edge": "1"}
    assert [name for name, c in choices.items() if c.is_flat] == ["flat"]
    assert choices["peak"].held_out == pytest.approx(0.05)
    assert choices["tie"].held_out == 0


def test_a_choice_that_only_fits_its_own_subjects_gains_nothing_on_others():
    result = scored({"x": (0.5, 0.5, 0.5, 0.5)})
    for subject, best in (("a", "0"), ("b", "0"), ("c", "1"), ("d", "1")):
        result.dice[best][subject]["x"] = 0.9
    (choice,) = choose(result, "0.5", [["a", "b"], ["c", "d"]])
    assert choice.dice - choice.plain_dice == pytest.approx(0.2)
    assert choice.held_out == pytest.approx(0.0)


def test_landmarks_decide_the_weight_of_all_else_where_there_are_any():
    result = scored({"x": (0.9, 0.5, 0.5, 0.5)})
    assert overall(result, "0.5") == "0"
    with_landmarks = Scored(result.dice, {"0": {"a": 3.0}, "0.4": {"a": 1.0}, "0.5": {"a": 2.0}, "1": {"a": 2.0}})
    assert overall(with_landmarks, "0.5") == "0.4"


@needs_greedy
def test_weights_are_chosen_over_the_atlases_and_taken_by_register(cohort, machine, tmp_path, capsys):
    words = ["--atlases", cohort / "atlases", "--modality", "T1", "--translate-to", "T2", "--real", "--folds", 2]
    experiment("register-weights", *words, "--weights", 0, 0.5, 1, "--output", tmp_path / "weights.json", *machine)
    assert "gain on held-out folds" in capsys.readouterr().out
    weights = read_structure_weights(tmp_path / "weights.json")
    atlas_set: AtlasSet = read_atlas_set(cohort / "atlases", ("T1",))
    by_code = weights.by_code(atlas_set.names, atlas_set.codes)
    assert set(by_code.values()) <= {0.0, 0.5, 1.0}
    table: dict[tuple[str, str], list[float]] = {}
    for row in rows(tmp_path / "weights-scores.csv"):
        if row["measure"] == "dice":
            table.setdefault((row["structure"], row["candidate"]), []).append(float(row["value"]))
    for code, weight in by_code.items():
        means = {w: float(np.mean(table[atlas_set.names.name_of(code), w])) for w in ("0", "0.5", "1")}
        assert means[f"{weight:g}"] >= max(means.values()) - 1e-4
    assert len({round(float(np.mean(values)), 6) for (name, _), values in table.items() if name == "white"}) == 3
    assert (tmp_path / "weights.md").is_file()
    if (tmp_path / "weights.png").exists():
        assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")


@needs_greedy
def test_engine_settings_are_chosen_alike_and_bad_ones_refused(cohort, machine, tmp_path):
    words = ["--atlases", cohort / "atlases", "--modality", "T1", "--folds", 2, "--settings", tmp_path / "settings.json"]
    words += ["--output", tmp_path / "chosen.json", *machine]
    settings = [{"name": "rough", "deformable": {"iterations": "1x0x0x0"}}, {"name": "finer", "deformable": {"iterations": "20x10x0x0"}}]
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    experiment("register-weights", *words)
    chosen = json.loads((tmp_path / "chosen.json").read_text(encoding="utf-8"))
    assert (chosen["chosen"], chosen["settings"]) == ("finer", {"deformable": {"iterations": "20x10x0x0"}})
    for content, message in (
        ([{"deformable": {"smoothnes": 1}}, {}], "Settings settings 1: greedy has no deformable setting 'smoothnes'"),
        ([{"name": "a"}, {"name": "a"}], "two settings called a"),
        ({"a": 1}, "no list of settings"),
    ):
        (tmp_path / "settings.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(BadInput, match=message):
            experiment("register-weights", *words)


def test_weights_without_a_second_modality_or_with_too_many_folds_are_refused(cohort, tmp_path):
    words = ["register-weights", "--atlases", cohort / "atlases", "--modality", "T1", "--output", tmp_path / "w.json", "--cache", "none"]
    with pytest.raises(BadInput, match="name the second one"):
        experiment(*words)
    with pytest.raises(BadInput, match="cannot be cut into 5 folds: choose from 2 to 2"):
        experiment(*words, "--translate-to", "T2", "--real")
    with pytest.raises(BadInput, match="fusion mean or log"):
        experiment(*words, "--translate-to", "T2", "--real", "--folds", 2, "--fusion", "joint")
