"""The page and the files of the known-transform experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from IMTCore.files import write_text
from IMTCore.statistics import csv_table, markdown_table

from .methods import TRANSLATED
from .rotation import RotationExperiment, RotationRecord
from .scores import mean_of

DICE, DISTANCE_MM = 0.98, 0.2  # a transform as near as this counts as recovered
LOST_MM = 5.0  # a mean landmark error above this is no registration
SHOWN_STRUCTURES = 10
CSV_HEADER = ("engine", "angle", "method", "title", "subject", "measure", "structure", "value")


def write_rotation_report(experiment: RotationExperiment, records: Sequence[RotationRecord], warnings: Sequence[str]) -> str:
    """Write table.md and scores.csv into the experiment's folder; returns the page.

    Raises:
        OutputFailure: a file cannot be written.
    """
    titles = {m.name: m.title(experiment.base.modality, experiment.second or "") for m in experiment.methods}
    rows = [row for record in records if record.scores for row in _score_rows(record, titles[record.method])]
    pages = [_engine_page(engine, experiment, [r for r in records if r.engine == engine], titles) for engine in experiment.engines]
    text = "\n".join([_head(experiment), *pages, _notes(experiment, records, warnings)])
    write_text(experiment.output / "scores.csv", csv_table(CSV_HEADER, rows))
    write_text(experiment.output / "table.md", text)
    return text


def is_recovered(record: RotationRecord) -> bool:
    """Whether the known transform was found: mean Dice and mean landmark error within the limits above."""
    if record.scores is None:
        return False
    dice = mean_of(list(record.scores["dice"].values()))
    return dice >= DICE and mean_of(list(record.scores["landmarks_mm"].values())) <= DISTANCE_MM


def is_lost(record: RotationRecord) -> bool:
    """Whether the registration ended far from the known transform, or with an error."""
    return record.scores is None or mean_of(list(record.scores["landmarks_mm"].values())) > LOST_MM


def _engine_page(engine: str, experiment: RotationExperiment, records: Sequence[RotationRecord], titles: dict[str, str]) -> str:
    structures = list(dict.fromkeys(name for r in records if r.scores for name in r.scores["dice"]))
    shown = structures if len(structures) <= SHOWN_STRUCTURES else []
    rows = []
    for angle in experiment.angles:
        for method in experiment.methods:
            own = [r for r in records if (r.angle, r.method) == (angle, method.name)]
            done = [r.scores for r in own if r.scores is not None]
            if not own:
                continue
            dice = [mean_of([s["dice"].get(name) for s in done]) for name in shown]
            landmarks = [list(s["landmarks_mm"].values()) for s in done]
            rows.append(
                [
                    f"{angle:g}",
                    titles[method.name],
                    len(own),
                    *(_number(value, 3) for value in dice),
                    _number(mean_of([mean_of(list(s["dice"].values())) for s in done]), 3),
                    _number(mean_of([mean_of(values) for values in landmarks]), 3),
                    _number(max(map(max, landmarks), default=float("nan")), 3),
                    _number(mean_of([s["labels_mm"] for s in done]), 3),
                    _number(mean_of([s["linear_mm"] for s in done]), 3),
                    _number(mean_of([s["turn_deg"] for s in done]), 2),
                    f"{sum(map(is_recovered, own))} of {len(own)}",
                    f"**{lost} of {len(own)}**" if (lost := sum(map(is_lost, own))) else "0",
                ]
            )
    header = ["angle", "method", "subjects", *(f"Dice {name}" for name in shown), "Dice, mean", "landmarks, mm", "worst landmark, mm"]
    header += ["all labels, mm", "linear part alone, mm", "rotation off by, degrees", "recovered", "lost"]
    return f"## {engine}, preset {experiment.base.preset}\n\n{markdown_table(header, rows)}"


def _head(experiment: RotationExperiment) -> str:
    base, axis = experiment.base, experiment.axis
    about = axis if isinstance(axis, str) else f"({', '.join(f'{n:g}' for n in axis)}) LPS"
    names = ", ".join(atlas.name for atlas in experiment.subject_set.atlases)
    return (
        f"# A known rotation recovered: {base.modality}{f' and {experiment.second}' if experiment.second else ''}\n\n"
        f"{names}; turned about {about} through the head's centre by {', '.join(f'{a:g}' for a in experiment.angles)} degrees; seed {base.seed}.\n"
    )


def _notes(experiment: RotationExperiment, records: Sequence[RotationRecord], warnings: Sequence[str]) -> str:
    lines = [
        ("The turned images (one linear interpolation) are the fixed ones, the images as they were the moving ones (Yang et al. 2020, "
         "Table 5). Dice: the labels carried by the found transform against those carried by the true one, both by the nearest voxel."),
        (f"Recovered: mean Dice of at least {DICE:g} and a mean landmark error of at most {DISTANCE_MM:g} mm. Lost: a mean landmark error "
         f"above {LOST_MM:g} mm, or no result."),
        "Fixed and moving image have the same noise, turned: this measures the registration, not what a second scan would give.",
    ]
    if any(method.source == TRANSLATED for method in experiment.methods):
        lines.append("The translated image is that of the upright head, turned as the others; the moving image of its modality is real.")
    if any(r.scores and r.scores.get("generated") for r in records):
        lines.append("Subjects without landmarks: points spread over the labelled voxels take their place.")
    for angle in experiment.angles:
        own = [r for r in records if r.angle == angle]
        lost = sum(map(is_lost, own))
        if lost:
            lines.append(
                f"At {angle:g} degrees {lost} of {len(own)} registrations were lost. The engines begin with the images as they lie or with "
                "their centres on one another, and turn nothing at the start: for such angles orient the images roughly first."
            )
    lines += [f"FAILED: {r.subject}, {r.angle:g} degrees, {r.engine}, {r.method}: {r.error}" for r in records if r.scores is None]
    return "## Notes\n\n" + "".join(f"- {line}\n" for line in dict.fromkeys([*lines, *warnings]))


def _score_rows(record: RotationRecord, title: str) -> list[list[object]]:
    first = [record.engine, f"{record.angle:g}", record.method, title, record.subject]
    rows: list[list[object]] = []
    for measure in ("dice", "landmarks_mm", "seconds"):
        rows += [[*first, measure, name, _number(value, 6)] for name, value in record.scores[measure].items()]
    rows += [[*first, measure, "", _number(record.scores[measure], 6)] for measure in ("labels_mm", "linear_mm", "turn_deg", "folds")]
    return rows


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
