"""Fusion of the transforms that several registrations gave for one pair of heads (Yang et al. 2020, Multi-atlas registration).

Means are of whole transforms, affine part included:

- "mean": T(x) = sum of w_i T_i(x), the paper's weighted mean. Two diffeomorphisms may have a mean that folds.
- "log": the mean of stationary velocity fields, whose exponential does not fold. Computed on the deformations relative to
  the common affine part. Of two, phi_1 o exp(w_2 log(phi_1^-1 o phi_2)): a point on the one-parameter path from one to the
  other, the bi-invariant mean (Arsigny, Pennec and Ayache, INRIA report 5885, 2006). Only their difference needs a
  logarithm, and two registrations of one pair of heads differ little, while the deformation of one real head into another
  is often the flow of no velocity field. Of more, exp(sum of w_i log phi_i), the log-Euclidean mean (Arsigny et al., MICCAI
  2006). The two are the same where the flows commute.

With weights that vary over the image both use them voxel by voxel; they must then be smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry

from .fields import compose, exponential, inverse_at, logarithm
from .transforms import SLAB, Transform, voxel_centres

FUSIONS = ("mean", "log")
Weight = float | np.ndarray
DIFFERENCE_OFF = 0.05  # of the voxels may differ by more than half a voxel from the nearest flow: 0.01 in heads at 2 mm


def fuse(transforms: Sequence[Transform], weights: Sequence[Weight], mode: str = "mean") -> Transform:
    """The weighted mean of transforms.

    Transforms that share their matrix keep it. If the matrices differ, the fused one has their plain mean A, and each
    field becomes u'(x) = A^-1(A_i(x + u_i(x))) - x. A transform of weight 1 is returned as it is; so is one that all
    others equal.

    Args:
        transforms: fixed -> moving; the fields on one grid. Some may be affine only.
        weights: a share for each, all 0 or more and adding up to 1: numbers, or (K, J, I) arrays on the fields' grid.
        mode: "mean" or "log".

    Raises:
        BadInput: no transforms, weights that are no shares, fields on several grids, an unknown mode, or in mode "log" a
            transform without a logarithm (it folds).
    """
    return Fusion(transforms, mode).at(weights)


class Fusion:
    """Transforms to fuse with several weights: what does not depend on the weights is computed once.

    Arguments and errors as `fuse`.
    """

    def __init__(self, transforms: Sequence[Transform], mode: str = "mean") -> None:
        if mode not in FUSIONS:
            raise BadInput(f"Unknown fusion {mode!r}: use {' or '.join(FUSIONS)}.")
        if not transforms:
            raise BadInput("There are no transforms to fuse.")
        self.transforms, self.mode = list(transforms), mode
        grids = [transform.geometry for transform in transforms if transform.geometry is not None]
        if any(not grid.is_close(grids[0]) for grid in grids):
            raise BadInput("The deformations to fuse lie on different grids: register to the same fixed image.")
        self.geometry: Geometry | None = grids[0] if grids else None

    def at(self, weights: Sequence[Weight]) -> Transform:
        """The mean with these weights. Arguments and errors as `fuse`."""
        weights = self._checked(weights)
        used = [n for n, weight in enumerate(weights) if np.any(weight)]
        first = self.transforms[used[0]]
        if all(_same(first, self.transforms[n]) for n in used[1:]):
            return first
        if self.geometry is None:
            return Transform(self._affine_mean(weights))
        if self.mode == "mean":
            return Transform(self.matrix, _weighted([self._fields[n] for n in used], [weights[n] for n in used]), self.geometry)
        if len(self.transforms) == 2:
            step = exponential(_weighted([self._difference], [weights[1]]), self.geometry)
            return Transform(self.matrix, compose(step, self._fields[0], self.geometry), self.geometry)
        velocity = _weighted([self._velocity(n) for n in used], [weights[n] for n in used])
        return Transform(self.matrix, exponential(velocity, self.geometry), self.geometry)

    @cached_property
    def matrix(self) -> np.ndarray:
        """(4, 4) the affine part that all are brought to."""
        matrices = [transform.matrix for transform in self.transforms]
        return matrices[0] if all(np.array_equal(matrix, matrices[0]) for matrix in matrices) else np.mean(matrices, axis=0)

    @cached_property
    def _fields(self) -> list[np.ndarray]:
        return [_relative(transform, self.matrix, self.geometry) for transform in self.transforms]

    @cached_property
    def _difference(self) -> np.ndarray:
        """(K, J, I, 3) float32 mm: log(phi_1^-1 o phi_2) of two deformations.

        Where they differ by what is no flow (in air, two modalities may deform as they like), the nearest flow counts: what
        comes out does not fold, and ends near the second.
        """
        first, second = self._fields
        points = voxel_centres(self.geometry)
        difference = inverse_at(first, self.geometry, points + second) - points
        return logarithm(difference.astype(np.float32), self.geometry, share_off=DIFFERENCE_OFF)

    @cached_property
    def _velocities(self) -> dict[int, np.ndarray]:
        return {}

    def _velocity(self, number: int) -> np.ndarray:
        if number not in self._velocities:
            self._velocities[number] = logarithm(self._fields[number], self.geometry)
        return self._velocities[number]

    def _affine_mean(self, weights: Sequence[Weight]) -> np.ndarray:
        matrices = [transform.matrix for transform in self.transforms]
        if self.mode == "mean":
            return _sum(weights, matrices)
        from scipy.linalg import expm, logm

        logarithms = [logm(matrix) for matrix in matrices]
        if any(np.abs(np.imag(logarithm)).max() > 1e-6 for logarithm in logarithms):
            raise BadInput("An affine transform to fuse has no real logarithm (it mirrors or turns by 180°). Fuse by the mean.")
        return expm(_sum(weights, [np.real(logarithm) for logarithm in logarithms]))

    def _checked(self, weights: Sequence[Weight]) -> list[Weight]:
        if len(weights) != len(self.transforms):
            raise BadInput(f"{len(self.transforms)} transforms need as many weights, not {len(weights)}.")
        result: list[Weight] = []
        for weight in weights:
            array = np.asarray(weight)
            if array.ndim and (self.geometry is None or array.shape != self.geometry.shape):
                raise BadInput(f"A map of weights {array.shape} does not lie on the deformations' grid.")
            if not np.isfinite(array).all() or (array < 0).any():
                raise BadInput("A weight is negative or not finite. Weights are shares from 0 to 1.")
            result.append(array if array.ndim else float(array))
        total = sum(weight.astype(np.float64) if isinstance(weight, np.ndarray) else weight for weight in result)
        tolerance = 1e-6 if np.ndim(total) == 0 else 1e-4  # maps are float32
        if np.abs(total - 1).max() > tolerance:
            raise BadInput(f"The weights must add up to 1 everywhere. These add up to {np.min(total):g} to {np.max(total):g}.")
        return result


def _same(one: Transform, other: Transform) -> bool:
    if one is other:
        return True
    if not np.array_equal(one.matrix, other.matrix) or (one.displacement is None) != (other.displacement is None):
        return False
    return one.displacement is None or np.array_equal(one.displacement, other.displacement)


def _relative(transform: Transform, matrix: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(K, J, I, 3) float32 mm: the field that gives the same transform with another matrix."""
    if np.array_equal(transform.matrix, matrix):
        return np.zeros((*geometry.shape, 3), np.float32) if transform.displacement is None else transform.displacement
    between = np.linalg.inv(matrix) @ transform.matrix
    result = np.empty((*geometry.shape, 3), np.float32)
    for start in range(0, geometry.shape[0], SLAB):
        part = slice(start, start + SLAB)
        points = voxel_centres(geometry, part)
        moved = points if transform.displacement is None else points + transform.displacement[part]
        result[part] = moved @ between[:3, :3].T + between[:3, 3] - points
    return result


def _weighted(fields: Sequence[np.ndarray], weights: Sequence[Weight]) -> np.ndarray:
    """(K, J, I, 3) float32: sum of w u, added up in float64 so that the order does not show."""
    result = np.empty(fields[0].shape, np.float32)
    for start in range(0, len(result), SLAB):
        part = slice(start, start + SLAB)
        parts = [weight[part, ..., None] if isinstance(weight, np.ndarray) else weight for weight in weights]
        result[part] = _sum(parts, [field[part] for field in fields])
    return result


def _sum(weights: Sequence[Weight], arrays: Sequence[np.ndarray]) -> np.ndarray:
    return sum(weight * array.astype(np.float64) for weight, array in zip(weights, arrays, strict=True))
