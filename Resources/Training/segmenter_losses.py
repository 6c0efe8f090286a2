"""What a segmenter minimises: cross-entropy (Yang et al. 2020, by Long et al. 2015), with soft Dice if wished."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segmenter_config import SegmenterConfig
from segmenter_data import Example

from IMTCore.errors import BadInput

SMOOTH = 1.0  # pixels: keeps a batch without a class from counting as a failure to find it


def class_weights(examples: Sequence[Example], config: SegmenterConfig) -> Tensor | None:
    """None, or by "median" the classes' median share of the pixels over their own (Eigen and Fergus, ICCV 2015).

    Raises:
        BadInput: if no training subject has a pixel of a class.
    """
    counts = sum(np.bincount(e.classes.ravel(), minlength=len(config.classes) + 1) for e in examples).astype(float)
    absent = [name for name, count in zip(config.names, counts[1:], strict=True) if count == 0]
    if absent:
        raise BadInput(f"No training subject has a pixel of {', '.join(absent)} in its {config.labels}: check --labels and --classes.")
    if config.class_weights == "none":
        return None
    return torch.tensor(np.median(counts) / np.maximum(counts, 1), dtype=torch.float32)


def soft_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 less the mean over the structures of 2 Σ p g / (Σ p + Σ g), over all pixels of the batch (Milletari et al., 3DV 2016).

    Args:
        logits: (n, classes, h, w); class 0, the background, does not count.
        truth: (n, h, w) int64 classes.
    """
    shares = logits.softmax(1)[:, 1:]
    given = F.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:].to(shares.dtype)
    both, total = (shares * given).sum((0, 2, 3)), shares.sum((0, 2, 3)) + given.sum((0, 2, 3))
    return 1 - ((2 * both + SMOOTH) / (total + SMOOTH)).mean()


def segmentation_loss(logits: Tensor, truth: Tensor, config: SegmenterConfig, weights: Tensor | None) -> dict[str, Tensor]:
    """The terms of the loss by name; their sum is minimised. Cross-entropy is the mean over pixels, weighted by class if so wished."""
    terms = {"cross-entropy": F.cross_entropy(logits, truth, weights)}
    if config.loss == "cross-entropy+dice":
        terms["dice"] = soft_dice_loss(logits, truth)
    return terms
