"""SSIM with each window: the numbers of scikit-image and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import head_phantom
from skimage.metrics import structural_similarity

from IMTCore.errors import BadInput
from IMTCore.metrics import unit_scaled
from IMTCore.structural_similarity import global_ssim, ssim, ssim_map, volume_ssim


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return head_phantom()


@pytest.fixture(scope="module")
def prediction(truth: np.ndarray) -> np.ndarray:
    wrong = 900 * (truth / 1000) ** 0.8 + np.random.default_rng(0).normal(0, 30, truth.shape)
    return np.where(truth > 0, wrong, 0).astype(np.float32)


@pytest.fixture(scope="module")
def mask(truth: np.ndarray) -> np.ndarray:
    return truth > 400


@pytest.mark.parametrize("data_range", [1.0, 1000.0])
def test_ssim_is_scikit_images_mean_over_axial_slices(truth: np.ndarray, prediction: np.ndarray, data_range: float) -> None:
    pairs = list(zip(truth.astype(float), prediction.astype(float), strict=True))
    expected = [structural_similarity(a, b, data_range=data_range) for a, b in pairs]
    assert len(set(expected)) > 10
    assert ssim(truth, prediction, data_range) == pytest.approx(np.mean(expected), abs=1e-6)


def test_ssim_within_a_mask_is_the_mean_of_scikit_images_map_there(
    truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray
) -> None:
    inner = mask.copy()
    inner[:, :3], inner[:, -3:], inner[..., :3], inner[..., -3:] = False, False, False, False  # whole windows only
    maps = [
        structural_similarity(a.astype(float), b.astype(float), data_range=1000, full=True)[1]
        for a, b in zip(truth, prediction, strict=True)
    ]
    expected = np.stack(maps)[inner].mean()
    assert ssim(truth, prediction, 1000, mask) == pytest.approx(expected, abs=1e-6)
    assert abs(expected - ssim(truth, prediction, 1000)) > 1e-3


def test_the_ssim_map_does_not_lose_its_digits_on_a_large_offset(truth: np.ndarray, prediction: np.ndarray) -> None:
    a, b = truth[9] + 1e4, prediction[9] + 1e4
    expected = structural_similarity(a.astype(float), b.astype(float), data_range=1000, full=True)[1][3:-3, 3:-3]
    assert np.abs(ssim_map(a, b, 1000) - expected).max() < 1e-6


GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def test_gaussian_ssim_is_scikit_images_in_slices_and_in_volumes(
    truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = truth.astype(float), prediction.astype(float)
    expected = np.mean([structural_similarity(x, y, data_range=1000, **GAUSSIAN) for x, y in zip(a, b, strict=True)])
    assert ssim(truth, prediction, 1000, window="gaussian") == pytest.approx(expected, abs=1e-6)
    expected, full = structural_similarity(a, b, data_range=1000, full=True, **GAUSSIAN)
    inner = np.zeros_like(mask)
    inner[5:-5, 5:-5, 5:-5] = mask[5:-5, 5:-5, 5:-5]
    for slab in (32, 3):  # of 8 slices with whole windows: in one go, and in slabs that overlap
        monkeypatch.setattr("IMTCore.structural_similarity.SLAB", slab)
        assert volume_ssim(truth, prediction, 1000) == pytest.approx(expected, abs=1e-6)
        assert volume_ssim(truth, prediction, 1000, mask) == pytest.approx(full[inner].mean(), abs=1e-6)
    assert abs(full[inner].mean() - expected) > 1e-3


def test_the_global_ssim_is_the_printed_formula_and_blind_to_where_structure_is(truth: np.ndarray, prediction: np.ndarray) -> None:
    x, y = truth.astype(float).ravel(), prediction.astype(float).ravel()
    covariance = np.cov(x, y, bias=True)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    expected *= (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2)
    assert global_ssim(truth, prediction, 255) == pytest.approx(expected, abs=1e-9)
    order = np.random.default_rng(0).permutation(truth.size)
    shuffled = [image.ravel()[order].reshape(image.shape) for image in (truth, prediction)]
    assert global_ssim(*shuffled, 255) == pytest.approx(expected, abs=1e-9)


def test_monai_agrees_in_slices_and_in_volumes(truth: np.ndarray, prediction: np.ndarray) -> None:
    metrics = pytest.importorskip("monai.metrics", reason="MONAI, an oracle of the metrics, is not installed: pip install monai")
    x, y = unit_scaled(truth), unit_scaled(prediction)
    a, b = (torch.from_numpy(np.ascontiguousarray(image))[None, None] for image in (x, y))
    in_slices = metrics.SSIMMetric(spatial_dims=2, data_range=1.0)(b[0].transpose(0, 1), a[0].transpose(0, 1))
    assert ssim(x, y, 1.0, window="gaussian") == pytest.approx(float(in_slices.mean()), abs=1e-6)
    assert volume_ssim(x, y, 1.0) == pytest.approx(float(metrics.SSIMMetric(spatial_dims=3, data_range=1.0)(b, a)), abs=1e-6)


def test_images_smaller_than_a_window_are_refused_by_size(truth: np.ndarray, prediction: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"SSIM needs slices of at least 11 × 11 pixels; these have \(24, 10\)"):
        ssim(truth[..., :10], prediction[..., :10], 1000, window="gaussian")
    with pytest.raises(BadInput, match=r"SSIM in 3D needs at least 11 voxels along each axis; this volume has \(21, 24, 10\)"):
        volume_ssim(truth[:10], prediction[:10], 1000)
    edge = np.zeros(truth.shape, bool)
    edge[:, :2] = True
    assert np.isnan(ssim(truth, prediction, 1000, edge)) and np.isnan(volume_ssim(truth, prediction, 1000, edge))
