"""The process that runs a job's requests: `imt serve`, for one job or kept with its models loaded for the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from IMTCore.child_environment import module_command, worker_environment

from .processes import ChildProcess

IDLE_SECONDS = 300  # of a worker that is not kept: only for a job that never comes to an end


class Worker:
    """Runs requests (argument lists of `imt`), one at a time, in a process that is started when it is needed.

    >>> worker = Worker(keepSeconds=60)
    >>> Job([["translate", ...]], worker).start()  # starts the process; the next job finds the model loaded

    :param keepSeconds: how long the process waits for another job; 0 ends it with each job.
    :param process: makes a `ChildProcess`, or what does the same.
    :param packageFolders: folders of packages that the process finds before all others.
    """

    def __init__(
        self,
        keepSeconds: float = 0,
        process: Callable[[], ChildProcess] | None = None,
        packageFolders: Sequence[str | Path] = (),
    ) -> None:
        self.keepSeconds = keepSeconds
        self.packageFolders = list(packageFolders)
        self.isBusy = False  # with a job
        self._makeProcess = process or ChildProcess
        self._process: ChildProcess | None = None
        self._number = 0

    def isRunning(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.isRunning()

    @property
    def pid(self) -> int | None:
        """The number of the process, None if none lives."""
        return self._process.pid if self.isRunning() else None

    @property
    def exitCode(self) -> int | None:
        """How the last process ended; None while it lives or if there was none."""
        return None if self._process is None else self._process.exitCode

    def stop(self) -> None:
        """End the process and all its children now; the next job starts another. A job that runs in it fails."""
        if self._process is not None:
            self._process.killTree()

    def send(self, arguments: Sequence[str]) -> int:
        """Give the process a request, starting it if needed; for jobs.

        :return: the request's number, which its end line repeats.
        """
        if not self.isRunning():
            process = self._makeProcess()
            idle = self.keepSeconds or IDLE_SECONDS
            command = module_command("IMTCommand", "serve", "--idle", f"{idle:g}")
            process.start(command, worker_environment(self.packageFolders))
            self._process = process
        self._number += 1
        self._process.writeLine(json.dumps({"id": self._number, "arguments": list(arguments)}))
        return self._number

    def closeInput(self) -> None:
        """Let the process end when it has done what it was sent; for jobs."""
        if self._process is not None:
            self._process.closeInput()

    def readLines(self) -> list[tuple[str, str]]:
        """What the process has said since the last call; for jobs."""
        return [] if self._process is None else self._process.readLines()
