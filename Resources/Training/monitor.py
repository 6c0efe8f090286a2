"""Pictures of one slice during training: what it is now, and how it came to be (Avula, Figs. 14 and 15)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from experiment import Config
from losses import AIR
from prediction import translate_slices
from training_data import Pair

from IMTCore.errors import BadInput
from IMTCore.files import whole_file

ERROR_LIMIT = 0.5  # a wider error, as a share of the range, has the colour of this one
ERROR_COLOURS = "RdBu_r"  # red and blue, told apart by every kind of colour vision
MAX_KEPT, MAX_SHOWN = 64, 8


class Monitor:
    """Draws a fixed slice at intervals.

    Writes into `folder`: `step-NNNNNNNN.png` (input, prediction, truth, error map, losses), `progress.png` (the slice
    through training) and `predictions.npz` (what the latter is drawn from).

    Args:
        folder: for the pictures.
        pair: the subject shown; its usable slice with most of a head.
        config: the experiment.
        resumed_at: pictures of later steps are forgotten.
    """

    def __init__(self, folder: Path, pair: Pair, config: Config, resumed_at: int = 0) -> None:
        self.folder, self.pair, self.config = folder, pair, config
        target = next(target for target in config.targets if target in pair.targets)
        self.target, self.channel = target, config.targets.index(target)
        usable = np.flatnonzero(pair.usable[target])
        self.slice = int(usable[(pair.source.images[usable] > AIR).sum(axis=(1, 2)).argmax()])
        self.box = shown_box(np.maximum(pair.source.images[self.slice], pair.targets[target][self.slice]) > AIR)
        self.kept: dict[int, np.ndarray] = {}
        stored = folder / "predictions.npz"
        if resumed_at and stored.exists():
            with np.load(stored, allow_pickle=False) as file:
                self.kept = {int(n): file[n] for n in file.files if int(n) <= resumed_at}

    def draw(self, generator: nn.Module, step: int, losses: Mapping[str, float]) -> np.ndarray:
        """Write the pictures of this step; the strip (input, prediction, truth) [rows, columns] in 0 to 1.

        Raises:
            OutputFailure: if they cannot be written.
        """
        pair, k = self.pair, self.slice
        made = translate_slices(generator, pair, [k])[0, self.channel]
        images = [pair.source.images[k], made, pair.targets[self.target][k].astype(np.float32)]
        given, made, truth = ((np.clip(image, -1, 1) + 1) / 2 for image in images)
        self.kept[step] = np.round(255 * made).astype(np.uint8)
        while len(self.kept) > MAX_KEPT:  # every second one, and the last
            steps = sorted(self.kept)
            self.kept = {n: self.kept[n] for n in {*steps[::2], steps[-1]}}
        with whole_file(self.folder / "predictions.npz") as temporary:
            np.savez_compressed(temporary, **{str(n): image for n, image in sorted(self.kept.items())})
        title = f"{pair.name}, {pair.source.spec.plane} slice {k}, step {step}"
        shown = [image[self.box] for image in (given, made, truth)]
        _save(snapshot(*shown, self.config.source, self.target, title, losses), self.folder / f"step-{step:08d}.png")
        kept = {n: image[self.box] for n, image in self.kept.items()}
        _save(progress_strip(kept, shown[2], self.target, f"{pair.name}, slice {k}"), self.folder / "progress.png")
        return np.concatenate([given, made, truth], axis=1)


def shown_box(head: np.ndarray, margin: int = 6) -> tuple[slice, slice]:
    """The part of a slice [rows, columns] around the head that pictures show."""
    ranges = []
    for axis in (1, 0):
        filled = np.flatnonzero(head.any(axis=axis))
        low, high = (filled[0], filled[-1] + 1) if filled.size else (0, head.shape[1 - axis])
        ranges.append(slice(max(int(low) - margin, 0), int(high) + margin))
    return ranges[0], ranges[1]


def snapshot(
    given: np.ndarray, made: np.ndarray, truth: np.ndarray, source: str, target: str, title: str, losses: Mapping[str, float]
) -> Any:
    """A figure of input, prediction, truth and signed error of one slice [rows, columns] in 0 to 1."""
    from matplotlib.figure import Figure

    shape = given.shape[0] / given.shape[1]
    figure = Figure(figsize=(13, 2.7 * shape + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, 4)
    for axis, image, name in zip(axes, (given, made, truth), (f"Input {source}", f"Predicted {target}", f"True {target}"), strict=False):
        shown = axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=10)
    figure.colorbar(shown, ax=axes[2], fraction=0.046, label="Intensity (share of range)")
    error = made - truth
    shown = axes[3].imshow(error, cmap=ERROR_COLOURS, vmin=-ERROR_LIMIT, vmax=ERROR_LIMIT, interpolation="nearest")
    axes[3].set_title(f"Error, MAE in view {np.abs(error).mean():.4f}", fontsize=10)
    figure.colorbar(shown, ax=axes[3], fraction=0.046, extend="both", label="Predicted - true (share of range)")
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.supxlabel("Mean losses since the last report: " + ", ".join(f"{n} {v:.4g}" for n, v in losses.items()), fontsize=10)
    return figure


def progress_strip(kept: Mapping[int, np.ndarray], truth: np.ndarray, target: str, name: str) -> Any:
    """A figure of the kept predictions {step: [rows, columns] 0 to 255}, from first to last, and the truth."""
    from matplotlib.figure import Figure

    steps = sorted(kept)
    chosen = [steps[n] for n in np.unique(np.linspace(0, len(steps) - 1, min(MAX_SHOWN, len(steps))).round().astype(int))]
    columns = len(chosen) + 1
    figure = Figure(figsize=(1.7 * columns, 1.65 * truth.shape[0] / truth.shape[1] + 0.6), layout="constrained")
    figure.suptitle(f"{name}: predicted {target} through training", fontsize=11)
    images = [kept[n] / 255 for n in chosen] + [truth]
    for axis, image, label in zip(
        figure.subplots(1, columns, squeeze=False)[0], images, [f"step {n}" for n in chosen] + [f"true {target}"], strict=True
    ):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(label, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def _save(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


class Board:
    """TensorBoard's scalars and pictures of a run.

    Args:
        folder: for its files.
        resumed_at: what was written of later steps is dropped.

    Raises:
        BadInput: if the package tensorboard is missing.
    """

    def __init__(self, folder: Path, resumed_at: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BadInput(f"--tensorboard needs the package tensorboard ({error}): pip install tensorboard.") from error
        self._writer = SummaryWriter(str(folder), purge_step=resumed_at + 1 if resumed_at else None)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Numbers under `group/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """A grey picture [rows, columns] in 0 to 1."""
        self._writer.add_image(name, image, step, dataformats="HW")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
