"""Image similarity, and the conventions that IMT scores by (Yang et al. 2020, Evaluation metrics; Wang et al. 2004).

A number without its convention says nothing: published PSNRs of the same task differ by many dB through scaling
alone. Every function states its scale, and `evaluate` returns it with the numbers. `conventions` has those of others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from .errors import BadInput
from .intensity import background_value, foreground_mask
from .structural_similarity import ssim

MI_BINS = 256
PERCENTILE = 99.5


def mae(truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean absolute error, in the images' units, over `mask` (boolean) or everything."""
    difference = np.abs(truth.astype(np.float64) - prediction.astype(np.float64))
    return float(difference.mean() if mask is None else difference[mask].mean())


def psnr(truth: np.ndarray, prediction: np.ndarray, data_range: float, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 10·log10(range² / MSE); infinite for equal images."""
    squares = (truth.astype(np.float64) - prediction.astype(np.float64)) ** 2
    error = float(squares.mean() if mask is None else squares[mask].mean())
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def entropies(
    truth: np.ndarray, prediction: np.ndarray, bins: int = MI_BINS, mask: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Entropies of the truth, of the prediction, and of both together: nats, `bins` equal bins over each image's own range."""
    x, y = ((image.ravel() if mask is None else image[mask]).astype(np.float64) for image in (truth, prediction))
    joint = np.histogram2d(x, y, bins)[0] / x.size

    def entropy(shares: np.ndarray) -> float:
        filled = shares[shares > 0]
        return float(-(filled * np.log(filled)).sum())

    return entropy(joint.sum(axis=1)), entropy(joint.sum(axis=0)), entropy(joint)


def mutual_information(truth: np.ndarray, prediction: np.ndarray, bins: int = MI_BINS, mask: np.ndarray | None = None) -> float:
    """Mutual information in nats (Yang et al. 2020, Eq. 8); divide by log 2 for bits. Bins as `entropies`.

    The paper states neither bins nor unit. More bins give a higher value, most of all on few voxels.
    """
    own_truth, own_prediction, joint = entropies(truth, prediction, bins, mask)
    return own_truth + own_prediction - joint


def normalised_mutual_information(
    truth: np.ndarray, prediction: np.ndarray, bins: int = MI_BINS, mask: np.ndarray | None = None
) -> float:
    """(H(truth) + H(prediction)) / H(both): 1 (independent) to 2 (one determines the other), as Studholme et al. 1999.

    scikit-image's `normalized_mutual_information` is the same (with 100 bins by default). 2 for two constant images.
    """
    own_truth, own_prediction, joint = entropies(truth, prediction, bins, mask)
    return (own_truth + own_prediction) / joint if joint > 0 else 2.0


def gradient_energy(image: np.ndarray, mask: np.ndarray | None = None, spacing_ji: tuple[float, float] = (1.0, 1.0)) -> float:
    """Mean squared in-plane gradient of an image [k, j, i], per mm² for a spacing in mm.

    Differences of neighbouring pixels that both lie in `mask` count, so that the mask's edge adds nothing. Differences
    between slices do not count: a jitter from slice to slice is not sharpness.
    """
    total = 0.0
    for axis, spacing in zip((1, 2), spacing_ji, strict=True):
        squares = (np.diff(image.astype(np.float64), axis=axis) / spacing) ** 2
        if mask is not None:
            inner = [mask.take(np.arange(start, mask.shape[axis] - 1 + start), axis) for start in (0, 1)]
            squares = squares[inner[0] & inner[1]]
        total += float(squares.mean()) if squares.size else 0.0
    return total


def sharpness(
    truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None, spacing_ji: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Gradient energy of the prediction over that of the truth, both [k, j, i] in one scale: 1 is as sharp as the real image.

    Below 1 the prediction is blurred (or low in contrast), above 1 it has texture or noise that the truth lacks. The
    truth's own noise counts as sharpness, so a good prediction of a noisy image stays below 1.

    Returns:
        0 or more; NaN if the truth is flat.
    """
    energy = gradient_energy(truth, mask, spacing_ji)
    return gradient_energy(prediction, mask, spacing_ji) / energy if energy > 0 else float("nan")


def unit_scaled(image: np.ndarray, percentile: float = PERCENTILE) -> np.ndarray:
    """`image` divided by the `percentile` of its foreground (what is not the border's mode), clipped to 0–1.

    Negative backgrounds (z-scored images) are moved to 0 first.

    Raises:
        BadInput: if there is no foreground or its percentile is not above the background.
    """
    background = background_value(image)
    floor = background if background is not None and background < 0 else 0.0
    foreground = image[foreground_mask(image, background)].astype(np.float64)
    top = float(np.percentile(foreground, percentile)) - floor if foreground.size else 0.0
    if top <= 0:
        raise BadInput("An image without foreground brighter than its background cannot be scaled.")
    return np.clip((image.astype(np.float64) - floor) / top, 0, 1)


def scaled_prediction(prediction: np.ndarray, top: float | None) -> np.ndarray:
    """`prediction` in 0–1: divided by the `top` of its output range where that is known, else as `unit_scaled`."""
    return unit_scaled(prediction) if top is None else np.clip(prediction / float(top), 0, 1)


def error_map(truth: np.ndarray, prediction: np.ndarray, prediction_top: float | None = None) -> np.ndarray:
    """|prediction − truth| in percent of the truth's range (its 99.5th foreground percentile), float32, 0 to 100.

    Scaled as in the first convention that `evaluate` gives. Arguments and errors as there.
    """
    difference = np.abs(scaled_prediction(prediction, prediction_top) - unit_scaled(truth))
    return (100 * difference).astype(np.float32)


@dataclass(frozen=True)
class Scores:
    """Scores of one prediction under one convention.

    Attributes:
        scaling: "range" (the truth divided by its 99.5th foreground percentile, the prediction by the top of its output
            range, which stands for that percentile; clipped to 0–1; range 1), "p99.5" (each image divided by its
            own percentile; likewise) or "none" (as stored; range: the truth's maximum minus its minimum).
        region: "volume" (background included) or "mask".
        mae, psnr, ssim, mi: in units of the scaling, dB, 0–1, nats.
    """

    scaling: str
    region: str
    mae: float
    psnr: float
    ssim: float
    mi: float

    def record(self) -> dict[str, float | str]:
        """As a dictionary."""
        return asdict(self)


CONVENTIONS = {
    "scaling range": "truth divided by its 99.5th foreground percentile, prediction by the top of its output range, which "
    "stands for that percentile (known for IMT's own outputs); clipped to 0-1; data range 1",
    "scaling p99.5": "each image divided by its 99.5th foreground percentile and clipped to 0-1; data range 1",
    "scaling none": "intensities as stored; data range: maximum minus minimum of the truth",
    "region volume": "all voxels, background included",
    "region mask": "the mask's voxels; without a mask file, the truth's foreground (what is not its border's mode)",
    "mae": "mean absolute error",
    "psnr": "10 log10(data range squared / mean squared error), dB",
    "ssim": "uniform 7x7 window, sample covariance (scikit-image's defaults); region volume: mean over axial slices",
    "mi": "mutual information, 256 bins over each image's own range, nats",
    "sharpness": "in-plane gradient energy of the prediction over the truth's, in the mask, scaled as the first row: 1 is as sharp "
    "as the real image, less is blurred; the truth's noise counts as sharpness",
}


def check_pair(truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Refuse what cannot be compared; return the region to compare in: `mask`, or the truth's foreground.

    Raises:
        BadInput: if the shapes differ, a value is NaN or infinite, or the mask is empty.
    """
    if truth.shape != prediction.shape:
        raise BadInput(f"Truth and prediction have different sizes: {truth.shape[::-1]} and {prediction.shape[::-1]} voxels.")
    for name, image in (("truth", truth), ("prediction", prediction)):
        if not np.isfinite(image).all():
            raise BadInput(
                f"The {name} has {int((~np.isfinite(image)).sum())} voxels that are NaN or infinite. Replace them first."
            )
    region = foreground_mask(truth, background_value(truth)) if mask is None else mask
    if not region.any():
        raise BadInput("The mask is empty: there is nothing to compare.")
    return region


def evaluate(
    truth: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None, prediction_top: float | None = None
) -> list[Scores]:
    """MAE, PSNR, SSIM and MI of a prediction, for each scaling, on the whole volume and within a mask.

    A prediction that is careful about bright lesions has a lower 99.5th percentile than the truth; dividing it by its
    own brightens all of it. Where the prediction's scale is known, "range" is the fair convention.

    Args:
        truth, prediction: [k, j, i] in axial orientation, same grid.
        mask: boolean [k, j, i]; None takes the truth's foreground.
        prediction_top: the top of the prediction's output range, if it is known.

    Returns:
        Scores in the order range (if `prediction_top` is given), p99.5, none; each for volume, then mask.

    Raises:
        BadInput: if the shapes differ or the mask is empty.
    """
    region = check_pair(truth, prediction, mask)
    scores = []
    scaled_truth = unit_scaled(truth)
    scalings = {
        "p99.5": (scaled_truth, unit_scaled(prediction), 1.0),
        "none": (truth, prediction, float(truth.max()) - float(truth.min())),
    }
    if prediction_top is not None:
        scalings = {"range": (scaled_truth, scaled_prediction(prediction, prediction_top), 1.0)} | scalings
    for scaling, (x, y, data_range) in scalings.items():
        for name, where in (("volume", None), ("mask", region)):
            scores.append(
                Scores(
                    scaling,
                    name,
                    mae(x, y, where),
                    psnr(x, y, data_range, where),
                    ssim(x, y, data_range, where),
                    mutual_information(x, y, mask=where),
                )
            )
    return scores
