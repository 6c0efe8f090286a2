"""Paired slices for training, from any layout that `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from datasets import Subject, find_subjects, read_modalities

from IMTCore.errors import BadInput
from IMTCore.intensity import AIR_SHARE, foreground_mask, normalisation_of
from IMTCore.preparation import PreparedVolume, prepare
from IMTCore.slicing import SlicingSpec
from IMTCore.volume import Volume

# A slice whose target covers less of the head than this was cut off by the field of view. Training also leaves out the
# single pixels that were not acquired.
MIN_TARGET_COVER = 0.5
MIN_FOREGROUND_PIXELS = 200


@dataclass
class Pair:
    """One subject's prepared source and targets on the network's grid, in one plane.

    Attributes:
        name: `<dataset>/<subject>`.
        source: the prepared source volume.
        targets: {modality: [k, rows, columns] float16 in [-1, 1]}.
        usable: {modality: [k] bool}, the slices on which that target may be learned.
        context: [k, rows, columns] float16 in [-1, 1], a previous stage's translation (auto-context), or None.
    """

    name: str
    source: PreparedVolume
    targets: dict[str, np.ndarray]
    usable: dict[str, np.ndarray]
    context: np.ndarray | None = field(default=None, repr=False)

    @property
    def slices(self) -> np.ndarray:
        """Slices with something to learn."""
        return np.flatnonzero(np.any(list(self.usable.values()), axis=0))


def find_subject(root: Path, name: str, modality: str) -> Path | None:
    """The image of `<dataset>/<subject>` in plain folders, or None."""
    path = root / name / f"{modality}.nii.gz"
    return path if path.exists() else None


def expand(root: Path, patterns: list[str]) -> list[str]:
    """`<dataset>/<subject>` names below `root` that match the patterns (`nichart/*`), sorted and each once."""
    names = {folder.relative_to(root).as_posix() for pattern in patterns for folder in root.glob(pattern) if folder.is_dir()}
    return sorted(names)


def is_pattern(text: str) -> bool:
    """Whether `text` has wildcards; else it is the one name of a subject, which must be there."""
    return any(mark in text.replace("[[]", "").replace("[*]", "").replace("[?]", "") for mark in "*?[")


def select_subjects(
    root: Path, patterns: Sequence[str], exclude: Sequence[str] = (), layout: str = "folders"
) -> list[Subject]:
    """The subjects that match `patterns` and not `exclude`, sorted by name; none of their files is opened.

    Raises:
        BadInput: a pattern matches no subject of the layout.
    """
    everyone = find_subjects(root, layout)
    for pattern in patterns:
        if not any(fnmatchcase(subject.name, pattern) for subject in everyone):
            what = "matches no subject" if is_pattern(pattern) else "is no subject"
            raise BadInput(f"{pattern} {what} in {root} (layout {layout}, {len(everyone)} subjects). Mend it or leave it out.")
    return [
        subject
        for subject in everyone
        if _matches(subject, patterns) and not _matches(subject, exclude)
    ]


def _matches(subject: Subject, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(subject.name, pattern) for pattern in patterns)


def check_patients(root: Path, patterns: Sequence[str], held_out: Sequence[str], layout: str = "folders") -> None:
    """Refuse to train on one session of a patient and hold another one out.

    Raises:
        BadInput: naming both sessions.
    """
    if not held_out:
        return
    kept_back = {(s.dataset, s.patient): s.name for s in find_subjects(root, layout) if _matches(s, held_out)}
    for subject in select_subjects(root, patterns, held_out, layout):
        other = kept_back.get((subject.dataset, subject.patient))
        if other is not None:
            raise BadInput(f"{subject.name} would be trained on, but {other} of the same patient is held out: exclude both or neither.")


def make_pair(name: str, volumes: dict[str, Volume], source: str, targets: Sequence[str], spec: SlicingSpec, stride: int) -> Pair:
    """Prepare one subject's images {modality: volume}, on one grid, in the plane of `spec`."""
    prepared = prepare(volumes[source], spec, stride)
    images: dict[str, np.ndarray] = {}
    usable: dict[str, np.ndarray] = {}
    # Noise in the air is no head.
    head = prepared.normalisation.apply(prepared.axes.apply(volumes[source].array)) > AIR_SHARE
    head &= prepared.foreground
    covered = head.sum(axis=(1, 2))
    for modality in targets:
        array = prepared.axes.apply(volumes[modality].array)
        normalisation = normalisation_of(array)
        foreground = foreground_mask(array, normalisation.background)
        normalised = np.where(foreground, np.clip(normalisation.apply(array), 0, 1), 0)
        images[modality] = prepared.grid.to_network(normalised).astype(np.float16)
        cover = (foreground & head).sum(axis=(1, 2)) / np.maximum(covered, 1)
        usable[modality] = prepared.filled & (covered >= MIN_FOREGROUND_PIXELS) & (cover >= MIN_TARGET_COVER)
    return Pair(name, prepared, images, usable)


def load_subject(
    subject: Subject, source: str, targets: Sequence[str], specs: Sequence[SlicingSpec], stride: int
) -> list[Pair]:
    """Read and prepare one subject in every plane; empty if it has the source or every target missing.

    Raises:
        BadInput: an image is unreadable, empty or on another grid; names the subject.
    """
    there = [target for target in targets if target in subject.images]
    if source not in subject.images or not there:
        return []
    volumes = read_modalities(subject, [source, *there])
    try:
        return [make_pair(subject.name, volumes, source, there, spec, stride) for spec in specs]
    except BadInput as error:
        raise BadInput(f"{subject.name}: {error} Mend its images or leave it out (--exclude {subject.name}).") from error


def load_pairs(
    root: Path,
    patterns: Sequence[str],
    exclude: Sequence[str],
    source: str,
    targets: Sequence[str],
    specs: Sequence[SlicingSpec],
    stride: int,
    layout: str = "folders",
) -> list[Pair]:
    """All usable subjects matching `patterns`, in every plane of `specs`.

    A subject that a wildcard found is left out, said aloud, if it lacks the modalities. Subjects matching `exclude` are
    held out: their files are not even opened.

    Raises:
        BadInput: a subject given by its name lacks the modalities, or an image cannot be used; names the subject.
    """
    pairs: list[Pair] = []
    wanted = f"{source} with {' or '.join(targets)}"
    for subject in select_subjects(root, patterns, exclude, layout):
        made = load_subject(subject, source, targets, specs, stride)
        if not made:
            if any(not is_pattern(p) and fnmatchcase(subject.name, p) for p in patterns):
                there = ", ".join(sorted(subject.images)) or "no image"
                raise BadInput(f"{subject.name} has no {wanted} (it has {there}). Add the image or leave the subject out.")
            print(f"left out: {subject.name} (no {wanted})", flush=True)
        pairs += [pair for pair in made if pair.slices.size]
    return pairs


def keep_slices(pairs: Sequence[Pair], chosen: Mapping[str, Sequence[int]]) -> list[Pair]:
    """The pairs with only the axial slices that a split chose, {subject: slices}; a subject it does not name keeps all.

    Raises:
        BadInput: slices of another plane, or a slice that the volume does not have; names the subject.
    """
    kept = []
    for pair in pairs:
        numbers = np.array(chosen.get(pair.name, ()), int)
        if numbers.size and pair.source.spec.plane != "axial":
            raise BadInput(f"The split chose axial slices of {pair.name}: train with --planes axial, or with a split without slices.")
        if numbers.size and numbers.max() >= len(pair.source.filled):
            raise BadInput(f"The split chose slice {numbers.max()} of {pair.name}, which has {len(pair.source.filled)}. Make the split anew.")
        if numbers.size:
            wanted = np.isin(np.arange(len(pair.source.filled)), numbers)
            pair = replace(pair, usable={modality: usable & wanted for modality, usable in pair.usable.items()})
        if pair.slices.size:
            kept.append(pair)
    return kept
