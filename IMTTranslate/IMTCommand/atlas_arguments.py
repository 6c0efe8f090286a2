"""The arguments of `imt atlas`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="read all of an atlas set and list its modalities, labels, grids and faults")
    check.add_argument("path", metavar="PATH", type=Path, help="the set's folder, or a CSV file with the columns atlas,modality,path")
    _add_common(check)
    check.add_argument("--json", action="store_true", help="print JSON")
    build = actions.add_parser("build", help="check images and labels and copy them into the layout of an atlas set")
    build.add_argument(
        "--from", dest="source", required=True, type=Path, metavar="PATH", help="a folder with one sub-folder an atlas, or a CSV file"
    )
    build.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="the new atlas set; it must not be there yet")
    _add_common(build)
    build.add_argument("--rename", action="store_true", help="call the atlases atlas01, atlas02, ...")
    build.add_argument("--progress", choices=["bar", "json", "none"], default=None)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modality", action="append", default=[], metavar="T1", help="a modality that every atlas must have; may be given several times"
    )
    parser.add_argument("--labels", default="labels", metavar="NAME", help="what the label files are called (default labels)")
    parser.add_argument("--labels-csv", type=Path, metavar="FILE", help="names and colours of the labels (default: the set's labels.csv)")
