"""`imt dicom`: a translated volume as a synthetic series of its DICOM study."""

from __future__ import annotations

import argparse

from IMTCore.dicom_writing import write_synthetic_series

from .progress import close, listener, speaker, tell_end


def run(values: argparse.Namespace) -> int:
    """Write the series."""
    progress = listener(values.progress)
    try:
        series = write_synthetic_series(
            values.volume, values.like, values.output, values.description, values.series_number, progress
        )
    finally:
        close(progress)
    for warning in series.warnings:
        speaker(progress)("Warning: " + warning)
    tell_end(
        progress,
        f"{series.folder}: {series.files} slices, series {series.number} {series.description!r} of the source's study, UID {series.uid}",
    )
    return 0
