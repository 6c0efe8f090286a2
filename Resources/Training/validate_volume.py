"""Validate a model or a training run on whole volumes, slice by slice, as Avula does (Validation and Results, Table 1, Figs. 16 to 18).

Images are 0 to 1. A slice's error is the mean over all its pixels, air included (MSE: squared, MAE: absolute). "Total volume
error" is the sum of the slices' errors, "average error per 2D image" their mean. Slices are axial, on the subject's own grid;
those on which the target was not acquired are left out. As empty slices lower the mean, it is given over the slices with a
head too.

Example:
    python Resources/Training/validate_volume.py --data DATA --run runs/avula --test glioma/case_02 --output results/avula
    python Resources/Training/validate_volume.py --data DATA --model T1-T2 --test 'glioma/case_0[2-5]' --output results/T1-T2

Writes table.md (totals and means beside Avula's), slices.csv (every slice), and of each subject `<subject>-slices.png` (input,
prediction, truth and error of slices spread evenly through the head, not picked by their error) and `<subject>-curve.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from case_pictures import draw_slice, head_box, rows_figure, save_figure
from case_volumes import Case, load_case, predicted, subjects_with
from run_packages import experiment_package
from training_data import select_subjects
from unseen_subjects import check_unseen

from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_text
from IMTCore.settings import TranslationSettings
from IMTCore.statistics import csv_table, markdown_table
from IMTCore.translation import Translator

# Avula, Table 1: (MSE, MAE).
AVULA_TOTAL, AVULA_SLICE = (0.81000, 4.39369), (0.00854, 0.05142)
SHOWN = 3  # Figs. 16 to 18


def slice_errors(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MSE and MAE [k] of each slice of two volumes [k, j, i] in 0 to 1: means over all its pixels (Avula, Figs. 8 and 11 to 13)."""
    difference = prediction.astype(np.float64) - truth
    return (difference**2).mean(axis=(1, 2)), np.abs(difference).mean(axis=(1, 2))


@dataclass(frozen=True)
class VolumeErrors:
    """The errors of one volume.

    Attributes:
        subject: its name.
        slices: [n] the axial slices that count, as k.
        head: boolean [n], those with a head.
        mse, mae: [n] of each slice.
    """

    subject: str
    slices: np.ndarray
    head: np.ndarray
    mse: np.ndarray
    mae: np.ndarray


def volume_errors(case: Case, prediction: np.ndarray) -> VolumeErrors:
    """The errors of a prediction, axial [k, j, i] in 0 to 1, on the slices on which the target was acquired."""
    slices = np.flatnonzero(case.kept)
    return VolumeErrors(case.name, slices, case.head[slices].any(axis=(1, 2)), *slice_errors(case.truth[slices], prediction[slices]))


# --- Report --------------------------------------------------------------------------------------------------------

HEADER = ("subject", "slices", "with head", "total MSE", "total MAE", "MSE a slice", "MAE a slice")
HEADER += ("MSE a slice with head", "MAE a slice with head", "MAE of 255", "PSNR dB")


def table_rows(volumes: Sequence[VolumeErrors]) -> list[list[str]]:
    """A row for each volume, their mean if there are several, and Avula's numbers."""
    numbers = [
        [len(v.slices), v.head.sum(), v.mse.sum(), v.mae.sum(), v.mse.mean(), v.mae.mean(), v.mse[v.head].mean(), v.mae[v.head].mean()]
        for v in volumes
    ]
    named = [(v.subject, row) for v, row in zip(volumes, numbers, strict=True)]
    if len(volumes) > 1:
        named.append((f"mean of {len(volumes)}", list(np.mean(numbers, axis=0))))
    rows = []
    for name, (slices, head, *errors) in named:
        with np.errstate(divide="ignore"):
            derived = [f"{255 * errors[3]:.2f}", f"{-10 * np.log10(errors[2]):.2f}"]
        rows.append([name, f"{slices:g}", f"{head:g}", *(f"{e:.5f}" for e in errors), *derived])
    published = [*(f"{e:.5f}" for e in (*AVULA_TOTAL, *AVULA_SLICE)), "", ""]
    rows.append(["Avula, Table 1", "", "", *published, f"{255 * AVULA_SLICE[1]:.2f}", f"{-10 * np.log10(AVULA_SLICE[0]):.2f}"])
    return rows


def report(volumes: Sequence[VolumeErrors], what: str) -> str:
    """The Markdown table with its conventions and a note on the published numbers."""
    implied = [total / mean for total, mean in zip(AVULA_TOTAL, AVULA_SLICE, strict=True)]
    return (
        f"{what}\n\n{markdown_table(HEADER, table_rows(volumes))}\n"
        "Images 0 to 1, each truth divided by its own 99.5th foreground percentile; a slice's error is the mean over all its pixels, air "
        "included; totals are sums over slices. MAE of 255 and PSNR come from the means over slices.\n\n"
        f"Note on Avula's numbers: its totals imply {implied[0]:.1f} slices by the MSE but {implied[1]:.1f} by the MAE, so the four are not of "
        "one volume under one rule; its text gives the total MSE as 0.05142, which is the mean MAE of the table. Neither the scaling to 0 to 1 "
        "nor the share of air is stated. Its comparison with a published 0 to 255 mean MAE of 8.29 sets a sum over slices in 0 to 1 (4.39) "
        f"against it: like for like, its MAE is {255 * AVULA_SLICE[1]:.1f} of 255. A total grows with the number of slices, so only the means "
        "can be compared.\n"
    )


# --- Pictures ------------------------------------------------------------------------------------------------------


def chosen_slices(errors: VolumeErrors, number: int) -> list[int]:
    """`number` slices spread evenly through the head."""
    filled = errors.slices[errors.head]
    places = (np.arange(number) + 1) / (number + 1) * (len(filled) - 1)
    return [int(k) for k in np.unique(filled[np.rint(places).astype(int)])]


def draw_slices(case: Case, prediction: np.ndarray, errors: VolumeErrors, shown: Sequence[int]) -> Any:
    """A figure of the slices `shown`."""
    box = head_box(case)
    figure, parts = rows_figure([(case, box)] * len(shown))
    for part, k in zip(parts, shown, strict=True):
        n = int(np.flatnonzero(errors.slices == k)[0])
        title = f"{case.name}, axial slice {k}: MSE {errors.mse[n]:.5f}, MAE {errors.mae[n]:.5f} (whole slice, 0 to 1)"
        draw_slice(part, case, prediction, k, title, box)
    return figure


def draw_curve(errors: VolumeErrors, shown: Sequence[int]) -> Any:
    """A figure of each slice's errors from bottom to top, the slices of the pictures marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    figure.suptitle(f"{errors.subject}: error of each axial slice (image 0 to 1)", fontsize=11)
    marked = np.isin(errors.slices, shown)
    for axis, values, name in zip(figure.subplots(2, 1, sharex=True), (errors.mae, errors.mse), ("MAE", "MSE"), strict=True):
        line = np.full(errors.slices[-1] + 1, np.nan)  # a gap where the target was not acquired
        line[errors.slices] = values
        axis.plot(line, color="#0072b2", linewidth=1.3)
        axis.plot(errors.slices[marked], values[marked], "o", color="black", markersize=5, label="slices in the pictures")
        label = f"mean {values.mean():.5f}, total {values.sum():.5f}"
        axis.axhline(values.mean(), color="#d55e00", linestyle="--", linewidth=1.2, label=label)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0, top=1.3 * max(values.max(), 1e-9))  # room for the legend
        axis.legend(loc="upper right", fontsize=8, ncols=2)
    axis.set_xlabel("Axial slice, from foot to head")
    return figure


# --- Command -------------------------------------------------------------------------------------------------------


def load_model(values: argparse.Namespace) -> tuple[Translator, str]:
    """The translator and what it is called; test subjects that it was trained on are refused.

    Raises:
        BadInput, BadModel: if there is no such model or run, or a test subject is not unseen.
    """
    names = [subject.name for subject in select_subjects(values.data, values.test)]
    if values.run:
        what = f"Run {values.run.resolve().name}"
        card = experiment_package(values.run, values.output / "package", "validated-run", what)
        seen = sorted(set(names) & set(json.loads((values.run / "config.json").read_text(encoding="utf-8"))["subjects"]))
        if seen:
            raise BadInput(f"The run was trained on {', '.join(seen)}: leave them out of --test.")
    else:
        card = find_card(values.model)
        what = f"Model {card.name} {card.content['version']}"
        check_unseen(card, names)
    settings = TranslationSettings(values.source, values.target, values.device, "fp32", check_modality=False)
    translator = Translator(card, settings)
    return translator, f"{what}, {translator.source} to {translator.target}"


def validate(values: argparse.Namespace) -> None:
    """Translate, measure, draw and write."""
    for name in ("table.md", "slices.csv"):
        check_writable(values.output / name)
    if values.shown < 1:
        raise BadInput(f"--shown {values.shown}: it must be at least 1.")
    translator, what = load_model(values)
    volumes, rows = [], []
    for subject in subjects_with(values.data, values.test, [translator.source, translator.target]):
        case = load_case(subject, translator.source, translator.target)
        prediction = predicted(translator, case)
        errors = volume_errors(case, prediction)
        volumes.append(errors)
        for k, head, mse, mae in zip(errors.slices, errors.head, errors.mse, errors.mae, strict=True):
            rows.append([case.name, k, "yes" if head else "no", f"{mse:.8g}", f"{mae:.8g}"])
        shown, stem = chosen_slices(errors, values.shown), case.name.replace("/", "-")
        save_figure(draw_slices(case, prediction, errors, shown), values.output / f"{stem}-slices.png")
        save_figure(draw_curve(errors, shown), values.output / f"{stem}-curve.png")
        print(f"{case.name}: total MSE {errors.mse.sum():.5f}, total MAE {errors.mae.sum():.5f}", flush=True)
    text = report(volumes, what)
    write_text(values.output / "slices.csv", csv_table(("subject", "slice", "head", "mse", "mae"), rows))
    write_text(values.output / "table.md", text)
    print(text)


def main(arguments: list[str] | None = None) -> None:
    """Validate; an error is one sentence on the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="plain folders <dataset>/<subject>/<modality>.nii.gz")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="name or card of a model")
    which.add_argument("--run", type=Path, help="folder of a training run with one target")
    parser.add_argument("--test", required=True, nargs="+", help="patterns of subjects that were not trained on")
    parser.add_argument("--source", help="modality, of an any-to-any model")
    parser.add_argument("--target", help="modality, of an any-to-any model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--shown", type=int, default=SHOWN, help=f"slices to draw of each subject (default {SHOWN})")
    parser.add_argument("--output", required=True, type=Path)
    try:
        validate(parser.parse_args(arguments))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
