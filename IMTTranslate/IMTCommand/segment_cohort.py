"""Many volumes: one after the other, or side by side through Dask; finished ones are skipped."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.cards import ModelCard
from IMTCore.cases import Case, read_cases
from IMTCore.derived_outputs import check_replaceable
from IMTCore.errors import BadInput
from IMTCore.machine import available_cores
from IMTCore.progress import Progress, Say, quiet
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.volume import Volume
from IMTCore.volume_io import check_output_path, read_volume
from IMTCore.weights_file import read_weights_file
from IMTSegmentLib.probability_files import check_probability_path
from IMTSegmentLib.second_modality import find_translator
from IMTSegmentLib.segmentation_inputs import read_segmentation
from IMTSegmentLib.segmentation_outputs import (
    MADE_BY,
    STATISTICS_COLUMNS,
    SegmentationOutputs,
    statistics_table,
    write_segmentation,
)
from IMTSegmentLib.segmentation_results import StructureStatistics
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_catalogue import find_segmenter

from .cohort import SUMMARY, CaseResult, Cohort, Outcome, check_folder, check_input_free, check_plain_names, write_table
from .kept_models import kept_segmenters
from .segment_comparison import SCORES, Reference, volumes_text
from .segment_settings import check_second, identity, settings_of, with_record

if TYPE_CHECKING:
    from IMTSegmentLib.segmentation import Segmenter

LABELS = "segmentation.nii.gz"
STATISTICS = "statistics.csv"
SCORE_TABLE = "scores.csv"
CELLS = {"volumes": ""}


@dataclass(frozen=True)
class CaseJob:
    """One volume to segment; may be sent to another process or machine. `threads`: of its process, or None."""

    case: Case
    card: SegmenterCard
    translator: ModelCard | None
    settings: SegmentationSettings
    second: Path | None
    reference: Path | None
    outputs: SegmentationOutputs
    threads: int | None = None

    @property
    def output(self) -> Path:
        """The label volume."""
        return self.outputs.labels


def segment_cases(values: argparse.Namespace, progress: Progress, say: Say) -> str:
    """Segment every case into `OUT/<case>/segmentation.nii.gz`; write `OUT/summary.csv` and `OUT/statistics.csv` as it
    goes, with references also `OUT/scores.csv`. Returns what to tell at the end.

    A case is finished if its outputs are there with a mark of the same inputs, models and settings; it is skipped. A
    case that fails does not stop the others.

    Raises:
        BadInput: arguments or models that no case can work with. SomeCasesFailed. Cancelled.
    """
    folder: Path = values.output
    check_folder(folder, "--output")
    check_input_free(values.input, folder, (SUMMARY, STATISTICS, SCORE_TABLE))
    settings, card = settings_of(values), find_segmenter(values.model)
    check_second(card, values)
    check_names(values)
    card = replace(card, path=card.path.absolute())  # other processes may have another current folder
    translator = None if values.second is not None else find_translator(card, settings)
    if settings.translator is not None:  # by its file: another machine may have another model of that name
        translator = replace(translator, path=translator.path.absolute())
        settings = replace(settings, translator=str(translator.path))
    in_workers = values.workers is not None or values.scheduler is not None
    stages = {"segment": (0.0, 1.0)} if translator is None else {"translate": (0.0, 0.5), "segment": (0.5, 1.0)}

    def write_tables(outcomes: list[Outcome]) -> None:
        write_found(folder / STATISTICS, outcomes, "statistics", STATISTICS_COLUMNS)
        if values.reference is not None:
            write_found(folder / SCORE_TABLE, outcomes, "scores", ("code", "name", *SCORES))

    cohort = Cohort(folder, segment_case, "segmented", stages, CELLS, values.workers, values.scheduler, write_tables)
    cohort.check()
    cases = read_cases(values.input.absolute(), card.source)
    if in_workers:
        for model in (card, translator):
            if model is not None:
                read_weights_file(model)  # no case could be segmented with a broken one
    else:
        segmenter = kept_segmenters.find(card, settings, say) or kept_segmenters.load(card, settings, say)
        if translator is not None:
            segmenter.load_translator()
        cohort = replace(cohort, work=lambda job, listener: segment_with(segmenter, job, listener))
    jobs = [job_of(values, case, card, translator, settings) for case in cases]
    return cohort.run(jobs, progress, say)


def check_names(values: argparse.Namespace) -> None:
    """For cases all paths but the first are names in each case's folder.

    Raises:
        BadInput: a path with folders, an unknown format, the same name twice, or what is for one volume only.
    """
    if values.compare_with is not None:
        raise BadInput("--compare-with is for one volume. For many cases segment them with each model, into two folders.")
    names = {
        "--second": values.second,
        "--reference": values.reference,
        "--probabilities": values.probabilities,
        "--statistics": values.statistics,
        "--output-translated": values.output_translated,
        "--report": values.report,
    }
    check_plain_names(names, ("--second", "--reference"))
    if values.probabilities is not None:
        check_probability_path(values.probabilities)
    if values.output_translated is not None:
        check_output_path(values.output_translated)
    taken: set[str] = set()
    for file in outputs_in(values, Path()).files():
        if file.name.lower() in taken:
            raise BadInput(f"{file.name} is another output of each case already: choose another name.")
        taken.add(file.name.lower())


def outputs_in(values: argparse.Namespace, folder: Path) -> SegmentationOutputs:
    """Where one case's results go."""

    def place(name: Path | None) -> Path | None:
        return None if name is None else folder / name

    return SegmentationOutputs(
        folder / LABELS, place(values.probabilities), place(values.statistics), place(values.output_translated), place(values.report)
    )


def job_of(
    values: argparse.Namespace, case: Case, card: SegmenterCard, translator: ModelCard | None, settings: SegmentationSettings
) -> CaseJob:
    """One case with its own second image, reference and outputs, and its share of the machine."""

    def beside(name: Path | None) -> Path | None:
        return None if name is None else (case.path.parent / name).absolute()

    threads = None if values.workers is None else max(1, available_cores() // values.workers)
    outputs = outputs_in(values, (values.output / case.case).absolute())
    return CaseJob(case, card, translator, settings, beside(values.second), beside(values.reference), outputs, threads)


def segment_case(job: CaseJob, progress: Progress = quiet) -> CaseResult:
    """Segment one case in a worker's process, which keeps its model for the next."""
    import torch

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    kept_segmenters.count = max(kept_segmenters.count, 1)
    segmenter = kept_segmenters.find(job.card, job.settings, quiet) or kept_segmenters.load(job.card, job.settings, quiet)
    return segment_with(segmenter, job, progress)


def segment_with(segmenter: Segmenter, job: CaseJob, progress: Progress) -> CaseResult:
    """Segment one case, unless it is finished.

    Raises:
        ImtError: as `read_segmentation`, `Segmenter.segment` and `write_segmentation`.
    """
    from IMTSegmentLib.segmentation_inputs import input_records

    path, outputs = job.case.path, job.outputs
    for file in (job.second, job.reference):
        if file is not None and not file.exists():
            raise BadInput(f"{file} does not exist. It is looked for beside {path.name}.")
    if (statistics := finished_statistics(job)) is not None:
        scores = None if job.reference is None else scores_of(job, read_volume(outputs.labels, constant=True))
        return case_result(statistics, scores, "was finished before", "skipped")
    check_replaceable((outputs.labels, outputs.probabilities, outputs.translated), MADE_BY)
    outputs.check([file for file in (path, job.second, job.reference) if file is not None])
    source = read_segmentation(path, job.second, job.card, job.settings)
    reference = None if job.reference is None else Reference(job.reference, source.prepared.volume, job.card)
    result = segmenter.segment(source.prepared, None, progress)
    scores = None if reference is None else [entry.record() for entry in reference.score(result.labels, job.card)]
    translator = None if result.translation is None else result.translation[0]
    result = with_record(result, identity(source.sha256, source.second_sha256, job.card, translator, job.settings))
    more = {} if reference is None else {"reference": {"name": job.reference.name, "sha256": reference.sha256, "scores": scores}}
    write_segmentation(result, outputs, input_records(source), {"read": round(source.read_seconds, 3), **result.seconds}, more)
    return case_result(result.record["statistics"], scores, " ".join(result.warnings), "done")


def scores_of(job: CaseJob, labels: Volume) -> list[dict[str, Any]]:
    """The scores of a case's labels with its reference."""
    return [entry.record() for entry in Reference(job.reference, labels, job.card).score(labels, job.card)]


def case_result(statistics: list[dict[str, Any]], scores: list[dict[str, Any]] | None, message: str, state: str) -> CaseResult:
    """What the tables show of a case."""
    found = {"statistics": statistics, "scores": scores or []}
    return CaseResult(state, message, {"volumes": volumes_text(statistics)}, found)


def finished_statistics(job: CaseJob) -> list[dict[str, Any]] | None:
    """The statistics of a case whose outputs are there, whole, and marked with the same inputs, models and settings; else None."""
    outputs = job.outputs
    if not job.case.path.exists() or not all(path.is_file() for path in outputs.files()):
        return None
    given, second = input_sha256(job.case.path), None if job.second is None else input_sha256(job.second)
    wanted = identity(given, second, job.card, job.translator, job.settings)
    images = [image for image in (outputs.labels, outputs.probabilities) if image is not None]
    if not all(whole_mark(image).get("identity") == wanted for image in images):
        return None
    if outputs.translated is not None and not is_translation(whole_mark(outputs.translated), given, job):
        return None
    statistics = whole_mark(outputs.labels).get("statistics")
    return statistics if are_tables_of(job, wanted, statistics) else None


def are_tables_of(job: CaseJob, wanted: str, statistics: Any) -> bool:
    """Whether a case's own statistics and report, which have no marks, are of this run, and not of one before the last."""
    outputs = job.outputs
    if outputs.statistics is not None:
        try:
            found = [StructureStatistics(**{**entry, "confidence": nan_for_none(entry["confidence"])}) for entry in statistics]
            if outputs.statistics.read_text(encoding="utf-8") != statistics_table(found):
                return False
        except (OSError, ValueError, TypeError, KeyError):
            return False
    if outputs.report is None:
        return True
    report = read_mark(outputs.report)
    scored = report.get("reference")
    reference = scored.get("sha256") if isinstance(scored, dict) else None
    return report.get("identity") == wanted and (job.reference is None or reference == input_sha256(job.reference))


def nan_for_none(value: float | None) -> float:
    """What JSON has no number for."""
    return float("nan") if value is None else value


def whole_mark(image: Path) -> dict[str, Any]:
    """An image's mark; empty if it is of another content than lies there."""
    record = read_mark(sidecar_path(image))
    written = record.get("output")
    return record if isinstance(written, dict) and written.get("sha256") == input_sha256(image) else {}


def is_translation(record: dict[str, Any], given_sha256: str, job: CaseJob) -> bool:
    """Whether a mark is that of the translation that the case needs."""
    wanted = {"synthetic": True, "seed": job.settings.seed, "bias_correction": "N4" if job.settings.bias_correction else None}
    parts = [record.get(key) for key in ("input", "model")]
    hashes = [part.get("sha256") for part in parts if isinstance(part, dict)]
    return hashes == [given_sha256, job.translator.sha256] and all(record.get(key) == value for key, value in wanted.items())


def write_found(path: Path, outcomes: list[Outcome], what: str, columns: tuple[str, ...]) -> None:
    """A table with one line a case and structure of what was found, whole or not at all."""
    rows = [
        (one.case.case, one.case.subject, one.case.session, *(cell(entry.get(column)) for column in columns))
        for one in outcomes
        if one.result.found is not None
        for entry in one.result.found[what]
    ]
    write_table(path, ("case", "subject", "session", *columns), rows)


def cell(value: object) -> object:
    """A number as tables show it; empty where there is none."""
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else value
