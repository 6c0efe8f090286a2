"""Many subjects: one after the other, or side by side through Dask; finished ones are skipped."""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.cases import Case, read_cases
from IMTCore.derived_outputs import check_replaceable
from IMTCore.errors import BadInput, Cancelled, ImtError, OutputFailure, SomeCasesFailed
from IMTCore.files import write_text
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.volume_io import check_output_path

from .register_settings import settings_of

if TYPE_CHECKING:
    from IMTRegisterLib.atlases.atlas_sets import AtlasSet
    from IMTRegisterLib.registration.outputs import RegistrationOutputs
    from IMTRegisterLib.registration.settings import RegistrationSettings

SUMMARY = "summary.csv"
SUMMARY_COLUMNS = ("case", "subject", "session", "modality", "state", "seconds", "output", "atlases", "failed_atlases", "folds", "message")
LABELS = "labels.nii.gz"


@dataclass(frozen=True)
class CaseJob:
    """One subject to register; may be sent to another process or machine."""

    case: Case
    atlas_set: AtlasSet
    atlas_set_hash: str
    settings: RegistrationSettings
    outputs: RegistrationOutputs


@dataclass(frozen=True)
class Outcome:
    """How one case ended: done, skipped (was finished before) or failed."""

    case: Case
    state: str
    seconds: float
    output: Path
    atlases: int = 0
    failed_atlases: tuple[str, ...] = ()
    folds: int | None = None
    message: str = ""


def register_cases(values: argparse.Namespace, progress: Progress, say: Say) -> str:
    """Register every case into `OUT/<case>/`; write `OUT/summary.csv` as it goes. Returns what to tell at the end.

    A case is finished if its outputs are there with a mark of the same inputs, atlases, model and settings; it is
    skipped. A case that fails does not stop the others.

    Raises:
        BadInput: arguments or atlases that no case can work with. SomeCasesFailed. Cancelled.
    """
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.registration.subject import atlas_set_sha256
    from IMTRegisterLib.registration.translation import model_for

    folder: Path = values.output_labels
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; for many cases --output-labels is a folder.")
    if values.workers is not None and values.scheduler is not None:
        raise BadInput("Give --workers for a local cluster or --scheduler for an existing one, not both.")
    if values.workers is not None and values.workers < 1:
        raise BadInput(f"The number of workers must be 1 or more, not {values.workers}.")
    settings = settings_of(values, second_image=None, mask="auto", model=None if values.second_image else values.model)
    check_names(values)
    model_for(settings_of(values, mask="auto"))  # no case could be translated without one
    cases = read_cases(values.input.absolute(), values.modality)  # other processes may have another current folder
    atlas_set = read_atlas_set(values.atlases.absolute(), settings.modalities)
    for warning in atlas_set.warnings:
        say("Warning: " + warning)
    digest = atlas_set_sha256(atlas_set, settings)
    jobs = [CaseJob(case, atlas_set, digest, case_settings(values, case), case_outputs(values, case)) for case in cases]
    outcomes: list[Outcome] = []
    try:
        for outcome in _run(values, jobs, progress):
            outcomes.append(outcome)
            if outcome.state == "failed":
                say(f"{outcome.case.case} failed: {outcome.message}")
            write_summary(folder, outcomes)
            progress("cases", len(outcomes) / len(cases), outcome.case.case)
    except (Cancelled, KeyboardInterrupt):
        raise Cancelled(f"Cancelled after {len(outcomes)} of {len(cases)} cases; run the same command again to go on.") from None
    counts = {state: sum(o.state == state for o in outcomes) for state in ("done", "skipped", "failed")}
    message = (
        f"{counts['done']} registered, {counts['skipped']} finished before, {counts['failed']} failed; see {folder / SUMMARY}"
    )
    if counts["failed"]:
        raise SomeCasesFailed(message)
    return message


def check_names(values: argparse.Namespace) -> None:
    """For cases all paths but the first are names in each case's folder.

    Raises:
        BadInput: a path with folders, or an unknown format.
    """
    names = {
        "--output-agreement": values.output_agreement,
        "--output-transforms": values.output_transforms,
        "--output-warped": values.output_warped,
        "--output-translated": values.output_translated,
        "--report": values.report,
        "--second-image": values.second_image,
        "--mask": None if values.mask in ("auto", "none") else Path(values.mask),
    }
    for option, name in names.items():
        if name is not None and (len(name.parts) != 1 or name.is_absolute()):
            what = "beside each case's image" if option in ("--second-image", "--mask") else "in each case's output folder"
            raise BadInput(f"For many cases {option} is a plain name: it is looked for, or made, {what}.")
    for name in (values.output_agreement, values.output_translated):
        if name is not None:
            check_output_path(name)


def case_settings(values: argparse.Namespace, case: Case) -> RegistrationSettings:
    """The settings of one case: its own second image and mask, and its share of the machine."""
    changes: dict[str, Any] = {}
    if values.second_image is not None:
        changes["second_image"] = (case.path.parent / values.second_image).absolute()
    if values.model is not None and Path(values.model).exists():
        changes["model"] = str(Path(values.model).absolute())
    if values.mask not in ("auto", "none"):
        changes["mask"] = (case.path.parent / values.mask).absolute()
    settings = settings_of(values, **changes)
    if settings.cache is not None:
        settings = replace(settings, cache=settings.cache.absolute())
    if values.workers is None:
        return settings
    from IMTRegisterLib.registration.jobs import available_cores, free_gigabytes

    cores = max(1, available_cores() // values.workers)
    memory = settings.memory_gb if settings.memory_gb is not None else free_gigabytes() / 2
    return replace(
        settings, jobs=settings.jobs or cores, threads=settings.threads or 1, memory_gb=round(memory / values.workers, 3)
    )


def case_outputs(values: argparse.Namespace, case: Case) -> RegistrationOutputs:
    """Where one case's results go."""
    from IMTRegisterLib.registration.outputs import RegistrationOutputs

    folder = (values.output_labels / case.case).absolute()

    def place(name: Path | None) -> Path | None:
        return None if name is None else folder / name

    return RegistrationOutputs(
        folder / LABELS,
        place(values.output_agreement),
        place(values.output_transforms),
        place(values.output_warped),
        place(values.output_translated),
        place(values.report),
    )


def register_case(job: CaseJob, progress: Progress = quiet, cancelled: Callable[[], bool] = never) -> Outcome:
    """Register one case, unless it is finished.

    Raises:
        Cancelled, OutputFailure: what ends the whole run. All other errors are in the outcome.
    """
    from IMTRegisterLib.registration.outputs import MADE_BY
    from IMTRegisterLib.registration.subject import register_subject

    start = time.perf_counter()
    labels = job.outputs.labels
    try:
        if is_finished(job):
            return Outcome(job.case, "skipped", round(time.perf_counter() - start, 2), labels, message="was finished before")
        check_replaceable((job.outputs.labels, job.outputs.agreement, job.outputs.translated), MADE_BY)
        run = register_subject(job.case.path, job.atlas_set, job.settings, job.outputs, progress, cancelled)
    except (Cancelled, OutputFailure):
        raise
    except ImtError as error:
        return Outcome(job.case, "failed", round(time.perf_counter() - start, 2), labels, message=" ".join(str(error).split()))
    except Exception as error:  # one broken case must not end the night's run
        return Outcome(job.case, "failed", round(time.perf_counter() - start, 2), labels, message=f"{type(error).__name__}: {error}")
    warnings = [warning for warning in run.warnings if warning not in job.atlas_set.warnings]
    folds = sum(result.record["folds"] for result in run.registered.values())
    seconds = round(time.perf_counter() - start, 2)
    return Outcome(job.case, "done", seconds, labels, len(run.registered), tuple(run.failed), folds, " ".join(warnings))


def is_finished(job: CaseJob) -> bool:
    """Whether the outputs are there, whole, and marked with the same inputs, atlases, model and settings."""
    from IMTRegisterLib.registration.subject import run_identity
    from IMTRegisterLib.registration.translation import model_for

    outputs, settings = job.outputs, job.settings
    if not outputs.labels.is_file() or not job.case.path.exists():
        return False
    identity = run_identity(input_sha256(job.case.path), job.atlas_set_hash, settings, model_for(settings))
    for path in [outputs.labels] + ([outputs.agreement] if outputs.agreement else []):
        record = read_mark(sidecar_path(path))
        written = record.get("output")
        if record.get("identity") != identity or not isinstance(written, dict) or record.get("atlases_failed"):
            return False
        if not path.is_file() or written.get("sha256") != input_sha256(path):
            return False
    names = [atlas.name for atlas in job.atlas_set.atlases]
    inverses = {outputs.transform_files(name)[1] for name in names} if outputs.transforms else set()
    return all(path.is_file() for path in outputs.files(names, settings.modalities) if path not in inverses)


def _run(values: argparse.Namespace, jobs: list[CaseJob], progress: Progress) -> Iterator[Outcome]:
    if values.workers is None and values.scheduler is None:
        for number, job in enumerate(jobs):

            def case_progress(stage: str, fraction: float, message: str, number: int = number, name: str = job.case.case) -> None:
                if stage == "register":
                    progress("cases", (number + fraction) / len(jobs), f"{name}: {message}")

            yield register_case(job, case_progress)
        return
    progress("cases", 0.0, "starting the workers")
    with _client(values) as client:
        from dask.distributed import as_completed

        futures = {client.submit(register_case, job, pure=False, retries=0): job for job in jobs}
        for future in as_completed(futures, loop=client.loop):
            yield _outcome(future, futures[future])


def _outcome(future: Any, job: CaseJob) -> Outcome:
    try:
        return future.result()
    except (Cancelled, OutputFailure):
        raise
    except Exception as error:  # a worker that was killed, or that has no IMT
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(job.case, "failed", 0.0, job.outputs.labels, message=message[:500])


@contextmanager
def _client(values: argparse.Namespace) -> Iterator[Any]:
    """A Dask client of the cluster that the arguments name; a local cluster ends with the block."""
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise BadInput('Running cases side by side needs Dask: pip install "dask[distributed]". Or leave --workers and --scheduler out.') from error
    if values.scheduler is not None:
        try:
            client = Client(values.scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise BadInput(f"No Dask scheduler answers at {values.scheduler} ({error}). Check the address.") from error
        try:
            yield client
        finally:
            client.close()
        return
    import logging

    cluster = LocalCluster(
        n_workers=values.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )
    try:
        with Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        cluster.close()


def write_summary(folder: Path, outcomes: list[Outcome]) -> None:
    """Write `summary.csv`, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUMMARY_COLUMNS)
    for o in sorted(outcomes, key=lambda outcome: outcome.case.case):
        relative = o.output.relative_to(folder.absolute()).as_posix()
        first = (o.case.case, o.case.subject, o.case.session, o.case.modality, o.state, o.seconds, relative)
        writer.writerow((*first, o.atlases, " ".join(o.failed_atlases), "" if o.folds is None else o.folds, o.message))
    write_text(folder / SUMMARY, text.getvalue())
