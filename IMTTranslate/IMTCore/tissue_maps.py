"""Tissue maps, the anatomy of a phantom: from label maps, from files, or of the ICBM average brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import BadInput
from .tissues import CLASS_CODES, LABEL_TISSUES, TISSUES
from .volume import Geometry, Volume


@dataclass(frozen=True)
class TissueMaps:
    """The anatomy to image: `maps` of class (a key of `TISSUES`) → share [k, j, i] in [0, 1] on `geometry`.

    What is missing to 1 is air. `labels` [k, j, i] int16 are the source's own codes; without them, the `CLASS_CODES`
    of the largest share.

    Raises:
        BadInput: an unknown class, a map on another grid, shares outside [0, 1] or summing to more than 1.
    """

    maps: Mapping[str, np.ndarray]
    geometry: Geometry
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.maps or min(self.geometry.shape) < 2:
            raise BadInput(f"A phantom needs tissue maps with two voxels a side, not {len(self.maps)} of {self.geometry.shape}.")
        total = np.zeros(self.geometry.shape, np.float32)
        for name, share in self.maps.items():
            if name not in TISSUES:
                raise BadInput(f"Unknown tissue {name!r}: use some of {', '.join(TISSUES)}.")
            if share.shape != self.geometry.shape:
                raise BadInput(f"The {name} map has the shape {share.shape}, not the grid's {self.geometry.shape}. Resample it.")
            if not (share.min() >= 0 and share.max() <= 1.001):  # written so that NaN is refused
                raise BadInput(f"The {name} map must hold shares from 0 to 1, but it has {share.min():g} to {share.max():g}.")
            total += share
        if total.max() > 1.01:
            raise BadInput(f"The tissue maps add up to {total.max():.3g} in a voxel; they may not exceed 1.")
        labels = self.labels
        if labels is None:
            stack = np.stack([1 - total, *self.maps.values()])
            labels = np.array([0, *(CLASS_CODES[name] for name in self.maps)])[stack.argmax(axis=0)]
        if labels.shape != self.geometry.shape or labels.min() < -32768 or labels.max() > 32767:
            raise BadInput(f"The labels must be 16-bit codes on the maps' grid {self.geometry.shape}; theirs is {labels.shape}.")
        object.__setattr__(self, "labels", labels.astype(np.int16))


def tissue_maps_from_labels(
    volume: Volume, table: Mapping[int, str] = LABEL_TISSUES, downsample: int = 1, blur_mm: float = 0.6
) -> TissueMaps:
    """Tissue maps of a label map [k, j, i]: each code's class by `table` ("background" for air).

    `downsample` averages cubes of so many voxels (labels: the most frequent code); `blur_mm` is the sigma of a
    Gaussian that gives hard labels a partial volume.

    Raises:
        BadInput: codes that `table` lacks, a blur below 0, or a `downsample` that does not fit.
    """
    from scipy.ndimage import gaussian_filter

    codes = np.unique(volume.array)
    unknown = [code.item() for code in codes if code not in table]
    if unknown or not 0 <= blur_mm < np.inf:
        reason = f"has codes with no tissue in the table: {unknown[:20]}" if unknown else f"cannot be blurred by {blur_mm} mm"
        raise BadInput(f"{volume.name} {reason}.")
    geometry = _block_geometry(volume.geometry, downsample)
    labels, most = np.zeros(geometry.shape, np.int16), np.zeros(geometry.shape, np.float32)
    maps: dict[str, np.ndarray] = {}
    for code in codes:
        share = _block_mean(volume.array == code, downsample)
        labels[share > most] = code
        np.maximum(most, share, out=most)
        if table[code] != "background":
            maps[table[code]] = maps[table[code]] + share if table[code] in maps else share
    sigma = blur_mm / geometry.spacing_mm[::-1]
    return TissueMaps({name: np.clip(gaussian_filter(share, sigma), 0, 1) for name, share in maps.items()}, geometry, labels)


def load_tissue_maps(paths: Mapping[str, Path | str], downsample: int = 1) -> TissueMaps:
    """Read one file per class (a key of `TISSUES`), of shares from 0 to 1, or of integers from 0 to 255.

    Raises:
        BadInput: an unreadable file, grids that differ, values in another range.
    """
    from .volume_io import read_volume

    if not paths:
        raise BadInput("No tissue map was given.")
    volumes = {name: read_volume(path) for name, path in paths.items()}
    maps, first = {}, next(iter(volumes.values()))
    geometry = _block_geometry(first.geometry, downsample)
    for name, volume in volumes.items():
        if not volume.geometry.is_close(first.geometry):
            raise BadInput(f"{volume.name} and {first.name} are on different grids. Resample one onto the other.")
        integers = np.issubdtype(volume.array.dtype, np.integer) and volume.array.max() > 1
        maps[name] = _block_mean(volume.array, downsample) / np.float32(255 if integers else 1)
    excess = np.clip(sum(maps.values()), 1, 1.02)  # rounding to 8 bits lets sums pass 1; more is an error, refused below
    return TissueMaps({name: share / excess for name, share in maps.items()}, geometry)


def icbm152_tissues(folder: Path | str, downsample: int = 1) -> TissueMaps:
    """CSF, grey and white of the ICBM 2009a average brain (1 mm, skull-stripped), as nilearn's `datasets/data` ships it.

    CSF is what grey and white leave of the brain, which is where the stripped T1 template is above 0.

    Raises:
        BadInput: if the files are not there, or `downsample` does not fit.
    """
    from .volume_io import read_volume

    grey_path, white_path, t1_path = (
        Path(folder) / f"mni_icbm152_{code}_tal_nlin_sym_09a_converted.nii.gz" for code in ("gm", "wm", "t1")
    )
    tissues = load_tissue_maps({"grey": grey_path, "white": white_path}, downsample)
    brain = _block_mean(read_volume(t1_path).array > 0, downsample)
    grey, white = tissues.maps["grey"], tissues.maps["white"]
    return TissueMaps({"csf": np.clip(brain - grey - white, 0, 1), "grey": grey, "white": white}, tissues.geometry)


def _block_mean(array: np.ndarray, factor: int) -> np.ndarray:
    """[k, j, i] → float32 means of cubes of `factor` voxels a side; what is left over at the far ends is cut off."""
    if factor == 1:
        return array.astype(np.float32)
    k, j, i = (n // factor for n in array.shape)
    blocks = array[: k * factor, : j * factor, : i * factor].reshape(k, factor, j, factor, i, factor)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _block_geometry(geometry: Geometry, factor: int) -> Geometry:
    if not isinstance(factor, int | np.integer) or not 1 <= factor <= min(geometry.shape) // 2:
        raise BadInput(f"downsample must be a whole number from 1 to half the grid {geometry.shape}, not {factor}.")
    origin = geometry.origin_lps + geometry.direction @ geometry.spacing_mm * (factor - 1) / 2
    return Geometry(tuple(n // factor for n in geometry.shape), geometry.spacing_mm * factor, origin, geometry.direction)
