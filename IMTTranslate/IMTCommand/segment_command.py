"""`imt segment`: one volume, or many cases with resume."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.errors import BadInput
from IMTCore.progress import Progress, Say
from IMTCore.weights_file import read_weights_file
from IMTSegmentLib.second_modality import find_translator
from IMTSegmentLib.segmentation_inputs import SegmentationFiles, read_segmentation
from IMTSegmentLib.segmentation_outputs import SegmentationOutputs, write_segmentation
from IMTSegmentLib.segmentation_results import SegmentationResult
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_catalogue import find_segmenter

from .cohort import check_no_cluster, holds_cases
from .kept_models import kept_segmenters
from .progress import close, listener, speaker, tell_end
from .segment_comparison import (
    Reference,
    agreement,
    agreement_lines,
    common_structures,
    other_translator,
    score_lines,
    segment_with_other,
    volumes_text,
)
from .segment_settings import check_second, identity, plain, settings_of, statistics_records, with_record

if TYPE_CHECKING:
    from IMTSegmentLib.segmentation import Segmenter


def run(values: argparse.Namespace) -> int:
    """Segment what the arguments say."""
    if not values.input.exists():
        raise BadInput(f"{values.input} does not exist. Check the path.")
    progress = listener(values.progress)
    say = speaker(progress)
    try:
        if holds_cases(values.input):
            from .segment_cohort import segment_cases

            lines, message = [], segment_cases(values, progress, say)
        else:
            lines, message = segment_one(values, progress, say)
    finally:
        close(progress)  # an error's message starts on a line of its own
    if values.progress != "json" and lines:
        print("\n".join(lines))
    tell_end(progress, message)
    return 0


def segment_one(values: argparse.Namespace, progress: Progress, say: Say) -> tuple[list[str], str]:
    """Segment one volume; returns tables for people, and what to tell at the end."""
    from IMTSegmentLib.segmentation_inputs import input_records

    start = time.perf_counter()
    settings, card = settings_of(values), find_segmenter(values.model)
    other = None if values.compare_with is None else find_segmenter(values.compare_with)
    outputs = check_one(values, card, other, settings)
    segmenter, source = load_and_read(values.input, values.second, card, settings, progress, say)
    given = source.prepared.volume
    models = [card] if other is None else [card, other]
    reference = None if values.reference is None else Reference(values.reference, given, *models)
    result = segmenter.segment(source.prepared, None, progress)
    results = [result]
    if other is not None:
        results.append(segment_with_other(result, card, given, other, settings, progress, say))
    lines, more = compare(models, results, reference)
    seconds = {"read": round(source.read_seconds, 3), **result.seconds}
    translator = None if result.translation is None else result.translation[0]
    result = with_record(result, identity(source.sha256, source.second_sha256, card, translator, settings))
    progress("write", 0.0, values.output.name)
    writing = time.perf_counter()
    write_segmentation(result, outputs, input_records(source), seconds, more)
    seconds["write"] = round(time.perf_counter() - writing, 3)
    progress("write", 1.0, values.output.name)
    for model, found in zip(models, results, strict=True):
        for warning in found.warnings:
            say(f"Warning: {warning}" if model is card else f"Warning ({model.name}): {warning}")
    return lines, end_message(values.output, card, result, seconds, time.perf_counter() - start)


def check_one(
    values: argparse.Namespace, card: SegmenterCard, other: SegmenterCard | None, settings: SegmentationSettings
) -> SegmentationOutputs:
    """Check what can be checked before work begins; returns the outputs."""
    check_no_cluster(values.input, values.workers, values.scheduler)
    check_second(card, values)
    if other is not None:
        common_structures(card, other)
        other_translator(card, other, settings)
    inputs = [path for path in (values.input, values.second, values.reference) if path is not None]
    for path in inputs:
        if not path.exists():
            raise BadInput(f"{path} does not exist. Check the path.")
    outputs = SegmentationOutputs(
        values.output, values.probabilities, values.statistics, values.output_translated, values.report
    )
    outputs.check(inputs)
    return outputs


def load_and_read(
    path: Path, second: Path | None, card: SegmenterCard, settings: SegmentationSettings, progress: Progress, say: Say
) -> tuple[Segmenter, SegmentationFiles]:
    """Load the models while the volume is read and prepared."""
    translator = find_translator(card, settings) if second is None else None
    progress("read", 0.0, path.name)
    segmenter = kept_segmenters.find(card, settings, say)
    with ThreadPoolExecutor(3) as pool:
        reading = pool.submit(read_segmentation, path, second, card, settings)
        cards = [model for model in (card, translator) if model is not None] if segmenter is None else []
        weights = [pool.submit(read_weights_file, model) for model in cards]
        progress("load", 0.0, f"model {card.name}")
        if weights:
            segmenter = kept_segmenters.load(card, settings, say, weights[0].result())
        if translator is not None:
            segmenter.load_translator(weights[1].result() if weights else None)
        return segmenter, reading.result()


def compare(
    models: list[SegmenterCard], results: list[SegmentationResult], reference: Reference | None
) -> tuple[list[str], dict[str, Any]]:
    """Tables for people, and entries for the report: the other model's result, and all scores with the reference."""
    lines: list[str] = []
    more: dict[str, Any] = {}
    scores = [] if reference is None else [reference.score(found.labels, card) for card, found in zip(models, results, strict=True)]
    if scores:
        lines += score_lines(reference.path, [(card.name, found) for card, found in zip(models, scores, strict=True)])
        more["reference"] = {"name": reference.path.name, "sha256": reference.sha256, "scores": [e.record() for e in scores[0]]}
    if len(models) == 2:
        dice = agreement(*results, common_structures(*models))
        lines += agreement_lines(models, results, dice)
        more["compared_with"] = {
            **{key: results[1].record[key] for key in ("model", "second", "channels")},
            "statistics": statistics_records(results[1]),
            "dice": plain({models[0].classes.name_of(code): value for code, value in dice.items()}),
            "scores": [entry.record() for entry in scores[1]] if scores else None,
            "warnings": results[1].warnings,
        }
    return lines, more


def end_message(output: Path, card: SegmenterCard, result: SegmentationResult, seconds: dict[str, float], total: float) -> str:
    """What was made, in one line."""
    origin = ""
    if result.translation is not None:
        origin = f", {card.second} translated by {result.translation[0].name}"
    elif result.second is not None:
        origin = f", {card.second} from {result.second.name}"
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    return f"{output}: {volumes_text(statistics_records(result))}; model {card.name}{origin}, {total:.1f} s ({stages})"
