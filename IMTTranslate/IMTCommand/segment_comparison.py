"""What a segmentation is compared with: reference labels, and the labels of another model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput
from IMTCore.label_scores import dice_scores
from IMTCore.progress import Progress, Say
from IMTCore.provenance import input_sha256
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume
from IMTSegmentLib.comparison import StructureComparison, compare_labels
from IMTSegmentLib.second_modality import find_translator
from IMTSegmentLib.segmentation_inputs import prepare_segmentation
from IMTSegmentLib.segmentation_results import SegmentationResult
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_cards import SegmenterCard

from .kept_models import kept_segmenters
from .text_table import columns, number

if TYPE_CHECKING:
    from IMTSegmentLib.segmentation import Segmenter

SCORES = ("dice", "hausdorff_95_mm", "found_ml", "reference_ml", "difference_ml", "difference_percent")
SCORE_FORMS = (".3f", ".2f", ".3f", ".3f", "+.3f", "+.1f")


class Reference:
    """Labels to score segmentations of one volume with.

    Args:
        path: the label volume.
        given: the volume to segment.
        cards: the models that segment it.

    Raises:
        BadInput: not readable, on another grid, no label map, or with codes that are not among the models' classes. A
            reference without any label is one.
    """

    def __init__(self, path: Path, given: Volume, *cards: SegmenterCard) -> None:
        self.path, self.volume, self.sha256 = path, read_volume(path, constant=True), input_sha256(path)
        nothing = given.with_array(np.zeros(given.array.shape, np.uint8), given.name)
        for card in cards:
            self.score(nothing, card)  # refuses what does not fit before any work is done

    def score(self, labels: Volume, card: SegmenterCard) -> list[StructureComparison]:
        """The scores of the labels of one model, structure by structure."""
        return compare_labels(labels, self.volume, card.classes)


def common_structures(card: SegmenterCard, other: SegmenterCard) -> list[int]:
    """The codes that stand for the same in two models.

    Raises:
        BadInput: there is none, or the models segment different modalities.
    """
    if other.source != card.source:
        raise BadInput(f"Model {other.name} segments {other.source} images, and {card.name} {card.source} images: compare models of one modality.")
    names, others = card.classes, other.classes
    codes = [code for code in names if code in others and names[code].name.casefold() == others[code].name.casefold()]
    if not codes:
        raise BadInput(f"Models {card.name} and {other.name} have no structure in common. Compare models of one task.")
    return codes


def segment_with_other(
    result: SegmentationResult, card: SegmenterCard, given: Volume, other: SegmenterCard, settings: SegmentationSettings, progress: Progress, say: Say
) -> SegmentationResult:
    """Segment the same volume with another model. If both take the same second modality, they get the same second image.

    Args:
        result, card: of the first model.
        given: the volume.
        other: the card of the other model.
        settings: those of the first.
    """
    shared = other.second is not None and other.second == card.second
    settings = replace(settings, translator=None)
    segmenter: Segmenter = kept_segmenters.find(other, settings, say) or kept_segmenters.load(other, settings, say)
    spans = {"segment": (0.0, 1.0)} if shared or other.second is None else {"translate": (0.0, 0.5), "segment": (0.5, 1.0)}

    def compare_progress(stage: str, fraction: float, message: str) -> None:
        if stage in spans:
            start, end = spans[stage]
            progress("compare", start + (end - start) * fraction, f"{other.name}: {message}")

    translator = other_translator(card, other, settings)
    prepared = prepare_segmentation(given, None, other, settings, translator)
    if not shared:
        return segmenter.segment(prepared, None, compare_progress)
    # The image is on the grid already, and was checked, or made, for the first model.
    found = segmenter.segment(replace(prepared, second=result.second), None, compare_progress)
    second = dict(result.record["second"])
    if "as_trained" in second:
        second["as_trained"] = other.translator is not None and other.translator["sha256"].lower() == second["model"]["sha256"]
    return replace(found, record={**found.record, "second": second})


def other_translator(card: SegmenterCard, other: SegmenterCard, settings: SegmentationSettings) -> ModelCard | None:
    """The translation model that the other model of a comparison needs of its own.

    Raises:
        BadInput, BadModel: as `find_translator`.
    """
    if other.second is None or other.second == card.second:
        return None
    return find_translator(other, replace(settings, translator=None))


def agreement(one: SegmentationResult, two: SegmentationResult, codes: Sequence[int]) -> dict[int, float]:
    """Dice of two models' labels with each other: code -> 0 to 1, NaN if neither has the structure."""
    return dice_scores(one.labels.array, two.labels.array, codes)


def score_lines(reference: Path, models: Sequence[tuple[str, list[StructureComparison]]]) -> list[str]:
    """A table of scores, for people: one line a structure and model."""
    rows = [("structure", "model", "Dice", "HD95 mm", "ml", "reference ml", "difference ml", "difference %")]
    for name, scores in models:
        for entry in scores:
            cells = (number(getattr(entry, key), form) for key, form in zip(SCORES, SCORE_FORMS, strict=True))
            rows.append((entry.name, name, *cells))
    return [f"Scores with {reference}:", *columns(rows)]


def agreement_lines(models: Sequence[SegmenterCard], results: Sequence[SegmentationResult], dice: dict[int, float]) -> list[str]:
    """A table of two models' volumes and their agreement, for people."""
    rows = [("structure", *(f"{card.name} ml" for card in models), "difference ml", "Dice of the two")]
    volumes = [{entry.code: entry.volume_ml for entry in found.statistics} for found in results]
    for code, value in dice.items():
        one, two = (found[code] for found in volumes)
        cells = (number(one, ".3f"), number(two, ".3f"), number(one - two, "+.3f"), number(value, ".3f"))
        rows.append((models[0].classes.name_of(code), *cells))
    return [f"{' and '.join(card.name for card in models)}:", *columns(rows)]


def volumes_text(statistics: Sequence[dict[str, Any]]) -> str:
    """The structures' volumes in one line."""
    return ", ".join(f"{entry['name']} {entry['volume_ml']:.1f} ml" for entry in statistics)
