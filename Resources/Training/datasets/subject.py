"""One subject of a data set: its name, its patient, and where its images and labels lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume

# Headers store grids in float32 or as text; two that are this close are one.
GRID_TOLERANCE_MM = 1e-2


@dataclass(frozen=True)
class Subject:
    """A subject (one scan session) of a data set.

    Attributes:
        name: `<dataset>/<subject>`.
        patient: whose sessions must stay together in a split; unique within the data set only.
        images: {modality: file or folder}.
        labels: {label name: file or folder}; the name decides what the codes mean (`labels.RULES`).
        readers: {modality: how it is read}, for formats that the core's reader does not know.
    """

    name: str
    patient: str
    images: dict[str, Path]
    labels: dict[str, Path] = field(default_factory=dict)
    readers: dict[str, Callable[[Path], Volume]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def dataset(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    def volume(self, modality: str) -> Volume:
        """The image of `modality`: array [k, j, i] in the file's values, named `<dataset>/<subject> <modality>`.

        Raises:
            BadInput: missing or unreadable; names the subject and the file.
        """
        return self._read(modality, self.images, "image")

    def label(self, name: str) -> Volume:
        """The label map `name`: array [k, j, i] of integers, the release's own codes.

        Raises:
            BadInput: missing, unreadable, or with values that are no whole numbers; names the subject and the file.
        """
        volume = self._read(name, self.labels, "label map")
        if np.issubdtype(volume.array.dtype, np.integer):
            return volume
        codes = np.rint(volume.array).astype(np.int32)
        if np.abs(codes - volume.array).max() > 1e-3:  # scaled integers come back as floats
            raise BadInput(f"{self.name}: {self.labels[name]} is no label map: it has values that are not whole numbers.")
        return volume.with_array(codes)

    def _read(self, key: str, files: dict[str, Path], what: str) -> Volume:
        if key not in files:
            there = ", ".join(sorted(files)) or "none"
            raise BadInput(f"{self.name} has no {what} {key} (it has: {there}). Choose others, or leave the subject out.")
        path = files[key]
        try:
            volume = self.readers[key](path) if key in self.readers else read_volume(path, constant=files is self.labels)
        except (BadInput, OSError) as error:
            where = "" if str(path) in str(error) else f"{path}: "
            raise BadInput(f"{self.name}, {what} {key}: {where}{error}") from error
        return volume.with_array(volume.array, f"{self.name} {key}")


def add_image(images: dict[str, Path], modality: str, path: Path) -> str:
    """Enter a file under its modality; a second of one modality becomes `T1-2`, so that none is hidden. The key used."""
    key, number = modality, 1
    while key in images:
        number += 1
        key = f"{modality}-{number}"
    images[key] = path
    return key


def check_same_grid(subject: Subject, volumes: dict[str, Volume]) -> None:
    """Refuse images or labels of one subject that do not lie on one grid.

    Raises:
        BadInput: naming the subject, the first two that differ and both grids.
    """
    named = list(volumes.items())
    for name, volume in named[1:]:
        if not volume.geometry.is_close(named[0][1].geometry, GRID_TOLERANCE_MM):
            raise BadInput(
                f"{subject.name}: {name} ({grid_text(volume)}) is not on the grid of {named[0][0]} ({grid_text(named[0][1])}). "
                "If they are registered, prepare_dataset.py --resample brings them to one grid; else register them first."
            )


def read_modalities(subject: Subject, modalities: Sequence[str], labels: Sequence[str] = ()) -> dict[str, Volume]:
    """{name: volume} of these modalities and label maps, all on one grid.

    Raises:
        BadInput: one is missing or unreadable, or their grids differ.
    """
    volumes = {modality: subject.volume(modality) for modality in modalities}
    volumes |= {name: subject.label(name) for name in labels}
    check_same_grid(subject, volumes)
    return volumes


def grid_text(volume: Volume) -> str:
    """A grid in words: size and spacing along i, j, k, the origin, and turned axes."""
    geometry = volume.geometry
    size = "x".join(str(n) for n in reversed(geometry.shape))
    spacing = "x".join(f"{s:.4g}" for s in geometry.spacing_mm)
    origin = ", ".join(f"{x:.2f}" for x in geometry.origin_lps)
    axes = " ".join("(" + ", ".join(f"{x:.3g}" for x in axis) + ")" for axis in geometry.direction.T)
    return f"{size} voxels of {spacing} mm from LPS ({origin}) along {axes}"
