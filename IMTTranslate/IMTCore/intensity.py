"""Intensities: the background of a volume, and one invertible normalisation for the whole of it.

Normalising slice by slice would give the same tissue another value in each slice; one linear map per volume keeps
slices consistent (Yang et al. 2020 scale images to [0, 1]; pix2pix to [-1, 1]).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from .errors import BadInput

# A value is background only if at least this share of the border has it. Below, the border is noise or tissue, and
# masking its most frequent value would punch holes into the head.
MIN_BORDER_SHARE = 0.25
# Voxels below this share of the range are air and noise: they do not count for the percentile or the head's box.
AIR_SHARE = 0.1
RANGES = 1e-30, 1e30  # of intensities that float32 can bring to 0 to 1


def border_values(array: np.ndarray) -> np.ndarray:
    """The values on the six faces of `array` [k, j, i]; of a single slice, those on its four edges."""
    faces = [face.ravel() for axis in range(3) if array.shape[axis] > 1 for face in (array.take(0, axis), array.take(-1, axis))]
    return np.concatenate(faces) if faces else array.ravel()


def background_value(array: np.ndarray) -> float | None:
    """The border's most frequent value, or None if no value dominates there (noise, or no air around the head)."""
    values, counts = np.unique(border_values(array), return_counts=True)
    mode = int(counts.argmax())
    if counts[mode] < MIN_BORDER_SHARE * counts.sum():
        return None
    return float(values[mode])


@dataclass(frozen=True)
class Normalisation:
    """A linear map of a whole volume: `low` → 0, `high` → 1. `background` is the value of air, or None."""

    low: float
    high: float
    background: float | None

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Intensities → normalised float32, of the same shape; not clipped, so that `invert` undoes it."""
        result = array.astype(np.float32)
        result -= np.float32(self.low)
        result *= np.float32(1 / (self.high - self.low))
        return result

    def invert(self, array: np.ndarray) -> np.ndarray:
        """Normalised values → intensities, float64, of the same shape."""
        return array.astype(np.float64) * (self.high - self.low) + self.low

    def record(self) -> dict[str, float | None]:
        """What a sidecar needs to repeat or undo the normalisation."""
        return asdict(self)


def foreground_mask(array: np.ndarray, background: float | None) -> np.ndarray:
    """Boolean mask of what is not background (everything, where there is no flat background)."""
    return np.ones(array.shape, bool) if background is None else array != background


def normalisation_of(array: np.ndarray, percentile: float = 99.5) -> Normalisation:
    """The normalisation of a volume: air → 0, the foreground's `percentile` → 1.

    Air is the background value; without a flat background, or with one far below all tissue (padding) or amid it
    (z-scored brains in a zero frame), the foreground's 0.5th percentile stands in. Noise in the air is left out of
    the percentile by a threshold at a tenth of the range.

    Raises:
        BadInput: if the foreground has no range of intensities.
    """
    background = background_value(array)
    foreground = array[foreground_mask(array, background)].astype(np.float64)
    if foreground.size == 0:
        raise BadInput("The volume is all background: it shows nothing.")
    floor, top = (float(v) for v in np.percentile(foreground, [0.5, percentile]))
    padding = background is not None and background < 0 and floor - background > top - floor
    low = floor if background is None or background > floor or padding else background
    tissue = foreground[foreground > low + AIR_SHARE * (top - low)]
    high = float(np.percentile(tissue, percentile)) if tissue.size else top
    if not high > low:
        high = float(foreground.max())
    if not high > low:
        raise BadInput("The volume's foreground is constant: there is no contrast.")
    if not RANGES[0] < high - low < RANGES[1]:
        raise BadInput(f"The volume's intensities span {high - low:.3g}, which single precision cannot scale. Multiply them by a number.")
    return Normalisation(low, high, background)
