"""How fast `imt register` fuses two modalities over several atlases, as ratios from one run.

Baseline, the plain way: for each atlas and each modality a registration of its own (rigid, affine, deformable) on the whole
images, one after the other, with the same engine, settings and all threads; nothing is shared, cropped or begun from
another result. The fields are then fused and the labels averaged as `imt register` does it. Its engine's process is kept,
which favours the baseline. With --paper also the plain way with ANTs, preset paper (hours).

Both take a real second image, so that no translation's time is in either. Each run is a process of its own; memory is the
largest sum of the resident memory of its process tree. Data: generated phantoms, or --data, a folder with atlases/ and
subjects/ as Resources/Experiments/make_phantom_cohort.py makes it.

    python Testing/Benchmarks/benchmark_register.py [--engine ants] [--scaling] [--paper] [--output table.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / "IMTTranslate"), str(ROOT / "IMTRegister")]
sys.path += PATHS  # last: an installed IMT comes first

SAMPLE_SECONDS = 0.1
MODALITIES = ("T1", "T2")


@dataclass(frozen=True)
class Run:
    """One measured process: wall seconds, peak memory of its tree, Dice by structure, and its number of engine processes."""

    seconds: float
    peak_gb: float
    dice: Mapping[str, float]
    processes: int

    @property
    def mean_dice(self) -> float:
        """Over the structures."""
        return float(np.nanmean(list(self.dice.values())))


# --- What is measured, each in a process of its own ----------------------------------------------------------------------


def fused(job: Mapping[str, Any]) -> None:
    """`imt register` as a whole command, without a cache."""
    from IMTCommand import register_arguments, register_command

    parser = argparse.ArgumentParser()
    register_arguments.add_arguments(parser)
    given, second = job["modalities"]
    words = [job["images"][given], "--modality", given, "--translate-to", second, "--second-image", job["images"][second]]
    words += ["--atlases", job["atlases"], "--engine", job["engine"], "--preset", job["preset"], "--cache", "none", "--progress", "none"]
    words += ["--output-labels", job["output"]]
    for name in ("jobs", "threads"):
        words += [f"--{name}", str(job[name])] if job.get(name) else []
    register_command.run(parser.parse_args(words))


def plain(job: Mapping[str, Any]) -> None:
    """Two separate registrations an atlas, one after the other, then their fusion."""
    from IMTCore.volume_io import read_volume, write_volume
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.deformations.fusion import fuse
    from IMTRegisterLib.deformations.resampling import warp_shares
    from IMTRegisterLib.engines.interface import Channel, EngineSession, Task
    from IMTRegisterLib.registration.jobs import available_cores
    from IMTRegisterLib.registration.label_fusion import fuse_labels
    from IMTRegisterLib.registration.labels import read_labels

    atlas_set = read_atlas_set(job["atlases"], job["modalities"])
    subject = read_volume(job["images"][job["modalities"][0]])
    readers = []
    with EngineSession(job["engine"], job["preset"], job.get("threads") or available_cores()) as session:
        for atlas in atlas_set.atlases:
            transforms = []
            for modality in job["modalities"]:
                channels = (Channel(Path(job["images"][modality]), atlas.images[modality]),)
                linear = session.run(Task("linear", channels))
                transforms.append(session.run(Task("deformable", channels, linear)))
            transform = fuse(transforms, [0.5, 0.5])
            readers.append(warp_shares(read_labels(atlas), atlas_set.codes, transform, subject.geometry))
    labels, _ = fuse_labels(readers, "mean", atlas_set.codes)
    write_volume(job["output"], subject.with_array(labels))


# --- Measuring -----------------------------------------------------------------------------------------------------------


class Memory(threading.Thread):
    """Watches a process and all its children: the largest sum of their resident memory, and how many there were at once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.processes, self.ended = psutil.Process(pid), 0, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            total = count = 0
            try:
                for process in [self.root, *self.root.children(recursive=True)]:
                    try:
                        total += process.memory_info().rss
                        count += 1
                    except psutil.Error:
                        continue
            except psutil.Error:
                continue
            self.peak, self.processes = max(self.peak, total), max(self.processes, count)


def measure(job: Mapping[str, Any], truth: Path, names: Mapping[int, str]) -> Run:
    """Run one job and score it."""
    from IMTCore.label_scores import dice_scores
    from IMTRegisterLib.atlases.checks import read_label_map

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, __file__, "--child", json.dumps(job)], env=environment, stdout=subprocess.DEVNULL)
    memory = Memory(child.pid)
    memory.start()
    code = child.wait()
    seconds = time.perf_counter() - start
    memory.ended.set()
    memory.join()
    if code:
        sys.exit(f"{job['kind']} ended with exit code {code}; its message is above.")
    found, expected = read_label_map(job["output"])[1], read_label_map(truth)[1]
    dice = {names[code]: value for code, value in dice_scores(expected, found, names).items()}
    return Run(seconds, memory.peak / 1e9, dice, memory.processes - 1)


def subset(atlas_set: Any, count: int, folder: Path) -> Path:
    """A CSV of the first `count` atlases, with its labels.csv."""
    from IMTCore.label_names import write_label_names

    path = folder / f"atlases{count}" / "atlases.csv"
    path.parent.mkdir(exist_ok=True)
    lines = ["atlas,modality,path"]
    for atlas in atlas_set.atlases[:count]:
        lines += [f"{atlas.name},{modality},{image.resolve()}" for modality, image in atlas.images.items() if modality in MODALITIES]
        lines.append(f"{atlas.name},labels,{atlas.labels.resolve()}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_label_names(path.with_name("labels.csv"), atlas_set.names)
    return path


def make_phantoms(folder: Path, values: argparse.Namespace) -> Path:
    """A cohort of the ICBM152 template's phantoms."""
    script = ROOT / "Resources" / "Experiments" / "make_phantom_cohort.py"
    size = ["--atlases", str(max(values.atlases)), "--subjects", "1", "--spacing", str(values.spacing)]
    command = [sys.executable, str(script), *size, "--skull-stripped", "--output", str(folder / "cohort")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "cohort"


# --- The tables ----------------------------------------------------------------------------------------------------------


def row(name: str, runs: list[Run], baseline: list[Run] | None, structures: list[str]) -> str:
    """One line: medians of the runs, and the ratio to the baseline."""
    seconds = statistics.median(run.seconds for run in runs)
    ratio = f"{statistics.median(run.seconds for run in baseline) / seconds:.2f}" if baseline else ""
    difference = f"{runs[0].mean_dice - baseline[0].mean_dice:+.4f}" if baseline else ""
    dice = " | ".join(f"{runs[0].dice[name]:.3f}" for name in structures)
    peak = max(run.peak_gb for run in runs)
    return f"| {name} | {seconds:.1f} | {ratio} | {peak:.2f} | {runs[0].processes} | {dice} | {runs[0].mean_dice:.4f} | {difference} |"


def header(first: str, against: str, structures: list[str]) -> list[str]:
    """The head of a table."""
    columns = [first, "s", f"× faster than {against}", "peak GB", "engine processes", *(f"Dice {n}" for n in structures), "Dice, mean", "difference"]
    return ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]


def benchmark(values: argparse.Namespace, folder: Path) -> list[str]:
    """All measurements, as the lines of the page."""
    from IMTCore.version import VERSION
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.engines.interface import engine_version
    from IMTRegisterLib.registration.jobs import available_cores

    data = values.data or make_phantoms(folder, values)
    atlas_set = read_atlas_set(data / "atlases", MODALITIES)
    subject = read_atlas_set(data / "subjects", MODALITIES).atlases[0]
    names = {code: atlas_set.names.name_of(code) for code in atlas_set.codes}
    structures = list(names.values())[: values.structures]
    counts = sorted({min(count, len(atlas_set.atlases)) for count in values.atlases})
    common = {
        "modalities": MODALITIES[::-1] if values.given == "T2" else MODALITIES,
        "images": {modality: str(subject.images[modality]) for modality in MODALITIES},
        "engine": values.engine,
        "preset": values.preset,
        "output": str(folder / "labels.nii.gz"),
    }

    def run(kind: str, count: int, **changes: Any) -> Run:
        job = {"kind": kind, **common, "atlases": str(subset(atlas_set, count, folder)), **changes}
        print(f"{kind}, {count} atlases, {job['engine']} {job['preset']}, jobs {job.get('jobs', 'as chosen')}", file=sys.stderr, flush=True)
        return measure(job, subject.labels, names)

    most = counts[-1]
    plains, fuseds = [], []
    for _ in range(values.runs):  # in turn, so that a drifting machine does not favour one of them
        plains.append(run("plain", most))
        fuseds.append(run("fused", most))
    size = " × ".join(str(n) for n in next(f.geometry for f in atlas_set.facts).shape[::-1])
    what = f"{data.name if values.data else 'ICBM152 phantoms'}, {most} atlases ({size} voxels), given {common['modalities'][0]}"
    load = f"load at the start {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    machine = f"{platform.machine()}, {available_cores()} cores, {load}; IMT {VERSION}, {engine_version(values.engine)}"
    lines = [
        f"{what}; medians of {values.runs} run(s). {machine}, Python {platform.python_version()}, {platform.system()}.",
        "",
        f"## The plain way against imt register, {values.engine} {values.preset}",
        "",
        *header("way", "plain", structures),
        row(f"plain: {2 * most} registrations one after the other", plains, None, structures),
        row("imt register, fused", fuseds, plains, structures),
    ]
    if values.paper:
        paper = [run("plain", most, engine="ants", preset="paper")]
        lines += ["", f"## Plain ANTs, preset paper ({engine_version('ants')})", "", *header("way", "plain ANTs paper", structures)]
        lines += [row("plain ANTs paper", paper, None, structures), row(f"imt register, {values.engine} {values.preset}", fuseds, paper, structures)]
    if values.scaling:
        lines += ["", "## Jobs and atlases", "", *header("atlases, jobs", "one job", structures)]
        for count in counts:
            single = [run("fused", count, jobs=1, threads=1)]
            lines.append(row(f"{count} atlases, 1 job, 1 thread", single, None, structures))
            for jobs in range(2, min(count, available_cores()) + 1):
                lines.append(row(f"{count} atlases, {jobs} jobs, 1 thread each", [run("fused", count, jobs=jobs, threads=1)], single, structures))
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with atlases/ and subjects/; its first subject is taken")
    parser.add_argument("--engine", choices=["greedy", "ants", "elastix"], default="greedy")
    parser.add_argument("--preset", choices=["paper", "fast"], default="fast")
    parser.add_argument("--given", choices=MODALITIES, default="T2", help="the given modality (default T2)")
    parser.add_argument("--atlases", type=int, nargs="+", default=[4], help="numbers of atlases; the comparison takes the largest (default 4)")
    parser.add_argument("--spacing", type=float, default=2.0, help="of the generated phantoms, mm (default 2)")
    parser.add_argument("--structures", type=int, default=4, help="structures with a column of their own (default 4); the mean is over all")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--paper", action="store_true", help="also plain ANTs with the preset paper: hours")
    parser.add_argument("--scaling", action="store_true", help="also by jobs, for each number of atlases")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.child:
        job = json.loads(values.child)
        {"fused": fused, "plain": plain}[job["kind"]](job)
        return
    with tempfile.TemporaryDirectory() as name:
        text = "\n".join(benchmark(values, Path(name))) + "\n"
    print(text, end="")
    if values.output:
        values.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
