"""From a volume to the network's slices and back onto the volume's grid.

Two in-plane modes. *Paper*: each slice is resized to a square (256×256; Yang et al. 2020, Experiments), whatever its
shape. *Spatial*: the head's box is resampled to a fixed mm spacing and padded to the network's stride, so that
nothing is distorted and no network time goes into air. Through the plane nothing is resampled; a network may also
see the neighbours at given distances in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from .errors import BadInput

NETWORK_BACKGROUND = -1.0  # normalised 0 after the map of [0, 1] to tanh's [-1, 1]


def resampling_matrix(
    n_in: int, spacing_in: float, n_out: int, spacing_out: float, start_in: float = 0.0, start_out: float = 0.0
) -> np.ndarray:
    """Linear interpolation along one axis as a matrix, with a wider triangle where it shrinks (no aliasing).

    Args:
        n_in, spacing_in, start_in: number of samples, their distance, and the position of the first sample's near
            edge, in mm (or any unit). Likewise `n_out`, `spacing_out`, `start_out`.

    Returns:
        (n_out, n_in) float32; rows sum to 1. Output beyond the input repeats the outermost sample. The identity
        if both grids are the same.
    """
    centres_in = start_in + (np.arange(n_in) + 0.5) * spacing_in
    centres_out = start_out + (np.arange(n_out) + 0.5) * spacing_out
    centres_out = np.clip(centres_out, centres_in[0], centres_in[-1])
    width = max(spacing_in, spacing_out)
    weights = np.clip(1 - np.abs(centres_out[:, None] - centres_in[None, :]) / width, 0, None)
    weights[weights < 1e-9] = 0
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class SlicingSpec:
    """How a model wants its slices (a part of its card).

    Attributes:
        plane: axial, coronal or sagittal.
        mode: "paper" (resize to `size`) or "spatial" (`spacing_mm`, padded to the network's stride).
        size: (rows, columns) in paper mode.
        spacing_mm: in-plane spacing in spatial mode.
        neighbours_mm: distances in mm along the slice axis of the slices that form the input channels; (0.0,) is
            the slice alone.
    """

    plane: str = "axial"
    mode: str = "paper"
    size: tuple[int, int] = (256, 256)
    spacing_mm: float = 1.0
    neighbours_mm: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class SliceGrid:
    """The way between a volume's in-plane box and the network's image, for one volume.

    Attributes:
        box: (first row, end row, first column, end column) of the anatomical array that the network sees.
        shape: (rows, columns) of the network's image.
        to_rows, to_columns: resampling matrices box → image, (rows, box rows) and (columns, box columns).
        from_rows, from_columns: the way back, (box rows, rows) and (box columns, columns).
        inside: boolean image, False where it is padding.
    """

    box: tuple[int, int, int, int]
    shape: tuple[int, int]
    to_rows: np.ndarray
    to_columns: np.ndarray
    from_rows: np.ndarray
    from_columns: np.ndarray
    inside: np.ndarray

    def to_network(self, slices: np.ndarray) -> np.ndarray:
        """Anatomical slices [n, j, i] of normalised intensities → network images [n, rows, columns], tanh's range."""
        top, bottom, left, right = self.box
        images = self.to_rows @ slices[:, top:bottom, left:right].astype(np.float32, copy=False) @ self.to_columns.T
        images *= 2
        images -= 1
        images[:, ~self.inside] = NETWORK_BACKGROUND
        return images

    def from_network(self, images: np.ndarray, plane_shape: tuple[int, int], outside: float = 0.0) -> np.ndarray:
        """Images [n, rows, columns] on the network's grid → slices [n, *plane_shape]; `outside` beyond the box."""
        top, bottom, left, right = self.box
        slices = np.full((len(images), *plane_shape), outside, np.float32)
        slices[:, top:bottom, left:right] = self.from_rows @ images.astype(np.float32) @ self.from_columns.T
        return slices


def head_box(head: np.ndarray, margin: int = 2) -> tuple[int, int, int, int]:
    """The in-plane box of a boolean mask [k, j, i] with `margin` pixels around it, within the array."""
    rows = np.flatnonzero(head.any(axis=(0, 2)))
    columns = np.flatnonzero(head.any(axis=(0, 1)))
    if rows.size == 0:
        raise BadInput("The volume is all background: it shows nothing.")
    _, n_rows, n_columns = head.shape
    return (
        max(int(rows[0]) - margin, 0),
        min(int(rows[-1]) + 1 + margin, n_rows),
        max(int(columns[0]) - margin, 0),
        min(int(columns[-1]) + 1 + margin, n_columns),
    )


def slice_grid(spec: SlicingSpec, head: np.ndarray, spacing_ji: tuple[float, float], stride: int) -> SliceGrid:
    """The slice grid of one volume.

    Args:
        spec: the model's slicing.
        head: boolean [k, j, i] in anatomical orientation, True where there is head (spatial mode crops to it).
        spacing_ji: the volume's voxel size in mm along rows and columns.
        stride: the network's total stride; spatial mode pads the image to a multiple of it.

    Raises:
        BadInput: if the mode is unknown or paper mode's size is not a multiple of the stride.
    """
    if spec.mode == "paper":
        box = (0, head.shape[1], 0, head.shape[2])
        if any(n % stride for n in spec.size):
            raise BadInput(f"A slice size of {spec.size} is not a multiple of the network's stride, {stride}.")
        extents = [(n_in, 1.0, n_out, n_in / n_out, 0.0) for n_in, n_out in zip(head.shape[1:], spec.size, strict=True)]
    elif spec.mode == "spatial":
        box = head_box(head)
        extents = []
        for n_in, spacing in zip((box[1] - box[0], box[3] - box[2]), spacing_ji, strict=True):
            length = n_in * spacing
            pixels = round(length / spec.spacing_mm, 3)  # headers in float32 say 256.00001 for 256
            n_out = max(stride, stride * ceil(pixels / stride))
            # The box sits in the middle of the image, by whole pixels: on a grid of the model's own spacing
            # nothing is interpolated at all.
            before = floor((n_out - pixels) / 2) * spec.spacing_mm
            extents.append((n_in, spacing, n_out, spec.spacing_mm, -before))
    else:
        raise BadInput(f"Unknown slicing mode {spec.mode!r}: use paper or spatial.")
    to, back, inside = [], [], []
    for n_in, spacing_in, n_out, spacing_out, start_out in extents:
        to.append(resampling_matrix(n_in, spacing_in, n_out, spacing_out, 0.0, start_out))
        centres = start_out + (np.arange(n_out) + 0.5) * spacing_out
        within = (centres > 0) & (centres < n_in * spacing_in)
        if not within.any():  # a box narrower than a pixel
            within[np.abs(centres - n_in * spacing_in / 2).argmin()] = True
        inside.append(within)
        weights = resampling_matrix(n_out, spacing_out, n_in, spacing_in, start_out, 0.0) * inside[-1]
        back.append(weights / weights.sum(axis=1, keepdims=True))  # nothing comes back from the padding
    return SliceGrid(
        box, (extents[0][2], extents[1][2]), to[0], to[1], back[0], back[1], inside[0][:, None] & inside[1][None, :]
    )


def neighbour_weights(k: int, n_slices: int, spacing_mm: float, offset_mm: float) -> list[tuple[int, float]]:
    """The slices, with linear weights, that make up the image at `offset_mm` from slice `k`; ends are repeated."""
    position = min(max(k + offset_mm / spacing_mm, 0.0), n_slices - 1.0)
    below = min(int(position), n_slices - 1)
    weight = position - below
    if weight < 1e-6 or below + 1 >= n_slices:
        return [(below, 1.0)]
    return [(below, 1.0 - weight), (below + 1, weight)]


def with_neighbours(images: np.ndarray, indices: list[int], spacing_mm: float, offsets_mm: tuple[float, ...]) -> np.ndarray:
    """Stack each slice with its neighbours as channels.

    Args:
        images: [k, rows, columns], all slices of the volume on the network's grid.
        indices: the slices wanted.
        spacing_mm: distance of slices.
        offsets_mm: the distances of the channels.

    Returns:
        [len(indices), len(offsets_mm), rows, columns], float32.
    """
    stacked = np.empty((len(indices), len(offsets_mm), *images.shape[1:]), np.float32)
    for n, k in enumerate(indices):
        for channel, offset in enumerate(offsets_mm):
            parts = neighbour_weights(k, len(images), spacing_mm, offset)
            stacked[n, channel] = sum(weight * images[index] for index, weight in parts)
    return stacked
