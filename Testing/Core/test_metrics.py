"""Scores: the numbers of scikit-image and scikit-learn under stated conventions, whatever the orientation of the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ORIENTATIONS, head_phantom, rotation_matrix, store
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_mutual_information, peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import mutual_info_score

from IMTCommand.__main__ import main
from IMTCore.errors import BadInput
from IMTCore.metrics import (
    evaluate,
    mae,
    mutual_information,
    normalised_mutual_information,
    psnr,
    sharpness,
    unit_scaled,
)
from IMTCore.volume_io import write_volume

NUMBERS = ("mae", "psnr", "ssim", "mi")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return head_phantom()


@pytest.fixture(scope="module")
def prediction(truth: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    wrong = 900 * (truth / 1000) ** 0.8 + random.normal(0, 30, truth.shape)
    return np.where(truth > 0, wrong, 0).astype(np.float32)


@pytest.fixture(scope="module")
def mask(truth: np.ndarray) -> np.ndarray:
    return truth > 400


# --- Against scikit-image and scikit-learn -------------------------------------------------------------------------


def test_monai_agrees_on_mae_and_psnr(truth: np.ndarray, prediction: np.ndarray) -> None:
    metrics = pytest.importorskip("monai.metrics", reason="MONAI, an oracle of the metrics, is not installed: pip install monai")
    x, y = unit_scaled(truth), unit_scaled(prediction)
    a, b = (torch.from_numpy(np.ascontiguousarray(image))[None, None] for image in (x, y))
    assert mae(x, y) == pytest.approx(float(metrics.MAEMetric()(b, a)), abs=1e-6)
    assert psnr(x, y, 1.0) == pytest.approx(float(metrics.PSNRMetric(max_val=1.0)(b, a)), abs=1e-6)


def test_psnr_is_scikit_images(truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> None:
    for where in (None, mask):
        a, b = (image.astype(float) if where is None else image[where].astype(float) for image in (truth, prediction))
        assert psnr(truth, prediction, 1000, where) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1000), abs=1e-6)


def test_mutual_information_is_scikit_learns_of_the_binned_images(
    truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray
) -> None:
    for where, bins in ((np.ones_like(mask), 256), (mask, 256), (mask, 32)):
        binned = []
        for image in (truth[where].astype(float), prediction[where].astype(float)):
            edges = np.linspace(image.min(), image.max(), bins + 1)
            binned.append(np.clip(np.searchsorted(edges, image, side="right") - 1, 0, bins - 1))
        found = mutual_information(truth, prediction, bins, None if where.all() else where)
        assert found == pytest.approx(mutual_info_score(*binned), abs=1e-6)


@pytest.mark.parametrize("bins", [32, 100, 256])
def test_normalised_mutual_information_is_scikit_images(truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray, bins: int) -> None:
    found = normalised_mutual_information(truth, prediction, bins)
    assert found == pytest.approx(normalized_mutual_information(truth, prediction, bins=bins), abs=1e-6)
    inside = normalized_mutual_information(truth[mask], prediction[mask], bins=bins)
    assert normalised_mutual_information(truth, prediction, bins, mask) == pytest.approx(inside, abs=1e-6)
    assert normalised_mutual_information(truth, truth, bins) == pytest.approx(2, abs=1e-12)


def test_sharpness_tells_blur_from_noise_and_does_not_see_the_masks_edge_or_the_slices_jitter(truth: np.ndarray, mask: np.ndarray) -> None:
    detail = truth + np.where(truth > 0, np.random.default_rng(0).normal(0, 60, truth.shape), 0)
    assert sharpness(detail, detail, mask) == 1
    assert sharpness(detail, 0.5 * detail, mask) == pytest.approx(0.25)
    blurred = gaussian_filter(detail, (0, 1, 1))
    assert sharpness(detail, blurred, mask) < 0.6 < 1.5 < sharpness(detail, detail + (detail - blurred), mask)
    lifted = np.where(mask, detail + 500, 0)
    assert sharpness(detail, lifted, mask) == pytest.approx(1)
    jitter = detail + np.where(np.arange(len(detail)) % 2, 80, 0)[:, None, None]
    assert sharpness(detail, jitter, mask) == pytest.approx(1)
    along_j = detail * 0 + np.arange(24.0)[:, None]
    assert sharpness(along_j + np.arange(21.0), along_j, None) == pytest.approx(1 / 2)
    assert sharpness(along_j + np.arange(21.0), along_j, None, spacing_ji=(0.5, 1.0)) == pytest.approx(4 / 5)
    assert np.isnan(sharpness(np.ones_like(detail), detail))


def test_the_mean_absolute_error_is_in_the_images_units_and_does_not_wrap() -> None:
    truth, prediction = np.array([[[0, 200, 10]]], np.uint8), np.array([[[255, 100, 10]]], np.uint8)
    assert mae(truth, prediction) == pytest.approx((255 + 100) / 3)
    assert mae(truth, prediction, np.array([[[False, True, True]]])) == pytest.approx(50)
    assert psnr(truth, prediction, 255) == pytest.approx(10 * np.log10(255**2 / ((255**2 + 100**2) / 3)))


# --- Conventions ---------------------------------------------------------------------------------------------------


def test_evaluate_gives_both_scalings_in_both_regions(truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> None:
    scores = evaluate(truth, prediction, mask)
    assert [(s.scaling, s.region) for s in scores] == [
        ("p99.5", "volume"), ("p99.5", "mask"), ("none", "volume"), ("none", "mask"),
    ]  # fmt: skip
    a, b = (np.clip(image / np.percentile(image[image != 0], 99.5), 0, 1).astype(float) for image in (truth, prediction))
    assert scores[0].mae == pytest.approx(np.abs(a - b).mean(), abs=1e-6)
    assert scores[0].psnr == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-6)
    assert scores[0].ssim == pytest.approx(
        np.mean([structural_similarity(x, y, data_range=1) for x, y in zip(a, b, strict=True)]), abs=1e-6
    )
    assert scores[1].mae == pytest.approx(np.abs(a - b)[mask].mean(), abs=1e-6)
    whole = float(truth.max() - truth.min())
    assert scores[2].psnr == pytest.approx(
        peak_signal_noise_ratio(truth.astype(float), prediction.astype(float), data_range=whole), abs=1e-6
    )
    assert scores[3].mi == pytest.approx(mutual_information(truth, prediction, mask=mask), abs=1e-12)


def test_without_a_mask_the_truths_foreground_counts(truth: np.ndarray, prediction: np.ndarray) -> None:
    assert evaluate(truth, prediction)[1] == evaluate(truth, prediction, truth != 0)[1]


def test_equal_images_score_perfectly_and_scale_does_not_count_when_scaled(truth: np.ndarray) -> None:
    for score in evaluate(truth, truth.copy()):
        assert score.mae == 0 and score.psnr == float("inf") and score.ssim == pytest.approx(1, abs=1e-12) and score.mi > 1
    scaled, _, stored, _ = evaluate(truth, 3 * truth)
    assert scaled.mae < 1e-7 and scaled.psnr > 120 and scaled.ssim == pytest.approx(1, abs=1e-9)
    assert stored.mae > 100 and stored.mi == pytest.approx(evaluate(truth, truth)[2].mi, abs=0.01)


def test_a_worse_prediction_scores_worse_on_all_four(truth: np.ndarray) -> None:
    random = np.random.default_rng(1)
    noise = random.normal(0, 1, truth.shape)
    for better, worse in zip(*(evaluate(truth, np.where(truth > 0, truth + s * noise, 0)) for s in (20, 120)), strict=True):
        assert better.mae < worse.mae and better.psnr > worse.psnr and better.ssim > worse.ssim and better.mi > worse.mi


def test_negative_backgrounds_are_moved_to_zero(truth: np.ndarray) -> None:
    for offset in (-1000.0, -0.7):
        z_scored = (truth - 300) / 200 if offset == -0.7 else truth + offset
        scaled = unit_scaled(z_scored)
        assert np.abs(scaled - unit_scaled(truth)).max() < 1e-6
        assert scaled.min() == 0 and scaled.max() == 1
    assert unit_scaled(truth + 50).min() > 0  # a positive one stays: only the scale is changed


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_images_without_a_foreground_cannot_be_scaled(truth: np.ndarray, value: float) -> None:
    flat = np.full_like(truth, value)
    with pytest.raises(BadInput, match="without foreground"):
        unit_scaled(flat)
    with pytest.raises(BadInput, match="without foreground"):
        evaluate(truth, flat)


def test_what_cannot_be_compared_is_refused(truth: np.ndarray, prediction: np.ndarray) -> None:
    with pytest.raises(BadInput, match="different sizes"):
        evaluate(truth, prediction[1:])
    with pytest.raises(BadInput, match="mask is empty"):
        evaluate(truth, prediction, np.zeros(truth.shape, bool))
    for bad in (np.nan, np.inf):
        broken = prediction.copy()
        broken[5, 5, 5:7] = bad
        with pytest.raises(BadInput, match="The prediction has 2 voxels that are NaN or infinite"):
            evaluate(truth, broken)


def test_slices_under_seven_pixels_give_one_clear_message(truth: np.ndarray, prediction: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"SSIM needs slices of at least 7 × 7 pixels; these have \(24, 6\)"):
        evaluate(truth[..., 8:14], prediction[..., 8:14])
    assert np.isfinite(evaluate(truth[:1] + truth[9:10], prediction[9:10] + 1)[0].ssim)  # one slice is enough


# --- The command ---------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("orientation", ORIENTATIONS[1::11])
def test_the_orientation_of_the_files_does_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray, orientation: tuple
) -> None:
    for name, image in (("truth", truth), ("prediction", prediction), ("mask", mask.astype(np.uint8))):
        write_volume(tmp_path / f"{name}.nii.gz", store(image))
        write_volume(tmp_path / f"{name}-stored.nii.gz", store(image, orientation, rotation=rotation_matrix(1, 10)))
    expected = evaluate(truth, prediction, mask)
    for end in ("", "-stored"):
        files = [f"--{name}={tmp_path / (name + end)}.nii.gz" for name in ("truth", "prediction", "mask")]
        scores = run(capsys, *files)["scores"]
        for row, score in zip(scores, expected, strict=True):
            assert {name: row[name] for name in NUMBERS} == pytest.approx({n: getattr(score, n) for n in NUMBERS}, rel=1e-9)


def test_the_plane_of_the_slices_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray, prediction: np.ndarray
) -> None:
    files = []
    for name, image in (("truth", truth), ("prediction", prediction)):
        write_volume(tmp_path / f"{name}.nii.gz", store(image))
        files.append(f"--{name}={tmp_path / name}.nii.gz")
    axial, coronal = run(capsys, *files), run(capsys, *files, "--plane=coronal")
    assert axial["plane"] == "axial" and coronal["plane"] == "coronal"
    assert coronal["mae"] == pytest.approx(axial["mae"]) and coronal["ssim"] != pytest.approx(axial["ssim"], abs=1e-4)


def test_the_report_states_its_conventions(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray, prediction: np.ndarray
) -> None:
    write_volume(tmp_path / "t.nii.gz", store(truth))
    write_volume(tmp_path / "p.nii.gz", store(prediction))
    report = run(capsys, "--truth", tmp_path / "t.nii.gz", "--prediction", tmp_path / "p.nii.gz")
    first = evaluate(truth, prediction)[0].record()
    assert report["scaling"] == "p99.5" and report["region"] == "volume"
    assert {name: report[name] for name in NUMBERS} == pytest.approx({name: first[name] for name in NUMBERS})
    assert [set(row) for row in report["scores"]] == [{"scaling", "region", "mae", "psnr", "ssim", "mi"}] * 4
    assert {"mae", "psnr", "ssim", "mi", "scaling p99.5", "region mask"} <= set(report["conventions"])
    assert main(["evaluate", "--truth", str(tmp_path / "t.nii.gz"), "--prediction", str(tmp_path / "p.nii.gz")]) == 0
    printed = capsys.readouterr().out
    assert f"{first['psnr']:.3f}" in printed and f"{first['ssim']:.4f}" in printed and "data range 1" in printed


def test_other_grids_are_refused_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray, prediction: np.ndarray
) -> None:
    write_volume(tmp_path / "t.nii.gz", store(truth))
    others = {
        "cropped": store(prediction[1:]),
        "turned": store(prediction, rotation=rotation_matrix(0, 3)),
        "coarse": store(prediction, spacing_kji=(1.0, 1.0, 1.1)),
        "flipped": store(prediction, ((0, 1, 2), (False, False, True))),
    }
    for name, volume in others.items():
        write_volume(tmp_path / f"{name}.nii.gz", volume)
        for files in (("--prediction", f"{name}.nii.gz"), ("--prediction", "t.nii.gz", "--mask", f"{name}.nii.gz")):
            paths = [word if word.startswith("--") else str(tmp_path / word) for word in files]
            assert main(["evaluate", "--truth", str(tmp_path / "t.nii.gz"), *paths]) == 2
            caught = capsys.readouterr()
            assert f"{name}.nii.gz is not on the grid of" in caught.err and caught.out == ""


def test_small_slices_and_missing_files_are_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture, truth: np.ndarray
) -> None:
    write_volume(tmp_path / "small.nii.gz", store(truth[:, 8:14]))
    for name, message in (("small", "SSIM needs slices of at least 7 × 7 pixels"), ("absent", "does not exist")):
        path = str(tmp_path / f"{name}.nii.gz")
        assert main(["evaluate", "--truth", path, "--prediction", path]) == 2
        caught = capsys.readouterr().err
        assert message in caught and caught.count("\n") == 1 and "Traceback" not in caught


def test_a_known_output_range_is_the_predictions_scale():
    """A cautious prediction keeps its own scale; by its own percentile it would be brightened by half."""
    truth = np.random.default_rng(0).random((4, 20, 20)) * 900 + 100
    truth[:, :3] = truth[:, -3:] = truth[:, :, :3] = truth[:, :, -3:] = 0
    scaled = unit_scaled(truth)
    ranged, own = (evaluate(truth, scaled * 170, prediction_top=255.0)[n] for n in (0, 2))
    assert (ranged.scaling, own.scaling) == ("range", "p99.5")
    assert own.mae == pytest.approx(0, abs=1e-3)
    assert ranged.mae == pytest.approx(scaled.mean() / 3, rel=1e-6)
