"""From a finished run to what a model package holds: the network of one target and the card's technical part."""

from __future__ import annotations

import datetime
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checkpoints import read_checkpoint
from experiment import Config
from train_forest import RECORD, WEIGHTS
from train_forest import Config as ForestConfig
from train_forest import load_run as load_forest

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput
from IMTCore.model_packages import save_package
from IMTCore.slicing import SlicingSpec

OUTPUT_RANGE = (0, 255)


@dataclass(frozen=True)
class TrainedRun:
    """What a run learnt.

    Attributes:
        record: its `config.json`: settings, subjects, command.
        source, targets: modalities; the network has one output a target.
        kind, arguments, network: as a card's `network` has them; in evaluation mode.
        slicings: one a plane.
        extent: how long it learnt, in words.
    """

    record: dict[str, Any]
    source: str
    targets: tuple[str, ...]
    kind: str
    arguments: dict[str, Any]
    network: nn.Module
    slicings: list[SlicingSpec]
    extent: str


def load_run(run: Path) -> TrainedRun:
    """A finished run of `train_translator.py` (its best weights if it validated, else its last) or `train_forest.py`.

    Raises:
        BadInput, BadModel: if the folder holds none.
    """
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{run} holds no finished run ({error}). Train it first.") from error
    if (run / WEIGHTS).exists():
        forest, config = load_forest(run), _forest_config(record)
        extent = f"{forest.passes} x {forest.trees} trees on {config.voxels_per_subject} voxels of each of {len(set(record['subjects']))} subjects"
        return TrainedRun(record, config.source, (config.target,), "forest", forest.arguments, forest, [config.slicing], extent)
    config = Config.from_record(record, str(run / RECORD))
    best = run / "best.pt"
    state = read_checkpoint(best if best.exists() else run / "checkpoint.pt")
    network = config.generator()
    network.load_state_dict(state["average"])
    arguments = config.network_arguments()
    if config.network == "context":
        arguments, network = _cascade(config, network)
    unit = "patches" if config.network == "context" else "slices"
    extent = f"{state['step']} steps of {config.batch} {unit} from {len(set(record['subjects']))} subjects"
    return TrainedRun(record, config.source, config.targets, config.network, arguments, network.eval(), config.slicings, extent)


def _forest_config(record: dict[str, Any]) -> ForestConfig:
    names = ForestConfig.__dataclass_fields__
    return ForestConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items() if key in names})


def _cascade(config: Config, last: nn.Module) -> tuple[dict[str, Any], nn.Module]:
    """The stages of an auto-context run, the first one's first, as one network."""
    from IMTCore.context_network import ContextCascade

    generators = [last]
    while config.context_of:
        run = Path(config.context_of)
        config = Config.from_record(json.loads((run / RECORD).read_text(encoding="utf-8")), str(run))
        generators.insert(0, config.generator())
        generators[0].load_state_dict(read_checkpoint(run / "checkpoint.pt")["average"])
    arguments = {**config.network_arguments(), "stages": len(generators)}
    with torch.device("meta"):
        cascade = ContextCascade(**arguments)
    cascade.generators = nn.ModuleList(generators)
    return arguments, cascade


def technical_card(run: TrainedRun, target: str, shared: bool = False) -> tuple[dict[str, Any], nn.Module]:
    """The part of a card that a run decides, and the network to store.

    Args:
        run: the run; with several targets its network is cut to `target`'s output, which changes no number.
        target: the modality.
        shared: keep all outputs, for cards that share one weights file.

    Raises:
        BadInput: if the run has no such target.
    """
    if target not in run.targets:
        raise BadInput(f"The run translates to {', '.join(run.targets)}, not to {target}.")
    channel, network, first = run.targets.index(target), run.network, run.slicings[0]
    arguments = dict(run.arguments)
    entry: dict[str, Any] = {"kind": run.kind, "arguments": arguments}
    if shared:
        entry["channel"] = channel
    elif len(run.targets) > 1:
        network.keep_output(channel)
        arguments["out_channels"] = 1
    slicing: dict[str, Any] = {"plane": first.plane, "mode": first.mode, "size": list(first.size), "spacing_mm": first.spacing_mm}
    slicing["neighbours_mm"] = list(first.neighbours_mm)
    if len(run.slicings) > 1:
        slicing["planes"] = [one.plane for one in run.slicings]
    card = {"format": 1, "source": run.source, "target": target, "network": entry, "slicing": slicing, "percentile": 99.5}
    return {**card, "output_range": list(OUTPUT_RANGE)}, network


def public_command(command: list[str], data: str) -> str:
    """The training command without this machine's folders."""
    words = ["DATA" if word == data else word for word in command]
    words = [Path(word).name if Path(word).is_absolute() else word for word in words]
    return "python " + " ".join(shlex.quote(word) for word in words)


def experiment_package(run: Path, folder: Path, name: str, notes: str) -> ModelCard:
    """A package of an experiment's run, for `imt translate` and the scores; not made to be given away.

    Raises:
        BadInput, BadModel: as `load_run`, or if the run has several targets.
    """
    trained = load_run(run)
    if len(trained.targets) != 1:
        raise BadInput(f"{run} has several targets: export each with export_model.py.")
    technical, network = technical_card(trained, trained.targets[0])
    training = {
        "data": [{"name": subject} for subject in trained.record["subjects"]],
        "command": public_command(trained.record["command"], trained.record["data"]),
        "date": datetime.date.today().isoformat(),
        "notes": f"{trained.extent}. {notes}",
    }
    card = {
        **technical,
        "name": name,
        "version": "experiment",
        "title": notes,
        "weights": {"licence": "none: an experiment's weights"},
        "training": training,
        "metrics": [],
        "intended_use": "To be scored.",
        "limits": ["An experiment at a small budget."],
    }
    return save_package(folder, card, network, torch.float32)
