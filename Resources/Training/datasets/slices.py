"""Which axial slices of a subject are used, where a paper used only some.

Yang et al. 2020 give numbers of slices (1924 of 176 BraTS subjects, of 155 each) but not how they were chosen. Here they are
spread evenly over the slices with enough head, the same number in every subject as far as that goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.intensity import AIR_SHARE, foreground_mask, normalisation_of
from IMTCore.orientation import anatomical_axes
from IMTCore.volume import Volume

# A slice counts if its head covers at least this share of the largest slice's head.
MIN_HEAD_SHARE = 0.1


def filled_slices(volume: Volume) -> list[int]:
    """The axial slices with enough head, numbered from the lowest as `IMTCore.preparation.prepare` orders them."""
    array = anatomical_axes(volume.geometry, "axial").apply(volume.array)
    normalisation = normalisation_of(array)
    head = (normalisation.apply(array) > AIR_SHARE) & foreground_mask(array, normalisation.background)
    area = head.sum(axis=(1, 2))
    return np.flatnonzero(area >= MIN_HEAD_SHARE * area.max()).tolist()


def choose_slices(filled: dict[str, list[int]], total: int) -> dict[str, list[int]]:
    """`total` slices, spread evenly over the subjects and within each.

    Args:
        filled: {subject: slices to choose from}.
        total: how many in all; a subject with few gives all it has, and the others make up for it.

    Raises:
        BadInput: there are not so many, or fewer than one for each subject.
    """
    available = sum(len(slices) for slices in filled.values())
    if not len(filled) <= total <= available:
        raise BadInput(
            f"{total} slices cannot be spread over {len(filled)} subjects, which have {available} with enough head. "
            "Give other numbers (--slices N_TRAIN N_TEST), or another seed."
        )
    quota = dict.fromkeys(sorted(filled), 0)
    left = total
    while left:  # one more for each that has one, until all are given
        for name in quota:
            if left and quota[name] < len(filled[name]):
                quota[name] += 1
                left -= 1
    return {name: evenly(filled[name], number) for name, number in quota.items()}


def evenly(slices: Sequence[int], number: int) -> list[int]:
    """`number` of `slices`, in the middle of as many equal stretches."""
    return [slices[int((n + 0.5) * len(slices) / number)] for n in range(number)]
