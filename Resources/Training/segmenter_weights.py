"""Runs of `train_segmenter.py` as model packages: the network, and the part of a card that a run decides."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from run_packages import public_command
from segmenter_config import SegmenterConfig, structure_key
from segmenter_trainer import read_state

from IMTCore.errors import BadInput
from IMTCore.label_names import default_label
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_packages import save_segmenter

RECORD = "config.json"


@dataclass(frozen=True)
class SegmenterWeights:
    """What a run learnt.

    Attributes:
        record: its `config.json`: settings, subjects, translator, command.
        config: its training.
        arguments, network: as a card's `network` has them; in evaluation mode.
        extent: how long it learnt, in words.
    """

    record: dict[str, Any]
    config: SegmenterConfig
    arguments: dict[str, Any]
    network: nn.Module
    extent: str


def load_segmenter_run(run: Path) -> SegmenterWeights:
    """A run's best network if it validated, else its last.

    Raises:
        BadInput: if the folder holds none, or one whose last stage was not reached.
    """
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{run} holds no segmenter's training ({error}). Train it first.") from error
    best = run / "best.pt"
    state = read_state(best if best.exists() else run / "checkpoint.pt")
    config = SegmenterConfig.from_record(state["config"], str(run))
    if state["phase"] != config.phases[-1]:
        raise BadInput(f"{run} has reached FCN-{state['phase']} only, of {', '.join(config.phases)}. Train it to the end first.")
    network = config.build(state["phase"])
    network.load_state_dict(state["network"])
    unit = f"{'best of ' if best.exists() else ''}{state['step']} steps of {config.batch} slices from {len(state['subjects'])} subjects"
    extent = f"{unit}, initial weights: {state['initial']}"
    return SegmenterWeights(record, config, config.network_arguments(state["phase"]), network.eval(), extent)


def class_entries(config: SegmenterConfig, written: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The card's classes: codes of the training's labels, with the names, colours and terminology that a person wrote.

    Args:
        written: entries {"name", "colour"?, "terminology"?, "code"?}, named as the training's classes (grey matter is gm).

    Raises:
        BadInput: if a written name is no class of the run.
    """
    by_name = {structure_key(str(entry.get("name", ""))): entry for entry in written}
    unknown = sorted(set(by_name) - set(map(structure_key, config.names)))
    if unknown:
        raise BadInput(f"The card's class {', '.join(unknown)} is none of the run's: {', '.join(config.names)}.")
    entries = []
    for name, code in zip(config.names, config.codes, strict=True):
        own = {"code": code, "name": name, "colour": list(default_label(code).colour)}
        entries.append({**own, **by_name.get(structure_key(name), {})})
    return entries


def technical_segmenter_card(run: SegmenterWeights, written_classes: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The part of a card that a run decides.

    A card of real, shuffled or blurred second images names no translator: its second image has to be given.
    """
    config = run.config
    slicing: dict[str, Any] = {"plane": config.planes[0], "mode": config.mode, "size": [config.size] * 2, "spacing_mm": config.spacing_mm}
    if len(config.planes) > 1:
        slicing["planes"] = list(config.planes)
    card: dict[str, Any] = {
        "format": 1,
        "kind": "segmentation",
        "source": config.given,
        "channels": list(config.channels),
        "classes": class_entries(config, written_classes),
        "network": {"kind": config.network, "arguments": run.arguments},
        "slicing": slicing,
        "percentile": config.percentile,
    }
    if "second" in config.images:
        card["second"] = {"modality": config.second}
        if config.second_from == "translated":
            card["second"]["translator"] = dict(run.record["translator_card"])
    return card


def training_record(run: SegmenterWeights, notes: str) -> dict[str, Any]:
    """A card's `training` as far as the run decides it."""
    return {
        "data": [{"name": subject} for subject in run.record["subjects"]],
        "command": public_command(run.record["command"], run.record["data"]),
        "date": datetime.date.today().isoformat(),
        "notes": f"{run.extent}. {notes}".strip(),
    }


def experiment_segmenter(run: Path, folder: Path, name: str, notes: str, held_out: Sequence[str] = ()) -> SegmenterCard:
    """A package of an experiment's run, for `imt segment` and the scores; not made to be given away.

    Args:
        run: folder of the run.
        folder: for the package, whose name is `name`.
        notes: what it is, in a few words.
        held_out: the test subjects.

    Raises:
        BadInput, BadModel: as `load_segmenter_run`.
    """
    trained = load_segmenter_run(run)
    card = {
        **technical_segmenter_card(trained),
        "name": name,
        "version": "experiment",
        "title": notes,
        "task": trained.config.labels,
        "weights": {"licence": "none: an experiment's weights"},
        "training": {**training_record(trained, notes), "held_out": list(held_out)},
        "metrics": [],
        "intended_use": "To be scored.",
        "limits": ["An experiment at a small budget."],
    }
    return save_segmenter(folder, card, trained.network, torch.float32)
