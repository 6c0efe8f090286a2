"""The page and the picture of a choice by cross-validation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from compare_methods import METRICS
from cross_validation_plan import Plan
from run_tables import DONE

from IMTCore.statistics import BestSet, best_set, bootstrap_interval, markdown_table, subject_means

CHOSEN_COLOUR = "#d55e00"


def collected(plan: Plan, output: Path) -> list[dict[str, Any]]:
    """The rows of scores of every finished fit, with its value and fold."""
    rows = []
    for fit in plan.fits:
        path = output / fit.key / DONE
        if path.exists():
            own = {"value": plan.labels[fit.label], "fold": int(fit.key.rpartition("fold")[2])}
            rows += [{**own, **row} for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    return rows


def patient_scores(rows: list[dict[str, Any]], metric: str, plan: Plan, values: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{label: {patient: mean score}} of the values that are finished on every fold."""
    unfinished = {fit.label for fit in plan.fits if not (values.output / fit.key / DONE).exists()}
    kept = [row for row in rows if (row["scaling"], row["region"]) == (values.scaling, values.region) and row["method"] not in unfinished]
    return subject_means((row["method"], plan.patients[row["subject"]], row[metric]) for row in kept)


def verdict(best: BestSet, scores: dict[str, dict[str, float]], metric: str) -> str:
    """Which value is chosen, and whether it is significantly better than the runner-up."""
    higher, digits = METRICS[metric][1:]
    means = {label: float(np.mean(list(of.values()))) for label, of in scores.items()}
    text = f"Chosen by {metric.upper()}: {best.best} ({means[best.best]:.{digits}f})."
    others = sorted((label for label in means if label != best.best), key=lambda label: means[label], reverse=higher)
    if not others:
        return text + " No other value is finished."
    c = next(c for c in best.comparisons if c.second == others[0])
    difference = f"{c.difference.mean:+.{digits}f}, t-test with Holm's correction p = {c.t_p_adjusted:.3g}, {c.subjects} patients"
    if others[0] not in best.members:
        return f"{text} It is significantly better than the runner-up, {others[0]} ({difference})."
    alike = [label for label in best.members if label != best.best]
    return (
        f"{text} The difference to the runner-up, {others[0]}, is NOT significant ({difference}). Values that are not significantly "
        f"worse: {', '.join(alike)}."
    )


def report(plan: Plan, rows: list[dict[str, Any]], values: argparse.Namespace) -> tuple[str, BestSet]:
    """The Markdown page, and the best set under --by."""
    scores = {metric: patient_scores(rows, metric, plan, values) for metric in METRICS}
    best = best_set(scores[values.by], METRICS[values.by][1])
    worse = {c.second: c.t_p_adjusted for c in best.comparisons}
    header = ["value", *(METRICS[metric][0] for metric in METRICS), f"{values.by.upper()} 95 % interval", "p against the chosen", "patients"]
    lines = []
    for label, text in plan.labels.items():
        if label not in scores[values.by]:
            lines.append([text, "not finished", *[""] * (len(header) - 2)])
            continue
        means = [f"{np.mean(list(scores[metric][label].values())):.{METRICS[metric][2]}f}" for metric in METRICS]
        interval, digits = bootstrap_interval(list(scores[values.by][label].values())), METRICS[values.by][2]
        spread = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
        shown = f"**{text}**" if label in best.members else text
        p = "chosen" if label == best.best else f"{worse[label]:.3g}"
        lines.append([shown, *means, spread, p, interval.subjects])
    task = f"{plan.record['source']} to {plan.record['targets'][0]}"
    notes = "".join(f"- {note}\n" for note in best.notes)
    return (
        f"# {plan.record['field']} by cross-validation, {task}, {values.folds} folds\n\n{markdown_table(header, lines)}\n"
        f"{verdict(best, scores[values.by], values.by)}\n\nEach patient is scored once, by a model that never saw any of its scans; means over "
        f"patients; scaling {values.scaling}, region {values.region}; MI in nats. Bold: the chosen value and all that are not significantly worse "
        f"(paired t-test, Holm's correction, p < 0.05). Every training had the same settings otherwise.\n\n{notes}"
    ), best


def draw(plan: Plan, rows: list[dict[str, Any]], best: BestSet, values: argparse.Namespace) -> Any:
    """A figure of PSNR and MAE over the values: a dot a patient, and the mean with its bootstrap interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(f"{plan.record['field']} by cross-validation, {plan.record['source']} to {plan.record['targets'][0]}", fontsize=11)
    for axis, metric, unit in zip(figure.subplots(1, 2), ("psnr", "mae"), ("PSNR (dB)", "MAE (share of range)"), strict=True):
        scores = patient_scores(rows, metric, plan, values)
        labels = [label for label in plan.labels if label in scores]
        table = np.array([list(scores[label].values()) for label in labels])  # [value, patient]
        places = np.arange(len(labels))
        axis.plot(places, table, color="0.8", linewidth=0.8, zorder=1)
        axis.plot(places, table, "o", color="0.6", markersize=4, zorder=2)
        intervals = [bootstrap_interval(row) for row in table]
        means = np.array([interval.mean for interval in intervals])
        spread = np.abs(np.array([[i.low, i.high] for i in intervals]).T - means)
        axis.errorbar(places, means, spread, color="#0072b2", marker="s", markersize=6, capsize=4, linewidth=1.6, zorder=3)
        at = labels.index(best.best)
        axis.plot(at, means[at], "s", color=CHOSEN_COLOUR, markersize=9, zorder=4, label=f"chosen by {values.by.upper()}")
        axis.set_xticks(places, [plan.labels[label] for label in labels])
        axis.set_xlabel(plan.record["field"])
        axis.set_ylabel(unit)
        axis.margins(x=0.1)
        axis.legend(fontsize=8)
    figure.supxlabel("Grey: patients. Blue: mean over patients with its 95 % bootstrap interval.", fontsize=9)
    return figure
