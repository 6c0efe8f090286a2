"""Time and memory of a translation against the plain loop, as ratios from one run.

Baseline: the reference pix2pix test script's way, one slice at a time, fp32, module in training mode with batch
normalisation. Against it, `imt translate` as a whole command (start-up, reading, writing included), in several
settings. Data: a seeded phantom of 240×240×155 voxels at 1 mm.

    python Testing/Benchmarks/benchmark_translate.py [--output table.md]
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

import numpy as np
import torch

from IMTCore.model_packages import save_package
from IMTCore.networks import UNetGenerator, initialise
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume

SHAPE = (155, 240, 240)

# The measured child: the command, then its peak memory.
CHILD = """
import os, resource, sys
from IMTCommand.__main__ import main
code = main(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.stdout.flush()
os._exit(code)
"""


def make_input(path: Path) -> float:
    """Write an ellipsoid head of 146 × 180 × 137 mm with smooth structure and noise; return the share of filled slices."""
    random = np.random.default_rng(0)
    k, j, i = np.indices(SHAPE)
    centre = [(n - 1) / 2 for n in SHAPE]
    radius = np.sqrt(((k - centre[0]) / 68.5) ** 2 + ((j - centre[1]) / 90) ** 2 + ((i - centre[2]) / 73) ** 2)
    tissue = 120 + 60 * np.sin(k / 9) * np.cos(j / 11) * np.sin(i / 7) + random.normal(0, 5, SHAPE)
    array = np.where(radius < 1, np.clip(tissue, 1, None), 0).astype(np.int16)
    write_volume(path, Volume(array, Geometry(SHAPE, (1, 1, 1), (0, 0, 0), np.eye(3))))
    return float((array.max(axis=(1, 2)) > 0).mean())


def make_model(folder: Path) -> Path:
    """A package of the paper's U-Net-256 (64 filters) with random weights: speed does not depend on their values."""
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "out_channels": 1, "filters": 64, "depth": 8}
    network = UNetGenerator(**arguments)
    initialise(network)
    card = {
        "format": 1,
        "name": "unet256",
        "version": "0",
        "title": "benchmark",
        "source": "T1",
        "target": "T2",
        "network": {"kind": "unet", "arguments": arguments},
        "slicing": {"plane": "axial", "mode": "paper", "size": [256, 256]},
        "percentile": 99.5,
        "output_range": [0, 255],
        "weights": {"licence": "none"},
        "training": {"data": [], "command": "none", "date": "none"},
        "metrics": [],
        "intended_use": "benchmark",
        "limits": [],
    }
    return save_package(folder, card, network).path


def plain_loop(volume: Volume, device: str) -> float:
    """Seconds of the baseline for the whole volume, blank slices included (it does not look)."""
    torch.manual_seed(0)
    network = UNetGenerator(norm="batch").to(device).train()
    images = torch.from_numpy(volume.array.astype(np.float32))[:, None] / 127.5 - 1
    results = []
    with torch.no_grad():
        network(torch.zeros(1, 1, 256, 256, device=device))
        start = time.perf_counter()
        for image in images:
            image = torch.nn.functional.interpolate(image[None], size=(256, 256), mode="bilinear", align_corners=False)
            results.append(network(image.to(device)).cpu())
        return time.perf_counter() - start


def plain_loop_alone(path: Path, device: str) -> float:
    """`plain_loop` in a process of its own, with torch's own settings: `imt` has others (OMP_WAIT_POLICY)."""
    run = [sys.executable, __file__, "--plain-loop", str(path), "--device", device]
    return float(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)


def command(arguments: list[str]) -> tuple[float, float, dict[str, float]]:
    """Wall seconds, peak memory in GB, and seconds by stage of one `imt` command in its own process."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    peak = float(done.stdout.split("PEAK")[1]) * (1 if sys.platform == "darwin" else 1024) / 1e9
    message = next(json.loads(line)["message"] for line in done.stdout.splitlines() if '"done"' in line)
    stages = {part.split()[0]: float(part.split()[1]) for part in message.rsplit("(", 1)[1].rstrip(")").split(", ")}
    return seconds, peak, stages


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plain-loop", type=Path, help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.plain_loop:
        print(plain_loop(read_volume(values.plain_loop), values.device))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled = make_input(folder / "T1.nii.gz")
        model = make_model(folder)
        cpu = "fp32 bf16" if values.device == "cpu" else "fp32 auto"
        settings = [(str(model), precision, batch) for precision in cpu.split() for batch in ("1", "8")]
        settings.append(("T1-T2", "auto", "8"))  # the shipped, narrow model
        loops: list[float] = []
        measured: dict[tuple[str, str, str], list[tuple[float, float, dict[str, float]]]] = {s: [] for s in settings}
        for _ in range(values.runs):  # in turn, so that a drifting machine does not favour one of them
            loops.append(plain_loop_alone(folder / "T1.nii.gz", values.device))
            for name_or_path, precision, batch in settings:
                arguments = [
                    "translate",
                    str(folder / "T1.nii.gz"),
                    "--model",
                    name_or_path,
                    "--output",
                    str(folder / "T2.nii.gz"),
                ]
                arguments += ["--device", values.device, "--precision", precision, "--batch", batch, "--progress", "json"]
                measured[name_or_path, precision, batch].append(command(arguments))
    loop = statistics.median(loops)
    size = "×".join(str(n) for n in SHAPE[::-1])
    what = f"U-Net-256 (64 filters), {size} voxels, {filled:.0%} of the slices filled; medians of {values.runs} runs"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, device {values.device}"
    lines = [
        f"{what}; {machine}, torch {torch.__version__}, Python {platform.python_version()}.",
        "",
        f"Plain loop (baseline): {loop:.1f} s, {SHAPE[0] / loop:.1f} slices/s (network and resizing alone, no start-up, no files).",
        "",
        "| `imt translate`, whole command | s | × baseline | peak GB | where the time goes (s) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (name_or_path, precision, batch), runs in measured.items():
        label = "U-Net-256" if name_or_path == str(model) else f"shipped {name_or_path}"
        seconds = statistics.median(r[0] for r in runs)
        stages = {stage: statistics.median(r[2][stage] for r in runs) for stage in runs[0][2]}
        rest = seconds - sum(stages.values())
        where = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items()) + f", start-up {rest:.1f}"
        lines.append(
            f"| {label}, {precision}, batch {batch} | {seconds:.1f} | {loop / seconds:.1f} | {max(r[1] for r in runs):.2f} | {where} |"
        )
    print("\n".join(lines))
    if values.output:
        values.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
