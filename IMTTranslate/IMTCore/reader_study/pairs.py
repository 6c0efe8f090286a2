"""The pairs of a reader study: a real volume and the synthetic one of the same grid, and how their slices are drawn.

Nothing but the anatomy may tell the two apart. Both are drawn within one mask, as a network's background is exactly 0 and a
scanner's is noise, and each is scaled by its own 99.5th percentile (the convention "p99.5" of `metrics`), so that neither
the air nor the brightness gives the synthetic one away.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..files import stem_of
from ..intensity import AIR_SHARE, background_value, normalisation_of
from ..metrics import PERCENTILE
from ..orientation import AxisMap, anatomical_axes
from ..provenance import read_mark, sidecar_path
from ..slicing import resampling_matrix
from ..volume import Volume
from ..volume_io import image_suffix, read_volume

COLUMNS = ("case", "real", "synthetic")
GRID_TOLERANCE_MM = 1e-2
MIN_AREA_SHARE = 0.25  # a slice is shown if its mask has this share of the area that the case's largest slice has
MARGIN = 4  # pixels around the mask's box
SQUARE_TOLERANCE = 1.01  # in-plane voxels whose sides differ by more are resampled to square pixels


@dataclass(frozen=True)
class Pair:
    """Files of one case: the acquired image, the synthetic one, and a mask file or None."""

    case: str
    real: Path
    synthetic: Path
    mask: Path | None = None


def pairs_from_csv(path: Path) -> list[Pair]:
    """Read pairs from a CSV file with the columns case, real, synthetic and, if wanted, mask; paths start at its folder.

    Raises:
        BadInput: unreadable, columns missing, empty fields, no rows, or a case that comes twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a readable CSV file in UTF-8 ({error}).") from error
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise BadInput(f"{path} must have a header line {','.join(COLUMNS)} (and mask, if wanted) and one line a pair.")
    pairs: list[Pair] = []
    for line, row in enumerate(rows, start=2):
        case, real, synthetic = ((row[column] or "").strip() for column in COLUMNS)
        if not (case and real and synthetic):
            raise BadInput(f"{path}, line {line}: {', '.join(COLUMNS)} must not be empty.")
        if case in [pair.case for pair in pairs]:
            raise BadInput(f"{path}, line {line}: case {case} comes twice. Give every pair its own name.")
        mask = (row.get("mask") or "").strip()
        pairs.append(Pair(case, path.parent / real, path.parent / synthetic, path.parent / mask if mask else None))
    return pairs


def pairs_from_folders(real: Path, synthetic: Path) -> list[Pair]:
    """Pair the images of the same name in two folders: `<case>.<suffix>`, or `<case>/<modality>.<suffix>` in both.

    The second is what `imt translate` writes for many cases. Images that only one folder has are left out.

    Raises:
        BadInput: a folder is missing, both are one, no name is in both, or a name comes twice.
    """
    for folder in (real, synthetic):
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder. Give the folder with the images, or --pairs with a CSV file.")
    if real.resolve() == synthetic.resolve():
        raise BadInput(f"The real and the synthetic folder are the same: {real}. Give two folders.")
    first, second = _named_images(real), _named_images(synthetic)
    pairs = [Pair(name, first[name], second[name]) for name in sorted(first.keys() & second.keys())]
    if not pairs:
        raise BadInput(
            f"No image of {synthetic} has the name of one in {real}. Name them alike (<case>.nii.gz or <case>/T2.nii.gz), "
            "or give --pairs with a CSV file."
        )
    return pairs


def _named_images(folder: Path) -> dict[str, Path]:
    """The images of a folder and of its sub-folders by their name without suffix, such as "case_00/T2"."""
    found: dict[str, Path] = {}
    for path in sorted([*folder.iterdir(), *folder.glob("*/*")]):
        if path.is_file() and not path.name.startswith(".") and image_suffix(path) not in (None, ".img"):
            name = path.parent.relative_to(folder).joinpath(stem_of(path)).as_posix()
            if name in found:
                raise BadInput(f"{path} and {found[name]} have one name. Leave one image of each name in {folder}.")
            found[name] = path
    return found


@dataclass(frozen=True)
class PairImages:
    """A pair as read, in the study's orientation.

    Attributes:
        pair: its files.
        real, synthetic: [k, j, i], k through the study's plane.
        mask: boolean, same shape; what is outside is drawn black in both.
        pixel_mm: size of a voxel along j and i.
    """

    pair: Pair
    real: np.ndarray
    synthetic: np.ndarray
    mask: np.ndarray
    pixel_mm: tuple[float, float]

    def shown_slices(self) -> list[int]:
        """The slices [k] with enough foreground."""
        areas = self.mask.sum(axis=(1, 2))
        return [int(k) for k in np.flatnonzero((areas > 0) & (areas >= MIN_AREA_SHARE * areas.max()))]


def read_pair(pair: Pair, plane: str) -> PairImages:
    """Read both images of a pair, and find the mask within which they are drawn.

    Raises:
        BadInput: unreadable, on different grids, equal, the real one marked as synthetic by IMT or the synthetic one as something
            else than a translation, or nothing is foreground in both; the message names the case.
    """
    try:
        real, synthetic = read_volume(pair.real), read_volume(pair.synthetic)
        mask = read_volume(pair.mask) if pair.mask else None
        if read_mark(sidecar_path(pair.real)).get("synthetic") is True:
            raise BadInput(f"{pair.real} is marked as synthetic and cannot be the real image. Were the two exchanged?")
        mark = read_mark(sidecar_path(pair.synthetic))
        if mark.get("synthetic") is True and mark.get("content", "translation") != "translation":
            raise BadInput(f"{pair.synthetic} is marked as {mark['content']}, not as a translation. Give the translated image.")
        for path, volume in ((pair.synthetic, synthetic), (pair.mask, mask)):
            if volume is not None and not volume.geometry.is_close(real.geometry, GRID_TOLERANCE_MM):
                raise BadInput(
                    f"{path} is not on the grid of {pair.real} (sizes {volume.array.shape[::-1]} and {real.array.shape[::-1]}, "
                    "or another position). Resample it onto the real image's grid first."
                )
        axes = anatomical_axes(real.geometry, plane)
        return _oriented(pair, axes, real, synthetic, mask)
    except BadInput as error:
        raise BadInput(f"Case {pair.case}: {error}") from error


def _oriented(pair: Pair, axes: AxisMap, real: Volume, synthetic: Volume, mask: Volume | None) -> PairImages:
    first, second = (axes.apply(volume.array).astype(np.float32) for volume in (real, synthetic))
    region = common_mask(first, second) if mask is None else axes.apply(mask.array) > 0
    if not region.any():
        raise BadInput("nothing is foreground in both images. Are they of one patient?" if mask is None else "the mask is empty.")
    if np.array_equal(first[region], second[region]):
        raise BadInput(f"{pair.synthetic} holds the same image as {pair.real}. Give the translated image.")
    return PairImages(pair, first, second, region, axes.spacing_kji(real.geometry)[1:])


def common_mask(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Where both images [k, j, i] show the head: no specks of noise in the air, and no holes within a slice.

    An image with a flat background is foreground where it differs from that; if neither has one, the real image's voxels above a
    tenth of its range count.
    """
    from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, label

    backgrounds = [(image, background_value(image)) for image in (real, synthetic)]
    masks = [image != value for image, value in backgrounds if value is not None]
    inside = np.logical_and.reduce(masks) if masks else normalisation_of(real).apply(real) > AIR_SHARE
    structure = np.ones((1, 3, 3), bool)  # within the slices, which may be few and thick
    parts, count = label(binary_opening(inside, structure))
    if count == 0:
        return np.zeros(real.shape, bool)
    largest = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    head = binary_dilation(largest, structure) & inside
    return np.stack([binary_fill_holes(part) for part in head])


@dataclass(frozen=True)
class Drawing:
    """How the slices of one pair become grey images: the windows (black, white) of both, and the rows and columns drawn."""

    real_window: tuple[float, float]
    synthetic_window: tuple[float, float]
    box: tuple[int, int, int, int]
    to_rows: np.ndarray
    to_columns: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return len(self.to_rows), len(self.to_columns)


def plan_drawing(images: PairImages) -> Drawing:
    """The window, the box and the pixel grid for a pair, the same box and grid for both images.

    Black is 0 and white each image's 99.5th percentile within the mask. If one of the two has negative values there, black is the
    0.5th percentile in both. Where voxels are not square, the longer side is interpolated linearly.

    Raises:
        BadInput: if an image has no contrast within the mask.
    """
    inside = [image[images.mask].astype(np.float64) for image in (images.real, images.synthetic)]
    negative = min(float(values.min()) for values in inside) < 0
    windows = []
    for values, path in zip(inside, (images.pair.real, images.pair.synthetic), strict=True):
        low, high = (float(value) for value in np.percentile(values, [100 - PERCENTILE, PERCENTILE]))
        windows.append((low if negative else 0.0, high))
        if not high > windows[-1][0] or not high > low:
            raise BadInput(f"Case {images.pair.case}: {path} has no contrast within the mask. Choose another image.")
    footprint = images.mask[images.shown_slices()].any(axis=0)
    limits = [np.flatnonzero(footprint.any(axis=axis)) for axis in (1, 0)]
    box = [edge for found in limits for edge in (max(0, int(found[0]) - MARGIN), int(found[-1]) + 1 + MARGIN)]
    rows, columns = (len(range(size)[start:end]) for size, start, end in zip(footprint.shape, box[::2], box[1::2], strict=True))
    pixel = min(images.pixel_mm)
    matrices = []
    for count, size in zip((rows, columns), images.pixel_mm, strict=True):
        wanted = round(count * size / pixel) if size > SQUARE_TOLERANCE * pixel else count
        matrices.append(resampling_matrix(count, size, wanted, size * count / wanted))
    return Drawing(windows[0], windows[1], tuple(box), matrices[0], matrices[1])  # type: ignore[arg-type]


def draw_slice(images: PairImages, drawing: Drawing, k: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Slice k of the real and of the synthetic image, uint8 of `shape` (rows, columns), black outside the mask."""
    part = (k, slice(*drawing.box[:2]), slice(*drawing.box[2:]))
    mask = images.mask[part].astype(np.float32)
    inside = drawing.to_rows @ mask @ drawing.to_columns.T > 0.5
    drawn = []
    for image, (low, high) in ((images.real, drawing.real_window), (images.synthetic, drawing.synthetic_window)):
        scaled = np.clip((image[part] - low) / (high - low), 0, 1) * mask
        grey = np.rint(255 * (drawing.to_rows @ scaled @ drawing.to_columns.T)).astype(np.uint8) * inside
        canvas = np.zeros(shape, np.uint8)
        top, left = (shape[0] - grey.shape[0]) // 2, (shape[1] - grey.shape[1]) // 2
        canvas[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
        drawn.append(canvas)
    return drawn[0], drawn[1]
