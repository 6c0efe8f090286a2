"""The arguments of `imt serve`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument(
        "--idle", type=float, default=300.0, metavar="SECONDS", help="end after so long without a request (default 300)"
    )
