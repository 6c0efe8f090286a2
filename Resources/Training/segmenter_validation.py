"""A segmenter's predictions during training: of slices, of whole volumes, and their Dice on validation subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from segmenter_config import SegmenterConfig
from segmenter_data import PreparedSubject

from IMTCore.label_scores import dice_scores
from IMTSegmentLib.channels import stack_channels

SLICES_AT_ONCE = 8


@dataclass(frozen=True)
class BestDice:
    """The best validation so far.

    Attributes:
        dice: its mean Dice over structures and subjects; -1 before the first.
        step: when it was.
    """

    dice: float = -1.0
    step: int = 0

    def after(self, dice: float, step: int) -> BestDice:
        """The best after one more validation; a tie is no improvement."""
        return BestDice(dice, step) if dice > self.dice else self

    def record(self) -> dict[str, float]:
        """As a checkpoint holds it."""
        return asdict(self)


def probabilities_of(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """The classes' probabilities [n, classes, rows, columns] float32 of network input [n, channels, rows, columns] in [-1, 1].

    The network is in evaluation mode meanwhile; no random number is drawn.
    """
    training, device = network.training, next(network.parameters()).device
    network.eval()
    try:
        with torch.inference_mode():
            return network(torch.from_numpy(images).float().to(device)).float().softmax(1).cpu().numpy()
    finally:
        network.train(training)


def segment_subject(network: nn.Module, subject: PreparedSubject, config: SegmenterConfig) -> np.ndarray:
    """The likeliest class of each voxel, [k, j, i] uint8 on the subject's own grid.

    The planes' probabilities are averaged, as `IMTSegmentLib.segmentation` does; outside the image's foreground is background.
    """
    total = np.zeros((len(config.classes) + 1, *subject.classes.shape), np.float32)
    for view, second in zip(subject.views, subject.seconds, strict=True):
        slices = np.flatnonzero(view.filled)
        anatomical = np.zeros((len(total), *view.foreground.shape), np.float32)
        anatomical[0] = 1
        for start in range(0, len(slices), SLICES_AT_ONCE):
            chunk = [int(k) for k in slices[start : start + SLICES_AT_ONCE]]
            shares = probabilities_of(network, stack_channels(view, second, config.channels, chunk))
            for number, share in enumerate(shares.swapaxes(0, 1)):
                anatomical[number, chunk] = view.grid.from_network(share, view.foreground.shape[1:], float(number == 0))
        for number, share in enumerate(anatomical):
            total[number] += view.axes.invert(share)
    found = total.argmax(axis=0).astype(np.uint8)
    found[~subject.views[0].axes.invert(subject.views[0].foreground)] = 0
    return found


def validate(network: nn.Module, subjects: Sequence[PreparedSubject], config: SegmenterConfig) -> dict[str, float]:
    """Dice of each structure, mean over the subjects that have it, and "dice", the mean over structures; NaN where there is none."""
    found: dict[int, list[float]] = {number: [] for number in range(1, len(config.classes) + 1)}
    for subject in subjects:
        scores = dice_scores(subject.classes, segment_subject(network, subject, config), found)
        for number, score in scores.items():
            if not np.isnan(score):
                found[number].append(score)
    means = {f"dice {name}": float(np.mean(found[number])) if found[number] else float("nan") for number, name in enumerate(config.names, 1)}
    known = [value for value in means.values() if not np.isnan(value)]
    return {"dice": float(np.mean(known)) if known else float("nan"), **means}
