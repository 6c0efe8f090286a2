"""Make an atlas set in IMT's layout from a folder or a CSV file: all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from IMTCore.errors import BadInput, OutputFailure
from IMTCore.files import describe_write_error, give_usual_mode, temporary_folder
from IMTCore.label_names import FILE_NAME, write_label_names
from IMTCore.progress import Progress, quiet
from IMTCore.volume_io import image_suffix, read_volume, save_volume

from .atlas_sets import Atlas, AtlasSet, AtlasSetCheck, check_atlas_set, refuse_problems
from .checks import LABELS, LANDMARKS
from .landmarks import landmark_suffix

STORED = ".nii.gz"


@dataclass(frozen=True)
class BuiltSet:
    """A set that was made. `origins`: the atlases' new names -> those in the source."""

    atlases: AtlasSet
    origins: dict[str, str]


def build_atlas_set(
    source: Path | str,
    output: Path | str,
    modalities: Sequence[str] = (),
    labels: str = LABELS,
    names_path: Path | str | None = None,
    rename: bool = False,
    progress: Progress = quiet,
) -> BuiltSet:
    """Check a set and copy it to a new folder in IMT's layout.

    Images become `<modality>.nii.gz`, labels `labels.nii.gz` in the smallest unsigned integer type, and the labels' names
    `labels.csv`; `.nii.gz` images are copied byte by byte.

    Args:
        source, modalities, labels, names_path: as `check_atlas_set`. With `modalities` only those are copied.
        output: the new folder; it must not be there, or be empty.
        rename: call the atlases atlas01, atlas02, ... in their order, for example where names tell persons.
        progress: hears of every atlas; what it raises leaves nothing behind.

    Raises:
        BadInput: any fault of the source (see `read_atlas_set`), or `output` is there already. OutputFailure: not writable.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BadInput(f"{output} exists and is not empty; nothing in it is changed. Choose another folder.")
    checked = check_atlas_set(source, modalities, labels, names_path, lambda stage, part, name: progress(stage, part / 2, name))
    refuse_problems(checked)
    width = max(2, len(str(len(checked.atlases))))
    new_names = [f"atlas{n:0{width}}" if rename else atlas.name for n, atlas in enumerate(checked.atlases, start=1)]
    try:
        staging = temporary_folder(output)
    except OSError as error:
        raise OutputFailure(describe_write_error(output, error)) from error
    try:
        for number, (name, atlas) in enumerate(zip(new_names, checked.atlases, strict=True)):
            progress("copy", 0.5 + number / len(new_names) / 2, atlas.name)
            _store_atlas(atlas, staging / name, modalities)
        write_label_names(staging / FILE_NAME, checked.names)
        if output.is_dir():
            output.rmdir()
        give_usual_mode(staging)
        os.replace(staging, output)
    except OSError as error:
        raise OutputFailure(describe_write_error(output, error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    origins = {name: atlas.name for name, atlas in zip(new_names, checked.atlases, strict=True)}
    return BuiltSet(_as_stored(checked, output, new_names, modalities), origins)


def _store_atlas(atlas: Atlas, folder: Path, modalities: Sequence[str]) -> None:
    folder.mkdir()
    for modality, path in _kept(atlas, modalities).items():
        if image_suffix(path) == STORED:
            shutil.copyfile(path, folder / f"{modality}{STORED}")
        else:
            save_volume(folder / f"{modality}{STORED}", read_volume(path))
    volume = read_volume(atlas.labels)
    small = np.uint8 if volume.array.max() < 256 else np.uint16
    save_volume(folder / f"{LABELS}{STORED}", volume.with_array(volume.array.astype(small)))
    if atlas.landmarks is not None:
        shutil.copyfile(atlas.landmarks, folder / f"{LANDMARKS}{landmark_suffix(atlas.landmarks)}")


def _kept(atlas: Atlas, modalities: Sequence[str]) -> dict[str, Path]:
    return {modality: path for modality, path in atlas.images.items() if not modalities or modality in modalities}


def _as_stored(checked: AtlasSetCheck, output: Path, new_names: Sequence[str], modalities: Sequence[str]) -> AtlasSet:
    """The set at its new place; what is in it was checked before it was copied."""
    atlases = []
    for name, atlas in zip(new_names, checked.atlases, strict=True):
        folder = output / name
        images = {modality: folder / f"{modality}{STORED}" for modality in _kept(atlas, modalities)}
        landmarks = atlas.landmarks and folder / f"{LANDMARKS}{landmark_suffix(atlas.landmarks)}"
        atlases.append(Atlas(name, folder, images, folder / f"{LABELS}{STORED}", landmarks))
    return AtlasSet(output, tuple(atlases), checked.names, checked.codes, checked.warnings, checked.facts)
