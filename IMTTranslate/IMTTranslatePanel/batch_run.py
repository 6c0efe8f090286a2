"""Many cases in the background: `imt pipeline` in a process of its own, followed through its summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from slicer.i18n import tr as _

from IMTSlicerLib.application import startTimer
from IMTSlicerLib.jobs import JobCancelled
from IMTSlicerLib.runs import inPanelWords
from IMTSlicerLib.signals import Signal
from IMTSlicerLib.staged_jobs import StagedJob

from .batch_rows import OVER, REPORT, BatchRow, readSummary, stampOf, tally
from .translation_run import TranslationOptions

LOOK_MILLISECONDS = 300  # between two looks at the summary
SOME_FAILED = 3  # `imt`'s exit code when all was done, but some cases failed
MIN_SHARE = 0.1  # of a case, before its rate tells how long the others will take


@dataclass(frozen=True)
class BatchPlan:
    """What to do with which cases.

    Attributes:
        input: a folder of cases, a BIDS folder, or a CSV file.
        output: the folder that the results are written to.
        models: translation models, by name or by their card's path.
        segmenter: a segmentation model; empty for none.
        options: how. With `uncertainty` its volumes are written too; trust maps are not made.
    """

    input: Path
    output: Path
    models: tuple[str, ...]
    segmenter: str = ""
    options: TranslationOptions = field(default_factory=TranslationOptions)

    def check(self) -> None:
        """Refuse what no process needs to be started for.

        :raises ValueError: no input, output or model.
        """
        if not isGiven(self.input):
            raise ValueError(_("Choose the input: a folder of cases, a BIDS folder, or a CSV file."))
        if not self.input.exists():
            raise ValueError(_("{path} does not exist. Choose another input.").format(path=self.input))
        if not isGiven(self.output):
            raise ValueError(_("Choose the output folder."))
        if not self.models and not self.segmenter:
            raise ValueError(_("Tick at least one translation model, or choose a segmentation model."))
        if self.options.trustMap:
            raise ValueError(_("A batch makes no trust maps: leave trustMap out, and translate the cases in question one by one."))

    def arguments(self) -> list[str]:
        """As `imt` takes them."""
        arguments = ["pipeline", str(self.input.absolute()), "--output", str(self.output.absolute()), "--progress", "json"]
        if self.models:
            arguments += ["--translate", *self.models]
        if self.models and self.options.uncertainty:
            arguments += ["--uncertainty", str(self.options.samples)]
        if self.segmenter:
            arguments += ["--segment", self.segmenter]
        # Without a translation stage, its options are refused.
        options = self.options if self.models else replace(self.options, singlePlane=False)
        return arguments + options.arguments()


class BatchRun:
    """One batch. Results go to files only; the scene is not touched.

    Signals: `changed()` when a case has gone on, `progress(fraction, secondsLeft or None)`, `logged(line)`, and at the end
    `ended()`. Attributes: `plan`; `errorMessage`, what stopped the whole batch, if anything did.

    >>> run = BatchRun(BatchPlan(Path("cohort"), Path("results"), ("T1-T2",))).start()
    >>> run.wait()
    >>> [row.case for row in run.rows() if row.state == "failed"]
    []

    :raises ValueError: see `BatchPlan.check`.
    """

    def __init__(self, plan: BatchPlan) -> None:
        plan.check()
        self.plan = plan
        self.errorMessage = ""
        self.changed, self.progress, self.logged, self.ended = Signal(), Signal(), Signal(), Signal()
        self._stamp = stampOf(plan.output)
        self._timer = None
        self._left = TimeLeft()
        title = _("Batch of {name}").format(name=plan.input.name)
        self.job = StagedJob([plan.arguments()], {"cases": (0.0, 1.0)}, title=title)
        self.job.progress.connect(self._onProgress)
        self.job.logged.connect(self.logged.emit)
        self.job.ended.connect(self._onEnded)

    @property
    def state(self) -> str:
        """idle, running, finished (also if some cases failed), failed (the whole batch) or cancelled."""
        return "finished" if self.job.state == "failed" and self.job.exitCode == SOME_FAILED else self.job.state

    def start(self) -> BatchRun:
        """Start the process; returns at once."""
        self.job.start()
        self._timer = startTimer(LOOK_MILLISECONDS, self.look)
        return self

    def stop(self) -> None:
        """End the process and its children now. What is finished stays; the same plan goes on from there."""
        self.job.cancel()

    def wait(self) -> BatchRun:
        """Wait for the end; Slicer stays alive. That cases failed is no error: `rows` tells.

        :raises ValueError: the plan cannot be carried out. RuntimeError: the batch broke off or was stopped.
        """
        try:
            self.job.wait()
        except JobCancelled:
            raise JobCancelled(_("Stopped. The same plan goes on from there.")) from None
        except RuntimeError:
            if self.state != "finished":
                raise
        return self

    def rows(self) -> list[BatchRow]:
        """The cases as they are now; before the process has found them, as an earlier run has left them."""
        return readSummary(self.plan.output)

    @property
    def report(self) -> Path:
        """Where the report lies when the batch has ended."""
        return self.plan.output / REPORT

    def look(self) -> None:
        """See whether a case has gone on."""
        stamp = stampOf(self.plan.output)
        if stamp != self._stamp:
            self._stamp = stamp
            self.changed.emit()

    def _onProgress(self, fraction: float, _message: str, _secondsLeft: float | None) -> None:
        self.look()
        self.progress.emit(fraction, self._left.update(fraction, self.rows()))

    def _onEnded(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if self.state == "failed":
            self.errorMessage = inPanelWords(self.job.errorMessage)
        self.look()
        self.ended.emit()


class TimeLeft:
    """How long the remaining cases will take, from those that this run has done: the ones finished before, or failed, took no time.

    :param clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._over = -1  # cases that were over when the present one began
        self._began = 0.0

    def update(self, fraction: float, rows: Sequence[BatchRow]) -> float | None:
        """The seconds left; None while nothing tells.

        :param fraction: of all cases, 0 to 1.
        """
        states, now = tally(rows), self._clock()
        over = sum(states[state] for state in OVER)
        if over != self._over:
            self._over, self._began = over, now
        done = [row.seconds for row in rows if row.state == "done" and row.seconds is not None]  # a broken file fails at once
        share = min(max(fraction * len(rows) - over, 0.0), 1.0)  # of the present case
        if done:
            each = sum(done) / len(done)
        elif share >= MIN_SHARE:
            each = (now - self._began) / share
        else:
            return None
        return max(0.0, each * (len(rows) - over) - (now - self._began))


def isGiven(path: Path) -> bool:
    """Whether a path says anything; an empty text makes the path "."."""
    return str(path) not in ("", ".")
