"""Choose a setting by cross-validation over the training subjects, as Yang et al. 2020 chose λ = 100 (Methods, Objective).

Any setting of train_translator.py that changes what is learnt can be chosen: --field l1, learning_rate (Avula tried several),
filters, network ... Patients, not scans, make the folds, the same ones for every value. Each (value, fold) is a
train_translator.py process of its own on one thread; its model is packaged and translates the held-out fold through the same
code as `imt translate`. Test subjects (--exclude, or those of --split) are in no fold. What is finished is not done again,
and the same command with more values adds them. Every other option goes to train_translator.py.

Example:
    python Resources/Training/cross_validate.py --config Resources/Training/configs/paper-cgan-l1.json --data DATA --source T1 \
        --targets T2 --train 'set/*' --exclude set/case_09 --field l1 --values 1 10 100 1000 --folds 5 --epochs 50 --output runs/lambda

A value of a setting that is a list is quoted: --field neighbours_mm --values 0 '-2 0 2'. Writes table.md, scores.csv and
curve.png into OUTPUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compare_methods import METRICS
from datasets.splits import folds, groups_of
from evaluate_translator import COLUMNS, score_subject
from experiment import NOT_LEARNT, Config, flag
from run_packages import experiment_package
from run_tables import DONE, run_script, write_csv
from trainer_arguments import RunOptions, parse
from validate_volume import load_case, predicted, save_figure, subjects_with

from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_json, write_text
from IMTCore.settings import TranslationSettings
from IMTCore.statistics import BestSet, best_set, bootstrap_interval, markdown_table, subject_means
from IMTCore.translation import Translator

# Which subjects take part is not chosen by cross-validation, nor is what another run has seen.
NOT_CHOSEN = {*NOT_LEARNT, "source", "targets", "train", "exclude", "validate", "layout", "context_of", "initial"}
CHOSEN_COLOUR = "#d55e00"


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


def check_same(path: Path, record: dict[str, Any]) -> None:
    """Refuse to add to another cross-validation.

    Raises:
        BadInput: naming what differs.
    """
    if not path.exists():
        write_json(path, record)
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in {**record, **stored} if record.get(name) != stored.get(name)]
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({error}). Choose another --output.") from error
    if different:
        raise BadInput(f"{path.parent} is of another cross-validation (differs in {', '.join(different)}). Choose another --output.")


# --- Fits ----------------------------------------------------------------------------------------------------------


def do(fit: Fit, output: Path, plan: Plan) -> None:
    """Train, package, translate and score one fit.

    Raises:
        BadInput: if the trainer fails, with what it said last.
    """
    folder, config = output / fit.key, fit.config
    write_json(folder / "experiment.json", asdict(config))
    run_script("train_translator.py", ["--config", folder / "experiment.json", *plan.run_options, "--output", folder / "run"])
    source, target, data = config.source, config.targets[0], Path(config.data)
    card = experiment_package(folder / "run", folder, f"{source}-{target}-cross-validation", f"{fit.label}, {fit.key}")
    translator = Translator(card, TranslationSettings(device=plan.device, precision="fp32", check_modality=False))
    rows = []
    for subject in subjects_with(data, [glob.escape(name) for name in fit.held_out], [source, target]):
        prediction = predicted(translator, load_case(subject, source, target))
        rows += score_subject(data, subject.name, source, target, {fit.label: prediction})
    write_json(folder / DONE, {"label": fit.label, "held_out": fit.held_out, "rows": rows})


def do_all(fits: Sequence[Fit], plan: Plan, values: argparse.Namespace) -> list[str]:
    """These fits; the keys of those that failed."""

    def one(fit: Fit) -> str:
        try:
            do(fit, values.output, plan)
        except ImtError as error:
            print(f"{fit.key}: FAILED {error}", flush=True)
            return fit.key
        print(f"{fit.key}: done", flush=True)
        return ""

    with ThreadPoolExecutor(values.jobs) as pool:
        return [key for key in pool.map(one, fits) if key]


# --- The choice ----------------------------------------------------------------------------------------------------


def collected(plan: Plan, output: Path) -> list[dict[str, Any]]:
    """The rows of scores of every finished fit, with its value and fold."""
    rows = []
    for fit in plan.fits:
        path = output / fit.key / DONE
        if path.exists():
            own = {"value": plan.labels[fit.label], "fold": int(fit.key.rpartition("fold")[2])}
            rows += [{**own, **row} for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    return rows


def patient_scores(rows: list[dict[str, Any]], metric: str, plan: Plan, values: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{label: {patient: mean score}} of the values that are finished on every fold."""
    unfinished = {fit.label for fit in plan.fits if not (values.output / fit.key / DONE).exists()}
    kept = [row for row in rows if (row["scaling"], row["region"]) == (values.scaling, values.region) and row["method"] not in unfinished]
    return subject_means((row["method"], plan.patients[row["subject"]], row[metric]) for row in kept)


def verdict(best: BestSet, scores: dict[str, dict[str, float]], metric: str) -> str:
    """Which value is chosen, and whether it is significantly better than the runner-up."""
    higher, digits = METRICS[metric][1:]
    means = {label: float(np.mean(list(of.values()))) for label, of in scores.items()}
    text = f"Chosen by {metric.upper()}: {best.best} ({means[best.best]:.{digits}f})."
    others = sorted((label for label in means if label != best.best), key=lambda label: means[label], reverse=higher)
    if not others:
        return text + " No other value is finished."
    c = next(c for c in best.comparisons if c.second == others[0])
    difference = f"{c.difference.mean:+.{digits}f}, t-test with Holm's correction p = {c.t_p_adjusted:.3g}, {c.subjects} patients"
    if others[0] not in best.members:
        return f"{text} It is significantly better than the runner-up, {others[0]} ({difference})."
    alike = [label for label in best.members if label != best.best]
    return (
        f"{text} The difference to the runner-up, {others[0]}, is NOT significant ({difference}). Values that are not significantly "
        f"worse: {', '.join(alike)}."
    )


def report(plan: Plan, rows: list[dict[str, Any]], values: argparse.Namespace) -> tuple[str, BestSet]:
    """The Markdown page, and the best set under --by."""
    scores = {metric: patient_scores(rows, metric, plan, values) for metric in METRICS}
    best = best_set(scores[values.by], METRICS[values.by][1])
    worse = {c.second: c.t_p_adjusted for c in best.comparisons}
    header = ["value", *(METRICS[metric][0] for metric in METRICS), f"{values.by.upper()} 95 % interval", "p against the chosen", "patients"]
    lines = []
    for label, text in plan.labels.items():
        if label not in scores[values.by]:
            lines.append([text, "not finished", *[""] * (len(header) - 2)])
            continue
        means = [f"{np.mean(list(scores[metric][label].values())):.{METRICS[metric][2]}f}" for metric in METRICS]
        interval, digits = bootstrap_interval(list(scores[values.by][label].values())), METRICS[values.by][2]
        spread = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
        shown = f"**{text}**" if label in best.members else text
        p = "chosen" if label == best.best else f"{worse[label]:.3g}"
        lines.append([shown, *means, spread, p, interval.subjects])
    task = f"{plan.record['source']} to {plan.record['targets'][0]}"
    notes = "".join(f"- {note}\n" for note in best.notes)
    return (
        f"# {plan.record['field']} by cross-validation, {task}, {values.folds} folds\n\n{markdown_table(header, lines)}\n"
        f"{verdict(best, scores[values.by], values.by)}\n\nEach patient is scored once, by a model that never saw any of its scans; means over "
        f"patients; scaling {values.scaling}, region {values.region}; MI in nats. Bold: the chosen value and all that are not significantly worse "
        f"(paired t-test, Holm's correction, p < 0.05). Every training had the same settings otherwise.\n\n{notes}"
    ), best


def draw(plan: Plan, rows: list[dict[str, Any]], best: BestSet, values: argparse.Namespace) -> Any:
    """A figure of PSNR and MAE over the values: a dot a patient, and the mean with its bootstrap interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(f"{plan.record['field']} by cross-validation, {plan.record['source']} to {plan.record['targets'][0]}", fontsize=11)
    for axis, metric, unit in zip(figure.subplots(1, 2), ("psnr", "mae"), ("PSNR (dB)", "MAE (share of range)"), strict=True):
        scores = patient_scores(rows, metric, plan, values)
        labels = [label for label in plan.labels if label in scores]
        table = np.array([list(scores[label].values()) for label in labels])  # [value, patient]
        places = np.arange(len(labels))
        axis.plot(places, table, color="0.8", linewidth=0.8, zorder=1)
        axis.plot(places, table, "o", color="0.6", markersize=4, zorder=2)
        intervals = [bootstrap_interval(row) for row in table]
        means = np.array([interval.mean for interval in intervals])
        spread = np.abs(np.array([[i.low, i.high] for i in intervals]).T - means)
        axis.errorbar(places, means, spread, color="#0072b2", marker="s", markersize=6, capsize=4, linewidth=1.6, zorder=3)
        at = labels.index(best.best)
        axis.plot(at, means[at], "s", color=CHOSEN_COLOUR, markersize=9, zorder=4, label=f"chosen by {values.by.upper()}")
        axis.set_xticks(places, [plan.labels[label] for label in labels])
        axis.set_xlabel(plan.record["field"])
        axis.set_ylabel(unit)
        axis.margins(x=0.1)
        axis.legend(fontsize=8)
    figure.supxlabel("Grey: patients. Blue: mean over patients with its 95 % bootstrap interval.", fontsize=9)
    return figure


# --- Command -------------------------------------------------------------------------------------------------------


def cross_validate(values: argparse.Namespace, rest: list[str]) -> list[str]:
    """Do what is not done, choose, and write; the fits that failed."""
    if values.jobs < 1:
        raise BadInput(f"--jobs {values.jobs}: it must be at least 1.")
    plan = make_plan(values, rest)
    check_writable(values.output / "plan.json")
    check_same(values.output / "plan.json", plan.record)
    left = [fit for fit in plan.fits if not (values.output / fit.key / DONE).exists()]
    print(f"{len(plan.fits)} fits, {len(plan.fits) - len(left)} finished before", flush=True)
    failed = do_all(left, plan, values)
    rows = collected(plan, values.output)
    write_csv(values.output / "scores.csv", ["value", "fold", *COLUMNS], rows)
    if patient_scores(rows, values.by, plan, values):
        text, best = report(plan, rows, values)
        save_figure(draw(plan, rows, best, values), values.output / "curve.png")
        write_text(values.output / "table.md", text)
        print(text)
    return failed


def make_parser() -> argparse.ArgumentParser:
    """This script's own options; all others are the trainer's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--field", required=True, help="the setting, as train_translator.py names it: l1, learning_rate ...")
    parser.add_argument("--values", required=True, nargs="+", help="its values; one that is a list in quotes")
    parser.add_argument("--folds", type=int, default=5, help="default 5")
    parser.add_argument("--fold-seed", type=int, default=0, help="seed of the folds (default 0)")
    parser.add_argument("--by", choices=("psnr", "mae"), default="psnr", help="what decides (default psnr)")
    parser.add_argument("--scaling", choices=("range", "p99.5"), default="range", help="see IMTCore/metrics.py (default range)")
    parser.add_argument("--region", choices=("volume", "mask"), default="volume", help="see IMTCore/metrics.py (default volume)")
    parser.add_argument("--jobs", type=int, default=1, help="fits at once, each on one thread (default 1)")
    parser.add_argument("--output", required=True, type=Path)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Cross-validate; an error is one sentence on the screen."""
    try:
        failed = cross_validate(*make_parser().parse_known_args(arguments))
    except ImtError as error:
        sys.exit(str(error))
    if failed:
        sys.exit(f"{len(failed)} fits failed: {', '.join(failed)}. Their values are left out; the same command tries them again.")


if __name__ == "__main__":
    main()
