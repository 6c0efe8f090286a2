"""The arguments of `imt evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("--truth", required=True, type=Path, metavar="T", help="the real image")
    parser.add_argument("--prediction", required=True, type=Path, metavar="P", help="the translated image, on the same grid")
    parser.add_argument("--mask", type=Path, metavar="M", help="where to compare (default: the truth's foreground)")
    parser.add_argument("--plane", choices=["axial", "coronal", "sagittal"], default="axial", help="slices (default axial)")
    parser.add_argument(
        "--conventions", action="store_true", help="score under the conventions of several publications too, and tell the spread of the PSNR"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--error-map", type=Path, metavar="OUT", help="also write |prediction - truth| in percent of the intensity range")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the report to a file: .json, or .csv for the scores as a table")
