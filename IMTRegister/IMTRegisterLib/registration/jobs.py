"""Several atlases at once, each job with an engine process of its own, within a memory budget."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.machine import available_cores, free_gigabytes
from IMTCore.progress import Progress

from ..engines.interface import EngineFailed, EngineSession
from .pairs import Pair, PairResult
from .settings import RegistrationSettings

# Resident memory of an engine process: what it takes with nothing loaded, and bytes for each voxel of the fixed box and
# each channel-free copy that its deformable stage holds (images, gradients, fields and their updates, at every level).
ENGINE_BASE_GB = {"greedy": 0.3, "ants": 0.6, "elastix": 0.6}
ENGINE_BYTES_PER_VOXEL = {"greedy": 250, "ants": 700, "elastix": 400}
OWN_BYTES_PER_VOXEL = 150  # of this process for one atlas: images, two fields, their fusion
CHECK_SECONDS = 0.2


@dataclass(frozen=True)
class JobPlan:
    """How many atlases are registered at once, with how many threads each, and what a job may take.

    Attributes:
        last: how many atlases are left for the last round, if they are fewer than the jobs; else 0.
        last_threads: what each of them gets, so that no core is idle.
    """

    jobs: int
    threads: int
    job_gb: float
    budget_gb: float
    last: int = 0
    last_threads: int = 1

    def threads_of(self, number: int, atlases: int) -> int:
        """The threads for the atlas `number` of so many: known before the run, as some engines' bits depend on it."""
        return self.last_threads if number >= atlases - self.last else self.threads


def job_gigabytes(engine: str, voxels: int, channels: int = 1) -> float:
    """What one job takes at most, in GB: an estimate from the number of voxels of the subject's box."""
    images = 12 * channels  # fixed, moving and warped, float32
    return ENGINE_BASE_GB[engine] + voxels * (ENGINE_BYTES_PER_VOXEL[engine] + OWN_BYTES_PER_VOXEL + images) / 1e9


def plan_jobs(settings: RegistrationSettings, atlases: int, voxels: int, channels: int = 1) -> JobPlan:
    """As many jobs as there are atlases, cores and memory for; the cores are shared among them.

    Raises:
        BadInput: the memory budget is too small for one job; says how much is needed.
    """
    cores = available_cores()
    job_gb = job_gigabytes(settings.engine, voxels, channels)
    budget = settings.memory_gb if settings.memory_gb is not None else free_gigabytes() / 2
    if job_gb > budget:
        given = "the memory budget" if settings.memory_gb is not None else "half of the free memory"
        raise BadInput(
            f"One registration with {settings.engine} on {voxels / 1e6:.1f} million voxels needs about {job_gb:.1f} GB, but {given} "
            f"is {budget:.1f} GB. Give more (--memory-gb {job_gb:.1f}), use larger voxels, or the engine greedy."
        )
    jobs = min(settings.jobs or cores, atlases, int(budget // job_gb))
    threads = settings.threads or max(1, cores // jobs)
    last = atlases % jobs
    last_threads = threads if settings.threads or not last else max(threads, min(cores, jobs * threads) // last)
    return JobPlan(jobs, threads, job_gb, budget, last, last_threads)


class _Engines:
    """An engine session for each thread, started when the thread first needs it, and anew for another number of threads."""

    def __init__(self, settings: RegistrationSettings, cancelled: Callable[[], bool]) -> None:
        self._settings, self._cancelled = settings, cancelled
        self._local, self._lock = threading.local(), threading.Lock()
        self._all: list[EngineSession] = []

    def get(self, threads: int) -> EngineSession:
        """This thread's session."""
        session = getattr(self._local, "session", None)
        if session is not None and session.threads == threads:
            return session
        if session is not None:
            session.close()
        settings = self._settings
        session = EngineSession(settings.engine, settings.preset, threads, settings.parameters, cancelled=self._cancelled)
        self._local.session = session
        with self._lock:
            self._all.append(session)
        return session

    def close(self) -> None:
        for session in self._all:
            with contextlib.suppress(ImtError, OSError):
                session.close()


class _Counter:
    """Tells the progress of all atlases together, from any thread."""

    def __init__(self, progress: Progress, total: int, atlases: int) -> None:
        self.progress, self.total, self.atlases = progress, max(total, 1), atlases
        self.steps = self.finished = 0
        self.lock = threading.Lock()

    def begin(self, name: str, stage: str) -> None:
        with self.lock:
            self.progress("register", min(self.steps / self.total, 1.0), f"atlas {name}: {stage} ({self.finished} of {self.atlases} done)")
            self.steps += 1

    def end(self, name: str, what: str) -> None:
        with self.lock:
            self.finished += 1
            fraction = 1.0 if self.finished == self.atlases else min(self.steps / self.total, 1.0)
            self.progress("register", fraction, f"atlas {name}: {what} ({self.finished} of {self.atlases} done)")


def run_pairs(
    pairs: Mapping[str, Pair],
    settings: RegistrationSettings,
    plan: JobPlan,
    stages: int,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> dict[str, PairResult | ImtError]:
    """Register all atlases; one that fails gives its error, and the others go on.

    Args:
        pairs: atlas name -> its registration.
        stages: number of stages of an atlas, for the progress.

    Raises:
        Cancelled: all engines were ended. EngineMissing, OutputFailure: what would meet every atlas.
    """
    stop = threading.Event()

    def stopped() -> bool:
        return stop.is_set() or cancelled()

    counter = _Counter(progress, stages * len(pairs), len(pairs))
    engines = _Engines(settings, stopped)
    results: dict[str, PairResult | ImtError] = {}

    def work(number: int, name: str, pair: Pair) -> PairResult | ImtError:
        if stopped():
            raise Cancelled("Cancelled.")
        try:
            result: PairResult | ImtError = pair.run(lambda: engines.get(plan.threads_of(number, len(pairs))), lambda stage: counter.begin(name, stage))
        except (BadInput, EngineFailed) as error:
            counter.end(name, "failed")
            return error
        counter.end(name, "done")
        return result

    pool = ThreadPoolExecutor(plan.jobs, thread_name_prefix="imt-register")
    try:
        waiting: dict[Future[PairResult | ImtError], str] = {
            pool.submit(work, number, *item): item[0] for number, item in enumerate(pairs.items())
        }
        while waiting:
            done, _ = wait(waiting, CHECK_SECONDS, FIRST_COMPLETED)
            for future in done:
                results[waiting.pop(future)] = future.result()
            if cancelled():
                raise Cancelled("Cancelled: nothing was written.")
    finally:
        stop.set()  # whatever ended the loop, Ctrl+C too
        pool.shutdown(wait=True, cancel_futures=True)
        engines.close()
    return {name: results[name] for name in pairs}


