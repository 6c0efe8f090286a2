"""Run hostile cases in child processes with limits on time and memory, and judge what came of each.

A case is refused (one clear message that names the input, nothing left behind) or accepted (its outputs are whole and
finite). All else is a fault.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from process_facts import cpu_seconds, forget_peak, peak_mb, resident_mb

from IMTCore.plain_text import has_controls

CPU_SECONDS = 20.0  # for one case, which takes well below one
WALL_SECONDS = 240.0  # for one that waits; on a busy machine an honest one may wait too
GROWTH_MB = 700  # what a case may add to the resident memory: the largest honest one adds about 200
POLL_SECONDS = 0.05
MAX_MESSAGE = 4200
CANARY = "canary"  # the file that code in a hostile file would make


@dataclass(frozen=True)
class Case:
    """One hostile case.

    Attributes:
        run: does it; returns an exit code as `imt` does. What it raises is a fault.
        names: the message must have one of them.
        accepted: looks at the outputs of a case that was not refused; returns what is wrong with them.
        named: whether a refusal must have one of the names.
        may_fail: how a message of exit code 1 may begin.
        writes: folders below the case's folder that it may write to.
    """

    run: Callable[[], int]
    names: Sequence[str]
    accepted: Callable[[], str | None] = lambda: None
    writes: Sequence[str] = ("out",)
    named: bool = True
    may_fail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What came of a case: "refused", "accepted" or "fault", with the message or what is wrong."""

    kind: str
    number: int
    result: str
    text: str = ""
    seconds: float = 0.0
    growth_mb: float = 0.0


Maker = Callable[[str, int, Path], Case]


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    base_mb: float = 0.0
    base_cpu: float = 0.0
    job: tuple[str, int] | None = None
    since: float = 0.0
    folder: Path = field(default_factory=Path)


# Imported before the fork: else each new worker takes seconds for them.
PRELOADED = (
    "nibabel", "scipy.ndimage", "scipy.special", "SimpleITK", "pydicom", "safetensors.torch", "psutil", "IMTCore.translation", "IMTCore.legacy_import",
    "IMTSegmentLib.segmentation", "IMTRegisterLib.registration.subject", "IMTCommand.__main__", "IMTCommand.translate_command",
    "IMTCommand.segment_command", "IMTCommand.pipeline_command", "IMTCommand.evaluate_command", "IMTCommand.dicom_command", "matplotlib",
)  # fmt: skip


def run_cases(make: Maker, jobs: Sequence[tuple[str, int]], work: Path, workers: int = 2) -> Iterator[Verdict]:
    """Run all `jobs` (kind, number) in forked processes; each makes its case by `make(kind, number, folder)`."""
    for name in PRELOADED:
        importlib.import_module(name)
    context = multiprocessing.get_context("fork")
    waiting = list(reversed(jobs))
    running = [_start(context, make, work / f"worker{n}") for n in range(min(workers, len(jobs)))]
    try:
        while waiting or any(worker.job for worker in running):
            for worker in running:
                if worker.job is None and waiting:
                    worker.job, worker.since = waiting.pop(), time.monotonic()
                    worker.base_cpu = cpu_seconds(worker.process.pid)
                    worker.pipe.send(worker.job)
            wait([worker.pipe for worker in running if worker.job], POLL_SECONDS)
            for n, worker in enumerate(running):
                verdict = _look(worker)
                if verdict is None:
                    continue
                worker.job = None
                if not worker.process.is_alive():
                    running[n] = _start(context, make, worker.folder)
                yield verdict
    finally:
        for worker in running:
            _end(worker)


def _look(worker: _Worker) -> Verdict | None:
    if worker.job is None:
        return None
    seconds = time.monotonic() - worker.since
    if worker.pipe.poll():
        try:
            return worker.pipe.recv()
        except EOFError:
            worker.process.join()
            code = worker.process.exitcode
            name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            return Verdict(*worker.job, "fault", f"the process crashed: {name}", seconds)
    growth = resident_mb(worker.process.pid) - worker.base_mb
    computed = cpu_seconds(worker.process.pid) - worker.base_cpu
    if seconds > WALL_SECONDS or computed > CPU_SECONDS or growth > GROWTH_MB:
        _end(worker)
        text = f"memory grew by {growth:.0f} MB" if growth > GROWTH_MB else f"no end after {seconds:.0f} s, {computed:.0f} s of computing"
        return Verdict(*worker.job, "fault", text, seconds, growth)
    return None


def _start(context: Any, make: Maker, folder: Path) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, folder), daemon=True)
    process.start()
    theirs.close()
    time.sleep(0.02)
    return _Worker(process, ours, resident_mb(process.pid), folder=folder)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()


def _serve(pipe: Connection, make: Maker, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            kind, number = pipe.recv()
        except EOFError:
            os._exit(0)
        pipe.send(judge(make, kind, number, folder))


def judge(make: Maker, kind: str, number: int, folder: Path) -> Verdict:
    """Make and run one case in this process, in an empty `folder`; its output goes to files there."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("in", "out", "cwd"):
        (folder / name).mkdir(parents=True)
    base = resident_mb(os.getpid())
    forget_peak()
    start = time.process_time()
    try:
        case = make(kind, number, folder)
        before = _contents(folder, case.writes)
        with _captured(folder) as streams:
            try:
                code = case.run()
                problem = None
            except BaseException as error:
                code, problem = -1, f"{type(error).__name__} escaped: {error} [{_place(error)}]"
        said = streams()
        problem = problem or _problem(case, code, said, folder, before)
    except Exception as error:
        traceback.print_exc()
        code, said, problem = -1, "", f"the case could not be made: {type(error).__name__}: {error}"
    result = "fault" if problem else "accepted" if code == 0 else "refused"
    text = problem or (said.strip().splitlines() or [""])[-1]
    growth = max(0.0, peak_mb() - base)
    return Verdict(kind, number, result, text[:MAX_MESSAGE], round(time.process_time() - start, 3), round(growth, 1))


def _problem(case: Case, code: int, said: str, folder: Path, before: dict[str, Any]) -> str | None:
    """What is wrong with how a case ended, or None."""
    if (folder / CANARY).exists():
        return "code of the file was executed"
    after = _contents(folder, case.writes)
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        return f"changed outside the output folder: {', '.join(changed[:5])}"
    leftovers = [p for name in case.writes for p in (folder / name).rglob(".imt-*")]
    if leftovers:
        return f"left behind: {leftovers[0].relative_to(folder)}"
    if code == 0:
        return case.accepted()
    lines = [line for line in said.splitlines() if line.strip()]
    if code == 1 and lines and lines[-1].startswith(case.may_fail):
        return None
    if code not in (2, 3):
        return f"exit code {code}: {lines[-1] if lines else 'no message'}"
    if "Traceback" in said or not lines or not lines[-1].startswith("imt: "):
        return f"no clear message: {said.strip()[-500:]!r}"
    message = lines[-1]
    if re.search(r"\b[A-Z]\w*(Error|Exception|Warning): ", said):
        return f"an error's name in the message: {said.strip()[-500:]}"
    if len(message) > MAX_MESSAGE:
        return f"the message has {len(message)} characters: {message[:200]}"
    if has_controls(said):
        return f"the message has control characters: {message!r}"
    if case.named and code == 2 and not any(name in said for name in case.names):
        return f"the message does not name the input: {message}"
    return None


class _captured:
    """Standard output and error, also of C code, go to files; gives a function that reads them."""

    def __init__(self, folder: Path) -> None:
        self.path, self.told = folder / "said.txt", folder / "told.txt"
        self.cwd = folder / "cwd"

    def __enter__(self) -> Callable[[], str]:
        self.before, self.numbers = os.getcwd(), [os.dup(1), os.dup(2)]
        sys.stdout.flush(), sys.stderr.flush()
        said = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        told = os.open(self.told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1), os.dup2(said, 2)
        os.close(said), os.close(told)
        os.chdir(self.cwd)
        self.streams = sys.stdout, sys.stderr  # under pytest they are not those of the descriptors
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", errors="replace", closefd=False) for number in (1, 2))
        return self.read

    def read(self) -> str:
        """What was said; of a command that tells why in its result, that."""
        said = self.path.read_text(encoding="utf-8", errors="replace")
        return said if "imt: " in said else said + "".join(f"imt: {line}\n" for line in self.told.read_text(errors="replace").splitlines())

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush(), sys.stderr.flush()
        sys.stdout, sys.stderr = self.streams
        os.chdir(self.before)
        for target, number in enumerate(self.numbers, start=1):
            os.dup2(number, target)
            os.close(number)


def _contents(folder: Path, but: Sequence[str]) -> dict[str, Any]:
    """What lies in `folder`, except below the folders `but`: kind, size and hash of each entry."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in ("said.txt", "told.txt") or any(name == part or name.startswith(part + "/") for part in but):
            continue
        state = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(state.st_mode) else None
        found[name] = (stat.S_IFMT(state.st_mode), state.st_size if digest else 0, digest)
    return found


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
