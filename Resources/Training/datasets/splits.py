"""Splits by patient: every scan of a patient lands in one part. Seeded, so that a split can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from IMTCore.errors import BadInput

from .subject import Subject

PARTS = ("train", "validate", "test")
# An exact number of scans may need patients with the right number of scans; this many random orders are tried.
_TRIES = 200


@dataclass(frozen=True)
class Preset:
    """A published split.

    Attributes:
        train, test: numbers of subjects; train None is all the rest.
        slices: numbers of slices that were used of train and test, if published.
        source: where it is from.
    """

    train: int | None
    test: int
    slices: tuple[int, int] | None
    source: str


_YANG = "Yang et al. 2020, Datasets"
PRESETS = {
    "brats2015": Preset(176, 44, (1924, 451), _YANG),
    "iseg2017": Preset(18, 5, (661, 163), _YANG),
    "mrbrains13": Preset(16, 4, (704, 176), _YANG),
    "adni": Preset(40, 10, (1795, 455), _YANG),
    "rire": Preset(16, 3, (477, 156), _YANG),
    # Avula scores one whole volume; how many patients the network learned from is not said.
    "avula": Preset(None, 1, None, "Avula, phase 3 (one volume held out)"),
}

Groups = list[list[str]]


def groups_of(subjects: Sequence[Subject]) -> Groups:
    """Subject names by patient: a list for each patient, sorted."""
    groups: dict[tuple[str, str], list[str]] = {}
    for subject in subjects:
        groups.setdefault((subject.dataset, subject.patient), []).append(subject.name)
    return [sorted(groups[key]) for key in sorted(groups)]


def split_by_counts(groups: Groups, counts: dict[str, int], seed: int) -> dict[str, list[str]]:
    """Exactly `counts[part]` subjects in each part, drawn at random without breaking a patient up.

    Subjects beyond the sum of the counts are in no part.

    Raises:
        BadInput: fewer subjects than asked for, or numbers that whole patients cannot make up.
    """
    total, wanted = sum(len(group) for group in groups), sum(counts.values())
    if wanted > total:
        raise BadInput(f"The split wants {wanted} subjects, but there are {total}. Ask for fewer, or for fractions.")
    if min(counts.values()) < 0:
        raise BadInput("A part of a split cannot have a negative number of subjects.")
    random = np.random.default_rng(seed)
    for _ in range(_TRIES):
        split = _fill([groups[n] for n in random.permutation(len(groups))], counts)
        if all(len(split[part]) == counts[part] for part in counts):
            return {part: sorted(split[part]) for part in PARTS}
    sizes = sorted({len(group) for group in groups})
    raise BadInput(
        f"Parts of {', '.join(str(counts[part]) for part in counts)} subjects would break a patient up "
        f"(patients have {', '.join(map(str, sizes))} scans). Ask for other numbers, or for fractions."
    )


def _fill(groups: Groups, counts: dict[str, int]) -> dict[str, list[str]]:
    """Small parts first: each takes, in order, the patients that still fit."""
    split: dict[str, list[str]] = {part: [] for part in PARTS}
    for part in sorted(counts, key=lambda part: counts[part]):
        left: Groups = []
        for group in groups:
            fits = len(split[part]) + len(group) <= counts[part]
            (split[part] if fits else left).extend(group if fits else [group])
        groups = left
    return split


def split_by_fractions(groups: Groups, fractions: dict[str, float], seed: int) -> dict[str, list[str]]:
    """Parts of the patients (not of their scans), rounded so that all patients are used.

    Raises:
        BadInput: the fractions do not add up to 1, or one gives no patient at all.
    """
    values = [fractions.get(part, 0.0) for part in PARTS]
    if min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        raise BadInput(f"The fractions of a split must add up to 1; {' + '.join(f'{v:g}' for v in values)} do not.")
    ends = [round(end * len(groups)) for end in np.cumsum(values)]
    order = np.random.default_rng(seed).permutation(len(groups))
    split = {}
    for part, value, start, end in zip(PARTS, values, [0, *ends[:-1]], ends, strict=True):
        if value > 0 and start == end:
            raise BadInput(f"{value:g} of {len(groups)} patients is none: the split's part {part!r} would be empty.")
        split[part] = sorted(name for n in order[start:end] for name in groups[n])
    return split


def folds(groups: Groups, number: int, seed: int) -> list[dict[str, list[str]]]:
    """`number` splits in which each patient is tested exactly once; the others train.

    Raises:
        BadInput: fewer than two folds, or more folds than patients.
    """
    if not 2 <= number <= len(groups):
        raise BadInput(f"{number} folds need 2 or more folds and as many patients; there are {len(groups)} patients.")
    order = np.random.default_rng(seed).permutation(len(groups))
    splits = []
    for tested in np.array_split(order, number):
        test = {int(n) for n in tested}
        train = sorted(name for n, group in enumerate(groups) if n not in test for name in group)
        splits.append({"train": train, "validate": [], "test": sorted(name for n in test for name in groups[n])})
    return splits


def halves(groups: Groups, names: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """PartA and PartB of the paper: the training subjects 1:1, by patient (Yang et al. 2020, Cross-modality segmentation).

    Raises:
        BadInput: fewer than two patients.
    """
    kept = [group for group in groups if group[0] in set(names)]
    if len(kept) < 2:
        raise BadInput("PartA and PartB need at least two patients to train on.")
    order = np.random.default_rng(seed).permutation(len(kept))
    parts: tuple[list[str], list[str]] = ([], [])
    for n in order:  # the smaller part takes the next patient
        parts[len(parts[0]) > len(parts[1])].extend(kept[n])
    return sorted(parts[0]), sorted(parts[1])


def check_not_empty(split: dict[str, list[str]]) -> None:
    """Refuse a split that trains on nothing or holds nobody back.

    Raises:
        BadInput: naming the empty part.
    """
    if not split["train"]:
        raise BadInput("The split's part 'train' is empty: there would be nothing to learn from.")
    if not split["validate"] and not split["test"]:
        raise BadInput("The split's parts 'validate' and 'test' are both empty: nobody is held back.")
