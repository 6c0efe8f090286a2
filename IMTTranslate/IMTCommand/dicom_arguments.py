"""The arguments of `imt dicom`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("volume", metavar="VOLUME", type=Path, help="translated image, with its mark (.json) beside it")
    parser.add_argument("--like", required=True, metavar="SERIES", type=Path, help="folder of the DICOM series it was made from")
    parser.add_argument("--output", required=True, metavar="FOLDER", type=Path, help="folder to make; nothing is overwritten")
    parser.add_argument("--description", metavar="TEXT", help='series description, put after "SYNTHETIC" (default: T2 from T1)')
    parser.add_argument("--series-number", type=int, metavar="N", help="series number (default: the source's and 9000)")
    parser.add_argument("--progress", choices=["bar", "json", "none"], default=None, help="default: bar on a terminal")
