"""An input read, checked against a model's card, and prepared for its network. No torch: it runs beside its import."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from .bias_field import correct_bias
from .cards import ModelCard
from .errors import BadInput
from .plausibility import check_fits_card, check_possible
from .preparation import PreparedVolume, prepare
from .provenance import input_sha256
from .settings import TranslationSettings
from .volume import Volume, check_image
from .volume_io import read_volume


@dataclass(frozen=True)
class PreparedInput:
    """A volume ready for one model's network.

    Attributes:
        volume: the input as read.
        prepared: the same as network images.
        warnings: what is unusual about it, in words for the user.
        seconds: spent on the preparation.
    """

    volume: Volume
    prepared: PreparedVolume
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
    start = time.perf_counter()
    check_image(volume)
    check_possible(volume, card)
    stride = 2 ** card.content["network"]["arguments"]["depth"]
    corrected = correct_bias(volume) if settings and settings.bias_correction else volume
    try:
        prepared = prepare(corrected, card.slicing, stride, card.percentile)
    except BadInput as error:
        raise BadInput(f"{volume.name}: {error} Choose another image.") from error
    warnings = check_fits_card(volume, prepared, card, settings)
    return PreparedInput(volume, prepared, warnings, time.perf_counter() - start)


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
