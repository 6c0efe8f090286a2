"""The arguments of `imt experiment`. Choices are repeated here so that `imt --help` needs nothing of IMTRegister."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common_arguments import add_progress

ENGINES = ("greedy", "ants", "elastix")
METHODS = "given, second, mean, log, local, joint, real, real-mean, real-log, real-local, real-joint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="EXPERIMENT")
    _add_table(kinds.add_parser("register-table", help="methods and engines on the same subjects: Dice, landmarks, paired tests"))
    _add_rotation(kinds.add_parser("known-transform", help="subjects turned by a known angle and registered with themselves"))
    _add_weights(kinds.add_parser("register-weights", help="weights by structure, or engine settings, by cross-validation over the atlases"))


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atlases", required=True, type=Path, metavar="SET", help="atlas set: a folder or CSV, as imt register")
    parser.add_argument("--subjects", required=True, type=Path, metavar="SET", help="subjects in the layout of an atlas set; their labels are the truth")
    _add_modalities(parser, may_do_without=True)
    parser.add_argument("--real", action="store_true", help="also each method with the subject's real second image, where there is one")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["greedy"], help="default greedy")
    _add_methods(parser)
    parser.add_argument("--surfaces", action="store_true", help="also Hausdorff 95 %% and mean surface distance")
    parser.add_argument("--margin", type=float, default=0.002, metavar="D", help="Dice by which a fusion may be below the better single (default 0.002)")
    parser.add_argument("--keep-labels", action="store_true", help="write each run's labels too")
    _add_names(parser)
    parser.add_argument("--atlas-names", nargs="+", default=[], metavar="NAME", help="these atlases only")
    _add_registration(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for table.md, scores.csv, tests.csv and what resumes it")


def _add_rotation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subjects", required=True, type=Path, metavar="SET", help="subjects in the layout of an atlas set")
    _add_modalities(parser, may_do_without=True)
    parser.add_argument("--angle", "--angles", dest="angles", type=float, nargs="+", default=[30.0], metavar="A", help="degrees (default 30)")
    parser.add_argument("--axis", nargs="+", default=["S"], metavar="X", help="L, P, S, the image's i, j, k, or three numbers, LPS (default S)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["greedy"], help="default greedy")
    _add_methods(parser)
    _add_names(parser)
    _add_registration(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for table.md, scores.csv and what resumes it")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atlases", required=True, type=Path, metavar="SET", help="atlas set: a folder or CSV, as imt register")
    _add_modalities(parser)
    parser.add_argument("--real", action="store_true", help="take each atlas's real second image in the place of a translated one")
    parser.add_argument("--engine", choices=ENGINES, default="greedy", help="default greedy")
    parser.add_argument("--fusion", choices=["mean", "log", "local", "joint"], default="mean", help="default mean; weights need mean or log")
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="default 5")
    what = parser.add_mutually_exclusive_group()
    default = [round(0.1 * n, 1) for n in range(11)]
    what.add_argument("--weights", type=float, nargs="+", default=default, metavar="W", help="shares of the given modality (default 0 0.1 ... 1)")
    example = '[{"name": "smooth", "deformable": {"smoothing": "2vox 1vox"}}, ...]'
    what.add_argument("--settings", type=Path, metavar="JSON", help=f"instead, a list of engine settings: {example}")
    parser.add_argument("--atlas-names", nargs="+", default=[], metavar="NAME", help="these atlases only")
    _add_registration(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="JSON", help="file for imt register --weight; a page, scores and a curve go beside it")


def _add_modalities(parser: argparse.ArgumentParser, may_do_without: bool = False) -> None:
    parser.add_argument("--modality", required=True, metavar="T2", help="the given modality")
    parser.add_argument("--second", "--translate-to", dest="second", metavar="T1", help="second modality")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--translated", type=Path, metavar="FOLDER", help="translated images: <subject>/<second>.nii.gz, as imt translate writes them")
    source.add_argument("--model", metavar="NAME", help="model that translates (default: the one for the pair)")
    if may_do_without:
        source.add_argument("--no-translation", action="store_true", help="translate nothing: the given modality, and the real second one")


def _add_methods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="M",
        help=f"of {METHODS}; NAME:WEIGHT gives one its own weight (default: given, and with a second modality all of one source)",
    )
    text = "share of the given modality: 0 to 1, auto, or a .json of shares by structure (default 0.5)"
    parser.add_argument("--weight", default="0.5", metavar="W", help=text)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subject-names", nargs="+", default=[], metavar="NAME", help="these subjects only")


def _add_registration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=["paper", "fast"], default="fast", help="default fast")
    parser.add_argument("--labels", choices=["mean", "majority", "staple", "joint"], default="mean", help="how the atlases' labels become one (default mean)")
    parser.add_argument("--structures", nargs="+", default=[], metavar="NAME", help="names or codes of the labels (default all)")
    parser.add_argument("--dimension", type=int, choices=[2, 3], default=3, help="default 3")
    parser.add_argument("--mask", choices=["auto", "none"], default="auto", help="default auto: the head")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    parser.add_argument("--jobs", type=int, metavar="N", help="atlases at once (default: as cores and memory allow)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for each (default: cores / jobs)")
    parser.add_argument("--memory-gb", type=float, metavar="G", help="for all jobs together (default: half of what is free)")
    parser.add_argument("--cache", metavar="DIR", help="where registrations are kept for all methods; none keeps none (default: the user's data folder)")
    add_progress(parser)
