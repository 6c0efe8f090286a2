"""The terms of the generator's loss. Images are (n, channels, height, width) or (n, channels, k, j, i) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

# In tanh's range: below, a target pixel is background, and a source pixel air.
BACKGROUND, AIR = -0.99, -0.9
# Names of the reconstruction terms in a config, and in the log. SSIM is logged as similarity, 1 at best.
TERMS = {"l1": "L1", "l2": "L2", "euclidean": "Euclidean", "ssim": "SSIM", "gdl": "GDL"}


def was_acquired(source: Tensor, target: Tensor, channel: int | None = None) -> Tensor:
    """1 where the target may be learned, 0 where it is background amid the source's head, of the target's shape.

    There the field of view was cut off, or the two brain masks differ: learned, it would cut heads. `channel` is the
    source's channel that lies on the target, by default the middle one.
    """
    centre = source.shape[1] // 2 if channel is None else channel
    head = source[:, centre, None] > AIR
    return 1.0 - (head & (target < BACKGROUND)).float()


def local_ssim(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """SSIM map (uniform window, data range 2) of images in [-1, 1]; (Wang et al. 2004, Eq. 13)."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    pool = F.avg_pool2d if a.ndim == 4 else F.avg_pool3d
    mean_a, mean_b = pool(a, window, 1), pool(b, window, 1)
    var_a = pool(a * a, window, 1) - mean_a**2
    var_b = pool(b * b, window, 1) - mean_b**2
    cov = pool(a * b, window, 1) - mean_a * mean_b
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def euclidean_distance(a: Tensor, b: Tensor) -> Tensor:
    """The root of each image's summed squared differences, mean over images and channels (Avula, Fig. 9)."""
    squares = (a - b).square().flatten(2).sum(dim=2)
    return (squares + 1e-8).sqrt().mean()  # the root has no slope at 0


def _term(name: str, fake: Tensor, target: Tensor) -> Tensor:
    if name == "l1":
        return (fake - target).abs().mean()
    if name == "l2":
        return (fake - target).square().mean()
    if name == "euclidean":
        return euclidean_distance(fake, target)
    if name == "ssim":
        return (1 - local_ssim(fake, target)).mean()
    from IMTCore.context_network import gradient_difference

    return gradient_difference(fake, target)


def reconstruction(
    fake: Tensor, target: Tensor, share: Tensor, weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the reconstruction terms, and each term for the log (L1 always).

    Args:
        fake, target: images; where nothing may be learned, `fake` equals `target`.
        share: the share of pixels that may be learned, by which means are divided; the Euclidean distance, a sum, is not.
        weights: of the terms in `TERMS`; those of weight 0 are left out.
    """
    total = torch.zeros((), device=fake.device)
    parts: dict[str, Tensor] = {}
    for name, label in TERMS.items():
        weight = weights.get(name, 0.0)
        if weight <= 0 and name != "l1":
            continue
        with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
            value = _term(name, fake, target)
        if name != "euclidean":
            value = value / share
        if weight > 0:
            total = total + weight * value
        parts[label] = (1 - value if name == "ssim" else value).detach()
    return total, parts


def real_or_fake(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's logits (Yang et al. 2020, Eq. 1)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
