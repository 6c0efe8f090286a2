"""Where the second modality comes from: a translation model, or a real image brought to the given image's grid."""

from __future__ import annotations

import numpy as np

from IMTCore.cards import ModelCard
from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, BadModel
from IMTCore.intensity import background_value, foreground_mask
from IMTCore.plausibility import check_many_values
from IMTCore.volume import Geometry, Volume, check_image

from .segmentation_settings import SegmentationSettings
from .segmenter_cards import SegmenterCard

SAME_GRID_MM = 1e-2
MIN_COVERED = 0.9  # of the given image's foreground; below, what is missing is worth a word


def find_translator(card: SegmenterCard, settings: SegmentationSettings) -> ModelCard | None:
    """The translation model that makes the card's second modality; None if the card needs none.

    The settings' own model comes before the card's.

    Raises:
        BadModel: it is not there, is not the file of the card, or translates another pair; says what to do.
        BadInput: a model is named and none is needed, or needed and not named.
    """
    if card.second is None:
        if settings.translator is not None:
            raise BadInput(f"Model {card.name} segments the {card.source} image alone: leave the translation model out (--translator).")
        return None
    if settings.translator is not None:
        found = find_card(settings.translator)
    elif card.translator is not None:
        found = _translator_of(card)
    else:
        raise BadInput(
            f"Model {card.name} needs a {card.second} image beside the {card.source} image, and names no model that makes one. "
            f"Give the {card.second} image (--second), or a model that translates {card.source} to {card.second} (--translator)."
        )
    if not found.translates(card.source, card.second):
        raise BadModel(
            f"Model {found.name} does not translate {card.source} to {card.second}, which model {card.name} needs. "
            "Choose another (--translator; imt models list shows them)."
        )
    return found


def _translator_of(card: SegmenterCard) -> ModelCard:
    name, sha256 = card.translator["name"], card.translator["sha256"].lower()
    remedy = f"or choose another that translates {card.source} to {card.second} (--translator), or give the {card.second} image (--second)"
    try:
        found = find_card(name)
    except BadModel as error:
        raise BadModel(
            f"The translation model {name}, with whose images model {card.name} was trained, is not here: import or download it, {remedy}."
        ) from error
    if found.sha256 != sha256:
        raise BadModel(
            f"The translation model {found.name} here ({found.path}) is not the one with whose images model {card.name} was trained: "
            f"its SHA-256 begins with {found.sha256[:12]} instead of {sha256[:12]}. Get that model, {remedy}."
        )
    return found


def fit_second(second: Volume, given: Volume) -> tuple[Volume, list[str]]:
    """The second image on the given image's grid, and what is worth a word.

    On the same grid it stays as it is; else it is resampled by its position (linear; beyond its edge, its background).

    Returns:
        The second image, array [k, j, i] on `given.geometry`, and warnings.

    Raises:
        BadInput: no usable image, or it shows nothing where the given image is.
    """
    check_image(second)
    check_many_values(second)
    if second.geometry.is_close(given.geometry, SAME_GRID_MM):
        return Volume(second.array, given.geometry, second.name), []
    values = _resample(second, given.geometry)
    covered = np.isfinite(values)
    head = foreground_mask(given.array, background_value(given.array))
    share = float(covered[head].mean()) if head.any() else 0.0
    background = background_value(second.array)
    values[~covered] = float(second.array.min()) if background is None else background
    if share == 0 or values.min() == values.max():
        raise BadInput(
            f"The second image {second.name} shows nothing where {given.name} is: they do not overlap in space. "
            "Check that both are of one examination, or register it first."
        )
    warnings = [f"{second.name} is on another grid than {given.name}: it was resampled by its position, and not registered."]
    if share < MIN_COVERED:
        warnings.append(f"{second.name} covers only {share:.0%} of {given.name}; the rest was segmented without it.")
    return Volume(values, given.geometry, second.name), warnings


def _resample(moving: Volume, fixed: Geometry) -> np.ndarray:
    """Linear, float32 [k, j, i] on `fixed`; NaN beyond the moving grid."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(moving.array, dtype=np.float32))
    image.SetSpacing(moving.geometry.spacing_mm.tolist())
    image.SetOrigin(moving.geometry.origin_lps.tolist())
    image.SetDirection(moving.geometry.direction.ravel().tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in fixed.shape[::-1]])
    resampler.SetOutputSpacing(fixed.spacing_mm.tolist())
    resampler.SetOutputOrigin(fixed.origin_lps.tolist())
    resampler.SetOutputDirection(fixed.direction.ravel().tolist())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(float("nan"))
    return sitk.GetArrayFromImage(resampler.Execute(image))
