"""Score segmentation packages on subjects with reference labels, through the code of `imt segment`.

Dice, 95th percentile Hausdorff distance and volume difference of each structure and subject, and the accuracy of Yang et al.
2020; means over subjects with bootstrap intervals. Pictures of the first model's best and worst subject of each structure
show true, false and missing regions (Figs. 9 and 10).

Example:
    python Resources/Training/evaluate_segmenter.py --data DATA --model tissue-T1 --labels tissues \
        --test nichart/subject03 nichart/subject08 --output results/tissue-T1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

import numpy as np

from datasets import LAYOUTS, Subject
from segmentation_cases import MEASURES, SegmentedCase, config_for, matching_codes, score_case, segment_case, segmenter_of
from segmentation_pictures import write_pictures
from segmenter_config import LABEL_CLASSES, SegmenterConfig
from segmenter_data import find_labelled
from segmenter_second import SecondModality
from run_tables import write_csv
from unseen_subjects import check_unseen

from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_json, write_text
from IMTCore.statistics import bootstrap_interval, markdown_table
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_catalogue import find_segmenter

# measure -> heading, digits
SHOWN = {"dice": ("Dice", 3), "hausdorff_95_mm": ("HD95 mm", 2), "difference_percent": ("volume difference %", 1), "accuracy": ("accuracy", 3)}
KINDS = ("translated", "real", "shuffled", "blurred")


def models_of(entries: Sequence[str]) -> dict[str, SegmenterCard]:
    """Label -> card of `[LABEL=]MODEL` entries. BadInput, BadModel: no such model, or a label twice."""
    cards: dict[str, SegmenterCard] = {}
    for entry in entries:
        label, _, name = entry.rpartition("=")
        card = find_segmenter(name)
        if (label or card.name) in cards:
            raise BadInput(f"Two models are called {label or card.name}: give LABEL=MODEL.")
        cards[label or card.name] = card
    return cards


def test_subjects(values: argparse.Namespace, cards: dict[str, SegmenterCard], classes: tuple[str, ...]) -> list[Subject]:
    """The subjects to score. BadInput: none, one lacks something, or a model or its translator may have seen one."""
    first = next(iter(cards.values()))
    differing = {card.source for card in cards.values()}
    if len(differing) > 1:
        raise BadInput(f"The models segment different images ({', '.join(sorted(differing))}): score them apart.")
    second = next((card.second for card in cards.values() if card.second), "")
    real = values.second_from == "real" and bool(second)
    wanted = SegmenterConfig(
        str(values.data), first.source, values.labels, classes, tuple(values.test), layout=values.layout, second=second,
        channels=("given", "second") if real else ("given",), second_from=values.second_from,
    )  # fmt: skip
    subjects = find_labelled(wanted, values.test, values.exclude, "test")
    if not values.seen:
        names = [subject.name for subject in subjects]
        for card in cards.values():
            check_unseen(card, names)
            translator = values.translator or (card.translator or {}).get("name")
            if translator and values.second_from != "real":
                check_unseen(find_card(translator), names)
    return subjects


def second_for(card: SegmenterCard, values: argparse.Namespace) -> SecondModality | None:
    """What gives the second images of `--second-from`; None lets the package translate. Errors as `SecondModality`."""
    if card.second is None or values.second_from == "translated":
        return None
    translator = values.translator or (card.translator or {}).get("name", "")
    return SecondModality(config_for(card, values.second_from, translator, values.blur_mm), values.device, None, print)


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the subjects that have a value, with the 95 % bootstrap interval of Dice: one row a model and structure."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["structure"]), []).append(row)
    table = []
    for (model, structure), members in groups.items():
        means: dict[str, Any] = {}
        for measure in MEASURES:
            known = [row[measure] for row in members if row.get(measure) is not None]
            means[measure] = round(float(np.mean(known)), 4) if known else None
        known = [row["dice"] for row in members if row.get("dice") is not None]
        interval = bootstrap_interval(known) if len(known) > 1 else None
        bounds = {"dice_low": None, "dice_high": None} if interval is None else {"dice_low": round(interval.low, 4), "dice_high": round(interval.high, 4)}
        table.append({"model": model, "structure": structure, "subjects": len(members), **means, **bounds})
    return table


def as_text(table: Sequence[dict[str, Any]]) -> str:
    """The summary as a Markdown table."""
    lines = []
    for row in table:
        cells = ["" if row[m] is None else f"{row[m]:.{digits}f}" for m, (_, digits) in SHOWN.items()]
        interval = "" if row["dice_low"] is None else f"{row['dice_low']:.3f} to {row['dice_high']:.3f}"
        lines.append([row["model"], row["structure"], row["subjects"], cells[0], interval, *cells[1:]])
    headings = [heading for heading, _ in SHOWN.values()]
    return markdown_table(["model", "structure", "subjects", headings[0], "95 % interval", *headings[1:]], lines)


def evaluate(values: argparse.Namespace) -> None:
    """Segment, score, write, draw. ImtError: as the parts raise it."""
    classes = tuple(values.classes or LABEL_CLASSES.get(values.labels, ()))
    if not classes:
        raise BadInput(f"The classes of {values.labels!r} are not known: give them with --classes NAME=CODES.")
    cards = models_of(values.model)
    for card in cards.values():
        matching_codes(card, classes)
    subjects = test_subjects(values, cards, classes)
    check_writable(values.output / "scores.csv")
    rows: list[dict[str, Any]] = []
    cases: dict[str, dict[str, SegmentedCase]] = {}
    for label, card in cards.items():
        second = second_for(card, values)  # then the package is given it, and has nothing to translate
        translator = values.translator if second is None and card.second is not None else None
        segmenter = segmenter_of(card, values.device, translator)
        for subject in subjects:
            case = segment_case(segmenter, subject, values.labels, classes, second)
            scored = [{"model": label, **row} for row in score_case(case)]
            cases.setdefault(subject.name, {})[label] = case
            rows += scored
            dice = "  ".join(f"{row['structure']} {row['dice']:.3f}" for row in scored if row.get("dice") is not None)
            print(f"{subject.name:<32} {label:<20} Dice  {dice}", flush=True)
    write_csv(values.output / "scores.csv", ["model", "subject", "structure", *MEASURES], rows)
    table = summarise(rows)
    write_json(values.output / "summary.json", {"labels": values.labels, "test": [s.name for s in subjects], "summary": table})
    text = f"Means over {len(subjects)} subjects, {values.labels} as reference.\n\n{as_text(table)}"
    write_text(values.output / "summary.md", text)
    print(text)
    if not values.no_pictures:
        first = [row for row in rows if row["model"] == next(iter(cards))]
        names = [entry.partition("=")[0] for entry in classes]
        write_pictures(cases, first, names, values.output / "pictures")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--layout", default="folders", choices=list(LAYOUTS))
    parser.add_argument("--model", required=True, nargs="+", metavar="[LABEL=]MODEL", help="names, tasks or card paths")
    parser.add_argument("--labels", required=True, help="the reference label map, such as tissues")
    parser.add_argument("--classes", nargs="+", metavar="NAME=CODES", help="its classes, named as the model's")
    parser.add_argument("--test", required=True, nargs="+", metavar="PATTERN", help="held-out subjects")
    parser.add_argument("--exclude", nargs="*", default=[], metavar="PATTERN")
    parser.add_argument("--second-from", choices=KINDS, default="translated", help="of models with a second image (default translated)")
    parser.add_argument("--translator", help="in place of the model's own")
    parser.add_argument("--blur-mm", type=float, default=6.0, help="of --second-from blurred (default 6)")
    parser.add_argument("--seen", action="store_true", help="score subjects that the card does not list as unseen: no test, a fit")
    parser.add_argument("--no-pictures", action="store_true")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--output", required=True, type=Path, help="folder for scores.csv, summary.json, summary.md, pictures")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Score; an error is one sentence on the screen."""
    try:
        evaluate(make_parser().parse_args(arguments))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
