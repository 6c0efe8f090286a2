"""Where not to trust a translation: where the model is unsure, and where the input is unlike its training images.

A label map with four kinds of voxel: nothing to say (0), unsure, very unsure (the calibrated 90 % interval is wide against
the range of tissue), and outside the training range (an intensity in a neighbourhood that hardly occurred in training).
A tumour like those in training is not outside the training range, and a model that errs may be sure: see the cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .contrast import box_sum
from .label_names import LabelName, LabelNames

UNSURE, VERY_UNSURE, OUTSIDE = 1, 2, 3
KINDS = {UNSURE: "unsure", VERY_UNSURE: "very unsure", OUTSIDE: "outside the training range"}
MANY_OUTSIDE = 0.06  # of the head; 0.2 to 3.7 % in the held-out patients
BINS = 24
REACH_MM = 4.0  # the neighbourhood: a box that reaches so far from its voxel
INSIDE, BEYOND = "#", "."  # in a card's rows of bins


@dataclass(frozen=True)
class TrustLimits:
    """What a card says of the limits.

    Attributes:
        tissue_range: between the dark and the bright tissue of the target, in the output's units.
        unsure, very_unsure: half-widths of the 90 % interval over the tissue range.
        inside: boolean (`BINS`, `BINS`): pairs of a voxel's normalised intensity (first axis) and its neighbourhood's
            mean (second) that occurred in training.
    """

    tissue_range: float
    unsure: float
    very_unsure: float
    inside: np.ndarray

    @classmethod
    def of_card(cls, content: dict[str, Any]) -> TrustLimits | None:
        """The limits on a checked card (its whole content), or None if it lacks them."""
        uncertainty, trained = content.get("uncertainty"), content.get("training_range")
        if uncertainty is None or trained is None:
            return None
        inside = np.array([[mark == INSIDE for mark in row] for row in trained["neighbourhood"]])
        unsure, very_unsure = (float(value) for value in uncertainty["thresholds"])
        return cls(float(uncertainty["tissue_range"]), unsure, very_unsure, inside)

    def names(self) -> LabelNames:
        """The legend: names and colours."""
        return LabelNames(
            [
                LabelName(UNSURE, KINDS[UNSURE], (250, 200, 60)),
                LabelName(VERY_UNSURE, KINDS[VERY_UNSURE], (225, 85, 40)),
                LabelName(OUTSIDE, KINDS[OUTSIDE], (150, 60, 200)),
            ]
        )


def neighbourhood_bins(image: np.ndarray, spacing: np.ndarray, foreground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bins of every voxel's intensity and of the mean round it.

    Args:
        image: normalised to 0 (air) to 1, [k, j, i].
        spacing: (3,) mm along k, j, i.
        foreground: boolean [k, j, i]; only these voxels count for the means.

    Returns:
        Two arrays [k, j, i] of integers from 0 to `BINS` − 1.
    """
    reach = np.round(REACH_MM / np.asarray(spacing)).astype(int)
    weight = foreground.astype(np.float32)
    mean = box_sum(image * weight, reach) / np.maximum(box_sum(weight, reach), 1)
    return tuple(np.clip((values * BINS).astype(int), 0, BINS - 1) for values in (image, mean))  # type: ignore[return-value]


def trust_map(
    half_width: np.ndarray, image: np.ndarray, spacing: np.ndarray, foreground: np.ndarray, limits: TrustLimits
) -> np.ndarray:
    """The label map, [k, j, i] uint8: 0 and the codes above; "outside the training range" goes before the others.

    Args:
        half_width: of the calibrated 90 % interval, in the output's units, [k, j, i].
        image, spacing, foreground: of the input, as in `neighbourhood_bins`.
    """
    share = half_width / limits.tissue_range
    found = np.where(share > limits.very_unsure, VERY_UNSURE, np.where(share > limits.unsure, UNSURE, 0)).astype(np.uint8)
    found[~limits.inside[neighbourhood_bins(image, spacing, foreground)]] = OUTSIDE
    found[~foreground] = 0
    return found


def shares(found: np.ndarray, head: np.ndarray) -> dict[str, float]:
    """For each kind of doubt, its share of the voxels of `head`, a boolean array of the map's shape."""
    kinds = found[head]
    return {name: round(float((kinds == code).mean()) if kinds.size else 0.0, 4) for code, name in KINDS.items()}


def outside_warning(found: dict[str, float], name: str, model: str) -> list[str]:
    """A warning in words, if more of the head is outside the training range than in any image that the models were checked on."""
    share = found[KINDS[OUTSIDE]]
    if share <= MANY_OUTSIDE:
        return []
    return [f"{share:.0%} of the head in {name} are outside the range of what model {model} was trained on: do not trust it there (see the trust map)."]
