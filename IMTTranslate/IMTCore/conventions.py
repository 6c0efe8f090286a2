"""One prediction scored under the conventions of several publications, so that numbers can be compared with theirs.

Each convention says how both images are scaled, over which pixels, slice by slice or over the volume, with which peak
the PSNR and with which window the SSIM are computed. The same prediction differs by many dB between them.

Sources: Yang et al. 2020 (Evaluation metrics, Eq. 6 to 9); SelfRDB (icon-lab, `utils.py`); SynDiff (icon-lab,
`test.py`); BraSyn (Li et al. 2023, arXiv 2305.09011, with its published `ssim.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from .errors import BadInput
from .intensity import background_value, foreground_mask
from .metrics import check_pair, entropies, mae, psnr, scaled_prediction, unit_scaled
from .structural_similarity import global_ssim, ssim, volume_ssim

MIN_SLICE_SHARE = 0.01
BRASYN_PERCENTILES = (0.5, 99.5)
SWEEP_BINS = (32, 64, 128, 256)

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Convention:
    """How a score is computed.

    Attributes:
        name: as printed.
        source: who uses it.
        scaling: a key of `SCALINGS`.
        per: "slice" (the mean of the scores of the slices with foreground) or "volume" (all voxels at once).
        region: "image" (background included), "mask", or "masked" (both images set to 0 outside of the mask after
            scaling, and scored inside it).
        peak: of the PSNR: a number, "pair" (the larger maximum of the two images), "truth" (the truth's maximum) or
            "span" (the truth's maximum minus its minimum).
        window: of the SSIM: "global" (none), "uniform" (7×7), "gaussian" (11×11) or "gaussian 3D" (11×11×11).
        ssim_range: the SSIM's data range; None takes the peak.
    """

    name: str
    source: str
    scaling: str
    per: str
    region: str
    peak: float | str
    window: str
    ssim_range: float | None = None

    def describe(self) -> str:
        """One sentence."""
        peaks = {"pair": "larger maximum of the two images", "truth": "truth's maximum", "span": "truth's maximum minus minimum"}
        peak = peaks.get(self.peak, self.peak) if isinstance(self.peak, str) else f"{self.peak:g}"
        regions = {"image": "background included", "mask": "the mask's voxels", "masked": "0 outside of the mask, scored inside"}
        extent = {"slice": "mean over slices", "volume": "all voxels at once"}[self.per]
        scale = "" if self.ssim_range is None else f", range {self.ssim_range:g}"
        return f"{self.source}: {SCALINGS[self.scaling][0]}; {extent}, {regions[self.region]}; peak {peak}; SSIM {self.window}{scale}"


def nonnegative(image: np.ndarray) -> np.ndarray:
    """`image` as float64 with a negative background (z-scored images) moved to 0 and nothing below 0."""
    background = background_value(image)
    return np.maximum(image.astype(np.float64) - min(background or 0.0, 0.0), 0)


def _eight_bit(truth: np.ndarray, prediction: np.ndarray, top: float | None) -> Pair:
    return np.rint(255 * unit_scaled(truth)), np.rint(255 * scaled_prediction(prediction, top))


def _min_max(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    image = image.astype(np.float64)
    low, high = image.min(axis=axes, keepdims=True), image.max(axis=axes, keepdims=True)
    return (image - low) / np.where(high > low, high - low, 1)


def _divided(image: np.ndarray, statistic: Callable[..., np.ndarray]) -> np.ndarray:
    """Each slice divided by its own mean or maximum; a slice of zeros stays so (SelfRDB's code drops it from the mean)."""
    image = nonnegative(image)
    by = statistic(image, axis=(1, 2), keepdims=True)
    return image / np.where(by > 0, by, 1)


def _percentile_clipped(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, BRASYN_PERCENTILES)
    low = max(float(low), 0.0)
    if high <= low:
        raise BadInput("An image whose 99.5th percentile, air included, is not above 0 cannot be scaled as BraSyn does.")
    return (np.clip(image.astype(np.float64), low, high) - low) / (high - low)


# name → (in words, function of truth, prediction and the top of the prediction's output range or None)
SCALINGS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray, float | None], Pair]]] = {
    "8 bit": ("0-1 as in scaling range (p99.5 if the range is not known), times 255, whole numbers as in an image file", _eight_bit),
    "range": (
        "truth by its 99.5th foreground percentile, prediction by the top of its output range, clipped to 0-1",
        lambda t, p, top: (unit_scaled(t), scaled_prediction(p, top)),
    ),
    "p99.5": (
        "each image by its 99.5th foreground percentile, clipped to 0-1",
        lambda t, p, _: (unit_scaled(t), unit_scaled(p)),
    ),
    "none": ("as stored", lambda t, p, _: (t, p)),
    "min-max slice": (
        "each slice of each image from its minimum (0) to its maximum (1)",
        lambda t, p, _: (_min_max(t, (1, 2)), _min_max(p, (1, 2))),
    ),
    "min-max volume": (
        "each volume from its minimum (0) to its maximum (1)",
        lambda t, p, _: (_min_max(t, (0, 1, 2)), _min_max(p, (0, 1, 2))),
    ),
    "mean slice": (
        "each slice of each image divided by its own mean, which hides an error of gain",
        lambda t, p, _: (_divided(t, np.mean), _divided(p, np.mean)),
    ),
    "maximum slice": (
        "each slice of each image divided by its own maximum, which hides an error of gain",
        lambda t, p, _: (_divided(t, np.max), _divided(p, np.max)),
    ),
    "percentile volume": (
        "each volume clipped to its 0.5th (at least 0) and 99.5th percentile, air included, and scaled to 0-1",
        lambda t, p, _: (_percentile_clipped(t), _percentile_clipped(p)),
    ),
}

NAMED_CONVENTIONS = (
    Convention("paper", "Yang et al. 2020 as printed", "8 bit", "slice", "image", "pair", "global", 255.0),
    Convention("paper-255", "Yang et al. 2020 with 255 as MAX", "8 bit", "slice", "image", 255.0, "gaussian"),
    Convention("paper-mask", "the same without background", "8 bit", "slice", "mask", 255.0, "gaussian"),
    Convention("slice-0-1", "0-1 per slice", "min-max slice", "slice", "image", 1.0, "uniform"),
    Convention("volume-0-1", "0-1 per volume", "min-max volume", "volume", "image", 1.0, "gaussian 3D"),
    Convention("volume-0-1-mask", "the same without background", "min-max volume", "volume", "mask", 1.0, "gaussian 3D"),
    Convention("mean-normalised", "SelfRDB", "mean slice", "slice", "image", "truth", "uniform"),
    Convention("max-normalised", "SynDiff", "maximum slice", "slice", "image", 1.0, "uniform"),
    Convention("brasyn", "BraSyn", "percentile volume", "volume", "masked", 1.0, "gaussian 3D"),
    Convention("range", "IMT", "range", "volume", "image", 1.0, "uniform"),
    Convention("range-mask", "IMT", "range", "volume", "mask", 1.0, "uniform"),
    Convention("p99.5", "IMT", "p99.5", "volume", "image", 1.0, "uniform"),
    Convention("p99.5-mask", "IMT", "p99.5", "volume", "mask", 1.0, "uniform"),
    Convention("none", "IMT", "none", "volume", "image", "span", "uniform"),
    Convention("none-mask", "IMT", "none", "volume", "mask", "span", "uniform"),
)


@dataclass(frozen=True)
class ConventionScores:
    """Scores of one prediction under one convention.

    Attributes:
        convention: its name.
        mae: in the units of its scaling.
        psnr: dB; infinite for equal images (in one slice, if slices are averaged).
        ssim: −1 to 1; NaN where the image is smaller than the window.
        mi: mutual information, 256 bins over each image's (or slice's) own range, nats.
        nmi: normalised mutual information, 1 to 2.
        slices: how many slices were scored.
    """

    convention: str
    mae: float
    psnr: float
    ssim: float
    mi: float
    nmi: float
    slices: int

    @property
    def mi_bits(self) -> float:
        """Mutual information in bits."""
        return self.mi / math.log(2)

    def record(self) -> dict[str, float | str]:
        """As a dictionary, with the mutual information in bits too."""
        return {**asdict(self), "mi_bits": self.mi_bits}


def evaluate_conventions(
    truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None, prediction_top: float | None = None
) -> list[ConventionScores]:
    """Score a prediction under every published convention that applies.

    Slices count where the truth's foreground covers at least 1 % of them. (Most sources choose slices and do not say how.)

    Args:
        truth, prediction: [k, j, i] in axial orientation, same grid.
        mask: boolean [k, j, i]; None takes the truth's foreground.
        prediction_top: the top of the prediction's output range, if it is known; without, "range" is left out.

    Returns:
        One entry for each of `NAMED_CONVENTIONS`, in their order.

    Raises:
        BadInput: as `metrics.evaluate`, or if no slice has foreground.
    """
    region = check_pair(truth, prediction, mask)
    share = foreground_mask(truth, background_value(truth)).mean(axis=(1, 2))
    slices = np.flatnonzero(share >= MIN_SLICE_SHARE)
    if not slices.size:
        raise BadInput("On no slice does the truth's foreground cover 1 %: there is nothing to average over.")
    results = []
    scaled: dict[str, Pair] = {}
    for convention in NAMED_CONVENTIONS:
        if convention.scaling == "range" and prediction_top is None:
            continue
        if convention.scaling not in scaled:
            scaled = {convention.scaling: SCALINGS[convention.scaling][1](truth, prediction, prediction_top)}  # one at a time
        x, y = scaled[convention.scaling]
        if convention.region == "masked":
            x, y = np.where(region, x, 0), np.where(region, y, 0)
        where = None if convention.region == "image" else region
        results.append(_score(convention, x, y, where, slices))
    return results


def psnr_spread(scores: list[ConventionScores]) -> tuple[ConventionScores, ConventionScores, float]:
    """The conventions with the lowest and the highest finite PSNR, and the difference in dB (0 if none is finite)."""
    finite = [score for score in scores if math.isfinite(score.psnr)] or scores
    low, high = min(finite, key=lambda s: s.psnr), max(finite, key=lambda s: s.psnr)
    return low, high, high.psnr - low.psnr if math.isfinite(high.psnr) else 0.0


def bins_sweep(truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None) -> dict[int, tuple[float, float]]:
    """(MI in nats, NMI) for 32, 64, 128 and 256 bins over each image's own range: the papers do not state theirs."""
    result = {}
    for bins in SWEEP_BINS:
        own_truth, own_prediction, joint = entropies(truth, prediction, bins, mask)
        result[bins] = own_truth + own_prediction - joint, _normalised(own_truth, own_prediction, joint)
    return result


def _normalised(own_truth: float, own_prediction: float, joint: float) -> float:
    return (own_truth + own_prediction) / joint if joint > 0 else 2.0


def _score(convention: Convention, x: np.ndarray, y: np.ndarray, where: np.ndarray | None, slices: np.ndarray) -> ConventionScores:
    """One convention's scores of scaled images [k, j, i]."""
    if convention.per == "volume":
        kept = len(x) if where is None else int(where.any(axis=(1, 2)).sum())
        return ConventionScores(convention.name, *_measures(convention, x, y, where), kept)
    kept = [k for k in slices if where is None or where[k].any()]
    if not kept:
        raise BadInput("The mask holds no voxel on the slices where the truth has foreground: there is nothing to compare.")
    rows = [_measures(convention, x[k : k + 1], y[k : k + 1], None if where is None else where[k : k + 1]) for k in kept]
    with_ssim = [row[2] for row in rows if not math.isnan(row[2])]  # a mask may hold no whole window on a slice
    means = np.mean(rows, axis=0)
    return ConventionScores(
        convention.name, *map(float, means[:2]), float(np.mean(with_ssim)) if with_ssim else float("nan"), *map(float, means[3:]), len(kept)
    )


def _measures(convention: Convention, x: np.ndarray, y: np.ndarray, where: np.ndarray | None) -> tuple[float, ...]:
    """MAE, PSNR, SSIM, MI and NMI of scaled images [k, j, i]."""
    peaks = {"pair": lambda: max(x.max(), y.max()), "truth": lambda: x.max(), "span": lambda: float(x.max()) - float(x.min())}
    peak = float(peaks[convention.peak]()) if isinstance(convention.peak, str) else convention.peak
    own_truth, own_prediction, joint = entropies(x, y, mask=where)
    return (
        mae(x, y, where),
        psnr(x, y, peak, where),
        _ssim(convention, x, y, peak if convention.ssim_range is None else convention.ssim_range, where),
        own_truth + own_prediction - joint,
        _normalised(own_truth, own_prediction, joint),
    )


def _ssim(convention: Convention, x: np.ndarray, y: np.ndarray, data_range: float, where: np.ndarray | None) -> float:
    """The convention's SSIM, NaN where the image is smaller than its window."""
    if convention.window == "global":
        return global_ssim(x, y, data_range, where)
    try:
        if convention.window == "gaussian 3D":
            return volume_ssim(x, y, data_range, where)
        return ssim(x, y, data_range, where, convention.window)
    except BadInput:
        return float("nan")
