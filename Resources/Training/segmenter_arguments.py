"""The command line of `train_segmenter.py`. Its options go over the settings of `--config`, and those over the defaults."""

from __future__ import annotations

import argparse
import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from experiment import flag, read_split
from segmenter_config import LABEL_CLASSES, UNET_DEFAULTS, SegmenterConfig, typed

from IMTCore.errors import BadInput

REQUIRED = {
    "data": "folder of the data",
    "given": "modality of the given image",
    "labels": f"label map to learn: {', '.join(LABEL_CLASSES)}, or another with --classes",
    "classes": "NAME=CODES: classes and their codes, such as gm=2 wm=3 tumour=1,2,4 (default: those of --labels)",
    "train": "patterns of <dataset>/<subject>",
}


@dataclass(frozen=True)
class SegmenterRunOptions:
    """How a run goes: nothing here changes what is learnt, but for rounding.

    Attributes: see `add_run_options`.
    """

    output: Path
    stop_at: int | None = None
    device: str = "auto"
    prefetch: int = 2
    monitor_every: int = 0
    cache: Path | None = None


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of `SegmenterRunOptions`."""
    group = parser.add_argument_group("how it runs")
    group.add_argument("--output", required=True, type=Path, help="folder of the run; resumed if it holds a checkpoint")
    group.add_argument("--stop-at", type=int, default=None, help="stop after this step, to be resumed later")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--prefetch", type=int, default=2, help="batches drawn ahead while a step runs; 0 for none")
    group.add_argument("--monitor-every", type=int, default=0, help="steps between pictures of one slice; 0 for none")
    group.add_argument("--cache", type=Path, default=None, help="folder that keeps translations for other runs; else memory alone")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of every setting; what is not given stays out of its result."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="JSON file of settings; options go over it")
    for item in fields(SegmenterConfig):
        kind, text = str(item.type), item.metadata.get("help", REQUIRED.get(item.name, ""))
        shared: dict[str, Any] = {"default": argparse.SUPPRESS, "help": (text + _default_text(item)).replace("%", "%%")}
        if kind == "bool":
            parser.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, **shared)
            continue
        parser.add_argument(
            flag(item.name),
            type={"int": int, "float": float, "str": str}[kind.removeprefix("tuple[").removesuffix(", ...]")],
            nargs=("+" if item.default is MISSING else "*") if kind.startswith("tuple[") else None,
            choices=item.metadata.get("choices") or None,
            **shared,
        )
    return parser


def _default_text(item: Any) -> str:
    if item.default in (MISSING, "", (), 0, 0.0, False) and item.name not in UNET_DEFAULTS:
        return ""
    default = " ".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
    other = f"; U-Net: {UNET_DEFAULTS[item.name]}" if item.name in UNET_DEFAULTS else ""
    return f" (default: {default}{other})"


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a JSON file.

    Raises:
        BadInput: if it cannot be read, is no JSON object, or has an unknown setting or one of a wrong type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as settings: {error}.") from error
    known = {item.name: item for item in fields(SegmenterConfig)}
    unknown = sorted(set(content) - set(known)) if isinstance(content, dict) else ["no JSON object"]
    if unknown:
        raise BadInput(f"{path} has unknown settings: {', '.join(unknown)}. Known: {', '.join(known)}.")
    return {name: typed(known[name], value, str(path)) for name, value in content.items()}


def config_from(settings: dict[str, Any]) -> SegmenterConfig:
    """The training of these settings over the network's defaults, checked.

    Raises:
        BadInput: unknown labels, a split that cannot be read, or settings that do not go together.
    """
    defaults = UNET_DEFAULTS if settings.get("network") == "unet" else {}
    values = {"data": "", "given": "", "labels": "", "classes": (), "train": (), **defaults, **settings}
    if values.get("split"):
        values |= read_split(Path(values["split"]))
    values["classes"] = values["classes"] or LABEL_CLASSES.get(values["labels"], ())
    if values["labels"] and not values["classes"]:
        raise BadInput(f"The classes of {values['labels']!r} are not known: give them with --classes NAME=CODES.")
    config = SegmenterConfig(**values)
    config.check()
    return config


def parse(arguments: list[str] | None = None, description: str | None = None) -> tuple[SegmenterConfig, SegmenterRunOptions]:
    """The training and how to run it.

    Raises:
        BadInput: if a file or the settings cannot be used.
    """
    parser = make_parser(description)
    add_run_options(parser)
    values = vars(parser.parse_args(arguments))
    options = SegmenterRunOptions(**{item.name: values.pop(item.name) for item in fields(SegmenterRunOptions)})
    path = values.pop("config", None)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    both = [name for name in ("train", "validate", "exclude") if name in given]
    if both and "split" in given:
        raise BadInput(f"--split names the subjects: leave out {', '.join(flag(name) for name in both)}.")
    return config_from((read_settings(path) if path else {}) | given), options
