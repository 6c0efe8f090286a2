"""The arguments of `imt dicom`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common_arguments import add_progress
from .dicom_series import HELP

USAGE = """
  imt dicom STUDY --list [--json]
  imt dicom VOLUME --like STUDY [--series SERIES] --output FOLDER
  imt dicom STUDY [--series SERIES] --translate MODEL --output FOLDER"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.usage = USAGE
    parser.add_argument(
        "source", metavar="STUDY_OR_VOLUME", type=Path, help="folder of DICOM files in any layout; or a translated image, with its mark (.json) beside it"
    )
    action = parser.add_argument_group("what to do")
    action.add_argument("--list", action="store_true", help="list the series of STUDY: what they seem to show, and whether IMT can use them")
    action.add_argument("--like", metavar="STUDY", type=Path, help="write VOLUME as a new series: folder of the DICOM series that it was made from")
    action.add_argument("--translate", metavar="MODEL", help="translate a series of STUDY and write the result as a new series, in one go")
    action.add_argument("--series", metavar="SERIES", help=HELP)
    listing = parser.add_argument_group("with --list")
    listing.add_argument("--json", action="store_true", help="print the list as JSON")
    writing = parser.add_argument_group("with --like or --translate")
    writing.add_argument("--output", metavar="FOLDER", type=Path, help="folder to make; nothing is overwritten")
    writing.add_argument("--description", metavar="TEXT", help='series description, put after "SYNTHETIC" (default: T2 from T1)')
    writing.add_argument("--series-number", type=int, metavar="N", help="series number (default: the source's and 9000)")
    translating = parser.add_argument_group("with --translate")
    translating.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default auto)")
    translating.add_argument("--no-modality-check", action="store_true", help="translate also what looks like another modality than the model's source")
    add_progress(parser)
