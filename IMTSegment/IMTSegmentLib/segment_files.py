"""Read, segment and write: one case from file to files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from IMTCore.errors import BadInput
from IMTCore.progress import Progress, never, quiet

from .segmentation import Segmenter
from .segmentation_inputs import SegmentationFiles, input_records, read_segmentation
from .segmentation_outputs import SegmentationOutputs, write_segmentation
from .segmentation_results import SegmentationResult


def segment_file(
    segmenter: Segmenter,
    source: Path | SegmentationFiles,
    outputs: SegmentationOutputs,
    second: Path | None = None,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
) -> SegmentationResult:
    """Segment one file and write what `outputs` names, whole or not at all.

    Args:
        segmenter: the loaded model.
        source: the input file (or DICOM folder), or what `read_segmentation` made of it for this model.
        second: a real second image's file; only with a path as `source`.
        progress: told (stage, fraction done, message); the stages are read, load, translate, segment, write.
        cancelled: asked between batches of slices.

    Raises:
        BadInput, BadModel, OutputFailure, Cancelled: as said there; then nothing was written.
    """
    path, other = (source, second) if isinstance(source, Path) else (source.path, source.second)
    outputs.check([file for file in (path, other) if file is not None])
    if outputs.translated is not None and (segmenter.card.second is None or other is not None):
        raise BadInput("Nothing is translated here, so there is no translated image to write. Leave --output-translated out.")
    if isinstance(source, Path):
        progress("read", 0.0, path.name)
        source = read_segmentation(path, second, segmenter.card, segmenter.settings)
    result = segmenter.segment(source.prepared, None, progress, cancelled)
    progress("write", 0.0, outputs.labels.name)
    start = time.perf_counter()
    seconds = {"read": round(source.read_seconds, 3), **result.seconds}
    write_segmentation(result, outputs, input_records(source), seconds)
    progress("write", 1.0, outputs.labels.name)
    return replace(result, seconds={**seconds, "write": round(time.perf_counter() - start, 3)})
