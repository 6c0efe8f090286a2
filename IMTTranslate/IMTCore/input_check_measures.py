"""What can be measured of an image of a head before it goes to a model: extent, cuts, skull, histogram, evenness, symmetry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .contrast import TOP_AREA_MM2, averaged, between, depth_in_head
from .errors import BadInput
from .intensity import AIR_SHARE, background_value, foreground_mask
from .volume import Volume

PERCENTILES = (10, 25, 50, 75, 90)  # of the normalised head: the landmarks of its histogram
EMPTY_SHARE = 0.01  # of the largest cross-section: a slice with less shows no head
RIM_MM = (2.5, 7.5)  # depths at which a whole head shows its scalp ...
SKULL_MM = (7.5, 15.0)  # ... its skull ...
INNER_MM = (18.0, 40.0)  # ... and the brain
BRAIN_DEPTH_MM = 100.0  # below the top of the head: what lies deeper is face and neck, darker or brighter than the brain
BRAIN_TOP_MM = (20.0, 80.0)  # below the top of the head: where the ring is looked for
WHOLE_DIP, STRIPPED_DIP = 0.72, 0.75  # skull over scalp: 0.14 to 0.71 in whole heads, 0.77 and more in stripped brains
BRAIN_HEIGHT_MM = 165.0  # taller than any brain: stripped ones measured 104 to 152 mm (a template)
MIN_RING = 50  # voxels
SYMMETRY_STEP_MM = 8.0
MAX_VALUES = 300_000

SIDES = ("bottom", "top", "front", "back", "right", "left")  # the ends of the axial axes k, j, i


@dataclass(frozen=True)
class InputMeasures:
    """Measures of one image, the same however it is stored.

    Attributes:
        voxel_mm: smallest and largest edge of a voxel.
        height_mm, length_mm, width_mm: of the head, towards the top, the back and the side.
        cut: for each of `SIDES`, the share (0 to 1) of the largest cross-section that the head's last slice there has.
        skull: "stripped", "whole" or "unclear".
        landmarks: `PERCENTILES` of the head's intensities, normalised to 0 to 1.
        clipped: share of the head's voxels that have exactly its highest value.
        levels: different values in the head, as far as a sample of it tells.
        drift: how unlike the halves of the head's upper 10 cm are: the largest |log2 of their medians' ratio| of right and
            left, front and back, top and bottom (an octave is 1).
        symmetry: correlation of the image with its mirror image along top, back and side.
    """

    voxel_mm: tuple[float, float]
    height_mm: float
    length_mm: float
    width_mm: float
    cut: dict[str, float]
    skull: str
    landmarks: tuple[float, ...]
    clipped: float
    levels: int
    drift: float
    symmetry: tuple[float, float, float]


def measure_input(volume: Volume) -> InputMeasures | None:
    """Measure an image.

    Args:
        volume: a scalar image, array [k, j, i], any orientation.

    Returns:
        None if it shows no head: nothing that is brighter than air and as large as 30 cm² in a slice.
    """
    try:
        image, spacing = averaged(volume)
    except BadInput:
        return None
    shown = image > AIR_SHARE
    inside = between(shown, 1) & between(shown, 2)
    inside &= (inside.sum(axis=(1, 2)) * spacing[1] * spacing[2] > TOP_AREA_MM2 / 10)[:, None, None]
    if not (inside.sum(axis=(1, 2)) * spacing[1] * spacing[2] > TOP_AREA_MM2).any():
        return None
    sections = [inside.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    filled = [np.flatnonzero(section > EMPTY_SHARE * section.max()) for section in sections]
    cut = {}
    for axis, (section, places) in enumerate(zip(sections, filled, strict=True)):
        for side, place in zip(SIDES[2 * axis : 2 * axis + 2], (places[0], places[-1]), strict=True):
            cut[side] = round(float(section[place] / section.max()), 3)
    box = tuple(slice(places[0], places[-1] + 1) for places in filled)
    image, inside = image[box], inside[box]
    height, length, width = (float(n * step) for n, step in zip(image.shape, spacing, strict=True))
    tissue = inside & (image > AIR_SHARE)
    clipped, levels = _values(volume)
    return InputMeasures(
        voxel_mm=(float(volume.geometry.spacing_mm.min()), float(volume.geometry.spacing_mm.max())),
        height_mm=height,
        length_mm=length,
        width_mm=width,
        cut=cut,
        skull=_skull(image, inside, spacing),
        landmarks=tuple(round(float(value), 4) for value in np.percentile(image[tissue], PERCENTILES)),
        clipped=clipped,
        levels=levels,
        drift=_drift(*(array[-max(1, int(BRAIN_DEPTH_MM / spacing[0])) :] for array in (image, tissue))),
        symmetry=_symmetry(np.where(inside, image, 0), spacing),
    )


def _skull(image: np.ndarray, inside: np.ndarray, spacing: np.ndarray) -> str:
    """Whether there is a ring of scalp and skull round the brain: bright or grey, then dark."""
    area = inside.sum(axis=(1, 2)) * spacing[1] * spacing[2]
    large = np.flatnonzero(area > TOP_AREA_MM2)
    below_top = (large[-1] - np.arange(len(area))) * spacing[0]
    kept = (below_top >= BRAIN_TOP_MM[0]) & (below_top <= BRAIN_TOP_MM[1])
    if not kept.any():
        kept = area > TOP_AREA_MM2  # a slab
    image, inside = image[kept], inside[kept]
    depth = np.minimum(depth_in_head(inside, 1, spacing[1]), depth_in_head(inside, 2, spacing[2]))

    def level(near: float, far: float) -> float:
        ring = image[inside & (depth >= near) & (depth < far)]
        return float(np.median(ring)) if ring.size >= MIN_RING else np.nan

    rim = [level(near, near + 2.5) for near in np.arange(*RIM_MM, 2.5)]
    skull = [level(near, near + 2.5) for near in np.arange(*SKULL_MM, 2.5)]
    if not np.isfinite([*rim, *skull]).all() or max(rim) <= 0:
        return "unclear"
    dip = min(skull) / max(rim)
    if dip < WHOLE_DIP or len(large) * spacing[0] > BRAIN_HEIGHT_MM:
        return "whole"
    return "stripped" if dip >= STRIPPED_DIP else "unclear"


def _values(volume: Volume) -> tuple[float, int]:
    """The share of the head's voxels at its highest value, and how many different values there are."""
    array = volume.array
    background = background_value(array)
    head = array[foreground_mask(array, background)]
    top = head.max()
    sample = head[:: max(1, head.size // MAX_VALUES)]
    air = float(head.min()) if background is None else background
    bright = sample[sample > air + AIR_SHARE * (float(top) - air)]
    return round(float((bright == top).mean()) if bright.size else 0.0, 5), int(np.unique(sample).size)


def _drift(image: np.ndarray, tissue: np.ndarray) -> float:
    """The largest |log2 ratio| of the medians of two opposite halves of the tissue."""
    worst = 0.0
    for axis in range(3):
        weight = tissue.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
        middle = int(np.searchsorted(weight, weight[-1] / 2)) + 1
        halves = (np.take(image, part, axis)[np.take(tissue, part, axis)] for part in (np.arange(middle), np.arange(middle, image.shape[axis])))
        medians = [float(np.median(half)) for half in halves if half.size >= MIN_RING]
        if len(medians) == 2:
            worst = max(worst, abs(float(np.log2(medians[0] / medians[1]))))
    return round(worst, 3)


def _symmetry(image: np.ndarray, spacing: np.ndarray) -> tuple[float, float, float]:
    """Correlation with the mirror image along each axis, on a grid of about 8 mm."""
    for axis in range(3):
        n = max(1, round(SYMMETRY_STEP_MM / spacing[axis]))
        image = np.moveaxis(image, axis, 0)
        image = np.pad(image, [(0, -len(image) % n), (0, 0), (0, 0)])
        image = np.moveaxis(image.reshape(-1, n, *image.shape[1:]).mean(axis=1), 0, axis)
    found = []
    for axis in range(3):
        mirrored = np.flip(image, axis)
        spread = float(image.std() ** 2)
        found.append(round(float(((image - image.mean()) * (mirrored - image.mean())).mean() / spread), 3) if spread > 0 else 0.0)
    return tuple(found)  # type: ignore[return-value]
