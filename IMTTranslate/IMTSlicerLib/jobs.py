"""Background work: requests to `imt`, or any other command.

>>> job = Job(lambda folder: [["translate", ..., "--output", folder / "T2.nrrd", "--progress", "json"]])
>>> job.finished.connect(lambda: load(job.folder / "T2.nrrd"))
>>> job.failed.connect(lambda message, exitCode: show(message))
>>> job.start()  # in a panel the signals come by themselves
>>> job.wait()  # in a script; raises JobFailed or JobCancelled
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from IMTCore.child_environment import worker_environment

from .background import BackgroundJob, JobCancelled, JobFailed, JobRefused
from .job_progress import JobProgress
from .processes import ChildProcess, describeExit
from .workers import Worker

__all__ = ["Job", "JobCancelled", "JobFailed", "JobRefused", "ProcessJob"]

LEAVE_SECONDS = 2.0  # for a worker to end by itself after its last request
OUTPUT_SECONDS = 0.05  # for standard error, which comes through a pipe of its own, to arrive after the end line
Requests = Sequence[Sequence[object]]


class Job(BackgroundJob):
    """Requests to `imt` that run one after the other; the first that fails fails the job.

    :param requests: argument lists of `imt` (with `--progress json` where it is known), or a callable that is given
        the job's folder and returns them.
    :param worker: where they run; None for a process of the job's own.
    """

    _refusalCode = 2

    def __init__(self, requests: Requests | Callable[[Path], Requests], worker: Worker | None = None, title: str = "") -> None:
        super().__init__(title)
        self.worker = worker or Worker()
        self._wanted = requests
        self._requests: list[list[str]] = []
        self._index = 0  # of the request that runs
        self._number = 0  # by which its end line is known
        self._heard = False  # whether it has said anything
        self._message = ""  # the last of `progress`
        self._problem = ""  # its error line's message
        self._code: int | None = None  # its end line's exit code
        self._over = False  # whether it has ended
        self._kept = False  # whether its process is from an earlier job
        self._overAt = 0.0

    def _begin(self) -> None:
        if self.worker.isBusy:
            raise RuntimeError("The worker runs another job. Wait for it, or cancel it.")
        requests = self._wanted(self.folder) if callable(self._wanted) else self._wanted
        self._requests = [[str(part) for part in request] for request in requests]
        if not self._requests:
            raise ValueError("A job needs at least one request.")
        self._progress = JobProgress(len(self._requests))
        self.worker.readLines()  # what an earlier job left unread
        self._kept = self.worker.isRunning()
        self._send()
        self.worker.isBusy = True

    def _send(self) -> None:
        self._heard, self._over, self._problem, self._code = False, False, "", None
        self._number = self.worker.send(self._requests[self._index])
        if self._isLast() and not self.worker.keepSeconds:
            self.worker.closeInput()

    def _isLast(self) -> bool:
        return self._index + 1 == len(self._requests)

    def _advance(self) -> None:
        running = self.worker.isRunning()
        self._read()
        if self.state != "running":
            return
        if self._over:
            self._finishRequest(running)
        elif not running and self._kept and not self._heard:  # it left, being idle, just as the request came
            self._kept = False
            self._send()
        elif not running:
            code = self.worker.exitCode
            self._end("failed", "\n".join([describeExit(code, self._lastLines()), *self._lastLines()]), code)

    def _read(self) -> None:
        for stream, text in self.worker.readLines():
            event = parseEvent(text) if stream == "stdout" else None
            self._heard = self._heard or event is not None
            if event is None:
                self._log(text)
            elif event["stage"] == "end":
                if event.get("id") == self._number:
                    self._over, self._code = True, event.get("exit_code")
                    self._overAt = time.monotonic()
            elif event["stage"] == "error":
                self._problem = event["message"]
            else:
                fraction, left = self._progress.update(self._index, event["stage"], event["fraction"])
                self._message = ": ".join(part for part in (event["stage"], event["message"]) if part)
                self._emit(self.progress, fraction, self._message, left)
            if self.state != "running":  # cancelled by a listener
                return

    def _finishRequest(self, running: bool) -> None:
        """After the end line: the next request, or the end of the job when all its output has come."""
        if self._code == 0 and not self._isLast():
            self._emit(self.progress, self._progress.finishRequest(self._index), self._message, None)
            if self.state == "running":
                self._index += 1
                self._kept = False
                self._send()
            return
        leaves = self._code == 0 and not self.worker.keepSeconds
        if running and time.monotonic() < self._overAt + (LEAVE_SECONDS if leaves else OUTPUT_SECONDS):
            return
        if self._code != 0:
            message = self._problem or "\n".join(self._lastLines()) or f"The imt command failed ({self._code})."
            self._end("failed", message, self._code)
            return
        self._emit(self.progress, self._progress.finishRequest(self._index), self._message, 0.0)
        self._end("finished")

    def _release(self) -> None:
        if not (self.worker.keepSeconds and self._over):
            self.worker.stop()
        self.worker.isBusy = False


class ProcessJob(BackgroundJob):
    """Any other command, such as pip: its lines are logged and are the messages of `progress`.

    :param command: program and arguments, or a callable that is given the job's folder and returns them.
    :param environment: None for a worker's.
    :param process: makes a `ChildProcess`, or what does the same.
    """

    def __init__(
        self,
        command: Sequence[object] | Callable[[Path], Sequence[object]],
        environment: dict[str, str] | None = None,
        title: str = "",
        process: Callable[[], ChildProcess] | None = None,
    ) -> None:
        super().__init__(title)
        self._command, self._environment = command, environment
        self._process = (process or ChildProcess)()

    def _begin(self) -> None:
        command = self._command(self.folder) if callable(self._command) else self._command
        self._process.start([str(part) for part in command], self._environment or worker_environment())
        self._process.closeInput()

    def _advance(self) -> None:
        running = self._process.isRunning()
        for _, text in self._process.readLines():
            self._log(text)
            if self.state == "running" and text.strip():
                self._emit(self.progress, 0.0, text.strip(), None)
            if self.state != "running":
                return
        if running:
            return
        code = self._process.exitCode
        if code == 0:
            self._succeed()
        else:
            self._end("failed", "\n".join(self._lastLines() if code and code > 0 else [describeExit(code)]), code)

    def _succeed(self) -> None:
        """The command has done its work."""
        self._emit(self.progress, 1.0, "", 0.0)
        self._end("finished")

    def _release(self) -> None:
        self._process.killTree()


def parseEvent(text: str) -> dict | None:
    """A JSON line of `imt`; None for any other text."""
    if not text.startswith("{"):
        return None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("fraction"), int | float) or not abs(event["fraction"]) < math.inf:
        return None
    return event if isinstance(event.get("stage"), str) and isinstance(event.get("message"), str) else None
