"""Options that several commands share."""

from __future__ import annotations

from argparse import ArgumentParser


def add_device(parser: ArgumentParser) -> None:
    """--device, --precision and --batch, into a parser or a group of one, which has the same methods."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--batch", type=int, default=None, metavar="N", help="slices at once (default: by device)")


def add_progress(parser: ArgumentParser) -> None:
    """--progress."""
    parser.add_argument("--progress", choices=["bar", "json", "none"], default=None, help="default: bar on a terminal")
