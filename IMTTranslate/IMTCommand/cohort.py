"""Many cases with one command: one after the other, or side by side through Dask; one that fails does not stop the others."""

from __future__ import annotations

import contextlib
import csv
import io
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from IMTCore.cases import Case, is_case_folder
from IMTCore.errors import BadInput, Cancelled, ImtError, OutputFailure, SomeCasesFailed
from IMTCore.files import write_text
from IMTCore.progress import Progress, Say, quiet

from .dask_cluster import dask_client, kept_up

SUMMARY = "summary.csv"
COLUMNS = ("case", "subject", "session", "modality", "state", "seconds", "output")
STATES = ("done", "skipped", "failed")


class CaseJob(Protocol):
    """One case to do; `output` is the file that the summary names."""

    @property
    def case(self) -> Case: ...

    @property
    def output(self) -> Path: ...


@dataclass(frozen=True)
class CaseResult:
    """What a case gave: a message for the summary, its further columns, and what else the command collects.

    `state` is done, or skipped: it was finished before.
    """

    state: str = "done"
    message: str = ""
    cells: Mapping[str, object] = field(default_factory=dict)
    found: Any = None


@dataclass(frozen=True)
class Outcome:
    """How one case ended: done, skipped (was finished before) or failed."""

    case: Case
    output: Path
    seconds: float
    result: CaseResult


FINISHED = CaseResult("skipped", "was finished before")
Tell = Callable[[str, Mapping[str, str]], None]  # (case, what there is to tell of it)
Work = Callable[..., CaseResult]  # (job, progress), for some cohorts also a Tell


def holds_cases(path: Path) -> bool:
    """Whether a path names many cases (a CSV file, a folder of images) and not one volume or DICOM series."""
    return path.suffix.lower() == ".csv" or path.is_dir() and is_case_folder(path)


def check_plain_names(names: Mapping[str, Path | None], beside_images: Sequence[str] = ()) -> None:
    """For many cases each of these options is a name in each case's folder. `beside_images`: those that are looked for.

    Raises:
        BadInput: a path with folders.
    """
    for option, name in names.items():
        if name is not None and (len(name.parts) != 1 or name.is_absolute()):
            what = "beside each case's image" if option in beside_images else "in each case's output folder"
            raise BadInput(f"For many cases {option} is a plain name: it is looked for, or made, {what}.")


def check_folder(folder: Path, option: str) -> None:
    """Raises BadInput if the output of many cases is a file."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; for many cases {option} is a folder.")


def check_input_free(source: Path, folder: Path, tables: Sequence[str] = (SUMMARY,)) -> None:
    """Raises BadInput if the list of the cases is one of the tables that would be written."""
    for table in tables:
        path = folder / table
        if path.resolve() == source.resolve() or (path.exists() and path.samefile(source)):
            raise BadInput(f"{path} is the input, and would be overwritten with the results. Choose another output folder.")


def check_no_cluster(source: Path, workers: int | None, scheduler: str | None) -> None:
    """Raises BadInput if one volume is to be done by many workers."""
    for option, value in (("--workers", workers), ("--scheduler", scheduler)):
        if value is not None:
            raise BadInput(f"{option} is for many cases, and {source} is one subject. Leave it out.")


def do_case(work: Work, job: CaseJob, progress: Progress = quiet, *tell: Tell) -> Outcome:
    """Do one case.

    Raises:
        Cancelled, OutputFailure: what ends the whole run. All other errors are in the outcome.
    """
    start = time.perf_counter()
    try:
        result = work(job, progress, *tell)
    except (Cancelled, OutputFailure):
        raise
    except ImtError as error:
        result = CaseResult("failed", " ".join(str(error).split()))
    except Exception as error:  # one broken case must not end the night's run
        result = CaseResult("failed", " ".join(f"{type(error).__name__}: {error}".split()))
    return Outcome(job.case, job.output, round(time.perf_counter() - start, 2), result)


def do_case_in_worker(work: Work, job: CaseJob, topic: str | None) -> Outcome:
    """Do one case in a Dask worker; what it tells on the way goes to those who listen to `topic`."""
    if topic is None:
        return do_case(work, job)
    from dask.distributed import get_worker

    worker = get_worker()
    return do_case(work, job, quiet, lambda case, what: worker.log_event(topic, (case, dict(what))))


@dataclass(frozen=True)
class Cohort:
    """How a command does many cases.

    Attributes:
        folder: of all outputs, and of `summary.csv`.
        work: does one case. For a cluster it is a function of a module, and jobs and results can be pickled.
        verb: what was done with those that are done, such as "translated".
        stages: stage of `work`'s progress -> from where to where of a case it goes, 0 to 1.
        cells: the summary's further columns, with what stands there for a case that has no such value.
        workers, scheduler: of a Dask cluster; both None do one case after the other.
        after_each: called with all outcomes so far, in the order of the cases, for further tables.
        has_summary: whether `summary.csv` is written here; else `after_each` does it.
        listen: told what the work tells of a case before it ends (`Tell`), from a thread of its own. With it `work` takes
            a third argument, the `Tell`.
    """

    folder: Path
    work: Work
    verb: str
    stages: Mapping[str, tuple[float, float]]
    cells: Mapping[str, object] = field(default_factory=dict)
    workers: int | None = None
    scheduler: str | None = None
    after_each: Callable[[list[Outcome]], None] = quiet
    has_summary: bool = True
    listen: Tell | None = None

    def check(self) -> None:
        """Raises BadInput for a cluster that cannot be."""
        if self.workers is not None and self.scheduler is not None:
            raise BadInput("Give --workers for a local cluster or --scheduler for an existing one, not both.")
        if self.workers is not None and self.workers < 1:
            raise BadInput(f"The number of workers must be 1 or more, not {self.workers}.")

    def run(self, jobs: Sequence[CaseJob], progress: Progress, say: Say) -> str:
        """Do all cases; write the summary whole after each. Returns what to tell at the end.

        Raises:
            SomeCasesFailed. Cancelled. OutputFailure: no case could be written.
        """
        self.check()
        order = {job.case.case: number for number, job in enumerate(jobs)}
        outcomes: list[Outcome] = []
        try:
            for outcome in self._outcomes(jobs, progress):
                outcomes.append(outcome)
                outcomes.sort(key=lambda one: order[one.case.case])
                if outcome.result.state == "failed":
                    say(f"{outcome.case.case} failed: {outcome.result.message}")
                self._write_tables(outcomes)
                progress("cases", len(outcomes) / len(jobs), outcome.case.case)
        except (Cancelled, KeyboardInterrupt):
            self._write_tables_if_possible(outcomes)
            raise Cancelled(
                f"Cancelled after {len(outcomes)} of {len(jobs)} cases; run the same command again to go on."
            ) from None
        except OutputFailure:
            self._write_tables_if_possible(outcomes)
            raise
        done, skipped, failed = (sum(one.result.state == state for one in outcomes) for state in STATES)
        message = f"{done} {self.verb}, {skipped} finished before, {failed} failed; see {self.folder / SUMMARY}"
        if failed:
            raise SomeCasesFailed(message)
        return message

    def _outcomes(self, jobs: Sequence[CaseJob], progress: Progress) -> Iterator[Outcome]:
        if self.workers is None and self.scheduler is None:
            for number, job in enumerate(jobs):
                told = () if self.listen is None else (self.listen,)
                yield do_case(self.work, job, self._case_progress(progress, number, len(jobs), job.case.case), *told)
            return
        progress("cases", 0.0, "starting the workers")
        with dask_client(self.workers, self.scheduler) as client:
            from dask.distributed import as_completed

            topic = None
            if self.listen is not None:
                topic = f"imt-{uuid.uuid4()}"
                client.subscribe_topic(topic, lambda event: self.listen(*event[1]))
            futures = {client.submit(do_case_in_worker, self.work, job, topic, pure=False, retries=0): job for job in jobs}
            with kept_up(client, self.workers, list(futures)):
                for future in as_completed(futures, loop=client.loop):
                    yield _outcome(future, futures[future])

    def _case_progress(self, progress: Progress, number: int, count: int, name: str) -> Progress:
        def case_progress(stage: str, fraction: float, message: str) -> None:
            if stage in self.stages:
                start, end = self.stages[stage]
                progress("cases", (number + start + (end - start) * fraction) / count, f"{name}: {message}")

        return case_progress

    def _write_tables(self, outcomes: list[Outcome]) -> None:
        if not self.has_summary:
            self.after_each(outcomes)
            return
        rows = []
        for one in outcomes:
            case, result = one.case, one.result
            relative = one.output.absolute().relative_to(self.folder.absolute()).as_posix()
            first = (case.case, case.subject, case.session, case.modality, result.state, one.seconds, relative)
            rows.append((*first, *(result.cells.get(name, missing) for name, missing in self.cells.items()), result.message))
        write_table(self.folder / SUMMARY, (*COLUMNS, *self.cells, "message"), rows)
        self.after_each(outcomes)

    def _write_tables_if_possible(self, outcomes: list[Outcome]) -> None:
        """A full disk does not hide the first error; without any outcome there is nothing to tell."""
        if outcomes:
            with contextlib.suppress(OutputFailure):
                self._write_tables(outcomes)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def _outcome(future: Any, job: CaseJob) -> Outcome:
    try:
        return future.result()
    except (Cancelled, OutputFailure):
        raise
    except Exception as error:  # a worker that was killed, or that has no IMT
        again = "Give fewer --workers, or run the same command again to try this case again."
        kind = type(error).__name__
        if kind == "KilledWorker":
            message = f"The worker process was killed whenever it did this case, perhaps for want of memory. {again}"
        elif kind in ("CancelledError", "FutureCancelledError"):
            message = f"No worker could be kept running, perhaps for want of memory. {again}"
        else:
            message = " ".join(f"{kind}: {error}".split())
        return Outcome(job.case, job.output, 0.0, CaseResult("failed", message[:500]))
