"""Random smooth warps with a rigid part, whose inverse and Jacobian are known.

Directions: a `Warp` maps a point of the *output* (a fixed image) to the point of the *source* (a moving image) that is
seen there. This is what resampling needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from .errors import BadInput
from .volume import Geometry

SLAB = 16  # slices worked on at a time: bounds the memory of float64 coordinates


@dataclass(frozen=True)
class Warp:
    """source = rotation @ (output − centre) + centre + translation + smooth(output), LPS mm.

    `smooth_lps` (K, J, I, 3) float32 is sampled on `geometry` and interpolated linearly; beyond the grid its edge
    goes on. The total, `displacement_lps`, is what a displacement-field transform (ITK's) holds.
    """

    geometry: Geometry
    smooth_lps: np.ndarray  # (K, J, I, 3) mm
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def centre_lps(self) -> np.ndarray:
        """(3,) the grid's centre, mm."""
        i_j_k = (np.array(self.geometry.shape[::-1]) - 1) / 2
        return self.geometry.origin_lps + self.geometry.direction @ (self.geometry.spacing_mm * i_j_k)

    @property
    def displacement_lps(self) -> np.ndarray:
        """(K, J, I, 3) float32 mm: source point − output point, at each voxel of the output."""
        return np.concatenate([self.displacement_at(part, points).astype(np.float32) for part, points in slabs(self.geometry)])

    def displacement_at(self, part: slice, points_lps: np.ndarray) -> np.ndarray:
        """(n, J, I, 3) float64 mm: source point − output point, for a slab of the grid (one of `slabs`)."""
        rigid = (points_lps - self.centre_lps) @ (self.rotation - np.eye(3)).T + self.translation_mm
        return rigid + self.smooth_lps[part]

    def _smooth_at(self, points_lps: np.ndarray) -> np.ndarray:
        from scipy.ndimage import map_coordinates

        k_j_i = voxel_offsets(self.geometry, points_lps - self.geometry.origin_lps)
        return np.stack([map_coordinates(self.smooth_lps[..., c], k_j_i, order=1, mode="nearest") for c in range(3)], axis=-1)

    def to_source(self, points_lps: np.ndarray) -> np.ndarray:
        """(N, 3) output points → source points, LPS mm."""
        moved = (points_lps - self.centre_lps) @ self.rotation.T + self.centre_lps + self.translation_mm
        return moved + self._smooth_at(points_lps)

    def to_output(self, points_lps: np.ndarray, tolerance_mm: float = 1e-4, iterations: int = 200) -> np.ndarray:
        """(N, 3) source points → output points, LPS mm, by fixed-point iteration (Chen et al., Med Phys 35:81, 2008).

        The rigid part is undone exactly, so that large rotations converge as well.

        Raises:
            BadInput: if points are not (N, 3) finite numbers, or the iteration does not settle (a very strong warp).
        """
        points = np.asarray(points_lps, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise BadInput(f"Points must be finite LPS positions of shape (N, 3); these have the shape {points.shape}.")
        unmoved = points - self.centre_lps - self.translation_mm
        output = unmoved @ self.rotation + self.centre_lps
        for _ in range(iterations):
            previous = output
            output = (unmoved - self._smooth_at(previous)) @ self.rotation + self.centre_lps
            if np.abs(output - previous).max(initial=0.0) < tolerance_mm:
                return output
        raise BadInput("The warp is too strong to invert: lower warp_mm or raise smoothness_mm.")

    def inverse_displacement_lps(self) -> np.ndarray:
        """(K, J, I, 3) float32 mm: output point − source point, at each voxel centre taken as a source point."""
        return np.concatenate(
            [
                (self.to_output(points.reshape(-1, 3)).reshape(points.shape) - points).astype(np.float32)
                for _, points in slabs(self.geometry)
            ]
        )

    def jacobian(self) -> np.ndarray:
        """(K, J, I) float32 determinant of d(source)/d(output) by central differences; positive where nothing folds."""
        result = np.empty(self.geometry.shape, np.float32)
        for k in range(0, self.geometry.shape[0], SLAB):
            start, stop = max(k - 1, 0), k + SLAB + 1
            by_k, by_j, by_i = np.gradient(self.smooth_lps[start:stop].astype(np.float64), axis=(0, 1, 2))
            gradient = np.stack([by_i, by_j, by_k], axis=-1) / self.geometry.spacing_mm @ self.geometry.direction.T
            result[k : k + SLAB] = np.linalg.det(self.rotation + gradient)[k - start :][:SLAB]
        return result


def random_warp(
    geometry: Geometry,
    seed: int,
    warp_mm: float,
    smoothness_mm: float,
    rotation_deg: Sequence[float] = (0.0, 0.0, 0.0),
    translation_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> Warp:
    """A warp whose smooth part is drawn from `seed`; the arguments are those of `PhantomSpec`.

    Raises:
        BadInput: a warp that folds or is too fine for the grid.
    """
    vector = np.deg2rad(np.array(rotation_deg, dtype=np.float64))
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle if angle else vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    smooth = np.zeros((*geometry.shape, 3), np.float32)
    if warp_mm:
        if smoothness_mm < 2 * geometry.spacing_mm.max():
            raise BadInput(f"smoothness_mm must be at least two voxels, {2 * geometry.spacing_mm.max():g} mm on this grid.")
        smooth = spline_field(geometry, smoothness_mm, 3, random_stream(seed, "warp"))
        smooth *= warp_mm / np.sqrt((smooth**2).sum(axis=-1).max())
    smooth.setflags(write=False)
    warp = Warp(geometry, smooth, rotation, np.array(translation_mm, dtype=np.float64))
    if warp_mm and warp.jacobian().min() <= 0:
        raise BadInput(f"A warp of {warp_mm:g} mm folds: lower warp_mm or raise smoothness_mm ({smoothness_mm:g} mm).")
    return warp


def spline_field(geometry: Geometry, control_mm: float, channels: int, stream: np.random.Generator) -> np.ndarray:
    """(K, J, I, channels) float32: a uniform cubic B-spline with normal coefficients at every `control_mm`."""
    bases = []
    for n, spacing in zip(geometry.shape, geometry.spacing_mm[::-1], strict=True):
        position = np.arange(n) * spacing / control_mm
        span = int(position[-1]) + 4
        distance = np.abs(position[:, None] - (np.arange(span) - 1))
        near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
        bases.append(np.where(distance < 1, near, far).astype(np.float32))
    result = stream.standard_normal((*(basis.shape[1] for basis in bases), channels), dtype=np.float32)
    for basis in reversed(bases):  # i, j, k: each turn contracts the last lattice axis and puts its voxels in front
        result = np.tensordot(basis, result, (1, 2))
    return result


def random_stream(seed: int, use: str) -> np.random.Generator:
    """The random numbers of one use, independent of all other uses of the seed."""
    return np.random.default_rng([int(seed), crc32(use.encode())])


def slabs(geometry: Geometry) -> Iterator[tuple[slice, np.ndarray]]:
    """Slabs of slices, each with the LPS positions (n, J, I, 3) of its voxel centres in mm."""
    step_i, step_j, step_k = (geometry.direction * geometry.spacing_mm).T
    k, j, i = (np.arange(n)[:, None] for n in geometry.shape)
    plane = geometry.origin_lps + (j * step_j)[:, None] + i * step_i
    for start in range(0, geometry.shape[0], SLAB):
        part = slice(start, start + SLAB)
        yield part, plane + (k[part] * step_k)[:, None, None]


def voxel_offsets(geometry: Geometry, offsets_lps: np.ndarray) -> np.ndarray:
    """(..., 3) LPS vectors in mm → (3, ...) in voxels along k, j, i."""
    return np.moveaxis((offsets_lps @ geometry.direction / geometry.spacing_mm)[..., ::-1], -1, 0)
