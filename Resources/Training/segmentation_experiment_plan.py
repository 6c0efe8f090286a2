"""What is trained to ask whether translation is worth it: methods, seeds, and the parts A, B and C of the subjects.

Yang et al. 2020 (Cross-modality segmentation, Dataset): PartA trains the translator, PartB, with inferred translations, the
segmenter, PartC is the test.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Subject
from datasets.splits import groups_of, halves, split_by_counts
from experiment import read_split
from segmenter_arguments import SegmenterRunOptions, parse
from segmenter_config import NOT_LEARNT, SegmenterConfig
from segmenter_data import find_labelled
from training_data import select_subjects

from IMTCore.errors import BadInput

PARTS = ("a", "b", "c")


@dataclass(frozen=True)
class Method:
    """One way to fill the channels.

    Attributes:
        channels: of the network.
        second_from: what a second channel is; empty if there is none.
        about: what it tests, for the report.
        pretrained: first trained on part A, with A's labels.
    """

    channels: tuple[str, ...]
    second_from: str
    about: str
    pretrained: bool = False


THRICE, PAIR = ("given", "given", "given"), ("given", "given", "second")
METHODS: dict[str, Method] = {
    "given-only": Method(("given",), "", "one channel: the given image"),
    "xxx": Method(THRICE, "", "the given image in all three channels: the network of TMS without translation"),
    "tms": Method(PAIR, "translated", "given, given, translated (Yang et al. 2020)"),
    "shuffled": Method(PAIR, "shuffled", "control: the translation with its slices in a random order"),
    "blurred": Method(PAIR, "blurred", "control: the translation smoothed"),
    "pretrained": Method(THRICE, "", "control: xxx trained on part A's labels first, then on B (twice the steps)", True),
    "real": Method(PAIR, "real", "upper bound: given, given, and the second modality as acquired"),
}
# A narrow U-Net with L1 and SSIM, as the shipped translators are (Resources/Training/README.md), for a small part A.
TRANSLATOR: dict[str, Any] = {
    "mode": "spatial", "filters": 32, "depth": 6, "dropout_blocks": 2, "batch": 4, "l1": 100.0, "ssim": 20.0, "adversarial": 0.0,
    "beta1": 0.9, "schedule": "cosine", "learning_rate": 5e-4, "augmentation": "mild", "steps": 4000,
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """One method with one seed.

    Attributes:
        key: `<method>/seed<n>`, its folder too.
        config: its training on part B.
        before: its training on part A, of a pretrained one.
    """

    key: str
    method: str
    seed: int
    config: SegmenterConfig
    before: SegmenterConfig | None = None


@dataclass(frozen=True)
class ExperimentPlan:
    """All fits, and what they are made from.

    Attributes:
        base: the training that all methods share.
        options: how a run goes.
        second: the second modality.
        parts: {"a", "b", "c": subjects' names}.
        methods, seeds: in the order of the tables.
        record: what must stay the same when methods or seeds are added.
    """

    base: SegmenterConfig
    options: SegmenterRunOptions
    second: str
    parts: dict[str, list[str]]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    record: dict[str, Any]

    @property
    def needs_translator(self) -> bool:
        """Whether a method's second image is made by a translator."""
        return any(METHODS[name].second_from not in ("", "real") for name in self.methods)

    def fits(self, translator: str) -> list[Fit]:
        """Every method with every seed, seed by seed, so that a broken run can be compared.

        Args:
            translator: the card of the translator; empty if none is needed.

        Raises:
            BadInput: if a method's settings cannot be trained.
        """
        return [self.fit(name, seed, translator) for seed in self.seeds for name in self.methods]

    def fit(self, name: str, seed: int, translator: str) -> Fit:
        """One method with one seed. Errors as `fits`."""
        method = METHODS[name]
        second = {"second": self.second, "second_from": method.second_from} if method.second_from else {}
        if method.second_from not in ("", "real"):
            second["translator"] = translator
        own = dataclasses.replace(
            self.base, channels=method.channels, seed=seed, exclude=escaped(self.parts["c"]), train=escaped(self.parts["b"]), **second
        )
        own.check()
        before = dataclasses.replace(own, train=escaped(self.parts["a"])) if method.pretrained else None
        return Fit(f"{name}/seed{seed}", name, seed, own, before)

    def subjects(self, part: str, labelled: bool = True) -> list[Subject]:
        """A part's subjects, with the given image and, if `labelled`, the labels. BadInput: one lacks something."""
        patterns = escaped(self.parts[part])
        if labelled:
            return find_labelled(self.base, patterns, (), f"part {part.upper()}")
        return select_subjects(Path(self.base.data), patterns, (), self.base.layout)


def escaped(names: list[str]) -> tuple[str, ...]:
    """Names as patterns that match only themselves."""
    return tuple(map(glob.escape, names))


def make_plan(values: argparse.Namespace, rest: list[str]) -> ExperimentPlan:
    """The whole experiment.

    Args:
        values: the experiment's own options.
        rest: those of train_segmenter.py.

    Raises:
        BadInput: if options, methods or subjects cannot be used.
    """
    base, options = parse([*rest, "--train", "*", "--output", str(values.output)])
    if options.stop_at is not None:
        raise BadInput("--stop-at would leave every run unfinished: give --steps.")
    methods = tuple(dict.fromkeys(values.methods))
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise BadInput(f"There is no method {', '.join(unknown)}. Known: {', '.join(METHODS)}.")
    if len(set(values.seeds)) < len(values.seeds) or min(values.seeds) < 0:
        raise BadInput("--seeds must be different whole numbers from 0.")
    parts = parts_of(values, base)
    check_parts(parts, base)
    record = {name: value for name, value in asdict(base).items() if name not in (*NOT_LEARNT, "seed", "train", "exclude")}
    record |= {"second": values.second, "blur_mm": base.blur_mm, "parts": parts, "translator": values.translator}
    record["translator_settings"] = {} if values.translator else translator_settings(values, base)
    return ExperimentPlan(base, options, values.second, parts, methods, tuple(values.seeds), json.loads(json.dumps(record)))


def translator_settings(values: argparse.Namespace, base: SegmenterConfig) -> dict[str, Any]:
    """The settings of train_translator.py: those of --translator-config, or `TRANSLATOR` at the segmenter's spacing. Raises BadInput."""
    if values.translator_config is None:
        return {**TRANSLATOR, "spacing_mm": base.spacing_mm}
    try:
        content = json.loads(values.translator_config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{values.translator_config} cannot be read as settings: {error}.") from error
    return content


def parts_of(values: argparse.Namespace, base: SegmenterConfig) -> dict[str, list[str]]:
    """The subjects of A, B and C: by patterns, by a saved split (its training half and half, by patient), or by numbers.

    Raises:
        BadInput: none or several of these were given, or they cannot be met.
    """
    given = [getattr(values, f"part_{part}") for part in PARTS]
    ways = [any(given), values.parts is not None, values.counts is not None]
    if sum(ways) != 1 or (any(given) and not all(given)):
        raise BadInput("Give the parts one way: --part-a, --part-b and --part-c; or --parts SPLIT; or --subjects and --counts A B C.")
    root = Path(base.data)
    if any(given):
        return {part: [s.name for s in select_subjects(root, patterns, (), base.layout)] for part, patterns in zip(PARTS, given, strict=True)}
    if values.parts is not None:
        split = read_split(values.parts)
        train = select_subjects(root, split["train"], (), base.layout)
        a, b = halves(groups_of(train), [subject.name for subject in train], values.parts_seed)
        return {"a": a, "b": b, "c": [s.name for s in select_subjects(root, split["exclude"], (), base.layout)]}
    chosen = select_subjects(root, values.subjects, (), base.layout)
    counts = dict(zip(("train", "validate", "test"), values.counts, strict=True))
    split = split_by_counts(groups_of(chosen), counts, values.parts_seed)
    return {"a": split["train"], "b": split["validate"], "c": split["test"]}


def check_parts(parts: dict[str, list[str]], base: SegmenterConfig) -> None:
    """Refuse an empty part, and a patient in two of them.

    Raises:
        BadInput: naming the part, or the patient's subjects.
    """
    owners: dict[tuple[str, str], tuple[str, str]] = {}
    for part, names in parts.items():
        if not names:
            raise BadInput(f"Part {part.upper()} has no subject.")
        for subject in select_subjects(Path(base.data), escaped(names), (), base.layout):
            patient = (subject.dataset, subject.patient)
            other, name = owners.setdefault(patient, (part, subject.name))
            if other != part:
                raise BadInput(f"{subject.name} of part {part.upper()} is of the patient of {name} in part {other.upper()}. Put them in one part.")
