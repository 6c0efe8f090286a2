"""Heads as registration engines take them: the subject cropped to a box of its own grid, so that results fit back exactly.

Engines compute on the fixed image's grid, so air around the subject costs time. The atlases stay as they are: air around
them costs nothing, and a box of theirs that ends near the head made registrations worse (a phantom's mean Dice fell from
0.82 to 0.81; with a mask of the subject's head besides to 0.77).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.intensity import AIR_SHARE, foreground_mask, normalisation_of
from IMTCore.provenance import volume_sha256
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume

MARGIN_MM = 10.0  # around the head: atlas tissue may lie there before the images are aligned
MARGIN_VOXELS = 6  # at the least: with 2 of them, at coarse levels less than one, Greedy's affine stage went astray
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Head:
    """One head's images on one grid, written for the engines.

    Attributes:
        name: of the subject or atlas, for messages.
        full: the original grid.
        box: the part of it that the images cover.
        geometry: the grid of that part.
        files: modality -> image file on `geometry`.
        hashes: modality -> SHA-256 of its voxels and grid.
        inside: (K, J, I) boolean on `geometry`: the head (without its air), or the given mask.
        mask, mask_hash: file of the region to register in, and its hash; None for everywhere.
    """

    name: str
    full: Geometry
    box: Box
    geometry: Geometry
    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    inside: np.ndarray
    mask: Path | None = None
    mask_hash: str | None = None

    def image(self, modality: str) -> Volume:
        """One of the images, on `geometry`."""
        return read_volume(self.files[modality])


@dataclass(frozen=True)
class MovingHead:
    """An atlas's images on their one grid: files, and the SHA-256 of each one's voxels and grid."""

    geometry: Geometry
    files: Mapping[str, Path]
    hashes: Mapping[str, str]

    def image(self, modality: str) -> Volume:
        """One of the images."""
        return read_volume(self.files[modality])


def read_moving(name: str, files: Mapping[str, Path], modalities: Sequence[str]) -> MovingHead:
    """Look at an atlas's images.

    Raises:
        BadInput: one is not readable, or on another grid than the first.
    """
    first: Volume | None = None
    hashes = {}
    for modality in modalities:
        volume = read_volume(files[modality])
        first = first or volume
        if not volume.geometry.is_close(first.geometry, 1e-2):
            raise BadInput(f"Atlas {name}: its {modality} image is on another grid than its {modalities[0]} image. Resample it.")
        hashes[modality] = volume_sha256(volume)
    return MovingHead(first.geometry, {modality: files[modality] for modality in modalities}, hashes)


def write_head(name: str, images: Mapping[str, Volume], folder: Path, mask: str | np.ndarray = "auto", crop: bool = True) -> Head:
    """Crop a subject's images to the head plus a margin and write them for the engines.

    Args:
        name: of the subject, for the files' names.
        images: modality -> volume, all on one grid; the head is found on the first.
        folder: where the files go.
        mask: "auto" (the head's box), "none" (everywhere), or the region to register in, (K, J, I) boolean on the images'
            grid, which the engines are given.
        crop: off keeps the whole grid whatever the mask.

    Raises:
        BadInput: an image without a head on it, or an empty mask.
    """
    first = next(iter(images.values()))
    region = None if isinstance(mask, str) else mask
    if region is not None and not region.any():
        raise BadInput(f"The mask of {name} is empty. Give another, or leave it out.")
    inside = head_region(first) if region is None else region
    box: Box = tuple(slice(0, n) for n in first.geometry.shape)  # type: ignore[assignment]
    if crop and not (isinstance(mask, str) and mask == "none"):
        box = box_around(inside, first.geometry.spacing_mm)
    files, hashes = {}, {}
    folder.mkdir(parents=True, exist_ok=True)
    for modality, volume in images.items():
        part = crop_volume(volume, box)
        files[modality] = folder / (re.sub(r"[^\w.+-]", "_", f"{name}-{modality}") + ".nii")  # the engines' messages name it
        write_volume(files[modality], part)
        hashes[modality] = volume_sha256(part)
    head = Head(name, first.geometry, box, crop_geometry(first.geometry, box), files, hashes, inside[box])
    if region is None or head.inside.all():
        return head
    part = Volume(head.inside.astype(np.uint8), head.geometry, f"{name} mask")
    write_volume(folder / "mask.nii", part)
    return replace(head, mask=folder / "mask.nii", mask_hash=volume_sha256(part))


def head_region(volume: Volume) -> np.ndarray:
    """(K, J, I) boolean: the head, or the brain of a skull-stripped image, without air and without holes.

    What is brighter than a tenth of the image's range (as `IMTCore.intensity`), without specks of noise: the largest
    piece that is left after an opening.

    Raises:
        BadInput: an image with nothing on it.
    """
    from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, label

    try:
        normalisation = normalisation_of(volume.array)
    except BadInput as error:
        raise BadInput(f"{volume.name}: {str(error).replace('translate', 'register')}") from error
    bright = foreground_mask(volume.array, normalisation.background) & (normalisation.apply(volume.array) > AIR_SHARE)
    opened = binary_dilation(binary_erosion(bright, border_value=1)) & bright
    pieces, count = label(opened if opened.any() else bright)
    if count == 0:
        raise BadInput(f"{volume.name} shows no head: nothing is brighter than its background. Choose another image.")
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = pieces == sizes.argmax()
    return binary_fill_holes(largest) if min(largest.shape) > 1 else largest


def box_around(region: np.ndarray, spacing_mm: np.ndarray) -> Box:
    """The smallest box that holds `region` and the margin, within the array. `spacing_mm` is along i, j, k."""
    slices = []
    for axis in range(3):
        filled = np.flatnonzero(region.any(axis=tuple(a for a in range(3) if a != axis)))
        voxels = max(MARGIN_VOXELS, int(np.ceil(MARGIN_MM / spacing_mm[2 - axis])))
        slices.append(slice(max(int(filled[0]) - voxels, 0), min(int(filled[-1]) + 1 + voxels, region.shape[axis])))
    return tuple(slices)  # type: ignore[return-value]


def crop_geometry(geometry: Geometry, box: Box) -> Geometry:
    """The grid of a box of `geometry`: the same voxel centres."""
    start_i_j_k = np.array([part.start for part in box][::-1])
    origin = geometry.origin_lps + geometry.direction @ (geometry.spacing_mm * start_i_j_k)
    return Geometry(tuple(part.stop - part.start for part in box), geometry.spacing_mm, origin, geometry.direction)


def crop_volume(volume: Volume, box: Box) -> Volume:
    """A box of a volume as float32."""
    return Volume(np.ascontiguousarray(volume.array[box], dtype=np.float32), crop_geometry(volume.geometry, box), volume.name)


def paste(part: np.ndarray, box: Box, shape: tuple[int, int, int], outside: float = 0) -> np.ndarray:
    """An array [k, j, i] of a box in one of the original `shape`, with `outside` around it."""
    result = np.full(shape, outside, part.dtype)
    result[box] = part
    return result


def read_mask(path: Path, geometry: Geometry) -> np.ndarray:
    """(K, J, I) boolean: a mask's voxels that are not 0.

    Raises:
        BadInput: not readable, or on another grid than the subject's.
    """
    volume = read_volume(path)
    if not volume.geometry.is_close(geometry, 1e-2):
        raise BadInput(f"The mask {path} is on another grid than the subject. Resample it onto the subject's.")
    return volume.array != 0
