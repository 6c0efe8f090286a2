"""The tables of `run_tables.py` to read: one a transition, a row a method, beside what Yang et al. 2020 published.

Bold: the best set (IMTCore/statistics.py). Below each table `--pair A B` (repeatable) gives A minus B by subject with its 95 %
bootstrap interval and p of the paired t-test (Holm's correction over the measures).

Example:
    python Resources/Training/show_tables.py --tables runs/tables --pair 'IMT 2.5D' 'cGAN+L1'
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from IMTCore.errors import ImtError
from IMTCore.statistics import best_set, compare, holm, markdown_table, subject_means

PUBLISHED = Path(__file__).resolve().parent / "published.csv"
# column → heading, digits, factor, whether higher is better
MEASURES = {
    "mae": ("MAE (0-255)", 2, 255, False),
    "psnr": ("PSNR dB", 2, 1, True),
    "mi": ("MI", 3, 1, True),
    "ssim": ("SSIM", 4, 1, True),
    "sharpness": ("sharpness", 2, 1, None),
}


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def published(source: str, target: str, method: str, measure: str) -> str:
    """What the paper gives for its largest data set of the transition (BraTS 2015, ADNI); empty if it gives nothing."""
    rows = [row for row in read(PUBLISHED) if (row["source"], row["target"], row["method"]) == (source, target, method)]
    return max(rows, key=lambda row: int(row["slices"]))[measure] if rows else ""


def shown(path: Path, pairs: list[list[str]], region: str) -> str:
    """The Markdown of one transition's file."""
    dataset, source, target = path.stem.rsplit("-", 2)
    rows = [row for row in read(path) if row["scaling"] == "range" and row["region"] == region]
    subjects: dict[str, set[str]] = {}
    for row in rows:
        subjects.setdefault(row["method"], set()).add(row["subject"])
    most = max(map(len, subjects.values()))
    partial = sorted(method for method, names in subjects.items() if len(names) < most)
    rows = [row for row in rows if row["method"] not in partial]
    scores = {m: subject_means((row["method"], row["subject"], float(row[m])) for row in rows) for m in MEASURES}
    best = {m: best_set(scores[m], higher_is_better=up).members if up is not None else () for m, (*_, up) in MEASURES.items()}
    lines = []
    for method in scores["psnr"]:
        cells = [method]
        for m, (_, digits, factor, _) in MEASURES.items():
            value = f"{factor * sum(scores[m][method].values()) / most:.{digits}f}"
            cells.append(f"**{value}**" if method in best[m] else value)
        cells += [published(source, target, method, m) for m in ("mae", "psnr", "ssim")]
        lines.append(cells)
    heading = ["method", *(name for name, *_ in MEASURES.values()), "paper: MAE", "PSNR", "SSIM"]
    text = f"### {source} → {target} ({dataset}, {most} subjects)\n\n{markdown_table(heading, lines)}"
    if partial:
        text += f"\nNot finished on all subjects, and left out: {', '.join(partial)}.\n"
    for first, second in pairs:
        if {first, second} <= scores["psnr"].keys():
            text += "\n" + difference(scores, first, second)
    return text


def difference(scores: dict[str, dict[str, dict[str, float]]], first: str, second: str) -> str:
    """One sentence: `first` minus `second`, by subject."""
    compared = {m: compare(scores[m], [(first, second)])[0] for m in MEASURES if m != "sharpness"}
    corrected = holm([one.t_p for one in compared.values()])
    parts = []
    for (m, one), p in zip(compared.items(), corrected, strict=True):
        name, digits, factor, _ = MEASURES[m]
        low, mean, high = (factor * value for value in (one.difference.low, one.difference.mean, one.difference.high))
        parts.append(f"{name} {mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}, p {p:.2g})")
    return f"{first} minus {second}: {'; '.join(parts)}.\n"


def main() -> None:
    """Print every transition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", required=True, type=Path, help="output folder of run_tables.py")
    parser.add_argument("--region", choices=["volume", "mask"], default="volume")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar=("A", "B"))
    values = parser.parse_args()
    files = sorted(path for path in values.tables.glob("*-*-*.csv"))
    if not files:
        sys.exit(f"{values.tables} holds no tables. Give the output folder of run_tables.py.")
    try:
        print("\n".join(shown(path, values.pair, values.region) for path in files))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
