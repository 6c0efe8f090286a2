"""An input read, checked against a model's card, and prepared for its network. No torch: it runs beside its import."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from .bias_field import correct_bias
from .cards import ModelCard, PackageCard
from .errors import BadInput
from .input_check import unusual_input
from .orientation import anatomical_axes
from .plausibility import MIN_IN_PLANE_VOXELS, check_histogram, check_modality, check_possible
from .preparation import PreparedVolume, prepare
from .provenance import input_sha256
from .settings import TranslationSettings
from .volume import Volume, check_image
from .volume_io import read_volume

# Voxels of a further plane may be this many times as long as wide: measured to help up to 0.7 x 0.7 x 4 mm (RESULTS.md).
MAX_ELONGATION = 6


@dataclass(frozen=True)
class PreparedInput:
    """A volume ready for one model's network.

    Attributes:
        volume: the input as read.
        views: the same as network images, one a plane in which the model translates.
        warnings: what is unusual about it, in words for the user.
        seconds: spent on the preparation.
    """

    volume: Volume
    views: tuple[PreparedVolume, ...]
    warnings: list[str]
    seconds: float


@dataclass(frozen=True)
class FileInput:
    """A `PreparedInput` from a file: with the file's SHA-256 and the seconds spent on reading."""

    path: Path
    sha256: str
    given: PreparedInput
    read_seconds: float


def prepare_input(volume: Volume, card: ModelCard, settings: TranslationSettings | None = None) -> PreparedInput:
    """Check a volume against the card and prepare it as the settings say.

    Raises:
        BadInput: if the volume is no usable image or does not fit the card.
    """
    settings = settings or TranslationSettings()
    start = time.perf_counter()
    check_image(volume)
    check_possible(volume, card)
    chosen = settings.source if card.modalities and settings.source else card.source
    warnings = check_modality(volume, card, chosen, settings.check_modality)
    corrected = correct_bias(volume) if settings.bias_correction else volume
    planes = card.planes[:1] if settings.single_plane else usable_planes(volume, card)
    try:
        views = tuple(prepare(corrected, replace(card.slicing, plane=plane), card.stride, card.percentile) for plane in planes)
    except BadInput as error:
        raise BadInput(f"{volume.name}: {error} Choose another image.") from error
    unusual = check_histogram(volume, views[0], card)  # also refuses what shows no head at all
    warnings = warnings or unusual
    warnings = warnings + unusual_input(volume, card, histogram=not warnings)
    return PreparedInput(volume, views, warnings, time.perf_counter() - start)


def usable_planes(volume: Volume, card: PackageCard) -> list[str]:
    """The card's planes in which this volume has slices: its first, and others unless slices are few or thick.

    A stack of thick slices cut across shows bands, which no network was trained on.
    """
    planes = list(card.planes[:1])
    for plane in card.planes[1:]:
        axes = anatomical_axes(volume.geometry, plane)
        spacing, shape = axes.spacing_kji(volume.geometry)[1:], axes.apply(volume.array).shape[1:]
        if min(shape) >= MIN_IN_PLANE_VOXELS and max(spacing) <= MAX_ELONGATION * min(spacing):
            planes.append(plane)
    return planes


def read_input(path: Path, card: ModelCard, settings: TranslationSettings | None = None) -> FileInput:
    """Read a file or a DICOM folder, and prepare it for the card's network as the settings say.

    Raises:
        BadInput: as `read_volume` and `prepare_input`.
    """
    start = time.perf_counter()
    volume = read_volume(path)
    digest = input_sha256(path)
    seconds = time.perf_counter() - start
    return FileInput(path, digest, prepare_input(volume, card, settings), seconds)
