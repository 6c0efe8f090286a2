"""Random changes of a batch that keep source and target aligned. All randomness comes from the generator given."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def jitter_and_flip(images: Tensor, random: np.random.Generator) -> Tensor:
    """pix2pix's augmentation: enlarge by 286/256, crop at random, mirror left–right half of the time.

    `images` (n, c, h, w) hold source and targets as channels.
    """
    height, width = images.shape[-2:]
    large = [round(height * 286 / 256), round(width * 286 / 256)]
    images = F.interpolate(images, size=large, mode="bilinear", align_corners=False)
    top, left = int(random.integers(0, large[0] - height + 1)), int(random.integers(0, large[1] - width + 1))
    images = images[..., top : top + height, left : left + width]
    return images.flip(-1) if random.random() < 0.5 else images


def affine_and_flip(images: Tensor, random: np.random.Generator, share: float = 0.4) -> Tensor:
    """Rotation up to 10°, scale 0.9–1.1, shift up to 4 %, for `share` of the batches; mirror half of the time."""
    if random.random() < 0.5:
        images = images.flip(-1)
    if random.random() >= share:
        return images
    theta = []
    height, width = images.shape[-2:]
    for _ in range(len(images)):
        angle = math.radians(random.uniform(-10, 10))
        scale = random.uniform(0.9, 1.1, 2)
        shift = random.uniform(-0.08, 0.08, 2)
        cos, sin, ratio = math.cos(angle), math.sin(angle), height / width
        theta.append([[cos * scale[0], -sin * ratio * scale[1], shift[0]], [sin / ratio * scale[0], cos * scale[1], shift[1]]])
    grid = F.affine_grid(torch.tensor(theta, dtype=torch.float32), list(images.shape), align_corners=False)
    # Padding repeats zeros, so the background is moved to 0 and back. Linear interpolation would teach blur.
    moved = F.grid_sample(images + 1, grid, mode="bicubic", padding_mode="zeros", align_corners=False) - 1
    return moved.clamp(-1, 1)


def vary_source_intensity(source: Tensor, random: np.random.Generator, strength: float = 1.0) -> Tensor:
    """Gamma, gain, a smooth bias field and a little noise on the source alone (n, c, h, w) in [-1, 1].

    `strength` 1 changes intensities so much that the network must rely on structure; 0.3 is what scanners differ by
    after normalisation.
    """
    unit = (source + 1) / 2
    head = unit > 0
    n = len(unit)
    gamma = torch.from_numpy(np.exp(random.normal(0, 0.2 * strength, (n, 1, 1, 1))).astype(np.float32))
    gain = torch.from_numpy(random.uniform(1 - 0.15 * strength, 1 + 0.1 * strength, (n, 1, 1, 1)).astype(np.float32))
    unit = unit.clamp(0, 1) ** gamma * gain
    if random.random() < 0.4:
        coarse = torch.from_numpy(random.normal(0, 0.12 * strength, (n, 1, 3, 3)).astype(np.float32))
        unit = unit * torch.exp(F.interpolate(coarse, size=unit.shape[-2:], mode="bicubic", align_corners=True))
    if random.random() < 0.3:
        sigma = random.uniform(0, 0.03 * strength)
        unit = unit + sigma * torch.from_numpy(random.standard_normal(unit.shape, dtype=np.float32))
    return torch.where(head, unit.clamp(0, 1), torch.zeros(())) * 2 - 1
