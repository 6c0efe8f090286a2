"""How a task's images get into an engine's process, and its answer back: NumPy files in the session's private folder.

The images are read here, by IMT's own reader: so every format counts, and the engines see the grids that all of IMT
sees, whatever the names of the files are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume

from ..deformations.transforms import Transform, sample_field, voxel_centres, voxel_indices

if TYPE_CHECKING:
    from .tasks import Task

SAME_GRID_MM = 1e-2
HALF_SLICE = 0.5


class TaskImages:
    """The images of a task, read and checked.

    Raises:
        BadInput: one cannot be read, they are on different grids, a mask is empty, or the slices do not fit.
    """

    def __init__(self, task: Task) -> None:
        from IMTCore.volume_io import read_volume

        self.fixed = [read_volume(channel.fixed) for channel in task.channels]
        self.moving = [read_volume(channel.moving) for channel in task.channels]
        _check_grids(self.fixed, "fixed")
        _check_grids(self.moving, "moving")
        self.fixed_mask = _read_mask(task.fixed_mask, self.fixed[0])
        self.moving_mask = _read_mask(task.moving_mask, self.moving[0])
        if min(*self.fixed[0].array.shape[3 - task.dimension :], *self.moving[0].array.shape[3 - task.dimension :]) < 4:
            raise BadInput(f"{self.fixed[0].name} or {self.moving[0].name} is thinner than four voxels: too thin to register.")
        if task.dimension == 2:
            self._check_slices()

    @property
    def geometry(self) -> Geometry:
        """The grid of the fixed images, on which fields come back."""
        return self.fixed[0].geometry

    def _check_slices(self) -> None:
        fixed, moving = self.fixed[0], self.moving[0]
        if fixed.array.shape[0] != moving.array.shape[0]:
            raise BadInput(
                f"{fixed.name} has {fixed.array.shape[0]} slices and {moving.name} {moving.array.shape[0]}. "
                "Registration slice by slice needs as many in both: resample one onto the other's grid, or register in 3D."
            )
        if fixed.array.shape != moving.array.shape:
            raise BadInput(
                f"The slices of {fixed.name} have {fixed.array.shape[2]} x {fixed.array.shape[1]} pixels and those of "
                f"{moving.name} {moving.array.shape[2]} x {moving.array.shape[1]}. Resample one onto the other's grid, or register in 3D."
            )

    def request(self, task: Task, folder: Path) -> dict[str, Any]:
        """Write the arrays into `folder`; gives what the engine's process needs to know of them."""
        total = sum(channel.weight for channel in task.channels)
        channels = []
        for n, (fixed, moving, channel) in enumerate(zip(self.fixed, self.moving, task.channels, strict=True)):
            channels.append(
                {
                    "fixed": _save(folder / f"fixed{n}.npy", fixed.array.astype(np.float32)),
                    "moving": _save(folder / f"moving{n}.npy", moving.array.astype(np.float32)),
                    "weight": channel.weight / total,
                }
            )
        return {
            "channels": channels,
            "names": [self.fixed[0].name, self.moving[0].name],
            "fixed_frame": _frame(self.geometry),
            "moving_frame": _frame(self.moving[0].geometry),
            "fixed_mask": _save(folder / "fixed_mask.npy", self.fixed_mask),
            "moving_mask": _save(folder / "moving_mask.npy", self.moving_mask),
            "matrix": task.initial.matrix.tolist(),
            "displacement": _save(folder / "start.npy", self._displacement(task)),
            "start": _save(folder / "slices.npy", self._start_of_slices(task)),
            "start_given": _is_given(task.initial),
            "result": f"{folder.name}/result.npy",
        }

    def _displacement(self, task: Task) -> np.ndarray | None:
        """The warm start's field on the fixed grid."""
        start = task.initial
        if start.displacement is None or task.dimension == 2:
            return None
        if start.geometry.is_close(self.geometry):
            return start.displacement
        result = np.empty((*self.geometry.shape, 3), np.float32)
        for k in range(len(result)):
            points = voxel_centres(self.geometry, slice(k, k + 1))
            result[k] = sample_field(start.displacement, start.geometry, points.reshape(-1, 3)).reshape(points.shape[1:])
        return result

    def _start_of_slices(self, task: Task) -> np.ndarray | None:
        """(K, J, I, 2) float64: where a given start takes the voxels of the fixed slices in the moving ones, indices i, j."""
        if task.dimension == 3 or not _is_given(task.initial):
            return None
        result = np.empty((*self.geometry.shape, 2))
        slices = np.arange(self.geometry.shape[0])[:, None, None]
        for part, points in task.initial.slabs(self.geometry):
            index = voxel_indices(self.moving[0].geometry, points)
            if np.abs(index[..., 2] - slices[part]).max() > HALF_SLICE:
                raise BadInput("The initial transform leaves its slice. Registration slice by slice needs one within the slices.")
            result[part] = index[..., :2]
        return result

    def transform(self, task: Task, answer: dict[str, Any], folder: Path) -> Transform:
        """The answer of the engine's process as a transform; the deformable stage's matrix is the task's own, bit for bit."""
        result = None if answer["field"] is None else np.load(folder / answer["field"])
        if task.dimension == 2:
            return Transform(displacement=self._slices_to_field(result), geometry=self.geometry)
        if result is None:
            return Transform(np.array(answer["matrix"]))
        return Transform(task.initial.matrix, result, self.geometry)

    def _slices_to_field(self, indices: np.ndarray) -> np.ndarray:
        """(K, J, I, 3) float32 mm of indices (K, J, I, 2) i, j in the moving slices of the same numbers."""
        moving = self.moving[0].geometry
        steps = (moving.direction * moving.spacing_mm).T
        field = np.empty((*self.geometry.shape, 3), np.float32)
        for k in range(len(field)):
            target = moving.origin_lps + indices[k] @ steps[:2] + k * steps[2]
            field[k] = target - voxel_centres(self.geometry, slice(k, k + 1))[0]
        return field


def _check_grids(volumes: list[Volume], which: str) -> None:
    for other in volumes[1:]:
        if not other.geometry.is_close(volumes[0].geometry, SAME_GRID_MM):
            raise BadInput(
                f"The {which} images {volumes[0].name} and {other.name} are on different grids. "
                "Channels that are registered together need one: resample one onto the other."
            )


def _read_mask(path: Path | None, image: Volume) -> np.ndarray | None:
    if path is None:
        return None
    from IMTCore.volume_io import read_volume

    mask = read_volume(path)
    if not mask.geometry.is_close(image.geometry, SAME_GRID_MM):
        raise BadInput(f"The mask {mask.name} is not on the grid of {image.name}. Resample it.")
    if not (mask.array > 0).any():
        raise BadInput(f"The mask {mask.name} is empty: nothing would be registered.")
    return mask.array > 0


def _is_given(start: Transform) -> bool:
    return start.displacement is not None or not np.array_equal(start.matrix, np.eye(4))


def _frame(geometry: Geometry) -> dict[str, Any]:
    values = {"spacing": geometry.spacing_mm, "origin": geometry.origin_lps, "direction": geometry.direction}
    return {"shape": geometry.shape} | {name: value.tolist() for name, value in values.items()}


def _save(path: Path, array: np.ndarray | None) -> str | None:
    """Write an array; gives its name below the session's folder."""
    if array is None:
        return None
    np.save(path, np.ascontiguousarray(array))
    return f"{path.parent.name}/{path.name}"
