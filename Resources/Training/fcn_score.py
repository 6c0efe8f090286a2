"""FCN-score: how well a network that learned to segment real images segments translated ones (Yang et al. 2020, Tables 2, 3).

An FCN-8s is trained on real target images with labels. It then segments the real and the synthetic target images of
subjects that neither it nor the translator has seen. The closer the synthetic images' scores come to the real ones', the
better; the gap between them is the FCN-score of the translation.

    python Resources/Training/fcn_score.py --data DATA --target FLAIR --labels tissues --train 'nichart/*' \
        --exclude nichart/subject03 nichart/subject08 nichart/subject14 --model T1-FLAIR --output RESULTS

The run writes checkpoint.pt, config.json, log.jsonl, scores.csv (one row a subject and kind of image), table.md and
summary.json; started again, it goes on where it was, or only scores.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

import numpy as np

from datasets import LAYOUTS, Subject, find_subjects
from fcn_scoring import Folder, Model, score_subjects
from segmentation_scores import REAL, as_csv, as_markdown, summarise
from segmenter_arguments import SegmenterRunOptions
from segmenter_config import LABEL_CLASSES, SegmenterConfig, check_classes
from segmenter_data import load_examples
from segmenter_run import SegmenterRun
from segmenter_trainer import SegmenterTrainer
from unseen_subjects import check_unseen

from IMTCore.catalogue import find_card, list_cards
from IMTCore.devices import choose_device
from IMTCore.errors import BadInput, ImtError
from IMTCore.fcn_arguments import VARIANTS
from IMTCore.files import check_writable, write_json, write_text
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; what concerns the scorer becomes its SegmenterConfig."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = SegmenterConfig("", "", "", (), ())
    add = parser.add_argument
    add("--data", required=True, help="folder of the data sets")
    add("--layout", default="folders", choices=list(LAYOUTS))
    add("--target", required=True, help="the modality that is scored, such as FLAIR")
    add("--labels", required=True, help=f"label map to segment: {', '.join(LABEL_CLASSES)}, or another with --classes")
    add("--classes", nargs="+", metavar="NAME=CODES", help="classes and their codes, such as gm=2 wm=3 tumour=1,2,4")
    add("--train", nargs="+", required=True, metavar="PATTERN", help="subjects that the scorer learns from")
    add("--exclude", nargs="*", default=[], metavar="PATTERN", help="subjects of --train that it does not")
    add("--test", nargs="+", metavar="PATTERN", help="subjects to score, left out of the training; default: those of --exclude")
    add("--synthetic", nargs="*", default=[], metavar="LABEL=FOLDER", help="folders of synthetic target images")
    add("--model", nargs="*", default=[], metavar="[LABEL=]MODEL", help="models to translate with: names or card paths")
    add("--source", help="the modality to translate from; default: the model's")
    add("--stages", nargs="+", choices=VARIANTS, default=defaults.stages, help="trained one after the other")
    add("--skip-scaling", action="store_true", help="pool4 x 0.01 and pool3 x 0.0001, for a single stage (all at once)")
    add("--vgg", default="", metavar="FILE", help="VGG-16 weights: safetensors or a torchvision state dictionary")
    add("--plane", choices=["axial", "coronal", "sagittal"], default=defaults.planes[0])
    for name, choices in (
        ("mode", ["paper", "spatial"]),
        ("optimiser", ["sgd", "adam"]),
        ("class_weights", ["none", "median"]),
        ("vgg_scaling", ["torchvision", "caffe"]),
    ):
        add("--" + name.replace("_", "-"), choices=choices, default=getattr(defaults, name))
    for name in ("size", "padding", "steps", "batch", "seed"):
        add("--" + name, type=int, default=getattr(defaults, name), help="of each stage" if name == "steps" else None)
    for name in ("spacing_mm", "width", "dropout", "learning_rate", "momentum", "weight_decay"):
        add("--" + name.replace("_", "-"), type=float, default=getattr(defaults, name))
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--checkpoint-every", type=int, default=500, metavar="STEPS")
    add("--stop-at", type=int, metavar="STEP", help="stop the training after this step, to be resumed later")
    add("--output", required=True, type=Path, help="folder of the run and its results")
    return parser.parse_args(arguments)


def config_of(values: argparse.Namespace) -> SegmenterConfig:
    """The scorer's training: an FCN on the target image alone. BadInput: unknown labels, malformed classes, stages or numbers."""
    classes = values.classes or LABEL_CLASSES.get(values.labels)
    if not classes:
        raise BadInput(f"The classes of {values.labels!r} are not known: give them with --classes NAME=CODES.")
    check_classes(tuple(classes))
    taken = {name: getattr(values, name) for name in SegmenterConfig.__dataclass_fields__ if hasattr(values, name)}
    taken |= {"classes": classes, "given": values.target, "planes": [values.plane]}
    config = SegmenterConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in taken.items()})
    config.check()
    return config


def split(values: argparse.Namespace) -> tuple[list[Subject], list[Subject]]:
    """Subjects to train on and to test. BadInput: none of either, or a subject or patient who would be in both."""

    def found(patterns: list[str]) -> list[Subject]:
        return find_subjects(Path(values.data), values.layout, patterns)

    excluded = {subject.name for subject in found(values.exclude)}
    groups = {
        "--train less --exclude": [subject for subject in found(values.train) if subject.name not in excluded],
        "--test": found(values.test or values.exclude),
    }
    for option, subjects in groups.items():
        incomplete = [s.name for s in subjects if values.target not in s.images or values.labels not in s.labels]
        if incomplete:
            print(f"left out: {', '.join(incomplete)} (no {values.target} with {values.labels})", flush=True)
        groups[option] = [subject for subject in subjects if subject.name not in incomplete]
        if not groups[option]:
            raise BadInput(f"No subject of {option} in {values.data} has {values.target} and {values.labels}.")
    learning, tests = groups.values()
    patients = {(s.dataset, s.patient) for s in tests}
    seen = [s.name for s in learning if (s.dataset, s.patient) in patients]
    if seen:
        raise BadInput(f"{', '.join(seen)} would be trained on, and the same patients tested. Hold them out with --exclude.")
    return learning, tests


def kinds_of(values: argparse.Namespace, tests: list[Subject]) -> dict[str, Folder | Model]:
    """What gives the synthetic images, by label. BadInput: a file is not there, or a model does not fit or saw a subject."""
    kinds: dict[str, Folder | Model] = {}
    known = {(card.name, card.sha256): card for card in list_cards()[0]}  # models may share their weights
    for entry in values.synthetic:
        label, _, path = entry.partition("=")
        if not label or not path:
            raise BadInput(f"--synthetic {entry!r} is not LABEL=FOLDER.")
        kinds[label] = Folder(Path(path), values.target)
        for subject in tests:
            model = read_mark(sidecar_path(kinds[label].find(subject))).get("model")
            name = (model.get("name"), model.get("sha256")) if isinstance(model, dict) else None
            if name in known:
                check_unseen(known[name], [subject.name])
    for entry in values.model:
        label, _, name = entry.rpartition("=")
        card = find_card(name)
        check_unseen(card, [subject.name for subject in tests])
        settings = TranslationSettings(values.source, values.target, device=values.device, precision="fp32")
        kinds[label or card.name] = model = Model(Translator(card, settings))
        lacking = [subject.name for subject in tests if model.translator.source not in subject.images]
        if lacking:
            raise BadInput(f"{', '.join(lacking)}: no {model.translator.source} to translate with {card.name}. Test others.")
    if len(kinds) < len(values.synthetic) + len(values.model) or REAL in kinds:
        raise BadInput(f"Every --synthetic and --model needs a label of its own, and {REAL!r} is taken: give LABEL=….")
    return kinds


def report(trainer: SegmenterTrainer, rows: list[dict], output: Path) -> None:
    """Write scores.csv, table.md and summary.json, and print the table. OutputFailure: one cannot be written."""
    config, table = trainer.config, summarise(rows)
    subjects = len({row["subject"] for row in rows})
    text = (
        f"FCN-score, {config.given}, {config.labels}: means over {subjects} held-out subjects. Scorer: FCN-{config.stages[-1]}, "
        f"width {config.width:g}, initial weights {trainer.initial}, {trainer.step} steps of {config.batch} slices from "
        f"{len(trainer.subjects)} subjects. Accuracy and Dice over all voxels of the slices that hold a part of the image.\n\n"
    )
    write_text(output / "scores.csv", as_csv(rows))
    write_text(output / "table.md", text + as_markdown(table, config.given))
    known = [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in table]
    test = sorted({row["subject"] for row in rows})
    write_json(output / "summary.json", {"test": test, "initial_weights": trainer.initial, "summary": known})
    print(text + as_markdown(table, config.given), end="")


def run(values: argparse.Namespace) -> None:
    """Train or resume the scorer, then score. ImtError: as the parts raise it."""
    config, output = config_of(values), values.output
    learning, tests = split(values)
    kinds = kinds_of(values, tests)
    check_writable(output / "checkpoint.pt")
    trainer = SegmenterTrainer(config, load_examples(learning, config), choose_device(values.device))
    checkpoint = output / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"resumed at step {trainer.step}", flush=True)
    else:
        trainer.start(lambda text: print(text, flush=True))
    command = [*sys.argv[:1], *(values.arguments or sys.argv[1:])]
    subjects = {"subjects": [s.name for s in learning], "test": [s.name for s in tests]}
    write_json(output / "config.json", {**asdict(config), **subjects, "initial_weights": trainer.initial, "command": command})
    SegmenterRun(trainer, SegmenterRunOptions(output, values.stop_at, values.device)).run()
    if trainer.step < config.total_steps:
        print(f"stopped at step {trainer.step} of {config.total_steps}: run the same command again to go on")
        return
    report(trainer, list(score_subjects(trainer, tests, kinds)), output)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    values = parse(arguments)
    values.arguments = arguments
    try:
        run(values)
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
