"""Volumes on another grid: images without aliasing, labels by majority."""

from __future__ import annotations

from math import ceil

import numpy as np

from IMTCore.intensity import background_value, foreground_mask
from IMTCore.slicing import resampling_matrix
from IMTCore.volume import Geometry, Volume

# A voxel of which at least this share is foreground is foreground.
MIN_SHARE = 0.5


# --- To another spacing, along the volume's own axes ----------------------------------------------------------------


def isotropic_geometry(geometry: Geometry, spacing_mm: float) -> Geometry:
    """The grid of `spacing_mm` in all directions around the same centre that covers `geometry` (its voxels' outer edges)."""
    lengths = np.array(geometry.shape[::-1]) * geometry.spacing_mm  # along i, j, k
    size = [max(1, ceil(round(float(length) / spacing_mm, 3))) for length in lengths]  # float32 headers: 120.00001 is 120
    overhang = (np.array(size) * spacing_mm - lengths) / 2
    first = -overhang + spacing_mm / 2 - geometry.spacing_mm / 2  # from the old first centre to the new, along i, j, k
    origin = geometry.origin_lps + geometry.direction @ first
    return Geometry(tuple(size[::-1]), np.full(3, float(spacing_mm)), origin, geometry.direction)


def resample_image(volume: Volume, spacing_mm: float) -> Volume:
    """The image at an isotropic spacing, float32 [k, j, i].

    A triangle as wide as the coarser of both spacings interpolates and, where voxels grow, averages. Where the image has a
    flat background (a removed skull), only foreground is averaged: tissue at its border keeps its brightness, and voxels that
    are mostly background are exactly the background.
    """
    geometry, matrices = _matrices(volume.geometry, spacing_mm)
    array, inside, background = _foreground(volume)
    if inside.all():
        return Volume(np.ascontiguousarray(_apply(matrices, array)), geometry, volume.name)
    share = _apply(matrices, inside.astype(np.float32))
    return Volume(_shared(_apply(matrices, array * inside), share, background), geometry, volume.name)


def resample_labels(volume: Volume, spacing_mm: float) -> Volume:
    """The label map at an isotropic spacing: the code with the largest share of each voxel (the lowest of equals)."""
    geometry, matrices = _matrices(volume.geometry, spacing_mm)
    best = np.full(geometry.shape, -1, np.float32)
    codes = np.zeros(geometry.shape, volume.array.dtype)
    for code in np.unique(volume.array):
        share = _apply(matrices, (volume.array == code).astype(np.float32))
        larger = share > best + 1e-6
        codes[larger], best[larger] = code, share[larger]
    return Volume(codes, geometry, volume.name)


def _matrices(geometry: Geometry, spacing_mm: float) -> tuple[Geometry, list[np.ndarray]]:
    target = isotropic_geometry(geometry, spacing_mm)
    matrices = []
    for n_in, spacing, n_out in zip(geometry.shape, geometry.spacing_mm[::-1], target.shape, strict=True):
        start = (n_in * spacing - n_out * spacing_mm) / 2
        matrices.append(resampling_matrix(n_in, spacing, n_out, spacing_mm, 0.0, start))
    return target, matrices


def _apply(matrices: list[np.ndarray], array: np.ndarray) -> np.ndarray:
    for axis, matrix in enumerate(matrices):
        array = np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)
    return array


def _foreground(volume: Volume) -> tuple[np.ndarray, np.ndarray, float]:
    """The image in float32, its foreground, and what lies outside: the background, or the darkest value."""
    array = volume.array.astype(np.float32)
    background = background_value(array)
    return array, foreground_mask(array, background), float(array.min()) if background is None else background


def _shared(summed: np.ndarray, share: np.ndarray, background: float) -> np.ndarray:
    filled = share >= MIN_SHARE
    result = np.full(share.shape, background, np.float32)
    result[filled] = summed[filled] / share[filled]
    return result


# --- To the grid of another volume, however it lies ------------------------------------------------------------------


def resample_to(volume: Volume, geometry: Geometry, labels: bool = False) -> Volume:
    """The volume on another grid, by both grids' places in the world; nothing is registered.

    Images (float32): smoothed first along axes on which the new grid is coarser (a Gaussian as wide as what is missing),
    then linear, with the background kept as in `resample_image`; background beyond the field of view.
    Labels: the nearest voxel, 0 beyond the field of view.
    """
    if labels:
        codes = _on_grid(volume.array.astype(np.int32), volume.geometry, geometry, nearest=True)
        return Volume(codes.astype(volume.array.dtype), geometry, volume.name)
    array, inside, background = _foreground(volume)
    share = _on_grid(inside.astype(np.float32), volume.geometry, geometry)
    return Volume(_shared(_on_grid(array * inside, volume.geometry, geometry), share, background), geometry, volume.name)


def _on_grid(array: np.ndarray, source: Geometry, target: Geometry, nearest: bool = False) -> np.ndarray:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(source.spacing_mm.tolist())
    image.SetOrigin(source.origin_lps.tolist())
    image.SetDirection(source.direction.ravel().tolist())
    if not nearest:
        # The new spacing as seen along each old axis.
        reach = np.abs(source.direction.T @ (target.direction * target.spacing_mm)).max(axis=1)
        missing = np.sqrt(np.clip(reach**2 - source.spacing_mm**2, 0, None))
        variance = (missing / 2.355) ** 2  # full width at half maximum
        if variance.max() > 0:
            image = sitk.DiscreteGaussian(image, variance.tolist(), 64, 0.01, True)
    reference = sitk.Image([int(n) for n in target.shape[::-1]], image.GetPixelID())
    reference.SetSpacing(target.spacing_mm.tolist())
    reference.SetOrigin(target.origin_lps.tolist())
    reference.SetDirection(target.direction.ravel().tolist())
    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), method, 0.0))
