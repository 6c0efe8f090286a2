"""What a segmentation gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from IMTCore.cards import ModelCard
from IMTCore.label_names import LabelNames
from IMTCore.outputs import TranslationResult
from IMTCore.volume import Geometry, Volume


@dataclass(frozen=True)
class StructureStatistics:
    """Size and confidence of one structure.

    Attributes:
        code, name: of the structure.
        voxels: how many voxels have its label.
        volume_ml: their volume.
        confidence: mean probability of the label over its voxels, 0 to 1; NaN if there are none.
    """

    code: int
    name: str
    voxels: int
    volume_ml: float
    confidence: float


@dataclass(frozen=True)
class SegmentationResult:
    """A segmented volume and what a repeat needs.

    Attributes:
        labels: codes on the given image's grid, uint8, or uint16 where a code is above 255; 0 is the background.
        probabilities: [classes + 1, k, j, i] float32 in the stored order of axes; class 0 is the background; they add up to
            1 in each voxel.
        names: names and colours of the codes.
        codes: the codes of classes 1, 2, … of `probabilities`.
        second: the second image on the given image's grid, translated or real, or None.
        statistics: one a structure, in the order of the codes.
        record: model, translator, settings: what the marks say of how the labels came to be.
        seconds: time by stage.
        derived: a synthetic image took part.
        translation: the translation model and its result, if one was made.
        warnings: what was unusual, in words for the user.
    """

    labels: Volume
    probabilities: np.ndarray
    names: LabelNames
    codes: tuple[int, ...]
    second: Volume | None
    statistics: list[StructureStatistics]
    record: dict[str, Any]
    seconds: dict[str, float]
    derived: bool = False
    translation: tuple[ModelCard, TranslationResult] | None = None
    warnings: list[str] = field(default_factory=list)

    def probability(self, code: int) -> Volume:
        """The probability of one structure as a volume, float32 in [0, 1].

        Raises:
            KeyError: no such code.
        """
        if code not in self.codes:
            raise KeyError(code)
        return self.labels.with_array(self.probabilities[1 + self.codes.index(code)], f"{self.names.name_of(code)} probability")


def choose_labels(probabilities: np.ndarray, codes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of each voxel; of equal ones the first.

    Args:
        probabilities: [classes + 1, k, j, i], class 0 the background.
        codes: of classes 1, 2, ….

    Returns:
        Label codes [k, j, i], uint8 or, for codes above 255, uint16; and their probability, float32.
    """
    best = probabilities[0].copy()
    labels = np.zeros(best.shape, np.uint8 if max(codes) <= 255 else np.uint16)
    for code, probability in zip(codes, probabilities[1:], strict=True):
        better = probability > best
        labels[better] = code
        np.maximum(best, probability, out=best)
    return labels, best


def structure_statistics(
    labels: np.ndarray, confidence: np.ndarray, names: LabelNames, geometry: Geometry
) -> list[StructureStatistics]:
    """Voxels, volume and mean confidence of each named structure.

    Args:
        labels: codes [k, j, i] on `geometry`.
        confidence: probability of each voxel's label, of the same shape.
    """
    voxel_ml = float(np.prod(geometry.spacing_mm)) / 1000
    found = []
    for code, entry in names.items():
        inside = labels == code
        voxels = int(np.count_nonzero(inside))
        mean = float(confidence[inside].mean(dtype=np.float64)) if voxels else float("nan")
        found.append(StructureStatistics(code, entry.name, voxels, voxels * voxel_ml, mean))
    return found
