"""What a segmentation writes: all files whole and with their marks, or none."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from IMTCore import derived_outputs, provenance
from IMTCore.derived_outputs import OutputWriter, check_mark_free, check_outputs
from IMTCore.errors import BadInput
from IMTCore.files import sha256_of
from IMTCore.label_names import colour_table
from IMTCore.outputs import check_written
from IMTCore.provenance import sidecar_path, versions
from IMTCore.version import VERSION

from .probability_files import STEPS, check_probability_path, save_probabilities
from .segmentation_results import SegmentationResult, StructureStatistics

MADE_BY = "imt segment"
NOTICE = "Made by a neural network. For research, not for diagnosis."
STATISTICS_COLUMNS = ("code", "name", "voxels", "volume_ml", "confidence")
REPORT_FORMAT = 1


@dataclass(frozen=True)
class SegmentationOutputs:
    """Where to write what.

    Attributes:
        labels: label volume; its colour table goes beside it as `<stem>_labels.csv`, its mark as `<stem>.json`.
        probabilities: of all classes, the background first: 4D NIfTI, or NRRD.
        statistics: CSV, one line a structure: code, name, voxels, volume_ml, confidence.
        translated: the translated second image with its usual mark.
        report: JSON.
    """

    labels: Path
    probabilities: Path | None = None
    statistics: Path | None = None
    translated: Path | None = None
    report: Path | None = None

    @property
    def table(self) -> Path:
        """The labels' names and colours."""
        return colour_table(self.labels)

    def files(self) -> list[Path]:
        """All files that may be written."""
        found = [self.labels, sidecar_path(self.labels), self.table]
        for image in (self.probabilities, self.translated):
            found += [image, sidecar_path(image)] if image else []
        return found + [path for path in (self.statistics, self.report) if path]

    def check(self, inputs: Iterable[Path]) -> None:
        """Refuse outputs that cannot or must not be written, before any work is done.

        Args:
            inputs: files that are read.

        Raises:
            BadInput: an unknown format, an output that is an input or another output, a foreign file in a mark's place.
            OutputFailure: not writable.
        """
        if self.probabilities is not None:
            check_probability_path(self.probabilities)
            check_mark_free(self.probabilities, MADE_BY)
        check_outputs(inputs, (self.labels, self.translated), self.files(), MADE_BY)


def write_segmentation(
    result: SegmentationResult,
    outputs: SegmentationOutputs,
    inputs: dict[str, Any],
    seconds: dict[str, float] | None = None,
    more: dict[str, Any] | None = None,
) -> None:
    """Write all files of a result, or none.

    Args:
        result: what `Segmenter.segment` gave.
        outputs: what to write.
        inputs: for the marks: "input", and "second_input" for a second image that was given, each {"name": …, "sha256": …}.
        seconds: by stage, for the report; by default the result's own.
        more: further entries of the report.

    Raises:
        BadInput: a translated image is wanted, and none was made. OutputFailure: a file cannot be written.
    """
    if outputs.translated is not None and result.translation is None:
        raise BadInput("Nothing was translated here, so there is no translated image to write. Leave --output-translated out.")
    line = header_line(result)
    record = {**inputs, **result.record, "versions": versions()}
    with OutputWriter() as writer:
        # What is written first gets its name last: where new labels are, all else is there too.
        writer.volume(outputs.labels, result.labels, line, {**base_record("labels", result.derived), **record})
        if outputs.translated is not None:
            _write_translated(result, outputs.translated, inputs["input"], writer)
        if outputs.probabilities is not None:
            _write_probabilities(result, outputs.probabilities, line, record, writer)
        if outputs.statistics is not None:
            writer.text(outputs.statistics, statistics_table(result.statistics))
        writer.names(outputs.table, result.names)
        if outputs.report is not None:
            writer.json(outputs.report, {**report(result, seconds), **record, **(more or {})})


def base_record(content: str, derived: bool) -> dict[str, Any]:
    """What every mark of this module begins with; `derived`: a synthetic image took part."""
    return derived_outputs.base_record(MADE_BY, NOTICE, content, derived)


def header_line(result: SegmentationResult) -> str:
    """The mark for an image header, at most 79 ASCII characters."""
    end = "; FROM SYNTHETIC IMAGE" if result.derived else ""
    return f"IMT {VERSION} segment: {result.record['model']['name']}"[: 79 - len(end)] + end


def report(result: SegmentationResult, seconds: dict[str, float] | None = None) -> dict[str, Any]:
    """The report's own part: format, sizes and confidence of the structures, seconds by stage."""
    return {
        "format": REPORT_FORMAT,
        **base_record("report", result.derived),
        "statistics": [_without_nan(entry) for entry in result.statistics],
        "seconds": result.seconds if seconds is None else seconds,
    }


def statistics_table(statistics: Sequence[StructureStatistics]) -> str:
    """The statistics as CSV; the confidence of a structure without voxels is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(STATISTICS_COLUMNS)
    for entry in statistics:
        confidence = "" if math.isnan(entry.confidence) else f"{entry.confidence:.4f}"
        writer.writerow((entry.code, entry.name, entry.voxels, f"{entry.volume_ml:.4f}", confidence))
    return stream.getvalue()


def _without_nan(entry: StructureStatistics) -> dict[str, Any]:
    """JSON has no NaN: None stands for it."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(entry).items()}


def _write_translated(result: SegmentationResult, path: Path, given: dict[str, str], writer: OutputWriter) -> None:
    card, made = result.translation
    line = provenance.header_line(card, made.source, made.target, "translation")
    settings = {**made.settings, "warnings": made.warnings}
    record = provenance.mark(card, made.source, made.target, given["name"], given["sha256"], "translation", settings)
    writer.volume(path, made.translation, line, record)


def _write_probabilities(
    result: SegmentationResult, path: Path, line: str, record: dict[str, Any], writer: OutputWriter
) -> None:
    temporary = writer.temporary(path)
    save_probabilities(temporary, result.probabilities, result.labels, line)
    check_written(temporary)
    volumes = [{"code": 0, "name": "background"}, *({"code": code, "name": result.names.name_of(code)} for code in result.codes)]
    writer.json(
        sidecar_path(path),
        {
            **base_record("probabilities", result.derived),
            **record,
            "volumes": volumes,
            "step": f"1/{STEPS}",
            "output": {"name": path.name, "sha256": sha256_of(temporary)},
        },
    )
