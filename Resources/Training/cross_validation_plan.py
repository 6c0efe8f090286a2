"""What is trained to choose a setting by cross-validation: a fit for each value and fold."""

from __future__ import annotations

import argparse
import dataclasses
import glob
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from case_volumes import subjects_with
from datasets.splits import folds, groups_of
from experiment import NOT_LEARNT, Config, flag
from trainer_arguments import RunOptions, parse

from IMTCore.errors import BadInput

# Which subjects take part is not chosen by cross-validation, nor is what another run has seen.
NOT_CHOSEN = {*NOT_LEARNT, "source", "targets", "train", "exclude", "validate", "layout", "context_of", "initial"}


@dataclass(frozen=True)
class Fit:
    """One value, without one fold.

    Attributes:
        key: `<field>-<value>/fold<n>`, its folder too.
        label: `<field> = <value>`.
        config: the experiment; its `train` names the other folds' subjects.
        held_out: the subjects of the fold.
    """

    key: str
    label: str
    config: Config
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All fits, and what they are made from.

    Attributes:
        fits: value by value.
        labels: {label of a value: the value as typed}.
        patients: {subject: `<dataset>/<patient>`}.
        record: what must stay the same when values are added.
        run_options: of train_translator.py, as words.
        device: to train and translate on.
    """

    fits: list[Fit]
    labels: dict[str, str]
    patients: dict[str, str]
    record: dict[str, Any]
    run_options: list[str]
    device: str


def option_words(options: RunOptions) -> list[str]:
    """How a run goes, as options of train_translator.py, without --output.

    Raises:
        BadInput: for --stop-at, which would leave every run unfinished.
    """
    if options.stop_at is not None:
        raise BadInput("--stop-at would leave every run unfinished: give --steps.")
    words = []
    for name, value in vars(options).items():
        if name != "output" and value not in (None, False):
            words += [flag(name)] if value is True else [flag(name), str(value)]
    return words


def check_field(field: str, config: Config) -> None:
    """Refuse a setting that cannot be chosen so, and an experiment that would know its held-out subjects.

    Raises:
        BadInput: naming the setting.
    """
    allowed = [item.name for item in dataclasses.fields(Config) if item.name not in NOT_CHOSEN]
    if field not in allowed:
        raise BadInput(f"--field {field} cannot be chosen by cross-validation. Choose one of {', '.join(allowed)}.")
    if config.layout != "folders":
        raise BadInput("Cross-validation reads plain folders: bring the data there with prepare_dataset.py.")
    if len(config.targets) != 1:
        raise BadInput("Cross-validation takes one target: give one after --targets.")
    for name in ("context_of", "initial"):
        if getattr(config, name):
            raise BadInput(f"{flag(name)} names a run that may have learnt from held-out subjects: leave it out.")


def make_plan(values: argparse.Namespace, rest: list[str]) -> Plan:
    """Every fit.

    Args:
        values: this script's own options.
        rest: those of train_translator.py.

    Raises:
        BadInput: if they, a value, or the subjects cannot be used.
    """
    words = [*rest, "--output", str(values.output)]
    base, options = parse(words)
    field = values.field.replace("-", "_")
    check_field(field, base)
    configs: dict[str, Config] = {}
    typed: dict[str, str] = {}
    for value in values.values:
        config, _ = parse([*words, flag(field), *value.split()])
        text = as_text(getattr(config, field))
        if text in configs:
            raise BadInput(f"--values has {text} twice: leave one out.")
        configs[text], typed[f"{field} = {text}"] = config, text
    if len(configs) < 2:
        raise BadInput("--values needs at least two values to choose from.")
    wanted, hidden = [base.source, base.targets[0]], [*base.exclude, *base.validate]
    subjects = subjects_with(Path(base.data), base.train, wanted, hidden)
    parts = folds(groups_of(subjects), values.folds, values.fold_seed)
    fits = []
    for text, config in configs.items():
        for number, part in enumerate(parts):
            train, held_out = part["train"], part["test"]
            exclude = (*config.exclude, *map(glob.escape, held_out))  # the trainer does not even open their files
            own = dataclasses.replace(config, train=tuple(map(glob.escape, train)), exclude=exclude, split="")
            fits.append(Fit(f"{field}-{text.replace(' ', '_')}/fold{number}", f"{field} = {text}", own, tuple(held_out)))
    record = {name: value for name, value in asdict(base).items() if name not in (*NOT_LEARNT, "train", "exclude", field)}
    record |= {"field": field, "folds": [part["test"] for part in parts]}
    patients = {subject.name: f"{subject.dataset}/{subject.patient}" for subject in subjects}
    return Plan(fits, typed, patients, json.loads(json.dumps(record)), option_words(options), options.device)


def as_text(value: Any) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, tuple):
        return " ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
