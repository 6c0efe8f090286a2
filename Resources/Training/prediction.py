"""Trained generators: loading them from runs, and translating pairs with them (validation, pictures, auto-context)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from checkpoints import read_checkpoint
from experiment import Config
from training_data import Pair

from IMTCore.errors import BadInput

SLICES_AT_ONCE = 8


def run_config(run: Path) -> Config:
    """The experiment of a run's folder.

    Raises:
        BadInput: if it is no run.
    """
    path = run / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{run} is no training run: {path} cannot be read ({error}).") from error
    return Config.from_record(record, str(path))


def load_generators(run: Path, checkpoint: str = "checkpoint.pt") -> tuple[Config, list[nn.Module]]:
    """The run's experiment and its trained generator, in evaluation mode; before it those of its auto-context stages.

    Args:
        run: folder of a run.
        checkpoint: `checkpoint.pt`, the last, or `best.pt`, the best on the validation subjects.

    Raises:
        BadInput: if a run or checkpoint cannot be read.
    """
    config = run_config(run)
    before = load_generators(Path(config.context_of))[1] if config.context_of else []
    generator = config.generator()
    generator.load_state_dict(read_checkpoint(run / checkpoint)["average"])
    return config, [*before, generator.eval()]


def add_context(pairs: Sequence[Pair], config: Config, device: torch.device) -> None:
    """Give each pair the previous stage's translation of its whole volume, as the second input channel.

    Raises:
        BadInput: if the previous stage is another kind of network, or for other images.
    """
    run = Path(config.context_of)
    before, generators = load_generators(run)
    for name in ("network", "source", "targets", "filters", "mode", "spacing_mm", "size"):
        if getattr(before, name) != getattr(config, name):
            raise BadInput(f"{run} cannot be the stage before: its {name} is {getattr(before, name)}, not {getattr(config, name)}.")
    for generator in generators:
        generator.to(device)
        for pair in pairs:
            pair.context = translate_volume(generator, pair)


def translate_volume(generator: nn.Module, pair: Pair, slices: slice = slice(None)) -> np.ndarray:
    """A context network's translation [k, rows, columns] float16 in [-1, 1] of a pair's source, or of a part of it."""
    device = next(generator.parameters()).device
    context = None if pair.context is None else torch.from_numpy(pair.context[slices].astype(np.float32)).to(device)
    images = torch.from_numpy(pair.source.images[slices]).to(device)
    made = generator.translate_volume(images, pair.source.spacing_kji, context=context)
    return made.cpu().numpy().astype(np.float16)


def translate_slices(generator: nn.Module, pair: Pair, slices: Sequence[int]) -> np.ndarray:
    """Translations [n, targets, rows, columns] float32 in [-1, 1] of some slices of a pair, without dropout.

    The generator is in evaluation mode meanwhile; no random number is drawn.
    """
    training = generator.training
    generator.eval()
    try:
        with torch.inference_mode():
            if getattr(generator, "works_on", "slices") == "volume":
                reach = generator.radius
                low, high = max(min(slices) - reach, 0), max(slices) + reach + 1
                made = translate_volume(generator, pair, slice(low, high)).astype(np.float32)
                return np.stack([made[k - low] for k in slices])[:, None]
            device = next(generator.parameters()).device
            parts = []
            for start in range(0, len(slices), SLICES_AT_ONCE):
                images = pair.source.batch([int(k) for k in slices[start : start + SLICES_AT_ONCE]])
                parts.append(generator(torch.from_numpy(images).to(device)).float().cpu().numpy())
            return np.concatenate(parts)
    finally:
        generator.train(training)
