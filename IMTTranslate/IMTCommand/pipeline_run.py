"""One case through all stages of a pipeline. Each stage is the single command's own work for one case."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from IMTCore.errors import Cancelled, ImtError, OutputFailure
from IMTCore.progress import Progress, quiet

from .cohort import CaseResult, Tell
from .kept_models import KeptModels, kept_segmenters
from .pipeline_locks import gpu_turn, own_temporary_place
from .pipeline_names import complete_sidecar, write_label_table
from .pipeline_pictures import draw_case
from .pipeline_record import CaseRecord
from .pipeline_scores import compare, comparisons
from .pipeline_steps import PipelineJob, Steps
from .register_cohort import register_case
from .segment_cohort import segment_with
from .translate_command import kept_translators, translate_with

SPANS = {"translate": 4.0, "register": 10.0, "segment": 4.0, "evaluate": 1.0}  # shares of a case's time, roughly


class Waiting(ImtError):
    """A stage whose input an earlier stage of the case failed to make."""


@dataclass
class CaseRun:
    """One case on its way. `states`: of the stages that were done; `made`: the images that are there, of this input."""

    job: PipelineJob
    record: CaseRecord
    states: dict[str, str] = field(default_factory=dict)
    made: set[Path] = field(default_factory=set)


def run_case(job: PipelineJob, progress: Progress = quiet, tell: Tell = quiet) -> CaseResult:
    """Do all stages of one case that are not finished. A stage that fails stops those that need its result, not the others.

    Raises:
        OutputFailure, Cancelled: what ends the whole run.
    """
    name, stages = job.case.case, job.steps.plan.stages
    record = CaseRecord.read(job.files.folder, name)
    record.content |= job.record()
    record.log(f"case {name}: {', '.join(stages)}; input {job.case.path}")
    run = CaseRun(job, record)
    told: dict[str, list[str]] = {}
    for number, stage in enumerate(stages):
        tell(name, {stage: "running"})
        result = run_stage(run, stage, _part(progress, stages, number))
        run.states[stage] = result.state
        if result.message and result.state != "waiting":
            told.setdefault(result.message, []).append(stage)
        tell(name, {stage: result.state})
    values = set(run.states.values())
    state = "failed" if values & {"failed", "waiting"} else "skipped" if values == {"skipped"} else "done"
    draw_case(run.job, record, run.made)
    record.log(f"case {name}: {state}")
    message = " ".join(f"{', '.join(where)}: {text}" for text, where in told.items())
    return CaseResult(state, message, run.states, record.content)


def run_case_in_worker(job: PipelineJob, progress: Progress, tell: Tell) -> CaseResult:
    """Do one case in a process of its own, which keeps its models for the next."""
    import torch

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    keep_models(job.steps)
    return run_case(job, progress, tell)


def keep_models(steps: Steps) -> None:
    """Keep as many models loaded as the cases take in turn, on each GPU on which a turn may come."""
    import torch

    devices = max(1, torch.cuda.device_count())
    kept_translators.count = max(kept_translators.count, len(steps.translations) * devices)
    kept_segmenters.count = max(kept_segmenters.count, devices)


def run_stage(run: CaseRun, stage: str, progress: Progress) -> CaseResult:
    """Do one stage, and write down how it went.

    Raises:
        OutputFailure, Cancelled.
    """
    start, record = time.perf_counter(), run.record
    before = {"seconds": None, "warnings": "", "found": None} | record.stage(stage)
    try:
        result = STAGES[stage](run, progress)
    except (Cancelled, OutputFailure) as error:
        record_log_if_possible(record, f"{stage}: stopped: {error}")
        raise
    except Waiting as error:
        result = CaseResult("waiting", str(error))
    except ImtError as error:
        result = CaseResult("failed", " ".join(str(error).split()))
    except Exception as error:  # one broken case must not end the night's run
        result = CaseResult("failed", " ".join(f"{type(error).__name__}: {error}".split()))
        record.log(f"{stage}: an error that was not foreseen:\n{traceback.format_exc()}")
    seconds = round(time.perf_counter() - start, 2)
    if result.state == "skipped":
        record.log(f"{stage}: was finished before")
        warnings = before["warnings"]
        record.put(stage, state="done", seconds=before["seconds"], warnings=warnings, found=result.found or before["found"])
        return replace(result, message=warnings)
    done = result.state == "done"
    words = ("; warnings: " if done else ": ") + result.message if result.message else ""
    record.log(f"{stage}: {result.state} after {seconds} s{words}")
    record.put(
        stage,
        state=result.state,
        seconds=seconds,
        warnings=result.message if done else "",
        message="" if done else result.message,
        found=result.found,
    )
    return result


def record_log_if_possible(record: CaseRecord, text: str) -> None:
    """A full disk does not hide the first error."""
    try:
        record.log(text)
    except OutputFailure:
        pass


def _part(progress: Progress, stages: tuple[str, ...], number: int) -> Progress:
    """One stage's progress as that of the case."""
    total = sum(SPANS[stage] for stage in stages)
    start = sum(SPANS[stage] for stage in stages[:number]) / total
    share = SPANS[stages[number]] / total

    def case_progress(stage: str, fraction: float, message: str) -> None:
        if stage in SPANS:
            progress("case", start + share * fraction, f"{stages[number]}: {message}")

    return case_progress


def _translate(run: CaseRun, progress: Progress) -> CaseResult:
    """All translations; one that fails does not stop the next."""
    job, count = run.job, len(run.job.steps.translations)
    results: list[CaseResult] = []
    failed: list[str] = []
    for number, one in enumerate(job.steps.translations):

        def part(stage: str, fraction: float, message: str, number: int = number, target: str = one.target) -> None:
            if stage == "translate":
                progress(stage, (number + fraction) / count, f"{target}, {message}")

        case = job.translate_job(number)
        try:
            with gpu_turn(one.settings.device) as device:
                translator = loaded(kept_translators, one.card, replace(one.settings, device=device))
                results.append(translate_with(translator, case, part))
        except (Cancelled, OutputFailure):
            raise
        except ImtError as error:
            failed.append(str(error))
            continue
        run.made.add(case.output)
        for image in (case.output, case.uncertainty):
            if image is not None:
                complete_sidecar(image, [job.case.path], job.root, job.files.folder)
        run.record.log(f"translate: {case.output.name}: {results[-1].state}, model {one.card.name} {one.card.sha256[:12]}")
    if failed:
        raise ImtError(" ".join(dict.fromkeys(failed)))
    if all(result.state == "skipped" for result in results):
        return CaseResult("skipped")
    return CaseResult("done", _joined(result.message for result in results if result.state == "done"))


def loaded(kept: KeptModels, card: Any, settings: Any) -> Any:
    """A model, from those that are kept if it is among them."""
    return kept.find(card, settings, quiet) or kept.load(card, settings, quiet)


def _register(run: CaseRun, progress: Progress) -> CaseResult:
    job = run.job.register_job()
    with own_temporary_place(run.job.files.folder):
        result = register_case(job, progress)
    _complete_labels(run, job.output, [run.job.case.path])
    return replace(result, found=dict(result.cells) or None)


def _segment(run: CaseRun, progress: Progress) -> CaseResult:
    job = run.job.segment_job()
    if job.second is not None and job.second not in run.made:
        raise Waiting(f"It needs {job.second.name}, which the translate stage could not make.")

    def part(stage: str, fraction: float, message: str) -> None:
        if stage in ("translate", "segment"):
            half = job.translator is not None
            progress("segment", (fraction + (half and stage == "segment")) / (1 + half), message)

    with gpu_turn(job.settings.device) as device:
        job = replace(job, settings=replace(job.settings, device=device))
        result = segment_with(loaded(kept_segmenters, job.card, job.settings), job, part)
    made_from = [job.case.path] + ([job.second] if job.second is not None else [])
    _complete_labels(run, job.output, made_from)
    if job.outputs.probabilities is not None:
        names = ["background", *(entry.name for entry in job.card.classes.values())]
        complete_sidecar(job.outputs.probabilities, made_from, run.job.root, run.job.files.folder, LabelMap=names)
    found = {"statistics": result.found["statistics"]}
    return replace(result, found=found, message="" if result.state == "skipped" else result.message)


def _complete_labels(run: CaseRun, labels: Path, made_from: list[Path]) -> None:
    run.made.add(labels)
    complete_sidecar(labels, made_from, run.job.root, run.job.files.folder, Manual=False)
    write_label_table(labels)


def _evaluate(run: CaseRun, progress: Progress) -> CaseResult:
    """All scores; those of the same files are taken from the record."""
    wanted, missing = comparisons(run.job)
    before = run.record.stage("evaluate").get("found") or {"comparisons": [], "missing": []}
    known = {entry["made"]: entry for entry in before["comparisons"]}
    entries: list[dict[str, Any]] = []
    failed: list[str] = []
    made = [one for one in wanted if one.made in run.made]
    for one in made:
        try:
            identity, entry = one.identity(), known.get(one.made.name, {})
            if entry.get("identity") != identity:
                rows, warnings = compare(run.job, one)
                entry = {"made": one.made.name, "what": one.what, "truth": str(one.truth), "identity": identity, "rows": rows, "warnings": warnings}
        except (Cancelled, OutputFailure):
            raise
        except ImtError as error:
            failed.append(str(error))
        else:
            entries.append(entry)
    found = {"comparisons": entries, "missing": missing}
    if failed:
        return CaseResult("failed", _joined(failed), found=found)
    if len(made) < len(wanted):
        names = ", ".join(one.made.name for one in wanted if one not in made)
        return CaseResult("waiting", f"It needs {names}, which could not be made.", found=found)
    if run.record.stage("evaluate").get("state") == "done" and found == before:
        return CaseResult("skipped")
    for entry in missing:
        run.record.log(f"evaluate: {entry['reason']}")
    warnings = (text for entry in entries for text in entry["warnings"])
    return CaseResult("done", _joined(warnings), found=found)


def _joined(texts: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(text for text in texts if text))


STAGES: dict[str, Callable[[CaseRun, Progress], CaseResult]] = {
    "translate": _translate,
    "register": _register,
    "segment": _segment,
    "evaluate": _evaluate,
}
