"""The page of the experiment "is translation worth it?": tables in the form of Yang et al. 2020, Tables 6 and 7, tests, the answer."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmentation_experiment_plan import METHODS, ExperimentPlan
from segmentation_verdict import MEAN, RULE, TMS, judge, scores_by_subject

from IMTCore.statistics import Interval, bootstrap_interval, csv_table, markdown_table, wilcoxon_floor

PUBLISHED = Path(__file__).resolve().parent / "published_segmentation.csv"
Rows = Sequence[Mapping[str, Any]]


def inputs_of(method: str, given: str, second: str) -> str:
    """The channels as the paper writes them; a translation has a hat."""
    kind = METHODS[method].second_from
    image = {"": "", "translated": f"{second}^", "real": second}.get(kind, f"{second}^ {kind}")
    return ", ".join({"given": given, "second": image}[channel] for channel in METHODS[method].channels)


def baseline_of(methods: Sequence[str]) -> str:
    """What the increments are counted from: the given image alone, as the paper does."""
    return next((name for name in ("given-only", "xxx") if name in methods), methods[0])


def main_table(rows: Rows, structures: Sequence[str], given: str, second: str) -> tuple[list[str], list[list[Any]]]:
    """Header and lines: each method's Dice of each structure with its increment (Tables 6, 7), accuracy of all voxels and of each structure.

    Means over subjects of the means over seeds.
    """
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    base = baseline_of(methods)
    dice = {structure: _means(scores_by_subject(rows, structure)) for structure in structures}
    accuracy = {name: _means(scores_by_subject(rows, name, "accuracy")) for name in ("all", *structures)}
    header = ["method", "channels", "seeds"]
    for structure in structures:
        header += [f"Dice ({structure})", "Δ"]
    header += [f"accuracy ({name})" for name in ("all", *structures)]
    lines = []
    for method in methods:
        line: list[Any] = [method, inputs_of(method, given, second), len({row["seed"] for row in rows if row["method"] == method})]
        for structure in structures:
            line += [_shown(dice[structure].get(method)), increment(dice[structure].get(method), dice[structure].get(base), method == base)]
        lines.append(line + [_shown(accuracy[name].get(method)) for name in ("all", *structures)])
    return header, lines


def _means(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {method: float(np.mean(list(values.values()))) for method, values in scores.items() if values}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: Interval, form: str) -> str:
    """An interval's bounds; one subject has none."""
    return "-" if math.isnan(interval.low) else f"{interval.low:{form}} to {interval.high:{form}}"


def increment(value: float | None, base: float | None, own: bool = False) -> str:
    """The increment over the baseline in percent, as the paper's Δ."""
    return "-" if own or not value or not base else f"{100 * (value / base - 1):+.2f} %"


def tests_table(rows: Rows) -> tuple[list[str], list[list[Any]]]:
    """Header and lines: TMS less each other method, mean Dice over structures, with interval and p."""
    header = ["TMS less", "mean difference", "95 % interval", "subjects", "t-test p", "after Holm", "Wilcoxon p", "after Holm "]
    lines = []
    for c in judge(rows).comparisons:
        numbers = ["-" if math.isnan(p) else f"{p:.3g}" for p in (c.t_p, c.t_p_adjusted, c.wilcoxon_p, c.wilcoxon_p_adjusted)]
        lines.append([c.second, f"{c.difference.mean:+.4f}", _range(c.difference, "+.4f"), c.subjects, *numbers])
    return header, lines


def published_table() -> str:
    """Tables 6 and 7 of the paper, as printed; increments computed from the printed Dice."""
    with open(PUBLISHED, newline="", encoding="utf-8") as stream:
        entries = list(csv.DictReader(stream))
    base = {(e["table"], e["structure"]): float(e["dice"]) for e in entries if not e["second"]}
    lines = []
    for e in entries:
        hat = {"translated": f" + {e['second']}^", "real": f" + {e['second']}"}.get(e["second_from"], "")
        change = increment(float(e["dice"]), base[e["table"], e["structure"]], not e["second"])
        lines.append([e["table"], e["dataset"], e["given"] + hat, e["structure"], e["dice"], change])
    return markdown_table(["table", "data set", "channels", "structure", "Dice", "Δ"], lines)


def notes_of(rows: Rows) -> list[str]:
    """What a reader must know: few subjects, pretraining, the share of the real image's gain."""
    scores = scores_by_subject(rows)
    subjects = len(next(iter(scores.values()), {}))
    notes = []
    if subjects == 1:
        notes.append("One subject: no test and no interval, an example.")
    elif subjects < 10:
        notes.append(f"With {subjects} subjects Wilcoxon's p cannot go below {wilcoxon_floor(subjects):.3g}, and bootstrap intervals are too narrow.")
    means = _means(scores)
    if {TMS, "pretrained"} <= means.keys():
        difference = means["pretrained"] - means[TMS]
        notes.append(
            f"Part A's labels used directly (pretrained, with twice the steps) give {difference:+.4f} Dice against TMS: "
            "translation needs A's second images, this A's labels."
        )
    if {TMS, "xxx", "real"} <= means.keys() and means["real"] > means["xxx"] and means[TMS] > means["xxx"]:
        share = (means[TMS] - means["xxx"]) / (means["real"] - means["xxx"])
        notes.append(f"TMS has {100 * share:.0f} % of what the real second modality gains over xxx.")
    return notes


def page(rows: Rows, plan: ExperimentPlan, translator: str) -> str:
    """The Markdown page of what is finished."""
    base, verdict = plan.base, judge(rows)
    done = {(row["method"], row["seed"]) for row in rows}
    left = [f"{m}/seed{s}" for s in plan.seeds for m in plan.methods if (m, s) not in done]
    network = f"FCN-{base.phases[-1]}, width {base.width:g}" if base.network == "fcn" else f"U-Net, {base.filters} filters, depth {base.depth}"
    sizes = ", ".join(f"{part.upper()} {len(plan.parts[part])}" for part in plan.parts)
    scores = scores_by_subject(rows)
    spread = [
        [name, f"{interval.mean:.4f}", _range(interval, ".4f")]
        for name, interval in ((name, bootstrap_interval(list(values.values()))) for name, values in scores.items())
    ]
    text = (
        f"# Is translation worth it? {base.given} with {plan.second}, {', '.join(base.names)}\n\n**{verdict.text}**\n\n{RULE}\n\n"
        f"{network}, {base.total_steps} steps of {base.batch} slices for each fit; parts {sizes} subjects; translator: {translator or 'none'}; "
        f"seeds {', '.join(map(str, plan.seeds))}. Means over part C's subjects, each the mean over seeds; Δ against {baseline_of(list(scores))}. "
        f"^ marks a translation.\n\n{markdown_table(*main_table(rows, base.names, base.given, plan.second))}\n"
        f"Mean Dice over structures, with its 95 % bootstrap interval over subjects:\n\n{markdown_table(['method', 'Dice', '95 % interval'], spread)}\n"
    )
    if verdict.comparisons:
        text += f"Mean Dice over structures, TMS less each other method:\n\n{markdown_table(*tests_table(rows))}\n"
    text += "".join(f"- {note}\n" for note in notes_of(rows))
    text += f"- Not finished: {', '.join(left)}.\n" if left else ""
    text += "".join(f"- {name}: {METHODS[name].about}.\n" for name in plan.methods)
    return text + (
        "\nPublished (Yang et al. 2020, Tables 6 and 7; other data, FCN-8s from ImageNet's VGG-16; no controls; Δ from the printed Dice, "
        f"so that T1 + FLAIR^ is +7.76 %, printed 7.89 %):\n\n{published_table()}"
    )


def summary(rows: Rows) -> dict[str, Any]:
    """The answer and the comparisons, for a program."""
    verdict = judge(rows)
    means = _means(scores_by_subject(rows))
    return {"answer": verdict.answer, "text": verdict.text, "measure": f"{MEAN} Dice", "means": means, "comparisons": [c.record() for c in verdict.comparisons]}


def scores_csv(rows: Rows, columns: Sequence[str]) -> str:
    """Every row as CSV; an empty field where there is no score."""
    return csv_table(columns, [["" if row.get(column) is None else row[column] for column in columns] for row in rows])
