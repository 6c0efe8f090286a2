"""Compare methods on the same subjects in the form of Yang et al. 2020, Table 1, with statistics by subject.

Reads the scores.csv files that `evaluate_translator.py` writes (columns subject, method, scaling, region, mae, psnr, ssim,
mi, and sharpness where there is one). A row of the table is a transition on a data set; under each method stand MAE, PSNR,
MI and SSIM, each the mean over subjects. Bold: the best set, that is the best method and all that are not significantly
worse (paired t-test on subject means, Holm's correction over the comparisons with the best, p < 0.05).

Example:
    python Resources/Training/compare_methods.py --scores 'T1 → T2=results/T1-T2/scores.csv' \
        'T1 → FLAIR=results/T1-FLAIR/scores.csv' --output results/comparison

Files with the same label (folds, or methods scored apart) are taken together. Writes table.md (the table, what it means
and the tests), table.csv (the same table), means.csv (each mean with its 95 % bootstrap interval) and tests.csv (every
comparison).
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from IMTCore.errors import ImtError
from IMTCore.files import check_writable, write_text
from IMTCore.statistics import CORRECTIONS, TESTS, BestSet, Interval, best_set, bootstrap_interval, csv_table, markdown_table, subject_means

# column → (as printed, higher is better, digits); in the paper's order
METRICS = {
    "mae": ("MAE ↓", False, 4),
    "psnr": ("PSNR ↑", True, 2),
    "mi": ("MI ↑", True, 3),
    "ssim": ("SSIM ↑", True, 4),
}
REQUIRED = ("subject", "method", "scaling", "region", *METRICS)


@dataclass(frozen=True)
class Cell:
    """One metric of all methods in one row of the table."""

    label: str
    dataset: str
    metric: str
    scores: dict[str, dict[str, float]]
    intervals: dict[str, Interval]
    best: BestSet | None


def read_scores(path: Path, scaling: str, region: str) -> list[dict[str, str]]:
    """The rows of a scores.csv under one convention."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        sys.exit(f"Cannot read {path}: {error}. Give a scores.csv that evaluate_translator.py wrote.")
    missing = [column for column in REQUIRED if not rows or column not in rows[0]]
    if missing:
        sys.exit(f"{path} has no column {', '.join(missing)}: give a scores.csv that evaluate_translator.py wrote.")
    kept = [row for row in rows if (row["scaling"], row["region"]) == (scaling, region)]
    if not kept:
        found = dict.fromkeys((row["scaling"], row["region"]) for row in rows)
        offered = ", ".join(f"--scaling {s} --region {r}" for s, r in found)
        sys.exit(f"{path} has no scores with scaling {scaling!r} and region {region!r}. It has: {offered}.")
    return kept


def read_all(entries: list[str], scaling: str, region: str) -> dict[str, list[dict[str, str]]]:
    """label → rows of all its files; a method scored twice on a subject is refused, as an average of both would hide it."""
    labels: dict[str, list[dict[str, str]]] = {}
    scored: dict[tuple[str, str, str], Path] = {}
    for entry in entries:
        label, _, name = entry.rpartition("=")
        path = Path(name)
        label = label or path.parent.name
        rows = read_scores(path, scaling, region)
        for row in rows:
            earlier = scored.setdefault((label, row["method"], row["subject"]), path)
            if earlier != path:
                sys.exit(f"{label}: {row['method']} is scored on {row['subject']} in {earlier} and in {path}. Give each once.")
        labels.setdefault(label, []).extend(rows)
    return labels


def number(row: dict[str, str], column: str, label: str) -> float:
    """A number of a row."""
    try:
        return float(row[column])
    except (TypeError, ValueError):
        sys.exit(f"{label}: the {column} of {row['method']} on {row['subject']} is {row[column]!r}, not a number. Score it again.")


def patient_of(subject: str, merge: str | None) -> str:
    """The name under which a subject's scans are averaged: what `merge` matches is taken away."""
    return re.sub(merge, "", subject) if merge else subject


def cells_of(label: str, rows: list[dict[str, str]], values: argparse.Namespace) -> list[Cell]:
    """The cells of one transition: for each data set (or all pooled) and each metric."""
    columns = [*METRICS, *(["sharpness"] if all(row.get("sharpness") for row in rows) else [])]
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault("all" if values.pool else row["subject"].split("/")[0], []).append(row)
    cells = []
    for dataset, members in groups.items():
        known = dict.fromkeys(row["method"] for row in members)
        methods = values.methods or list(known)
        absent = [method for method in methods if method not in known]
        if absent:
            sys.exit(f"{label} has no method {', '.join(absent)} on {dataset}. It has: {', '.join(known)}.")
        ordered = [row for method in methods for row in members if row["method"] == method]
        for metric in columns:
            factor = values.mae_scale if metric == "mae" else 1.0
            scores = subject_means((r["method"], patient_of(r["subject"], values.merge), factor * number(r, metric, label)) for r in ordered)
            best = best_set(scores, METRICS[metric][1], values.test, values.correction) if metric in METRICS else None
            intervals = {method: bootstrap_interval(list(scores[method].values())) for method in scores}
            cells.append(Cell(label, dataset, metric, scores, intervals, best))
    return cells


def table(cells: list[Cell], marked: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows in the paper's form; members of a best set stand between `marked`."""
    methods = list(dict.fromkeys(method for cell in cells for method in cell.scores))
    columns = list(dict.fromkeys(cell.metric for cell in cells))
    header = ["data set", "transition", "subjects"]
    header += [f"{method} {METRICS[c][0] if c in METRICS else c}" for method in methods for c in columns]
    rows = []
    for label, dataset in dict.fromkeys((cell.label, cell.dataset) for cell in cells):
        of_metric = {cell.metric: cell for cell in cells if (cell.label, cell.dataset) == (label, dataset)}
        row = [dataset, label, str(len(next(iter(of_metric["mae"].scores.values()))))]
        for method in methods:
            for column in columns:
                cell = of_metric.get(column)
                if cell is None or method not in cell.scores:
                    row.append("")
                    continue
                digits = METRICS[column][2] if column in METRICS else 3
                text = f"{cell.intervals[method].mean:.{digits}f}"
                row.append(f"{marked}{text}{marked}" if cell.best and method in cell.best.members else text)
        rows.append(row)
    return header, rows


def means_table(cells: list[Cell]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of every mean with its interval."""
    header = ["transition", "data set", "method", "metric", "subjects", "mean", "low", "high", "in best set"]
    rows: list[list[object]] = []
    for cell in cells:
        for method, i in cell.intervals.items():
            kept = "" if cell.best is None else "yes" if method in cell.best.members else "no"
            rows.append([cell.label, cell.dataset, method, cell.metric, i.subjects, *(f"{n:.6g}" for n in (i.mean, i.low, i.high)), kept])
    return header, rows


def tests_table(cells: list[Cell]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of every comparison of the best method with another."""
    header = ["transition", "data set", "metric", "best", "other", "subjects", "difference", "low", "high"]
    header += ["t p", "t p Holm", "Wilcoxon p", "Wilcoxon p Holm", "Wilcoxon floor", "other in best set"]
    if any(cell.best and cell.best.correction == "none" for cell in cells):
        header = [name.replace(" Holm", " uncorrected") for name in header]
    rows: list[list[object]] = []
    for cell in cells:
        for c in cell.best.comparisons if cell.best else ():
            numbers = (c.difference.mean, c.difference.low, c.difference.high, c.t_p, c.t_p_adjusted)
            numbers += (c.wilcoxon_p, c.wilcoxon_p_adjusted, c.wilcoxon_floor)
            kept = "yes" if c.second in cell.best.members else "no"
            rows.append([cell.label, cell.dataset, cell.metric, c.first, c.second, c.subjects, *(f"{n:.4g}" for n in numbers), kept])
    return header, rows


def report(cells: list[Cell], values: argparse.Namespace) -> str:
    """The Markdown file: the table, what it means, and the tests."""
    test = {"t": "paired t-test", "wilcoxon": "Wilcoxon's signed-rank test"}[values.test]
    corrections = {"holm": "Holm's correction over the comparisons of one metric in one row", "none": "not corrected, as in the paper"}
    scale = f" MAE is multiplied by {values.mae_scale:g}." if values.mae_scale != 1 else ""
    text = (
        f"Means over subjects; scaling {values.scaling}, region {values.region}.{scale} MI in nats. Bold: the best set, that is the best "
        f"method and all that are not significantly worse ({test} on subject means, p < 0.05, {corrections[values.correction]}). "
        "Differences are best minus other, with the 95 % bootstrap interval over subjects.\n"
    )
    notes = dict.fromkeys(note for cell in cells if cell.best for note in cell.best.notes)
    listed = ["".join(f"- {note}\n" for note in notes)] if notes else []
    return "\n".join([markdown_table(*table(cells, "**")), text, *listed, markdown_table(*tests_table(cells))])


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", required=True, nargs="+", metavar="LABEL=CSV", help="scores.csv files; LABEL names the transition")
    parser.add_argument("--scaling", default="range", help="which scaling (default range)")
    parser.add_argument("--region", default="volume", help="which region (default volume)")
    parser.add_argument("--methods", nargs="+", help="which methods, in this order (default: all as in the files)")
    parser.add_argument("--test", choices=TESTS, default="t")
    parser.add_argument("--correction", choices=CORRECTIONS, default="holm", help="none is what the paper's caption says")
    parser.add_argument("--pool", action="store_true", help="all data sets of a file in one row")
    parser.add_argument("--merge", metavar="REGEX", help="taken away from subject names, so that scans of one patient are averaged: '_study[0-9]+$'")
    parser.add_argument("--mae-scale", type=float, default=1.0, help="factor of the MAE: 255 for the paper's scale")
    parser.add_argument("--output", required=True, type=Path, help="folder for table.md, table.csv, means.csv and tests.csv")
    values = parser.parse_args()
    try:
        if values.merge:
            re.compile(values.merge)
    except re.error as error:
        sys.exit(f"--merge {values.merge!r} is not a regular expression: {error}.")
    outputs = [values.output / name for name in ("table.md", "table.csv", "means.csv", "tests.csv")]
    try:
        for output in outputs:
            check_writable(output)
        labels = read_all(values.scores, values.scaling, values.region)
        cells = [cell for label, rows in labels.items() for cell in cells_of(label, rows, values)]
        text = report(cells, values)
        tables = (table(cells, "*"), means_table(cells), tests_table(cells))
        for output, content in zip(outputs, (text, *(csv_table(*t) for t in tables)), strict=True):
            write_text(output, content)
    except ImtError as error:
        sys.exit(str(error))
    print(text)


if __name__ == "__main__":
    main()
