"""The arguments of `imt pipeline`. Choices are repeated here so that `imt --help` needs nothing of the modules."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common_arguments import add_device, add_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("input", metavar="INPUT", type=Path, nargs="?", help="BIDS data set, folder of cases, or CSV of cases")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="where everything goes; the same command again goes on after a stop")
    parser.add_argument("--plan", metavar="JSON", type=Path, help="what to do, from a file in the form of FOLDER/plan.json, instead of the options of stages")
    parser.add_argument("--list", action="store_true", help="show the cases and do nothing")
    parser.add_argument("--report-only", action="store_true", help="write FOLDER/report.html anew and do nothing else")
    _add_stages(parser)
    common = parser.add_argument_group("all stages")
    common.add_argument("--modality", metavar="T1", help="the given modality (default: the one that the models take)")
    common.add_argument("--seed", type=int, default=0, metavar="S", help="seed of random numbers (default 0)")
    common.add_argument("--bias-correction", action="store_true", help="correct the coil's brightness drift (N4) before translating and segmenting")
    common.add_argument(
        "--no-modality-check",
        dest="check_modality",
        action="store_false",
        help="go on, with a warning, with an input that looks like another modality",
    )
    machine = parser.add_argument_group("machine")
    add_device(machine)
    machine.add_argument("--jobs", type=int, metavar="N", help="of a registration: atlases at once (default: as cores and memory allow)")
    machine.add_argument("--threads", type=int, metavar="N", help="of a registration: threads for each atlas (default: cores / jobs)")
    machine.add_argument("--memory-gb", type=float, metavar="G", help="of a registration: for all atlases together (default: half of what is free)")
    machine.add_argument("--cache", metavar="DIR", help="where registrations are kept for later runs; none keeps none (default: the user's data folder)")
    machine.add_argument("--workers", type=int, metavar="N", help="so many cases at once, in a local Dask cluster; a GPU takes one at a time")
    machine.add_argument("--scheduler", metavar="ADDRESS", help="an existing Dask scheduler, such as tcp://host:8786")
    add_progress(machine)


def _add_stages(parser: argparse.ArgumentParser) -> None:
    translate = parser.add_argument_group("translate")
    translate.add_argument("--translate", nargs="+", default=[], metavar="MODEL", help="models by name, pair such as T1-T2, or path")
    translate.add_argument("--to", nargs="+", default=[], metavar="T2", help="wanted modalities, for an any-to-any model")
    translate.add_argument("--uncertainty", type=int, default=0, metavar="N", help="also write the standard deviation over N noise samples")
    translate.add_argument("--single-plane", action="store_true", help="of a model that averages over planes, use the first alone")
    register = parser.add_argument_group("register")
    register.add_argument("--register", metavar="ATLASES", help="atlas set, a folder or CSV as imt register takes it")
    register.add_argument("--second", metavar="T2", help="second modality, which the atlases have: it is translated, and the deformations are fused")
    register.add_argument("--engine", choices=["greedy", "ants", "elastix"], default="greedy", help="default greedy")
    register.add_argument("--preset", choices=["paper", "fast"], default="fast", help="default fast")
    register.add_argument("--fusion", choices=["none", "mean", "log", "local", "joint"], help="of the two modalities' deformations (as imt register)")
    register.add_argument("--weight", metavar="W", help="share of the given modality: 0 to 1, auto, or a .json file of shares by structure")
    register.add_argument("--labels", choices=["mean", "majority", "staple", "joint"], default="mean", help="how the atlases' labels become one (default mean)")
    register.add_argument("--structures", nargs="+", default=[], metavar="NAME", help="names or codes of the labels to carry over (default all)")
    segment = parser.add_argument_group("segment")
    segment.add_argument("--segment", metavar="MODEL", help="a model's name, a task such as tissue, or a card's path")
    segment.add_argument("--translator", metavar="NAME", help="translation model for its second modality (default: the one on its card)")
    segment.add_argument("--probabilities", action="store_true", help="also write each class's probability")
    evaluate = parser.add_argument_group("evaluate")
    evaluate.add_argument("--evaluate", action="store_true", help="score translations with the acquired images of their modality beside the input")
    evaluate.add_argument("--reference", metavar="NAME", help="score the segmentation with labels of this name beside each input")
    evaluate.add_argument("--atlas-reference", metavar="NAME", help="score the atlases' labels with labels of this name beside each input")
