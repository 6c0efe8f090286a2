"""Bring an array into the closest anatomical orientation by permuting and flipping its axes: no resampling.

The paper works on axial slices (Yang et al. 2020, Experiments). Whatever the acquisition, slices are cut from the
plane that the model card names, and always the same way up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .errors import BadInput
from .volume import Geometry

# Each plane: the world axis (0 left, 1 posterior, 2 superior) and the sign along which k, j, i run.
# Axial slices have the patient's right on the image's left (radiological); the others have the head up.
PLANES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "axial": ((2, 1), (1, 1), (0, 1)),
    "coronal": ((1, 1), (2, -1), (0, 1)),
    "sagittal": ((0, 1), (2, -1), (1, 1)),
}


@dataclass(frozen=True)
class AxisMap:
    """A permutation and flips from a stored array [k, j, i] to an anatomical one.

    Attributes:
        axes: for each anatomical array axis, the stored array axis that it is.
        flips: for each anatomical array axis, whether it runs against the stored one.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Stored [k, j, i] → anatomical [k, j, i] (a view)."""
        return np.flip(array.transpose(self.axes), [n for n in range(3) if self.flips[n]])

    def invert(self, array: np.ndarray) -> np.ndarray:
        """Anatomical [k, j, i] → stored [k, j, i] (a view)."""
        unflipped = np.flip(array, [n for n in range(3) if self.flips[n]])
        return unflipped.transpose(np.argsort(self.axes))

    def spacing_kji(self, geometry: Geometry) -> tuple[float, float, float]:
        """Voxel size in mm along the anatomical k, j, i."""
        stored_kji = geometry.spacing_mm[::-1]
        return tuple(float(stored_kji[a]) for a in self.axes)  # type: ignore[return-value]


def anatomical_axes(geometry: Geometry, plane: str = "axial") -> AxisMap:
    """The permutation and flips to the anatomical orientation closest to `geometry`, cut in `plane`.

    Closest: the assignment of array axes to patient axes with the largest sum of |cosines|. Ties (grids turned by
    exactly 45°) are settled by the cosines with superior, then posterior, then by the sense in which the chosen axes
    lean (the same for an axis and its reverse), so that the way in which the axes were stored never matters.

    Raises:
        BadInput: if `plane` is not axial, coronal or sagittal.
    """
    if plane not in PLANES:
        raise BadInput(f"Unknown slicing plane {plane!r}: use one of {', '.join(PLANES)}.")
    cosines = geometry.direction[:, ::-1]  # [world axis, stored array axis k, j, i]

    def score(assignment: tuple[int, ...]) -> tuple[float, ...]:
        strength = [round(abs(float(cosines[world, assignment[world]])), 6) for world in range(3)]
        _, posterior, superior = (cosines[:, axis] for axis in assignment)
        lean = (superior[2] * superior[1], superior[2] * superior[0], posterior[1] * posterior[0])
        return (round(sum(strength), 5), strength[2], strength[1], strength[0], *(round(float(v), 5) for v in lean))

    axis_of_world = max(permutations(range(3)), key=score)
    axes = tuple(axis_of_world[world] for world, _ in PLANES[plane])
    flips = tuple(bool(cosines[world, axis_of_world[world]] * sign < 0) for world, sign in PLANES[plane])
    return AxisMap(axes, flips)  # type: ignore[arg-type]
