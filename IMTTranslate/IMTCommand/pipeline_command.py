"""`imt pipeline`: translate, register, segment and evaluate every case of a cohort, with resume and a report."""

from __future__ import annotations

import argparse
import contextlib
import csv
import platform
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from IMTCore.cases import COLUMNS as CASE_COLUMNS
from IMTCore.cases import Case, companions, read_cases
from IMTCore.errors import BadInput, Cancelled, OutputFailure
from IMTCore.files import describe_write_error, write_json
from IMTCore.machine import available_cores
from IMTCore.progress import Progress, Say
from IMTCore.provenance import read_mark
from IMTCore.version import VERSION
from IMTCore.weights_file import read_weights_file

from .cohort import Cohort, check_folder, check_input_free, holds_cases
from .pipeline_locks import only_run, temporary_place
from .pipeline_names import DESCRIPTION, case_files, source_root, write_description
from .pipeline_plan import PLAN, Plan, check_same_plan, plan_of
from .pipeline_record import LOGS, now
from .pipeline_report import REPORT, write_report
from .pipeline_run import keep_models, run_case, run_case_in_worker
from .pipeline_steps import PipelineJob, Steps, steps_of
from .pipeline_tables import TABLES, Tables
from .progress import close, listener, speaker, tell_end

RUN = "run.json"
TEMPORARY = ".imt-*"  # as IMTCore.files names what is not whole yet


def run(values: argparse.Namespace) -> int:
    """Do what the arguments say."""
    if values.report_only:
        return report_only(values)
    check_paths(values)
    if values.list:
        return list_cases(values)
    if values.output is None:
        raise BadInput("Say where the results go: --output FOLDER.")
    plan = plan_of(values)
    progress = listener(values.progress)
    say = speaker(progress)
    try:
        message = run_pipeline(values, plan, progress, say)
    finally:
        close(progress)  # an error's message starts on a line of its own
    tell_end(progress, message)
    return 0


def check_paths(values: argparse.Namespace) -> None:
    """Raises BadInput for an input that is not there or no cohort, or an output that is the input."""
    if values.input is None:
        raise BadInput("Name the input: a BIDS data set, a folder of cases, or a CSV of cases.")
    if not values.input.exists():
        raise BadInput(f"{values.input} does not exist. Check the path.")
    if not holds_cases(values.input):
        raise BadInput(
            f"{values.input} is no cohort: neither a BIDS data set, nor a folder of cases, nor a CSV of cases. "
            "For one volume there are imt translate, imt segment and imt register."
        )
    if values.output is not None:
        check_folder(values.output, "--output")
        if values.output.resolve() == values.input.resolve():
            raise BadInput(f"The output folder is the input, {values.input}. Choose another, such as {values.input / 'derivatives' / 'imt'}.")


def list_cases(values: argparse.Namespace) -> int:
    """Print the cases as CSV."""
    modality = values.modality
    if modality is None:
        plan = plan_of(values)
        modality = steps_of(replace(plan, register=None), values).modality
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(CASE_COLUMNS)
    writer.writerows((case.case, case.subject, case.session, case.modality, case.path) for case in read_cases(values.input, modality))
    return 0


def run_pipeline(values: argparse.Namespace, plan: Plan, progress: Progress, say: Say) -> str:
    """Do all stages of all cases; returns what to tell at the end.

    Raises:
        BadInput: what no case can work with. SomeCasesFailed. Cancelled. OutputFailure.
    """
    folder = values.output = values.output.absolute()  # other processes may have another current folder
    values.input = values.input.absolute()
    check_input_free(values.input, folder, (*TABLES, PLAN, RUN))
    check_free(folder)
    check_same_plan(folder, plan)
    check_same_input(folder, values.input)
    steps = steps_of(plan, values)
    cases = read_cases(values.input, steps.modality)
    tables = Tables(folder, cases, plan.stages)
    cohort = cohort_of(values, steps, tables)
    cohort.check()
    jobs = jobs_of(values, steps, cases)
    for warning in steps.warnings:
        say("Warning: " + warning)
    make_folder(folder)
    with only_run(folder):
        if not (folder / PLAN).exists():
            write_json(folder / PLAN, plan.record())  # first of all: by it a later run knows the folder for its own
        clean(folder)
        write_description(folder, values.input)
        record, runs = run_record(values, steps), earlier_runs(folder)
        write_json(folder / RUN, {**record, "runs": [*runs, {"started": record["started"]}]})
        tables.write()
        start = time.monotonic()
        try:
            return cohort.run(jobs, progress, say)
        except (Cancelled, OutputFailure):
            tables.stop()
            raise
        finally:
            shutil.rmtree(temporary_place(folder), ignore_errors=True)
            if not isinstance(sys.exception(), Cancelled | OutputFailure):
                this = {"started": record["started"], "ended": now(), "seconds": round(time.monotonic() - start, 1)}
                write_json(folder / RUN, {**record, "runs": [*runs, this]})
                progress("report", 0.0, REPORT)
                write_report(folder)


def make_folder(folder: Path) -> None:
    """Make the output folder. Raises OutputFailure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailure(describe_write_error(folder, error)) from error


def cohort_of(values: argparse.Namespace, steps: Steps, tables: Tables) -> Cohort:
    """How the cases are done: in this process, or by Dask's."""
    in_workers = values.workers is not None or values.scheduler is not None
    if in_workers:
        for _, card in steps.models():
            read_weights_file(card)  # no case could be done with a broken one
    else:
        keep_models(steps)
    work = run_case_in_worker if in_workers else run_case
    cells = dict.fromkeys(steps.plan.stages, "")
    return Cohort(
        tables.folder, work, "done", {"case": (0.0, 1.0)}, cells, values.workers, values.scheduler, tables.write, False, tables.tell
    )


def jobs_of(values: argparse.Namespace, steps: Steps, cases: list[Case]) -> list[PipelineJob]:
    """One job a case, with the images and labels to compare its results with."""
    files = case_files(cases, values.output)
    evaluate = steps.plan.evaluate
    targets = [] if evaluate is None else dict.fromkeys(one.target for one in steps.translations)
    truths = {target: companions(values.input, cases, target) for target in targets}
    names = {} if evaluate is None else {"segment": evaluate.reference, "register": evaluate.atlas_reference}
    threads = None if values.workers is None else max(1, available_cores() // values.workers)
    return [
        PipelineJob(
            case,
            files[case.case],
            steps,
            {target: found[case.case] for target, found in truths.items()},
            {stage: case.path.parent / name for stage, name in names.items() if name is not None},
            source_root(values.input),
            threads,
        )
        for case in cases
    ]


def check_free(folder: Path) -> None:
    """Raises BadInput if files of another origin lie where those of a pipeline would."""
    if not folder.exists() or (folder / PLAN).exists():
        return
    for name in (*TABLES, RUN, REPORT, DESCRIPTION, LOGS):
        if (folder / name).exists():
            raise BadInput(f"{folder} holds {name}, and no pipeline of IMT made it. Choose an empty folder.")


def check_same_input(folder: Path, source: Path) -> None:
    """Raises BadInput if the folder holds the results of another input."""
    before = read_mark(folder / RUN).get("input")
    if isinstance(before, str) and Path(before) != source:
        raise BadInput(f"{folder} holds the results of another input: {before} there, {source} here. Choose another output folder.")


def clean(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for place in (folder, folder / LOGS, *folder.glob("sub-*")):
        for path in place.rglob(TEMPORARY) if place != folder else place.glob(TEMPORARY):
            if path.is_file():
                with contextlib.suppress(OSError):
                    path.unlink()
    shutil.rmtree(temporary_place(folder), ignore_errors=True)


def run_record(values: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """What the report says of a run: models, versions, machine."""
    models = [
        {"stage": stage, "name": card.name, "version": card.content["version"], "sha256": card.sha256, "card": str(card.path)}
        for stage, card in steps.models()
    ]
    return {
        "imt": VERSION,
        "input": str(values.input),
        "modality": steps.modality,
        "models": models,
        "settings": {name: getattr(values, name) for name in ("device", "precision", "batch", "workers", "scheduler")},
        "machine": machine(values.device),
        "started": now(),
    }


def earlier_runs(folder: Path) -> list[Any]:
    """When the runs in this folder so far began, and when those ended that were not stopped."""
    runs = read_mark(folder / RUN).get("runs")
    return runs if isinstance(runs, list) else []


def machine(device: str) -> dict[str, Any]:
    """What the run computes on."""
    import torch

    from IMTCore.devices import choose_device
    from IMTCore.provenance import versions

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
    return {"system": platform.platform(), "processor": platform.machine(), "cores": available_cores(), "device": name, **versions()}


def report_only(values: argparse.Namespace) -> int:
    """Write the report of what is there."""
    folder = values.output or values.input
    if folder is None or not (folder / PLAN).exists():
        raise BadInput("--report-only needs the folder of a pipeline's results: --output FOLDER.")
    print(write_report(folder))
    return 0


