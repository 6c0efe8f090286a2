"""Subjects segmented by a package through the code of `imt segment`, and their scores against the reference labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets import Subject, read_modalities
from segmentation_scores import segmentation_scores
from segmenter_config import SegmenterConfig, check_classes, structure_key
from segmenter_data import class_map
from segmenter_second import SecondModality

from IMTCore.errors import BadInput
from IMTCore.label_scores import score_labels
from IMTCore.volume import Volume
from IMTSegmentLib.segmentation import SegmentationSettings, Segmenter
from IMTSegmentLib.segmenter_cards import SegmenterCard

# Columns of scores.csv, after those that name the row.
MEASURES = ("dice", "hausdorff_95_mm", "difference_ml", "difference_percent", "truth_ml", "found_ml", "accuracy")


@dataclass(frozen=True)
class SegmentedCase:
    """One subject as a package segments it.

    Attributes:
        name: `<dataset>/<subject>`.
        given: the given image.
        truth, found: classes [k, j, i] uint8 on the image's grid, numbered as `names` from 1; 0 is the background.
        names: the structures.
    """

    name: str
    given: Volume
    truth: np.ndarray
    found: np.ndarray
    names: tuple[str, ...]


def matching_codes(card: SegmenterCard, classes: Sequence[str]) -> list[int]:
    """The card's code of each reference class NAME=CODES, matched by name in whatever case (gm is grey matter).

    Raises:
        BadInput: malformed classes, or a class that the model does not have; names those that it has.
    """
    check_classes(tuple(classes))
    by_name = {structure_key(entry.name): code for code, entry in card.classes.items()}
    names = [entry.partition("=")[0] for entry in classes]
    unknown = [name for name in names if structure_key(name) not in by_name]
    if unknown:
        there = ", ".join(entry.name for entry in card.classes.values())
        raise BadInput(f"Model {card.name} does not segment {', '.join(unknown)}; it segments {there}. Name them so in --classes.")
    return [by_name[structure_key(name)] for name in names]


def segmenter_of(card: SegmenterCard, device: str, translator: str | None = None) -> Segmenter:
    """A segmenter that computes as the scores should: in fp32, without a guess at the modality, which the data set tells."""
    return Segmenter(card, SegmentationSettings(device=device, precision="fp32", translator=translator, check_modality=False))


def segment_case(
    segmenter: Segmenter, subject: Subject, labels: str, classes: Sequence[str], second: SecondModality | None = None
) -> SegmentedCase:
    """Segment one subject.

    Args:
        segmenter: a loaded package.
        subject: with the package's given image and the label map.
        labels, classes: the reference label map, and its classes NAME=CODES, named as the package's.
        second: gives the second image; None lets the package translate it, if it needs one.

    Raises:
        BadInput: an image is missing or unusable; names the subject.
    """
    card = segmenter.card
    acquired = card.second is not None and second is not None and second.config.second_from == "real"
    volumes = read_modalities(subject, [card.source, *([card.second] if acquired else [])], [labels])
    given = volumes[card.source]
    other = volumes[card.second] if acquired else None
    if second is not None and card.second is not None:
        other = second.volume(subject.name, given, other)
    found = segmenter.segment(given, other).labels.array
    numbered = np.zeros(found.shape, np.uint8)
    for number, code in enumerate(matching_codes(card, classes), start=1):
        numbered[found == code] = number
    truth = class_map(volumes[labels].array, classes)
    return SegmentedCase(subject.name, given, truth, numbered, tuple(entry.partition("=")[0] for entry in classes))


def score_case(case: SegmentedCase) -> list[dict[str, Any]]:
    """Rows of scores: one a structure, and "all" with the share of all voxels that are right (Yang et al. 2020, Tables 6 and 7)."""
    scores = score_labels(case.truth, case.found, case.given.geometry, range(1, len(case.names) + 1))
    pixels = segmentation_scores(case.truth, case.found, case.names)
    rows: list[dict[str, Any]] = [{"subject": case.name, "structure": "all", "accuracy": pixels["accuracy all"]}]
    for number, name in enumerate(case.names, start=1):
        one = scores[number].record()
        percent = 100 * one["difference_ml"] / one["truth_ml"] if one["truth_ml"] else float("nan")
        known = {**one, "difference_percent": percent, "accuracy": pixels[f"accuracy {name}"]}
        rows.append({"subject": case.name, "structure": name, **{measure: known[measure] for measure in MEASURES}})
    return [{key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()} for row in rows]


def config_for(card: SegmenterCard, second_from: str, translator: str = "", blur_mm: float = 6.0) -> SegmenterConfig:
    """A training's settings with a package's modalities, for `SecondModality`."""
    return SegmenterConfig(
        "", card.source, "", (), (), channels=card.channels, second=card.second or "", second_from=second_from, translator=translator, blur_mm=blur_mm
    )
