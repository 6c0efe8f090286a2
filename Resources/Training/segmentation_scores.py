"""Pixel accuracy, class accuracy and Dice of a segmentation, and their table in the form of Yang et al. 2020, Tables 2 and 3."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

REAL = "real"
GAP = f"{REAL} - "


def segmentation_scores(truth: np.ndarray, found: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Scores of one subject (Yang et al. 2020, Evaluation metrics; Isola et al. 2017, 4.1).

    Args:
        truth, found: classes of each voxel, of one shape; 0 is the background, n is `names[n - 1]`.
        names: the classes' names.

    Returns:
        "accuracy all": the share of voxels with the right class, background included; "accuracy NAME": the share of the
        true voxels of a class that were found; "dice NAME": 2|H ∩ G| / (|H| + |G|). NaN where a class is not there.
    """
    scores = {"accuracy all": float((truth == found).mean())}
    counts = {}
    for number, name in enumerate(names, start=1):
        given, hit = truth == number, found == number
        counts[name] = (int((given & hit).sum()), int(given.sum()), int(hit.sum()))
    for name, (both, given, _) in counts.items():
        scores[f"accuracy {name}"] = both / given if given else float("nan")
    for name, (both, given, hit) in counts.items():
        scores[f"dice {name}"] = 2 * both / (given + hit) if given + hit else float("nan")
    return scores


def summarise(rows: Sequence[dict]) -> list[dict]:
    """Means over subjects for each kind of image, and for each synthetic kind the gap: real less synthetic.

    Args:
        rows: dictionaries with subject, images (the kind; "real" is one of them) and scores.

    Returns:
        One dictionary a kind: images, subjects (their number), and the scores; a gap's `images` is "real - KIND". A score
        that is NaN in a subject is left out of its mean, and of a gap's if either is.
    """
    columns = [key for key in rows[0] if key not in ("subject", "images")]
    kinds = list(dict.fromkeys(row["images"] for row in rows))
    values = {kind: {row["subject"]: row for row in rows if row["images"] == kind} for kind in kinds}
    table = [_means(kind, columns, list(values[kind].values())) for kind in kinds]
    for kind in kinds:
        if kind != REAL:
            gaps = [{c: values[REAL][name][c] - row[c] for c in columns} for name, row in values[kind].items()]
            table.append(_means(GAP + kind, columns, gaps))
    return table


def _means(images: str, columns: list[str], rows: list[dict]) -> dict:
    means = {}
    for column in columns:
        known = [row[column] for row in rows if not np.isnan(row[column])]
        means[column] = float(np.mean(known)) if known else float("nan")
    return {"images": images, "subjects": len(rows), **means}


def as_markdown(table: Sequence[dict], target: str) -> str:
    """The summary as a Markdown table: accuracy of all voxels and of each class, then Dice; `target` names the real row."""
    columns = [key for key in table[0] if key not in ("images", "subjects")]
    lines = ["| images | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for row in table:
        sign = "+" if row["images"].startswith(GAP) else ""
        name = f"{target} ({REAL})" if row["images"] == REAL else row["images"]
        values = ["-" if np.isnan(row[column]) else f"{row[column]:{sign}.3f}" for column in columns]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[dict]) -> str:
    """The rows as CSV with a header line; a score that is NaN is an empty field."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        known = {key: value for key, value in row.items() if value == value}  # NaN is not itself
        writer.writerow({key: round(value, 6) if isinstance(value, float) else value for key, value in known.items()})
    return stream.getvalue()
