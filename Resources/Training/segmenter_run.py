"""A run of a segmenter's training: steps, with reports, validations, pictures and checkpoints at their intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import numpy as np

from checkpoints import save_checkpoint
from run_log import Interruption, Screen, append_row, forget_after
from segmenter_arguments import SegmenterRunOptions
from segmenter_data import PreparedSubject, examples_of
from segmenter_monitor import SegmenterMonitor
from segmenter_trainer import SegmenterTrainer
from segmenter_validation import BestDice, validate
from training_run import peak_memory

from IMTCore.errors import Cancelled


class SegmenterRun:
    """Runs a trainer to the end of its steps, to `--stop-at`, or until it is interrupted.

    Writes `checkpoint.pt` (all that a resume needs), `log.jsonl`, and with validation subjects `validation.jsonl` and
    `best.pt`, the best network of the last stage.

    Args:
        trainer: new, or with a checkpoint's state in it.
        options: where the run's files go, and how often.
        validation: whole subjects to validate on.
        best: the best validation so far, of a resumed run.
    """

    def __init__(
        self,
        trainer: SegmenterTrainer,
        options: SegmenterRunOptions,
        validation: Sequence[PreparedSubject] = (),
        best: BestDice | None = None,
    ) -> None:
        self.trainer, self.options, self.validation = trainer, options, validation
        self.best, self.output = best or BestDice(), options.output
        self.last = min(trainer.config.total_steps, options.stop_at or trainer.config.total_steps)
        self.first, self.started = trainer.step, time.perf_counter()
        self.sums: dict[str, list[float]] = {}
        for name in ("log.jsonl", "validation.jsonl"):
            forget_after(self.output / name, trainer.step)
        self.monitor = None
        if options.monitor_every:
            shown = examples_of(validation[0], trainer.config)[0] if validation else trainer.sampler.examples[0]
            self.monitor = SegmenterMonitor(self.output / "monitor", shown, trainer.config)

    def run(self) -> None:
        """Do it.

        Raises:
            TrainingFailed: a loss is not finite. OutputFailure: a file cannot be written. Cancelled: by Ctrl-C or a request
            to end; a checkpoint was written.
        """
        trainer = self.trainer
        screen = Screen(trainer.config.total_steps, "steps", trainer.step)
        interruption = Interruption()
        try:
            with interruption:
                while trainer.step < self.last and not interruption.asked:
                    self._step(screen, interruption)
        finally:
            screen.close()
            trainer.close()
        if interruption.asked and trainer.step < self.last:
            raise Cancelled(f"Stopped at step {trainer.step}: the same command goes on from there.")

    def _step(self, screen: Screen, interruption: Interruption) -> None:
        trainer, config = self.trainer, self.trainer.config
        phase = trainer.phase
        values = trainer.run_step()
        for name, value in values.items():
            self.sums.setdefault(name, []).append(value)
        screen.advance(trainer.step, values)
        if trainer.phase != phase:
            self.best = BestDice()  # a later stage's network is another one: the best is that of the last stage
        if self.validation and (trainer.step % config.validate_every == 0 or trainer.step == config.total_steps):
            self._validate(screen)
        if self.monitor is not None and (trainer.step % self.options.monitor_every == 0 or trainer.step == self.last):
            self.monitor.draw(trainer.network, trainer.step, self._means())
        if trainer.step % config.checkpoint_every == 0 or trainer.step == self.last or interruption.asked:
            self._checkpoint(screen, phase)

    def _means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.sums.items()}

    def _validate(self, screen: Screen) -> None:
        trainer = self.trainer
        scores = validate(trainer.network, self.validation, trainer.config)
        self.best = self.best.after(scores["dice"], trainer.step)
        row = {"step": trainer.step, "stage": trainer.phase, **{name: round(value, 5) for name, value in scores.items()}}
        append_row(self.output / "validation.jsonl", row)
        better = self.best.step == trainer.step
        screen.say(f"validation {json.dumps(row)}" + (" (best)" if better else ""))
        if better:
            save_checkpoint({**trainer.weights_state(), "dice": scores["dice"]}, self.output / "best.pt")

    def _checkpoint(self, screen: Screen, phase: str) -> None:
        trainer = self.trainer
        rate = (trainer.step - self.first) / max(time.perf_counter() - self.started, 1e-9)
        means = {name: round(value, 4) for name, value in self._means().items()}
        row = {"step": trainer.step, "stage": phase, "steps_per_s": round(rate, 2), **means}
        screen.say(json.dumps(row))
        append_row(self.output / "log.jsonl", {**row, "memory_mb": round(peak_memory(trainer.device) / 1e6)})
        save_checkpoint({**trainer.state(), "best": self.best.record()}, self.output / "checkpoint.pt")
        self.sums = {}
