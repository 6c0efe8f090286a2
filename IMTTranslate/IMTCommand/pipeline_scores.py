"""The evaluate stage: translations against acquired images, labels against references."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IMTCore.files import sha256_of
from IMTCore.label_names import colour_table, read_label_names
from IMTCore.orientation import anatomical_axes
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.version import VERSION
from IMTCore.volume_io import read_volume
from IMTSegmentLib.comparison import compare_labels
from IMTSegmentLib.second_modality import fit_second

from .evaluate_command import output_top, score
from .pipeline_steps import PipelineJob
from .segment_cohort import scores_of

IMAGE_COLUMNS = ("target", "model", "truth", "scaling", "region", "mae", "psnr", "ssim", "mi", "sharpness")


@dataclass(frozen=True)
class Comparison:
    """What is compared with what. `what`: translate, segment or register; `number`: of the translation."""

    what: str
    made: Path
    truth: Path
    number: int = 0

    def identity(self) -> dict[str, str]:
        """All that decides the scores."""
        return {"made": sha256_of(self.made), "truth": input_sha256(self.truth), "imt": VERSION}


def comparisons(job: PipelineJob) -> tuple[list[Comparison], list[dict[str, str]]]:
    """What can be compared for a case, and what cannot for want of something to compare with: {"what": …, "reason": …}."""
    found, missing = [], []
    for number, one in enumerate(job.steps.translations):
        acquired = [path for path in job.truths.get(one.target, ()) if not is_synthetic(path)]
        if len(acquired) == 1:
            found.append(Comparison("translate", job.translate_job(number).output, acquired[0], number))
        else:
            reason = f"{'Several' if acquired else 'No'} acquired {one.target} images lie beside the input, so the translation is not scored"
            missing.append({"what": "translate", "reason": reason})
    for what, reference in job.references.items():
        if reference.exists():
            made = job.segment_job() if what == "segment" else job.register_job()
            found.append(Comparison(what, made.output, reference))
        else:
            missing.append({"what": what, "reason": f"No {reference.name} lies beside the input, so the labels are not scored"})
    return found, missing


def is_synthetic(path: Path) -> bool:
    """Whether the mark beside an image says that it is none that a scanner acquired."""
    return read_mark(sidecar_path(path)).get("synthetic") is True


def compare(job: PipelineJob, one: Comparison) -> tuple[list[dict[str, Any]], list[str]]:
    """The scores, one dictionary a row of the tables, and warnings.

    Raises:
        BadInput: files that are not readable, or do not fit each other.
    """
    if one.what == "translate":
        return _score_translation(job, one)
    if one.what == "segment":
        return scores_of(job.segment_job(with_reference=True), read_volume(one.made, constant=True)), []
    found, reference = read_volume(one.made, constant=True), read_volume(one.truth, constant=True)
    names = read_label_names(colour_table(one.made))
    return [entry.record() for entry in compare_labels(found, reference, names)], []


def _score_translation(job: PipelineJob, one: Comparison) -> tuple[list[dict[str, Any]], list[str]]:
    step = job.steps.translations[one.number]
    prediction = read_volume(one.made)
    truth, warnings = fit_second(read_volume(one.truth), prediction)
    axes = anatomical_axes(prediction.geometry, "axial")
    spacing = axes.spacing_kji(prediction.geometry)[1:]
    report = score(axes.apply(truth.array), axes.apply(prediction.array), None, output_top(one.made), spacing)
    first = {"target": step.target, "model": step.card.name, "truth": one.truth.name}
    return [{**first, **row, "sharpness": report["sharpness"]} for row in report["scores"]], warnings
