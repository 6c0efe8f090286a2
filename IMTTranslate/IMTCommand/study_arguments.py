"""The arguments of `imt study`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="make a study's folder from real and synthetic images")
    make.add_argument("--pairs", type=Path, metavar="CSV", help="columns case, real, synthetic and, if wanted, mask")
    make.add_argument("--real", type=Path, metavar="FOLDER", help="instead of --pairs: acquired images, <case>.nii.gz or <case>/T2.nii.gz")
    make.add_argument("--synthetic", type=Path, metavar="FOLDER", help="synthetic images of the same names, as imt translate writes them")
    make.add_argument("--output", required=True, type=Path, metavar="STUDY", help="folder to make; nothing is overwritten")
    make.add_argument("--practice", type=int, default=100, metavar="N", help="trials with feedback (default 100)")
    make.add_argument("--trials", type=int, default=1000, metavar="N", help="trials without feedback (default 1000)")
    make.add_argument("--seed", type=int, default=0, metavar="S", help="seed of slices, order and sides (default 0)")
    make.add_argument("--plane", choices=["axial", "coronal", "sagittal"], default="axial", help="plane of the slices (default axial)")
    make.add_argument("--progress", choices=["bar", "json", "none"], default=None)
    score = actions.add_parser("score", help="score readers' answers: rate of fooled trials with its interval, times, biases")
    score.add_argument("answers", metavar="ANSWERS", nargs="+", type=Path, help="answers-READER.csv files of one study")
    score.add_argument("--study", type=Path, metavar="STUDY", help="the study's folder (default: where the first answers lie)")
    score.add_argument("--json", action="store_true", help="print JSON")
    score.add_argument("--csv", type=Path, metavar="OUT", help="also write a CSV file, a line for each reader and phase")
    score.add_argument("--report", type=Path, metavar="JSON", help="also write the JSON report to a file")
