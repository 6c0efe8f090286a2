"""The arguments of `imt segment`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common_arguments import add_device, add_progress
from .dicom_series import add_series_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="volume, DICOM series folder, folder of cases, or CSV of cases")
    add_series_argument(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a model's name, a task such as tissue, or a card's path")
    parser.add_argument("--output", required=True, metavar="LABELS", type=Path, help="label volume to write, or a folder for cases")
    second = parser.add_argument_group("second modality, of a model that takes one")
    second.add_argument("--second", metavar="FILE", type=Path, help="an image of the second modality, real or translated before; then nothing is translated")
    second.add_argument("--translator", metavar="NAME", help="translation model, by name or path (default: the one on the model's card)")
    more = parser.add_argument_group("further outputs")
    more.add_argument("--probabilities", metavar="OUT", type=Path, help="4D volume (.nii.gz, .nrrd): each class's probability, the background first")
    more.add_argument("--statistics", metavar="CSV", type=Path, help="voxels, volume in ml and confidence of each structure")
    more.add_argument("--output-translated", metavar="OUT", type=Path, help="the translated image")
    more.add_argument("--report", metavar="JSON", type=Path, help="what was done, how long it took, statistics, scores")
    compare = parser.add_argument_group("comparisons")
    compare.add_argument(
        "--reference", metavar="LABELS", type=Path, help="labels on the input's grid to score the result with: Dice, HD95, volume difference"
    )
    compare.add_argument("--compare-with", metavar="NAME", help="segment with another model too, and tell both volumes and their Dice with each other")
    machine = parser.add_argument_group("how")
    add_device(machine)
    machine.add_argument("--seed", type=int, default=0, metavar="S", help="seed of random numbers (default 0)")
    machine.add_argument("--bias-correction", action="store_true", help="correct the coil's brightness drift (N4) first")
    machine.add_argument(
        "--no-modality-check",
        dest="check_modality",
        action="store_false",
        help="segment, with a warning, an input that looks like another modality than the model's source",
    )
    machine.add_argument("--workers", type=int, metavar="N", help="for cases: so many at once, in a local Dask cluster")
    machine.add_argument("--scheduler", metavar="ADDRESS", help="for cases: an existing Dask scheduler, such as tcp://host:8786")
    add_progress(machine)
