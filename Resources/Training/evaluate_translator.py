"""Score model packages on held-out subjects beside two baselines, under the conventions of `IMTCore.metrics`.

The baselines are trained on the training subjects of the same dataset as the subject that they are scored on, which
favours them: the networks learn from all datasets together.

Example:
    python Resources/Training/evaluate_translator.py --data DATA --model T1-T2 --run runs/T1-T2-FLAIR \
        --test 'glioma/case_02' 'glioma/case_05' --output results/T1-T2
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from pathlib import Path

import numpy as np

from baselines import LookUpTable, RandomForest
from training_data import MIN_FOREGROUND_PIXELS, expand, find_subject

from IMTCore.catalogue import find_card
from IMTCore.intensity import AIR_SHARE, background_value, foreground_mask
from IMTCore.metrics import evaluate, sharpness, unit_scaled
from IMTCore.orientation import anatomical_axes
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.volume_io import read_volume

MIN_TARGET_COVER = 0.9
COLUMNS = ("subject", "method", "scaling", "region", "mae", "psnr", "ssim", "mi", "sharpness")
MEASURES = COLUMNS[4:]


def axial(path: Path) -> np.ndarray:
    """A volume's array in axial orientation [k, j, i]."""
    volume = read_volume(path)
    return np.ascontiguousarray(anatomical_axes(volume.geometry).apply(volume.array))


def target_slices(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[k] True where the target was acquired: slices on which it covers nearly all of the source's head.

    Slices without any foreground count too (they are part of the volume).
    """
    given = unit_scaled(source) > AIR_SHARE
    wanted = foreground_mask(target, background_value(target))
    covered = given.sum(axis=(1, 2))
    return (covered < MIN_FOREGROUND_PIXELS) | ((given & wanted).sum(axis=(1, 2)) >= MIN_TARGET_COVER * covered)


def fit_baselines(root: Path, subjects: list[str], source: str, target: str) -> dict[str, LookUpTable | RandomForest]:
    """Both baselines, trained on `subjects`."""
    sources, targets = [], []
    for name in subjects:
        given, wanted = axial(find_subject(root, name, source)), axial(find_subject(root, name, target))
        kept = target_slices(given, wanted)
        sources.append(unit_scaled(given)[kept])
        targets.append(unit_scaled(wanted)[kept])
    return {"look-up table": LookUpTable().fit(sources, targets), "random forest": RandomForest().fit(sources, targets)}


def score_subject(root: Path, name: str, source: str, target: str, predictions: dict[str, np.ndarray]) -> list[dict]:
    """Rows of scores of each method's prediction (axial arrays, 1 at the top of the range) of one subject."""
    truth = axial(find_subject(root, name, target))
    kept = target_slices(axial(find_subject(root, name, source)), truth)
    scaled = unit_scaled(truth)[kept]
    head = foreground_mask(truth, background_value(truth))[kept]
    rows = []
    for method, prediction in predictions.items():
        sharp = {"range": sharpness(scaled, np.clip(prediction[kept], 0, 1), head), "p99.5": sharpness(scaled, unit_scaled(prediction)[kept], head)}
        for scores in evaluate(truth[kept], prediction[kept], prediction_top=1.0):
            if scores.scaling != "none":
                rows.append({"subject": name, "method": method, **scores.record(), "sharpness": sharp[scores.scaling]})
    return rows


def summarise(rows: list[dict]) -> list[dict]:
    """Means over the subjects of each dataset, per method, scaling and region."""
    groups: dict[tuple[str, str, str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["subject"].split("/")[0], row["method"], row["scaling"], row["region"]), []).append(row)
    table = []
    for (dataset, method, scaling, region), members in sorted(groups.items()):
        means = {m: round(float(np.mean([row[m] for row in members])), 4) for m in MEASURES}
        subjects = sorted({row["subject"] for row in members})
        table.append({"dataset": dataset, "method": method, "scaling": scaling, "region": region, **means, "subjects": len(subjects)})
    return table


def as_markdown(table: list[dict]) -> str:
    """The summary as a Markdown table."""
    columns = ("dataset", "subjects", "scaling", "region", "method", *MEASURES)
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in sorted(table, key=lambda r: (r["dataset"], r["scaling"], r["region"], r["method"])):
        lines.append("| " + " | ".join(str(row[c]) for c in columns) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", required=True, nargs="+", help="names or card paths; LABEL=PATH names a row")
    parser.add_argument("--run", required=True, type=Path, help="training run: its config.json lists the training subjects")
    parser.add_argument("--test", required=True, nargs="+", help="patterns of held-out subjects")
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", required=True, type=Path, help="folder for scores.csv, summary.json, summary.md")
    values = parser.parse_args()
    trained = json.loads((values.run / "config.json").read_text(encoding="utf-8"))["subjects"]
    tests = expand(values.data, values.test)
    overlap = sorted(set(trained) & set(tests))
    if overlap:
        raise SystemExit(f"These subjects were trained on and cannot be test subjects: {', '.join(overlap)}")
    translators: dict[str, Translator] = {}
    for entry in values.model:
        label, _, path = entry.rpartition("=")
        card = find_card(path)
        translators[label or card.name] = Translator(card, TranslationSettings(device="cpu", precision=values.precision))
    first = next(iter(translators.values()))
    source, target = values.source or first.source, values.target or first.target
    tests = [name for name in tests if find_subject(values.data, name, source) and find_subject(values.data, name, target)]
    rows: list[dict] = []
    baselines: dict[str, dict] = {}
    for name in tests:
        dataset = name.split("/")[0]
        path = find_subject(values.data, name, source)
        volume = read_volume(path)
        axes = anatomical_axes(volume.geometry)
        predictions: dict[str, np.ndarray] = {}
        if not values.no_baselines:
            if dataset not in baselines:
                same = [s for s in trained if s.startswith(dataset + "/") and find_subject(values.data, s, target)]
                baselines[dataset] = fit_baselines(values.data, same, source, target) if same else {}
            given = unit_scaled(axes.apply(volume.array))
            predictions |= {label: method.predict(given) for label, method in baselines[dataset].items()}
        for label, translator in translators.items():
            image = translator.translate(volume).translation.array
            predictions[label] = np.ascontiguousarray(axes.apply(image)) / translator.card.output_range[1]
        scored = score_subject(values.data, name, source, target, predictions)
        rows += scored
        for row in (row for row in scored if row["scaling"] == "range"):
            print("{subject:<34} {method:<16} {region:<7} MAE {mae:.4f}  PSNR {psnr:.2f}  SSIM {ssim:.4f}".format(**row), flush=True)
    values.output.mkdir(parents=True, exist_ok=True)
    with open(values.output / "scores.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    table = summarise(rows)
    report = {"source": source, "target": target, "test": tests, "summary": table, "machine": platform.machine()}
    (values.output / "summary.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (values.output / "summary.md").write_text(as_markdown(table), encoding="utf-8")
    print(as_markdown(table))


if __name__ == "__main__":
    main()
