"""The report of a pipeline: `report.html`, from what lies in its folder, whatever state the run is in. Failures come first."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IMTCore.errors import BadInput
from IMTCore.files import write_text
from IMTCore.metrics import CONVENTIONS
from IMTCore.provenance import read_mark

from .pipeline_page import Figure, counts, escape, note, page, paragraph, picture, section, table
from .pipeline_pictures import PICTURES
from .pipeline_plan import PLAN, STAGES
from .pipeline_record import LOGS, CaseRecord, now
from .pipeline_tables import read_summary

REPORT = "report.html"
RUN = "run.json"
MAX_NAMED = 10
MAX_PICTURED = 300  # cases; with more the page gets too large to open
IMAGE_SCORES = (("psnr", "PSNR dB"), ("ssim", "SSIM"), ("mae", "MAE"), ("mi", "MI nats"))
LABEL_SCORES = (("dice", "Dice"), ("hausdorff_95_mm", "HD95 mm"), ("difference_percent", "volume difference %"))
SHOWN = ("range", "mask")  # the scaling and the region of the scores that are shown


@dataclass(frozen=True)
class ReportCase:
    """A row of the summary, and the record of that case."""

    row: dict[str, str]
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """The case."""
        return self.row["case"]

    def found(self, stage: str) -> dict[str, Any]:
        """What a stage found."""
        found = self.record["stages"].get(stage, {}).get("found")
        return found if isinstance(found, dict) else {}

    def scores(self, what: str) -> Iterator[dict[str, Any]]:
        """Rows of scores of translations or labels."""
        for entry in self.found("evaluate").get("comparisons", ()):
            if entry["what"] == what:
                yield from entry["rows"]


def write_report(folder: Path) -> Path:
    """Write the report of what lies in a folder; returns its path.

    Raises:
        BadInput: no summary of a pipeline, or records that were changed. OutputFailure.
    """
    rows = read_summary(folder)
    if not rows:
        raise BadInput(f"{folder} holds no summary of a pipeline. Run imt pipeline with this output folder first.")
    cases = [ReportCase(row, CaseRecord.read(folder, row["case"]).content) for row in rows]
    run, plan = read_mark(folder / RUN), read_mark(folder / PLAN)
    try:
        body = _body(folder, cases, run, plan)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{folder} holds a record ({RUN}, or one in {LOGS}) that was changed or damaged ({type(error).__name__}). "
            "Remove it, and run the same imt pipeline again."
        ) from error
    path = folder / REPORT
    write_text(path, page(f"IMT pipeline: {folder.name}", body))
    return path


def _body(folder: Path, cases: list[ReportCase], run: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    return [
        *_head(cases, run),
        *section("Failures", _failures(cases)),
        *section("Not finished", _unfinished(cases)),
        *section("Warnings", _warnings(cases)),
        *section("Translations against acquired images", _image_scores(cases)),
        *section("Segmentation against the reference", _label_scores(cases, "segment")),
        *section("Labels of the atlases against the reference", _label_scores(cases, "register")),
        *section("Volumes", _volumes(cases)),
        *section("Pictures", _pictures(folder, cases)),
        *section("How it was made", _how(cases, run, plan)),
    ]


def _head(cases: list[ReportCase], run: dict[str, Any]) -> Iterator[str]:
    states = [case.row["state"] for case in cases]
    finished = states.count("done") + states.count("skipped")
    open_ones = len(states) - finished - states.count("failed")
    yield "<h1>IMT pipeline</h1>"
    yield paragraph(f"Input {run.get('input', 'unknown')}. Report of {now()}.", "quiet")
    yield paragraph("The synthetic images here were made by neural networks. For research, not for diagnosis.", "notice")
    warned = sum(bool(_warned(case)) for case in cases)
    yield counts(
        [
            ("cases", len(cases), False),
            ("finished", finished, False),
            ("failed", states.count("failed"), "failed" in states),
            ("not finished", open_ones, False),
            ("with warnings", warned, False),
        ]
    )


def _failures(cases: list[ReportCase]) -> Iterator[str]:
    failed = [case for case in cases if case.row["state"] == "failed"]
    if not failed:
        yield paragraph("No case failed.")
    for case in failed:
        texts = [f"{', '.join(stages)} failed: {text}" for text, stages in _told(case, "failed", "message").items()]
        texts += [f"{', '.join(stages)} not done: {text}" for text, stages in _told(case, "waiting", "message").items()]
        yield note(case.name, texts or [case.row["message"]], "bad", _log_link(case))


def _told(case: ReportCase, state: str, key: str) -> dict[str, list[str]]:
    """What the stages in a state say: text -> stages."""
    told: dict[str, list[str]] = {}
    for name in STAGES:
        stage = case.record["stages"].get(name, {})
        if stage.get("state") == state and case.row[name] not in ("", "waiting" if state == "failed" else "") and stage.get(key):
            told.setdefault(str(stage[key]), []).append(name)
    return told


def _unfinished(cases: list[ReportCase]) -> Iterator[str]:
    names = [case.name for case in cases if case.row["state"] in ("waiting", "running")]
    if names:
        yield paragraph("These cases wait, or were stopped on their way. The same command again goes on with them: " + ", ".join(names) + ".")


def _warned(case: ReportCase) -> dict[str, list[str]]:
    return _told(case, "done", "warnings")


def _warnings(cases: list[ReportCase]) -> Iterator[str]:
    for case in cases:
        texts = [f"{', '.join(stages)}: {text}" for text, stages in _warned(case).items()]
        if texts:
            yield note(case.name, texts, "warn", _log_link(case))


def _log_link(case: ReportCase) -> list[tuple[str, str]]:
    return [("Log", f"{LOGS}/{case.name}.log")] if case.record["stages"] else []


def _image_scores(cases: list[ReportCase]) -> Iterator[str]:
    yield from _not_scored(cases, "translate")
    rows = [(case, row) for case in cases for row in case.scores("translate") if (row["scaling"], row["region"]) == SHOWN]
    if not rows:
        return
    yield paragraph(f"In the head's mask: {CONVENTIONS['scaling range']}. Numbers after other conventions, some in image_scores.csv, differ.")
    groups: dict[str, list[tuple[ReportCase, dict[str, Any]]]] = {}
    for case, row in rows:
        groups.setdefault(f"{row['target']} by {row['model']}", []).append((case, row))
    columns = [title for _, title in IMAGE_SCORES]
    means = [(name, len(found), *(_mean_sd(row[key] for _, row in found) for key, _ in IMAGE_SCORES)) for name, found in groups.items()]
    yield table("Mean (standard deviation) over the cases", ["translation", "cases", *columns], means)
    for name, found in groups.items():
        worst = sorted(found, key=lambda part: _low_first(part[1]["psnr"]))
        yield table(f"{name}: worst first", ["case", *columns], [(case.name, *(_cell(row[key]) for key, _ in IMAGE_SCORES)) for case, row in worst])


def _not_scored(cases: list[ReportCase], what: str) -> Iterator[str]:
    """What there was nothing to compare with, with the number of cases."""
    reasons: dict[str, list[str]] = {}
    for case in cases:
        for entry in case.found("evaluate").get("missing", ()):
            if entry["what"] == what:
                reasons.setdefault(entry["reason"], []).append(case.name)
    for reason, names in reasons.items():
        listed = ", ".join(names[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")
        yield paragraph(f"{reason}: {len(names)} of {len(cases)} cases ({listed}).")


def _label_scores(cases: list[ReportCase], what: str) -> Iterator[str]:
    yield from _not_scored(cases, what)
    scored = {case.name: list(case.scores(what)) for case in cases}
    scored = {name: rows for name, rows in scored.items() if rows}
    if not scored:
        return
    structures = dict.fromkeys(row["name"] for rows in scored.values() for row in rows)
    by_structure = {name: [row for rows in scored.values() for row in rows if row["name"] == name] for name in structures}
    means = [(name, *(_mean_sd(row[key] for row in rows) for key, _ in LABEL_SCORES)) for name, rows in by_structure.items()]
    yield table(f"Mean (standard deviation) over {len(scored)} cases", ["structure", *(title for _, title in LABEL_SCORES)], means)
    dice = {name: {row["name"]: row["dice"] for row in rows} for name, rows in scored.items()}
    mean_dice = {name: _mean(values.values()) for name, values in dice.items()}
    worst = sorted(scored, key=lambda name: _low_first(mean_dice[name]))
    lines = [(name, _cell(mean_dice[name]), *(_cell(dice[name].get(structure)) for structure in structures)) for name in worst]
    yield table("Dice: worst first", ["case", "mean", *structures], lines)


def _volumes(cases: list[ReportCase]) -> Iterator[str]:
    by_structure: dict[str, list[float]] = {}
    for case in cases:
        for entry in case.found("segment").get("statistics", ()):
            by_structure.setdefault(entry["name"], []).append(entry["volume_ml"])
    if by_structure:
        rows = [(name, len(values), _mean_sd(values), _cell(min(values)), _cell(max(values))) for name, values in by_structure.items()]
        yield table("Volumes in ml, from the segmentation", ["structure", "cases", "mean (standard deviation)", "least", "greatest"], rows)


def _pictures(folder: Path, cases: list[ReportCase]) -> Iterator[str]:
    pictured = [case for case in cases if isinstance(case.record.get("pictures"), dict)]
    pictured.sort(key=lambda case: case.row["state"] != "failed")
    if len(pictured) > MAX_PICTURED:
        yield paragraph(f"The first {MAX_PICTURED} of {len(pictured)} cases; all pictures lie in the folder {PICTURES}.")
    for case in pictured[:MAX_PICTURED]:
        inside = (folder / PICTURES).resolve()
        entries = [(folder / entry["file"], entry) for entry in case.record["pictures"].get("pictures", ())]
        there = [(path, entry) for path, entry in entries if path.is_file() and inside in path.resolve().parents]
        if there:
            figures = "".join(picture(path, entry["caption"], entry["alt"]) for path, entry in there)
            yield f'<h3>{escape(case.name)}</h3><div class="row">{figures}</div>'


def _how(cases: list[ReportCase], run: dict[str, Any], plan: dict[str, Any]) -> Iterator[str]:
    models = [(model["name"], model["stage"], model["version"], model["sha256"]) for model in run.get("models", ())]
    if models:
        yield table("Models", ["model", "stage", "version", "SHA-256 of its weights"], models)
    settings = {key: value for key, value in plan.items() if value is not None and key != "format"}
    settings |= {key: value for key, value in run.get("settings", {}).items() if value is not None}
    yield table("Settings", ["setting", "value"], [(key, json.dumps(value, ensure_ascii=False)) for key, value in settings.items()])
    machine = run.get("machine", {})
    yield table("Machine and versions", ["what", "value"], [(key, str(value)) for key, value in machine.items()])
    seconds = {stage: [case.record["stages"].get(stage, {}).get("seconds") for case in cases] for stage in STAGES}
    times = [(stage, len(known), round(sum(known), 1), _mean_sd(known)) for stage, values in seconds.items() if (known := _numbers(values))]
    if times:
        yield table("Time in seconds", ["stage", "cases", "sum", "mean (standard deviation)"], times)
    runs = [(entry.get("started", ""), entry.get("ended", "stopped or still running"), str(entry.get("seconds", ""))) for entry in run.get("runs", ())]
    if runs:
        yield table("Runs", ["started", "ended", "seconds"], runs)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def _mean(values: Iterable[Any]) -> float | None:
    known = _numbers(values)
    return statistics.fmean(known) if known else None


def _mean_sd(values: Iterable[Any]) -> Figure:
    known = _numbers(values)
    if not known:
        return Figure("-")
    return Figure(_text(statistics.fmean(known)) + (f" ({_text(statistics.stdev(known))})" if len(known) > 1 else ""))


def _text(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _cell(value: Any) -> Figure:
    return Figure(_text(value) if _numbers([value]) else "-")



def _low_first(value: float | None) -> float:
    """For sorting: what has no number (the PSNR of equal images) comes last."""
    return math.inf if value is None else value
