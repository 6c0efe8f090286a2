"""What the engines' adapters share: images on grids in two or three dimensions, where to begin, fields after one another.

This runs inside an engine's process: NumPy and SciPy alone, and of the engine's own package folder.

A `Frame` has d = 2 or 3 dimensions. Arrays are [k, j, i] or [j, i]; coordinates are mm, in three dimensions LPS, in two
along i and j from the first voxel of a slice. Points and vectors are in the order x, y (, z), as ITK has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput

SLAB_VOXELS = 1 << 20  # worked on at a time: bounds the memory of float64 coordinates
START_POINTS = 40_000  # of the fixed image, for the choice of the start and the check of the overlap
START_BINS = 32
SLICE_SHARE = 0.01  # a slice with less foreground than this has nothing to register
NO_FIELD_MM = 1e-3
SCALES = (0.05, 20.0)  # of volume, from one head to another
MATCH_KEPT = 0.8  # of the start's mutual information; the engines have other samples and bins, so a little may be lost


class EngineError(Exception):
    """The engine has failed; the text says how."""


@dataclass(frozen=True)
class Frame:
    """A grid: x = origin + direction @ (spacing * (i, j, k)). `shape` is the array's, k first."""

    shape: tuple[int, ...]
    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.shape)

    def indices(self, points: np.ndarray) -> np.ndarray:
        """(..., d) mm -> (..., d) continuous voxel indices, in the array's order (k, j, i)."""
        return ((points - self.origin) @ np.linalg.inv(self.direction * self.spacing).T)[..., ::-1]

    def slabs(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Parts of the array's first axis, each with its voxel centres (n, ..., d) in mm, float64."""
        rows = max(1, SLAB_VOXELS // int(np.prod(self.shape[1:])))
        axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in self.shape[1:]), indexing="ij")
        for start in range(0, self.shape[0], rows):
            first = np.arange(start, min(start + rows, self.shape[0]), dtype=np.float64)
            k = np.broadcast_to(first.reshape(-1, *[1] * len(axes)), (len(first), *self.shape[1:]))
            index = np.stack([*(np.broadcast_to(axis, k.shape) for axis in reversed(axes)), k], axis=-1)
            yield slice(start, start + len(first)), index @ (self.direction * self.spacing).T + self.origin


@dataclass(frozen=True)
class Problem:
    """One registration, as an adapter gets it.

    Attributes:
        fixed, moving: float32 images, one each a channel; all fixed ones on `fixed_frame`, all moving ones on `moving_frame`.
        weights: of the channels; their sum is 1.
        fixed_mask, moving_mask: bool arrays, or None.
        matrix: (d + 1, d + 1), A of the start x -> A(x + u(x)).
        displacement: (*fixed shape, d) float32 mm, u of the start on `fixed_frame`, or None for 0.
        settings: of the stage.
        seed: above 0 and below 2**31: some engines take 0 for "by the clock".
    """

    fixed: list[np.ndarray]
    moving: list[np.ndarray]
    weights: list[float]
    fixed_frame: Frame
    moving_frame: Frame
    settings: Mapping[str, Any]
    matrix: np.ndarray
    displacement: np.ndarray | None = None
    fixed_mask: np.ndarray | None = None
    moving_mask: np.ndarray | None = None
    seed: int = 1
    threads: int = 1
    names: tuple[str, str] = ("the fixed image", "the moving image")
    folder: Path = field(default_factory=Path.cwd)

    def fill(self, template: str, **values: object) -> list[str]:
        """The words of a preset's template, with the stage's settings and `values` in the places of {names}.

        Raises:
            BadInput: a name in braces that nothing stands for.
        """
        known = {**self.settings, "seed": self.seed, "threads": self.threads, "dimension": len(self.matrix) - 1, **values}
        try:
            return template.format_map(known).split()
        except (KeyError, IndexError, ValueError) as error:
            raise BadInput(f"The engine's settings ask for {error}, which is none of {', '.join(sorted(known))}.") from error


def flip_lps_ras(matrix: np.ndarray) -> np.ndarray:
    """A (d + 1, d + 1) matrix between LPS points as one between RAS points, or back. In two dimensions both axes turn too."""
    signs = np.ones(len(matrix))
    signs[:2] = -1
    return matrix * signs[:, None] * signs


def apply_matrix(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(..., d) points -> (..., d)."""
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]


def matrix_of(transform_point: Any, dimension: int) -> np.ndarray:
    """The (d + 1, d + 1) matrix of a linear map, given as a function of a point."""
    corners = np.vstack([np.zeros(dimension), np.eye(dimension)])
    mapped = np.array([list(transform_point([float(value) for value in corner])) for corner in corners])
    matrix = np.eye(dimension + 1)
    matrix[:-1, :-1] = (mapped[1:] - mapped[0]).T
    matrix[:-1, -1] = mapped[0]
    return matrix


def sample(array: np.ndarray, frame: Frame, points: np.ndarray, outside: float | None = 0.0) -> np.ndarray:
    """(n,) float64: the array on `frame` at (n, d) points, linear; `outside` beyond the outer voxel centres, None for their
    values."""
    from scipy.ndimage import map_coordinates

    index = frame.indices(points).T
    edge = np.array(frame.shape)[:, None] - 1
    inside = ((index >= -1e-6) & (index <= edge + 1e-6)).all(axis=0) | (outside is None)
    result = np.full(index.shape[1], outside or 0.0)
    at = np.clip(index[:, inside], 0, edge)
    result[inside] = map_coordinates(array, at, order=1, mode="nearest", output=np.float64)
    return result


def after(second: np.ndarray | None, first: np.ndarray, frame: Frame) -> np.ndarray:
    """float32 field of x + first(x) + second(x + first(x)), all on `frame`: the map of `first`, then that of `second`."""
    if second is None:
        return np.asarray(first, dtype=np.float32)
    result = np.empty(first.shape, np.float32)
    for part, points in frame.slabs():
        at = (points + first[part]).reshape(-1, frame.dimension)
        # Beyond the frame its edge goes on: a field that ended at once would fold there.
        moved = np.stack([sample(second[..., c], frame, at, outside=None) for c in range(frame.dimension)], axis=-1)
        result[part] = first[part] + moved.reshape(first[part].shape)
    return result


def resampled(vectors: np.ndarray, frame: Frame, onto: Frame) -> np.ndarray:
    """A field (..., d) on `frame` as a float32 one on the grid `onto`, linear; beyond `frame` its edge goes on."""
    same = frame.shape == onto.shape and all(
        np.allclose(getattr(frame, name), getattr(onto, name), atol=1e-3) for name in ("spacing", "origin", "direction")
    )
    if same:
        return vectors.astype(np.float32, copy=False)
    result = np.empty((*onto.shape, vectors.shape[-1]), np.float32)
    for part, points in onto.slabs():
        at = points.reshape(-1, onto.dimension)
        moved = [sample(vectors[..., c], frame, at, outside=None) for c in range(vectors.shape[-1])]
        result[part] = np.stack(moved, axis=-1).reshape(*points.shape[:-1], -1)
    return result


def field_before(matrix: np.ndarray, total: np.ndarray, frame: Frame) -> np.ndarray:
    """float32 u with A(x + u(x)) = x + total(x), for a field `total` on `frame`."""
    back = np.linalg.inv(matrix)
    result = np.empty(total.shape, np.float32)
    for part, points in frame.slabs():
        result[part] = apply_matrix(back, points + total[part]) - points
    return result


def foreground(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """bool: where an image shows something: above the middle between its lowest value and its mean, and in the mask."""
    threshold = image.min() + 0.5 * (image.mean(dtype=np.float64) - image.min())
    shown = image > threshold
    return shown if mask is None else shown & mask


def meet(problem: Problem, matrix: np.ndarray) -> bool:
    """Whether the foregrounds of the first channel meet under the start."""
    shown = foreground(problem.moving[0], problem.moving_mask).astype(np.float32)
    points = _points_of(problem, foreground(problem.fixed[0], problem.fixed_mask))
    return bool(len(points)) and sample(shown, problem.moving_frame, apply_matrix(matrix, points)).max() > 0


def is_astray(problem: Problem, matrix: np.ndarray) -> bool:
    """Whether a linear result is no result: volumes that heads do not have, or images that match far less than at the start."""
    if not (np.isfinite(matrix).all() and SCALES[0] < np.linalg.det(matrix[:-1, :-1]) < SCALES[1] and meet(problem, matrix)):
        return True
    return _mutual_information(problem, matrix) < MATCH_KEPT * _mutual_information(problem, problem.matrix)


def check_overlap(problem: Problem) -> None:
    """Raises BadInput if the foregrounds do not meet under the start."""
    if not meet(problem, problem.matrix):
        fixed, moving = problem.names
        raise BadInput(
            f"{fixed} and {moving} do not overlap where their registration begins. "
            "Align them roughly first, or let the linear stage begin by itself (without an initial transform)."
        )


def with_best_start(problem: Problem) -> Problem:
    """The problem with the better start of two: the coordinates as they are, or the centres of mass on one another.

    The better one has the higher mutual information (32 bins) in the first channel. Scanner coordinates are the better
    start for images of one examination, centres of mass for images of different people.
    """
    centred = np.array(problem.matrix)
    fixed, moving = (
        _centre(images[0], mask, frame)
        for images, mask, frame in (
            (problem.fixed, problem.fixed_mask, problem.fixed_frame),
            (problem.moving, problem.moving_mask, problem.moving_frame),
        )
    )
    centred[:-1, -1] = moving - problem.matrix[:-1, :-1] @ fixed
    starts = [matrix for matrix in (problem.matrix, centred) if meet(problem, matrix)] or [problem.matrix]
    return replace(problem, matrix=max(starts, key=lambda matrix: _mutual_information(problem, matrix)))


def _points_of(problem: Problem, where: np.ndarray) -> np.ndarray:
    """(n, d) some voxel centres of the fixed image, evenly out of those in `where`."""
    index = np.argwhere(where)
    index = index[:: max(1, len(index) // START_POINTS)][:, ::-1]
    frame = problem.fixed_frame
    return index @ (frame.direction * frame.spacing).T + frame.origin


def _centre(image: np.ndarray, mask: np.ndarray | None, frame: Frame) -> np.ndarray:
    """(d,) mm: the centre of the foreground; every voxel of it weighs the same, as contrasts differ."""
    centre = np.argwhere(foreground(image, mask)).mean(axis=0)[::-1]
    return frame.origin + frame.direction @ (frame.spacing * centre)


def _mutual_information(problem: Problem, matrix: np.ndarray) -> float:
    points = _points_of(problem, np.ones(problem.fixed_frame.shape, bool))
    fixed = sample(problem.fixed[0], problem.fixed_frame, points)
    moving = sample(problem.moving[0], problem.moving_frame, apply_matrix(matrix, points), float(problem.moving[0].min()))
    joint = np.histogram2d(fixed, moving, bins=START_BINS)[0] / len(points)
    by_chance = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / by_chance[seen])).sum())


# The two-dimensional mode: slice by slice.


def slice_problem(problem: Problem, k: int, start: np.ndarray | None) -> Problem | None:
    """Slice k of the fixed and of the moving image as a problem in two dimensions; None if one of them shows nothing.

    Args:
        start: (J, I, 2) float64, for the pixels of the fixed slice their start in the moving slice, as continuous indices
            i, j; None for the same place in mm from the slice's first pixel.
    """
    cut = replace(
        problem,
        fixed=[np.ascontiguousarray(image[k]) for image in problem.fixed],
        moving=[np.ascontiguousarray(image[k]) for image in problem.moving],
        fixed_mask=None if problem.fixed_mask is None else problem.fixed_mask[k],
        moving_mask=None if problem.moving_mask is None else problem.moving_mask[k],
        fixed_frame=_slice_frame(problem.fixed_frame),
        moving_frame=_slice_frame(problem.moving_frame),
        matrix=np.eye(3),
        displacement=None,
    )
    for image, mask in ((cut.fixed[0], cut.fixed_mask), (cut.moving[0], cut.moving_mask)):
        if foreground(image, mask).mean() < SLICE_SHARE:
            return None
    return cut if start is None else _with_start(cut, start * cut.moving_frame.spacing)


def _slice_frame(frame: Frame) -> Frame:
    return Frame(frame.shape[1:], frame.spacing[:2], np.zeros(2), np.eye(2))


def _with_start(cut: Problem, target: np.ndarray) -> Problem:
    """A start given as points (J, I, 2) mm of the moving slice: the linear map nearest to it, and what that leaves."""
    (_, points), *rest = cut.fixed_frame.slabs()
    points = np.concatenate([points, *(part for _, part in rest)]).reshape(-1, 2)
    design = np.column_stack([points, np.ones(len(points))])
    matrix = np.eye(3)
    matrix[:2] = np.linalg.lstsq(design, target.reshape(-1, 2), rcond=None)[0].T
    left = (apply_matrix(np.linalg.inv(matrix), target.reshape(-1, 2)) - points).reshape(target.shape)
    return replace(cut, matrix=matrix, displacement=left.astype(np.float32) if np.abs(left).max() > NO_FIELD_MM else None)


def slice_indices(cut: Problem, matrix: np.ndarray, displacement: np.ndarray | None) -> np.ndarray:
    """(J, I, 2) float64: where the pixels of the fixed slice lie in the moving one, as continuous indices i, j."""
    result = np.empty((*cut.fixed_frame.shape, 2))
    for part, points in cut.fixed_frame.slabs():
        shifted = points if displacement is None else points + displacement[part]
        result[part] = apply_matrix(matrix, shifted) / cut.moving_frame.spacing
    return result
