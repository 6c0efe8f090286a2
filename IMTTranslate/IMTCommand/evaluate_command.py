"""`imt evaluate`: one prediction against its truth."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.conventions import NAMED_CONVENTIONS, bins_sweep, evaluate_conventions, psnr_spread
from IMTCore.errors import BadInput
from IMTCore.files import check_writable, whole_file
from IMTCore.metrics import CONVENTIONS, check_pair, error_map, evaluate, scaled_prediction, sharpness, unit_scaled
from IMTCore.orientation import anatomical_axes
from IMTCore.provenance import is_mark, read_mark, sidecar_path
from IMTCore.volume_io import check_output_path, read_volume, save_volume

SCORES = ("scaling", "region", "mae", "psnr", "ssim", "mi")
MORE_SCORES = ("convention", "mae", "psnr", "ssim", "mi", "mi_bits", "nmi", "slices")
TOPS = 1e-9, 1e9  # of an output range: beyond, its mark was changed
REPORTS = (".json", ".csv")


def run(values: argparse.Namespace) -> int:
    """Score and print."""
    check_outputs([path for path in (values.truth, values.prediction, values.mask) if path], values.error_map, values.report)
    truth, prediction = read_volume(values.truth), read_volume(values.prediction)
    mask = read_volume(values.mask) if values.mask else None
    for path, volume in ((values.prediction, prediction), (values.mask, mask)):
        if volume is not None and not volume.geometry.is_close(truth.geometry, 1e-2):
            raise BadInput(
                f"{path} is not on the grid of {values.truth} (sizes {volume.array.shape[::-1]} and {truth.array.shape[::-1]}, "
                "or another position). Resample it onto the truth's grid first."
            )
    axes = anatomical_axes(truth.geometry, values.plane)
    region = None if mask is None else axes.apply(mask.array) > 0
    top = output_top(values.prediction)
    pair = axes.apply(truth.array), axes.apply(prediction.array)
    try:
        report = score(*pair, region, top, axes.spacing_kji(truth.geometry)[1:])
        if values.conventions:
            report |= score_conventions(*pair, region, top)
    except BadInput as error:
        raise BadInput(f"{values.prediction} cannot be scored with {values.truth}: {error}") from error
    names = {"truth": str(values.truth), "prediction": str(values.prediction), "mask": str(values.mask) if values.mask else None}
    report = {**names, "plane": values.plane, **report}
    with ExitStack() as stack:  # both files or none
        if values.error_map:
            difference = error_map(truth.array, prediction.array, top)
            temporary = stack.enter_context(whole_file(values.error_map))
            save_volume(temporary, truth.with_array(difference), f"|prediction - truth|, percent; {values.prediction.name}"[:79])
        if values.report:
            text = as_csv(report) if values.report.suffix.lower() == ".csv" else json.dumps(report, indent=2) + "\n"
            stack.enter_context(whole_file(values.report)).write_text(text, encoding="utf-8")
    print(json.dumps(report, indent=2) if values.json else as_text(report))
    return 0


def check_outputs(inputs: list[Path], error_map_path: Path | None, report: Path | None) -> None:
    """Refuse outputs that would overwrite an input, an input's sidecar, a mark of IMT or each other, before any work is done.

    Raises:
        BadInput: naming the file. OutputFailure: not writable.
    """
    if error_map_path:
        check_output_path(error_map_path)
    taken = {path.resolve(): f"{path}, one of the inputs" for path in inputs}
    taken = {sidecar_path(path).resolve(): f"the sidecar of {path}" for path in inputs} | taken
    for output in (error_map_path, report):
        if output is None:
            continue
        held = taken.get(output.resolve())
        if held is None and output.exists():  # another name of the same file
            held = next((text for path, text in taken.items() if path.exists() and path.samefile(output)), None)
            inside = next((path for path in inputs if path.is_dir() and path.resolve() in output.resolve().parents), None)
            held = f"a file of {inside}" if inside and held is None else held
        if held is not None:
            raise BadInput(f"The output {output} would overwrite {held}: choose another output name.")
        # A report is not an image's sidecar, and an error map must not lie beside the mark of the image that it replaces.
        for mark in {output, sidecar_path(output)}:
            if is_mark(mark) and (mark == output or output.exists()):
                raise BadInput(f"{mark} is the mark of a synthetic image, which {output} would overwrite: choose another output name.")
        taken[output.resolve()] = f"the other output, {output}"
    if report and report.suffix.lower() not in REPORTS:
        raise BadInput(f"Cannot tell the format of {report}: end its name in .json or .csv.")
    for output in (error_map_path, report):
        if output:
            check_writable(output)


def score(
    truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None, top: float | None, spacing_ji: tuple[float, ...]
) -> dict[str, Any]:
    """The report on arrays [k, j, i], slices along k: IMT's own conventions and the sharpness; the first scores on top."""
    rows = [finite(scores.record()) for scores in evaluate(truth, prediction, region, top)]
    where = check_pair(truth, prediction, region)
    sharp = sharpness(unit_scaled(truth), scaled_prediction(prediction, top), where, spacing_ji)
    return {**rows[0], **finite({"sharpness": sharp}), "scores": rows, "conventions": CONVENTIONS}


def score_conventions(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None, top: float | None) -> dict[str, Any]:
    """The report's part on published conventions, the spread of their PSNRs and MI by bins."""
    scores = evaluate_conventions(truth, prediction, region, top)
    low, high, spread = psnr_spread(scores)
    ranges = {"lowest": low.convention, "highest": high.convention, **finite({"low": low.psnr, "high": high.psnr}), "spread": spread}
    sweep = bins_sweep(truth, prediction, check_pair(truth, prediction, region))
    return {
        "convention_scores": [finite(row.record()) for row in scores],
        "psnr_spread_db": ranges,
        "mask_mi_by_bins": [{"bins": bins, "mi": mi, "mi_bits": mi / math.log(2), "nmi": nmi} for bins, (mi, nmi) in sweep.items()],
        "convention_descriptions": {c.name: c.describe() for c in NAMED_CONVENTIONS if any(row.convention == c.name for row in scores)},
    }


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """`record` with None where JSON has no number: the PSNR of equal images, SSIM where no window fits."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()}


def as_text(report: dict[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"{'scaling':<8} {'region':<8} {'MAE':>10} {'PSNR dB':>9} {'SSIM':>8} {'MI nats':>9}"]
    lines += [f"{s['scaling']:<8} {s['region']:<8} " + cells(s, SCORES[2:]) for s in report["scores"]]
    lines.append(f"sharpness in the mask: {'-' if report['sharpness'] is None else format(report['sharpness'], '.3f')}")
    lines += [f"  {name}: {text}" for name, text in report["conventions"].items()]
    if "convention_scores" not in report:
        return "\n".join(lines)
    lines += ["", f"{'convention':<16} {'MAE':>10} {'PSNR dB':>9} {'SSIM':>8} {'MI nats':>9} {'MI bits':>9} {'NMI':>8} {'slices':>7}"]
    lines += [f"{s['convention']:<16} " + cells(s, MORE_SCORES[1:]) for s in report["convention_scores"]]
    spread = report["psnr_spread_db"]
    low, high = (f"{'inf' if spread[end] is None else format(spread[end], '.2f')}" for end in ("low", "high"))
    lines.append(f"PSNR of this one prediction: {low} ({spread['lowest']}) to {high} ({spread['highest']}), a spread of {spread['spread']:.2f} dB")
    lines.append("MI in the mask, nats: " + ", ".join(f"{row['mi']:.4f} with {row['bins']} bins" for row in report["mask_mi_by_bins"]))
    return "\n".join(lines + [f"  {name}: {text}" for name, text in report["convention_descriptions"].items()])


def cells(scores: dict[str, Any], keys: tuple[str, ...]) -> str:
    """Numbers of one row, in columns; the PSNR of equal images is infinite."""
    forms = {"mae": "10.5g", "psnr": "9.3f", "slices": "7d", "mi": "9.4f", "mi_bits": "9.4f"}
    texts = []
    for key in keys:
        form = forms.get(key, "8.4f")
        missing = "inf" if key == "psnr" else "-"
        texts.append(missing.rjust(int(form.rstrip("dfg").partition(".")[0])) if scores[key] is None else format(scores[key], form))
    return " ".join(texts)


def as_csv(report: dict[str, Any]) -> str:
    """The scores as a table: one row for each convention, a cell is empty where there is no number."""
    rows = [{"convention": f"{s['scaling']} {s['region']}", **s} for s in report["scores"]]
    rows += [{"convention": f"{s['convention']}", **s} for s in report.get("convention_scores", [])]
    stream = io.StringIO()
    columns = ["truth", "prediction", "convention", *SCORES[:2], *MORE_SCORES[1:], "sharpness"]
    writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    shared = {key: report[key] for key in ("truth", "prediction", "sharpness")}
    missing = {"psnr": "inf"}  # of equal images
    writer.writerows({key: missing.get(key, "") if value is None else value for key, value in {**shared, **row}.items()} for row in rows)
    return stream.getvalue()


def output_top(path: Path) -> float | None:
    """The top of a prediction's output range, from its mark; None if it has none (it is not an output of IMT)."""
    record = read_mark(sidecar_path(path))
    limits = record.get("output_range")
    if record.get("synthetic") is not True or record.get("content") != "translation" or not isinstance(limits, list):
        return None
    usable = len(limits) == 2 and isinstance(limits[1], int | float) and TOPS[0] <= limits[1] <= TOPS[1]
    return float(limits[1]) if usable else None
