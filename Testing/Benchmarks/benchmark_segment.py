"""Time and memory of translation and segmentation against the plain loop with the same networks, as ratios from one run.

Baseline: one slice at a time, fp32, all slices: the translator (U-Net-256 in training mode, as the reference pix2pix test
script), then the segmenter on [given, given, translated], softmax and the largest class. Against it `imt segment` as a whole
command (start-up, reading, writing included). Networks have random weights: speed does not depend on their values. Data: a
seeded phantom of 240×240×155 voxels at 1 mm.

    python Testing/Benchmarks/benchmark_segment.py [--networks fcn unet] [--output table.md]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_translate import SHAPE, make_input, make_model

from IMTCore.fcn import FCN
from IMTCore.networks import UNetGenerator
from IMTCore.segmentation_unet import SegmentationUNet
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume
from IMTSegmentLib.segmenter_packages import save_segmenter

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "fcn": ("FCN-8s, VGG-16, padding 0", {"classes": 4, "in_channels": 3, "variant": "8s", "padding": 0}),
    "unet": ("U-Net, 16 filters", {"classes": 4, "in_channels": 3, "filters": 16, "depth": 4}),
}
CHILD = """
import os, resource, sys
from IMTCommand.__main__ import main
code = main(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.stdout.flush()
os._exit(code)
"""


def build(kind: str) -> torch.nn.Module:
    """A segmenter with seeded random weights."""
    torch.manual_seed(0)
    return (FCN if kind == "fcn" else SegmentationUNet)(**NETWORKS[kind][1])


def make_segmenter(folder: Path, kind: str) -> Path:
    """Its package: tissue from T1 and a translated T2, on slices of 256×256 as the paper's."""
    card = {
        "format": 1, "kind": "segmentation", "name": f"segment-{kind}", "version": "0", "title": "benchmark", "task": "tissue",
        "source": "T1", "channels": ["given", "given", "second"],
        "second": {"modality": "T2"},
        "classes": [{"code": n + 1, "name": name, "colour": [80 * n, 90, 200]} for n, name in enumerate(("csf", "grey", "white"))],
        "network": {"kind": kind, "arguments": NETWORKS[kind][1]},
        "slicing": {"plane": "axial", "mode": "paper", "size": [256, 256]}, "percentile": 99.5,
        "weights": {"licence": "none"}, "training": {"data": [], "command": "none", "date": "none"}, "metrics": [],
        "intended_use": "benchmark", "limits": [],
    }  # fmt: skip
    return save_segmenter(folder, card, build(kind)).path


def plain_loop(volume: Volume, kind: str, device: str) -> float:
    """Seconds of the baseline for the whole volume, blank slices included (it does not look)."""
    torch.manual_seed(0)
    translator = UNetGenerator(norm="batch").to(device).train()
    segmenter = build(kind).to(device).eval()
    images = torch.from_numpy(volume.array.astype(np.float32))[:, None] / 127.5 - 1
    labels = np.empty(volume.array.shape, np.uint8)
    with torch.no_grad():
        segmenter(torch.zeros(1, 3, 256, 256, device=device))
        translator(torch.zeros(1, 1, 256, 256, device=device))
        start = time.perf_counter()
        for k, image in enumerate(images):
            given = torch.nn.functional.interpolate(image[None], size=(256, 256), mode="bilinear", align_corners=False).to(device)
            logits = segmenter(torch.cat([given, given, translator(given)], dim=1))
            back = torch.nn.functional.interpolate(logits.softmax(1), size=tuple(image.shape[-2:]), mode="bilinear", align_corners=False)
            labels[k] = back.argmax(1)[0].cpu().numpy()
        return time.perf_counter() - start


def plain_loop_alone(path: Path, kind: str, device: str) -> float:
    """`plain_loop` in a process of its own, with torch's own settings."""
    run = [sys.executable, __file__, "--plain-loop", str(path), "--networks", kind, "--device", device]
    return float(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)


def command(arguments: list[str], report: Path) -> tuple[float, float, dict[str, float]]:
    """Wall seconds, peak memory in GB, and seconds by stage of one `imt` command in its own process."""
    start = time.perf_counter()
    run = [sys.executable, "-c", CHILD, *arguments, "--report", str(report)]
    done = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    peak = float(done.stdout.split("PEAK")[1]) * (1 if sys.platform == "darwin" else 1024) / 1e9
    return seconds, peak, json.loads(report.read_text(encoding="utf-8"))["seconds"]


def measure(values: argparse.Namespace, folder: Path) -> list[str]:
    """All measurements, as the lines of the page."""
    filled = make_input(folder / "T1.nii.gz")
    translator = make_model(folder)
    lines = []
    for kind in values.networks:
        model = make_segmenter(folder, kind)
        loops: list[float] = []
        found: dict[str, list[tuple[float, float, dict[str, float]]]] = {"fp32": [], "auto": []}
        for _ in range(values.runs):  # in turn, so that a drifting machine does not favour one of them
            loops.append(plain_loop_alone(folder / "T1.nii.gz", kind, values.device))
            for precision, runs in found.items():
                arguments = ["segment", str(folder / "T1.nii.gz"), "--model", str(model), "--translator", str(translator)]
                arguments += ["--output", str(folder / "labels.nii.gz"), "--device", values.device, "--precision", precision]
                arguments += ["--no-modality-check", "--progress", "none"]
                runs.append(command(arguments, folder / "report.json"))
        loop = statistics.median(loops)
        lines += ["", f"## U-Net-256 (64 filters) and {NETWORKS[kind][0]}", "", f"Plain loop (baseline): {loop:.1f} s for the networks alone.", ""]
        lines += ["| `imt segment`, whole command | s | × baseline | peak GB | where the time goes (s) |", "| --- | --- | --- | --- | --- |"]
        for precision, runs in found.items():
            seconds = statistics.median(run[0] for run in runs)
            stages = {stage: statistics.median(run[2][stage] for run in runs) for stage in runs[0][2] if stage != "total"}
            where = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
            peak = max(run[1] for run in runs)
            lines.append(f"| {precision} | {seconds:.1f} | {loop / seconds:.2f} | {peak:.2f} | {where} |")
    size = "×".join(str(n) for n in SHAPE[::-1])
    what = f"{size} voxels, {filled:.0%} of the slices filled; medians of {values.runs} run(s)"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, device {values.device}"
    return [f"{what}; {machine}, torch {torch.__version__}, Python {platform.python_version()}.", *lines]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plain-loop", type=Path, help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.plain_loop:
        print(plain_loop(read_volume(values.plain_loop), values.networks[0], values.device))
        return
    with tempfile.TemporaryDirectory() as name:
        text = "\n".join(measure(values, Path(name))) + "\n"
    print(text, end="")
    if values.output:
        values.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
