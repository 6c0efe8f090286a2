"""Where a segmentation is true, false and missing, in the colours of Yang et al. 2020, Figs. 9 and 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from case_pictures import save_figure
from monitor import shown_box
from segmentation_cases import SegmentedCase

from IMTCore.intensity import background_value, foreground_mask
from IMTCore.label_scores import FALSE, MISSING, RIGHT, error_regions
from IMTCore.metrics import unit_scaled
from IMTCore.orientation import anatomical_axes

# "Pink: true regions. Grey: missing regions. Dark red: false regions." (captions of Figs. 9 and 10)
REGIONS = {RIGHT: ("true", (1.0, 0.75, 0.8)), FALSE: ("false", (0.55, 0.0, 0.0)), MISSING: ("missing", (0.5, 0.5, 0.5))}
DIMMED = 0.4  # of the image's brightness under the regions, so that the paper's grey is not taken for tissue


def best_and_worst(rows: Sequence[Mapping[str, Any]], structure: str) -> list[tuple[str, str, float]]:
    """("best" and "worst", subject, Dice) of a structure by Dice; one entry if there is one subject, none without scores."""
    known = sorted((row["dice"], row["subject"]) for row in rows if row["structure"] == structure and row["dice"] is not None)
    chosen = [("best", known[-1])] + ([("worst", known[0])] if len(known) > 1 else []) if known else []
    return [(which, subject, dice) for which, (dice, subject) in chosen]


def case_picture(cases: Mapping[str, SegmentedCase], structure: str, title: str) -> Any:
    """A figure of one subject: the image, the reference, and each model's true, false and missing regions.

    The slice is the axial one with the largest reference structure (of what was found, if the reference has none).

    Args:
        cases: model's name -> the same subject as that model segments it.
        structure: one of the case's names.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    first = next(iter(cases.values()))
    number = first.names.index(structure) + 1
    axes = anatomical_axes(first.given.geometry, "axial")
    spacing = axes.spacing_kji(first.given.geometry)
    image = axes.apply(unit_scaled(first.given.array))
    truth = axes.apply(first.truth == number)
    shown = truth if truth.any() else axes.apply(first.found == number)
    k = int(shown.sum(axis=(1, 2)).argmax()) if shown.any() else len(image) // 2
    head = axes.apply(foreground_mask(first.given.array, background_value(first.given.array)) & (unit_scaled(first.given.array) > 0.1))
    box = shown_box(head.any(axis=0))
    panels = {"Image": None, f"Reference {structure}": np.where(truth[k], RIGHT, 0)}
    panels |= {name: axes.apply(error_regions(case.truth, case.found, number))[k] for name, case in cases.items()}
    rows, columns = image[k][box].shape
    height = 2.9 * rows * spacing[1] / (columns * spacing[2]) + 0.9
    figure = Figure(figsize=(2.9 * len(panels), height), layout="constrained")
    figure.suptitle(f"{title}, axial slice {k}", fontsize=11)
    for axis, (name, regions) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        shown = np.clip(image[k][box], 0, 1) * (1 if regions is None else DIMMED)
        axis.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=spacing[1] / spacing[2], interpolation="nearest")
        if regions is not None:
            axis.imshow(coloured(regions[box]), aspect=spacing[1] / spacing[2], interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(handles=[Patch(color=colour, label=name) for name, colour in REGIONS.values()], loc="outside lower center", ncols=3, fontsize=9)
    return figure


def coloured(regions: np.ndarray) -> np.ndarray:
    """Codes of `error_regions` [rows, columns] as colours [rows, columns, 4] in 0 to 1; what is no region is clear."""
    colours = np.zeros((max(REGIONS) + 1, 4))
    for code, (_, colour) in REGIONS.items():
        colours[code] = [*colour, 1]
    return colours[regions]


def write_pictures(cases: Mapping[str, Mapping[str, SegmentedCase]], rows: Sequence[Mapping[str, Any]], names: Sequence[str], folder: Path) -> list[Path]:
    """`<structure>-best.png` and `-worst.png` by the first model's Dice, all models side by side.

    Args:
        cases: subject -> model's name -> case.
        rows: the first model's scores (`score_case`).
        names: the structures.
        folder: for the pictures.

    Raises:
        OutputFailure: one cannot be written.
    """
    written = []
    for structure in names:
        for which, subject, dice in best_and_worst(rows, structure):
            model = next(iter(cases[subject]))
            path = folder / f"{structure}-{which}.png"
            title = f"{subject}: {structure}, {which} of {len(cases)} by Dice of {model} ({dice:.3f})"
            save_figure(case_picture(cases[subject], structure, title), path)
            written.append(path)
    return written
