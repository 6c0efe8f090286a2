"""The arguments of `imt register`. Choices are repeated here so that `imt --help` needs nothing of IMTRegister."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common_arguments import add_progress
from .dicom_series import add_series_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("input", metavar="SUBJECT", type=Path, help="volume, DICOM series folder, folder of cases, or CSV of cases")
    add_series_argument(parser)
    parser.add_argument("--modality", required=True, metavar="T2", help="the subject's modality; the atlases must have it")
    parser.add_argument(
        "--atlases", required=True, type=Path, metavar="FOLDER_OR_CSV", help="<atlas>/<modality>.nii.gz, <atlas>/labels.nii.gz and labels.csv"
    )
    second = parser.add_argument_group("second modality")
    second.add_argument("--translate-to", metavar="T1", help="second modality, which the atlases have and the subject lacks")
    second.add_argument("--model", metavar="NAME_OR_PATH", help="model that translates (default: the one for the pair)")
    second.add_argument("--second-image", type=Path, metavar="FILE", help="the subject's real image of that modality, instead of a translation")
    how = parser.add_argument_group("registration")
    how.add_argument("--engine", choices=["greedy", "ants", "elastix"], default="greedy", help="default greedy")
    how.add_argument("--preset", choices=["paper", "fast"], default="fast", help="default fast")
    how.add_argument(
        "--fusion",
        choices=["none", "mean", "log", "local", "joint"],
        help="of the two modalities' deformations: weighted mean, log-Euclidean mean, weights for each voxel, or one joint "
        "registration; none takes the given modality alone (default: mean with a second modality, else none)",
    )
    how.add_argument("--weight", metavar="W", help="share of the given modality: 0 to 1, auto, or a .json file of shares by structure (default auto)")
    how.add_argument("--dimension", type=int, choices=[2, 3], default=3, help="2 registers slice k with slice k (default 3)")
    how.add_argument("--mask", default="auto", metavar="FILE", help="auto (the head's box), none, or a mask on the subject's grid (default auto)")
    how.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the engine's random numbers (default 0)")
    labels = parser.add_argument_group("labels")
    labels.add_argument("--labels", choices=["mean", "majority", "staple", "joint"], default="mean", help="how the atlases' labels become one (default mean)")
    labels.add_argument("--structures", nargs="+", default=[], metavar="NAME", help="names or codes of the labels to carry over (default all)")
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--output-labels", required=True, type=Path, metavar="OUT", help="label volume to write, or a folder for cases")
    outputs.add_argument("--output-transforms", type=Path, metavar="DIR", help="<atlas>.h5, subject to atlas, LPS, and <atlas>-inverse.h5")
    outputs.add_argument("--output-agreement", type=Path, metavar="OUT", help="share of the atlases for each voxel's label, 0 to 1")
    outputs.add_argument("--output-warped", type=Path, metavar="DIR", help="each atlas's images and labels on the subject's grid")
    outputs.add_argument("--output-translated", type=Path, metavar="OUT", help="the subject's translated image")
    outputs.add_argument("--report", type=Path, metavar="JSON", help="what was done, how long it took, similarities, folds")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--jobs", type=int, metavar="N", help="atlases at once (default: as cores and memory allow)")
    machine.add_argument("--threads", type=int, metavar="N", help="threads for each (default: cores / jobs)")
    machine.add_argument("--memory-gb", type=float, metavar="G", help="for all jobs together (default: half of what is free)")
    machine.add_argument("--cache", metavar="DIR", help="where registrations are kept for later runs; none keeps none (default: the user's data folder)")
    machine.add_argument("--workers", type=int, metavar="N", help="for cases: so many at once, in a local Dask cluster")
    machine.add_argument("--scheduler", metavar="ADDRESS", help="for cases: an existing Dask scheduler, such as tcp://host:8786")
    add_progress(machine)
