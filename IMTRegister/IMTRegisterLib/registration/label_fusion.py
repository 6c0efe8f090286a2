"""Fusion of the labels that several registered atlases give a subject.

- "mean": the mean over atlases of each label's linearly interpolated mask; the label with the largest mean wins (Yang et
  al. 2020, Cross-modality registration: the registered atlases' labels are averaged).
- "majority": the label that most atlases give, each by its nearest voxel.
- "staple": the most probable label by the performance that STAPLE estimates for each atlas (Warfield, Zou & Wells, IEEE
  TMI 23:903, 2004; for several labels Rohlfing, Russakoff & Maurer, IPMI 2003, as in ITK's MultiLabelSTAPLE).

Background, 0, is a class like the others, and of two labels with the same share the lower code wins. No array of codes
by voxels is ever held: there may be 100 labels and more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.progress import Progress, quiet

METHODS = ("mean", "majority", "staple")
SLAB = 16  # slices worked on at a time: bounds the memory of boolean copies
TIE = 1e-6  # shares closer than this are the same: what is left of float32's rounding
MAX_ITERATIONS = 100  # STAPLE settles in 5 to 30

Shares = Iterable[tuple[int, np.ndarray]]  # (code, (K, J, I) share 0-1), codes ascending
Fused = tuple[np.ndarray, np.ndarray]


def fuse_labels(
    atlases: Iterable[np.ndarray] | Sequence[Shares],
    method: str,
    codes: Iterable[int],
    weights: Sequence[float] | None = None,
    progress: Progress = quiet,
) -> Fused:
    """Fuse the labels of registered atlases.

    Args:
        atlases: for "mean" one iterator an atlas, as of `mean_labels`; for the others one integer array (K, J, I) an atlas,
            of nearest labels.
        method: one of `METHODS`.
        codes: the labels to keep; all others count as background. 0 may be among them.
        weights: the atlases' weights, 0 or more, scaled to sum to 1; None for equal ones. STAPLE takes none.
        progress: hears of every label, or part of the volume; what it raises ends the work.

    Returns:
        labels (K, J, I), uint8 or if a code needs it uint16; and agreement (K, J, I) float32, 0 to 1: the (weighted) share
        of the atlases for the label that won.

    Raises:
        BadInput: an unknown method, no atlas, arrays that differ in size, weights that do not fit.
    """
    fusers: dict[str, Callable[..., Fused]] = {"mean": mean_labels, "majority": majority_labels, "staple": staple_labels}
    if method not in fusers:
        raise BadInput(f"Unknown label fusion {method!r}: use one of {', '.join(METHODS)}.")
    if method != "staple":
        return fusers[method](atlases, codes, weights, progress)
    if weights is not None and len(set(weights)) > 1:
        raise BadInput("STAPLE estimates each atlas's weight itself: leave the weights out, or fuse by mean or majority.")
    return staple_labels(atlases, codes, progress)


def mean_labels(
    atlases: Sequence[Shares], codes: Iterable[int], weights: Sequence[float] | None = None, progress: Progress = quiet
) -> Fused:
    """Average each label's mask over the atlases and take the largest mean.

    The atlases' iterators are read side by side, one label at a time. What the labels leave of a voxel, and so all of one
    beyond an atlas's edge, is background.

    Args:
        atlases: for each atlas an iterator of (code, share (K, J, I) float, 0 to 1), the codes ascending. It may leave out
            codes that it does not have; those not in `codes` are passed over.

    Other arguments, result and errors as `fuse_labels`.
    """
    chosen = _codes(codes)
    readers = [_Reader(atlas) for atlas in atlases]
    parts = _weights(weights, len(readers))
    labels = best = total = None
    for done, code in enumerate(chosen):
        progress("fuse", done / len(chosen), f"label {code}")
        mean: np.ndarray | None = None
        for reader, part in zip(readers, parts, strict=True):
            share = reader.take(code)
            if share is None:
                continue
            if mean is not None and mean.shape != share.shape or total is not None and total.shape != share.shape:
                raise BadInput("The registered atlases' labels differ in size.")
            mean = np.zeros(share.shape, np.float32) if mean is None else mean
            mean += np.float32(part) * share
        if mean is None:
            continue
        if total is None:
            labels, best, total = _empty(mean.shape, chosen), np.zeros(mean.shape, np.float32), np.zeros(mean.shape, np.float32)
        total += mean
        wins = mean > best + TIE
        labels[wins] = code
        best[wins] = mean[wins]
    if total is None:
        raise BadInput(f"No atlas has any of the labels {', '.join(map(str, chosen)) or '(none was chosen)'}.")
    background = np.clip(1 - total, 0, 1)
    wins = background >= best - TIE
    labels[wins] = 0
    best[wins] = background[wins]
    return labels, np.clip(best, 0, 1)


def majority_labels(
    atlases: Iterable[np.ndarray], codes: Iterable[int], weights: Sequence[float] | None = None, progress: Progress = quiet
) -> Fused:
    """The label that most atlases give (or those of most weight). Arguments, result and errors as `fuse_labels`."""
    chosen = _codes(codes)
    stack = _stack(atlases, chosen)
    return _vote(stack, chosen, _weights(weights, len(stack)), progress)


def staple_labels(atlases: Iterable[np.ndarray], codes: Iterable[int], progress: Progress = quiet) -> Fused:
    """Multi-label STAPLE, by SimpleITK, within the box that holds all labels of all atlases; beyond it is background.

    A voxel that STAPLE leaves undecided (two labels with the same probability) takes the majority's label, the lower code
    of two with as many votes. The agreement is the share of the atlases for the label that won, and not STAPLE's own
    probability, which ITK does not give. Arguments, result and errors as `fuse_labels`.
    """
    import SimpleITK as sitk

    chosen = _codes(codes)
    stack = _stack(atlases, chosen)
    voted, agreement = _vote(stack, chosen, _weights(None, len(stack)), quiet)
    box = _box(stack)
    if len(stack) == 1 or box is None:
        return voted, agreement
    progress("fuse", 0.2, "STAPLE")
    present = np.array([0, *chosen])  # consecutive numbers: ITK's tables have a row for every number up to the largest
    staple = sitk.MultiLabelSTAPLEImageFilter()
    staple.SetLabelForUndecidedPixels(len(present))
    staple.SetMaximumNumberOfIterations(MAX_ITERATIONS)
    cancel: list[BaseException] = []
    _listen(staple, progress, cancel)
    try:
        images = [sitk.GetImageFromArray(np.searchsorted(present, labels[box]).astype(np.uint16)) for labels in stack]
        number = sitk.GetArrayFromImage(staple.Execute(images))
    except RuntimeError:
        if not cancel:
            raise
    if cancel:
        raise cancel[0]
    decided = number < len(present)
    inner = voted[box]
    inner[decided] = present[number[decided]]
    voted[box] = inner
    votes = np.zeros(voted.shape, np.float32)
    for labels in stack:
        votes += labels == voted
    return voted, votes / np.float32(len(stack))


class _Reader:
    """One atlas's shares, read as far as the label that is asked for."""

    def __init__(self, shares: Shares) -> None:
        self.shares: Iterator[tuple[int, np.ndarray]] = iter(shares)
        self.code, self.share = -1, None

    def take(self, code: int) -> np.ndarray | None:
        """The share of `code`; None if the atlas does not have it."""
        while self.code < code:
            following, self.share = next(self.shares, (np.inf, None))
            if following <= self.code:
                raise ValueError(f"the labels' shares must come by ascending codes, not {following} after {self.code}")
            self.code = following
        return self.share if self.code == code else None


def _codes(codes: Iterable[int]) -> list[int]:
    chosen = sorted({int(code) for code in codes} - {0})
    if chosen and not 0 < chosen[0] <= chosen[-1] <= 65535:
        raise BadInput(f"Label codes must be from 0 to 65535, not {chosen[0]} to {chosen[-1]}.")
    return chosen


def _weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """(count,) float64 shares that sum to 1."""
    if count == 0:
        raise BadInput("There are no registered atlases to fuse labels from.")
    values = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        raise BadInput(f"The {count} atlases need {count} weights of 0 or more, not all 0: {values.tolist()}.")
    return values / values.sum()


def _empty(shape: tuple[int, ...], chosen: Sequence[int]) -> np.ndarray:
    return np.zeros(shape, np.uint8 if max(chosen, default=0) < 256 else np.uint16)


def _stack(atlases: Iterable[np.ndarray], chosen: Sequence[int]) -> list[np.ndarray]:
    """The atlases' labels in a small integer type, 0 for those that are not chosen."""
    stack: list[np.ndarray] = []
    keep = np.zeros(65536, bool)
    keep[chosen] = True
    for labels in atlases:
        if stack and labels.shape != stack[0].shape:
            raise BadInput(f"The registered atlases' labels differ in size: {labels.shape[::-1]} and {stack[0].shape[::-1]}.")
        if not (np.issubdtype(labels.dtype, np.integer) and labels.min(initial=0) >= 0 and labels.max(initial=0) <= 65535):
            raise BadInput(f"The registered atlases' labels are no whole numbers from 0 to 65535, but {labels.dtype}.")
        known = _empty(labels.shape, chosen)
        known[:] = np.where(keep[labels], labels, 0)
        stack.append(known)
    if not stack:
        raise BadInput("There are no registered atlases to fuse labels from.")
    return stack


def _vote(stack: list[np.ndarray], chosen: Sequence[int], weights: np.ndarray, progress: Progress) -> Fused:
    labels, agreement = _empty(stack[0].shape, chosen), np.zeros(stack[0].shape, np.float32)
    for start in range(0, len(agreement), SLAB):
        progress("fuse", start / len(agreement), "votes")
        part = slice(start, start + SLAB)
        slabs = [given[part] for given in stack]
        best = np.zeros(slabs[0].shape, np.float32)
        for code in np.unique(np.concatenate([np.unique(slab) for slab in slabs])):
            votes = np.zeros(best.shape, np.float32)
            for slab, weight in zip(slabs, weights, strict=True):
                votes += np.float32(weight) * (slab == code)
            wins = votes > best + TIE
            labels[part][wins] = code
            best[wins] = votes[wins]
        agreement[part] = np.clip(best, 0, 1)
    return labels, agreement


def _box(stack: Sequence[np.ndarray]) -> tuple[slice, ...] | None:
    """The smallest box with all labels of all atlases; None if there are none."""
    any_label = np.zeros(stack[0].shape, bool)
    for labels in stack:
        any_label |= labels > 0
    if not any_label.any():
        return None
    sides = [np.flatnonzero(any_label.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def _listen(staple: Any, progress: Progress, cancel: list[BaseException]) -> None:
    """Tell `progress` while the filter runs; what it raises is put into `cancel`, and ends the filter."""
    import SimpleITK as sitk

    def tell() -> None:
        try:
            progress("fuse", 0.2 + 0.8 * staple.GetProgress(), "STAPLE")
        except BaseException as error:  # it must not pass through ITK
            cancel.append(error)
            staple.Abort()

    staple.AddCommand(sitk.sitkProgressEvent, tell)
