"""What a regression forest sees of a voxel: a local patch, smoothed copies around it, and its place in the head.

After Jog et al. 2017 (REPLICA, Med Image Anal 35:475-488), which gives a forest the 3×3×3 patch of each voxel and a wider
context at several resolutions. The layout is ours: Gaussian smoothings at doubling widths, each sampled at the voxel and on
both sides of it along each axis. All distances are in mm, so that a forest means the same on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, floor

import torch
from torch import Tensor

from .intensity import AIR_SHARE

REACH = 2.0  # smoothed copies are sampled this many sigmas from the voxel
TRUNCATE = 4.0  # sigmas at which the Gaussian ends
AIR = 2 * AIR_SHARE - 1  # in [-1, 1]: voxels at or below it do not count for the head's box
SIDES = [tuple(sign * (axis == n) for n in range(3)) for axis in range(3) for sign in (-1, 1)]
PATCHES = {0: [], 6: SIDES, 26: [offset for offset in product((-1, 0, 1), repeat=3) if any(offset)]}


@dataclass(frozen=True)
class FeatureSpec:
    """Which features a forest sees.

    Attributes:
        step_mm: distance of the patch's neighbours, and sigma of the first smoothing.
        neighbours: the patch's neighbours: 26 (3×3×3), 6 (faces only) or 0.
        levels: number of smoothings, of sigma step_mm, 2·step_mm, 4·step_mm …; 0 for no context.
    """

    step_mm: float = 1.0
    neighbours: int = 6
    levels: int = 4

    def __post_init__(self) -> None:
        if self.neighbours not in PATCHES:
            raise ValueError(f"neighbours must be 0, 6 or 26, not {self.neighbours}")

    @property
    def sigmas_mm(self) -> list[float]:
        """The smoothings' widths."""
        return [self.step_mm * 2**level for level in range(self.levels)]

    @property
    def per_image(self) -> int:
        """Features of one image: the voxel, its neighbours, and 7 samples of each smoothing."""
        return 1 + self.neighbours + (1 + len(SIDES)) * self.levels

    def count(self, images: int) -> int:
        """Features of a voxel in `images` images (the source; with auto-context the first translation too)."""
        return images * self.per_image + 3


class ImageFeatures:
    """One image [k, rows, columns] and its smoothed copies, ready to be sampled.

    Args:
        image: float32 [k, rows, columns], in [-1, 1].
        spacing_kji: distances of its samples in mm.
        spec: the features.
    """

    def __init__(self, image: Tensor, spacing_kji: tuple[float, float, float], spec: FeatureSpec) -> None:
        self.shape, self.spacing, self.spec = image.shape, spacing_kji, spec
        near = [(0, 0, 0), *PATCHES[spec.neighbours]]
        self.samples = [(image.reshape(-1), [tuple(n * spec.step_mm for n in offset) for offset in near])]
        for sigma in spec.sigmas_mm:
            around = [tuple(n * REACH * sigma for n in offset) for offset in [(0, 0, 0), *SIDES]]
            self.samples.append((smoothed(image, spacing_kji, sigma).reshape(-1), around))

    def at(self, kji: tuple[Tensor, Tensor, Tensor], out: Tensor) -> None:
        """Write the features of voxels (three int64 index tensors (voxels,)) into `out` (per_image, voxels)."""
        shifted: dict[tuple[int, int], Tensor] = {}
        row = 0
        for image, offsets in self.samples:
            for offset in offsets:
                _sample(image, self.shape, kji, [mm / s for mm, s in zip(offset, self.spacing, strict=True)], shifted, out[row])
                row += 1


def _sample(
    image: Tensor,
    shape: torch.Size,
    kji: tuple[Tensor, Tensor, Tensor],
    offset: list[float],
    shifted: dict[tuple[int, int], Tensor],
    out: Tensor,
) -> None:
    """Linear interpolation of the flat `image` at voxels + `offset` (in samples); the edge is repeated beyond it."""
    parts: list[list[tuple[Tensor, float]]] = []
    for axis, move in enumerate(offset):
        whole = floor(move + 1e-4)  # spacings in headers are rounded: 1.0000001 mm is a whole step
        share = move - whole if move - whole > 1e-4 else 0.0
        corners = [(whole, 1 - share), (whole + 1, share)] if share else [(whole, 1.0)]
        for corner, _ in corners:
            if (axis, corner) not in shifted:
                stride = (shape[1] * shape[2], shape[2], 1)[axis]
                shifted[axis, corner] = (kji[axis] + corner).clamp_(0, shape[axis] - 1).mul_(stride)
        parts.append([(shifted[axis, corner], weight) for corner, weight in corners])
    corners_of_all = list(product(*parts))
    for n, ((k, wk), (j, wj), (i, wi)) in enumerate(corners_of_all):
        value = image.index_select(0, k + j + i)
        if len(corners_of_all) > 1:
            value = value * (wk * wj * wi)
        out.copy_(value) if n == 0 else out.add_(value)


def gaussian_matrix(samples: int, spacing: float, sigma: float, like: Tensor) -> Tensor:
    """Gaussian smoothing along one axis as a matrix (samples, samples), rows summing to 1; the edge is repeated."""
    radius = ceil(TRUNCATE * sigma / spacing)
    distance = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (distance * (spacing / sigma)) ** 2)
    weights /= weights.sum()
    matrix = torch.zeros(samples, samples, dtype=torch.float64)
    rows = torch.arange(samples)
    for weight, move in zip(weights, range(-radius, radius + 1), strict=True):
        matrix[rows, (rows + move).clamp(0, samples - 1)] += weight
    return matrix.to(like.dtype).to(like.device)


def smoothed(image: Tensor, spacing_kji: tuple[float, float, float], sigma_mm: float) -> Tensor:
    """`image` [k, rows, columns] under a Gaussian of `sigma_mm`, on the same grid."""
    along_k, along_rows, along_columns = (
        gaussian_matrix(n, spacing, sigma_mm, image) for n, spacing in zip(image.shape, spacing_kji, strict=True)
    )
    image = along_rows @ image @ along_columns.T
    return (along_k @ image.reshape(len(image), -1)).reshape(image.shape)


def head_box(source: Tensor) -> list[tuple[int, int]]:
    """First and last index of the head (above air) along each axis of `source` [k, rows, columns] in [-1, 1].

    Without any head: of what is not background; without that, of the whole image.
    """
    for level in (AIR, -1.0):
        head = source > level
        if head.any():
            break
    else:
        return [(0, n - 1) for n in source.shape]
    box = []
    for axis in range(3):
        seen = head.any(dim=(axis + 1) % 3, keepdim=True).any(dim=(axis + 2) % 3, keepdim=True).flatten().nonzero()
        box.append((int(seen[0]), int(seen[-1])))
    return box


class VolumeFeatures:
    """All features of a volume's voxels.

    Args:
        images: the source, and for an auto-context pass the first translation, each float32 [k, rows, columns] in
            [-1, 1] on one grid.
        spacing_kji: the grid's distances in mm.
        spec: the features.
    """

    def __init__(self, images: list[Tensor], spacing_kji: tuple[float, float, float], spec: FeatureSpec) -> None:
        self.images = [ImageFeatures(image, spacing_kji, spec) for image in images]
        self.box, self.spec = head_box(images[0]), spec

    def at(self, kji: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Features (`spec.count(images)`, voxels) float32 of voxels given by three int64 index tensors (voxels,).

        In order: for each image the voxel, its neighbours, and per smoothing the voxel and its six sides; then the place
        in the head's box along k, rows and columns, from 0 to 1 (beyond, outside the head).
        """
        of_each = self.spec.per_image
        result = torch.empty(self.spec.count(len(self.images)), len(kji[0]), device=kji[0].device)
        for n, image in enumerate(self.images):
            image.at(kji, result[n * of_each : (n + 1) * of_each])
        for axis, (first, last) in enumerate(self.box):
            result[axis - 3] = (kji[axis] - first) / max(last - first, 1)
        return result
