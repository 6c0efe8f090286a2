"""Which modality does an image show? A guess from its intensities and where they lie, without its name or header.

Ten features of the inner head go into a multinomial logistic regression, whose coefficients
(`Resources/IMT-contrast.json`) `Resources/Training/fit_contrast.py` fits; its README has the measured accuracy. They
describe what tells the contrasts apart: cerebrospinal fluid is dark (T1, FLAIR) or bright (T2), and white matter, the
smoothest tissue and the farthest from fluid, is brighter (T1) or darker (T2, FLAIR, PD) than grey matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .errors import BadInput, BadModel
from .intensity import AIR_SHARE, foreground_mask, normalisation_of
from .orientation import anatomical_axes
from .volume import Volume

MODALITIES = ("T1", "T2", "FLAIR", "PD")
UNSURE = "unsure"
NAMED = ("T1", "T2", "FLAIR")  # PD was learned from phantoms and one template, which is too little to name it
LIKELY = 0.8  # from this probability on a guess has a name
SURE_ODDS = 100.0  # a wrong name reached 8 to 1 on real images, 50 to 1 on phantoms: Resources/Training/README.md

FEATURES = ("grain 4 mm", "grain 8 mm", "smoothest", "beside fluid", "beside fluid, brightest",
            "skewness", "bright tail", "centre, dark", "centre, middle", "centre, skewness")  # fmt: skip
COEFFICIENTS = ("mean", "scale", "weights", "bias", "centres", "precision", "most_unusual")
UNKNOWN = np.full(len(MODALITIES), 1 / len(MODALITIES))
GRID_MM = (4.0, 2.0, 2.0)  # finer voxels are averaged to this: noise and resolution then matter little
SAMPLE = 500_000  # voxels from which the normalisation is computed
WIDTH_MM = (80.0, 270.0)  # of a head in the axial plane
TOP_AREA_MM2 = 3000.0  # the head begins at the slice that shows so much of it
BELOW_TOP_MM = (12.0, 95.0)  # the brain's place in a whole head
INNER_MM = 18.0  # so far from the surface there is brain, with and without a skull
MIN_INNER_MM3 = 20_000.0
MIN_VOXELS = 50  # of a region that is measured
COIL_MM = 25.0  # brightness that varies more slowly is the receive coil's
CENTRE_MM = (30.0, 45.0, 24.0)  # ventricles: so deep, and so far at most from the middle along j and i
REACH = 1.5  # tails beyond count no more: tumours, vessels, fat
CLIP = 3.0  # standard deviations at which a feature stops to count


@dataclass(frozen=True)
class ModalityGuess:
    """What an image looks like.

    Attributes:
        modality: T1, T2, FLAIR or "unsure".
        probabilities: of each of `MODALITIES`, in [0, 1], summing to 1; all equal where the image is not like a head.
        unusual: distance from the nearest modality's training images in standard deviations (0 or more); infinite
            where no head was found.
    """

    modality: str
    probabilities: dict[str, float]
    unusual: float

    def speaks_against(self, wanted: str) -> bool:
        """Whether this names another modality than `wanted`, one of `MODALITIES`."""
        return self.modality not in (UNSURE, wanted)

    def odds_against(self, wanted: str) -> float:
        """How many times likelier the modality that this names is than `wanted`; 0 where it names that one or none."""
        return self.probabilities[self.modality] / max(self.probabilities[wanted], 1e-9) if self.speaks_against(wanted) else 0.0

    def is_sure_not(self, wanted: str) -> bool:
        """Whether this is surely another modality than `wanted`; never where that is PD."""
        return wanted in NAMED and self.odds_against(wanted) >= SURE_ODDS


def guess_modality(volume: Volume) -> ModalityGuess:
    """Guess T1, T2 or FLAIR from the image alone.

    PD is never named: it was learned from one real image and phantoms. Without that image, 10 of its 12 views were
    unsure and 2 passed for T1; of 120 phantoms of other heads, 104 and 16. T1 after contrast agent counts as T1; with
    bright tumours it is unsure or passes for FLAIR (15 of 55), not surely and never for T2.

    Args:
        volume: a scalar image of a head or a skull-stripped brain, [k, j, i], any orientation, 1 to 4 mm (one axis may
            be coarser), any unit and offset of intensity.

    Raises:
        BadModel: if the coefficients that come with IMT are damaged or missing.
    """
    values = contrast_features(volume)
    return _guess(UNKNOWN, np.inf) if values is None else guess_from_features(values, _shipped_coefficients())


def guess_from_features(values: np.ndarray, coefficients: Mapping[str, np.ndarray]) -> ModalityGuess:
    """The guess that `coefficients` (`COEFFICIENTS`, as fitted) make of `contrast_features`' values, (10,)."""
    scaled = (values - coefficients["mean"]) / coefficients["scale"]
    offsets = scaled - coefficients["centres"]
    unusual = float(np.sqrt(np.einsum("cf,fg,cg->c", offsets, coefficients["precision"], offsets).min()))
    if unusual > coefficients["most_unusual"]:
        return _guess(UNKNOWN, unusual)
    scores = coefficients["weights"] @ np.clip(scaled, -CLIP, CLIP) + coefficients["bias"]
    shares = np.exp(scores - scores.max())
    return _guess(shares / shares.sum(), unusual)


def _guess(shares: np.ndarray, unusual: float) -> ModalityGuess:
    best = int(shares.argmax())
    modality = MODALITIES[best] if shares[best] >= LIKELY and MODALITIES[best] in NAMED else UNSURE
    return ModalityGuess(modality, dict(zip(MODALITIES, map(float, shares), strict=True)), unusual)


@lru_cache(maxsize=1)
def _shipped_coefficients() -> dict[str, np.ndarray]:
    path = coefficients_path()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (tuple(content["features"]), tuple(content["modalities"])) != (FEATURES, MODALITIES):
            raise ValueError("it is of another version")
        return {name: np.array(content[name], np.float64) for name in COEFFICIENTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(f"{path}, by which modalities are recognised, cannot be used: {error}. Install IMT again.") from error


def coefficients_path() -> Path:
    """The file of the fitted coefficients: in a checkout, in Slicer, or in an installed wheel."""
    module = Path(__file__).resolve().parents[1]
    beside = module / "Resources" / "IMT-contrast.json"
    return beside if beside.is_file() else module / "IMTResources" / "IMT-contrast.json"


def contrast_features(volume: Volume) -> np.ndarray | None:
    """The `FEATURES` of an image (float64, no unit), which no storage order and no linear change of intensity alters.

    Returns:
        None if there is no head of the usual size in it, or too little of it (less than 20 ml of the inner head).
    """
    try:
        image, spacing = averaged(volume)
    except BadInput:
        return None
    shown = image > AIR_SHARE
    inside = between(shown, 1) & between(shown, 2)  # ventricles and sulci may be as dark as air
    area = inside.sum(axis=(1, 2)) * spacing[1] * spacing[2]
    if not (area > TOP_AREA_MM2).any():
        return None
    below_top = (np.flatnonzero(area > TOP_AREA_MM2)[-1] - np.arange(len(area))) * spacing[0]
    kept = (below_top >= 0) & (below_top <= BELOW_TOP_MM[1])
    image, inside, below_top = image[kept], inside[kept], below_top[kept]
    rows, columns = (np.flatnonzero(inside.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    image, inside = (a[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for a in (image, inside))
    widths = np.array(image.shape[1:]) * spacing[1:]
    if widths.min() < WIDTH_MM[0] or widths.max() > WIDTH_MM[1]:
        return None
    depth = np.minimum(depth_in_head(inside, 1, spacing[1]), depth_in_head(inside, 2, spacing[2]))
    inner = inside & (depth > INNER_MM)
    if (below_top >= BELOW_TOP_MM[0]).any():  # else a slab, thinner than that
        inner &= (below_top >= BELOW_TOP_MM[0])[:, None, None]
    if inner.sum() * spacing.prod() < MIN_INNER_MM3:
        return None
    return _features(image, inside, inner, depth, spacing)


def _features(
    image: np.ndarray, inside: np.ndarray, inner: np.ndarray, depth: np.ndarray, spacing: np.ndarray
) -> np.ndarray | None:
    weight = inside.astype(np.float32)

    def local_mean(values: np.ndarray, millimetres: float, in_plane: bool = True) -> np.ndarray:
        reach = np.round(millimetres / spacing).astype(int) * ([0, 1, 1] if in_plane else [1, 1, 1])
        return box_sum(values * weight, reach) / np.maximum(box_sum(weight, reach), 1)

    even = image / np.maximum(local_mean(image, COIL_MM, in_plane=False), 1e-3)
    dark, middle, high = np.percentile(even[inner], [5, 50, 95])
    if not high > dark:
        return None
    even_z = np.clip((even - middle) / (high - dark), -REACH, REACH)
    tissue = even_z[inner]
    mean = local_mean(even_z, 4)
    grain = [_skewness((even_z - m)[inner], 5) for m in (mean, local_mean(even_z, 8))]

    # The level of the smoothest tissue among all that is not fluid-dark: white matter's place between the others.
    roughness = (local_mean(even_z**2, 4) - mean**2)[inner]
    solid = tissue > np.percentile(tissue, 15)
    level = np.median(tissue[roughness <= np.percentile(roughness, 15)])
    fluid = local_mean((even <= np.percentile(even[inner], 10)).astype(np.float32), 8)[inner]
    beside, away = tissue[solid & (fluid > 0.05)], tissue[solid & (fluid <= 0.001)]

    places = (np.arange(n) * step for n, step in zip(image.shape[1:], spacing[1:], strict=True))
    sizes = inside.sum(axis=(0, 2)), inside.sum(axis=(0, 1))
    off_j, off_i = (np.abs(x - np.average(x, weights=size)) for x, size in zip(places, sizes, strict=True))
    near_middle = (off_j < CENTRE_MM[1])[:, None] & (off_i < CENTRE_MM[2])
    deep = even_z[inner & (depth > CENTRE_MM[0]) & near_middle]
    if min(beside.size, away.size, deep.size) < MIN_VOXELS:
        return None
    fluid_side = np.percentile(beside, [50, 90]) - np.median(away)
    deep_dark, deep_middle, deep_bright = np.percentile(deep, [5, 50, 95])
    typical, bright = np.percentile(image[inner], [50, 98])
    tails = _skewness(even[inner], 1), bright / max(typical, 1e-3)
    ventricles = deep_dark, deep_middle, deep_dark + deep_bright - 2 * deep_middle
    return np.array([*grain, (tissue[solid] < level).mean(), *fluid_side, *tails, *ventricles])


def averaged(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The volume, axial [k, j, i], normalised to 0–1 and averaged to about `GRID_MM`; and its spacing in mm."""
    axes = anatomical_axes(volume.geometry)
    spacing = np.array(axes.spacing_kji(volume.geometry))
    array = axes.apply(volume.array)
    factors = np.clip(np.round(np.array(GRID_MM) / spacing).astype(int), 1, array.shape)
    steps = np.where(factors >= 4, factors // 2, 1)  # of many voxels some will do
    blocks = factors // steps
    array = array[tuple(slice(None, None, s) for s in steps)]
    stride = max(1, round((array.size / SAMPLE) ** (1 / 2)))
    normalisation = normalisation_of(array[:, ::stride, ::stride])
    image = np.clip(normalisation.apply(array), 0, 1)
    image[~foreground_mask(array, normalisation.background)] = 0
    for axis, n in enumerate(blocks):
        image = np.moveaxis(image, axis, 0)
        whole = len(image) // n * n
        image = np.moveaxis(sum(image[first:whole:n] for first in range(n)) / np.float32(n), 0, axis)
    return image, spacing * steps * blocks


def between(mask: np.ndarray, axis: int) -> np.ndarray:
    """Everything between the first and the last True along `axis`."""
    after = np.logical_or.accumulate(mask, axis)
    return after & np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)


def depth_in_head(mask: np.ndarray, axis: int, step_mm: float) -> np.ndarray:
    """Distance in mm along `axis` to the nearer of the first and the last True."""
    n = mask.shape[axis]
    places = np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)])
    first = np.expand_dims(mask.argmax(axis), axis)
    last = n - 1 - np.expand_dims(np.flip(mask, axis).argmax(axis), axis)
    return (np.minimum(places - first, last - places) + 0.5) * step_mm


def box_sum(values: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Sums over boxes of 2 × `reach` + 1 voxels; beyond the array there is 0.

    As scipy.ndimage.uniform_filter, whose import would cost every translation more time than this takes.
    """
    for axis, r in enumerate(reach):
        if r:
            padding = [(r + 1, r) if a == axis else (0, 0) for a in range(3)]
            total = np.moveaxis(np.cumsum(np.pad(values, padding), axis=axis, dtype=np.float64), axis, 0)
            values = np.moveaxis(total[2 * r + 1 :] - total[: -2 * r - 1], 0, axis)
    return values


def _skewness(values: np.ndarray, percentile: float) -> float:
    """From −1 to 1: how much longer the upper tail is than the lower; 0 without tails."""
    low, middle, high = np.percentile(values, [percentile, 50, 100 - percentile])
    return float((low + high - 2 * middle) / max(high - low, 1e-6))
