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
from pathlib import Path

import numpy as np
import torch

from run_packages import load_run, public_command, technical_card
from training_data import find_subject

from IMTCore.architectures import ARCHITECTURES
from IMTCore.model_packages import save_package
from IMTCore.preparation import prepare
from IMTCore.slicing import SlicingSpec
from IMTCore.volume_io import read_volume


def training_medians(source: str, slicing: SlicingSpec, stride: int, subjects: list[str], root: Path) -> list[float]:
    """Range of the normalised head's median over the training sources, widened by a third, for the input check."""
    medians = []
    for name in subjects:
        path = find_subject(root, name, source)
        if path is not None:
            images = prepare(read_volume(path), slicing, stride).images
            medians.append(float(np.median((images[images > -0.8] + 1) / 2)))
    low, high = min(medians), max(medians)
    return [round(max(low - (high - low) / 3, 0.0), 3), round(min(high + (high - low) / 3, 1.0), 3)]


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
    run = load_run(values.run)
    record, data = run.record, Path(run.record["data"])
    written = json.loads(values.card.read_text(encoding="utf-8"))
    technical, network = technical_card(run, values.target, shared=bool(values.weights))
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in values.scores]
    training = written.pop("training")
    never_opened = {name for name in record.get("exclude", ()) if not set(name) & set("*?[")}
    stride = ARCHITECTURES[run.kind].stride(run.arguments)
    card = {
        **technical,
        **written,
        "accepts": {"extent_mm": [20, 400], "median": training_medians(run.source, run.slicings[0], stride, record["subjects"], data)},
        "training": {
            **training,
            "held_out": sorted({name for report in reports for name in report["test"]} | never_opened),
            "command": public_command(record["command"], record["data"]),
            "date": datetime.date.today().isoformat(),
            "notes": f"{run.extent}. " + training.get("notes", ""),
        },
        "metrics": [row for report in reports for row in report["summary"]],
    }
    dtype = torch.float32 if run.kind == "forest" else torch.float16
    exported = save_package(values.folder, card, network, dtype, values.weights)
    print(f"{exported.path}: {exported.content['weights']['bytes'] / 1e6:.1f} MB, {exported.sha256}")


if __name__ == "__main__":
    main()
