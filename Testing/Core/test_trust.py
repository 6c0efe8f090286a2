"""Claims on the check of inputs and on the trust map: faults are named in plain words, good images pass, doubts are where they are."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import head_phantom, store
from packages import write_tiny_package
from source_tree import ROOT
from trust_cards import calibrate, training_range, uncertainty

from IMTCommand.__main__ import main
from IMTCore.cards import ModelCard, read_card
from IMTCore.catalogue import list_cards
from IMTCore.errors import BadInput
from IMTCore.input_check import check_input, unusual_input, worst
from IMTCore.input_check_measures import measure_input
from IMTCore.label_names import read_label_names
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.uncertainty_map import BINS, OUTSIDE, UNSURE, VERY_UNSURE, TrustLimits, trust_map
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume, write_volume

SAMPLES = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data"
SPACING_KJI = (4.0, 2.0, 2.0)


def brain(whole: bool = False) -> Volume:
    """A head [k, j, i] of 40 × 92 × 72 voxels: a brain of nearly natural size, `whole` with skull and bright scalp round it."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 92, 72)), indexing="ij")
    grain = np.random.default_rng(0).normal(0, 12, k.shape)
    radius = np.sqrt((k / 0.9) ** 2 + (j / 0.95) ** 2 + (i / 0.93) ** 2) if whole else np.sqrt((k / 0.8) ** 2 + (j / 0.9) ** 2 + (i / 0.85) ** 2)
    tissue = 420 + 60 * np.cos(5 * j) + 40 * np.cos(7 * np.abs(i)) + 30 * k + grain  # as alike on the left as on the right
    edge = 0.78 if whole else 1.0
    image = np.where(radius < edge, tissue, 0)
    if whole:
        image = np.where((radius >= edge) & (radius < 0.9), 60 + grain, image)
        image = np.where((radius >= 0.9) & (radius < 1), 800 + grain, image)
    return store(np.clip(image, 0, None).astype(np.float32), spacing_kji=SPACING_KJI)


BRAIN, WHOLE = brain(), brain(whole=True)


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> ModelCard:
    """A tiny model of brains without skull, calibrated."""
    trained = training_range(finest_mm=[1.0, 2.5], coarsest_mm=[1.0, 4.0], height_mm=[100.0, 180.0])
    return read_card(calibrate(write_tiny_package(tmp_path_factory.mktemp("package"), source="CT", name="CT-T2"), trained))


def warned(volume: Volume, card: ModelCard) -> dict[str, str]:
    """Check → text, of what is not fine."""
    return {one.check: one.text for one in check_input(volume, card) if one.severity != "fine"}


def changed(array: np.ndarray) -> Volume:
    return BRAIN.with_array(np.ascontiguousarray(array.astype(np.float32)))


# --- The check -----------------------------------------------------------------------------------------------------


def test_a_good_image_is_fine_in_every_respect(card):
    findings = check_input(BRAIN, card)
    assert {one.check: one.text for one in findings if one.severity != "fine" and one.check != "head"} == {}
    assert {"image", "size", "field of view", "brain extraction", "resolution", "intensities", "histogram", "orientation"} <= {one.check for one in findings}


def test_a_brain_without_skull_and_a_whole_head_are_told_apart_and_held_against_the_training(card):
    assert (measure_input(BRAIN).skull, measure_input(WHOLE).skull) == ("stripped", "whole")
    assert "Remove the skull first" in warned(WHOLE, card)["brain extraction"]
    heads = replace(card, content={**card.content, "training_range": training_range(skull={"whole": 3})})
    assert "before the skull was removed" in warned(BRAIN, heads)["brain extraction"]
    assert "brain extraction" not in warned(WHOLE, heads)


@pytest.mark.parametrize("kept", [slice(None, 30), slice(12, None)], ids=["top", "bottom"])
def test_a_head_that_is_cut_off_is_named_with_its_side(card, kept):
    array = np.zeros_like(BRAIN.array)
    array[kept] = BRAIN.array[kept]  # whether slices are missing or empty makes no difference
    side = "top" if kept.start is None else "bottom"
    assert f"at the {side}" in warned(changed(array), card)["field of view"]


def test_a_thin_slab_is_said_to_show_little_of_the_head(card):
    array = np.zeros_like(BRAIN.array)
    array[15:25] = BRAIN.array[15:25]
    assert "shows only 40 mm" in warned(changed(array), card)["field of view"]


def test_voxels_coarser_or_finer_than_in_training_are_named(card):
    coarse = store(BRAIN.array[::2, ::2, ::2], spacing_kji=(8.0, 4.0, 4.0))
    assert "4 to 8 mm" in warned(coarse, card)["resolution"]
    strict = replace(card, content={**card.content, "training_range": training_range(finest_mm=[3.0, 4.0], coarsest_mm=[4.0, 5.0])})
    assert "no finer" in warned(BRAIN, strict)["resolution"]


def test_faulty_intensities_are_named_with_a_remedy(card):
    array = BRAIN.array
    faults = {
        "clipped": np.minimum(array, np.percentile(array[array > 0], 60)),
        "grey levels": np.round(array / 20) * 20,
        "--bias-correction": array * np.linspace(0.15, 1.85, array.shape[2]),
    }
    for word, faulty in faults.items():
        assert word in warned(changed(faulty), card)["intensities"]


def test_a_histogram_unlike_the_trainings_is_named(card):
    strict = replace(card, content={**card.content, "training_range": training_range(landmarks=[[0.01, 0.02]] * 5)})
    assert "unlike the CT images" in warned(BRAIN, strict)["histogram"]


def test_axes_that_were_swapped_are_noticed_and_how_an_image_is_stored_is_not(card):
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in BRAIN.array.shape), indexing="ij")
    lopsided = np.where(BRAIN.array > 0, BRAIN.array * (1 + 0.5 * np.sin(3 * j)), 0)  # front and back differ
    straight = store(lopsided.astype(np.float32), spacing_kji=SPACING_KJI)
    assert "orientation" not in warned(straight, card)
    swapped = Volume(np.ascontiguousarray(straight.array.transpose(0, 2, 1)), replace_shape(straight), "head")
    assert "more alike than left and right" in warned(swapped, card)["orientation"]
    stored = store(lopsided.astype(np.float32), ((2, 0, 1), (True, False, True)), SPACING_KJI)
    assert measure_input(stored) == measure_input(straight)


def replace_shape(volume: Volume):
    k, j, i = volume.geometry.shape
    return replace(volume.geometry, shape=(k, i, j))


def test_what_a_run_would_refuse_is_a_stop(card):
    nan = BRAIN.array.copy()
    nan[3, 4, 5] = np.nan
    findings = check_input(BRAIN.with_array(nan), card)
    assert worst(findings) == "stop" and "NaN" in findings[-1].text
    mask = check_input(changed(BRAIN.array > 0), card)
    assert worst(mask) == "stop" and "label map" in mask[-1].text


def test_an_image_that_is_no_head_is_doubted(card):
    cube = np.zeros((20, 60, 60), np.float32)
    cube[:, 5:20, 5:20] = np.random.default_rng(0).uniform(100, 200, (20, 15, 15))
    assert "No head" in warned(store(cube, spacing_kji=(2.0, 2.0, 2.0)), card)["head"]


def test_the_sample_data_is_fine_for_the_shipped_models_and_their_cards_say_what_was_in_training():
    for shipped in list_cards()[0]:
        assert {"training_range", "uncertainty"} <= set(shipped.content), shipped.name
        volume = read_volume(SAMPLES / f"IMT-phantom-{shipped.source}.nii.gz")
        assert worst(check_input(volume, shipped)) == "fine" and unusual_input(volume, shipped) == []


# --- imt check -----------------------------------------------------------------------------------------------------


def test_the_command_prints_findings_in_words_and_as_json(card, tmp_path, capsys):
    write_volume(tmp_path / "head.nii.gz", WHOLE)
    assert main(["check", str(tmp_path / "head.nii.gz"), "--model", str(card.path)]) == 0
    said = capsys.readouterr().out
    assert "warn" in said and "Remove the skull first" in said and "Look at the warnings" in said
    assert main(["check", str(tmp_path / "head.nii.gz"), "--model", str(card.path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "warn" and {"check", "severity", "text"} == set(report["findings"][0])


def test_a_stop_and_a_missing_file_exit_with_2(card, tmp_path, capsys):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    assert main(["check", str(broken), "--model", str(card.path)]) == 2
    assert "Stop: a run would refuse" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none.nii.gz"), "--model", str(card.path)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_run_says_what_the_check_found(card, tmp_path, capsys):
    write_volume(tmp_path / "head.nii.gz", store(WHOLE.array[::2, ::2, ::2], spacing_kji=(8.0, 4.0, 4.0)))
    assert main(["translate", str(tmp_path / "head.nii.gz"), "--model", str(card.path), "--output", str(tmp_path / "T2.nii.gz")]) == 0
    said = capsys.readouterr().err
    assert "Warning: The voxels of head.nii.gz are coarse" in said
    assert any("coarse" in text for text in read_mark(tmp_path / "T2.json")["warnings"])


# --- The trust map -------------------------------------------------------------------------------------------------


def test_the_map_tells_wide_intervals_and_strange_neighbourhoods_apart():
    inside = np.zeros((BINS, BINS), bool)
    inside[12, 11:14] = True  # a voxel of 0.5 among voxels of 0.5
    limits = TrustLimits(100.0, 0.1, 0.2, inside)
    image = np.full((6, 10, 12), 0.51, np.float32)
    image[:, :, 8:] = 0.9
    width = np.zeros_like(image)
    width[0], width[1] = 15.0, 25.0
    foreground = np.ones(image.shape, bool)
    foreground[5] = False
    found = trust_map(width, image, np.array([10.0, 10.0, 10.0]), foreground, limits)
    assert (found[0, :, :7] == UNSURE).all() and (found[1, :, :7] == VERY_UNSURE).all() and (found[2:5, :, :7] == 0).all()
    assert (found[:5, :, 9:] == OUTSIDE).all() and (found[5] == 0).all() and found.dtype == np.uint8


HEAD = store(head_phantom(), spacing_kji=(2.0, 2.0, 2.5))


def test_what_was_never_in_training_is_marked_as_outside_and_warned_of(card):
    rows = ["#" * BINS] * 18 + ["." * BINS] * 6  # no bright voxel was in training
    strict = replace(card, content={**card.content, "training_range": training_range(neighbourhood=rows)})
    result = Translator(strict, TranslationSettings(device="cpu", samples=2, trust_map=True)).translate(HEAD)
    array = HEAD.array / np.percentile(HEAD.array[HEAD.array > 0], 99.5)
    found = result.trust_map.array
    assert (found[array > 0.8] == OUTSIDE).mean() > 0.95 and not (found[(array > 0) & (array < 0.7)] == OUTSIDE).any()
    assert (found[HEAD.array == 0] == 0).all() and found.shape == HEAD.array.shape
    assert any("outside the range of what model" in text for text in result.warnings)
    shares = result.settings["trust_map"]
    assert shares["outside the training range"] > 0.06 and set(shares) == {"unsure", "very unsure", "outside the training range"}


def test_the_command_writes_the_map_with_legend_and_mark_and_for_cases_too(card, tmp_path):
    for case in ("a", "b"):
        write_volume(tmp_path / "cases" / case / "CT.nii.gz", HEAD)
    arguments = ["--model", str(card.path), "--samples", "2", "--progress", "none"]
    single = ["translate", str(tmp_path / "cases" / "a" / "CT.nii.gz"), *arguments, "--output", str(tmp_path / "T2.nii.gz")]
    assert main([*single, "--trust-map", str(tmp_path / "trust.nii.gz")]) == 0
    labels = read_volume(tmp_path / "trust.nii.gz", constant=True)
    assert set(np.unique(labels.array)) <= {0, UNSURE, VERY_UNSURE, OUTSIDE} and np.issubdtype(labels.array.dtype, np.integer)
    names = read_label_names(tmp_path / "trust_labels.csv")
    assert [names.name_of(code) for code in (UNSURE, VERY_UNSURE, OUTSIDE)] == ["unsure", "very unsure", "outside the training range"]
    mark = read_mark(sidecar_path(tmp_path / "trust.nii.gz"))
    assert mark["synthetic"] is True and mark["content"] == "trust map" and mark["uncertainty"]["calibrated"] is True
    assert not list(tmp_path.glob("*sd*"))

    cases = ["translate", str(tmp_path / "cases"), *arguments, "--output", str(tmp_path / "out"), "--trust-map", "doubt.nii.gz"]
    assert main(cases) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "b").iterdir()) == ["T2.json", "T2.nii.gz", "doubt.json", "doubt.nii.gz", "doubt_labels.csv"]
    made = (tmp_path / "out" / "b" / "doubt.nii.gz").stat().st_mtime_ns
    assert main(cases) == 0 and (tmp_path / "out" / "b" / "doubt.nii.gz").stat().st_mtime_ns == made, "finished cases are skipped"
    (tmp_path / "out" / "b" / "doubt.nii.gz").unlink()
    assert main(cases) == 0 and (tmp_path / "out" / "b" / "doubt.nii.gz").is_file()


def test_a_file_in_the_place_of_the_legend_is_not_replaced(card, tmp_path, capsys):
    write_volume(tmp_path / "CT.nii.gz", HEAD)
    (tmp_path / "trust_labels.csv").write_text("somebody's work", encoding="utf-8")
    given = ["translate", str(tmp_path / "CT.nii.gz"), "--model", str(card.path), "--output", str(tmp_path / "T2.nii.gz"), "--samples", "2"]
    assert main([*given, "--trust-map", str(tmp_path / "trust.nii.gz")]) == 2
    assert "no legend of IMT" in capsys.readouterr().err and (tmp_path / "trust_labels.csv").read_text() == "somebody's work"
    assert not (tmp_path / "T2.nii.gz").exists()


def test_a_new_calibration_makes_finished_cases_anew(tmp_path):
    path = calibrate(write_tiny_package(tmp_path / "package", source="CT", name="CT-T2"))
    write_volume(tmp_path / "cases" / "a" / "CT.nii.gz", HEAD)
    cases = ["translate", str(tmp_path / "cases"), "--model", str(path), "--samples", "2", "--uncertainty", "sd.nii.gz", "--output", str(tmp_path / "out")]
    assert main(cases) == 0
    before = read_volume(tmp_path / "out" / "a" / "sd.nii.gz").array
    calibrate(path, sure=uncertainty(widths=[2.0, 4.0, 8.0, 12.0]))
    assert main(cases) == 0
    after = read_volume(tmp_path / "out" / "a" / "sd.nii.gz").array
    np.testing.assert_allclose(after, 2 * before, rtol=1e-3)


def test_a_model_without_calibration_gives_no_map_and_says_so(tmp_path, capsys):
    path = write_tiny_package(tmp_path / "package", source="CT", name="CT-T2")
    write_volume(tmp_path / "CT.nii.gz", HEAD)
    given = ["translate", str(tmp_path / "CT.nii.gz"), "--model", str(path), "--output", str(tmp_path / "T2.nii.gz")]
    assert main([*given, "--trust-map", str(tmp_path / "trust.nii.gz")]) == 2
    assert "no calibrated uncertainty" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["CT.nii.gz", "package"]
    with pytest.raises(BadInput, match="noise samples"):
        TranslationSettings(trust_map=True).check()
