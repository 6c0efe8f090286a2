"""Paired slices for training, from folders laid out as `<dataset>/<subject>/<modality>.nii.gz`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from IMTCore.intensity import AIR_SHARE, foreground_mask, normalisation_of
from IMTCore.preparation import PreparedVolume, prepare
from IMTCore.slicing import SlicingSpec
from IMTCore.volume_io import read_volume

# A slice whose target covers less of the head than this was cut off by the field of view. Training also leaves out the
# single pixels that were not acquired.
MIN_TARGET_COVER = 0.5
MIN_FOREGROUND_PIXELS = 200


@dataclass
class Pair:
    """One subject's prepared source and targets on the network's grid.

    Attributes:
        name: `<dataset>/<subject>`.
        source: the prepared source volume.
        targets: {modality: [k, rows, columns] float16 in [-1, 1]}.
        usable: {modality: [k] bool}, the slices on which that target may be learned.
    """

    name: str
    source: PreparedVolume
    targets: dict[str, np.ndarray]
    usable: dict[str, np.ndarray]

    @property
    def slices(self) -> np.ndarray:
        """Slices with something to learn."""
        return np.flatnonzero(np.any(list(self.usable.values()), axis=0))


def find_subject(root: Path, name: str, modality: str) -> Path | None:
    """The image of `<dataset>/<subject>`, or None."""
    path = root / name / f"{modality}.nii.gz"
    return path if path.exists() else None


def expand(root: Path, patterns: list[str]) -> list[str]:
    """`<dataset>/<subject>` names below `root` that match the patterns (`nichart/*`), sorted and each once."""
    names = {str(folder.relative_to(root)) for pattern in patterns for folder in root.glob(pattern) if folder.is_dir()}
    return sorted(names)


def load_pair(root: Path, name: str, source: str, targets: list[str], spec: SlicingSpec, stride: int) -> Pair | None:
    """Read and prepare one subject, or None if it has the source or every target missing."""
    source_path = find_subject(root, name, source)
    target_paths = {t: p for t in targets if (p := find_subject(root, name, t)) is not None}
    if source_path is None or not target_paths:
        return None
    volume = read_volume(source_path)
    prepared = prepare(volume, spec, stride)
    images: dict[str, np.ndarray] = {}
    usable: dict[str, np.ndarray] = {}
    head = prepared.normalisation.apply(prepared.axes.apply(volume.array)) > AIR_SHARE  # noise in the air is no head
    head &= prepared.foreground
    covered = head.sum(axis=(1, 2))
    for modality, path in target_paths.items():
        array = prepared.axes.apply(read_volume(path).array)
        normalisation = normalisation_of(array)
        foreground = foreground_mask(array, normalisation.background)
        normalised = np.where(foreground, np.clip(normalisation.apply(array), 0, 1), 0)
        images[modality] = prepared.grid.to_network(normalised).astype(np.float16)
        cover = (foreground & head).sum(axis=(1, 2)) / np.maximum(covered, 1)
        usable[modality] = prepared.filled & (covered >= MIN_FOREGROUND_PIXELS) & (cover >= MIN_TARGET_COVER)
    return Pair(name, prepared, images, usable)


def load_pairs(
    root: Path, patterns: list[str], exclude: list[str], source: str, targets: list[str], spec: SlicingSpec, stride: int
) -> list[Pair]:
    """All usable subjects matching `patterns`; a subject without the modalities is left out, said aloud.

    Subjects matching `exclude` are held out: their files are not even opened.
    """
    pairs = []
    held_out = set(expand(root, exclude))
    for name in expand(root, patterns):
        if name in held_out:
            continue
        pair = load_pair(root, name, source, targets, spec, stride)
        if pair is None:
            print(f"left out: {name} (no {source} with {' or '.join(targets)})")
        elif pair.slices.size:
            pairs.append(pair)
    return pairs
