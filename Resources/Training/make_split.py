"""Split a data set by patient and save the split for the trainer (`--split`).

    python Resources/Training/make_split.py --data BRATS2015 --layout brats --subjects 'brats-hgg/*' --preset brats2015 \
        --modalities T1 T2 --slices --parts --output splits/brats2015.json
    python Resources/Training/make_split.py --data DATA --subjects 'glioma_brats2018/*' --folds 2 --output splits/glioma.json

`--folds` writes one file a fold (glioma-fold1.json and so on), `--parts` also the paper's PartA and PartB as training sets
(brats2015-part-a.json, brats2015-part-b.json; the test set is PartC in all).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

from IMTCore.errors import BadInput, ImtError, OutputFailure
from IMTCore.files import write_json

from datasets import LAYOUTS, Subject, find_subjects
from datasets import slices as slice_choice
from datasets import splits

Split = dict[str, list[str]]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the release was unpacked into")
    parser.add_argument("--layout", default="folders", choices=list(LAYOUTS))
    parser.add_argument("--subjects", nargs="+", metavar="PATTERN", help="only those, such as 'brats-hgg/*'")
    parser.add_argument("--modalities", nargs="+", default=[], metavar="NAME", help="only subjects that have all of these")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--preset", choices=list(splits.PRESETS), help="the sizes of a published split")
    how.add_argument("--counts", nargs=3, type=int, metavar=("TRAIN", "VALIDATE", "TEST"), help="numbers of subjects")
    how.add_argument("--fractions", nargs=3, type=float, metavar=("TRAIN", "VALIDATE", "TEST"), help="parts of the patients")
    how.add_argument("--folds", type=int, metavar="K", help="K splits; each patient is tested in one")
    parser.add_argument("--parts", action="store_true", help="also PartA and PartB, the training subjects 1:1")
    parser.add_argument(
        "--slices",
        nargs="*",
        type=int,
        metavar="N",
        help="list the axial slices to use: N_TRAIN N_TEST in all, or with a preset none for the published numbers",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args(argv)
    if arguments.slices is not None and not arguments.modalities:
        parser.error("--slices needs --modalities: the slices are chosen by the head in the first of them")
    if arguments.slices is not None and len(arguments.slices) not in (0, 2):
        parser.error("--slices takes two numbers, N_TRAIN N_TEST, or none with a preset")
    return arguments


def choose_subjects(arguments: argparse.Namespace) -> list[Subject]:
    """The subjects to split; those left out for a missing modality are named."""
    found = find_subjects(arguments.data, arguments.layout, arguments.subjects)
    kept = []
    for subject in found:
        missing = [modality for modality in arguments.modalities if modality not in subject.images]
        if missing:
            print(f"left out: {subject.name} (no {', '.join(missing)})")
        else:
            kept.append(subject)
    if not kept:
        raise BadInput(f"No subject below {arguments.data} matches --subjects and has all of --modalities.")
    return kept


def make_splits(subjects: list[Subject], arguments: argparse.Namespace) -> list[Split]:
    """One split, or one for each fold.

    Raises:
        BadInput: it cannot be made as asked, or a part that is needed would be empty.
    """
    groups = splits.groups_of(subjects)
    if arguments.folds is not None:
        return splits.folds(groups, arguments.folds, arguments.seed)
    if arguments.fractions:
        split = splits.split_by_fractions(groups, dict(zip(splits.PARTS, arguments.fractions, strict=True)), arguments.seed)
    elif arguments.counts:
        split = splits.split_by_counts(groups, dict(zip(splits.PARTS, arguments.counts, strict=True)), arguments.seed)
    else:
        preset = splits.PRESETS[arguments.preset]
        train = len(subjects) - preset.test if preset.train is None else preset.train
        if train + preset.test != len(subjects) or train < 1:
            raise BadInput(
                f"The split {arguments.preset!r} is of {train + preset.test} subjects ({train} and {preset.test}), but there are "
                f"{len(subjects)}. Choose them with --subjects, or give --counts or --fractions."
            )
        split = splits.split_by_counts(groups, {"train": train, "validate": 0, "test": preset.test}, arguments.seed)
    splits.check_not_empty(split)
    return [split]


def slices_of(split: Split, subjects: list[Subject], arguments: argparse.Namespace) -> dict[str, list[int]]:
    """{subject: axial slices to use}, for the training and the test part."""
    published = splits.PRESETS[arguments.preset].slices if arguments.preset else None
    totals = arguments.slices or published
    if not totals:
        raise BadInput("No numbers of slices are published for this split. Give them: --slices N_TRAIN N_TEST.")
    by_name = {subject.name: subject for subject in subjects}
    chosen: dict[str, list[int]] = {}
    for part, total in zip(("train", "test"), totals, strict=True):
        volumes = ((name, by_name[name].volume(arguments.modalities[0])) for name in split[part])
        chosen |= slice_choice.choose_slices({name: slice_choice.filled_slices(volume) for name, volume in volumes}, total)
    return chosen


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a split; one that is there already and differs stays.

    Raises:
        OutputFailure: another split is in the way, or the file cannot be written.
    """
    if path.exists():
        try:
            same = json.loads(path.read_text(encoding="utf-8")) == content
        except (OSError, ValueError):
            same = False
        if not same:
            raise OutputFailure(f"{path} holds another split. Choose another --output, or remove the file first.")
        print(f"{path}: there already, the same")
        return
    write_json(path, content)
    sizes = ", ".join(f"{len(content[part])} {part}" for part in splits.PARTS)
    slices = f", {sum(map(len, content['slices'].values()))} slices" if "slices" in content else ""
    print(f"{path}: {sizes}{slices}")


def contents(subjects: list[Subject], arguments: argparse.Namespace) -> list[tuple[Path, dict[str, Any]]]:
    """All files to write, made before any of them is written."""
    files = []
    made = make_splits(subjects, arguments)
    head: dict[str, Any] = {
        "dataset": arguments.preset or " ".join(sorted({subject.dataset for subject in subjects})),
        "layout": arguments.layout,
        "seed": arguments.seed,
    }
    if arguments.preset:
        head["source"] = splits.PRESETS[arguments.preset].source
    for number, split in enumerate(made, 1):
        content = {**head, **split}
        if arguments.folds is not None:
            content = {**head, "fold": number, "folds": arguments.folds, **split}
        if arguments.slices is not None:
            content["slices"] = slices_of(split, subjects, arguments)
        path = with_ending(arguments.output, f"-fold{number}" if arguments.folds is not None else "")
        files.append((path, content))
        if arguments.parts:
            parts = splits.halves(splits.groups_of(subjects), split["train"], arguments.seed)
            files += [
                (with_ending(path, f"-part-{letter}"), part_of(content, train)) for letter, train in zip("ab", parts, strict=True)
            ]
    return files


def part_of(content: dict[str, Any], train: Sequence[str]) -> dict[str, Any]:
    """The same split with fewer subjects to train on."""
    part = {**content, "train": list(train)}
    if "slices" in content:
        kept = {*train, *content["validate"], *content["test"]}
        part["slices"] = {name: slices for name, slices in content["slices"].items() if name in kept}
    return part


def with_ending(path: Path, ending: str) -> Path:
    """splits/a.json, -fold1 → splits/a-fold1.json"""
    return path.with_name(f"{path.stem}{ending}{path.suffix or '.json'}")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        for path, content in contents(choose_subjects(arguments), arguments):
            save(path, content)
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
