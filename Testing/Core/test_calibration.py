"""Claims on the calibrated uncertainty: intervals hold what they promise, on a run as on the script's patients."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import head_phantom, store
from packages import write_tiny_package
from source_tree import ROOT
from trust_cards import calibrate, training_range, uncertainty

from IMTCore.calibration import LEVELS, Calibration, fit_calibration, interval_score, pooled_quantile
from IMTCore.cards import read_card
from IMTCore.errors import BadInput, BadModel
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.volume_io import write_volume

sys.path.append(str(ROOT / "Resources" / "Training"))
HEAD = store(head_phantom(), spacing_kji=(2.0, 2.0, 2.5))


def patients(number: int, seed: int = 0, exponent: float = 0.6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deviations and errors of patients whose error grows with a power of the deviation, with heavy tails."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        deviation = rng.gamma(2, 3, 8000)
        found.append((deviation, np.abs(rng.standard_t(4, 8000)) * 3 * (deviation + 1) ** exponent))
    return found


def fitted(given: list[tuple[np.ndarray, np.ndarray]]) -> Calibration:
    return fit_calibration([d for d, _ in given], [e for _, e in given], 1.0, 0.1, 4, ("axial",))


# --- The fit -------------------------------------------------------------------------------------------------------


def test_intervals_hold_their_promise_on_patients_that_the_fit_did_not_see():
    calibration = fitted(patients(5))
    assert calibration.exponent == pytest.approx(0.6, abs=0.1)
    for deviation, error in patients(3, seed=1):
        assert (error <= 1.645 * deviation).mean() < 0.8, "the raw deviation is too small here"
        for level in LEVELS:
            assert (error <= calibration.half_width(deviation, level)).mean() == pytest.approx(level, abs=0.02)
        assert (error <= 1.6449 * calibration.calibrated(deviation)).mean() == pytest.approx(0.9, abs=0.02)
        for part in np.array_split(np.argsort(deviation), 5):  # among the sure voxels as among the unsure
            assert (error[part] <= calibration.half_width(deviation[part])).mean() == pytest.approx(0.9, abs=0.06)


def test_a_large_patient_counts_no_more_than_a_small_one():
    small, large = np.linspace(0, 1, 101), np.linspace(10, 11, 10001)
    assert pooled_quantile([small, large], 0.49) < 1 < pooled_quantile([small, large], 0.51)
    (deviation, error), other = patients(2)
    many = (np.tile(deviation, 10), np.tile(error, 10))
    assert fitted([many, other]).widths[0.9] == pytest.approx(fitted([(deviation, error), other]).widths[0.9], rel=1e-3)


def test_the_interval_score_is_worse_for_intervals_too_narrow_and_too_wide():
    error = np.abs(np.random.default_rng(0).normal(size=20000))
    right, narrow, wide = (interval_score(np.full(error.shape, width), error, 0.9) for width in (1.645, 0.8, 4.0))
    assert right < narrow and right < wide


# --- In a run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return read_card(calibrate(write_tiny_package(tmp_path_factory.mktemp("package"))))


def run(card, **settings):
    return Translator(card, TranslationSettings(device="cpu", precision="fp32", **settings)).translate(HEAD)


def test_the_uncertainty_is_scaled_as_the_card_says_and_the_mark_says_so(card):
    plain = replace(card, content={key: value for key, value in card.content.items() if key != "uncertainty"})
    raw, calibrated = run(plain, samples=3), run(card, samples=3)
    inside = raw.uncertainty.array > 0
    assert inside.any()
    expected = 4.0 * np.sqrt(raw.uncertainty.array[inside] + 1.0) / 1.6449
    np.testing.assert_allclose(calibrated.uncertainty.array[inside], expected, rtol=1e-4)
    assert (calibrated.uncertainty.array[~inside] == 0).all() and calibrated.uncertainty.array.dtype == np.float32
    np.testing.assert_array_equal(raw.translation.array, calibrated.translation.array)
    assert calibrated.settings["uncertainty"]["calibrated"] is True
    assert calibrated.settings["uncertainty"]["fitted_on"] == ["some/one", "some/other"]
    assert raw.settings["uncertainty"]["calibrated"] is False and "no calibration" in raw.settings["uncertainty"]["reason"]
    assert "uncertainty" not in run(card).settings


@pytest.mark.parametrize(
    ("content", "settings", "word"),
    [
        ({"samples": 5}, {"samples": 2}, "5 samples"),
        ({"planes": ["axial", "coronal"]}, {"samples": 2}, "axial alone"),
        ({}, {"samples": 2, "dropout": True}, "noise"),
    ],
)
def test_a_run_for_which_the_calibration_does_not_hold_stays_as_sampled_and_says_why(card, content, settings, word):
    other = replace(card, content={**card.content, "uncertainty": uncertainty(**content)})
    result = run(other, **settings)
    assert result.settings["uncertainty"]["calibrated"] is False
    assert any("not calibrated" in text and word in text for text in result.warnings)
    with pytest.raises(BadInput, match="not calibrated here"):
        run(other, trust_map=True, **settings)


# --- On a card -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "changed", "word"),
    [
        ("uncertainty", {"widths": [4, 2, 1, 0]}, "ascend"),
        ("uncertainty", {"widths": [1, 2]}, "4 numbers"),
        ("uncertainty", {"exponent": float("nan")}, "exponent"),
        ("uncertainty", {"fitted_on": [1]}, "texts"),
        ("uncertainty", {"coverage": [{"level": 0.9}]}, "missing"),
        ("uncertainty", {"floor": "small"}, "floor"),
        ("training_range", {"landmarks": [0.1]}, "pairs"),
        ("training_range", {"neighbourhood": ["#" * 24]}, "24 texts"),
        ("training_range", {"neighbourhood": ["x" * 24] * 24}, "24 texts"),
        ("training_range", {"skull": {"bald": 3}}, "bald"),
        ("training_range", {"cut": {}}, "missing"),
        ("training_range", {"code": "import os"}, "unknown key"),
    ],
)
def test_a_damaged_entry_is_refused_by_name(tmp_path, key, changed, word):
    values = training_range(**changed) if key == "training_range" else uncertainty(**changed)
    given = {"trained": values} if key == "training_range" else {"sure": values}
    path = calibrate(write_tiny_package(tmp_path), **given)
    with pytest.raises(BadModel, match=f"(?s){key}.*{word}|{word}.*{key}"):
        read_card(path)


# --- The scripts ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Five patients with T1 and T2: heads of an ellipse, each with blobs of its own."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(5):
        rng = np.random.default_rng(number)
        head = head_phantom((24, 40, 36))
        grain = 1 + 0.2 * rng.standard_normal(head.shape)
        for modality, image in (("T1", head), ("T2", np.where(head > 0, 1400 - head, 0))):
            array = (np.clip(image * grain, 1, None) * (head > 0)).astype(np.float32)
            write_volume(folder / "set" / f"p{number}" / f"{modality}.nii.gz", store(array, spacing_kji=(5.0, 4.0, 4.0)))
    return folder


def test_the_scripts_measure_calibrate_and_put_it_on_the_card(tmp_path, cohort, capsys):
    import calibrate_uncertainty
    import measure_training_range

    path = write_tiny_package(tmp_path / "package")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["training"]["held_out"] = ["set/p0", "set/p1", "set/p2"]
    path.write_text(json.dumps(content), encoding="utf-8")
    measure_training_range.main(["--data", str(cohort), "--train", "set/*", "--card", str(path)])
    trained = read_card(path).content["training_range"]
    assert trained["subjects"] == 2 and trained["finest_mm"] == [4.0, 4.0] and trained["coarsest_mm"] == [5.0, 5.0]
    assert 0.02 < np.mean([mark == "#" for row in trained["neighbourhood"] for mark in row]) < 0.9

    arguments = ["--data", str(cohort), "--output", str(tmp_path / "out"), "--picture", str(tmp_path), "--samples", "2", "--card", str(path)]
    calibrate_uncertainty.main(arguments)
    values = read_card(path).content["uncertainty"]
    assert values["fitted_on"] == ["set/p0", "set/p1", "set/p2"]
    (row,) = (row for row in values["coverage"] if row["level"] == 0.9)
    assert row["before"] < row["after"] and row["after"] == pytest.approx(0.9, abs=0.05)
    assert (tmp_path / "reliability-T1-T2.png").stat().st_size > 10_000
    report = json.loads((tmp_path / "out" / "T1-T2.json").read_text(encoding="utf-8"))
    assert [one["patient"] for one in report["patients"]] == ["set/p0", "set/p1", "set/p2"]
    before = values
    calibrate_uncertainty.main(arguments)  # what was translated is kept, and a card with a calibration is calibrated anew
    assert read_card(path).content["uncertainty"] == before
    assert "| set/p1 |" in capsys.readouterr().out


def test_a_model_with_too_few_held_out_patients_is_not_calibrated(tmp_path, cohort):
    import calibrate_uncertainty

    path = write_tiny_package(tmp_path / "package")
    with pytest.raises(SystemExit, match="at least 3"):
        calibrate_uncertainty.main(["--data", str(cohort), "--output", str(tmp_path / "out"), "--card", str(path)])
