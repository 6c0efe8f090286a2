"""The arguments of `imt translate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common_arguments import add_device, add_progress
from .dicom_series import add_series_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="volume, DICOM series folder, folder of cases, or CSV of cases")
    add_series_argument(parser)
    parser.add_argument("--model", required=True, action="append", metavar="NAME_OR_PATH", help="a model's name, a pair such as T1-T2, or a card's path")
    parser.add_argument("--output", required=True, metavar="OUT", type=Path, help="volume to write, or a folder for cases")
    parser.add_argument("--uncertainty", metavar="OUT", type=Path, help="also write the standard deviation over noise samples")
    parser.add_argument("--trust-map", metavar="OUT", type=Path, help="also write labels of where not to trust it: unsure, outside the training range")
    parser.add_argument("--samples", type=int, default=None, metavar="N", help="noise samples for the uncertainty (default 8)")
    parser.add_argument("--from", dest="source", metavar="T1", help="given modality, for an any-to-any model")
    parser.add_argument("--to", dest="targets", action="append", default=[], metavar="T2", help="wanted modality, for an any-to-any model")
    add_device(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default 0)")
    parser.add_argument("--dropout", action="store_true", help="translate with the paper's noise z on (seeded); off is deterministic")
    parser.add_argument("--single-plane", action="store_true", help="of a model that averages over planes, use the first alone: faster, less accurate")
    parser.add_argument("--bias-correction", action="store_true", help="correct the coil's brightness drift (N4) before translating")
    parser.add_argument(
        "--no-modality-check",
        dest="check_modality",
        action="store_false",
        help="translate, with a warning, an input that looks like another modality than the model's source",
    )
    add_progress(parser)
