"""Errors on validation subjects during training, the best generator so far, and when to stop early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from torch import nn

from experiment import Config
from losses import AIR, BACKGROUND
from prediction import translate_slices
from training_data import Pair


@dataclass(frozen=True)
class Best:
    """The best validation so far.

    Attributes:
        mae: its mean absolute error, 0 to 1.
        step: when it was.
        since: validations since then.
    """

    mae: float = float("inf")
    step: int = 0
    since: int = 0

    def after(self, mae: float, step: int) -> Best:
        """The best after one more validation; a tie is no improvement."""
        return Best(mae, step) if mae < self.mae else replace(self, since=self.since + 1)

    def record(self) -> dict[str, float]:
        """As a checkpoint holds it."""
        return asdict(self)


def validate(generator: nn.Module, pairs: Sequence[Pair], config: Config) -> dict[str, float]:
    """Errors of whole volumes, slice by slice (Avula, Validation and Results, Table 1), on the network's grid.

    Intensities are 0 to 1 (tanh's range halved). Pixels that were not acquired count as right.

    Returns:
        `mae` and `mse`, means over pixels, then slices, then volumes and targets; `volume_mae` and `volume_mse`, the sum
        over a volume's slices instead of the mean.
    """
    sums: list[tuple[float, float, int]] = []
    for pair in pairs:
        for channel, target in enumerate(config.targets):
            if target not in pair.targets:
                continue
            slices = [int(k) for k in np.flatnonzero(pair.usable[target])]
            if not slices:
                continue
            made = (np.clip(translate_slices(generator, pair, slices), -1, 1)[:, channel] + 1) / 2
            truth = (pair.targets[target][slices].astype(np.float32) + 1) / 2
            missing = (pair.source.images[slices] > AIR) & (2 * truth - 1 < BACKGROUND)
            errors = np.where(missing, 0, np.abs(made - truth))
            sums.append((float(errors.mean(axis=(1, 2)).sum()), float((errors**2).mean(axis=(1, 2)).sum()), len(slices)))
    mae, mse = (float(np.mean([row[n] / row[2] for row in sums])) for n in (0, 1))
    totals = [float(np.mean([row[n] for row in sums])) for n in (0, 1)]
    return {"mae": mae, "mse": mse, "volume_mae": totals[0], "volume_mse": totals[1]}
