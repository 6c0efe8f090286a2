"""One prediction under the conventions of several publications: each as its source computes it, and their spread."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import head_phantom, store
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from IMTCommand.__main__ import main
from IMTCore.conventions import NAMED_CONVENTIONS, ConventionScores, bins_sweep, evaluate_conventions, psnr_spread
from IMTCore.errors import BadInput
from IMTCore.metrics import evaluate, unit_scaled
from IMTCore.structural_similarity import global_ssim
from IMTCore.volume_io import write_volume


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return head_phantom()


@pytest.fixture(scope="module")
def prediction(truth: np.ndarray) -> np.ndarray:
    wrong = 200 * (truth / 1000) ** 0.8 + np.random.default_rng(0).normal(0, 8, truth.shape)
    return np.where(truth > 0, np.clip(wrong, 1, 255), 0).astype(np.float32)


def by_name(scores: list[ConventionScores]) -> dict[str, ConventionScores]:
    return {score.convention: score for score in scores}


@pytest.fixture(scope="module")
def scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, ConventionScores]:
    return by_name(evaluate_conventions(truth, prediction, prediction_top=255.0))


@pytest.fixture(scope="module")
def filled(truth: np.ndarray) -> list[int]:
    """The slices on which the head covers at least 1 %: not all of them."""
    found = [k for k in range(len(truth)) if (truth[k] > 0).mean() >= 0.01]
    assert 5 < len(found) < len(truth)
    return found


def test_the_papers_convention_is_eight_bit_slices_with_the_pairs_maximum(
    truth: np.ndarray, prediction: np.ndarray, scores: dict[str, ConventionScores], filled: list[int]
) -> None:
    x, y = np.rint(255 * unit_scaled(truth)), np.rint(np.clip(prediction.astype(float), 0, 255))
    errors = [((x[k] - y[k]) ** 2).mean() for k in filled]
    found = scores["paper"]
    assert found.slices == len(filled)
    assert found.mae == pytest.approx(np.mean([np.abs(x[k] - y[k]).mean() for k in filled]), abs=1e-9)
    peaks = [max(x[k].max(), y[k].max()) for k in filled]
    assert min(peaks) < 250
    assert found.psnr == pytest.approx(np.mean([10 * np.log10(p**2 / e) for p, e in zip(peaks, errors, strict=True)]), abs=1e-9)
    assert found.ssim == pytest.approx(np.mean([global_ssim(x[k], y[k], 255) for k in filled]), abs=1e-9)
    fixed = scores["paper-255"]
    assert fixed.psnr == pytest.approx(np.mean([peak_signal_noise_ratio(x[k], y[k], data_range=255) for k in filled]), abs=1e-6)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    windows = [structural_similarity(x[k], y[k], data_range=255, **gaussian) for k in filled]
    assert fixed.ssim == pytest.approx(np.mean(windows), abs=1e-6)
    assert fixed.psnr > found.psnr + 0.1 and (fixed.mae, fixed.mi) == (found.mae, found.mi)


def test_selfrdb_divides_each_slice_by_its_mean_and_takes_the_truths_maximum(
    truth: np.ndarray, prediction: np.ndarray, scores: dict[str, ConventionScores], filled: list[int]
) -> None:
    pairs = [[image[k].astype(float) / image[k].mean(dtype=float) for image in (truth, prediction)] for k in filled]
    found = scores["mean-normalised"]
    assert found.psnr == pytest.approx(np.mean([peak_signal_noise_ratio(x, y, data_range=x.max()) for x, y in pairs]), abs=1e-6)
    assert found.ssim == pytest.approx(np.mean([structural_similarity(x, y, data_range=x.max()) for x, y in pairs]), abs=1e-6)


def test_syndiff_divides_each_slice_by_its_maximum(
    truth: np.ndarray, prediction: np.ndarray, scores: dict[str, ConventionScores], filled: list[int]
) -> None:
    pairs = [[image[k].astype(float) / image[k].max() for image in (truth, prediction)] for k in filled]
    expected = np.mean([20 * np.log10(1 / np.sqrt(((x - y) ** 2).mean())) for x, y in pairs])
    assert scores["max-normalised"].psnr == pytest.approx(expected, abs=1e-6)


def test_brasyn_clips_volumes_at_their_percentiles_and_scores_3d_windows_in_the_mask(truth: np.ndarray, prediction: np.ndarray) -> None:
    mask = truth > 400
    images = []
    for image in (truth, prediction):
        low, high = np.percentile(image.astype(float), [0.5, 99.5])
        images.append(np.where(mask, (np.clip(image.astype(float), low, high) - low) / (high - low), 0))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    full = structural_similarity(*images, data_range=1, full=True, **gaussian)[1]
    inner = (slice(5, -5),) * 3
    found = by_name(evaluate_conventions(truth, prediction, mask))["brasyn"]
    assert found.ssim == pytest.approx(full[inner][mask[inner]].mean(), abs=1e-6)
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(*(image[mask] for image in images), data_range=1), abs=1e-6)


@pytest.mark.parametrize(("name", "axes"), [("slice-0-1", (1, 2)), ("volume-0-1", (0, 1, 2))])
def test_zero_to_one_is_taken_from_each_slice_or_from_the_volume(
    truth: np.ndarray, prediction: np.ndarray, scores: dict[str, ConventionScores], filled: list[int], name: str, axes: tuple
) -> None:
    x, y = (image.astype(float) / np.maximum(image.max(axis=axes, keepdims=True), 1e-9) for image in (truth, prediction))
    kept = filled if axes == (1, 2) else [slice(None)]
    assert scores[name].psnr == pytest.approx(np.mean([peak_signal_noise_ratio(x[k], y[k], data_range=1) for k in kept]), abs=1e-6)


def test_imts_own_conventions_are_those_of_evaluate(truth: np.ndarray, prediction: np.ndarray, scores: dict[str, ConventionScores]) -> None:
    for expected in evaluate(truth, prediction, prediction_top=255.0):
        found = scores[expected.scaling + ("-mask" if expected.region == "mask" else "")]
        for key in ("mae", "psnr", "ssim", "mi"):
            assert getattr(found, key) == pytest.approx(getattr(expected, key), abs=1e-12)
    assert set(scores) - {"range", "range-mask"} == set(by_name(evaluate_conventions(truth, prediction)))


def test_normalising_each_image_hides_an_error_of_gain_that_a_known_range_shows(truth: np.ndarray) -> None:
    dark = 100 * unit_scaled(truth)
    scores = by_name(evaluate_conventions(truth, dark, prediction_top=255.0))
    assert all(scores[name].psnr > 40 for name in ("mean-normalised", "max-normalised", "slice-0-1", "brasyn", "p99.5", "p99.5-mask"))
    assert all(scores[name].psnr < 20 for name in ("paper", "paper-255", "paper-mask", "range", "range-mask"))


def test_the_background_lifts_the_scores_of_the_whole_image(scores: dict[str, ConventionScores]) -> None:
    for whole, inside in (("paper-255", "paper-mask"), ("volume-0-1", "volume-0-1-mask"), ("range", "range-mask")):
        assert scores[whole].psnr > scores[inside].psnr + 1 and scores[whole].mae < scores[inside].mae


def test_the_spread_is_between_the_finite_extremes(truth: np.ndarray, scores: dict[str, ConventionScores]) -> None:
    low, high, spread = psnr_spread(list(scores.values()))
    values = [score.psnr for score in scores.values()]
    assert (low.psnr, high.psnr) == (min(values), max(values)) and spread == pytest.approx(max(values) - min(values)) and spread > 3
    equal = evaluate_conventions(truth, truth.copy())
    assert all(score.mae == 0 and score.psnr == math.inf and score.nmi == pytest.approx(2) for score in equal)
    assert psnr_spread(equal)[2] == 0
    mixed = [*equal, scores["paper"]]
    assert psnr_spread(mixed) == (scores["paper"], scores["paper"], 0)


def test_more_bins_give_more_mutual_information(truth: np.ndarray, prediction: np.ndarray, scores: dict[str, ConventionScores]) -> None:
    sweep = bins_sweep(truth, prediction)
    values = [sweep[bins][0] for bins in (32, 64, 128, 256)]
    assert values == sorted(values) and values[-1] - values[0] > 0.05
    assert values[-1] == pytest.approx(scores["none"].mi) and all(1 < nmi < 2 for _, nmi in sweep.values())
    assert scores["none"].mi_bits == pytest.approx(values[-1] / math.log(2))


def test_a_volume_too_thin_for_3d_windows_has_no_ssim_there_and_all_else(truth: np.ndarray, prediction: np.ndarray) -> None:
    scores = by_name(evaluate_conventions(truth[6:12], prediction[6:12]))
    for name, score in scores.items():
        thin = name in ("volume-0-1", "volume-0-1-mask", "brasyn")
        assert math.isnan(score.ssim) == thin and math.isfinite(score.psnr)


def test_z_scored_images_and_blank_predicted_slices_can_be_scored(truth: np.ndarray, prediction: np.ndarray) -> None:
    z_scored = np.where(truth > 0, (truth - 400) / 200, -4)
    assert all(math.isfinite(score.psnr) for score in evaluate_conventions(z_scored, prediction))
    blank = prediction.copy()
    blank[9] = 0  # SelfRDB's own code gives NaN there, and leaves the slice out of the mean
    lost, kept = (by_name(evaluate_conventions(truth, image))["mean-normalised"] for image in (blank, prediction))
    assert lost.slices == kept.slices and lost.psnr < kept.psnr - 0.5


def test_what_cannot_be_averaged_is_refused(truth: np.ndarray, prediction: np.ndarray) -> None:
    speck = np.zeros((3, 24, 24), np.float32)
    speck[1, 12, 12] = 5
    with pytest.raises(BadInput, match="On no slice does the truth's foreground cover 1 %"):
        evaluate_conventions(speck, speck)
    with pytest.raises(BadInput, match="different sizes"):
        evaluate_conventions(truth, prediction[1:])
    outside = np.zeros(truth.shape, bool)
    outside[0] = True  # a slice without foreground
    with pytest.raises(BadInput, match="mask holds no voxel on the slices"):
        evaluate_conventions(truth, prediction, outside)


def test_every_convention_has_a_name_of_its_own_and_says_what_it_is() -> None:
    assert len({c.name for c in NAMED_CONVENTIONS}) == len(NAMED_CONVENTIONS)
    described = {c.name: c.describe() for c in NAMED_CONVENTIONS}
    assert len(set(described.values())) == len(described)
    assert "mean over slices" in described["paper"] and "range 255" in described["paper"] and "Yang et al. 2020" in described["paper"]
    assert "truth's maximum" in described["mean-normalised"] and "gaussian 3D" in described["brasyn"]


# --- The command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_and_saves_the_table_and_the_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray, prediction: np.ndarray
) -> None:
    write_volume(tmp_path / "t.nii.gz", store(truth))
    write_volume(tmp_path / "p.nii.gz", store(prediction))
    arguments = ["evaluate", "--truth", str(tmp_path / "t.nii.gz"), "--prediction", str(tmp_path / "p.nii.gz"), "--conventions"]
    assert main([*arguments, "--report", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr().out
    expected = evaluate_conventions(truth, prediction)
    low, high, spread = psnr_spread(expected)
    assert f"a spread of {spread:.2f} dB" in printed and f"({low.convention})" in printed and f"({high.convention})" in printed
    for score in expected:
        assert f"\n{score.convention:<16} " in printed and f"{score.psnr:.3f}" in printed
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [row["convention"] for row in report["convention_scores"]] == [score.convention for score in expected]
    assert report["convention_scores"][0]["psnr"] == pytest.approx(expected[0].psnr)
    assert report["psnr_spread_db"]["spread"] == pytest.approx(spread)
    assert set(report["convention_descriptions"]) == {score.convention for score in expected}
    assert [row["bins"] for row in report["mask_mi_by_bins"]] == [32, 64, 128, 256]
    assert main([*arguments, "--report", str(tmp_path / "r.csv")]) == 0
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(report["scores"]) + len(expected)
    assert rows[0]["scaling"] == "p99.5" and float(rows[0]["psnr"]) == pytest.approx(report["psnr"])
    assert [row["convention"] for row in rows[len(report["scores"]) :]] == [score.convention for score in expected]


def test_equal_images_are_reported_without_numbers_that_json_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray
) -> None:
    write_volume(tmp_path / "t.nii.gz", store(truth))
    arguments = ["evaluate", "--truth", str(tmp_path / "t.nii.gz"), "--prediction", str(tmp_path / "t.nii.gz"), "--conventions"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["psnr"] is None and report["psnr_spread_db"]["spread"] == 0 and report["sharpness"] == 1
    assert main(arguments) == 0
    assert "PSNR of this one prediction: inf" in capsys.readouterr().out
