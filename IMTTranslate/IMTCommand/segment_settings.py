"""From the arguments of `imt segment` to its settings, and what they make of a result's record."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput
from IMTSegmentLib.segmentation_results import SegmentationResult
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_cards import SegmenterCard


def settings_of(values: argparse.Namespace) -> SegmentationSettings:
    """The settings that the arguments give.

    Raises:
        BadInput: values out of range, or that contradict each other.
    """
    translator = values.translator
    if translator is not None and values.second is not None:
        raise BadInput("A second image (--second) and a translation model (--translator) exclude each other: leave one out.")
    if translator is not None and Path(translator).exists():
        translator = str(Path(translator).absolute())  # other processes may have another current folder
    settings = SegmentationSettings(
        device=values.device,
        precision=values.precision,
        batch=values.batch,
        translator=translator,
        check_modality=values.check_modality,
        seed=values.seed,
        bias_correction=values.bias_correction,
    )
    settings.check()
    return settings


def check_second(card: SegmenterCard, values: argparse.Namespace) -> None:
    """Refuse what the model does not take, before anything is read.

    Raises:
        BadInput: a second image for a model of one, or a translated output where nothing is translated.
    """
    if values.second is not None and card.second is None:
        raise BadInput(f"Model {card.name} segments the {card.source} image alone: leave {values.second} out (--second).")
    if values.output_translated is not None and (card.second is None or values.second is not None):
        raise BadInput("Nothing is translated here, so there is no translated image to write. Leave --output-translated out.")


def identity(
    given_sha256: str, second_sha256: str | None, card: SegmenterCard, translator: ModelCard | None, settings: SegmentationSettings
) -> str:
    """SHA-256 of all that decides a result: a finished case is known by it. Device, precision and batch do not count."""
    decides = {
        "given": given_sha256,
        "second": second_sha256,
        "model": card.content,
        "translator": None if translator is None else translator.content,
        "seed": settings.seed,
        "bias_correction": settings.bias_correction,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def with_record(result: SegmentationResult, run_identity: str) -> SegmentationResult:
    """The result whose marks also say what it is known by, and how large its structures are."""
    more = {"identity": run_identity, "statistics": statistics_records(result)}
    return replace(result, record={**result.record, **more})


def statistics_records(result: SegmentationResult) -> list[dict[str, Any]]:
    """One dictionary a structure, for JSON."""
    return [plain(asdict(entry)) for entry in result.statistics]


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record for JSON, which has no NaN: None stands for it."""
    return {key: None if isinstance(value, float) and value != value else value for key, value in record.items()}
