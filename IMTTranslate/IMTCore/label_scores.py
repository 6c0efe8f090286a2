"""Scores of one segmentation against another, structure by structure: overlap, surface distances, volumes.

Overlap after Yang et al. 2020, Evaluation metrics (Dice: 2|H ∩ G| / (|H| + |G|)). Surfaces are the centres of a
structure's boundary voxels: those of its voxels of which at least one of the six neighbours is outside it, or which
lie at the image's edge. Distances take the voxel size into account; a structure cut by the image's edge has a
surface there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from .errors import BadInput
from .volume import Geometry

RIGHT, FALSE, MISSING = 1, 2, 3  # the codes of `error_regions`


@dataclass(frozen=True)
class LabelScores:
    """Scores of one structure; `truth` is the reference, `found` what is scored.

    Attributes:
        dice, jaccard: 0 to 1; NaN if neither has the structure.
        hausdorff_95_mm: the larger of the two directed 95th percentiles of the surface distances.
        hausdorff_mm: the largest surface distance.
        mean_surface_distance_mm: the mean over the boundary voxels of both, pooled (the average symmetric one).
            All three distances are NaN if one of the two does not have the structure.
        truth_ml, found_ml: volumes; 0 where the structure is missing.
        difference_ml: found less truth.
        false_ml, missing_ml: found but not true, true but not found.
    """

    dice: float
    jaccard: float
    hausdorff_95_mm: float
    hausdorff_mm: float
    mean_surface_distance_mm: float
    truth_ml: float
    found_ml: float
    difference_ml: float
    false_ml: float
    missing_ml: float

    def record(self) -> dict[str, float]:
        """As a dictionary; NaN stays NaN."""
        return asdict(self)


def score_labels(truth: np.ndarray, found: np.ndarray, geometry: Geometry, codes: Iterable[int] | None = None) -> dict[int, LabelScores]:
    """All scores of each structure.

    Args:
        truth, found: integer codes [k, j, i] on the grid `geometry`; 0 is the background.
        codes: the structures; None takes all that either has, but the background.

    Returns:
        code -> scores, by code.

    Raises:
        BadInput: codes that are not integers, or arrays that do not fit the grid.
    """
    _check(truth, found)
    if truth.shape != geometry.shape:
        raise BadInput(f"The labels' size {truth.shape[::-1]} does not fit their grid {geometry.shape[::-1]}.")
    present = np.union1d(np.unique(truth), np.unique(found))
    chosen = [int(code) for code in (present if codes is None else codes)]
    boxes = _boxes(truth, found, present)
    return {
        code: _score(*(labels[boxes[code]] == code for labels in (truth, found)), geometry)
        for code in sorted(set(chosen) - ({0} if codes is None else set()))
    }


def dice_scores(truth: np.ndarray, found: np.ndarray, codes: Iterable[int]) -> dict[int, float]:
    """Dice of each structure, in one pass over the voxels: code -> 0 to 1, NaN if neither has it. Errors as `score_labels`."""
    _check(truth, found)
    counts = [dict(zip(*(values.tolist() for values in np.unique(part, return_counts=True)), strict=True)) for part in (truth, found)]
    both = dict(zip(*(values.tolist() for values in np.unique(truth[truth == found], return_counts=True)), strict=True))
    totals = {int(code): counts[0].get(int(code), 0) + counts[1].get(int(code), 0) for code in codes}
    return {code: 2 * both.get(code, 0) / total if total else float("nan") for code, total in totals.items()}


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    """2|H ∩ G| / (|H| + |G|) of two boolean arrays; NaN if both are empty."""
    total = int(truth.sum()) + int(found.sum())
    return 2 * int((truth & found).sum()) / total if total else float("nan")


def surface_distances(truth: np.ndarray, found: np.ndarray, spacing_kji: Iterable[float]) -> tuple[np.ndarray, np.ndarray]:
    """The distances, mm, of each boundary voxel from the other structure's nearest boundary voxel.

    Args:
        truth, found: boolean [k, j, i], of one shape.
        spacing_kji: voxel size in mm along k, j, i.

    Returns:
        Those of the truth's boundary voxels and those of the found one's, float64; both empty if either structure is.
    """
    from scipy.ndimage import distance_transform_edt

    if not (truth.any() and found.any()):
        return np.zeros(0), np.zeros(0)
    edges = [_boundary(part) for part in (truth, found)]
    spacing = tuple(float(size) for size in spacing_kji)
    from_truth, from_found = (distance_transform_edt(~edge, sampling=spacing) for edge in edges)
    return from_found[edges[0]], from_truth[edges[1]]


def hausdorff_95(truth: np.ndarray, found: np.ndarray, spacing_kji: Iterable[float]) -> float:
    """The larger of the two directed 95th percentiles, mm; NaN if either is empty. Arguments as `surface_distances`."""
    return _percentile(surface_distances(truth, found, spacing_kji), 95)


def mean_surface_distance(truth: np.ndarray, found: np.ndarray, spacing_kji: Iterable[float]) -> float:
    """The mean over both surfaces' boundary voxels, mm; NaN if either is empty. Arguments as `surface_distances`."""
    pooled = np.concatenate(surface_distances(truth, found, spacing_kji))
    return float(pooled.mean()) if pooled.size else float("nan")


def error_regions(truth: np.ndarray, found: np.ndarray, code: int) -> np.ndarray:
    """(K, J, I) uint8: where a structure is right (`RIGHT`, 1), found but not true (`FALSE`, 2), true but not found (`MISSING`, 3)."""
    _check(truth, found)
    given, hit = truth == code, found == code
    return (RIGHT * (given & hit) + FALSE * (hit & ~given) + MISSING * (given & ~hit)).astype(np.uint8)


def _check(truth: np.ndarray, found: np.ndarray) -> None:
    if truth.shape != found.shape or truth.ndim != 3:
        raise BadInput(f"The two segmentations have different sizes: {truth.shape[::-1]} and {found.shape[::-1]} voxels.")
    for name, labels in (("reference", truth), ("scored", found)):
        if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
            raise BadInput(f"The {name} segmentation holds values of type {labels.dtype}; labels are whole numbers.")


def _boxes(truth: np.ndarray, found: np.ndarray, present: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """For each code the smallest box with all its voxels in either; distances within it are those in the whole image."""
    from scipy.ndimage import find_objects

    found_boxes = [find_objects(np.searchsorted(present, labels).astype(np.int32) + 1, len(present)) for labels in (truth, found)]
    boxes = _EmptyBoxes()
    for code, *pair in zip(present.tolist(), *found_boxes, strict=True):
        sides = zip(*(box for box in pair if box is not None), strict=True)
        boxes[code] = tuple(slice(min(part.start for part in side), max(part.stop for part in side)) for side in sides)
    return boxes


class _EmptyBoxes(dict):
    """An empty box for a code that no voxel has."""

    def __missing__(self, code: int) -> tuple[slice, ...]:
        return (slice(0, 0),) * 3


def _boundary(structure: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return structure & ~binary_erosion(structure)


def _percentile(distances: tuple[np.ndarray, np.ndarray], percent: float) -> float:
    return max(float(np.percentile(part, percent)) for part in distances) if distances[0].size else float("nan")


def _score(truth: np.ndarray, found: np.ndarray, geometry: Geometry) -> LabelScores:
    both, either = int((truth & found).sum()), int((truth | found).sum())
    given, hit = int(truth.sum()), int(found.sum())
    distances = surface_distances(truth, found, geometry.spacing_mm[::-1])
    pooled = np.concatenate(distances)
    ml = float(np.prod(geometry.spacing_mm)) / 1000
    return LabelScores(
        dice=2 * both / (given + hit) if either else float("nan"),
        jaccard=both / either if either else float("nan"),
        hausdorff_95_mm=_percentile(distances, 95),
        hausdorff_mm=_percentile(distances, 100),
        mean_surface_distance_mm=float(pooled.mean()) if pooled.size else float("nan"),
        truth_ml=given * ml,
        found_ml=hit * ml,
        difference_ml=(hit - given) * ml,
        false_ml=(hit - both) * ml,
        missing_ml=(given - both) * ml,
    )
