"""Random batches: slices or 3D patches with their targets, drawn ahead in the background, the same in every run."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from augmentation import affine_and_flip, jitter_and_flip, vary_source_intensity
from experiment import Config
from losses import AIR
from training_data import Pair

# Augmentations that also turn, scale and shift, by how much they change the source's intensities.
INTENSITY_STRENGTH = {"mild": 0.3, "strong": 1.0}


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        source: (n, channels, rows, columns), of patches (n, channels, k, rows, columns); in [-1, 1].
        target: (n, targets, …) in [-1, 1].
        counts: (n, targets, 1, …), 1 where that target is there to be learned.
        origin: subject and slices, for messages.
        random_state: the sampler's state after this batch, as JSON.
    """

    source: Tensor
    target: Tensor
    counts: Tensor
    origin: str
    random_state: str

    def to(self, device: torch.device, channels_last: bool = False) -> Batch:
        """The batch on a device; from pinned memory the copy runs beside the computation."""
        form = torch.channels_last if channels_last and self.source.ndim == 4 else torch.preserve_format
        moved = [t.to(device, non_blocking=True) for t in (self.source, self.target, self.counts)]
        return replace(self, source=moved[0].contiguous(memory_format=form), target=moved[1], counts=moved[2])

    def pinned(self) -> Batch:
        """The batch in memory that a GPU copies from directly."""
        return replace(
            self, source=self.source.pin_memory(), target=self.target.pin_memory(), counts=self.counts.pin_memory()
        )


class Sampler:
    """Draws augmented batches, each from one volume; its only state is its random generator."""

    def __init__(self, pairs: list[Pair], config: Config, rank: int = 0) -> None:
        self.pairs, self.config = pairs, config
        seed = config.seed if rank == 0 else np.random.SeedSequence([config.seed, rank])
        self.random = np.random.Generator(np.random.PCG64(seed))
        factors = dict(entry.split("=") for entry in config.weights)
        weights = np.array([len(p.slices) * float(factors.get(p.name.split("/")[0], 1)) for p in pairs], dtype=float)
        self.probabilities = weights / weights.sum()

    @property
    def random_state(self) -> str:
        """The state of the random generator, as JSON."""
        return json.dumps(self.random.bit_generator.state)

    @random_state.setter
    def random_state(self, state: str) -> None:
        self.random.bit_generator.state = json.loads(state)

    def draw(self) -> Batch:
        """The next batch."""
        pair = self.pairs[int(self.random.choice(len(self.pairs), p=self.probabilities))]
        if self.config.network == "context":
            return self._patches(pair)
        return self._slices(pair)

    def _slices(self, pair: Pair) -> Batch:
        config, random = self.config, self.random
        slices = random.choice(pair.slices, size=min(config.batch, len(pair.slices)), replace=False)
        source = pair.source.batch([int(k) for k in slices])
        missing = np.full(source.shape[:1] + source.shape[2:], -1, np.float32)
        targets = [pair.targets[t][slices] if t in pair.targets else missing for t in config.targets]
        counts = [pair.usable[t][slices] if t in pair.usable else np.zeros(len(slices), bool) for t in config.targets]
        images = torch.from_numpy(np.concatenate([source, np.stack(targets, 1).astype(np.float32)], axis=1))
        if config.augmentation == "jitter":
            images = jitter_and_flip(images, random)
        elif config.augmentation in INTENSITY_STRENGTH:
            images = affine_and_flip(images, random)
        channels = source.shape[1]
        source_t, target_t = images[:, :channels], images[:, channels:]
        if config.augmentation in INTENSITY_STRENGTH:
            source_t = vary_source_intensity(source_t, random, INTENSITY_STRENGTH[config.augmentation])
        counts_t = torch.from_numpy(np.stack(counts, 1).astype(np.float32))[..., None, None]
        origin = f"{pair.name}, {pair.source.spec.plane} slices {', '.join(str(int(k)) for k in slices)}"
        return Batch(source_t.contiguous(), target_t.contiguous(), counts_t, origin, self.random_state)

    def _patches(self, pair: Pair) -> Batch:
        """Cubes around random voxels of the head, mirrored left-right half of the time."""
        config, random = self.config, self.random
        (target,) = config.targets
        source, wanted, edge = pair.source.images, pair.targets[target], config.patch
        channels = [source] if pair.context is None else [source, pair.context]
        sources, targets, places = [], [], []
        for _ in range(config.batch):
            k = int(random.choice(pair.slices))
            head = np.flatnonzero(source[k].ravel() > AIR)
            row, column = np.unravel_index(int(random.choice(head)) if head.size else 0, source.shape[1:])
            corner = [int(c) - edge // 2 for c in (k, row, column)]
            patch = np.stack([cut(image, corner, edge) for image in (*channels, wanted)])
            if config.augmentation != "none" and random.random() < 0.5:
                patch = patch[..., ::-1]
            sources.append(patch[:-1])
            targets.append(patch[-1:])
            places.append(f"({k}, {int(row)}, {int(column)})")
        source_t, target_t = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in (sources, targets))
        counts = torch.ones(config.batch, 1, 1, 1, 1)
        return Batch(source_t, target_t, counts, f"{pair.name}, patches around {', '.join(places)}", self.random_state)


def cut(volume: np.ndarray, corner: list[int], edge: int) -> np.ndarray:
    """A cube of `volume` [k, rows, columns] from `corner`, moved into the volume; -1 where it is too small for that."""
    starts = [min(max(c, 0), max(n - edge, 0)) for c, n in zip(corner, volume.shape, strict=True)]
    part = volume[tuple(slice(s, s + edge) for s in starts)]
    if part.shape == (edge, edge, edge):
        return part
    return np.pad(part, [(0, edge - n) for n in part.shape], constant_values=-1)


class Prefetcher:
    """Draws batches ahead in a thread. Batches come in the order of `draw`, so nothing depends on timing.

    Each batch carries the state of the generator after it: a checkpoint holds the state after the last batch used, not
    the last one drawn.
    """

    def __init__(self, draw: Callable[[], Batch], ahead: int) -> None:
        self._draw, self._queue = draw, queue.Queue(maxsize=max(ahead, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True) if ahead > 0 else None
        if self._thread:
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                item: Batch | BaseException = self._draw()
            except BaseException as error:  # it is raised where the batch is wanted
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    def next(self) -> Batch:
        """The next batch."""
        if self._thread is None:
            return self._draw()
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread:
            self._thread.join()
