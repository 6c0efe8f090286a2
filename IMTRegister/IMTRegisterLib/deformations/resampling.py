"""Images and labels of a moving image as the fixed image's grid sees them.

Positions are computed in float64, in slabs. Within half a voxel of the moving grid's outer voxel centres the edge goes
on, as in ITK and Slicer; beyond that everything is 0 (labels: the background).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume

from .fields import inverse_at
from .transforms import Transform, voxel_centres, voxel_indices

HALF = 0.5 + 1e-6  # voxels beyond the outer voxel centres that still belong to the grid
WHOLE = 1e-6  # voxels: nearer to a voxel centre than this is at it


def warp_image(moving: Volume, transform: Transform, fixed: Geometry) -> Volume:
    """The moving image on the grid `fixed`, linear: value(x) = moving(T(x)). Float32; 0 beyond the moving grid.

    Args:
        transform: fixed -> moving.

    Raises:
        BadInput: an image that is no scalar one.
    """
    from scipy.ndimage import map_coordinates

    array = moving.array.astype(np.uint8) if moving.array.dtype == bool else moving.array
    if np.issubdtype(array.dtype, np.complexfloating) or not np.issubdtype(array.dtype, np.number):
        raise BadInput(f"{moving.name} has values of type {array.dtype}, which cannot be interpolated.")
    result = np.zeros(fixed.shape, np.float32)
    for part, inside, k_j_i in _places(moving.geometry, transform, fixed):
        result[part][inside] = map_coordinates(array, k_j_i.T, order=1, mode="nearest", output=np.float32)
    return Volume(result, fixed, moving.name)


def warp_labels(moving: Volume, transform: Transform, fixed: Geometry) -> Volume:
    """The moving image's labels on the grid `fixed`, of the nearest voxel; in their own type. 0 beyond the moving grid.

    Raises:
        BadInput: labels that are not integers.
    """
    _check_labels(moving)
    result = np.zeros(fixed.shape, moving.array.dtype)
    for part, inside, k_j_i in _places(moving.geometry, transform, fixed):
        k, j, i = np.floor(k_j_i.T + 0.5).astype(np.intp)
        result[part][inside] = moving.array[k, j, i]
    return Volume(result, fixed, moving.name)


def warp_shares(
    moving: Volume, codes: Sequence[int], transform: Transform, fixed: Geometry
) -> Iterator[tuple[int, np.ndarray]]:
    """For each code, its share of each voxel: the mask of that label, carried over with linear interpolation.

    The shares of all codes that occur, with 0, add up to 1. Places are looked up once for all codes, and only voxels
    between two labels are interpolated; one map is in hand at a time.

    Yields:
        (code, (K, J, I) float32 from 0 to 1), in the order of `codes`.

    Raises:
        BadInput: labels that are not integers.
    """
    _check_labels(moving)
    pure, mixed, labels, weights = _corners(moving, transform, fixed)
    for code in codes:
        share = (pure == code).astype(np.float32)
        flat = share.reshape(-1)
        flat[mixed] = np.where(labels == code, weights, np.float32(0)).sum(axis=1)
        yield int(code), np.minimum(share, 1, out=share)


def inverse_transform(transform: Transform, geometry: Geometry) -> Transform:
    """The transform back, moving -> fixed, in the same form: A'(y + u'(y)) with A' = A^-1 and u'(y) = A_linear v(A^-1 y).

    v is the inverse of the deformation x + u(x) (Chen et al. 2008), found at each voxel of the new grid itself.
    Beyond its grid the deformation is taken to go on as at its edge.

    Args:
        geometry: the grid of the new field: that of the moving image.

    Raises:
        BadInput: a deformation that folds so much that it has no inverse.
    """
    back = np.linalg.inv(transform.matrix)
    if transform.displacement is None:
        return Transform(back)
    points = voxel_centres(geometry) @ back[:3, :3].T + back[:3, 3]
    moved = inverse_at(transform.displacement, transform.geometry, points)
    return Transform(back, ((moved - points) @ transform.matrix[:3, :3].T).astype(np.float32), geometry)


def _check_labels(moving: Volume) -> None:
    if not np.issubdtype(moving.array.dtype, np.integer):
        raise BadInput(f"{moving.name} has values of type {moving.array.dtype}; labels are whole numbers. Convert it first.")


def _places(moving: Geometry, transform: Transform, fixed: Geometry) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """For slabs of `fixed`: the slab, which of its voxels (n, J, I) fall on the moving grid, and their (N, 3) indices k, j, i."""
    edge = np.array(moving.shape, dtype=np.float64) - 1
    for part, points in transform.slabs(fixed):
        k_j_i = voxel_indices(moving, points)[..., ::-1]
        inside = ((k_j_i >= -HALF) & (k_j_i <= edge + HALF)).all(axis=-1)
        yield part, inside, np.clip(k_j_i[inside], 0, edge)


def _corners(
    moving: Volume, transform: Transform, fixed: Geometry
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What linear interpolation of any label's mask needs.

    Returns:
        (K, J, I) the code where all 8 corners have it (elsewhere the first corner's); the flat indices (M,) of the other
        voxels; and the codes (M, 8) and weights (M, 8) float32 of their corners.
    """
    pure = np.zeros(fixed.shape, moving.array.dtype)
    last = np.array(moving.geometry.shape) - 1
    mixed, labels, weights = [], [], []
    for part, inside, k_j_i in _places(moving.geometry, transform, fixed):
        low = np.floor(k_j_i + WHOLE).astype(np.intp)
        beyond = np.where(k_j_i - low > WHOLE, k_j_i - low, 0).astype(np.float32)
        high = np.minimum(low + (beyond > 0), last)
        ends = [np.stack([low[:, axis], high[:, axis]]) for axis in range(3)]
        corners = list(product((0, 1), repeat=3))
        codes = np.stack([moving.array[ends[0][k], ends[1][j], ends[2][i]] for k, j, i in corners], axis=1)
        pure[part][inside] = codes[:, 0]
        several = (codes[:, 1:] != codes[:, :1]).any(axis=1)
        step = beyond[several]
        sides = np.stack([1 - step, step])  # (2, M, 3)
        mixed.append(np.flatnonzero(inside)[several] + part.start * inside[0].size)
        labels.append(codes[several])
        weights.append(np.stack([sides[k, :, 0] * sides[j, :, 1] * sides[i, :, 2] for k, j, i in corners], axis=1))
    return pure, np.concatenate(mixed), np.concatenate(labels), np.concatenate(weights)
