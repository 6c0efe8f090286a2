"""A segmentation against a reference, structure by structure: Dice, Hausdorff distance, volume difference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.label_names import MAX_CODE, LabelNames
from IMTCore.label_scores import score_labels
from IMTCore.volume import Volume

SAME_GRID_MM = 1e-2


@dataclass(frozen=True)
class StructureComparison:
    """One structure, as it was found and in the reference.

    Attributes:
        code, name: of the structure.
        dice: 0 to 1; NaN if neither has the structure.
        hausdorff_95_mm: 95th percentile of the surface distances; NaN if one of the two does not have the structure.
        found_ml, reference_ml: volumes.
        difference_ml: found less reference.
        difference_percent: the same, of the reference; NaN if the reference does not have the structure.
    """

    code: int
    name: str
    dice: float
    hausdorff_95_mm: float
    found_ml: float
    reference_ml: float
    difference_ml: float
    difference_percent: float

    def record(self) -> dict[str, Any]:
        """As a dictionary for JSON: None for NaN."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def compare_labels(found: Volume, reference: Volume, names: LabelNames) -> list[StructureComparison]:
    """Scores of each named structure.

    Args:
        found: labels [k, j, i], as `Segmenter.segment` gives them.
        reference: labels of the same structures on the same grid, whole numbers of any type.
        names: the structures, by code.

    Returns:
        One a structure, in the order of the codes.

    Raises:
        BadInput: a reference on another grid, with values that are no labels, or with codes that are not among `names`.
    """
    if not reference.geometry.is_close(found.geometry, SAME_GRID_MM):
        raise BadInput(
            f"The reference {reference.name} ({_grid(reference)}) is on another grid than {found.name} ({_grid(found)}). "
            f"Resample it onto the grid of the segmented image, with nearest neighbour."
        )
    truth = _codes(reference)
    unknown = sorted(set(np.unique(truth).tolist()) - {0} - set(names))
    if unknown:
        listed = ", ".join(map(str, unknown[:10])) + (", …" if len(unknown) > 10 else "")
        known = ", ".join(f"{entry.name} ({code})" for code, entry in names.items())
        raise BadInput(
            f"The reference {reference.name} has the label code(s) {listed}, and the model segments {known}. "
            "Give a reference with these codes, or merge its labels first."
        )
    scores = score_labels(truth, found.array, found.geometry, list(names))
    return [
        StructureComparison(
            code,
            names.name_of(code),
            score.dice,
            score.hausdorff_95_mm,
            score.found_ml,
            score.truth_ml,
            score.difference_ml,
            100 * score.difference_ml / score.truth_ml if score.truth_ml else float("nan"),
        )
        for code, score in scores.items()
    ]


def _codes(reference: Volume) -> np.ndarray:
    """The reference's label codes; floating-point files of whole numbers are common."""
    array = reference.array
    if array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        return array
    whole = np.rint(array)
    if not (np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() and np.array_equal(whole, array)):
        raise BadInput(f"The reference {reference.name} holds values that are no whole numbers: it is no label map.")
    if np.abs(whole).max() > MAX_CODE:
        raise BadInput(f"The reference {reference.name} holds values beyond {MAX_CODE}: it is no label map.")
    return whole.astype(np.int32)


def _grid(volume: Volume) -> str:
    size = " × ".join(map(str, volume.array.shape[::-1]))
    return f"{size} voxels of {' × '.join(f'{s:g}' for s in volume.geometry.spacing_mm)} mm"
