"""Pictures of translations: input, outputs and uncertainty in three planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from IMTCore.orientation import anatomical_axes
from IMTCore.volume_io import read_volume

PLANES = ("axial", "coronal", "sagittal")


def head_slice(path: Path, head: np.ndarray, plane: str) -> tuple[np.ndarray, float]:
    """A slice of the volume, cut to the head's box, and the ratio of pixel height to width.

    Args:
        path: the volume.
        head: boolean, in the volume's stored orientation [k, j, i].
        plane: axial, coronal or sagittal; the slice runs through the head's middle, sagittal ones 8 voxels beside it.
    """
    volume = read_volume(path)
    axes = anatomical_axes(volume.geometry, plane)
    mask = axes.apply(head)
    box = tuple(slice(max(seen[0] - 3, 0), seen[-1] + 4) for seen in (np.flatnonzero(mask.any(axis=a)) for a in ((0, 2), (0, 1))))
    _, height, width = axes.spacing_kji(volume.geometry)
    middle = int(np.flatnonzero(mask.any(axis=(1, 2))).mean()) + (8 if plane == "sagittal" else 0)
    return axes.apply(volume.array)[middle][box], height / width


def draw_translations(output: Path, given: Path, results: dict[str, tuple[Path, Path]]) -> None:
    """One row a plane; columns: the given image, each translation, each uncertainty (with its scale)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns: list[tuple[str, Path, str]] = [("T1, given", given, "gray")]
    columns += [(f"{target} (synthetic)", paths[0], "gray") for target, paths in results.items()]
    columns += [(f"{target} uncertainty (SD)", paths[1], "inferno") for target, paths in results.items()]
    head = read_volume(given).array > 0
    slices = {plane: head_slice(given, head, plane) for plane in PLANES}
    heights = [image.shape[0] * ratio / image.shape[1] for image, ratio in slices.values()]
    width = 2.6
    figure = plt.figure(figsize=(width * len(columns), width * sum(heights) + 1.1), facecolor="black")
    grid = figure.add_gridspec(
        4, len(columns), height_ratios=[*heights, 0.05], left=0.01, right=0.99, top=0.91, bottom=0.04, wspace=0.03, hspace=0.05
    )
    for column, (title, path, colours) in enumerate(columns):
        values = read_volume(path).array
        top = float(np.percentile(values[values > 0], 99.5))
        for row, plane in enumerate(PLANES):
            image, ratio = head_slice(path, head, plane)
            axes = figure.add_subplot(grid[row, column])
            shown = axes.imshow(image, cmap=colours, vmin=0, vmax=top, aspect=ratio, interpolation="bilinear")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, color="white", fontsize=12)
        if colours != "gray":
            bar = figure.colorbar(shown, cax=figure.add_subplot(grid[3, column]), orientation="horizontal")
            bar.ax.tick_params(colors="white", labelsize=8)
    figure.suptitle("IMT: translated images are synthetic. For research, not for diagnosis.", color="white", fontsize=11)
    figure.savefig(output, dpi=100, facecolor="black")
    plt.close(figure)
