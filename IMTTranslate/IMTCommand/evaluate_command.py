"""`imt evaluate`: one prediction against its truth."""

from __future__ import annotations

import argparse
import json
import math
from contextlib import ExitStack
from pathlib import Path

from IMTCore.errors import BadInput
from IMTCore.files import whole_file
from IMTCore.metrics import CONVENTIONS, error_map, evaluate
from IMTCore.orientation import anatomical_axes
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.volume_io import check_output_path, read_volume, save_volume


def run(values: argparse.Namespace) -> int:
    """Score and print."""
    inputs = [path for path in (values.truth, values.prediction, values.mask) if path is not None]
    for output in (values.error_map, values.report):
        if output is not None and output.resolve() in [path.resolve() for path in inputs]:
            raise BadInput(f"The output {output} is one of the inputs: choose another output name.")
    if values.error_map:
        check_output_path(values.error_map)
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
    scores = evaluate(axes.apply(truth.array), axes.apply(prediction.array), region, top)
    rows = [{key: finite(value) for key, value in score.record().items()} for score in scores]
    report = {
        "truth": str(values.truth),
        "prediction": str(values.prediction),
        "mask": str(values.mask) if values.mask else None,
        "plane": values.plane,
        **{key: rows[0][key] for key in ("scaling", "region", "mae", "psnr", "ssim", "mi")},
        "scores": rows,
        "conventions": CONVENTIONS,
    }
    with ExitStack() as stack:  # both files or none
        if values.error_map:
            difference = error_map(truth.array, prediction.array, top)
            temporary = stack.enter_context(whole_file(values.error_map))
            save_volume(temporary, truth.with_array(difference), f"|prediction - truth|, percent; {values.prediction.name}"[:79])
        if values.report:
            temporary = stack.enter_context(whole_file(values.report))
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if values.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{'scaling':<8} {'region':<8} {'MAE':>10} {'PSNR dB':>9} {'SSIM':>8} {'MI nats':>9}")
    for s in scores:
        print(f"{s.scaling:<8} {s.region:<8} {s.mae:>10.5g} {s.psnr:>9.3f} {s.ssim:>8.4f} {s.mi:>9.4f}")
    for name, text in CONVENTIONS.items():
        print(f"  {name}: {text}")
    return 0


def finite(value: float | str) -> float | str | None:
    """`value`, or None where JSON has no number for it: the PSNR of equal images, SSIM where no window fits."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def output_top(path: Path) -> float | None:
    """The top of a prediction's output range, from its mark; None if it has none (it is not an output of IMT)."""
    record = read_mark(sidecar_path(path))
    limits = record.get("output_range")
    if record.get("synthetic") is not True or record.get("content") != "translation" or not isinstance(limits, list):
        return None
    return float(limits[1]) if len(limits) == 2 and isinstance(limits[1], int | float) and limits[1] > 0 else None
