"""Claims on grids, world coordinates and anatomical orientation."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ORIENTATIONS, head_phantom, rotation_matrix, store
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from IMTCore.errors import BadInput
from IMTCore.orientation import PLANES, anatomical_axes
from IMTCore.volume import Geometry, Volume, check_image

HEAD = head_phantom()
ANISOTROPIC = (4.0, 0.9, 1.3)


def world_lps(volume: Volume) -> np.ndarray:
    """[x, y, z] × [k, j, i]: each voxel's LPS position by the definition x = origin + direction @ (spacing * ijk)."""
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in volume.geometry.shape), indexing="ij")[::-1])
    scaled = ijk * volume.geometry.spacing_mm[:, None, None, None]
    return np.einsum("xa,akji->xkji", volume.geometry.direction, scaled) + volume.geometry.origin_lps[:, None, None, None]


@pytest.mark.parametrize("plane", PLANES)
def test_inverting_the_axis_map_undoes_it(orientation, plane):
    stored = store(HEAD, orientation).array
    axes = anatomical_axes(store(HEAD, orientation).geometry, plane)
    assert np.array_equal(axes.invert(axes.apply(stored)), stored)
    assert axes.invert(axes.apply(stored)).shape == stored.shape


def test_one_head_in_any_stored_orientation_gives_one_anatomical_array(orientation):
    volume = store(HEAD, orientation, ANISOTROPIC)
    axes = anatomical_axes(volume.geometry)
    assert np.array_equal(axes.apply(volume.array), HEAD)
    assert axes.spacing_kji(volume.geometry) == ANISOTROPIC


@pytest.mark.parametrize("seed", range(4))
def test_one_oblique_head_in_any_stored_orientation_gives_one_anatomical_array(orientation, seed):
    # Up to 30° about any axis, each patient axis is still nearest to its own array axis.
    volume = store(HEAD, orientation, ANISOTROPIC, rotation_matrix(seed, 30.0))
    assert np.array_equal(anatomical_axes(volume.geometry).apply(volume.array), HEAD)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0.0, -1)])
def test_an_axis_at_45_degrees_is_assigned_alike_in_any_stored_orientation(axis):
    turn = Rotation.from_rotvec(np.radians(45) * np.array(axis)).as_matrix()
    volumes = [store(HEAD, orientation, (1, 1, 1), turn) for orientation in ORIENTATIONS]
    arrays = [anatomical_axes(volume.geometry).apply(volume.array) for volume in volumes]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)


# Plane: for k, j, i the LPS axis and the sense in which the coordinate grows.
SENSES = {
    "axial": (("superior", 2, 1), ("posterior", 1, 1), ("left", 0, 1)),
    "coronal": (("posterior", 1, 1), ("inferior", 2, -1), ("left", 0, 1)),
    "sagittal": (("left", 0, 1), ("inferior", 2, -1), ("posterior", 1, 1)),
}


@pytest.mark.parametrize("plane", SENSES)
@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_indices_of_each_plane_run_in_the_patient_directions_that_it_promises(orientation, plane, degrees):
    volume = store(np.zeros((4, 5, 6), np.float32), orientation, (2.0, 1.0, 1.5), rotation_matrix(5, degrees))
    axes = anatomical_axes(volume.geometry, plane)
    world = np.stack([axes.apply(coordinate) for coordinate in world_lps(volume)])
    for array_axis, (_, world_axis, sense) in enumerate(SENSES[plane]):
        step = np.diff(world, axis=1 + array_axis).reshape(3, -1).mean(axis=1)
        assert np.argmax(np.abs(step)) == world_axis
        assert np.sign(step[world_axis]) == sense


def test_an_unknown_plane_is_refused():
    with pytest.raises(BadInput, match="'oblique'.*axial, coronal, sagittal"):
        anatomical_axes(store(HEAD).geometry, "oblique")


def test_an_affine_from_a_grid_puts_voxels_where_the_grid_says(orientation, oblique):
    volume = store(HEAD, orientation, ANISOTROPIC, oblique)
    i, j, k = 3, 5, 2
    ras = volume.geometry.affine_ras @ [i, j, k, 1]
    assert np.allclose(ras[:3] * [-1, -1, 1], world_lps(volume)[:, k, j, i], atol=1e-9)


finite = st.floats(-400, 400)


@settings(max_examples=80, deadline=None)
@given(
    origin=st.tuples(finite, finite, finite),
    spacing=st.tuples(*[st.floats(0.05, 12)] * 3),
    seed=st.integers(0, 2**31),
    degrees=st.floats(0, 180),
    left_handed=st.booleans(),
)
def test_grid_and_affine_are_inverse_of_each_other(origin, spacing, seed, degrees, left_handed):
    direction = rotation_matrix(seed, degrees) * ([1, 1, -1] if left_handed else [1, 1, 1])
    geometry = Geometry((4, 5, 6), spacing, origin, direction)
    again = Geometry.from_affine_ras(geometry.affine_ras, geometry.shape)
    assert np.allclose(again.spacing_mm, spacing, rtol=1e-12)
    assert np.allclose(again.direction, direction, atol=1e-12)
    assert np.array_equal(again.origin_lps, geometry.origin_lps)
    assert np.allclose(again.affine_ras, geometry.affine_ras, rtol=1e-12, atol=1e-12)


def test_a_grid_can_not_be_changed_in_place():
    with pytest.raises(ValueError, match="read-only"):
        store(HEAD).geometry.origin_lps[0] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing_mm": (1, 0, 1)}, "positive"),
        ({"spacing_mm": (1, -2, 1)}, "positive"),
        ({"spacing_mm": (1, np.nan, 1)}, "not finite"),
        ({"origin_lps": (np.inf, 0, 0)}, "not finite"),
        ({"direction": np.diag([1, 0, 1])}, "singular"),
        ({"direction": [[1, 0.05, 0], [0, 1, 0], [0, 0, 1]]}, "sheared"),
        ({"shape": (3, 4)}, "three axes"),
    ],
)
def test_an_impossible_grid_is_refused_with_its_reason(change, message):
    good = {"shape": (3, 4, 5), "spacing_mm": (1, 1, 1), "origin_lps": (0, 0, 0), "direction": np.eye(3)}
    Geometry(**good)
    with pytest.raises(BadInput, match=message):
        Geometry(**(good | change))


def test_two_grids_are_close_only_if_every_corner_is():
    geometry = store(HEAD).geometry
    turned = Geometry(geometry.shape, geometry.spacing_mm, geometry.origin_lps, rotation_matrix(1, 0.01))
    assert geometry.is_close(Geometry(geometry.shape, geometry.spacing_mm, geometry.origin_lps + 5e-4, geometry.direction))
    assert not geometry.is_close(Geometry(geometry.shape, geometry.spacing_mm, geometry.origin_lps + 2e-3, geometry.direction))
    assert not geometry.is_close(turned)
    assert not geometry.is_close(Geometry((18, 24, 20), geometry.spacing_mm, geometry.origin_lps, geometry.direction))


def test_an_array_that_is_not_the_grids_shape_is_refused():
    with pytest.raises(BadInput, match="array shape"):
        Volume(HEAD[:-1], store(HEAD).geometry)


def test_a_constant_mask_is_refused_like_any_constant_image():
    with pytest.raises(BadInput, match="constant"):
        check_image(store(np.ones((3, 4, 5), bool)))
