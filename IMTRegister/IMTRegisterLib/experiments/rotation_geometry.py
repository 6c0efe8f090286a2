"""Rotations about an axis, grids that hold a turned head, and points spread over it."""

from __future__ import annotations

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry

from ..deformations.transforms import Transform, voxel_centres

POINTS = 15  # generated in a subject without landmarks
MANY_POINTS = 20_000  # labelled voxels looked at, at most
PATIENT_AXES = {"L": (1.0, 0.0, 0.0), "P": (0.0, 1.0, 0.0), "S": (0.0, 0.0, 1.0)}


def axis_vector(axis: str | tuple[float, float, float], geometry: Geometry) -> np.ndarray:
    """(3,) unit LPS vector of "L", "P", "S", of the grid's "i", "j", "k", or of three numbers.

    Raises:
        BadInput: none of these.
    """
    if isinstance(axis, str):
        if axis in PATIENT_AXES:
            return np.array(PATIENT_AXES[axis])
        if axis in ("i", "j", "k"):
            return geometry.direction[:, "ijk".index(axis)]
        raise BadInput(f"There is no axis {axis!r}: use L, P, S, i, j, k, or three numbers (LPS).")
    vector = np.array(axis, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all() or np.linalg.norm(vector) < 1e-6:
        raise BadInput(f"An axis is three numbers (LPS) that are not all 0, not {axis}.")
    return vector / np.linalg.norm(vector)


def rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    """(3, 3) rotation about a unit vector (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation in a (3, 3) linear map (its polar decomposition)."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def about_centre(turning: np.ndarray, centre: np.ndarray) -> Transform:
    """x -> R(x - c) + c."""
    matrix = np.eye(4)
    matrix[:3, :3] = turning
    matrix[:3, 3] = centre - turning @ centre
    return Transform(matrix)


def centre_of(geometry: Geometry) -> np.ndarray:
    """(3,) LPS mm: the grid's centre."""
    return geometry.origin_lps + geometry.direction @ (geometry.spacing_mm * (np.array(geometry.shape[::-1]) - 1) / 2)


def covering(head: Geometry, transform: Transform) -> Geometry:
    """A grid with the voxels and directions of `head` that holds all that `transform` maps into it."""
    corners = [[i, j, k] for i in (0, head.shape[2] - 1) for j in (0, head.shape[1] - 1) for k in (0, head.shape[0] - 1)]
    points = head.origin_lps + (np.array(corners) * head.spacing_mm) @ head.direction.T
    back = Transform(np.linalg.inv(transform.matrix)).to_moving(points)
    i_j_k = (back - head.origin_lps) @ head.direction / head.spacing_mm
    low, high = np.floor(i_j_k.min(axis=0) + 1e-6), np.ceil(i_j_k.max(axis=0) - 1e-6)
    origin = head.origin_lps + head.direction @ (head.spacing_mm * low)
    return Geometry(tuple((high - low + 1).astype(int)[::-1]), head.spacing_mm, origin, head.direction)


def spread_points(labels: np.ndarray, geometry: Geometry, count: int = POINTS) -> dict[str, np.ndarray]:
    """Points of the labelled voxels, each as far as can be from all before it: "P1", ... -> (3,) LPS mm. Always the same."""
    points = voxel_centres(geometry)[labels > 0]
    if len(points) < count:
        raise BadInput(f"The labels have only {len(points)} voxels: too few to measure a transform at.")
    points = points[:: max(1, len(points) // MANY_POINTS)]
    chosen = [points[np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()]]
    nearest = np.linalg.norm(points - chosen[0], axis=1)
    while len(chosen) < count:
        chosen.append(points[nearest.argmax()])
        nearest = np.minimum(nearest, np.linalg.norm(points - chosen[-1], axis=1))
    return {f"P{number}": point for number, point in enumerate(chosen, start=1)}
