"""The tables of Yang et al. 2020 (Table 1) at a stated budget: every method, task and fold, trained, translated and scored.

A file of configs/ says what: tasks (data set, given and wanted modality), methods (settings of train_translator.py or
train_forest.py) and the CPU seconds that each fit may take. Subjects are split into folds; each is translated once, by a
model that never saw it. Every fit is a process of its own, on one thread; a method's model is packaged and translates
through the same code as `imt translate`. What is finished is not done again, so a run may be broken off.

Example:
    python Resources/Training/run_tables.py --config Resources/Training/configs/tables-small.json --data DATA-2mm --output runs/tables
    python Resources/Training/compare_methods.py --scores runs/tables/glioma_brats2018-T1-T2.csv --output runs/tables/T1-T2
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from baselines import LookUpTable
from evaluate_translator import COLUMNS, axial, score_subject, target_slices
from run_packages import experiment_package
from training_data import find_subject

from IMTCore.errors import BadInput, ImtError
from IMTCore.files import write_json, write_text
from IMTCore.metrics import unit_scaled
from IMTCore.orientation import anatomical_axes
from IMTCore.settings import TranslationSettings
from IMTCore.volume_io import read_volume, write_volume

HERE = Path(__file__).resolve().parent
KEYS = {"about", "budget_s", "folds", "seed", "common", "tasks", "methods"}
DONE = "scores.json"


@dataclass(frozen=True)
class Fit:
    """One method, on one task, without one fold's subjects.

    Attributes:
        key: `<dataset>-<source>-<target>/fold<n>/<method>`, its folder too.
        method: its name in the table.
        settings: "kind" (network, forest, table, or mean "of" other methods), "stages" (of auto-context), and else the trainer's own settings.
        train, test: names `<dataset>/<subject>`.
    """

    key: str
    method: str
    settings: dict[str, Any]
    source: str
    target: str
    train: tuple[str, ...]
    test: tuple[str, ...]


def read_plan(path: Path) -> dict[str, Any]:
    """The file of --config.

    Raises:
        BadInput: if it cannot be read, or a key is missing or unknown.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}.") from error
    if not isinstance(plan, dict) or set(plan) != KEYS:
        raise BadInput(f"{path} is no plan of tables: it must have exactly the keys {', '.join(sorted(KEYS))}.")
    return plan


def folds_of(names: list[str], folds: int, seed: int) -> list[tuple[str, ...]]:
    """The subjects of each fold: shuffled by the seed, then dealt out.

    Raises:
        BadInput: for fewer than two folds, or fewer subjects than folds.
    """
    if not 2 <= folds <= len(names):
        raise BadInput(f"{len(names)} subjects cannot be split into {folds} folds. Check --data and the plan.")
    shuffled = [str(name) for name in np.random.default_rng(seed).permutation(sorted(names))]
    return [tuple(sorted(shuffled[n::folds])) for n in range(folds)]


def fits_of(plan: dict[str, Any], data: Path) -> list[Fit]:
    """Every fit of a plan, all methods of a task before the next task.

    Raises:
        BadInput: if a task has too few subjects.
    """
    fits = []
    for task in plan["tasks"]:
        dataset, source, target = task["dataset"], task["source"], task["target"]
        folders = sorted(folder for folder in (data / dataset).glob("*") if folder.is_dir())
        names = [f"{dataset}/{folder.name}" for folder in folders]
        names = [name for name in names if find_subject(data, name, source) and find_subject(data, name, target)]
        parts = folds_of(names, plan["folds"], plan["seed"])
        for number, test in enumerate(parts):
            train = tuple(name for name in names if name not in test)
            for method, settings in plan["methods"].items():
                key = f"{dataset}-{source}-{target}/fold{number}/{slug_of(method)}"
                own = {**plan["common"], **settings} if settings["kind"] == "network" else dict(settings)
                fits.append(Fit(key, method, own, source, target, train, test))
    return fits


def slug_of(method: str) -> str:
    """A method's folder name."""
    return "".join(letter if letter.isalnum() else "-" for letter in method)


# --- One fit -------------------------------------------------------------------------------------------------------


def trained(fit: Fit, data: Path, folder: Path, budget_s: float) -> Path | None:
    """Train in a process of its own; the run's folder, or None for a table or a mean, which have none.

    Raises:
        BadInput: if the trainer fails, with what it said last.
    """
    settings = {key: value for key, value in fit.settings.items() if key not in ("kind", "stages")}
    if fit.settings["kind"] in ("table", "mean"):
        return None
    common = ["--data", data, "--source", fit.source, "--train", *fit.train]
    if fit.settings["kind"] == "forest":
        options = [part for key, value in settings.items() for part in ("--" + key.replace("_", "-"), value)]
        run_script("train_forest.py", [*common, "--target", fit.target, "--jobs", 1, *options, "--output", folder / "run"])
        return folder / "run"
    stages = fit.settings.get("stages", 1)
    write_json(folder / "experiment.json", settings)
    for stage in range(stages):
        run = folder / f"run{stage}"
        options = ["--context-of", folder / f"run{stage - 1}"] if stage else []
        options += ["--budget-s", budget_s / stages, "--budget-clock", "cpu", "--steps", 10**7]
        experiment = ["--config", folder / "experiment.json", *common, "--targets", fit.target, *options, "--output", run]
        run_script("train_translator.py", experiment)
    return folder / f"run{stages - 1}"


def run_script(name: str, arguments: list[object]) -> None:
    """One training script on one thread. Raises BadInput with what it said last if it fails."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    if ended.returncode:
        raise BadInput(f"{name} failed: {ended.stdout.strip().splitlines()[-1] if ended.stdout.strip() else ended.returncode}")


def translations(fit: Fit, run: Path | None, data: Path, folder: Path) -> dict[str, np.ndarray]:
    """Each test subject's translation, axial [k, j, i], 1 at the top of the range."""
    if fit.settings["kind"] == "mean":
        return {name: mean_of(fit.settings["of"], name, folder.parent) for name in fit.test}
    if run is None:
        given, wanted = [], []
        for name in fit.train:
            source, target = (axial(find_subject(data, name, modality)) for modality in (fit.source, fit.target))
            kept = target_slices(source, target)
            given.append(unit_scaled(source)[kept])
            wanted.append(unit_scaled(target)[kept])
        table = LookUpTable().fit(given, wanted)
        return {name: table.predict(unit_scaled(axial(find_subject(data, name, fit.source)))) for name in fit.test}
    from IMTCore.translation import Translator

    card = experiment_package(run, folder, f"{fit.source}-{fit.target}-{folder.name}", f"{fit.method}, {fit.key}")
    translator = Translator(card, TranslationSettings(device="cpu", precision="fp32", check_modality=False))
    results = {}
    for name in fit.test:
        volume = read_volume(find_subject(data, name, fit.source))
        result = translator.translate(volume).translation
        image = np.ascontiguousarray(anatomical_axes(volume.geometry).apply(result.array))
        results[name] = image / card.output_range[1]
        path = folder / "translations" / f"{name.split('/')[1]}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_volume(path, result.with_array(np.rint(result.array).astype(np.uint8)), f"synthetic {fit.target}, IMT experiment")
    return results


def mean_of(methods: list[str], name: str, folder: Path) -> np.ndarray:
    """The mean of other methods' stored translations of one subject, axial [k, j, i], 1 at the top of the range."""
    volumes = [read_volume(folder / slug_of(method) / "translations" / f"{name.split('/')[1]}.nii.gz") for method in methods]
    axes = anatomical_axes(volumes[0].geometry)
    return np.ascontiguousarray(axes.apply(np.mean([volume.array for volume in volumes], axis=0, dtype=np.float32))) / 255


def do(fit: Fit, data: Path, output: Path, budget_s: float) -> None:
    """Train, package, translate and score one fit."""
    folder = output / fit.key
    folder.mkdir(parents=True, exist_ok=True)
    run = trained(fit, data, folder, budget_s)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    rows = []
    for name, image in translations(fit, run, data, folder).items():
        rows += score_subject(data, name, fit.source, fit.target, {fit.method: image})
    report = {"method": fit.method, "train": fit.train, "test": fit.test, "cpu_s": round(cpu_s, 1), "rows": rows}
    log = run / "log.jsonl" if run else None
    if log and log.exists():
        report["last"] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    write_json(folder / DONE, report)


# --- All of them ---------------------------------------------------------------------------------------------------


def collect(fits: list[Fit], output: Path) -> None:
    """`<task>.csv` with the scores of every finished fit, and `fits.csv` with what each fit took."""
    tables: dict[str, list[dict[str, Any]]] = {}
    effort: list[dict[str, Any]] = []
    for fit in fits:
        path = output / fit.key / DONE
        if path.exists():
            report = json.loads(path.read_text(encoding="utf-8"))
            tables.setdefault(fit.key.split("/")[0], []).extend(report["rows"])
            steps = report.get("last", {}).get("step", "")
            effort.append({"fit": fit.key, "method": fit.method, "cpu_s": report["cpu_s"], "steps": steps})
    for task, rows in tables.items():
        write_csv(output / f"{task}.csv", list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])), rows)
    write_csv(output / "fits.csv", ["fit", "method", "cpu_s", "steps"], effort)


def write_csv(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """A CSV file, whole or not at all."""
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def main(arguments: list[str] | None = None) -> None:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path, help="plan of tables, such as configs/tables-small.json")
    parser.add_argument("--data", required=True, type=Path, help="plain folders (prepare_dataset.py, simulate_pairs.py)")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="fits at once, each on one thread (default 1)")
    parser.add_argument("--only", help="one fit, by its key")
    values = parser.parse_args(arguments)
    try:
        plan = read_plan(values.config)
        fits = fits_of(plan, values.data)
        if values.only:
            do(next(fit for fit in fits if fit.key == values.only), values.data, values.output, plan["budget_s"])
            return
        values.output.mkdir(parents=True, exist_ok=True)
        machine = {"machine": platform.machine(), "python": platform.python_version(), "cores": os.cpu_count()}
        write_json(values.output / "plan.json", {**plan, "machine": machine})
        left = [fit for fit in fits if not (values.output / fit.key / DONE).exists()]
        print(f"{len(fits)} fits, {len(fits) - len(left)} finished before", flush=True)
        collect(fits, values.output)
        failed = run_all(left, values, lambda: collect(fits, values.output))
    except ImtError as error:
        sys.exit(str(error))
    if failed:
        sys.exit(f"{len(failed)} fits failed: {', '.join(failed)}. The same command tries them again.")


def run_all(fits: list[Fit], values: argparse.Namespace, after_each: Callable[[], None]) -> list[str]:
    """Every fit in a process of its own; the keys of those that failed."""
    command = [sys.executable, str(HERE / "run_tables.py"), "--config", values.config, "--data", values.data, "--output", values.output]

    def one(fit: Fit) -> str:
        ended = subprocess.run(
            [*map(str, command), "--only", fit.key],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        said = ended.stdout.strip().splitlines()
        print(f"{fit.key}: {'done' if not ended.returncode else 'FAILED ' + (said[-1] if said else '')}", flush=True)
        return fit.key if ended.returncode else ""

    failed = []
    means = [fit for fit in fits if fit.settings["kind"] == "mean"]  # they need the others' translations
    for part in ([fit for fit in fits if fit not in means], means):
        with ThreadPoolExecutor(values.jobs) as pool:
            for key in pool.map(one, part):
                failed += [key] if key else []
                after_each()
    return failed


if __name__ == "__main__":
    main()
