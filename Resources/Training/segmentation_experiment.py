"""Is translation worth it? TMS against its controls, as one command (Yang et al. 2020, Cross-modality segmentation; Tables 6, 7).

A translation is a function of the given image: it brings no new measurement. A gain of TMS over the given image alone may come
from the larger input, from part A's data, or from chance. So TMS [x, x, y^] is compared on part C with the given image alone
[x], the same network on [x, x, x], a shuffled and a blurred translation, a segmenter pretrained on part A's labels, and the
real second modality; several seeds, paired tests over subjects, Holm's correction. The answer is yes, no, or not shown.

Part A trains the translator (or --translator takes one that never saw part C), part B the segmenters, part C is the test.
Each fit has a folder of its own; what is finished is not done again, and more --methods or --seeds may be added. Every other
option goes to train_segmenter.py.

Example:
    python Resources/Training/segmentation_experiment.py --data DATA --given T1 --second FLAIR --labels tissues \
        --subjects 'nichart/*' --counts 5 5 6 --seeds 0 1 2 --network unet --spacing-mm 2 --steps 2000 --output runs/worth

Writes table.md, scores.csv and summary.json into OUTPUT; --report only writes them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

from run_packages import experiment_package
from run_tables import run_script
from segmentation_cases import MEASURES, score_case, segment_case, segmenter_of
from segmentation_experiment_plan import METHODS, ExperimentPlan, Fit, escaped, make_plan
from segmentation_experiment_report import page, scores_csv, summary
from same_plan import check_same_plan
from segmenter_weights import experiment_segmenter
from segmenter_second import SecondModality
from train_segmenter import train
from unseen_subjects import check_unseen

from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.files import check_writable, write_json, write_text

DONE = "scores.json"
COLUMNS = ("method", "seed", "subject", "structure", *MEASURES)


def say(text: str) -> None:
    """A line on the screen, at once."""
    print(text, flush=True)


# --- The translator ------------------------------------------------------------------------------------------------


def translator_of(plan: ExperimentPlan, output: Path) -> str:
    """The card of the translator: the given one, or the one trained on part A (now, if it is not there yet).

    Raises:
        BadInput, BadModel: there is none, it saw a test subject, or its training fails.
    """
    if not plan.needs_translator:
        return ""
    base, named = plan.base, plan.record["translator"]
    if named:
        card = find_card(named)
        check_unseen(card, plan.parts["c"])
        try:
            check_unseen(card, plan.parts["b"])
        except BadInput as error:
            say(f"note: {error} The segmenters learn from translations that are better than those of part C.")
        return str(card.path)
    folder, name = output / "translator", f"{base.given}-{plan.second}-part-A"
    path = folder / f"{name}.json"
    if not path.exists():
        say(f"translator: {base.given} to {plan.second} on part A, {len(plan.parts['a'])} subjects")
        write_json(folder / "experiment.json", plan.record["translator_settings"])
        subjects = ["--source", base.given, "--targets", plan.second, "--train", *escaped(plan.parts["a"])]
        place = ["--data", base.data, "--layout", base.layout, "--device", plan.options.device, "--output", folder / "run"]
        run_script("train_translator.py", ["--config", folder / "experiment.json", *place, *subjects])
        experiment_package(folder / "run", folder, name, f"{base.given} to {plan.second}, trained on part A")
    return str(path)


# --- Fits ----------------------------------------------------------------------------------------------------------


def do(fit: Fit, plan: ExperimentPlan, output: Path) -> None:
    """Train, package, segment part C and score one fit.

    Raises:
        ImtError: as the parts raise it.
    """
    folder, cache = output / fit.key, output / "translations"
    config = fit.config
    if fit.before is not None:
        train(fit.before, replace(plan.options, output=folder / "run-a", cache=cache))
        config = replace(config, init_from=str(folder / "run-a"))
    train(config, replace(plan.options, output=folder / "run", cache=cache))
    name = f"{fit.method}-seed{fit.seed}"
    card = experiment_segmenter(folder / "run", folder, name, f"experiment: {METHODS[fit.method].about}", plan.parts["c"])
    segmenter = segmenter_of(card, plan.options.device)
    second = SecondModality(config, plan.options.device, cache) if "second" in config.images else None
    rows: list[dict[str, Any]] = []
    for subject in plan.subjects("c"):
        case = segment_case(segmenter, subject, config.labels, config.classes, second)
        rows += [{"method": fit.method, "seed": fit.seed, **row} for row in score_case(case)]
    write_json(folder / DONE, {"method": fit.method, "seed": fit.seed, "package": card.path.name, "rows": rows})


def do_all(fits: list[Fit], plan: ExperimentPlan, values: argparse.Namespace, words: list[str]) -> list[str]:
    """These fits, `--jobs` at once (several: each a process of its own, on one thread); the keys of those that failed."""

    def here(fit: Fit) -> str:
        try:
            do(fit, plan, values.output)
        except Cancelled:  # Ctrl-C ends the experiment, not the fit alone
            raise
        except ImtError as error:
            return str(error)
        return ""

    def apart(fit: Fit) -> str:
        command = [sys.executable, str(Path(__file__).resolve()), *words, "--only", fit.key]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
        return "" if not ended.returncode else (ended.stdout.strip().splitlines() or [str(ended.returncode)])[-1]

    def one(fit: Fit) -> str:
        problem = here(fit) if values.jobs == 1 else apart(fit)
        say(f"{fit.key}: {'FAILED ' + problem if problem else 'done'}")
        return fit.key if problem else ""

    with ThreadPoolExecutor(values.jobs) as pool:
        if values.jobs == 1:  # in this thread, where Ctrl-C is heard
            return [key for key in map(one, fits) if key]
        return [key for key in pool.map(one, fits) if key]


def collected(plan: ExperimentPlan, output: Path) -> list[dict[str, Any]]:
    """The rows of every finished fit of the plan, method by method."""
    rows = []
    for method in plan.methods:
        for seed in plan.seeds:
            path = output / method / f"seed{seed}" / DONE
            if path.exists():
                rows += json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


# --- Command -------------------------------------------------------------------------------------------------------


def write_report(plan: ExperimentPlan, output: Path, translator: str) -> None:
    """Write scores.csv, table.md and summary.json of what is finished, and print the page. BadInput: nothing is."""
    rows = collected(plan, output)
    if not rows:
        raise BadInput(f"{output} holds no finished fit of these methods and seeds: there is nothing to report.")
    write_text(output / "scores.csv", scores_csv(rows, COLUMNS))
    text = page(rows, plan, Path(translator).stem)
    write_text(output / "table.md", text)
    write_json(output / "summary.json", summary(rows))
    say(text)


def experiment(values: argparse.Namespace, rest: list[str], words: list[str]) -> list[str]:
    """Do what is not done, and report; the fits that failed. ImtError: as the parts raise it."""
    if values.jobs < 1:
        raise BadInput(f"--jobs {values.jobs}: it must be at least 1.")
    plan, output = make_plan(values, rest), values.output
    check_writable(output / "plan.json")
    check_same_plan(output / "plan.json", plan.record, "experiment")
    named = plan.record["translator"] or f"{plan.base.given}-{plan.second} trained on part A"
    if values.report:
        write_report(plan, output, named)
        return []
    translator = translator_of(plan, output)
    fits = plan.fits(translator)
    if values.only:
        do(next(fit for fit in fits if fit.key == values.only), plan, output)
        return []
    left = [fit for fit in fits if not (output / fit.key / DONE).exists()]
    say(f"{len(fits)} fits, {len(fits) - len(left)} finished before")
    failed = do_all(left, plan, values, words)
    if len(failed) < len(fits):
        write_report(plan, output, named)
    return failed


def make_parser() -> argparse.ArgumentParser:
    """This script's own options; all others are those of train_segmenter.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--second", required=True, help="the second modality, such as FLAIR")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help=f"some of {', '.join(METHODS)} (default all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--translator", default="", help="a model's name or card, in place of training one on part A")
    parser.add_argument("--translator-config", type=Path, help="settings of train_translator.py for part A (default: a narrow U-Net)")
    for part, use in (("a", "the translator"), ("b", "the segmenters"), ("c", "the test")):
        parser.add_argument(f"--part-{part}", nargs="+", default=[], metavar="PATTERN", help=f"subjects for {use}")
    parser.add_argument("--parts", type=Path, metavar="SPLIT", help="file of make_split.py: training subjects 1:1 for A and B, test for C")
    parser.add_argument("--subjects", nargs="+", default=["*"], metavar="PATTERN", help="with --counts: the subjects to divide")
    parser.add_argument("--counts", nargs=3, type=int, metavar=("A", "B", "C"), help="numbers of subjects")
    parser.add_argument("--parts-seed", type=int, default=0, help="of --parts and --counts (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="fits at once, each on one thread (default 1)")
    parser.add_argument("--report", action="store_true", help="only write the tables of what is finished")
    parser.add_argument("--only", help="one fit, by its key such as tms/seed0")
    parser.add_argument("--output", required=True, type=Path)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The experiment; an error is one sentence on the screen."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        failed = experiment(*make_parser().parse_known_args(words), words)
    except ImtError as error:
        sys.exit(str(error))
    if failed:
        sys.exit(f"{len(failed)} fits failed: {', '.join(failed)}. The same command tries them again.")


if __name__ == "__main__":
    main()
