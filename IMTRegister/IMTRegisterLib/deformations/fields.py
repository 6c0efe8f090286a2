"""Displacement and velocity fields on one grid: composition, inverse, exponential, logarithm and Jacobian.

A field is an array [k, j, i, 3] float32 of LPS vectors in mm at the voxel centres of a grid, linear between them. It
stands for the map x -> x + u(x). A velocity field v stands for its flow at time 1, x -> exp(v)(x), which is smooth and
invertible however large v is.

Here a field goes on beyond its grid with the value of its edge, so that it stays smooth. `Transform` and its file take
0 there, as ITK does. The two agree where the field has faded to 0 at the edge, or nothing of interest leaves the grid.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry

from .transforms import SLAB, Transform, sample_field, voxel_centres
from .voxel_fields import displaced, flow_of, gradient, index_grid, preimages, sample, smoothed, solved

COARSE_TURNS, FAR = 4, 2.0  # so often at most, while any voxel is so many voxels off, the logarithm takes BCH steps
SHARE_OFF = 1e-3  # of the voxels may miss a tolerance: a few bad ones do not spoil a registration


def compose(first: np.ndarray, second: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The field of "`first`, then `second`": u(x) = first(x) + second(x + first(x)).

    Args:
        first, second: [k, j, i, 3] mm on `geometry`.

    Returns:
        (K, J, I, 3) float32 mm.

    Raises:
        BadInput: a field that does not fit the grid.
    """
    first, second = _tensor(first, geometry), _tensor(second, geometry)
    return (first + sample(second, displaced(first @ _to_voxels(geometry).T))).numpy()


def exponential(velocity: np.ndarray, geometry: Geometry) -> np.ndarray:
    """exp(v) - id of a velocity field by scaling and squaring (Arsigny et al., MICCAI 2006, section 3.3).

    The field is halved until its longest vector is below half a voxel, integrated over that short time by the midpoint
    rule, and composed with itself as often as it was halved.

    Returns:
        (K, J, I, 3) float32 mm, on the grid of `velocity` [k, j, i, 3] mm.

    Raises:
        BadInput: a field that does not fit the grid, or is not finite.
    """
    return _in_mm(flow_of(_in_voxels(velocity, geometry)), geometry)


def logarithm(
    displacement: np.ndarray, geometry: Geometry, tolerance_voxels: float = 0.5, iterations: int = 20, share_off: float = SHARE_OFF
) -> np.ndarray:
    """The velocity field v whose exponential is phi: x -> x + u(x), by fixed-point iteration.

    While exp(v) is far off, a step is v <- v + (exp(-v) o phi - id), the Baker-Campbell-Hausdorff series to first order
    (Bossa and Olmos, MFCA 2008, section 3). Once it is near, the step is (D exp(v))^-1 (phi - exp(v)): to first order the
    same, without a second exponential whose interpolation would not match the first's. Steps are smoothed by a
    binomial filter (standard deviation 0.7 voxel), or interpolation errors pile up. The iteration ends when the mean
    of |phi - exp(v)| no longer falls by a twentieth or is below 1/500 voxel. Not every invertible map has a logarithm;
    a folded one has none.

    Args:
        displacement: [k, j, i, 3] mm.
        tolerance_voxels: how far exp(v) may be from phi. Smooth warps come within a few hundredths.
        share_off: of the voxels may be farther off.

    Returns:
        (K, J, I, 3) float32 mm.

    Raises:
        BadInput: the field does not fit the grid, or no velocity field comes as near as the tolerance.
    """
    field = _in_voxels(displacement, geometry)
    velocity = sample(field, displaced(field * -0.5))  # undoes the midpoint rule
    best, best_error, off = velocity, np.inf, 0
    for turn in range(iterations):
        flow = flow_of(velocity)
        residual = field - flow
        lengths = residual.norm(dim=-1)
        error, far = float(lengths.mean()), turn < COARSE_TURNS and float(lengths.max()) > FAR
        enough = not far and not error < 0.95 * best_error
        if error < best_error:
            best, best_error, off = velocity, error, int((lengths > tolerance_voxels).sum())
        if enough or error < 0.002:
            break
        step = field + sample(flow_of(-velocity), displaced(field)) if far else solved(gradient(flow), residual)
        velocity = velocity + smoothed(step)
    if not best_error < np.inf or off > share_off * lengths.numel():
        raise BadInput(
            f"The deformation is not the flow of any velocity field: at {off} of {lengths.numel()} voxels it stays more than "
            f"{tolerance_voxels:g} voxels off. It folds or turns too strongly. Fuse by the mean, or register more smoothly."
        )
    return _in_mm(best, geometry)


def inverse(displacement: np.ndarray, geometry: Geometry, tolerance_voxels: float = 0.01) -> np.ndarray:
    """The field v with v(y) + u(y + v(y)) = 0, by fixed-point iteration (Chen et al., Med Phys 35:81, 2008).

    A step that does not bring a voxel nearer is halved for that voxel. What that does not settle, as where the field
    turns by more than a right angle, goes on by Newton's method. In a fold several places are taken to one, and any of
    them is the inverse there: see `folds`.

    Args:
        displacement: [k, j, i, 3] mm.
        tolerance_voxels: how far y + v(y), mapped by the field, may be from y. One in a thousand voxels may be
            further off; it holds the nearest that was found.

    Returns:
        (K, J, I, 3) float32 mm.

    Raises:
        BadInput: the field does not fit the grid, or more voxels than that are further off (it folds all over).
    """
    field = _in_voxels(displacement, geometry)
    targets = index_grid(geometry.shape).reshape(-1, 3)
    found = _inverted(field, targets, tolerance_voxels)
    return _in_mm((found - targets).reshape(field.shape), geometry)


def inverse_at(
    displacement: np.ndarray, geometry: Geometry, points_lps: np.ndarray, tolerance_voxels: float = 0.01
) -> np.ndarray:
    """(..., 3) float64 LPS mm: the points that x + u(x) takes to `points_lps` (..., 3). Method and errors as `inverse`."""
    points = np.asarray(points_lps, dtype=np.float64)
    to_voxels = np.linalg.inv(geometry.direction * geometry.spacing_mm)
    indices = ((points - geometry.origin_lps) @ to_voxels.T).reshape(-1, 3)
    targets = torch.from_numpy(indices.astype(np.float32))
    moved = (_inverted(_in_voxels(displacement, geometry), targets, tolerance_voxels) - targets).numpy()
    return points + (moved.astype(np.float64) @ (geometry.direction * geometry.spacing_mm).T).reshape(points.shape)


def jacobian(transform: Transform, geometry: Geometry | None = None) -> np.ndarray:
    """The determinant of dT/dx at each voxel, by central differences (one-sided at the edge), the affine part included.

    Args:
        geometry: the grid to compute on; the field's own without it.

    Returns:
        (K, J, I) float32: 1 keeps the volume, below 1 shrinks, 0 or less folds.

    Raises:
        BadInput: neither a field nor a grid.
    """
    geometry = geometry or transform.geometry
    if geometry is None:
        raise BadInput("An affine transform has no grid of its own: name the grid on which to compute its Jacobian.")
    affine = float(np.linalg.det(transform.matrix[:3, :3]))
    if transform.displacement is None:
        return np.full(geometry.shape, affine, np.float32)
    field = transform.displacement
    if not geometry.is_close(transform.geometry, 1e-4):
        field = _resampled(transform, geometry)
    result = np.empty(geometry.shape, np.float32)
    to_voxels = np.linalg.inv(geometry.direction * geometry.spacing_mm)
    for k in range(0, geometry.shape[0], SLAB):
        start, stop = max(k - 1, 0), min(k + SLAB + 1, geometry.shape[0])
        slab = affine * _determinant(np.asarray(field[start:stop]), to_voxels)
        result[k : k + SLAB] = slab[k - start :][:SLAB]
    return result


def folds(transform: Transform, mask: np.ndarray | None = None) -> int:
    """The number of voxels, in `mask` (boolean [k, j, i] on the field's grid) or all, whose Jacobian is 0 or less.

    Central differences see folds wider than a voxel. An affine transform has none.
    """
    if transform.displacement is None:
        return 0
    folded = jacobian(transform) <= 0
    return int(np.count_nonzero(folded if mask is None else folded & (mask > 0)))


def _inverted(field: Tensor, targets: Tensor, tolerance: float) -> Tensor:
    found, missed = preimages(field, targets, tolerance)
    if missed > SHARE_OFF * len(targets):
        raise BadInput(
            f"The deformation cannot be inverted at {missed} of {len(targets)} places: it folds. Register more smoothly, "
            "or do without the inverse."
        )
    return found


def _tensor(field: np.ndarray, geometry: Geometry) -> Tensor:
    field = np.asarray(field)
    if field.shape != (*geometry.shape, 3):
        raise BadInput(f"The field {field.shape} does not fit its grid {geometry.shape}.")
    field = np.ascontiguousarray(field, dtype=np.float32)
    return torch.from_numpy(field if field.flags.writeable else field.copy())


def _to_voxels(geometry: Geometry) -> Tensor:
    return torch.from_numpy(np.linalg.inv(geometry.direction * geometry.spacing_mm).astype(np.float32))


def _in_voxels(field: np.ndarray, geometry: Geometry) -> Tensor:
    field = _tensor(field, geometry) @ _to_voxels(geometry).T
    if not bool(torch.isfinite(field).all()):
        raise BadInput("The field has values that are not finite: the registration has failed.")
    return field


def _in_mm(field: Tensor, geometry: Geometry) -> np.ndarray:
    to_mm = torch.from_numpy((geometry.direction * geometry.spacing_mm).astype(np.float32))
    return (field.contiguous() @ to_mm.T).numpy()


def _resampled(transform: Transform, geometry: Geometry) -> np.ndarray:
    parts = []
    for k in range(0, geometry.shape[0], SLAB):
        points = voxel_centres(geometry, slice(k, k + SLAB))
        parts.append(sample_field(transform.displacement, transform.geometry, points.reshape(-1, 3)).reshape(points.shape))
    return np.concatenate(parts).astype(np.float32)


def _determinant(field: np.ndarray, to_voxels: np.ndarray) -> np.ndarray:
    """(n, J, I): det(1 + du/dx) of a slab [k, j, i, 3] mm."""
    by_voxel = [np.gradient(field, axis=axis) if field.shape[axis] > 1 else np.zeros_like(field) for axis in (2, 1, 0)]
    a, b, c = (sum(np.float32(to_voxels[n, axis]) * by_voxel[n] for n in range(3)) for axis in range(3))  # du/dx, dy, dz
    a[..., 0] += 1
    b[..., 1] += 1
    c[..., 2] += 1
    return (
        a[..., 0] * (b[..., 1] * c[..., 2] - b[..., 2] * c[..., 1])
        + a[..., 1] * (b[..., 2] * c[..., 0] - b[..., 0] * c[..., 2])
        + a[..., 2] * (b[..., 0] * c[..., 1] - b[..., 1] * c[..., 0])
    )
