"""Measure what was in a model's training, for the check of inputs and the trust map: the card's `training_range`.

It reads the subjects that a run trained on (its config.json), or those that `--train` and `--exclude` name, and measures their
source images as `imt check` measures an input. Held-out subjects are not opened.

Example:
    python Resources/Training/measure_training_range.py --data DATA --run runs/T1-T2-FLAIR \
        --card IMTTranslate/Resources/IMT-models/T1-T2.json Resources/Training/cards/T1-T2.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from training_data import find_subject, select_subjects

from IMTCore.cards import ModelCard, read_card
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import write_text
from IMTCore.input_check_measures import SIDES, InputMeasures, measure_input
from IMTCore.inputs import usable_planes
from IMTCore.preparation import prepare
from IMTCore.uncertainty_map import BEYOND, BINS, INSIDE, neighbourhood_bins
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume

KEPT_SHARE = 0.995  # of the training voxels lie in the bins that count as inside


def neighbourhood_counts(volume: Volume, card: ModelCard) -> np.ndarray:
    """How often each pair of a voxel's bin and its neighbourhood's occurs in an image, (BINS, BINS), summing to 1."""
    view = prepare(volume, card.slicing, card.stride, card.percentile)
    image = view.restore(list(range(len(view.images))), (view.images + 1) / 2)
    foreground = np.ascontiguousarray(view.axes.invert(view.foreground)) & (image > 0)
    own, mean = neighbourhood_bins(image, volume.geometry.spacing_mm[::-1], foreground)
    counts = np.zeros((BINS, BINS))
    np.add.at(counts, (own[foreground], mean[foreground]), 1)
    return counts / counts.sum()


def most_frequent(counts: np.ndarray) -> list[str]:
    """Rows of marks: the smallest set of bins that holds `KEPT_SHARE` of the counts is inside."""
    order = np.argsort(counts, axis=None)[::-1]
    kept = order[: int(np.searchsorted(np.cumsum(counts.ravel()[order]), KEPT_SHARE * counts.sum())) + 1]
    inside = np.zeros(counts.size, bool)
    inside[kept] = True
    return ["".join(INSIDE if one else BEYOND for one in row) for row in inside.reshape(counts.shape)]


def training_range(measures: list[InputMeasures], counts: list[np.ndarray]) -> dict[str, Any]:
    """The card's entry, from the measures of every training image and its `neighbourhood_counts`."""

    def ends(values: list[float]) -> list[float]:
        return [round(min(values), 3), round(max(values), 3)]

    return {
        "subjects": len(measures),
        "finest_mm": ends([one.voxel_mm[0] for one in measures]),
        "coarsest_mm": ends([one.voxel_mm[1] for one in measures]),
        "height_mm": ends([one.height_mm for one in measures]),
        "skull": dict(sorted(Counter(one.skull for one in measures).items())),
        "cut": {side: max(one.cut[side] for one in measures) for side in SIDES},
        "landmarks": [ends(list(values)) for values in zip(*(one.landmarks for one in measures), strict=True)],
        "clipped": max(one.clipped for one in measures),
        "levels": min(one.levels for one in measures),
        "drift": max(one.drift for one in measures),
        "neighbourhood": most_frequent(np.mean(counts, axis=0)),
    }


def measure(data: Path, subjects: list[str], card: ModelCard) -> dict[str, Any]:
    """The training range of these subjects' source images.

    Raises:
        BadInput: none of them has the source, or one shows no head; names it.
    """
    measures, counts = [], []
    for name in subjects:
        path = find_subject(data, name, card.source)
        if path is None:
            continue
        volume = read_volume(path)
        found = measure_input(volume)
        if found is None:
            raise BadInput(f"No head was found in {name}. Leave it out (--exclude {name}).")
        measures.append(found)
        counts.append(neighbourhood_counts(volume, card))
        print(f"{name}: {found.skull}, {found.voxel_mm[0]:g} to {found.voxel_mm[1]:g} mm, {len(usable_planes(volume, card))} plane(s)", flush=True)
    if not measures:
        raise BadInput(f"None of the {len(subjects)} subjects in {data} has an image {card.source}.")
    return training_range(measures, counts)


def subjects_of(values: argparse.Namespace, card: ModelCard) -> list[str]:
    """The subjects trained on, by the run's record or by patterns; those that have source and target."""
    if values.run is not None:
        record = json.loads((values.run / "config.json").read_text(encoding="utf-8"))
        return sorted(set(record["subjects"]))  # a run of several planes lists each subject once a plane
    if not values.train:
        raise BadInput("Say what was trained on: --run RUN, or --train PATTERNS with --exclude PATTERNS.")
    held_out = [*values.exclude, *card.content["training"].get("held_out", [])]
    return [s.name for s in select_subjects(values.data, values.train, held_out) if {card.source, card.target} <= set(s.images)]


def put_on_card(path: Path, key: str, entry: dict[str, Any]) -> None:
    """Set one key of a JSON card, whole or not at all; every other key stays in its place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content[key] = entry
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(f"{path}: {key}")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and put it on the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--run", type=Path, help="training run: its config.json lists the training subjects")
    parser.add_argument("--train", nargs="*", default=[], help="instead of --run: patterns of subjects")
    parser.add_argument("--exclude", nargs="*", default=[], help="patterns of subjects not trained on; the card's held-out ones never are")
    parser.add_argument("--card", required=True, nargs="+", type=Path, help="the model's card; further files get the key too")
    values = parser.parse_args(arguments)
    try:
        card = read_card(values.card[0])
        entry = measure(values.data, subjects_of(values, card), card)
        for path in values.card:
            put_on_card(path, "training_range", entry)
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
