"""Pictures of slices: input, prediction, truth and signed error side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from case_volumes import Case
from monitor import ERROR_COLOURS, ERROR_LIMIT, shown_box

from IMTCore.files import whole_file

DOTS_PER_INCH = 120


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all. Raises OutputFailure."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def draw_slice(figure: Any, case: Case, prediction: np.ndarray, k: int, title: str, box: tuple[slice, slice]) -> list[Any]:
    """Draw input, prediction, truth and signed error of slice k side by side on a (sub)figure, cut to `box`; its four axes.

    Data coordinates are the slice's pixels (x is i, y is j), also after the cut.
    """
    figure.suptitle(title, fontsize=11)
    axes = list(figure.subplots(1, 4))
    error = prediction[k] - case.truth[k]
    images = (case.given[k], prediction[k], case.truth[k], error)
    names = (f"Input {case.source}", f"Predicted {case.target}", f"True {case.target}", "Signed error")
    rows, columns = box
    extent = (columns.start - 0.5, columns.start + case.truth[k][box].shape[1] - 0.5)
    extent += (rows.start + case.truth[k][box].shape[0] - 0.5, rows.start - 0.5)
    aspect = case.spacing_kji[1] / case.spacing_kji[2]
    for n, (axis, image, name) in enumerate(zip(axes, images, names, strict=True)):
        signed = n == 3
        colours, low, high = (ERROR_COLOURS, -ERROR_LIMIT, ERROR_LIMIT) if signed else ("gray", 0, 1)
        shown = axis.imshow(image[box], cmap=colours, vmin=low, vmax=high, extent=extent, aspect=aspect, interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        if n >= 2:
            label = "Predicted - true" if signed else "Share of range"
            bar = figure.colorbar(shown, ax=axis, fraction=0.046, extend="both" if signed else "neither")
            bar.set_label(label, fontsize=9)
            bar.ax.tick_params(labelsize=8)
    return axes


def rows_figure(case_boxes: Sequence[tuple[Case, tuple[slice, slice]]]) -> tuple[Any, list[Any]]:
    """A figure with a subfigure for each (case, part of the slice shown), as high as the part needs."""
    from matplotlib.figure import Figure

    heights = []
    for case, (rows, columns) in case_boxes:
        ratio = (rows.stop - rows.start) * case.spacing_kji[1] / ((columns.stop - columns.start) * case.spacing_kji[2])
        heights.append(2.75 * ratio + 0.75)
    figure = Figure(figsize=(12.8, sum(heights)), layout="constrained")
    return figure, list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])


def head_box(case: Case, k: int | None = None, also: tuple[int, int] | None = None) -> tuple[slice, slice]:
    """The part of slice k, or of every slice, that holds the head of the case, and the pixel (j, i) of `also`."""
    shown = (case.head[case.kept].any(axis=0) if k is None else case.head[k]).copy()
    if also is not None:
        shown[also] = True
    rows, columns = shown_box(shown)
    height, width = case.truth.shape[1:]
    return slice(rows.start, min(rows.stop, height)), slice(columns.start, min(columns.stop, width))
