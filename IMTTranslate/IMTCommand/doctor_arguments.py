"""The arguments of `imt doctor`."""

from __future__ import annotations

import argparse

SECTIONS = ("packages", "computing", "folders", "models", "engines", "surroundings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("--json", action="store_true", help="print JSON without private data (paths, names), for a bug report")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="PART", help=f"look only at: {', '.join(SECTIONS)}")
    parser.add_argument("--slicer", metavar="VERSION", help="compare numpy, scipy and SimpleITK with those of this Slicer, such as 5.12.3")
    parser.add_argument("--where", action="store_true", help="list what IMT has left outside its own folder, with sizes")
    parser.add_argument("--remove-all", action="store_true", help="remove all that --where lists: your models, the engines, caches, settings")
    parser.add_argument("--yes", action="store_true", help="with --remove-all: do not ask")
