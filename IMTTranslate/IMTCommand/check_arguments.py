"""The arguments of `imt check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .dicom_series import add_series_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="volume or DICOM series folder")
    add_series_argument(parser)
    parser.add_argument("--model", required=True, metavar="NAME_OR_PATH", help="the model that is to take it: a name, a pair such as T1-T2, or a card's path")
    parser.add_argument("--from", dest="source", metavar="T1", help="given modality, for an any-to-any model")
    parser.add_argument("--json", action="store_true", help="print JSON")
