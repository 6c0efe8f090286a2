"""Random batches of labelled slices for a segmenter, the same in every run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from segmenter_augmentation import augment
from segmenter_config import SegmenterConfig
from segmenter_data import Example


@dataclass(frozen=True)
class SegmenterBatch:
    """What one step learns from.

    Attributes:
        images: (n, channels, rows, columns) float32 in [-1, 1].
        classes: (n, rows, columns) int64.
        origin: subject and slices, for messages.
        random_state: the sampler's state after this batch, as JSON.
    """

    images: Tensor
    classes: Tensor
    origin: str
    random_state: str

    def to(self, device: torch.device) -> SegmenterBatch:
        """The batch on a device; from pinned memory the copy runs beside the computation."""
        moved = [tensor.to(device, non_blocking=True) for tensor in (self.images, self.classes)]
        return replace(self, images=moved[0], classes=moved[1])

    def pinned(self) -> SegmenterBatch:
        """The batch in memory that a GPU copies from directly."""
        return replace(self, images=self.images.pin_memory(), classes=self.classes.pin_memory())


class SegmenterSampler:
    """Draws augmented batches, each of one subject and plane; its only state is its random generator."""

    def __init__(self, examples: Sequence[Example], config: SegmenterConfig) -> None:
        self.examples, self.config = list(examples), config
        self.random = np.random.Generator(np.random.PCG64(config.seed))
        weights = np.array([len(e.images) * share_of(e, config) for e in self.examples], dtype=float)
        self.probabilities = weights / weights.sum()
        self.expanded = [config.images.index(channel) for channel in config.channels]

    @property
    def random_state(self) -> str:
        """The state of the random generator, as JSON."""
        return json.dumps(self.random.bit_generator.state)

    @random_state.setter
    def random_state(self, state: str) -> None:
        self.random.bit_generator.state = json.loads(state)

    def draw(self) -> SegmenterBatch:
        """The next batch."""
        example = self.examples[int(self.random.choice(len(self.examples), p=self.probabilities))]
        chosen = self.random.choice(len(example.images), min(self.config.batch, len(example.images)), replace=False)
        images = torch.from_numpy(example.images[chosen].astype(np.float32))
        classes = torch.from_numpy(example.classes[chosen])
        if self.config.augmentation != "none":
            images, classes = augment(images, classes, example.plane, self.config.augmentation, self.random)
        origin = f"{example.name}{' (stripped)' if example.stripped else ''}, {example.plane} slices"
        return SegmenterBatch(images[:, self.expanded].contiguous(), classes.long(), origin, self.random_state)


def share_of(example: Example, config: SegmenterConfig) -> float:
    """How often an example's slices are drawn: by --weights, and by --strip-share where it is there with its skull and without."""
    factor = 1.0
    for entry in config.weights:
        pattern, _, number = entry.rpartition("=")
        if fnmatchcase(example.name, pattern) or pattern == example.name.partition("/")[0]:
            factor *= float(number)
    if example.paired:
        factor *= config.strip_share if example.stripped else 1 - config.strip_share
    return factor
