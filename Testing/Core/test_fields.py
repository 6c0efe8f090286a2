"""Displacement and velocity fields: against maps whose composition, inverse, flow and Jacobian are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import rotation_matrix

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry
from IMTCore.warps import random_stream, random_warp, spline_field
from IMTRegisterLib.deformations.fields import compose, exponential, folds, inverse, inverse_at, jacobian, logarithm
from IMTRegisterLib.deformations.transforms import Transform, voxel_centres

# Oblique, with three voxel sizes, left-handed.
GRID = Geometry((36, 40, 32), (2.0, 1.5, 2.5), (-31.0, 17.5, 42.25), rotation_matrix(3, 25.0) @ np.diag([1, 1, -1]))
POINTS = voxel_centres(GRID)
OFFSETS = POINTS - POINTS.reshape(-1, 3).mean(axis=0)
AXIS = GRID.direction[:, 2]
EYE = np.eye(4)


def voxels(field: np.ndarray) -> np.ndarray:
    """The lengths of a field's vectors in voxels, without the six outer layers, from beyond which other vectors come in."""
    lengths = np.linalg.norm(field @ np.linalg.inv(GRID.direction * GRID.spacing_mm).T, axis=-1)
    return lengths[6:-6, 6:-6, 6:-6]


def swirl(degrees: float, width_mm: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """A velocity that turns about the k axis through the centre, by less further out; and its flow at time 1."""
    angle = np.radians(degrees) * np.exp(-(OFFSETS**2).sum(axis=-1, keepdims=True) / (2 * width_mm**2))
    sideways = np.cross(AXIS, OFFSETS)
    outwards = OFFSETS - (OFFSETS @ AXIS)[..., None] * AXIS
    flow = outwards * (np.cos(angle) - 1) + sideways * np.sin(angle)
    return (angle * sideways).astype(np.float32), flow.astype(np.float32)


def affine_field(matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (OFFSETS @ (matrix - np.eye(3)).T + shift).astype(np.float32)


@pytest.fixture(scope="module")
def warp():
    return random_warp(GRID, seed=1, warp_mm=6.0, smoothness_mm=20.0)


def test_two_affine_maps_compose_to_their_product():
    first, second = rotation_matrix(1, 6.0), np.diag([1.05, 0.97, 1.02])
    shift = np.array([1.5, -0.7, 0.4])
    both = compose(affine_field(first, shift), affine_field(second, -shift), GRID)
    expected = affine_field(second @ first, second @ shift - shift)
    assert both.dtype == np.float32
    assert voxels(both - expected).max() < 1e-4
    other_order = compose(affine_field(second, -shift), affine_field(first, shift), GRID)
    assert voxels(other_order - expected).max() > 0.05


def test_composing_with_no_motion_changes_nothing(warp):
    nothing = np.zeros_like(warp.smooth_lps)
    assert np.array_equal(compose(warp.smooth_lps, nothing, GRID), warp.smooth_lps)
    assert np.abs(compose(nothing, warp.smooth_lps, GRID) - warp.smooth_lps).max() < 1e-4


def test_a_field_goes_on_beyond_its_grid():
    far = np.full((*GRID.shape, 3), 500.0, np.float32)
    constant = np.full((*GRID.shape, 3), 2.0, np.float32)
    assert np.allclose(compose(far, constant, GRID), 502.0)


def test_the_inverse_is_the_known_one(warp):
    back = inverse(warp.smooth_lps, GRID)
    assert voxels(back - warp.inverse_displacement_lps()).max() < 0.02
    assert voxels(compose(back, warp.smooth_lps, GRID)).max() < 0.011


@pytest.mark.parametrize("degrees", [60.0, 150.0])
def test_a_map_that_turns_far_is_inverted_too(degrees):
    assert voxels(compose(inverse(swirl(degrees)[1], GRID), swirl(degrees)[1], GRID)).max() < 0.011


def test_a_strong_expansion_is_inverted_too():
    # Three times as large at the centre: the plain fixed-point iteration diverges there.
    growth = (2.0 * OFFSETS * np.exp(-(OFFSETS**2).sum(axis=-1, keepdims=True) / (2 * 9.0**2))).astype(np.float32)
    field = exponential(growth * 0.5, GRID)
    assert jacobian(Transform(EYE, field, GRID)).max() > 8
    assert voxels(compose(inverse(field, GRID), field, GRID)).max() < 0.011


def test_single_points_are_taken_back_where_they_came_from(warp):
    points = POINTS[8:-8:7, 8:-8:7, 8:-8:7].reshape(-1, 3) + 0.3
    there = Transform(EYE, warp.smooth_lps, GRID).to_moving(points)
    assert np.abs(inverse_at(warp.smooth_lps, GRID, there) - points).max() < 0.03


def test_a_field_that_folds_is_the_flow_of_nothing():
    folded = (-2.0 * OFFSETS * np.exp(-(OFFSETS**2).sum(axis=-1, keepdims=True) / (2 * 12.0**2))).astype(np.float32)
    assert folds(Transform(EYE, folded, GRID)) > 100
    with pytest.raises(BadInput, match="not the flow of any velocity field.*Fuse by the mean"):
        logarithm(folded, GRID)


def test_the_inverse_of_a_fold_is_one_of_the_places_that_map_there():
    folded = (-2.0 * OFFSETS * np.exp(-(OFFSETS**2).sum(axis=-1, keepdims=True) / (2 * 12.0**2))).astype(np.float32)
    assert voxels(compose(inverse(folded, GRID), folded, GRID)).max() < 0.011


def test_a_field_that_folds_all_over_is_not_inverted():
    noise = np.random.default_rng(0).normal(0, 20, (*GRID.shape, 3)).astype(np.float32)
    with pytest.raises(BadInput, match="cannot be inverted at .* places: it folds"):
        inverse(noise, GRID)


@pytest.mark.parametrize("degrees", [30.0, 90.0])
def test_the_exponential_of_a_swirl_is_its_flow(degrees):
    velocity, flow = swirl(degrees)
    assert voxels(flow).max() > degrees / 15
    assert voxels(exponential(velocity, GRID) - flow).max() < 0.15


def test_the_flow_backwards_undoes_the_flow():
    velocity = swirl(60.0)[0]
    assert voxels(compose(exponential(velocity, GRID), exponential(-velocity, GRID), GRID)).max() < 0.08


def test_the_flow_of_a_constant_velocity_is_that_shift():
    constant = np.full((*GRID.shape, 3), 7.5, np.float32)
    assert np.abs(exponential(constant, GRID) - 7.5).max() < 1e-4
    assert np.array_equal(exponential(constant * 0, GRID), constant * 0)


def test_a_strong_flow_does_not_fold():
    velocity = spline_field(GRID, 15.0, 3, random_stream(2, "flow"))
    velocity *= 20.0 / np.linalg.norm(velocity, axis=-1).max()
    inner = np.zeros(GRID.shape, bool)
    inner[6:-6, 6:-6, 6:-6] = True
    assert folds(Transform(EYE, velocity, GRID), inner) > 0
    assert folds(Transform(EYE, exponential(velocity, GRID), GRID), inner) == 0


def test_logarithm_and_exponential_undo_each_other(warp):
    for field in (warp.smooth_lps, swirl(45.0)[1], exponential(swirl(60.0)[0], GRID)):
        assert voxels(exponential(logarithm(field, GRID), GRID) - field).max() < 0.05


def test_the_logarithm_of_a_swirl_is_its_velocity():
    velocity, flow = swirl(45.0)
    assert voxels(logarithm(flow, GRID) - velocity).max() < 0.1


def test_the_logarithm_of_a_turn_by_150_degrees_is_found():
    velocity, flow = swirl(150.0)
    assert voxels(exponential(logarithm(flow, GRID), GRID) - flow).max() < 0.3
    assert voxels(logarithm(flow, GRID) - velocity).mean() < 0.1


def test_the_jacobian_is_the_known_one_and_counts_the_affine_part(warp):
    assert np.abs(jacobian(Transform(EYE, warp.smooth_lps, GRID)) - warp.jacobian()).max() < 1e-5
    affine = EYE.copy()
    affine[:3, :3] = rotation_matrix(4, 30.0) @ np.diag([1.2, 0.9, 1.1])
    assert np.allclose(jacobian(Transform(affine, warp.smooth_lps, GRID)), 1.2 * 0.9 * 1.1 * warp.jacobian(), rtol=1e-4)
    assert np.allclose(jacobian(Transform(affine), GRID), 1.2 * 0.9 * 1.1)
    with pytest.raises(BadInput, match="name the grid"):
        jacobian(Transform(affine))


def test_the_jacobian_of_an_affine_field_is_its_determinant_up_to_the_edge():
    matrix = rotation_matrix(2, 20.0) @ np.diag([1.3, 0.8, 1.1])
    assert np.allclose(jacobian(Transform(EYE, affine_field(matrix, np.zeros(3)), GRID)), 1.3 * 0.8 * 1.1, atol=1e-4)


def test_the_jacobian_can_be_asked_for_on_another_grid(warp):
    coarse = Geometry((9, 10, 8), GRID.spacing_mm * 2, GRID.origin_lps + GRID.direction @ (GRID.spacing_mm * 8), GRID.direction)
    known = warp.jacobian()[8:26:2, 8:28:2, 8:24:2]
    found = jacobian(Transform(EYE, warp.smooth_lps, GRID), coarse)
    assert np.abs(found - known)[1:-1, 1:-1, 1:-1].max() < 0.1
    assert np.corrcoef(found.ravel(), known.ravel())[0, 1] > 0.97


def test_folds_are_counted_where_they_are():
    field = np.zeros((*GRID.shape, 3), np.float32)
    step_i = GRID.direction[:, 0] * GRID.spacing_mm[0]
    field[10:12, 20, 15] = 3 * step_i  # its neighbour along i stays: these overtake it
    mask = np.zeros(GRID.shape, bool)
    assert folds(Transform(EYE, field, GRID)) == 2
    assert folds(Transform(EYE, field, GRID), mask) == 0
    mask[10] = True
    assert folds(Transform(EYE, field, GRID), mask) == 1
    assert folds(Transform(EYE)) == 0


def test_a_single_slice_has_fields_as_well():
    flat = Geometry((1, 30, 34), (1.0, 1.0, 4.0), (0, 0, 0), np.eye(3))
    field = np.zeros((1, 30, 34, 3), np.float32)
    field[..., 0] = 2 * np.sin(np.arange(34) / 6)
    back = inverse(field, flat)
    assert np.abs(compose(back, field, flat)[:, 6:-6, 6:-6]).max() < 0.011
    assert np.abs(exponential(logarithm(field, flat), flat) - field)[:, 6:-6, 6:-6].max() < 0.05
    assert np.allclose(jacobian(Transform(EYE, field, flat))[0, 3, 1:-1], 1 + np.gradient(field[0, 3, :, 0])[1:-1], atol=1e-5)


def test_fields_that_do_not_fit_or_are_not_finite_are_refused(warp):
    with pytest.raises(BadInput, match="does not fit its grid"):
        compose(warp.smooth_lps[1:], warp.smooth_lps, GRID)
    broken = warp.smooth_lps.copy()
    broken[3, 4, 5, 1] = np.nan
    for operation in (exponential, logarithm, inverse):
        with pytest.raises(BadInput, match="not finite"):
            operation(broken, GRID)


def test_no_operation_changes_its_input(warp):
    field = warp.smooth_lps.copy()
    for operation in (exponential, logarithm, inverse):
        operation(field, GRID)
    compose(field, field, GRID)
    assert np.array_equal(field, warp.smooth_lps)
