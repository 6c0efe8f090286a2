"""A child process whose output never blocks, and that dies with all its children."""

from __future__ import annotations

import atexit
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import IO

TERMINATE_SECONDS = 0.3  # for a clean end after SIGTERM, before SIGKILL
KILL_SECONDS = 0.4
OUTPUT_SECONDS = 0.5  # how long output may still come in when the process has ended

_living: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


class ChildProcess:
    """One process, in a group of its own. Threads only wait and fill a queue; all calls come from one thread.

    >>> process = ChildProcess()
    >>> process.start([sys.executable, "-c", "print(1)"], dict(os.environ))
    >>> while process.isRunning():
    ...     time.sleep(0.01)
    >>> process.readLines(), process.exitCode
    ([('stdout', '1')], 0)
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []
        self._waiter: threading.Thread | None = None
        self._endedAt = 0.0
        self._killAt = 0.0  # until when the group may end by itself

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        """Start the process.

        :raises OSError: if there is no such program.
        """
        if self._process is not None:
            raise RuntimeError("A ChildProcess is started only once.")
        options: dict[str, object] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [str(part) for part in command], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, **options
        )
        _living.add(self)
        for name in ("stdout", "stderr"):
            self._readers.append(self._thread(self._read, name, getattr(self._process, name)))
        self._waiter = self._thread(self._wait)

    @staticmethod
    def _thread(target, *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        return thread

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._lines.put((name, line.decode("utf-8", "replace").rstrip("\r\n")))

    def _wait(self) -> None:
        self._process.wait()
        # Slicer's Python is a launcher with the real one as its child: a SIGTERM ends the launcher first.
        while self._signalGroup(0) and time.monotonic() < self._killAt:
            time.sleep(0.005)
        self._signalGroup("SIGKILL")  # what it started and left behind ends with it
        self._endedAt = time.monotonic()

    def _signalGroup(self, name: str | int) -> bool:
        """Whether there is a group to signal; signal 0 only asks."""
        if sys.platform == "win32":
            return False
        try:
            os.killpg(self._process.pid, getattr(signal, name) if name else 0)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            return False
        return True

    @property
    def pid(self) -> int | None:
        """The process' number; None before `start`."""
        return self._process.pid if self._process else None

    def isRunning(self) -> bool:
        """Whether the process lives, or output of it may still come. Once False, `readLines` gives all that is left."""
        if self._process is None:
            return False
        if self._waiter.is_alive():
            return True
        # A process that left the group may hold the pipes open for ever.
        return any(reader.is_alive() for reader in self._readers) and time.monotonic() < self._endedAt + OUTPUT_SECONDS

    @property
    def exitCode(self) -> int | None:
        """The exit code, on POSIX minus the signal's number if one ended it; None while it lives."""
        return None if self._process is None or self._waiter.is_alive() else self._process.returncode

    def writeLine(self, text: str) -> None:
        """Give the process a line. That it has ended is no error here: `isRunning` and `exitCode` tell."""
        try:
            self._process.stdin.write(text.encode("utf-8") + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # gone, or its input was closed
            pass

    def closeInput(self) -> None:
        """Say that no more lines come."""
        try:
            self._process.stdin.close()
        except OSError:
            pass

    def readLines(self) -> list[tuple[str, str]]:
        """The lines that have come since the last call, as ("stdout" or "stderr", text). Never blocks."""
        lines = []
        while True:
            try:
                lines.append(self._lines.get_nowait())
            except queue.Empty:
                return lines

    def killTree(self) -> None:
        """End the process and all its children; takes well below one second."""
        if self._process is None:
            return
        if self._waiter.is_alive():
            if sys.platform == "win32":
                self._taskkill()
            else:
                self._killAt = time.monotonic() + TERMINATE_SECONDS
                self._signalGroup("SIGTERM")
                self._waiter.join(TERMINATE_SECONDS)
                if self._waiter.is_alive():
                    self._signalGroup("SIGKILL")
            self._waiter.join(KILL_SECONDS)
        if not self._waiter.is_alive():
            self._endedAt = -OUTPUT_SECONDS  # nobody waits for what it may still have to say
        self.closeInput()
        _living.discard(self)

    def _taskkill(self) -> None:
        command = ["taskkill", "/T", "/F", "/PID", str(self._process.pid)]
        try:
            subprocess.run(command, capture_output=True, timeout=KILL_SECONDS, creationflags=subprocess.CREATE_NO_WINDOW)
        except (OSError, subprocess.SubprocessError):
            pass
        if self._process.poll() is None:
            self._process.kill()


def killAllChildren() -> None:
    """End every process that still lives, as at the application's end."""
    for process in list(_living):
        process.killTree()


atexit.register(killAllChildren)


def describeExit(exitCode: int | None, lastLines: Iterable[str] = ()) -> str:
    """What an exit code says of a process that ended without a word of its own.

    :param lastLines: the end of its output: Slicer's launcher gives 1 for a crash, and says so there alone.
    """
    if exitCode is None:
        return "The process did not end."
    if exitCode == 1 and any("exit abnormally" in line for line in lastLines):
        return "The process crashed or was killed: the computer may have run out of memory."
    if sys.platform == "win32" and exitCode & 0xFFFFFFFF >= 0xC0000000:
        return f"The process crashed (0x{exitCode & 0xFFFFFFFF:08X})."
    if exitCode >= 0:
        return f"The process ended unexpectedly (exit code {exitCode})."
    try:
        name = signal.Signals(-exitCode).name
    except ValueError:
        name = f"signal {-exitCode}"
    if name == "SIGKILL":
        return "The process was killed (SIGKILL): the computer may have run out of memory."
    if name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGABRT", "SIGFPE"):
        return f"The process crashed ({name})."
    return f"The process was ended from outside ({name})."
