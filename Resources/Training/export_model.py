"""Make a model package from a training run: one target's share of the weights, and its card.

A run with several targets is split by output channel, which changes no number; with `--weights` the targets' cards share
one weights file instead.

Example:
    python Resources/Training/export_model.py --run runs/T1-T2-FLAIR --target T2 --card cards/T1-T2.json \
        --scores results/T1-T2/summary.json --folder IMTTranslate/Resources/IMT-models
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from train_translator import Config
from training_data import find_subject

from IMTCore.model_packages import save_package
from IMTCore.networks import UNetGenerator
from IMTCore.preparation import prepare
from IMTCore.volume_io import read_volume


def load_run(run: Path) -> tuple[Config, dict, dict]:
    """The run's experiment, its record, and its checkpoint."""
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    names = {f.name for f in fields(Config)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in names}
    return Config(**values), record, torch.load(run / "checkpoint.pt", weights_only=True)


def trained_network(config: Config, state: dict) -> UNetGenerator:
    """The run's generator with all its targets; the moving average of the weights if the run kept one."""
    network = config.generator()
    network.load_state_dict(state["average" if config.ema > 0 else "generator"])
    return network.eval()


def training_medians(config: Config, subjects: list[str], root: Path) -> list[float]:
    """Range of the normalised head's median over the training sources, widened by a third, for the input check."""
    medians = []
    for name in subjects:
        path = find_subject(root, name, config.source)
        if path is not None:
            images = prepare(read_volume(path), config.slicing, 2**config.depth).images
            medians.append(float(np.median((images[images > -0.8] + 1) / 2)))
    low, high = min(medians), max(medians)
    return [round(max(low - (high - low) / 3, 0.0), 3), round(min(high + (high - low) / 3, 1.0), 3)]


def public_command(command: list[str], data: str) -> str:
    """The training command without this machine's folders."""
    words = ["DATA" if word == data else word for word in command]
    words = [Path(word).name if Path(word).is_absolute() else word for word in words]
    return "python " + " ".join(shlex.quote(word) for word in words)


def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--card", required=True, type=Path, help="JSON with what a person writes: title, data terms, limits …")
    parser.add_argument("--scores", nargs="*", default=[], type=Path, help="summary.json files of evaluate_translator.py")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--weights", default="", help="name of a weights file that the cards of all the run's targets share")
    values = parser.parse_args()
    config, record, state = load_run(values.run)
    written = json.loads(values.card.read_text(encoding="utf-8"))
    network = trained_network(config, state)
    channel = config.targets.index(values.target)
    if not values.weights:
        network.keep_output(channel)
    neighbours = list(config.neighbours_mm)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in values.scores]
    training = written.pop("training")
    card = {
        "format": 1,
        **written,
        "source": config.source,
        "target": values.target,
        "network": {
            "kind": "unet",
            "arguments": {
                "in_channels": len(neighbours),
                "out_channels": len(config.targets) if values.weights else 1,
                "filters": config.filters,
                "depth": config.depth,
                "dropout_blocks": config.dropout_blocks,
            },
            **({"channel": channel} if values.weights else {}),
        },
        "slicing": {
            "plane": config.plane,
            "mode": config.mode,
            "size": [config.size, config.size],
            "spacing_mm": config.spacing_mm,
            "neighbours_mm": neighbours,
        },
        "percentile": 99.5,
        "output_range": [0, 255],
        "accepts": {"extent_mm": [20, 400], "median": training_medians(config, record["subjects"], Path(config.data))},
        "training": {
            **training,
            "held_out": sorted({name for report in reports for name in report["test"]}),
            "command": public_command(record["command"], config.data),
            "date": datetime.date.today().isoformat(),
            "notes": f"{state['step']} steps of {config.batch} slices from {len(record['subjects'])} subjects. " + training.get("notes", ""),
        },
        "metrics": [row for report in reports for row in report["summary"]],
    }
    exported = save_package(values.folder, card, network, stem=values.weights)
    print(f"{exported.path}: {exported.content['weights']['bytes'] / 1e6:.1f} MB, {exported.sha256}")


if __name__ == "__main__":
    main()
