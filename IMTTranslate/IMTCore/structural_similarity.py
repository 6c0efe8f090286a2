"""The structural similarity index (Wang et al. 2004) with the windows that publications use: it depends on them.

Each function states its window; `data_range` is L of the constants (0.01·L)² and (0.03·L)².
"""

from __future__ import annotations

import numpy as np

from .errors import BadInput

# Width of the windows: scikit-image's default, and that of Wang et al. 2004 (11 taps of a Gaussian of 1.5 pixels).
SSIM_WINDOWS = {"uniform": 7, "gaussian": 11}
SSIM_SIGMA = 1.5
SLAB = 32  # slices that `volume_ssim` has in hand at a time


def ssim_map(truth: np.ndarray, prediction: np.ndarray, data_range: float, window: str = "uniform") -> np.ndarray:
    """SSIM (Wang et al. 2004, Eq. 13) around each pixel of a slice pair [j, i], or each voxel of a volume pair [k, j, i].

    Args:
        truth, prediction: arrays of one shape, at least as wide as the window along each axis.
        data_range: L of the constants (0.01·L)² and (0.03·L)².
        window: "uniform" (7 wide, sample covariance: scikit-image's defaults) or "gaussian" (11 wide, standard deviation
            1.5, population covariance: Wang et al. 2004, MONAI, torchmetrics).

    Returns:
        The map of the window centres whose whole window lies inside: each axis is 6 (uniform) or 10 (gaussian) shorter.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    width = SSIM_WINDOWS[window]

    def blurred(image: np.ndarray) -> np.ndarray:
        if window == "uniform":
            return uniform_filter(image, width)
        return gaussian_filter(image, SSIM_SIGMA, truncate=(width // 2) / SSIM_SIGMA)

    x, y = truth.astype(np.float64), prediction.astype(np.float64)
    size = width**x.ndim
    sample = size / (size - 1) if window == "uniform" else 1.0
    mean_x, mean_y = blurred(x), blurred(y)
    var_x = sample * (blurred(x * x) - mean_x * mean_x)
    var_y = sample * (blurred(y * y) - mean_y * mean_y)
    cov = sample * (blurred(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    result = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return result[(slice(width // 2, -(width // 2)),) * x.ndim]


def ssim(
    truth: np.ndarray, prediction: np.ndarray, data_range: float, mask: np.ndarray | None = None, window: str = "uniform"
) -> float:
    """Mean over slices [k] of each slice's mean SSIM; with a mask, the mean over the masked window centres.

    Returns:
        −1 to 1; NaN if the mask holds no window centre.

    Raises:
        BadInput: if a slice is smaller than the window.
    """
    width = SSIM_WINDOWS[window]
    if min(truth.shape[1:]) < width:
        raise BadInput(f"SSIM needs slices of at least {width} × {width} pixels; these have {truth.shape[1:]}.")
    pad = width // 2
    values: list[np.ndarray] = []
    for k in range(len(truth)):
        if mask is not None and not mask[k, pad:-pad, pad:-pad].any():
            continue
        image = ssim_map(truth[k], prediction[k], data_range, window)
        values.append(image[mask[k, pad:-pad, pad:-pad]] if mask is not None else np.array([image.mean()]))
    return float(np.concatenate(values).mean()) if values else float("nan")


def volume_ssim(truth: np.ndarray, prediction: np.ndarray, data_range: float, mask: np.ndarray | None = None) -> float:
    """Mean SSIM of a volume pair [k, j, i] with an 11×11×11 Gaussian window, over all or the masked window centres.

    As MONAI and torchmetrics compute it for volumes. Works in slabs of slices, so that memory stays small.

    Returns:
        −1 to 1; NaN if the mask holds no window centre.

    Raises:
        BadInput: if the volume is smaller than the window along an axis.
    """
    pad = SSIM_WINDOWS["gaussian"] // 2
    if min(truth.shape) < 2 * pad + 1:
        raise BadInput(f"SSIM in 3D needs at least {2 * pad + 1} voxels along each axis; this volume has {truth.shape[::-1]}.")
    total, count = 0.0, 0
    for first in range(pad, len(truth) - pad, SLAB):
        last = min(first + SLAB, len(truth) - pad)
        where = None if mask is None else mask[first:last, pad:-pad, pad:-pad]
        if where is not None and not where.any():
            continue
        slab = slice(first - pad, last + pad)
        image = ssim_map(truth[slab], prediction[slab], data_range, "gaussian")
        values = image if where is None else image[where]
        total, count = total + float(values.sum()), count + values.size
    return total / count if count else float("nan")


def global_ssim(truth: np.ndarray, prediction: np.ndarray, data_range: float, mask: np.ndarray | None = None) -> float:
    """SSIM's formula on the statistics of whole images, without a window (Yang et al. 2020, Eq. 9, as printed).

    Blind to where in the image structure is lost; usually higher than the mean over windows.

    Returns:
        −1 to 1, over `mask` or all pixels; population variances.
    """
    x, y = ((image if mask is None else image[mask]).astype(np.float64).ravel() for image in (truth, prediction))
    mean_x, mean_y = x.mean(), y.mean()
    cov = ((x - mean_x) * (y - mean_y)).mean()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return float((2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (x.var() + y.var() + c2)))
