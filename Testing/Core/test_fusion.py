"""Fusion of transforms, weights without labels, and resampling by a transform."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation_matrix
from scipy.ndimage import gaussian_filter

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume
from IMTCore.warps import random_warp
from IMTRegisterLib.deformations.fields import exponential, folds, jacobian
from IMTRegisterLib.deformations.fusion import Fusion, fuse
from IMTRegisterLib.deformations.resampling import inverse_transform, warp_image, warp_labels, warp_shares
from IMTRegisterLib.deformations.similarity import global_shares, local_shares, local_similarity
from IMTRegisterLib.deformations.transforms import Transform, to_sitk, voxel_centres

GRID = Geometry((24, 28, 26), (2.0, 1.5, 2.5), (-31.0, 17.5, 42.25), rotation_matrix(3, 25.0) @ np.diag([1, 1, -1]))
# The moving image lies elsewhere, at other angles, with other voxels.
MOVING = Geometry((30, 26, 32), (1.8, 2.2, 1.6), (-35.0, 10.0, 35.0), rotation_matrix(5, 12.0))
CENTRE = voxel_centres(GRID).reshape(-1, 3).mean(axis=0)
EYE = np.eye(4)


def affine(seed: int, degrees: float, scale: float = 1.0, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """A turn about the grid's centre, then a scale and a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation_matrix(seed, degrees)
    matrix[:3, 3] = CENTRE + shift - matrix[:3, :3] @ CENTRE
    return matrix


def warped(seed: int, matrix: np.ndarray = EYE, warp_mm: float = 4.0) -> Transform:
    return Transform(matrix, random_warp(GRID, seed, warp_mm, 16.0).smooth_lps, GRID)


def swirl(degrees: float) -> Transform:
    """A turn about the k axis through the centre, by less further out."""
    offsets, axis = voxel_centres(GRID) - CENTRE, GRID.direction[:, 2]
    angle = np.radians(degrees) * np.exp(-(offsets**2).sum(axis=-1, keepdims=True) / (2 * 9.0**2))
    outwards = offsets - (offsets @ axis)[..., None] * axis
    field = outwards * (np.cos(angle) - 1) + np.cross(axis, offsets) * np.sin(angle)
    return Transform(EYE, field.astype(np.float32), GRID)


def inner_points(count: int = 100) -> np.ndarray:
    k_j_i = np.random.default_rng(0).uniform(6, np.array(GRID.shape) - 7, (count, 3))
    return GRID.origin_lps + (k_j_i[:, ::-1] * GRID.spacing_mm) @ GRID.direction.T


def smooth_share() -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(4).standard_normal(GRID.shape), 6)
    return (0.5 + 0.4 * noise / np.abs(noise).max()).astype(np.float32)


# --- Fusion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mean", "log"])
def test_fusing_a_transform_with_itself_gives_itself(mode):
    one = warped(1, affine(2, 10.0))
    again = Transform(one.matrix, one.displacement.copy(), GRID)
    share = smooth_share()
    for weights in ([0.3, 0.7], [share, 1 - share]):
        fused = fuse([one, again], weights, mode)
        assert np.array_equal(fused.displacement, one.displacement)
        assert np.array_equal(fused.matrix, one.matrix)


@pytest.mark.parametrize("mode", ["mean", "log"])
def test_a_weight_of_one_gives_that_transform_bit_for_bit(mode):
    one, other = warped(1, affine(2, 10.0)), warped(2, affine(3, 5.0))
    everywhere = np.ones(GRID.shape, np.float32)
    for weights in ([0.0, 1.0], [0 * everywhere, everywhere]):
        fused = fuse([one, other], weights, mode)
        assert np.array_equal(fused.displacement, other.displacement)
        assert np.array_equal(fused.matrix, other.matrix)


@pytest.mark.parametrize("mode", ["mean", "log"])
@pytest.mark.parametrize("seeds", [(2, 2, 2), (0, 1, 2)], ids=["shared matrix", "own matrices"])
def test_the_order_of_transforms_does_not_matter(mode, seeds):
    matrices = [affine(seed, 6.0, 1.05) for seed in seeds]
    transforms = [warped(seed + 1, matrix, 3.0) for seed, matrix in enumerate(matrices)]
    fused, backwards = (
        fuse(transforms[::way], [0.2, 0.3, 0.5][::way], mode).to_moving(inner_points()) for way in (1, -1)
    )
    assert np.abs(fused - backwards).max() < 1e-3


def test_identities_fuse_to_the_identity():
    still = Transform(EYE, np.zeros((*GRID.shape, 3), np.float32), GRID)
    fused = fuse([still, Transform()], [0.4, 0.6], "log")
    assert np.array_equal(fused.to_moving(inner_points()), inner_points())


@pytest.mark.parametrize("own_matrices", [False, True])
def test_the_mean_takes_each_point_to_the_mean_of_its_places(own_matrices):
    one = affine(2, 10.0, 1.1, (3, -2, 1))
    matrices = [one, affine(4, 14.0, 0.9, (-5, 2, 0)) if own_matrices else one]
    transforms = [warped(1, matrices[0]), warped(2, matrices[1])]
    points = voxel_centres(GRID)[::5, ::5, ::5].reshape(-1, 3)
    places = [transform.to_moving(points) for transform in transforms]
    fused = fuse(transforms, [0.25, 0.75], "mean")
    assert np.abs(fused.to_moving(points) - (0.25 * places[0] + 0.75 * places[1])).max() < 1e-4
    if not own_matrices:
        assert np.array_equal(fused.matrix, matrices[0])

    share = smooth_share()
    fused = fuse(transforms, [share, 1 - share], "mean")
    at = share[::5, ::5, ::5].reshape(-1, 1)
    assert np.abs(fused.to_moving(points) - (at * places[0] + (1 - at) * places[1])).max() < 1e-4


def test_a_map_of_weights_and_a_number_that_adds_up_with_it_can_be_mixed():
    transforms = [warped(1), warped(2), warped(3)]
    share = np.full(GRID.shape, 0.25, np.float32)
    mixed = fuse(transforms, [share, 0.5, share]).displacement
    assert np.allclose(mixed, fuse(transforms, [0.25, 0.5, 0.25]).displacement, atol=1e-6)


def test_opposite_strong_turns_fold_in_the_mean_and_not_in_the_log_mean():
    transforms = [swirl(150.0), swirl(-150.0), swirl(0.0)]
    assert [folds(transform) for transform in transforms] == [0, 0, 0]
    assert folds(fuse(transforms, [0.48, 0.48, 0.04], "mean")) > 50
    fused = fuse(transforms, [0.48, 0.48, 0.04], "log")
    assert folds(fused) == 0
    # The mean of a turn and the turn back is no turn.
    assert np.linalg.norm(transforms[0].displacement, axis=-1).max() > 10
    assert np.linalg.norm(fused.displacement, axis=-1).max() < 0.8


def test_two_turns_too_far_apart_for_a_path_between_them_are_refused():
    with pytest.raises(BadInput, match="Fuse by the mean"):
        fuse([swirl(150.0), swirl(-150.0)], [0.5, 0.5], "log")


def test_the_log_mean_of_two_turns_is_the_turn_by_their_mean():
    turns, between = [swirl(140.0), swirl(20.0)], swirl(50.0).displacement
    log, mean = (
        np.linalg.norm(fuse(turns, [0.25, 0.75], mode).displacement - between, axis=-1).max() for mode in ("log", "mean")
    )
    assert log < 0.5
    assert mean > 1.0


def test_log_weights_may_vary_over_the_image_without_folding():
    share = smooth_share()
    transforms = [swirl(85.0), swirl(-85.0)]
    fused = fuse(transforms, [share, 1 - share], "log")
    assert folds(fused) == 0
    constant = fuse(transforms, [np.full_like(share, 0.3), np.full_like(share, 0.7)], "log")
    assert np.allclose(constant.displacement, fuse(transforms, [0.3, 0.7], "log").displacement, atol=1e-4)


def test_small_deformations_have_nearly_the_same_mean_and_log_mean():
    transforms = [warped(1, warp_mm=1.0), warped(2, warp_mm=1.0)]
    difference = fuse(transforms, [0.5, 0.5], "log").displacement - fuse(transforms, [0.5, 0.5], "mean").displacement
    assert np.linalg.norm(difference, axis=-1)[4:-4, 4:-4, 4:-4].max() < 0.06


def test_several_weights_of_one_fusion_are_those_of_each_alone():
    transforms = [warped(1), warped(2)]
    fusion = Fusion(transforms, "log")
    for weight in (0.2, 0.9):
        weights = [weight, 1 - weight]
        assert np.array_equal(fusion.at(weights).displacement, fuse(transforms, weights, "log").displacement)


def test_affine_transforms_fuse_without_a_field():
    one, other = Transform(affine(1, 40.0)), Transform(affine(1, -40.0))
    mean = fuse([one, other], [0.5, 0.5], "mean")
    assert mean.displacement is None
    assert np.allclose(mean.matrix, (one.matrix + other.matrix) / 2)
    assert np.allclose(fuse([one, other], [0.5, 0.5], "log").matrix, EYE, atol=1e-9)
    assert np.allclose(fuse([one, other], [0.75, 0.25], "log").matrix, affine(1, 20.0), atol=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5], "2 transforms need as many weights"),
        ([0.5, 0.6], "must add up to 1 everywhere. These add up to 1.1"),
        ([-0.5, 1.5], "negative"),
        ([np.nan, 1.0], "not finite"),
        ([np.full(GRID.shape, 0.5), np.full(GRID.shape, 0.4)], "add up to 0.9"),
        ([np.full((2, 3, 4), 0.5), 0.5], "not lie on the deformations' grid"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights, message):
    with pytest.raises(BadInput, match=message):
        fuse([warped(1), warped(2)], weights)


def test_what_cannot_be_fused_is_refused():
    elsewhere = Transform(EYE, np.zeros((*MOVING.shape, 3), np.float32), MOVING)
    with pytest.raises(BadInput, match="different grids"):
        fuse([warped(1), elsewhere], [0.5, 0.5])
    with pytest.raises(BadInput, match="no transforms"):
        fuse([], [])
    with pytest.raises(BadInput, match="'median': use mean or log"):
        fuse([warped(1)], [1.0], "median")


# --- Weights without labels ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    return gaussian_filter(np.random.default_rng(1).standard_normal(GRID.shape), 1.2).astype(np.float32)


def test_equal_images_agree_everywhere_whatever_their_scale(texture):
    assert local_similarity(texture, 300 - 40 * -texture, 2.0).min() > 0.99
    assert local_similarity(texture, -texture, 2.0).max() == 0


def test_similarity_falls_where_an_image_is_out_of_place(texture):
    moved = texture.copy()
    moved[:, :, 14:] = np.roll(texture, 3, axis=0)[:, :, 14:]
    similarity = local_similarity(texture, moved, 2.0)
    assert similarity[:, :, :8].mean() > 0.98
    assert similarity[:, :, 20:].mean() < 0.4
    assert similarity.dtype == np.float32 and 0 <= similarity.min() and similarity.max() <= 1


def test_what_lies_outside_the_mask_does_not_count(texture):
    mask = np.zeros(GRID.shape, bool)
    mask[6:18, 6:20, 6:20] = True
    noise = np.random.default_rng(2).normal(0, 50, GRID.shape)
    similarity = local_similarity(np.where(mask, texture, noise), np.where(mask, texture, noise[::-1]), 2.0, mask)
    assert similarity[mask].min() > 0.95
    assert not similarity[~mask].any()


def test_flat_images_have_no_similarity(texture):
    assert local_similarity(texture, np.full(GRID.shape, 7.0), 2.0).max() == 0
    half = texture.copy()
    half[:12] = 3.0
    assert local_similarity(texture, half, 1.0)[:6].max() < 0.01


def test_local_shares_go_to_the_better_modality_smoothly_and_add_up_to_one():
    one = np.full(GRID.shape, 0.8, np.float32)
    other = np.where(np.arange(GRID.shape[2]) < 13, np.float32(0.8), np.float32(0.2)) * np.ones(GRID.shape, np.float32)
    shares = local_shares([one, other], GRID, smoothing_mm=6.0, sharpness=2.0)
    assert np.allclose(shares[0] + shares[1], 1, atol=1e-6)
    assert np.allclose(shares[0][:, :, 2], 0.5, atol=0.02)
    assert shares[0][:, :, -2].min() > 0.85
    assert np.abs(np.diff(shares[0], axis=2)).max() < 0.12  # 2 mm voxels, a step of 0.44 blurred by 6 mm
    assert shares[0].min() >= 0.49
    fused = fuse([warped(1), warped(2)], shares, "log")
    assert folds(fused) == 0


def test_sharpness_and_prior_move_the_shares_as_they_say():
    one, other = np.full(GRID.shape, 0.8, np.float32), np.full(GRID.shape, 0.4, np.float32)
    assert global_shares([one, other], sharpness=0) == [0.5, 0.5]
    assert global_shares([one, other], sharpness=1)[0] == pytest.approx(2 / 3, abs=0.01)
    assert global_shares([one, other], sharpness=3)[0] == pytest.approx(8 / 9, abs=0.01)
    assert global_shares([one, one], prior=[0.9, 0.1]) == pytest.approx([0.9, 0.1])
    assert local_shares([one, one], GRID, prior=[0.9, 0.1])[1] == pytest.approx(0.1)
    assert sum(global_shares([one, other, one])) == pytest.approx(1, abs=1e-12)


def test_outside_the_mask_the_shares_are_the_priors():
    mask = np.zeros(GRID.shape, bool)
    mask[:, :, :4] = True
    better, worse = np.full(GRID.shape, 0.9, np.float32), np.full(GRID.shape, 0.1, np.float32)
    share = local_shares([better, worse], GRID, 3.0, mask=mask)[0]
    assert share[:, :, :3].min() > 0.95
    assert np.allclose(share[:, :, -4:], 0.5, atol=1e-3)
    better[~mask] = 0
    assert global_shares([better, worse], mask=mask)[0] > 0.95


def test_similarities_that_are_none_are_refused(texture):
    with pytest.raises(BadInput, match="one grid"):
        local_similarity(texture, texture[1:], 2.0)
    with pytest.raises(BadInput, match="mask is empty"):
        local_similarity(texture, texture, 2.0, np.zeros(GRID.shape, bool))
    with pytest.raises(BadInput, match="negative"):
        global_shares([-np.ones(GRID.shape), np.ones(GRID.shape)])
    with pytest.raises(BadInput, match="prior"):
        global_shares([np.ones(GRID.shape)] * 2, prior=[0.5, 0.6])
    with pytest.raises(BadInput, match="sharpness"):
        local_shares([np.ones(GRID.shape)] * 2, GRID, sharpness=-1)


# --- Resampling --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moving(texture) -> tuple[Volume, Volume]:
    """A smooth image and labels on the moving grid."""
    stream = np.random.default_rng(3)
    image = 100 + 500 * gaussian_filter(stream.standard_normal(MOVING.shape), 2)
    labels = np.digitize(gaussian_filter(stream.standard_normal(MOVING.shape), 3), [-0.03, 0.0, 0.04])
    codes = np.array([0, 2, 17, 1006], np.int16)[labels]
    return Volume(image.astype(np.float32), MOVING, "image"), Volume(codes, MOVING, "labels")


def resampled_by_itk(volume: Volume, transform: Transform, interpolator: int) -> np.ndarray:
    def image_of(array: np.ndarray, geometry: Geometry) -> sitk.Image:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(geometry.spacing_mm.tolist())
        image.SetOrigin(geometry.origin_lps.tolist())
        image.SetDirection(geometry.direction.ravel().tolist())
        return image

    grid = image_of(np.zeros(GRID.shape, np.uint8), GRID)
    return sitk.GetArrayFromImage(sitk.Resample(image_of(volume.array, volume.geometry), grid, to_sitk(transform), interpolator))


@pytest.mark.parametrize(
    "transform",
    [Transform(), Transform(affine(2, 9.0, 1.1, (3, -2, 4))), warped(3, affine(2, 9.0))],
    ids=["identity", "affine", "warp"],
)
def test_warped_images_and_labels_are_those_of_itk(moving, transform):
    image, labels = moving
    ours, itk = warp_image(image, transform, GRID), resampled_by_itk(image, transform, sitk.sitkLinear)
    assert ours.array.dtype == np.float32 and ours.geometry is GRID
    assert (itk == 0).any() and (itk != 0).mean() > 0.3
    assert ((ours.array == 0) == (itk == 0)).mean() > 0.9999
    both = (ours.array != 0) & (itk != 0)
    assert np.abs(ours.array - itk)[both].max() < 0.02
    ours, itk = warp_labels(labels, transform, GRID), resampled_by_itk(labels, transform, sitk.sitkNearestNeighbor)
    assert ours.array.dtype == np.int16
    assert (ours.array == itk).mean() > 0.9999


def test_the_identity_and_shifts_by_whole_voxels_are_exact(moving):
    image, labels = moving
    assert np.array_equal(warp_image(image, Transform(), MOVING).array, image.array)
    assert np.array_equal(warp_labels(labels, Transform(), MOVING).array, labels.array)
    for as_field in (False, True):
        shift = MOVING.direction @ (MOVING.spacing_mm * [3, -2, 4])  # i, j, k
        matrix = EYE.copy()
        matrix[:3, 3] = shift
        field = np.broadcast_to(shift.astype(np.float32), (*MOVING.shape, 3))
        transform = Transform(EYE, field, MOVING) if as_field else Transform(matrix)
        expected = np.zeros(MOVING.shape, np.float32)
        expected[:-4, 2:, :-3] = image.array[4:, :-2, 3:]
        found = warp_image(image, transform, MOVING).array
        assert np.allclose(found, expected, rtol=0, atol=1e-3 if as_field else 0)
        expected = np.zeros(MOVING.shape, np.int16)
        expected[:-4, 2:, :-3] = labels.array[4:, :-2, 3:]
        assert np.array_equal(warp_labels(labels, transform, MOVING).array, expected)


def test_shares_are_each_label_mask_warped_alone_and_add_up_to_one(moving):
    labels, transform = moving[1], warped(3, affine(2, 9.0))
    total = np.zeros(GRID.shape)
    codes = []
    for code, share in warp_shares(labels, [1006, 0, 2, 17, 5], transform, GRID):
        mask = Volume((labels.array == code).astype(np.float32), MOVING)
        expected = warp_image(mask, transform, GRID).array
        if code == 0:  # beyond the moving grid all is background
            expected = np.where(warp_image(Volume(np.ones(MOVING.shape), MOVING), transform, GRID).array == 0, 1, expected)
        assert share.dtype == np.float32
        assert np.abs(share - expected).max() < 1e-5
        assert share.any() == (code != 5)
        total += share
        codes.append(code)
    assert codes == [1006, 0, 2, 17, 5]
    assert np.abs(total - 1).max() < 1e-5


def test_shares_of_an_unmoved_label_map_are_its_masks(moving):
    for code, share in warp_shares(moving[1], [0, 2, 17, 1006], Transform(), MOVING):
        assert np.array_equal(share, moving[1].array == code)


def test_labels_that_are_no_integers_are_refused(moving):
    with pytest.raises(BadInput, match="image has values of type float32; labels are whole numbers"):
        warp_labels(moving[0], Transform(), GRID)
    with pytest.raises(BadInput, match="labels are whole numbers"):
        next(warp_shares(moving[0], [1], Transform(), GRID))
    with pytest.raises(BadInput, match="cannot be interpolated"):
        warp_image(Volume(np.zeros(MOVING.shape, complex), MOVING, "phase"), Transform(), GRID)


def test_the_inverse_transform_takes_points_back_and_images_with_them(moving):
    transform = warped(3, affine(2, 9.0, 1.1, (3, -2, 4)))
    back = inverse_transform(transform, MOVING)
    assert np.allclose(back.matrix @ transform.matrix, EYE)
    there = transform.to_moving(inner_points(400))
    edge = np.array(MOVING.shape[::-1]) - 2
    i_j_k = (there - MOVING.origin_lps) @ MOVING.direction / MOVING.spacing_mm
    seen = ((i_j_k > 1) & (i_j_k < edge)).all(axis=1)
    assert seen.sum() > 100
    assert np.abs(back.to_moving(there[seen]) - inner_points(400)[seen]).max() < 0.1
    assert np.linalg.norm(back.to_moving(there[seen]) - inner_points(400)[seen], axis=1).mean() < 0.02


def test_the_inverse_of_an_affine_transform_needs_no_field():
    matrix = affine(2, 30.0, 1.2, (5, 6, 7))
    back = inverse_transform(Transform(matrix), MOVING)
    assert back.displacement is None
    assert np.allclose(back.matrix, np.linalg.inv(matrix))


def test_the_jacobian_of_transform_and_inverse_are_reciprocal():
    velocity = 0.7 * random_warp(GRID, 8, 4.0, 16.0).smooth_lps
    transform = Transform(affine(2, 9.0, 1.1), exponential(velocity, GRID), GRID)
    there = transform.to_moving(inner_points())
    corner = there.mean(axis=0) - GRID.direction @ (GRID.spacing_mm * 1.1 * 20)
    onto = Geometry((40, 40, 44), GRID.spacing_mm * 1.1, corner, GRID.direction)
    back = inverse_transform(transform, onto)
    forth = warp_image(Volume(jacobian(transform), GRID), Transform(), GRID).array
    again = warp_image(Volume(jacobian(back), onto), transform, GRID).array
    inner = (slice(6, -6),) * 3
    assert np.abs(forth * again - 1)[inner].max() < 0.05
