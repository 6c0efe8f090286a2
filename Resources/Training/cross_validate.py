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
import glob
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from case_pictures import save_figure
from case_volumes import load_case, predicted, subjects_with
from cross_validation_plan import Fit, Plan, make_plan
from cross_validation_report import collected, draw, patient_scores, report
from evaluate_translator import COLUMNS, score_subject
from run_packages import experiment_package
from run_tables import DONE, run_script, write_csv
from same_plan import check_same_plan

from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_json, write_text
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator

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


# --- Command -------------------------------------------------------------------------------------------------------


def cross_validate(values: argparse.Namespace, rest: list[str]) -> list[str]:
    """Do what is not done, choose, and write; the fits that failed."""
    if values.jobs < 1:
        raise BadInput(f"--jobs {values.jobs}: it must be at least 1.")
    plan = make_plan(values, rest)
    check_writable(values.output / "plan.json")
    check_same_plan(values.output / "plan.json", plan.record, "cross-validation")
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
