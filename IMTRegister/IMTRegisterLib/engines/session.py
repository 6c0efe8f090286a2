"""The parent's end of an engine's process: start it, send it a request, wait for the answer, end it.

An engine may print, crash, hang in C++ code or use up the memory: none of this touches the process that asks.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from IMTCore.child_environment import module_command, worker_environment
from IMTCore.errors import Cancelled, OutputFailure
from IMTCore.files import describe_write_error, remove_leftovers, temporary_prefix

from .server import FOLDER_PREFIX, LOG

POLL_SECONDS = 0.1  # how soon a cancel is seen
END_SECONDS = 5.0  # for a killed process to be gone
LOG_LINES = 8
STALE_SECONDS = 2 * 24 * 3600  # a folder of a session that was killed: no task takes so long
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "NSLOTS",
)


class ProcessEnded(Exception):
    """The process is gone without an answer; the text says how, with the last lines of its log."""


class EngineProcess:
    """One engine's process, with a private folder for the files of its tasks. All calls come from one thread.

    The folder's name is of ASCII letters below the system's folder of temporary files; it goes with the process.

    Args:
        engine: the engine's name.
        packages: the folder of the engines' packages.
        threads: how many the engine may use.

    Raises:
        OutputFailure: the private folder cannot be made. ProcessEnded: the process cannot be started.
    """

    def __init__(self, engine: str, packages: Path, threads: int) -> None:
        _remove_stale_folders()
        remove_leftovers(Path(tempfile.gettempdir()))
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=temporary_prefix(FOLDER_PREFIX.rstrip("-"))))
        except OSError as error:
            raise OutputFailure(describe_write_error(Path(tempfile.gettempdir()), error)) from error
        environment = worker_environment([packages])
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        command = module_command("IMTRegisterLib.engines.server", engine)
        arguments = (command, environment, self.folder, started, self._lines)
        threading.Thread(target=_start_and_read, args=arguments, daemon=True).start()
        process = started.get()
        if isinstance(process, OSError):
            shutil.rmtree(self.folder, ignore_errors=True)
            raise ProcessEnded(f"Python cannot be started ({process.strerror or process})")
        self._process = process
        self._finish = weakref.finalize(self, _end, process, self.folder)

    @property
    def pid(self) -> int:
        """The process' number."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it can take a request."""
        return self._finish.alive and self._process.poll() is None

    def send(self, request: dict[str, Any]) -> None:
        """Give it a request. That it is gone is said by `answer`."""
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass

    def answer(self, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """Wait for the next answer.

        Raises:
            Cancelled: `cancelled` said so; the process and its folder are gone. ProcessEnded: it ended; the folder is gone.
        """
        while True:
            if cancelled():
                self.end()
                raise Cancelled("Cancelled.")
            try:
                line = self._lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                reason = self._describe_end()
                self.end()
                raise ProcessEnded(reason)
            return json.loads(line)

    def last_lines(self) -> list[str]:
        """The end of what the engine has printed since its task began."""
        try:
            text = (self.folder / LOG).read_bytes()[-20_000:].decode("utf-8", "replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()][-LOG_LINES:]

    def end(self) -> None:
        """Kill the process with all its children, and remove its folder; takes well below a second."""
        self._finish()

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # it has closed its output alone
            return "its process no longer answers"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            memory = "; the computer may have run out of memory" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{memory}"
        return f"its process ended with exit code {code}"


def _start_and_read(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError],
    lines: queue.SimpleQueue[str | None],
) -> None:
    """Start the process and queue its answers, then None. In one thread: on Linux a child that dies with its parent
    dies with the very thread that started it."""
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    try:
        with open(folder / LOG, "ab") as log:
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, env=environment, cwd=folder, stdin=pipe, stdout=pipe, stderr=log, **options)
    except OSError as error:
        started.put(error)
        return
    started.put(process)
    output: IO[bytes] = process.stdout
    with output:
        for line in output:
            lines.put(line.decode("utf-8", "replace"))
    lines.put(None)


def _remove_stale_folders() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # gone meanwhile
            pass


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    if sys.platform == "win32":
        if process.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # Slicer's Python is a launcher with the real one as its child
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            pass
    try:
        process.wait(END_SECONDS)
        process.stdin.close()
    except (OSError, subprocess.TimeoutExpired):
        pass
    shutil.rmtree(folder, ignore_errors=True)
