"""`--series`: one series of a DICOM study as the input of a command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HELP = "of a folder that holds several DICOM series, the one to take: its number, description (or a part of it), modality, or UID"


def add_series_argument(parser: argparse.ArgumentParser) -> None:
    """Add it to the parser of a command whose `input` may be a DICOM folder; `main` then gives it the one series."""
    parser.add_argument("--series", dest="input_series", metavar="SERIES", help=HELP)


@contextmanager
def given_series(values: argparse.Namespace) -> Iterator[None]:
    """Let `values.input` be a folder with one series alone, where it is a DICOM folder.

    Does nothing for a command without `add_series_argument`, for files, and for folders of cases.

    Raises:
        BadInput: `--series` with an input that is no folder; else as `IMTCore.dicom_selection.series_folder`.
    """
    if not hasattr(values, "input_series"):
        yield
        return
    folder: Path = values.input
    if values.input_series is None and (not folder.is_dir() or _holds_cases(folder)):
        yield
        return
    from IMTCore.dicom_selection import series_folder
    from IMTCore.errors import BadInput

    if not folder.is_dir():
        raise BadInput(f"--series chooses from a folder with DICOM files, but {folder} is no folder.")
    with series_folder(folder, values.input_series) as values.input:
        yield


def _holds_cases(folder: Path) -> bool:
    from .cohort import holds_cases

    return holds_cases(folder)
