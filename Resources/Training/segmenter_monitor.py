"""Pictures of one slice during a segmenter's training: its images, the truth and the prediction (as Avula, Fig. 14, shows a translator)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from case_pictures import save_figure
from monitor import shown_box
from segmenter_config import SegmenterConfig
from segmenter_data import Example
from segmenter_validation import probabilities_of

from IMTCore.label_names import default_label

OPACITY = 0.55


class SegmenterMonitor:
    """Draws a fixed slice at intervals into `folder`: `step-NNNNNNNN.png`.

    Args:
        folder: for the pictures.
        example: the subject shown; its slice with most labelled pixels.
        config: the training.
    """

    def __init__(self, folder: Path, example: Example, config: SegmenterConfig) -> None:
        self.folder, self.config = folder, config
        n = int((example.classes > 0).sum(axis=(1, 2)).argmax())
        self.title, self.images, self.truth = f"{example.name}, {example.plane}", example.images[n].astype(np.float32), example.classes[n]

    def draw(self, network: nn.Module, step: int, losses: Mapping[str, float]) -> np.ndarray:
        """Write the picture of this step; the prediction [rows, columns] uint8.

        Raises:
            OutputFailure: if it cannot be written.
        """
        config = self.config
        channels = self.images[[config.images.index(channel) for channel in config.channels]]
        found = probabilities_of(network, channels[None])[0].argmax(0).astype(np.uint8)
        names = [config.given, f"{config.second} ({config.second_from})"][: len(config.images)]
        box = shown_box(self.images[0] > -0.8)
        panels = [(name, image[box], None) for name, image in zip(names, self.images, strict=True)]
        panels += [("Truth", self.images[0][box], self.truth[box]), ("Prediction", self.images[0][box], found[box])]
        text = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        save_figure(_figure(panels, config.names, f"{self.title}, step {step}", text), self.folder / f"step-{step:08d}.png")
        return found


def _figure(panels: list[tuple[str, np.ndarray, np.ndarray | None]], names: list[str], title: str, text: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shape = panels[0][1].shape
    figure = Figure(figsize=(3.1 * len(panels), 3.1 * shape[0] / shape[1] + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axis, (name, image, classes) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axis.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        if classes is not None:
            axis.imshow(overlay(classes, len(names)), interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    patches = [Patch(color=np.array(default_label(number).colour) / 255, label=name) for number, name in enumerate(names, start=1)]
    figure.legend(handles=patches, loc="outside right upper", fontsize=9)
    figure.supxlabel(f"Means since the last report: {text}", fontsize=10)
    return figure


def overlay(classes: np.ndarray, number: int) -> np.ndarray:
    """Classes [rows, columns] as colours with opacity [rows, columns, 4] in 0 to 1; the background is clear."""
    colours = np.zeros((number + 1, 4))
    for n in range(1, number + 1):
        colours[n] = [*(np.array(default_label(n).colour) / 255), OPACITY]
    return colours[classes]
