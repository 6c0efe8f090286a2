"""Calibrate a model's uncertainty on patients that it never saw, check it patient by patient, and put it on the card.

A power law brings the deviation between noise samples to the size of the error (`IMTCore.calibration`). The check leaves each
patient out of the fit in turn; what goes on the card is fitted on all. Patients have the same weight, whatever their size.

Example:
    python Resources/Training/calibrate_uncertainty.py --data DATA --output runs/calibration --picture Resources/Images \
        --card IMTTranslate/Resources/IMT-models/T1-T2.json Resources/Training/cards/T1-T2.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, spearmanr

from measure_training_range import put_on_card
from uncertainty_patients import Patient, calibration_patients

from IMTCore.calibration import LEVELS, Calibration, fit_calibration, interval_score, pooled_quantile
from IMTCore.cards import ModelCard, read_card
from IMTCore.errors import ImtError
from IMTCore.files import whole_file, write_json, write_text
from IMTCore.uncertainty_map import OUTSIDE, UNSURE, VERY_UNSURE

FLOOR, SOFTENING = 0.005, 0.01  # of the output's range
WORST = 0.05  # the share of a patient's voxels that counts as the worst errors
THRESHOLDS = (0.4, 0.6)  # half-widths of the 90 % interval over the tissue range: unsure, very unsure
BINS = 10
DIGITS = 4


@dataclass(frozen=True)
class Check:
    """What holds for one patient whom the fit did not see.

    Attributes:
        patient: the patient.
        widths: level -> half-width of the interval at every voxel, (n,).
        before: level -> coverage of translation ± z × deviation. after: of the calibrated interval.
        codes: the trust map's code at every voxel, (n,).
        rank: Spearman's correlation of deviation and error.
    """

    patient: Patient
    widths: dict[float, np.ndarray]
    before: dict[float, float]
    after: dict[float, float]
    codes: np.ndarray
    rank: float


def fit(patients: list[Patient], top: float, samples: int, planes: tuple[str, ...]) -> Calibration:
    """The calibration on these patients; `top` is the end of the output's range."""
    deviations, errors = [one.deviation for one in patients], [one.error for one in patients]
    return fit_calibration(deviations, errors, FLOOR * top, SOFTENING * top, samples, planes)


def tissue_range(patients: list[Patient]) -> float:
    """The median over patients."""
    return float(np.median([one.tissue_range for one in patients]))


def check_patient(patient: Patient, others: list[Patient], top: float, samples: int, planes: tuple[str, ...]) -> Check:
    """Check a calibration fitted on `others`."""
    calibration = fit(others, top, samples, planes)
    widths = {level: calibration.half_width(patient.deviation, level) for level in LEVELS}
    before = {level: float((patient.error <= norm.ppf((1 + level) / 2) * patient.deviation).mean()) for level in LEVELS}
    after = {level: float((patient.error <= widths[level]).mean()) for level in LEVELS}
    share = widths[0.9] / tissue_range(others)
    codes = np.where(share > THRESHOLDS[1], VERY_UNSURE, np.where(share > THRESHOLDS[0], UNSURE, 0))
    codes = np.where(patient.inside, codes, OUTSIDE)
    return Check(patient, widths, before, after, codes, float(spearmanr(patient.deviation, patient.error).statistic))


def leave_one_out(patients: list[Patient], top: float, samples: int, planes: tuple[str, ...]) -> list[Check]:
    """Each patient against a calibration of the others."""
    return [check_patient(one, [other for other in patients if other is not one], top, samples, planes) for one in patients]


def scores_by_method(patients: list[Patient], checks: list[Check], top: float) -> dict[str, float]:
    """Interval scores of 90 % intervals, patients left out in turn, over the range: less is better."""
    found: dict[str, list[float]] = {"constant width": [], "deviation times a factor": [], "power law": []}
    for check in checks:
        others = [one for one in patients if one is not check.patient]
        error = check.patient.error
        constant = np.full(error.shape, pooled_quantile([one.error for one in others], 0.9))
        floor = FLOOR * top
        factor = pooled_quantile([one.error / (one.deviation + floor) for one in others], 0.9)
        for key, width in zip(found, (constant, factor * (check.patient.deviation + floor), check.widths[0.9]), strict=True):
            found[key].append(interval_score(width, error, 0.9) / top)
    return {key: round(float(np.mean(values)), DIGITS) for key, values in found.items()}


def flags(check: Check) -> dict[str, float]:
    """Of one patient: the share of the head that the trust map flags, the share of the worst errors, and of each code."""
    worst = check.patient.error >= np.quantile(check.patient.error, 1 - WORST)
    flagged = check.codes > 0
    shares = {"flagged": flagged.mean(), "worst_flagged": flagged[worst].mean()}
    shares |= {name: (check.codes == code).mean() for name, code in (("unsure", UNSURE), ("very_unsure", VERY_UNSURE), ("outside", OUTSIDE))}
    return {key: round(float(value), DIGITS) for key, value in shares.items()}


def card_entry(patients: list[Patient], checks: list[Check], card: ModelCard, samples: int) -> dict[str, Any]:
    """The card's `uncertainty`."""
    calibration = fit(patients, card.output_range[1], samples, card.planes)
    coverage = []
    for level in LEVELS:
        after = [check.after[level] for check in checks]
        before = float(np.mean([check.before[level] for check in checks]))
        row = {"level": level, "before": before, "after": float(np.mean(after)), "lowest": min(after), "highest": max(after)}
        coverage.append({key: round(value, 3) for key, value in row.items()})
    every = max(float(np.quantile(check.patient.error / check.widths[0.9], 0.9)) for check in checks)
    return {
        "exponent": round(calibration.exponent, DIGITS),
        "floor": round(calibration.floor, DIGITS),
        "widths": [round(calibration.widths[level], DIGITS) for level in LEVELS],
        "samples": samples,
        "planes": list(card.planes),
        "tissue_range": round(tissue_range(patients), 2),
        "thresholds": list(THRESHOLDS),
        "fitted_on": [one.name for one in patients],
        "checked": "each patient with a fit of the others",
        "coverage": coverage,
        "every_patient": round(every, 3),
        "rank_correlation": round(float(np.mean([check.rank for check in checks])), 3),
    }


def as_markdown(checks: list[Check], methods: dict[str, float]) -> str:
    """Coverage, flags and methods as Markdown tables."""
    lines = ["| patient (left out of the fit) | 90 % before | 90 % after | 68 % before | 68 % after | rank corr. | flagged | worst 5 % flagged | outside |"]
    lines.append("|" + " --- |" * 9)
    for check in checks:
        found = flags(check)
        shares = [check.before[0.9], check.after[0.9], check.before[0.68], check.after[0.68]]
        cells = [f"{share:.1%}" for share in shares] + [f"{check.rank:.2f}"]
        cells += [f"{found[key]:.1%}" for key in ("flagged", "worst_flagged", "outside")]
        lines.append(f"| {check.patient.name} | " + " | ".join(cells) + " |")
    lines += ["", "| 90 % intervals by | interval score over the range (less is better) |", "| --- | --- |"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in methods.items()]) + "\n"


def draw(path: Path, checks: list[Check], card: ModelCard) -> None:
    """The reliability plot: coverage against its promise, and the error against the width of the interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    left.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for check in checks:
        left.plot(LEVELS, list(check.after.values()), color="tab:blue", alpha=0.3, linewidth=1)
    for name, colour, rows in (("as sampled", "tab:red", "before"), ("calibrated", "tab:blue", "after")):
        left.plot(LEVELS, [np.mean([getattr(check, rows)[level] for check in checks]) for level in LEVELS], "o-", color=colour, label=name)
    left.set(xlabel="promised coverage", ylabel="coverage on patients left out", xlim=(0, 1), ylim=(0, 1), title=f"{card.name}: coverage")
    left.legend(loc="upper left")
    top = 0.0
    for check in checks:
        width, error = check.widths[0.9], check.patient.error
        parts = np.array_split(np.argsort(width), BINS)
        points = np.array([(width[part].mean(), np.quantile(error[part], 0.9)) for part in parts])
        right.plot(*points.T, ".-", linewidth=1, label=check.patient.name.replace("_", " "))
        top = max(top, float(points.max()))
    right.plot([0, top], [0, top], color="0.6", linewidth=1)
    right.set(xlabel="half-width of the 90 % interval", ylabel="90 % of the errors are below", title=f"tenths of the voxels, range {card.output_range[1]:g}")
    right.legend(fontsize=6, loc="lower right")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Translate, fit, check, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--card", required=True, nargs="+", type=Path, help="the model's card; further files get the key too")
    parser.add_argument("--exclude", nargs="*", default=[], help="held-out patients to leave out")
    parser.add_argument("--samples", type=int, default=4, help="noise samples (default 4)")
    parser.add_argument("--output", required=True, type=Path, help="folder for the report, and for what was translated")
    parser.add_argument("--picture", type=Path, help="folder for reliability-MODEL.png")
    values = parser.parse_args(arguments)
    try:
        card = read_card(values.card[0])
        patients = calibration_patients(values.data, card, values.samples, values.output / "patients", values.exclude)
        top = card.output_range[1]
        checks = leave_one_out(patients, top, values.samples, card.planes)
        methods, entry = scores_by_method(patients, checks, top), card_entry(patients, checks, card, values.samples)
        table = as_markdown(checks, methods)
        print(table)
        write_text(values.output / f"{card.name}.md", table)
        rows = [{"patient": check.patient.name, "before": check.before, "after": check.after, **flags(check)} for check in checks]
        write_json(values.output / f"{card.name}.json", {"uncertainty": entry, "methods": methods, "patients": rows})
        if values.picture is not None:
            draw(values.picture / f"reliability-{card.name}.png", checks, card)
        for path in values.card:
            put_on_card(path, "uncertainty", entry)
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
