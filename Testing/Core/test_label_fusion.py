"""Claims on the fusion of registered atlases' labels."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation_matrix

from IMTCore.errors import BadInput, Cancelled
from IMTCore.label_scores import dice_scores
from IMTCore.volume import Geometry, Volume
from IMTCore.warps import random_warp
from IMTRegisterLib.deformations.resampling import warp_labels, warp_shares
from IMTRegisterLib.deformations.transforms import Transform
from IMTRegisterLib.registration.label_fusion import METHODS, fuse_labels, mean_labels

SHAPE = (18, 22, 20)
GEOMETRY = Geometry(SHAPE, (2.0, 2.0, 2.5), (-3.0, 8.0, 1.0), rotation_matrix(2, 12.0))
CODES = [3, 40, 1000]


def anatomy() -> np.ndarray:
    """Nested ellipsoids [k, j, i] with the codes 3, 40 and 1000 in the background."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    labels = np.zeros(SHAPE, np.uint16)
    for code, size in ((3, 0.8), (40, 0.55), (1000, 0.35)):
        labels[(k / size) ** 2 + (j / size) ** 2 + (i / size) ** 2 < 1] = code
    return labels


def noisy(labels: np.ndarray, seed: int, share: float) -> np.ndarray:
    """The labels with a random code in a share of the voxels."""
    stream = np.random.default_rng(seed)
    return np.where(stream.random(labels.shape) < share, stream.choice([0, *CODES], labels.shape), labels).astype(np.uint16)


def shares_of(labels: np.ndarray, codes: list[int] = CODES):
    return ((code, (labels == code).astype(np.float32)) for code in codes)


def given(arrays: list[np.ndarray], method: str) -> list:
    return [shares_of(labels) for labels in arrays] if method == "mean" else arrays


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_atlases_that_agree_give_their_labels_with_full_agreement(method, count):
    labels, agreement = fuse_labels(given([anatomy()] * count, method), method, CODES)
    assert np.array_equal(labels, anatomy()) and labels.dtype == np.uint16
    assert agreement.dtype == np.float32 and agreement.min() > 1 - 1e-6 and agreement.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_fusion_is_better_than_each_noisy_atlas(method):
    arrays = [noisy(anatomy(), seed, 0.1) for seed in range(5)]
    labels, _ = fuse_labels(given(arrays, method), method, CODES)
    fused, single = dice_scores(anatomy(), labels, CODES), [dice_scores(anatomy(), one, CODES) for one in arrays]
    for code in CODES:
        assert fused[code] > 0.95 > max(scores[code] for scores in single)


@pytest.mark.parametrize("method", ["mean", "majority"])
def test_the_most_votes_win_and_a_tie_goes_to_the_lower_code(method):
    columns = {(3, 3, 40): 3, (3, 40, 40): 40, (0, 0, 1000): 0, (40, 0, 40): 40, (1000, 3, 40): 3, (40, 0, 1000): 0}
    arrays = [np.array([[list(votes)]], np.uint16) for votes in zip(*columns, strict=True)]
    labels, agreement = fuse_labels(given(arrays, method), method, CODES)
    assert labels.ravel().tolist() == list(columns.values())
    assert agreement.ravel() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3], abs=1e-6)


@pytest.mark.parametrize("method", ["mean", "majority"])
def test_weights_decide_and_count_in_the_agreement(method):
    arrays = [np.full((1, 1, 1), code, np.uint16) for code in (3, 3, 40)]
    labels, agreement = fuse_labels(given(arrays, method), method, CODES, weights=[1, 1, 6])
    assert labels.item() == 40 and agreement.item() == pytest.approx(0.75)


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_are_not_wanted_become_background(method):
    arrays = [anatomy()] * 2
    atlases = given(arrays, method)
    labels, _ = fuse_labels(atlases, method, [3])
    assert np.array_equal(labels, np.where(anatomy() == 3, 3, 0)) and labels.dtype == np.uint8


def test_the_mean_is_that_of_the_interpolated_masks():
    moving = Volume(anatomy(), GEOMETRY)
    transforms = []
    for seed in range(3):
        matrix = np.eye(4)
        matrix[:3, 3] = np.random.default_rng(seed).uniform(-4, 4, 3)
        transforms.append(Transform(matrix))
    codes = [0, *CODES]
    masks = [[warp(moving, code, one) for one in transforms] for code in CODES]
    means = np.mean(masks, axis=1, dtype=np.float64)
    table = np.concatenate([1 - means.sum(axis=0, keepdims=True), means])  # what no label takes is background
    labels, agreement = mean_labels([warp_shares(moving, CODES, one, GEOMETRY) for one in transforms], CODES)
    clear = np.sort(table, axis=0)[-1] - np.sort(table, axis=0)[-2] > 1e-5
    assert clear.mean() > 0.9
    assert np.array_equal(labels[clear], np.array(codes)[table.argmax(axis=0)][clear])
    assert np.abs(agreement - table.max(axis=0)).max() < 1e-5


def warp(moving: Volume, code: int, transform: Transform) -> np.ndarray:
    """One label's mask on `GEOMETRY`, by SimpleITK."""
    image = sitk.GetImageFromArray((moving.array == code).astype(np.float64))
    image.SetSpacing(GEOMETRY.spacing_mm.tolist())
    image.SetOrigin(GEOMETRY.origin_lps.tolist())
    image.SetDirection(GEOMETRY.direction.ravel().tolist())
    shift = sitk.TranslationTransform(3, transform.matrix[:3, 3].tolist())
    return sitk.GetArrayFromImage(sitk.Resample(image, image, shift, sitk.sitkLinear, 0.0))


def test_warped_atlases_fuse_to_the_anatomy_that_they_came_from():
    warps = [random_warp(GEOMETRY, seed, 4.0, 20.0, (0, 0, 6.0 * (seed - 1))) for seed in range(3)]
    shares, nearest = [], []
    for one in warps:
        there = Transform(displacement=one.displacement_lps, geometry=GEOMETRY)  # the atlas -> the anatomy
        back = Transform(displacement=one.inverse_displacement_lps(), geometry=GEOMETRY)
        atlas = warp_labels(Volume(anatomy(), GEOMETRY), there, GEOMETRY)
        shares.append(warp_shares(atlas, CODES, back, GEOMETRY))
        nearest.append(warp_labels(atlas, back, GEOMETRY).array)
    for method, atlases in (("mean", shares), ("majority", nearest), ("staple", nearest)):
        labels, _ = fuse_labels(atlases, method, CODES)
        scores = dice_scores(anatomy(), labels, CODES)
        assert min(scores.values()) > 0.9, (method, scores)


def test_an_atlas_may_lack_a_label():
    both, first = anatomy(), np.where(anatomy() == 40, 3, anatomy())
    atlases = [shares_of(both), shares_of(first, [3, 1000]), shares_of(both)]
    labels, agreement = mean_labels(atlases, CODES)
    assert np.array_equal(labels, anatomy())
    assert agreement[anatomy() == 40] == pytest.approx(2 / 3, abs=1e-6)


def test_staple_decides_as_simpleitk_on_the_labels_box():
    arrays = [noisy(anatomy(), seed, share) for seed, share in enumerate((0.1, 0.3, 0.6))]
    labels, agreement = fuse_labels(arrays, "staple", CODES)
    filled = np.any([one > 0 for one in arrays], axis=0)
    box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(filled))
    numbers = [np.searchsorted([0, *CODES], one[box]).astype(np.uint8) for one in arrays]
    expected = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE([sitk.GetImageFromArray(one) for one in numbers], 9))
    decided = expected < 4
    assert decided.mean() > 0.99
    assert np.array_equal(labels[box][decided], np.array([0, *CODES])[expected[decided]])
    assert np.allclose(agreement, np.mean([one == labels for one in arrays], axis=0), atol=1e-6)


def test_staple_trusts_the_better_atlas_where_the_majority_errs():
    wrong = np.where(anatomy() == 40, 3, anatomy())  # two atlases that mistake much else, too
    arrays = [anatomy(), noisy(wrong, 1, 0.5), noisy(wrong, 2, 0.5), noisy(anatomy(), 3, 0.02)]
    staple, vote = (fuse_labels(arrays, method, CODES)[0] for method in ("staple", "majority"))
    assert dice_scores(anatomy(), staple, [40])[40] > 0.95 > dice_scores(anatomy(), vote, [40])[40]


def test_a_hundred_labels_take_no_array_of_labels_by_voxels():
    shape, codes = (32, 32, 32), list(range(1, 121))
    arrays = [np.random.default_rng(seed).integers(0, 121, shape).astype(np.uint8) for seed in range(4)]
    tracemalloc.start()
    try:
        mean_labels([shares_of(labels, codes) for labels in arrays], codes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 4 * 32**3  # a dozen float32 volumes, and not 120


@pytest.mark.parametrize("method", METHODS)
def test_a_cancelled_fusion_ends(method):
    def cancel(*_: object) -> None:
        raise Cancelled("Cancelled.")

    with pytest.raises(Cancelled):
        fuse_labels(given([anatomy(), noisy(anatomy(), 1, 0.5)], method), method, CODES, progress=cancel)


def test_what_cannot_be_fused_is_refused():
    labels = anatomy()
    for method in METHODS:
        with pytest.raises(BadInput, match="no registered atlases"):
            fuse_labels([], method, CODES)
        with pytest.raises(BadInput, match="differ in size"):
            fuse_labels(given([labels, labels[1:]], method), method, CODES)
    for weights in ([1], [1, -1], [0, 0], [1, np.nan]):
        with pytest.raises(BadInput, match="2 weights"):
            fuse_labels([labels, labels], "majority", CODES, weights)
    with pytest.raises(BadInput, match="STAPLE estimates"):
        fuse_labels([labels, labels], "staple", CODES, [1, 2])
    with pytest.raises(BadInput, match="mean, majority, staple"):
        fuse_labels([labels], "median", CODES)
    with pytest.raises(BadInput, match="whole numbers"):
        fuse_labels([labels.astype(np.float32)], "majority", CODES)
