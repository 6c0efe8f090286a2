"""What the choice of weights writes: the file for `imt register --weight`, the page, the scores and the curve."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.files import whole_file, write_json, write_text
from IMTCore.statistics import csv_table, markdown_table
from IMTCore.version import VERSION

from .weights import FLAT, TIE, Choice, Scored, WeightExperiment, choose, overall, plain_of

CURVES = 12  # structures drawn, those with the widest span first
DOTS_PER_INCH = 120


def write_weights(experiment: WeightExperiment, scored: Scored, path: Path) -> tuple[str, list[str]]:
    """Write the choice to `path`, and beside it the page (.md), the scores (-scores.csv) and the curve (.png).

    Returns:
        The page, and what the user should know.

    Raises:
        OutputFailure: a file cannot be written.
    """
    plain = plain_of(experiment)
    choices = choose(scored, plain, experiment.parts)
    default = overall(scored, plain)
    text, notes = _page(experiment, scored, choices, default), []
    rows = [[c, s, "dice", n, "" if v is None else f"{v:.6g}"] for c, by in scored.dice.items() for s, d in by.items() for n, v in d.items()]
    rows += [[c, s, "landmarks_mm", "", f"{v:.6g}"] for c, by in scored.landmarks.items() for s, v in by.items()]
    write_text(path.with_name(f"{path.stem}-scores.csv"), csv_table(("candidate", "subject", "measure", "structure", "value"), rows))
    if not experiment.weights:
        notes.append("Settings have no order, so there is no curve.")
    elif find_spec("matplotlib") is None:
        notes.append("No curve is drawn: it needs matplotlib (pip install matplotlib).")
    else:
        draw_curves(experiment, scored, choices, path.with_suffix(".png"))
    write_text(path.with_suffix(".md"), text)
    write_json(path, _content(experiment, choices, default))
    return text, notes


def draw_curves(experiment: WeightExperiment, scored: Scored, choices: Sequence[Choice], path: Path) -> None:
    """Mean Dice of each structure over the weight, the chosen weight marked, and the landmark distance beside it, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    distances = scored.landmark_curve()
    figure = Figure(figsize=(11 if distances else 7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if distances else 1, squeeze=False)[0]
    order = np.argsort(experiment.weights)
    labels = [experiment.labels[n] for n in order]
    weights = [float(label) for label in labels]
    for choice in sorted(choices, key=lambda choice: -choice.span)[:CURVES]:
        curve = scored.curve(choice.structure)
        (line,) = axes[0].plot(weights, [curve[label] for label in labels], marker=".", label=choice.structure)
        axes[0].plot(float(choice.chosen), choice.dice, "o", color=line.get_color(), markersize=9, markerfacecolor="none")
    axes[0].set(xlabel=f"share of {experiment.settings.modality}", ylabel="mean Dice", title="Dice by structure (circle: chosen)")
    axes[0].legend(fontsize=8)
    if distances:
        axes[1].plot(weights, [distances[label] for label in labels], marker=".", color="black")
        axes[1].set(xlabel=f"share of {experiment.settings.modality}", ylabel="mean landmark distance, mm", title="Landmarks")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")


def _content(experiment: WeightExperiment, choices: Sequence[Choice], default: str) -> dict[str, Any]:
    """The file: for weights in the form of `read_structure_weights`, for settings in that of `RegistrationSettings.parameters`."""
    settings = experiment.settings
    record: dict[str, Any] = {
        "made_by": f"imt experiment register-weights, IMT {VERSION}",
        "modality": settings.modality,
        "second": settings.translate_to,
        "engine": settings.engine,
        "preset": settings.preset,
        "fusion": settings.fusion,
        "labels": settings.labels,
        "folds": experiment.parts,
        "flat": [choice.structure for choice in choices if choice.is_flat],
        "dice": {choice.structure: round(choice.dice, 5) for choice in choices},
        "held_out_gain": {choice.structure: round(choice.held_out, 5) if np.isfinite(choice.held_out) else None for choice in choices},
    }
    if experiment.weights:
        return {"default": float(default), "weights": {choice.structure: float(choice.chosen) for choice in choices}, **record}
    return {"chosen": default, "settings": experiment.candidates[default], "best": {c.structure: c.chosen for c in choices}, **record}


def _page(experiment: WeightExperiment, scored: Scored, choices: Sequence[Choice], default: str) -> str:
    settings, plain = experiment.settings, plain_of(experiment)
    what = f"share of {settings.modality}" if experiment.weights else "settings"
    rows = [
        [
            choice.structure,
            choice.chosen,
            f"{choice.dice:.4f}",
            f"{choice.plain_dice:.4f}",
            f"{choice.dice - choice.plain_dice:+.4f}",
            f"{choice.held_out:+.4f}" if np.isfinite(choice.held_out) else "",
            f"{choice.span:.4f}",
            "flat" if choice.is_flat else "",
        ]
        for choice in choices
    ]
    header = ["structure", f"best {what}", "Dice", f"Dice at {plain}", "gain", "gain on held-out folds", "span", ""]
    curve_rows = [[s, *(f"{value:.4f}" for value in scored.curve(s).values())] for s in scored.structures]
    distances = scored.landmark_curve()
    if distances:
        curve_rows.append(["landmarks, mm", *(f"{distances[c]:.3f}" if c in distances else "" for c in scored.dice)])
    second = f" and {settings.translate_to}" if settings.translate_to else ""
    by = "the least landmark distance" if distances else "the best mean Dice of all structures"
    lines = [
        f"Each subject is registered with the atlases of the other {experiment.folds - 1} of {experiment.folds} folds; means over all subjects.",
        f"Within {TIE:g} of the best counts as a tie, which goes to the one nearest to {plain}. Flat: all are within {FLAT:g}, so the choice does not matter.",
        "Gain on held-out folds: chosen without the fold, scored on it. What is much below the gain was fitted to these subjects.",
        f"For all else (the background, the transforms that are written): {default}, by {by}.",
    ]
    if choices and all(choice.is_flat for choice in choices):
        lines.append("All structures are flat: these data give no reason to leave the plain choice.")
    return (
        f"# {'Weights by structure' if experiment.weights else 'Engine settings'}: {settings.modality}{second}, {settings.engine} {settings.preset}"
        f"{f', fusion {settings.fusion}' if settings.translate_to else ''}\n\n"
        + markdown_table(header, rows)
        + f"\n## Mean Dice by {what}\n\n"
        + markdown_table(["structure", *scored.dice], curve_rows)
        + "\n## Notes\n\n"
        + "".join(f"- {line}\n" for line in lines)
    )
