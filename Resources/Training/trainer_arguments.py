"""The command line of the trainer. Its options go over the settings of `--config`, and those over the defaults."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from experiment import PLANES, Config, flag, read_config, read_split

from IMTCore.errors import BadInput


@dataclass(frozen=True)
class RunOptions:
    """How a run goes: nothing here changes what is learnt, but for rounding.

    Attributes: see `add_run_options`.
    """

    output: Path
    stop_at: int | None
    device: str
    channels_last: bool
    gradient_checkpointing: bool
    deterministic: bool
    prefetch: int
    monitor_every: int
    tensorboard: bool


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of `RunOptions`."""
    group = parser.add_argument_group("how it runs")
    group.add_argument("--output", required=True, type=Path, help="folder of the run; resumed if it holds a checkpoint")
    group.add_argument("--stop-at", type=int, default=None, help="stop after this step, to be resumed later")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--channels-last", action="store_true", help="keep images as [row, column, channel] in memory")
    group.add_argument("--gradient-checkpointing", action="store_true", help="recompute activations: less memory, slower")
    group.add_argument("--deterministic", action="store_true", help="refuse algorithms that may change from run to run")
    group.add_argument("--prefetch", type=int, default=2, help="batches drawn ahead while a step runs; 0 for none")
    group.add_argument("--monitor-every", type=int, default=0, help="steps between pictures of one slice; 0 for none")
    group.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's files into OUTPUT/tensorboard")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of every setting; what is not given stays out of its result."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="JSON file of settings (Resources/Training/configs); options go over it")
    texts = {
        "data": "folder of the data",
        "source": "modality of the given image",
        "targets": "modalities to translate to, one output channel each",
        "train": "patterns of <dataset>/<subject>",
    }
    for item in fields(Config):
        kind = str(item.type)
        text = item.metadata.get("help", texts.get(item.name, ""))
        if item.default not in (MISSING, "", (), 0, 0.0):
            default = " ".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
            text += f" (default: {default})"
        parser.add_argument(
            flag(item.name),
            type={"int": int, "float": float, "str": str}[kind.removeprefix("tuple[").removesuffix(", ...]")],
            nargs=("+" if item.default is MISSING else "*") if kind.startswith("tuple[") else None,
            choices=item.metadata.get("choices") or None,
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
        )
    parser.add_argument("--plane", choices=PLANES, default=argparse.SUPPRESS, help="the one plane of --planes")
    return parser


def parse(arguments: list[str] | None = None, description: str | None = None) -> tuple[Config, RunOptions]:
    """The experiment and how to run it.

    Raises:
        BadInput: if a file or the settings cannot be used.
    """
    parser = make_parser(description)
    add_run_options(parser)
    values = vars(parser.parse_args(arguments))
    options = RunOptions(**{item.name: values.pop(item.name) for item in fields(RunOptions)})
    path = values.pop("config", None)
    if "plane" in values:
        values["planes"] = [values.pop("plane")]
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    settings: dict[str, Any] = {"data": "", "source": "", "targets": (), "train": ()}
    settings |= read_config(path) if path else {}
    settings |= given
    if settings.get("split"):
        both = [name for name in ("train", "validate", "exclude") if name in given]
        if both and "split" in given:
            raise BadInput(f"--split names the subjects: leave out {', '.join(flag(name) for name in both)}.")
        settings |= read_split(Path(settings["split"]))
    config = Config(**settings)
    config.check()
    if options.gradient_checkpointing and config.network != "unet":
        raise BadInput(f"--gradient-checkpointing is for --network unet, not {config.network}.")
    return config, options
