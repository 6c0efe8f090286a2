"""Calibrated uncertainty: from the deviation between noise samples to intervals that hold on patients the model never saw.

The samples' deviation is too small (methods of this kind know only a part of their doubt: Gal, Ghahramani, ICML 2016), but
it ranks voxels. A power law brings it to the size of the errors of held-out patients, and their quantiles give intervals
(split conformal prediction with normalised residuals: Lei et al., JASA 113, 2018), with each patient of the same weight.
`Resources/Training/calibrate_uncertainty.py` fits and checks it; a model's card holds it under `uncertainty`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LEVELS = (0.5, 0.68, 0.9, 0.95)  # coverages for which a card holds interval widths
NORMAL_90 = 1.6449  # half of the normal distribution's 90 % interval, in standard deviations


@dataclass(frozen=True)
class Calibration:
    """How large the error is where the samples deviate by so much. All in the units of the model's output.

    Attributes:
        exponent, floor: the scale of the error is (deviation + floor) ** exponent.
        widths: level -> the interval's half-width over that scale.
        samples: the number of noise samples at which it was fitted; with fewer it does not hold.
        planes: the planes whose translations were averaged; it holds for these only.
    """

    exponent: float
    floor: float
    widths: dict[float, float]
    samples: int
    planes: tuple[str, ...]

    @classmethod
    def of_card(cls, content: dict[str, Any]) -> Calibration | None:
        """The calibration on a checked card (its whole content), or None if it has none."""
        values = content.get("uncertainty")
        if values is None:
            return None
        widths = dict(zip(LEVELS, (float(width) for width in values["widths"]), strict=True))
        return cls(float(values["exponent"]), float(values["floor"]), widths, int(values["samples"]), tuple(values["planes"]))

    def scale(self, deviation: np.ndarray) -> np.ndarray:
        """The scale of the error, of the shape of `deviation` (0 or more)."""
        return (deviation + np.float32(self.floor)) ** np.float32(self.exponent)

    def half_width(self, deviation: np.ndarray, level: float = 0.9) -> np.ndarray:
        """Half of the interval round the translation that holds the truth with probability `level`, one of `LEVELS`."""
        return np.float32(self.widths[level]) * self.scale(deviation)

    def calibrated(self, deviation: np.ndarray) -> np.ndarray:
        """The deviation scaled so that translation ± 1.645 × it holds the truth in 90 % of the voxels of a patient, on average."""
        return self.half_width(deviation) / np.float32(NORMAL_90)

    def why_not(self, samples: int, planes: tuple[str, ...], noise_on: bool) -> str:
        """Why it does not hold for a run, in words; empty if it does.

        Args:
            samples: the run's number of noise samples.
            planes: the planes that it translated.
            noise_on: whether the translation itself was made with the noise on.
        """
        if samples < self.samples:
            return f"it was calibrated with {self.samples} samples, and here are {samples}"
        if tuple(planes) != self.planes:
            return f"it was calibrated for the mean of {len(self.planes)} planes, and here it is {' and '.join(planes)} alone"
        return "it was calibrated for translations without noise" if noise_on else ""


def fit_power_law(deviations: list[np.ndarray], errors: list[np.ndarray], floor: float, softening: float) -> float:
    """The exponent of the power law, by least squares on logarithms, each patient of the same weight.

    It is not below 0: where more deviation goes with less error, the deviation tells nothing, and all intervals are alike.

    Args:
        deviations: of each patient, (n,) deviations between samples, of their number n.
        errors: of each patient, (n,) |translation − truth|.
        floor: added to the deviations. softening: added to the errors, so that a chance hit does not count for much.
    """
    moments = np.zeros((2, 2)), np.zeros(2)
    for deviation, error in zip(deviations, errors, strict=True):
        x = np.stack([np.ones(len(deviation)), np.log(deviation + floor)])
        moments[0][:] += x @ x.T / len(deviation)
        moments[1][:] += x @ np.log(error + softening) / len(deviation)
    return max(float(np.linalg.solve(*moments)[1]), 0.0)


def pooled_quantile(ratios: list[np.ndarray], level: float) -> float:
    """The quantile of all patients' values together, each patient of the same weight."""
    values = np.concatenate(ratios)
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in ratios])
    order = np.argsort(values)
    place = np.searchsorted(np.cumsum(weights[order]), level * len(ratios))
    return float(values[order][min(place, len(values) - 1)])


def fit_calibration(
    deviations: list[np.ndarray], errors: list[np.ndarray], floor: float, softening: float, samples: int, planes: tuple[str, ...]
) -> Calibration:
    """Fit a calibration to patients that the model never saw; arguments as in `fit_power_law` and `Calibration`."""
    exponent = fit_power_law(deviations, errors, floor, softening)
    plain = Calibration(exponent, floor, {}, samples, planes)
    ratios = [error / plain.scale(deviation) for deviation, error in zip(deviations, errors, strict=True)]
    return Calibration(exponent, floor, {level: pooled_quantile(ratios, level) for level in LEVELS}, samples, planes)


def interval_score(half_width: np.ndarray, errors: np.ndarray, level: float) -> float:
    """Gneiting and Raftery's interval score (JASA 102, 2007), the mean over voxels: width, and a penalty for each miss; less is better."""
    return float(np.mean(2 * half_width + 2 / (1 - level) * np.maximum(errors - half_width, 0)))
