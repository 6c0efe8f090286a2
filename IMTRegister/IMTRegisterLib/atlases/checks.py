"""The checks of one atlas: its files, its labels and their grid, its landmarks."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from IMTCore.cases import SAFE_NAME
from IMTCore.errors import BadInput
from IMTCore.label_names import FILE_NAME, MAX_CODE, LabelNames
from IMTCore.volume import Geometry
from IMTCore.volume_io import read_volume

from ..deformations.transforms import voxel_indices
from .landmarks import read_landmarks

LABELS, LANDMARKS = "labels", "landmarks"
SHOWN = 20  # items of a list in one message
SAME_GRID_MM = 1e-2  # headers of several programs agree to about 1e-3


@dataclass(frozen=True)
class AtlasFacts:
    """What was read of one atlas: its modalities; the grid of its labels, and code -> ml (no grid if they cannot be read)."""

    name: str
    modalities: tuple[str, ...]
    geometry: Geometry | None = None
    volumes_ml: dict[int, float] = field(default_factory=dict)
    landmarks: int = 0


@dataclass
class AtlasFiles:
    """The files of one atlas as they were found, and what there is to say of it."""

    name: str
    folder: Path
    files: dict[str, list[Path]] = field(default_factory=dict)  # modality, "labels" or "landmarks" -> files
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, kind: str, path: Path) -> None:
        """File `path` under its kind, in the spelling that came first."""
        known = next((known for known in self.files if known.casefold() == kind.casefold()), kind)
        self.files.setdefault(known, []).append(path)

    def images(self, labels: str) -> list[str]:
        """The modalities that there are."""
        return [kind for kind in self.files if kind.casefold() not in (labels.casefold(), LABELS, LANDMARKS)]

    def first(self, kind: str) -> Path | None:
        """The first file of a kind."""
        return next((paths[0] for known, paths in self.files.items() if known.casefold() == kind.casefold()), None)

    def problem(self, text: str) -> None:
        """Note a fault of this atlas."""
        self.problems.append(f"{self.name}: {text}")


def check_atlas(
    files: AtlasFiles, modalities: Sequence[str], labels: str, names: LabelNames | None
) -> tuple[AtlasFacts, tuple | None]:
    """The atlas's facts, and a digest of its labels; its faults and warnings are noted in `files`."""
    for kind, paths in files.files.items():
        if len(paths) > 1:
            files.problem(f"there are {len(paths)} files for {kind}: {', '.join(file.name for file in paths)}. Keep one")
    there = files.images(labels)
    if unsafe := [kind for kind in there if not SAFE_NAME.fullmatch(kind) or kind.startswith(".")]:
        files.problem(f"the modality {unsafe[0]!r} becomes a file's name. Use letters, digits and . _ + - only")
    for modality in modalities:
        if modality.casefold() not in {kind.casefold() for kind in there}:
            files.problem(f"there is no {modality} image, but {', '.join(there) or 'none at all'}. Add {modality}.nii.gz, or leave the atlas out")
    if not there and not modalities:
        files.problem("there is no image. Add one as <modality>.nii.gz")
    geometry, volumes, digest = None, {}, None
    labels_path = files.first(labels)
    if labels_path is None:
        files.problem(f"there are no labels. Add {labels}.nii.gz")
    else:
        geometry, volumes, digest = _check_labels(files, labels_path, names)
    wanted = {modality.casefold() for modality in modalities}
    _check_images(files, [kind for kind in there if not wanted or kind.casefold() in wanted], geometry)
    landmarks = _check_landmarks(files, geometry)
    return AtlasFacts(files.name, tuple(spelling(kind, modalities) for kind in there), geometry, volumes, landmarks), digest


def _check_labels(files: AtlasFiles, path: Path, names: LabelNames | None) -> tuple[Geometry | None, dict[int, float], tuple | None]:
    try:
        geometry, array = read_label_map(path)
    except BadInput as error:
        files.problem(str(error).rstrip("."))
        return None, {}, None
    counts = np.bincount(array.ravel())
    ml = float(np.prod(geometry.spacing_mm)) / 1000
    volumes = {int(code): float(counts[code] * ml) for code in np.flatnonzero(counts) if code}
    if names is not None and (unknown := [code for code in volumes if code not in names]):
        files.problem(f"the label codes {listed(unknown)} are not in {FILE_NAME}. Add a line for each, or correct {path.name}")
    return geometry, volumes, (array.shape, zlib.crc32(array.tobytes()))


def read_label_map(path: Path | str) -> tuple[Geometry, np.ndarray]:
    """Read a label map: its grid, and its codes [k, j, i] as uint16.

    Raises:
        BadInput: not readable, no label in it, or values that are not whole numbers from 0 to 65535.
    """
    try:
        volume = read_volume(path)
    except BadInput as error:
        if " is constant " in str(error):
            raise BadInput(f"{path} is empty: all its voxels have one value, so there is no label in it.") from error
        raise
    array = volume.array
    if np.issubdtype(array.dtype, np.floating) and (array != np.rint(array)).any():
        share = float((array != np.rint(array)).mean())
        raise BadInput(f"{path} is no label map: {share:.1%} of its voxels are no whole numbers. Resample labels by nearest neighbour.")
    if array.min() < 0 or array.max() > MAX_CODE:
        wrong = np.unique(array[(array < 0) | (array > MAX_CODE)])
        raise BadInput(f"{path} has the label codes {listed([int(code) for code in wrong])}; IMT takes those from 0 to {MAX_CODE}.")
    return volume.geometry, array.astype(np.uint16)


def _check_images(files: AtlasFiles, kinds: Sequence[str], geometry: Geometry | None) -> None:
    elsewhere: dict[str, list[str]] = {}
    for kind in kinds:
        try:
            image = read_volume(files.files[kind][0]).geometry
        except BadInput as error:
            files.problem(str(error).rstrip("."))
            continue
        if geometry is not None and not image.is_close(geometry, SAME_GRID_MM):
            grids = describe_grid(image), describe_grid(geometry)
            elsewhere.setdefault(f"{grids[0]} against {grids[1]}" if grids[0] != grids[1] else "at another place", []).append(kind)
    for how, others in elsewhere.items():
        files.problem(
            f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} on another grid than the labels ({how}). "
            "Resample the labels onto the image, by nearest neighbour, or the image onto the labels"
        )


def _check_landmarks(files: AtlasFiles, geometry: Geometry | None) -> int:
    path = files.first(LANDMARKS)
    if path is None:
        return 0
    try:
        points = read_landmarks(path)
    except BadInput as error:
        files.problem(str(error).rstrip("."))
        return 0
    if geometry is not None:
        i_j_k = voxel_indices(geometry, np.array(list(points.values())))
        outside = ((i_j_k < -0.5) | (i_j_k > np.array(geometry.shape[::-1]) - 0.5)).any(axis=1)
        if outside.any():
            names = [name for name, out in zip(points, outside, strict=True) if out]
            files.warnings.append(f"{files.name}: the landmarks {', '.join(names)} lie outside the image. Is {path.name} in LPS, mm?")
    return len(points)


def spelling(kind: str, modalities: Sequence[str]) -> str:
    """A modality as it was asked for, if it was; else as the file has it."""
    return next((modality for modality in modalities if modality.casefold() == kind.casefold()), kind)


def describe_grid(geometry: Geometry) -> str:
    """Size and voxel size, for messages."""
    size = "x".join(str(n) for n in geometry.shape[::-1])
    return f"{size} voxels of {'x'.join(f'{mm:.4g}' for mm in geometry.spacing_mm)} mm"


def listed(items: Iterable[object]) -> str:
    """The first items of a list, and how many more there are."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")
