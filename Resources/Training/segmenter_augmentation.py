"""Random changes of labelled slices: place and size of images and classes alike, intensities of the images alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from augmentation import vary_source_intensity

# How much: share of the batches that are moved; degrees, scale and shift (share of the edge) up to; the strength of
# gamma, gain, bias field and noise (`augmentation.vary_source_intensity`); share of the images that lose resolution.
LEVELS = {"mild": (0.5, 10.0, 0.1, 0.04, 0.5, 0.2), "strong": (0.8, 15.0, 0.2, 0.08, 1.0, 0.35)}
# The planes in which a slice's columns run from right to left; a sagittal slice has no left.
LEFT_RIGHT_PLANES = ("axial", "coronal")
BLUR_PIXELS, COARSEST = (0.4, 1.2), 2.5
BACKGROUND = -1.0


def augment(images: Tensor, classes: Tensor, plane: str, level: str, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, rotate, scale, shift; then another contrast, noise, bias field and resolution for each image.

    Args:
        images: (n, images, rows, columns) in [-1, 1], each image once (not each channel).
        classes: (n, rows, columns) uint8.
        plane: of the slices: only where columns run from right to left are they mirrored.
        level: a key of `LEVELS`.
        random: all randomness comes from it.

    Returns:
        Images and classes of the same shapes; what moves in from beyond the edge is background.
    """
    share, *extent, strength, coarse = LEVELS[level]
    if plane in LEFT_RIGHT_PLANES and random.random() < 0.5:
        images, classes = images.flip(-1), classes.flip(-1)
    if random.random() < share:
        images, classes = move(images, classes, extent, random)
    changed = []
    for image in images.split(1, dim=1):  # each scan has its own brightness, coil and resolution
        if random.random() < coarse:
            image = lose_resolution(image, random)
        changed.append(vary_source_intensity(image, random, strength))
    return torch.cat(changed, dim=1), classes


def move(images: Tensor, classes: Tensor, extent: list[float], random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each slice turned, scaled and shifted by at most `extent` (degrees, share, share of the edge); classes by nearest neighbour."""
    degrees, scaling, shifting = extent
    height, width = images.shape[-2:]
    theta = []
    for _ in range(len(images)):
        angle = math.radians(random.uniform(-degrees, degrees))
        scale = random.uniform(1 - scaling, 1 + scaling, 2)
        shift = random.uniform(-2 * shifting, 2 * shifting, 2)  # the grid's coordinates run from -1 to 1
        cos, sin, ratio = math.cos(angle), math.sin(angle), height / width
        theta.append([[cos * scale[0], -sin * ratio * scale[1], shift[0]], [sin / ratio * scale[0], cos * scale[1], shift[1]]])
    grid = F.affine_grid(torch.tensor(theta, dtype=torch.float32), list(images.shape), align_corners=False)
    # Padding repeats zeros, so the background is moved to 0 and back. Cubic: linear interpolation would teach blur.
    moved = F.grid_sample(images - BACKGROUND, grid, mode="bicubic", padding_mode="zeros", align_corners=False) + BACKGROUND
    nearest = F.grid_sample(classes[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.clamp(-1, 1), nearest[:, 0].to(classes.dtype)


def lose_resolution(image: Tensor, random: np.random.Generator) -> Tensor:
    """A blurred image, or one scanned with larger voxels along rows or columns; the background stays as it is.

    `image` is (n, 1, rows, columns) in [-1, 1].
    """
    height, width = image.shape[-2:]
    if random.random() < 0.5:
        sigma = random.uniform(*BLUR_PIXELS)
        places = torch.arange(-3, 4, dtype=torch.float32)
        line = torch.exp(-0.5 * (places / sigma) ** 2)
        line = line / line.sum()
        coarse = F.conv2d(F.pad(image, (3, 3, 0, 0), mode="replicate"), line[None, None, None])
        coarse = F.conv2d(F.pad(coarse, (0, 0, 3, 3), mode="replicate"), line[None, None, :, None])
    else:
        factor = random.uniform(1.2, COARSEST)
        along_rows, along_columns = [(True, True), (True, False), (False, True)][int(random.integers(3))]
        size = [max(4, round(n / factor)) if chosen else n for n, chosen in ((height, along_rows), (width, along_columns))]
        coarse = F.interpolate(F.interpolate(image, size=size, mode="area"), size=(height, width), mode="bilinear", align_corners=False)
    return torch.where(image > BACKGROUND, coarse.clamp(-1, 1), image)
