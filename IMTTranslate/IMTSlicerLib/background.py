"""The life of a background job, whatever it runs: start, progress, cancel, wait, and nothing left behind."""

from __future__ import annotations

import atexit
import logging
import time
from collections import deque
from pathlib import Path

from .application import makeFolder, processEvents, removeFolder, startTimer
from .signals import Signal

TICK_MILLISECONDS = 50
WAIT_SECONDS = 0.01  # between two looks in wait()
MESSAGE_LINES = 5  # of the log, where a failure brings no message

_running: set[BackgroundJob] = set()  # a job that nobody holds must not be collected while it runs


class JobFailed(RuntimeError):
    """The work failed; the text is for the user, `exitCode` the process' (None if it has none)."""

    def __init__(self, message: str, exitCode: int | None = None) -> None:
        super().__init__(message)
        self.exitCode = exitCode


class JobRefused(JobFailed, ValueError):
    """The input, model or device cannot be used (exit code 2 of `imt`)."""


class JobCancelled(RuntimeError):
    """The work was cancelled."""


class BackgroundJob:
    """What all jobs share; subclasses give `_begin`, `_advance` and `_release`.

    Signals: `progress(fraction 0..1, message, secondsLeft or None)` and `logged(line)`; then one of `finished()`,
    `failed(message, exitCode)` and `cancelled()`; last of all `ended()`. An error in a listener is logged, changes
    nothing for the job, and is raised by `wait`.

    Attributes: `title`; `state` (idle, running, finished, failed or cancelled); `folder`, a temporary folder that
    exists from `start` until the listeners of finished, failed or cancelled have run; `errorMessage` and `exitCode`
    of a failure.
    """

    _refusalCode: int | None = None  # the exit code that means "bad input"

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.state = "idle"
        self.folder: Path | None = None
        self.errorMessage = ""
        self.exitCode: int | None = None
        self.progress, self.logged = Signal(), Signal()
        self.finished, self.failed, self.cancelled, self.ended = Signal(), Signal(), Signal(), Signal()
        self._lines: deque[str] = deque(maxlen=20)
        self._listenerError: Exception | None = None
        self._timer = None
        self._ticking = self._starting = self._cancelWanted = False

    def start(self) -> None:
        """Start. If this raises, nothing runs, no signal was emitted and the folder is gone."""
        if self.state != "idle":
            raise RuntimeError("A job is started only once.")
        self.state = "running"
        self._starting = self._ticking = True  # making the requests may let Qt work
        try:
            self.folder = makeFolder()
            self._begin()
        except BaseException:
            self.state = "failed"
            self._discard()
            raise
        finally:
            self._starting = self._ticking = False
        _running.add(self)
        self._timer = startTimer(TICK_MILLISECONDS, self.tick)
        if self._cancelWanted:
            self.cancel()

    def tick(self) -> None:
        """Take in what the process has said. Called by the timer and by `wait`; never raises."""
        if self._ticking or self.state != "running":  # again, from a listener that lets Qt work
            return
        self._ticking = True
        try:
            self._advance()
        except Exception as error:
            logging.exception("IMT: a job broke")
            self._end("failed", str(error) or type(error).__name__, None)
        finally:
            self._ticking = False

    def cancel(self) -> None:
        """End the work now, within one second; does nothing if it does not run."""
        if self._starting:
            self._cancelWanted = True
        else:
            self._end("cancelled")

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the job has ended; Slicer stays alive meanwhile.

        :raises JobFailed: it failed, as JobRefused (also a ValueError) if the input cannot be used.
        :raises JobCancelled: it was cancelled.
        :raises TimeoutError: `timeout` seconds are over; the job goes on.
        """
        if self.state == "idle":
            raise RuntimeError("Start the job before you wait for it.")
        if self.state == "running" and self._ticking:
            raise RuntimeError("What a job calls cannot wait for that job.")
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while self.state == "running":
                self.tick()
                if self.state != "running":
                    break
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError(f"The job has not ended after {timeout:g} s.")
                time.sleep(WAIT_SECONDS)
                processEvents()
        except (KeyboardInterrupt, SystemExit):
            self.cancel()
            raise
        if self.state == "failed":
            refused = self.exitCode is not None and self.exitCode == self._refusalCode
            raise (JobRefused if refused else JobFailed)(self.errorMessage, self.exitCode)
        if self.state == "cancelled":
            raise JobCancelled("Cancelled: nothing was changed.")
        if self._listenerError:
            raise self._listenerError

    def _begin(self) -> None:
        """Start the process; if this raises, it must have undone what it did."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Read what has come; call `_end` when it is over."""
        raise NotImplementedError

    def _release(self) -> None:
        """Leave no process behind, however the job ended (see `state`)."""
        raise NotImplementedError

    def _log(self, line: str) -> None:
        self._lines.append(line)
        self._emit(self.logged, line)

    def _lastLines(self) -> list[str]:
        return [line for line in self._lines if line.strip()][-MESSAGE_LINES:]

    def _emit(self, signal: Signal, *values: object) -> None:
        try:
            signal.emit(*values)
        except Exception as error:
            self._listenerError = self._listenerError or error
            logging.exception("IMT: a listener of a job failed")

    def _end(self, state: str, *values: object) -> None:
        if self.state != "running":
            return
        self.state = state
        if state == "failed":
            self.errorMessage, self.exitCode = values
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        try:
            self._release()
        finally:
            try:
                self._emit(getattr(self, state), *values)
            finally:
                self._discard()
                _running.discard(self)
                self._emit(self.ended)

    def _discard(self) -> None:
        """Remove what the job has made for itself."""
        if self.folder is not None:
            removeFolder(self.folder)


def abandonAll() -> None:
    """End every job that still runs, without a word: those who listen may be gone, as at the application's end."""
    for job in list(_running):
        _running.discard(job)
        job.state = "cancelled"
        try:
            job._release()
        finally:
            job._discard()


atexit.register(abandonAll)
