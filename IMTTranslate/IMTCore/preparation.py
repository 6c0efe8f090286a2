"""One volume made ready for a network, with all that leads back to its grid. Training and inference share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intensity import AIR_SHARE, Normalisation, foreground_mask, normalisation_of
from .orientation import AxisMap, anatomical_axes
from .slicing import SliceGrid, SlicingSpec, slice_grid, with_neighbours
from .volume import Volume


@dataclass(frozen=True)
class PreparedVolume:
    """A volume as network images.

    Attributes:
        images: [k, rows, columns] float32 in [-1, 1], all slices in anatomical order, no neighbours yet.
        filled: [k] True where a slice has foreground; the others need no network.
        axes, grid: the way back to the stored array.
        normalisation: of the whole volume.
        foreground: [k, j, i] anatomical, False where the volume is background.
        spacing_kji: voxel size in mm along the anatomical axes.
    """

    images: np.ndarray
    filled: np.ndarray
    axes: AxisMap
    grid: SliceGrid
    normalisation: Normalisation
    foreground: np.ndarray
    spacing_kji: tuple[float, float, float]
    spec: SlicingSpec

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distances in mm of the network images' slices, rows and columns."""
        if self.spec.mode == "spatial":
            return self.spacing_kji[0], self.spec.spacing_mm, self.spec.spacing_mm
        top, bottom, left, right = self.grid.box
        rows, columns = self.grid.shape
        return self.spacing_kji[0], self.spacing_kji[1] * (bottom - top) / rows, self.spacing_kji[2] * (right - left) / columns

    def batch(self, slices: list[int]) -> np.ndarray:
        """Network input [n, channels, rows, columns] of these slices."""
        return with_neighbours(self.images, slices, self.spacing_kji[0], self.spec.neighbours_mm)

    def restore(self, slices: list[int], images: np.ndarray) -> np.ndarray:
        """Network-grid images [n, rows, columns] of `slices` → stored array [k, j, i], 0 in the background.

        Slices that are not given, pixels beyond the head's box and background voxels are 0.
        """
        anatomical = np.zeros(self.foreground.shape, np.float32)
        if slices:
            anatomical[slices] = self.grid.from_network(images, self.foreground.shape[1:])
        anatomical[~self.foreground] = 0
        return np.ascontiguousarray(self.axes.invert(anatomical))


def prepare(volume: Volume, spec: SlicingSpec, stride: int, percentile: float = 99.5) -> PreparedVolume:
    """Orient, normalise and slice a volume as a model wants it.

    Args:
        volume: the input.
        spec: the model's slicing.
        stride: the network's total stride.
        percentile: the foreground percentile that becomes 1; what is brighter is clipped to it.

    Raises:
        BadInput: if the volume has no foreground or no contrast.
    """
    axes = anatomical_axes(volume.geometry, spec.plane)
    spacing = axes.spacing_kji(volume.geometry)
    array = axes.apply(volume.array)
    normalisation = normalisation_of(array, percentile)
    foreground = foreground_mask(array, normalisation.background)
    normalised = np.clip(normalisation.apply(array), 0, 1)
    normalised[~foreground] = 0
    grid = slice_grid(spec, normalised > AIR_SHARE, spacing[1:], stride)
    top, bottom, left, right = grid.box
    filled = (normalised[:, top:bottom, left:right] > 0).any(axis=(1, 2))
    return PreparedVolume(grid.to_network(normalised), filled, axes, grid, normalisation, foreground, spacing, spec)
