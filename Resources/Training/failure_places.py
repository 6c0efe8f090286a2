"""Where a prediction has invented, missing and broken structure (Yang et al. 2020, Fig. 11), and where it is best.

Images are 0 to 1, the error is prediction minus truth:

- invented: where the error, smoothed by a 3D Gaussian, is highest; missing: where it is lowest;
- broken: the lowest SSIM of a neighbourhood inside the head where the truth has structure (its local contrast is above the
  head's median), away from the two places above on the same subject;
- best: the slice with the highest mean SSIM inside the head, among those with at least half of the largest slice's head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from case_volumes import Case

from IMTCore.errors import BadInput
from IMTCore.structural_similarity import SSIM_WINDOWS, ssim_map

KINDS = ("invented", "missing", "broken", "best")
SIGMA_MM = 3.0
APART_MM = 15.0  # a broken place this near to the invented or missing one would show the same thing
CIRCLE_MM = (8.0, 25.0)


@dataclass(frozen=True)
class Place:
    """A place in a prediction.

    Attributes:
        kind: one of `KINDS`.
        subject: its name.
        k, j, i: voxel of the axial array; of kind best, only k counts.
        value: the smoothed error (invented, missing), the neighbourhood's SSIM (broken), or the slice's (best).
        volume_ml: of the connected region where the smoothed error is beyond half of `value`; NaN for the other kinds.
        predicted, true: mean intensity there, 0 to 1; NaN for the other kinds.
        radius_mm: of the circle that marks it.
    """

    kind: str
    subject: str
    k: int
    j: int
    i: int
    value: float
    volume_ml: float = float("nan")
    predicted: float = float("nan")
    true: float = float("nan")
    radius_mm: float = CIRCLE_MM[0]

    def sentence(self) -> str:
        """What there is, for a title."""
        if self.kind == "best":
            return f"Best slice: mean SSIM in the head {self.value:.3f}"
        if self.kind == "broken":
            return f"Broken structure: SSIM of the neighbourhood {self.value:.3f}"
        return f"{self.kind.capitalize()} structure: {self.predicted:.2f} in place of {self.true:.2f} over {self.volume_ml:.2f} mL"


def error_place(case: Case, prediction: np.ndarray, sign: int, sigma_mm: float = SIGMA_MM) -> Place:
    """The highest (`sign` 1) or lowest (-1) smoothed error on the acquired slices.

    Args:
        case: the subject.
        prediction: axial [k, j, i] in 0 to 1.
        sign: 1 for invented, -1 for missing structure.
        sigma_mm: of the Gaussian; structures of about this size stand out most.
    """
    from scipy.ndimage import gaussian_filter, label

    error = np.where(case.kept[:, None, None], prediction - case.truth, 0)
    smooth = sign * gaussian_filter(error, [sigma_mm / s for s in case.spacing_kji], mode="constant")
    smooth[~case.kept] = -np.inf
    peak = np.unravel_index(int(smooth.argmax()), smooth.shape)
    value = float(smooth[peak])
    parts, _ = label(smooth > value / 2) if value > 0 else (np.zeros(smooth.shape, int), 0)
    blob = parts == parts[peak] if parts[peak] else np.zeros(smooth.shape, bool)
    blob[peak] = True
    in_plane_mm2 = blob[peak[0]].sum() * case.spacing_kji[1] * case.spacing_kji[2]
    radius = float(np.clip(1.5 * np.sqrt(in_plane_mm2 / np.pi), *CIRCLE_MM))
    volume_ml = float(blob.sum() * np.prod(case.spacing_kji) / 1000)
    means = float(prediction[blob].mean()), float(case.truth[blob].mean())
    return Place("invented" if sign > 0 else "missing", case.name, *map(int, peak), sign * value, volume_ml, *means, radius)


def head_ssim(case: Case, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The SSIM (7×7, range 1) around each pixel [k, j, i], and where it counts: windows wholly inside an acquired head.

    Raises:
        BadInput: if there is no such place.
    """
    from scipy.ndimage import binary_erosion, binary_fill_holes

    pad = SSIM_WINDOWS["uniform"] // 2
    if min(case.truth.shape[1:]) <= 2 * pad:
        raise BadInput(f"{case.name}: SSIM needs slices of at least {2 * pad + 1} pixels a side. Leave it out.")
    similar, inside = np.ones(case.truth.shape), np.zeros(case.truth.shape, bool)
    for k in np.flatnonzero(case.kept & case.head.any(axis=(1, 2))):
        similar[k, pad:-pad, pad:-pad] = ssim_map(case.truth[k], prediction[k], 1.0)
        inside[k] = binary_erosion(binary_fill_holes(case.head[k]), np.ones((2 * pad + 1,) * 2))
    if not inside.any():
        raise BadInput(f"{case.name}: the head is nowhere {2 * pad + 1} pixels wide. Leave it out.")
    return similar, inside


def broken_place(case: Case, ssim: tuple[np.ndarray, np.ndarray], others: Sequence[Place], sigma_mm: float = SIGMA_MM) -> Place:
    """The lowest mean SSIM around a place with structure, at least `APART_MM` from `others` of the same subject if any is left.

    Args:
        case: the subject.
        ssim: as `head_ssim` gives.
        others: places that are shown already.
        sigma_mm: of the in-plane Gaussian that weighs the neighbourhood; pixels outside of the head have no weight.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    similar, inside = ssim
    sigmas = [0.0, *(sigma_mm / s for s in case.spacing_kji[1:])]
    weight = gaussian_filter(inside.astype(float), sigmas, mode="constant")
    mean = gaussian_filter(np.where(inside, similar, 0), sigmas, mode="constant") / np.maximum(weight, 1e-6)
    width = [1, *[SSIM_WINDOWS["uniform"]] * 2]
    contrast = uniform_filter(case.truth**2, width) - uniform_filter(case.truth, width) ** 2
    allowed = inside & (contrast >= np.median(contrast[inside]))
    grid = np.indices(allowed.shape, sparse=True)
    apart = allowed.copy()
    for other in (place for place in others if place.subject == case.name):
        at = (other.k, other.j, other.i)
        apart &= sum((s * (x - c)) ** 2 for s, x, c in zip(case.spacing_kji, grid, at, strict=True)) >= APART_MM**2
    allowed = apart if apart.any() else allowed
    lowest = np.unravel_index(int(np.where(allowed, mean, np.inf).argmin()), mean.shape)
    return Place("broken", case.name, *map(int, lowest), float(mean[lowest]), radius_mm=max(CIRCLE_MM[0], 2 * sigma_mm))


def best_slice(case: Case, ssim: tuple[np.ndarray, np.ndarray]) -> Place:
    """The slice with the highest mean SSIM inside the head, among those with at least half of the largest slice's head."""
    similar, inside = ssim
    areas = inside.sum(axis=(1, 2))
    means = np.where(inside, similar, 0).sum(axis=(1, 2)) / np.maximum(areas, 1)
    k = int(np.where(areas >= areas.max() / 2, means, -np.inf).argmax())
    return Place("best", case.name, k, 0, 0, float(means[k]))


def find_places(pairs: Iterator[tuple[Case, np.ndarray]], sigma_mm: float = SIGMA_MM) -> dict[str, tuple[Place, Case, np.ndarray]]:
    """Of one method, the place of each kind over all its subjects, with the case and the prediction.

    Args:
        pairs: each subject and its prediction, axial [k, j, i] in 0 to 1; gone through once.
        sigma_mm: see `error_place`.
    """
    found: dict[str, tuple[Place, Case, np.ndarray]] = {}
    better = {"invented": 1, "missing": -1, "broken": -1, "best": 1}
    for case, prediction in pairs:
        errors = [error_place(case, prediction, sign, sigma_mm) for sign in (1, -1)]
        ssim = head_ssim(case, prediction)
        for place in (*errors, broken_place(case, ssim, errors, sigma_mm), best_slice(case, ssim)):
            sign = better[place.kind]
            if place.kind not in found or sign * place.value > sign * found[place.kind][0].value:
                found[place.kind] = (place, case, prediction)
    return found
