"""How well two registered images agree around each voxel, and the weights without labels that follow from it.

Each modality's registration is judged by its own images: the fixed one and the moving one as carried onto its grid.
Where a modality agrees better its deformation gets the larger share. A noisy or smooth image (a translated one is
smooth) has another level of agreement than a sharp one, so shares say which of two registrations explains its own
images better, not which is nearer to the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry

FLAT = 1e-4  # share of the image's variance below which a window counts as flat
FLOOR = 1e-3  # similarity that everything has: shares turn equal where nothing can be told


def local_similarity(
    fixed: np.ndarray, moving: np.ndarray, sigma_voxels: float | Sequence[float], mask: np.ndarray | None = None
) -> np.ndarray:
    """The squared local correlation of two images of one modality around each voxel, 0 where it is negative.

    The local cross-correlation of Avants et al. (Med Image Anal 12:26, 2008), with a Gaussian window in place of a cube.
    With a mask only its voxels enter the windows, so that the air around a head does not count. A window that is flat
    in one image has 0.

    Args:
        fixed, moving: [k, j, i] on one grid.
        sigma_voxels: standard deviation of the window, one number or three for k, j, i.
        mask: boolean [k, j, i].

    Returns:
        (K, J, I) float32, 0 to 1; 0 outside the mask.

    Raises:
        BadInput: shapes that differ, values that are not finite, or an empty mask.
    """
    from scipy.ndimage import gaussian_filter

    where = _mask(mask, fixed.shape)
    if moving.shape != fixed.shape:
        sizes = f"{fixed.shape[::-1]} and {moving.shape[::-1]}"
        raise BadInput(f"Local similarity needs two images on one grid; these have {sizes} voxels.")

    def window(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, sigma_voxels, mode="constant", truncate=3)

    x, y = (_standardised(image, where, name) for image, name in ((fixed, "fixed"), (moving, "moving")))
    inside = where.astype(np.float32)
    total = np.maximum(window(inside), np.float32(1e-6))
    mean_x, mean_y = window(x) / total, window(y) / total
    var_x = np.maximum(window(x * x) / total - mean_x * mean_x, 0)
    var_y = np.maximum(window(y * y) / total - mean_y * mean_y, 0)
    cov = np.maximum(window(x * y) / total - mean_x * mean_y, 0)
    result = cov * cov / ((var_x + FLAT) * (var_y + FLAT))
    return np.where(where, np.minimum(result, 1), 0).astype(np.float32)


def local_shares(
    similarities: Sequence[np.ndarray],
    geometry: Geometry,
    smoothing_mm: float = 8.0,
    sharpness: float = 2.0,
    mask: np.ndarray | None = None,
    prior: Sequence[float] | None = None,
) -> list[np.ndarray]:
    """A smooth share of each modality at each voxel: prior * similarity^sharpness, over their sum.

    The similarities are blurred first, so that a field weighted by the shares stays smooth. Far from the mask, and
    where no modality agrees, the shares are the prior's.

    Args:
        similarities: for each modality (K, J, I), 0 to 1, as of `local_similarity`.
        geometry: their grid.
        smoothing_mm: standard deviation of the blur; several mm.
        sharpness: 0 gives the prior; the higher, the more the better modality takes all.
        mask: boolean [k, j, i], where the similarities count.
        prior: shares of the modalities before anything is seen, adding up to 1; equal ones without it.

    Returns:
        For each modality (K, J, I) float32, 0 to 1; they add up to 1.

    Raises:
        BadInput: a similarity on another grid, below 0 or not finite; a sharpness, smoothing or prior that is no such number.
    """
    from scipy.ndimage import gaussian_filter

    prior = _checked(similarities, sharpness, prior)
    if not 0 <= smoothing_mm < np.inf:
        raise BadInput(f"The smoothing of local weights must be 0 mm or more, not {smoothing_mm}.")
    if similarities[0].shape != geometry.shape:
        raise BadInput(f"The similarity maps {similarities[0].shape} do not fit their grid {geometry.shape}.")
    where = _mask(mask, geometry.shape)
    sigma = smoothing_mm / geometry.spacing_mm[::-1]
    total = gaussian_filter(where.astype(np.float32), sigma, truncate=3) + np.float32(FLOOR)
    scores = []
    for similarity, share in zip(similarities, prior, strict=True):
        blurred = gaussian_filter(np.where(where, similarity, 0).astype(np.float32), sigma, truncate=3)
        scores.append(np.float32(share) * (blurred / total + np.float32(FLOOR)) ** np.float32(sharpness))
    whole = sum(scores)
    return [score / whole for score in scores]


def global_shares(
    similarities: Sequence[np.ndarray],
    sharpness: float = 2.0,
    mask: np.ndarray | None = None,
    prior: Sequence[float] | None = None,
) -> list[float]:
    """One share of each modality: prior * (mean similarity in the mask)^sharpness, over their sum. A weight without labels.

    Arguments and errors as `local_shares`.

    Returns:
        0 to 1 for each modality; they add up to 1.
    """
    prior = _checked(similarities, sharpness, prior)
    where = _mask(mask, similarities[0].shape)
    means = [float(similarity[where].mean(dtype=np.float64)) + FLOOR for similarity in similarities]
    scores = [share * mean**sharpness for share, mean in zip(prior, means, strict=True)]
    return [score / sum(scores) for score in scores]


def _mask(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if mask is None:
        return np.ones(shape, bool)
    if mask.shape != shape:
        raise BadInput(f"The mask {mask.shape[::-1]} is not on the images' grid {shape[::-1]}.")
    if not mask.any():
        raise BadInput("The mask is empty: there is nothing to compare.")
    return mask > 0


def _standardised(image: np.ndarray, where: np.ndarray, name: str) -> np.ndarray:
    """Float32 with mean 0 and variance 1 in the mask, 0 outside: sums of squares then lose no digits."""
    inside = image[where].astype(np.float64)
    if not np.isfinite(inside).all():
        raise BadInput(f"The {name} image has values that are not finite.")
    scale = inside.std() or 1.0
    return np.where(where, (image - inside.mean()) / scale, 0).astype(np.float32)


def _checked(similarities: Sequence[np.ndarray], sharpness: float, prior: Sequence[float] | None) -> list[float]:
    if not len(similarities):
        raise BadInput("Weights need at least one similarity map.")
    if not 0 <= sharpness < np.inf:
        raise BadInput(f"The sharpness of weights must be 0 or more, not {sharpness}.")
    for similarity in similarities:
        if similarity.shape != similarities[0].shape:
            raise BadInput(f"Similarity maps of two sizes: {similarities[0].shape[::-1]} and {similarity.shape[::-1]} voxels.")
        if not (np.isfinite(similarity).all() and (similarity >= 0).all()):
            raise BadInput("A similarity map has values that are negative or not finite.")
    prior = [1 / len(similarities)] * len(similarities) if prior is None else [float(share) for share in prior]
    if len(prior) != len(similarities) or min(prior) < 0 or not abs(sum(prior) - 1) < 1e-6:
        raise BadInput(f"The prior shares {prior} must be {len(similarities)} numbers from 0 that add up to 1.")
    return prior
