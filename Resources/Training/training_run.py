"""A run of a trainer: steps, with reports, validations, pictures and checkpoints at their intervals."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from checkpoints import save_checkpoint
from monitor import Board, Monitor
from run_log import Interruption, Screen, append_row, forget_after
from trainer import Trainer
from trainer_arguments import RunOptions
from training_data import Pair
from validation import Best, validate

from IMTCore.errors import Cancelled


class TrainingRun:
    """Runs a trainer to the end of its steps or budget, to `--stop-at`, to early stopping, or until it is interrupted.

    Args:
        trainer: new, or with a checkpoint's state in it.
        options: where the run's files go, and how often.
        training, validation: the subjects; a picture shows the first validated, else the first trained on.
        best: the best validation so far, of a resumed run.
    """

    def __init__(
        self,
        trainer: Trainer,
        options: RunOptions,
        training: Sequence[Pair],
        validation: Sequence[Pair] = (),
        best: Best | None = None,
    ) -> None:
        self.trainer, self.options, self.validation = trainer, options, validation
        self.best = best or Best()
        self.output, self.writes = options.output, trainer.processes.writes
        self.first = (trainer.step, trainer.seconds)
        self.sums: dict[str, list[float]] = {}
        self.monitor = self.board = None
        if self.writes:
            for name in ("log.jsonl", "validation.jsonl"):
                forget_after(self.output / name, trainer.step)
            if options.monitor_every:
                shown = (validation or training)[0]
                self.monitor = Monitor(self.output / "monitor", shown, trainer.config, trainer.step)
            if options.tensorboard:
                self.board = Board(self.output / "tensorboard", trainer.step)

    @property
    def ended(self) -> bool:
        """Whether there is no further step to do."""
        stop_at, patience = self.options.stop_at, self.trainer.config.patience
        stopped = stop_at is not None and self.trainer.step >= stop_at
        return self.trainer.done >= 1 or stopped or 0 < patience <= self.best.since

    def run(self) -> None:
        """Do it.

        Raises:
            TrainingFailed: a loss is not finite. OutputFailure: a file cannot be written. Cancelled: by Ctrl-C or a request
            to end; a checkpoint was written.
        """
        trainer, config = self.trainer, self.trainer.config
        budget = config.budget_s
        screen = Screen(budget or config.steps, "s" if budget else "steps", trainer.seconds if budget else trainer.step, self.writes)
        # Several processes would not stop at the same step: torchrun ends them at once, and the checkpoint is the last.
        interruption = Interruption() if trainer.processes.size == 1 else None
        try:
            if interruption is None:
                self._loop(screen, None)
            else:
                with interruption:
                    self._loop(screen, interruption)
        finally:
            screen.close()
            if self.board is not None:
                self.board.close()
        if interruption is not None and interruption.asked and not self.ended:
            raise Cancelled(f"Stopped at step {trainer.step}: the same command goes on from there.")

    def _loop(self, screen: Screen, interruption: Interruption | None) -> None:
        trainer, config = self.trainer, self.trainer.config
        while not self.ended and not (interruption is not None and interruption.asked):
            losses = trainer.run_step()
            for name, value in losses.items():
                self.sums.setdefault(name, []).append(value)
            screen.advance(trainer.seconds if config.budget_s else trainer.step, losses)
            if config.validate and (trainer.step % config.validate_every == 0 or trainer.done >= 1):
                self._validate(screen)
            if self.monitor is not None and (trainer.step % self.options.monitor_every == 0 or trainer.done >= 1):
                strip = self.monitor.draw(trainer.best_generator, trainer.step, self._means())
                if self.board is not None:
                    self.board.image("input, prediction, truth", strip, trainer.step)
            interrupted = interruption is not None and interruption.asked
            if trainer.step % config.checkpoint_every == 0 or self.ended or interrupted:
                self._checkpoint(screen)

    def _means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.sums.items()}

    def _validate(self, screen: Screen) -> None:
        """Validate in process 0; all learn the error, so that all stop at the same step."""
        trainer, errors = self.trainer, {"mae": math.nan}
        if self.writes:
            errors = validate(trainer.best_generator, self.validation, trainer.config)
        mae = trainer.processes.agree(errors["mae"])
        self.best = self.best.after(mae, trainer.step)
        if not self.writes:
            return
        row = {"step": trainer.step, **{name: round(value, 6) for name, value in errors.items()}}
        append_row(self.output / "validation.jsonl", row)
        better = self.best.step == trainer.step
        screen.say(f"validation {json.dumps(row)}" + (" (best)" if better else ""))
        if self.board is not None:
            self.board.scalars("validation", errors, trainer.step)
        if better:
            kept = {"format": 2, "config": asdict(trainer.config), "step": trainer.step, "mae": mae}
            save_checkpoint({**kept, "average": trainer.best_generator.state_dict()}, self.output / "best.pt")
        patience = trainer.config.patience
        if 0 < patience <= self.best.since:
            screen.say(f"stopped early: no validation after step {self.best.step} was better (MAE {self.best.mae:.5f})")

    def _checkpoint(self, screen: Screen) -> None:
        trainer = self.trainer
        state = {**trainer.state(), "best": self.best.record()}
        if self.writes:
            means, (step, seconds) = self._means(), self.first
            row = {
                "step": trainer.step,
                "steps_per_s": round((trainer.step - step) / max(trainer.seconds - seconds, 1e-9), 2),
                "seconds": round(trainer.seconds, 2),
                **{name: round(value, 4) for name, value in means.items()},
            }
            screen.say(json.dumps(row))
            append_row(self.output / "log.jsonl", {**row, "memory_mb": round(peak_memory(trainer.device) / 1e6)})
            if self.board is not None:
                self.board.scalars("training", {**means, "learning rate": trainer.learning_rate()}, trainer.step)
            save_checkpoint(state, self.output / "checkpoint.pt")
        self.sums = {}


def peak_memory(device: torch.device) -> int:
    """The most memory used so far in bytes: of the GPU, or of this process; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
