"""Inputs read, checked against a segmenter's card, and prepared for its network. No torch: it runs beside its import."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from IMTCore.bias_field import correct_bias
from IMTCore.cards import ModelCard, PackageCard
from IMTCore.errors import BadInput
from IMTCore.inputs import PreparedInput, usable_planes
from IMTCore.plausibility import check_histogram, check_modality, check_possible
from IMTCore.preparation import PreparedVolume, prepare
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.volume import Volume, check_image
from IMTCore.volume_io import read_volume

from .second_modality import find_translator, fit_second
from .segmentation_settings import SegmentationSettings
from .segmenter_cards import SegmenterCard

VERB = "segment"


@dataclass(frozen=True)
class SegmentationInput:
    """A given volume, and what goes with it, ready for one model's network.

    Attributes:
        volume: the given image as read.
        views: the same as network images, one a plane in which the model segments.
        second: the real second image on the grid of `volume`, or None.
        translation: the given image prepared for the translator, if one makes the second image.
        warnings: what is unusual, in words for the user.
        seconds: spent on the preparation.
        synthetic: one of the images was made by a translation, as its mark says.
    """

    volume: Volume
    views: tuple[PreparedVolume, ...]
    second: Volume | None
    translation: PreparedInput | None
    warnings: list[str]
    seconds: float
    synthetic: bool = False


@dataclass(frozen=True)
class SegmentationFiles:
    """A `SegmentationInput` from files: with their names and SHA-256, and the seconds spent on reading."""

    path: Path
    sha256: str
    second: Path | None
    second_sha256: str | None
    prepared: SegmentationInput
    read_seconds: float


def prepare_segmentation(
    given: Volume,
    second: Volume | None,
    card: SegmenterCard,
    settings: SegmentationSettings | None = None,
    translator: ModelCard | None = None,
    second_modality: str | None = None,
) -> SegmentationInput:
    """Check the images against the card and prepare them as the settings say.

    Args:
        given: the image to segment, of the card's source modality.
        second: a real (or one's own translated) image of the card's second modality; None to translate, or if none is needed.
        translator: the model that makes the second image, if there is none; its network images are prepared too, and
            shared with the segmenter's where both slice alike.
        second_modality: of a second image whose mark tells it; it is not guessed from a translation's histogram then.

    Raises:
        BadInput: no usable image, one that does not fit the card, or a second image that the model does not take.
    """
    settings = settings or SegmentationSettings()
    start = time.perf_counter()
    if second is not None and card.second is None:
        raise BadInput(f"Model {card.name} segments the {card.source} image alone: leave {second.name} out (--second).")
    if second is not None and settings.translator is not None:
        raise BadInput("A second image (--second) and a translation model (--translator) exclude each other: leave one out.")
    check_image(given)
    check_possible(given, card, VERB)
    warnings = check_modality(given, card, card.source, settings.check_modality, VERB)
    fitted, said = None, []
    if second is not None:
        fitted, said = fit_second(second, given)
        if second_modality is None or second_modality.lower() != card.second.lower():
            said = check_modality(second, card, card.second, settings.check_modality, "use") + said
    if fitted is None and translator is not None:
        check_possible(given, translator)  # its plane may be another
    corrected = correct_bias(given) if settings.bias_correction else given
    views = _views(corrected, card, {})
    unusual = check_histogram(given, views[0], card)  # also refuses what shows no head at all
    translation = None
    if fitted is None and translator is not None:
        # The model's own checks of the modality are the same as above.
        translated = _views(corrected, translator, _by_slicing(views, card))
        unusual = unusual or check_histogram(given, translated[0], translator)
        translation = PreparedInput(corrected, translated, warnings or unusual, 0.0)
    seconds = time.perf_counter() - start
    return SegmentationInput(given, views, fitted, translation, (warnings or unusual) + said, seconds)


def read_segmentation(
    path: Path, second: Path | None, card: SegmenterCard, settings: SegmentationSettings | None = None
) -> SegmentationFiles:
    """Read a file or a DICOM folder, and a second one if given, and prepare them for the card's network.

    Raises:
        BadInput: as `read_volume` and `prepare_segmentation`. BadModel: as `find_translator`.
    """
    settings = settings or SegmentationSettings()
    start = time.perf_counter()
    translator = find_translator(card, settings) if second is None else None
    volume = read_volume(path)
    other = None if second is None else read_volume(second)
    hashes = input_sha256(path), None if second is None else input_sha256(second)
    seconds = time.perf_counter() - start
    mark = {} if second is None else _mark_of(second)
    target = mark.get("target_modality") if mark.get("synthetic") is True and mark.get("content") == "translation" else None
    prepared = prepare_segmentation(volume, other, card, settings, translator, target if isinstance(target, str) else None)
    synthetic = _is_synthetic(_mark_of(path)) or _is_synthetic(mark)
    return SegmentationFiles(path, hashes[0], second, hashes[1], replace(prepared, synthetic=synthetic), seconds)


def input_records(source: SegmentationFiles) -> dict[str, Any]:
    """The inputs' names and hashes, as `write_segmentation` wants them for the marks."""
    records: dict[str, Any] = {"input": {"name": source.path.name, "sha256": source.sha256}}
    if source.second is not None:
        records["second_input"] = {"name": source.second.name, "sha256": source.second_sha256}
    return records


def _mark_of(path: Path) -> dict[str, Any]:
    """The mark beside a file, or an empty dictionary."""
    return read_mark(sidecar_path(path)) if path.is_file() else {}


def _is_synthetic(mark: dict[str, Any]) -> bool:
    """Whether a mark says that its file, or what it was made from, is a translation."""
    return mark.get("synthetic") is True or mark.get("derived_from_synthetic") is True


Slicing = tuple[object, ...]


def _slicing(card: PackageCard, plane: str) -> Slicing:
    """What decides a view's images: equal for two models, they share it."""
    spec = card.slicing
    # A padded size depends on the stride; the paper's mode pads nothing.
    extent = (spec.size,) if spec.mode == "paper" else (spec.spacing_mm, card.stride)
    return plane, spec.mode, *extent, card.percentile


def _by_slicing(views: tuple[PreparedVolume, ...], card: PackageCard) -> dict[Slicing, PreparedVolume]:
    return {_slicing(card, view.spec.plane): view for view in views}


def _views(volume: Volume, card: PackageCard, known: dict[Slicing, PreparedVolume]) -> tuple[PreparedVolume, ...]:
    """The volume in each plane of a model; those in `known` are taken from there, with the model's own neighbours."""
    views = []
    try:
        for plane in usable_planes(volume, card):
            spec = replace(card.slicing, plane=plane)
            shared = known.get(_slicing(card, plane))
            views.append(prepare(volume, spec, card.stride, card.percentile) if shared is None else replace(shared, spec=spec))
    except BadInput as error:
        raise BadInput(f"{volume.name}: {error} Choose another image.") from error
    return tuple(views)
