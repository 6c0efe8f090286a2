"""Transforms and their files: an independent reader moves landmarks where they should go, in LPS and in RAS."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation_matrix

from IMTCore.errors import BadInput, OutputFailure
from IMTCore.volume import Geometry
from IMTCore.warps import random_warp
from IMTRegisterLib.deformations.resampling import inverse_transform
from IMTRegisterLib.deformations.transforms import (
    Transform,
    from_sitk,
    read_transform,
    sample_field,
    voxel_centres,
    write_transform,
)

# Oblique, with three voxel sizes; the second is left-handed.
GRIDS = [
    Geometry((24, 28, 26), (2.0, 1.5, 2.5), (-31.0, 17.5, 42.25), rotation_matrix(3, 25.0)),
    Geometry((24, 28, 26), (2.5, 2.0, 1.5), (101.0, -57.5, 12.25), rotation_matrix(4, 40.0) @ np.diag([1, -1, 1])),
]
EYE = np.eye(4)


@pytest.fixture(params=GRIDS, ids=["oblique", "left-handed"])
def grid(request) -> Geometry:
    return request.param


def points_of(grid: Geometry, margin: float = 1.0, count: int = 60) -> np.ndarray:
    k_j_i = np.random.default_rng(0).uniform(margin, np.array(grid.shape) - 1 - margin, (count, 3))
    return grid.origin_lps + (k_j_i[:, ::-1] * grid.spacing_mm) @ grid.direction.T


def affine() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(7, 20.0) @ np.diag([1.1, 0.95, 1.02])
    matrix[:3, 3] = (12.0, -7.0, 3.5)
    return matrix


def faded(grid: Geometry) -> np.ndarray:
    """A random warp that is 0 at the edge of its grid."""
    windows = [np.sin(np.linspace(0, np.pi, n)) for n in grid.shape]
    window = np.einsum("k,j,i->kji", *windows)[..., None]
    window[[0, -1]] = window[:, [0, -1]] = window[:, :, [0, -1]] = 0
    return (random_warp(grid, 2, 4.0, 16.0).smooth_lps * window).astype(np.float32)


def by_hand(transform: Transform, point: np.ndarray) -> np.ndarray:
    """T(x) = A(x + u(x)) written out anew: trilinear interpolation over the eight neighbours."""
    i_j_k = np.linalg.inv(transform.geometry.direction * transform.geometry.spacing_mm) @ (point - transform.geometry.origin_lps)
    low = np.floor(i_j_k).astype(int)
    share = i_j_k - low
    moved = point.copy()
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, share, 1 - share))
        i, j, k = low + corner
        moved += weight * transform.displacement[k, j, i]
    return (transform.matrix @ [*moved, 1])[:3]


def test_a_point_goes_where_the_definition_says(grid):
    transform = Transform(affine(), random_warp(grid, 1, 5.0, 16.0).smooth_lps, grid)
    for point, moved in zip(points_of(grid), transform.to_moving(points_of(grid)), strict=True):
        assert np.abs(moved - by_hand(transform, point)).max() < 1e-4


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_simpleitk_moves_landmarks_by_the_file_where_they_should_go(grid, suffix, tmp_path):
    transform = Transform(affine(), random_warp(grid, 1, 5.0, 16.0).smooth_lps, grid)
    path = tmp_path / f"atlas ö{suffix}"
    write_transform(path, transform)
    read = sitk.ReadTransform(str(path))
    for point in points_of(grid):
        assert np.abs(np.array(read.TransformPoint(point.tolist())) - by_hand(transform, point)).max() < 1e-4
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_file_moves_landmarks_in_ras_as_well(tmp_path):
    # What Slicer does: turn RAS points into LPS, apply the file, turn back. Against the matrix conjugated by the flip.
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix_ras = flip @ affine() @ flip
    write_transform(tmp_path / "affine.tfm", Transform(affine()))
    read = sitk.ReadTransform(str(tmp_path / "affine.tfm"))
    for ras in ([30.0, -12.0, 55.0], [-61.0, 20.0, 4.0]):
        moved = np.array(read.TransformPoint([-ras[0], -ras[1], ras[2]])) * [-1, -1, 1]
        assert np.allclose(moved, (matrix_ras @ [*ras, 1])[:3], atol=1e-9)
    # A nose that is moved 10 mm forward and up stays so: anterior is +y in RAS, -y in LPS.
    forward = np.eye(4)
    forward[:3, 3] = (0, -10, 5)
    write_transform(tmp_path / "forward.h5", Transform(forward))
    moved = sitk.ReadTransform(str(tmp_path / "forward.h5")).TransformPoint([0.0, -80.0, 0.0])
    assert np.allclose(np.array(moved) * [-1, -1, 1], [0, 90, 5])


def test_the_inverse_from_its_file_moves_landmarks_back(grid, tmp_path):
    transform = Transform(affine(), faded(grid), grid)
    corners = transform.to_moving(points_of(grid, 0))
    onto = Geometry((60, 60, 60), (1.8, 1.8, 1.8), corners.mean(axis=0) - 53, np.eye(3))
    write_transform(tmp_path / "forth.h5", transform)
    write_transform(tmp_path / "back.h5", inverse_transform(transform, onto))
    forth, back = (sitk.ReadTransform(str(tmp_path / f"{name}.h5")) for name in ("forth", "back"))
    for point in points_of(grid, 3):
        moved = forth.TransformPoint(point.tolist())
        assert np.abs(np.array(moved) - point).max() > 2
        assert np.abs(np.array(back.TransformPoint(moved)) - point).max() < 0.1


def test_what_was_written_is_read_again(grid, tmp_path):
    for number, displacement in enumerate((faded(grid), random_warp(grid, 1, 5.0, 16.0).smooth_lps)):
        write_transform(tmp_path / f"{number}.h5", Transform(affine(), displacement, grid))
        again = read_transform(tmp_path / f"{number}.h5")
        assert np.allclose(again.matrix, affine(), atol=1e-12)
        inner = again.displacement[1:-1, 1:-1, 1:-1] if number else again.displacement
        assert np.array_equal(inner, displacement)
    # A field that ends abruptly has got a border of zeros, on a grid that is larger by it.
    assert again.geometry.shape == tuple(n + 2 for n in grid.shape)
    assert np.allclose(voxel_centres(again.geometry)[1:-1, 1:-1, 1:-1], voxel_centres(grid), atol=1e-9)
    assert not again.displacement[[0, -1]].any() and not again.displacement[:, :, [0, -1]].any()


def test_beyond_a_written_field_only_the_affine_part_acts(grid, tmp_path):
    displacement = np.full((*grid.shape, 3), 4.0, np.float32)
    write_transform(tmp_path / "t.h5", Transform(affine(), displacement, grid))
    read = sitk.ReadTransform(str(tmp_path / "t.h5"))
    outside = grid.origin_lps - grid.direction @ (3 * grid.spacing_mm)
    assert np.allclose(read.TransformPoint(outside.tolist()), affine()[:3, :3] @ outside + affine()[:3, 3])
    assert np.allclose(Transform(affine(), displacement, grid).to_moving(outside[None])[0], read.TransformPoint(outside.tolist()))


@pytest.mark.parametrize("suffix", [".h5", ".tfm", ".txt", ".mat"])
def test_affine_transforms_go_through_every_format(suffix, tmp_path):
    write_transform(tmp_path / f"a{suffix}", Transform(affine()))
    again = read_transform(tmp_path / f"a{suffix}")
    assert np.allclose(again.matrix, affine(), atol=1e-9)
    assert again.displacement is None


def test_linear_transforms_of_other_programs_are_read():
    euler = sitk.Euler3DTransform((5.0, -8.0, 20.0), 0.2, -0.1, 0.3, (3.0, 2.0, 1.0))
    both = sitk.CompositeTransform([sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), euler])
    nested = sitk.CompositeTransform([both, sitk.ScaleTransform(3, (1.1, 0.9, 1.0))])
    point = [11.0, -22.0, 33.0]
    for transform in (euler, both, nested):
        assert np.allclose(from_sitk(transform).to_moving(np.array([point]))[0], transform.TransformPoint(point))


def test_slabs_give_the_moving_places_of_all_voxels_on_any_grid(grid):
    transform = Transform(affine(), random_warp(grid, 1, 5.0, 16.0).smooth_lps, grid)
    shifted = Geometry((20, 10, 12), grid.spacing_mm, grid.origin_lps + grid.direction @ (grid.spacing_mm * 3.3), grid.direction)
    for onto in (grid, shifted):
        parts = list(transform.slabs(onto))
        assert len(parts) == 2
        points = np.concatenate([points for _, points in parts])
        assert np.allclose(points.reshape(-1, 3), transform.to_moving(voxel_centres(onto).reshape(-1, 3)), atol=1e-6)


def test_a_field_is_zero_beyond_its_grid_and_linear_up_to_its_edge(grid):
    displacement = np.full((*grid.shape, 3), 2.0, np.float32)
    step = grid.direction[:, 0] * grid.spacing_mm[0]
    at_edge, beyond = grid.origin_lps, grid.origin_lps - 0.01 * step
    assert np.allclose(sample_field(displacement, grid, np.array([at_edge, beyond])), [[2, 2, 2], [0, 0, 0]])


def test_a_transform_that_is_none_is_refused():
    grid = GRIDS[0]
    zeros = np.zeros((*grid.shape, 3), np.float32)
    broken = zeros.copy()
    broken[1, 2, 3, 0] = np.inf
    singular, not_affine = np.diag([1.0, 1, 0, 1]), np.full((4, 4), 0.5) + EYE
    for values, message in (
        ({"matrix": singular}, "no invertible affine"),
        ({"matrix": not_affine}, "no invertible affine"),
        ({"matrix": np.eye(3)}, "no invertible affine"),
        ({"matrix": np.full((4, 4), np.nan)}, "no invertible affine"),
        ({"displacement": zeros}, "needs its grid"),
        ({"geometry": grid}, "a grid its field"),
        ({"displacement": zeros[1:], "geometry": grid}, "does not fit its grid"),
        ({"displacement": broken, "geometry": grid}, "not finite"),
    ):
        with pytest.raises(BadInput, match=message):
            Transform(**values)
    with pytest.raises(BadInput, match=r"\(N, 3\)"):
        Transform().to_moving(np.zeros(3))


def test_files_that_cannot_hold_a_transform_are_refused_and_nothing_is_left(tmp_path):
    field = Transform(EYE, np.zeros((*GRIDS[0].shape, 3), np.float32), GRIDS[0])
    with pytest.raises(BadInput, match=r"ends in \.h5"):
        write_transform(tmp_path / "t.nii.gz", field)
    with pytest.raises(BadInput, match="cannot hold a deformation"):
        write_transform(tmp_path / "t.mat", field)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputFailure, match="in the way"):
        write_transform(tmp_path / "file" / "t.h5", field)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_that_are_no_transform_are_refused(tmp_path):
    with pytest.raises(BadInput, match="There is no transform file"):
        read_transform(tmp_path / "missing.h5")
    for name, content in (("text.tfm", b"not a transform"), ("cut.h5", b"\x89HDF\r\n\x1a\n1234"), ("image.nii", b"0" * 400)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=f"{name} is no transform file that ITK can read"):
            read_transform(tmp_path / name)


def test_transforms_of_another_form_are_refused_by_name(tmp_path):
    field = sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64))
    linear = sitk.AffineTransform(3)
    for transform, message in (
        (sitk.AffineTransform(2), "2 dimensions"),
        (sitk.CompositeTransform([field, sitk.DisplacementFieldTransform(field)]), "two deformations"),
        (sitk.CompositeTransform([field, linear]), "before its deformation"),
        (sitk.BSplineTransform(3, 3), "of type BSplineTransform"),
    ):
        with pytest.raises(BadInput, match=f"warp.h5.*{message}"):
            from_sitk(transform, "warp.h5")
