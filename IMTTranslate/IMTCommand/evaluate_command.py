"""`imt evaluate`: one prediction against its truth."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from IMTCore.errors import BadInput
from IMTCore.metrics import CONVENTIONS, evaluate
from IMTCore.orientation import anatomical_axes
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.volume_io import read_volume


def run(values: argparse.Namespace) -> int:
    """Score and print."""
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
    scores = evaluate(axes.apply(truth.array), axes.apply(prediction.array), region, output_top(values.prediction))
    rows = [{key: finite(value) for key, value in score.record().items()} for score in scores]
    if values.json:
        report = {
            "truth": str(values.truth),
            "prediction": str(values.prediction),
            "mask": str(values.mask) if values.mask else None,
            "plane": values.plane,
            **{key: rows[0][key] for key in ("scaling", "region", "mae", "psnr", "ssim", "mi")},
            "scores": rows,
            "conventions": CONVENTIONS,
        }
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
