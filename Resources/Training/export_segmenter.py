"""Make a segmentation model package from a run of train_segmenter.py: its weights, and its card.

The card's JSON (Resources/Training/cards) has what a person writes: name, version, title, task, classes with their names,
colours and terminology, data and their terms, limits. The run and the scores of evaluate_segmenter.py give the rest.

Example:
    python Resources/Training/export_segmenter.py --run runs/tms --card Resources/Training/cards/tissue-T1.json \
        --scores results/tms/summary.json --folder IMTSegment/Resources/IMT-segment-models
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

import numpy as np
import torch

from segmenter_data import find_labelled, prepare_subject
from segmenter_weights import SegmenterWeights, load_segmenter_run, technical_segmenter_card, training_record

from IMTCore.errors import BadInput, ImtError
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_packages import save_segmenter

EXTENT_MM = [20, 400]
HEAD = -0.8  # darker is air, as in IMTCore.plausibility


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises BadInput."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold one JSON object.")
    return content


def accepted(run: SegmenterWeights) -> dict[str, list[float]]:
    """What the model accepts: extents in mm, and heads of about the training images' brightness, with and without skull as trained.

    The medians' range is widened by a third; without the training data there is none.
    """
    config = replace(run.config, channels=("given",) * len(run.config.channels), train=tuple(map(glob.escape, run.record["subjects"])))
    if not Path(config.data).is_dir():
        print(f"{config.data} is not here: the card gets no range of the training images' brightness.")
        return {"extent_mm": EXTENT_MM}
    medians = []
    for subject in find_labelled(config, config.train, (), "training"):
        for prepared in prepare_subject(subject, config, None, config.strip_share > 0):
            images = prepared.views[0].images
            medians.append(float(np.median((images[images > HEAD] + 1) / 2)))
    low, high = min(medians), max(medians)
    return {
        "extent_mm": EXTENT_MM,
        "median": [round(max(low - (high - low) / 3, 0.0), 3), round(min(high + (high - low) / 3, 1.0), 3)],
    }


def export(run: Path, card_file: Path, scores: list[Path], folder: Path, dtype: torch.dtype = torch.float16) -> SegmenterCard:
    """Write the package.

    Raises:
        BadInput: the run, card or scores cannot be read or do not fit. BadModel: the card is not valid. OutputFailure.
    """
    trained, written = load_segmenter_run(run), read_json(card_file)
    reports = [read_json(path) for path in scores]
    by_hand, made = written.pop("training", {}), training_record(trained, "")
    never_opened = {name for name in trained.record.get("exclude", ()) if not set(name) & set("*?[")}
    held_out = {name for report in reports for name in report["test"]} | never_opened
    notes = " ".join(text for text in (made["notes"], by_hand.get("notes", "")) if text)
    training = {**made, **by_hand, "notes": notes, "held_out": sorted(held_out)}
    card = {
        **technical_segmenter_card(trained, written.pop("classes", [])),
        "accepts": accepted(trained),
        **written,
        "training": training,
        "metrics": [{"dataset": datasets_of(report["test"]), **row} for report in reports for row in report["summary"]],
    }
    return save_segmenter(folder, card, trained.network, dtype)


def datasets_of(subjects: Sequence[str]) -> str:
    """The data sets of `<dataset>/<subject>` names."""
    return ", ".join(sorted({name.partition("/")[0] for name in subjects}))


def main(arguments: list[str] | None = None) -> None:
    """Export; an error is one sentence on the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--card", required=True, type=Path, help="JSON with what a person writes")
    parser.add_argument("--scores", nargs="*", default=[], type=Path, help="summary.json files of evaluate_segmenter.py")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="of the stored weights (default fp16)")
    values = parser.parse_args(arguments)
    try:
        dtype = torch.float16 if values.precision == "fp16" else torch.float32
        card = export(values.run, values.card, values.scores, values.folder, dtype)
    except ImtError as error:
        sys.exit(str(error))
    print(f"{card.path}: {card.content['weights']['bytes'] / 1e6:.1f} MB, {card.sha256}")


if __name__ == "__main__":
    main()
