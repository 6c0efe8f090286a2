"""The scores of a reader study in words, as a Markdown table, as rows and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .scores import PhaseScore, Proportion, StudyScore

CSV_COLUMNS = (
    *("reader", "phase", "answered", "planned", "fooled", "rate", "low", "high", "p_half"),
    *("seconds_q1", "seconds_median", "seconds_q3", "seconds_fooled", "seconds_right"),
    *("left", "left_rate", "left_p", "first_half_rate", "second_half_rate", "p_change"),
)


def percent(value: float) -> str:
    """0.256 as "25.6 %"; "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def interval(value: Proportion) -> str:
    """The interval as "22.9 to 28.4 %"; "-" without trials."""
    return "-" if math.isnan(value.low) else f"{100 * value.low:.1f} to {100 * value.high:.1f} %"


def p_value(value: float) -> str:
    """A p-value to two digits, "< 0.001" below that; "-" for NaN."""
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.2g}"


def seconds(value: float) -> str:
    """A time as "2.4 s"; "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.1f} s"


def verdict(value: Proportion) -> str:
    """What a fooled rate says, in one sentence."""
    if value.total == 0:
        return "No main trial was answered."
    found = f"Fooled on {value.count} of {value.total} trials, {percent(value.rate)} (95 % interval {interval(value)})"
    if value.p_half >= 0.05:
        return f"{found}: not significantly different from guessing (50 %, p = {p_value(value.p_half)})."
    sign = "= " if value.p_half >= 0.001 else ""
    side = "the synthetic images were told from the real ones" if value.rate < 0.5 else "the real images were taken for synthetic"
    return f"{found}: {side} more often than by guessing (50 %, p {sign}{p_value(value.p_half)})."


def as_markdown(score: StudyScore) -> str:
    """The whole report as Markdown."""
    lines = [
        f"# Reader study {score.study}",
        "",
        "Fooled: the real image was taken for the synthetic one. 50 % means that the two cannot be told apart.",
        "",
        "| Reader | Trials | Fooled | 95 % interval | p against 50 % | Median time | fooled / not | Answered left | p (side) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for reader in score.readers:
        main = reader.main
        cells = (
            *(reader.reader, f"{main.fooled.total} of {main.planned}", percent(main.fooled.rate), interval(main.fooled)),
            *(p_value(main.fooled.p_half), seconds(main.seconds[1]), f"{seconds(main.seconds_fooled)} / {seconds(main.seconds_right)}"),
            *(percent(main.left.rate), p_value(main.left.p_half)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    pooled = score.pooled
    if len(score.readers) > 1:
        cells = ("**Pooled**", str(pooled.total), percent(pooled.rate), interval(pooled), p_value(pooled.p_half), *[""] * 4)
        lines.append(f"| {' | '.join(cells)} |")
        mean = (
            f"Mean over {len(score.readers)} readers {percent(score.mean_rate)}, SD {percent(score.sd_rate)}, 95 % t-interval "
            f"{percent(score.mean_low)} to {percent(score.mean_high)}. The pooled interval takes all trials as independent and "
            "holds for these readers; the t-interval is for readers in general."
        )
        lines += ["", mean]
    lines += ["", verdict(pooled), "", "| Reader | Phase | Fooled, first half | second half | p (change) |", "| --- | --- | --- | --- | --- |"]
    for reader in score.readers:
        lines += [_change_row(reader.reader, phase) for phase in (reader.practice, reader.main) if phase.fooled.total]
    lines += ["", "Published (Yang et al. 2020): 25 % for three radiologists, 27.6 % for five medical students.", ""]
    lines += [f"- {note}" for note in score.notes]
    return "\n".join(lines).rstrip() + "\n"


def _change_row(reader: str, phase: PhaseScore) -> str:
    halves = (f"{percent(half.rate)} of {half.total}" for half in (phase.first_half, phase.second_half))
    return f"| {' | '.join((reader, phase.phase, *halves, p_value(phase.p_change)))} |"


def as_rows(score: StudyScore) -> list[tuple[Any, ...]]:
    """One row for each reader and phase, in the order of `CSV_COLUMNS`; numbers that do not exist are empty."""
    rows = []
    for reader in score.readers:
        for phase in (reader.practice, reader.main):
            fooled, left = phase.fooled, phase.left
            row = (
                *(reader.reader, phase.phase, fooled.total, phase.planned, fooled.count, fooled.rate, fooled.low, fooled.high),
                *(fooled.p_half, *phase.seconds, phase.seconds_fooled, phase.seconds_right),
                *(left.count, left.rate, left.p_half, phase.first_half.rate, phase.second_half.rate, phase.p_change),
            )
            rows.append(tuple("" if isinstance(value, float) and math.isnan(value) else value for value in row))
    return rows


def as_json(score: StudyScore) -> dict[str, Any]:
    """Everything as a dictionary for JSON; numbers that do not exist are None."""
    return {**_finite(dataclasses.asdict(score)), "interval": "Wilson, 95 %", "test": "exact binomial against 0.5, two-sided"}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
