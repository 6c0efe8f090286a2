"""The arguments of `imt models`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list all models")
    listing.add_argument("--json", action="store_true", help="print JSON")
    show = actions.add_parser("show", help="show a model's card")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="print JSON")
    verify = actions.add_parser("verify", help="check models against their cards: hash, keys, shapes")
    verify.add_argument("name", metavar="NAME", nargs="*", help="default: all")
    verify.add_argument("--json", action="store_true", help="print JSON")
    download = actions.add_parser("download", help="fetch a model's weights from the address on its card")
    download.add_argument("name", metavar="NAME")
    download.add_argument("--progress", choices=["bar", "json", "none"], default=None)
    remove = actions.add_parser("remove", help="delete a model from the user's folder")
    remove.add_argument("name", metavar="NAME")
    importing = actions.add_parser("import", help="make a package from a .pth state dict, or copy a package into the user's folder")
    importing.add_argument("file", metavar="FILE", type=Path)
    importing.add_argument("--name", help="the model's name (default: the file's)")
    importing.add_argument("--from", dest="source", metavar="T1", help="given modality (for a .pth file)")
    importing.add_argument("--to", dest="target", metavar="T2", help="translated modality (for a .pth file)")
    importing.add_argument("--licence", default="not stated", help="the weights' licence")
    importing.add_argument("--size", type=int, default=256, help="slice size the model was trained on (default 256)")
