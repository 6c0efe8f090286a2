"""Where the time of a translation from Slicer's scene goes, in a new process and in one that keeps its model.

Data: the phantom of benchmark_translate.py, 240×240×155 voxels at 1 mm, in a real MRML scene (slicer-core, no application).

    python Testing/Benchmarks/benchmark_panel.py [--runs 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "Testing" / "harness"), str(ROOT / "Testing" / "Benchmarks"), str(ROOT / "IMTTranslate")]

OPEN_PANEL = """
import sys, time
sys.path[:0] = [{harness!r}]
from slicer_harness import host
host.start()
before = time.perf_counter(), set(sys.modules)
host.open_module({module!r})
print("OPENED", time.perf_counter() - before[0], sorted({{"torch", "SimpleITK", "nibabel", "scipy"}} & (set(sys.modules) - before[1])))
sys.stdout.flush()
import os
os._exit(0)
"""


def run_once(node, worker) -> dict[str, float]:
    """Seconds by part of one translation of a volume node."""
    from IMTTranslatePanel.translation_run import TranslationRun, TranslationTarget

    run = TranslationRun(node, [TranslationTarget("T1-T2")], worker=worker)
    marks: dict[str, float] = {}
    stages: dict[str, float] = {}

    def on_progress(_fraction: float, message: str, _left: float | None) -> None:
        marks.setdefault("first", time.perf_counter())
        found = re.search(r"\(((?:\w+ [\d.]+(?:, )?)+)\)", message)
        if found:
            stages.update({part.split()[0]: float(part.split()[1]) for part in found[1].split(", ")})
            marks["computed"] = time.perf_counter()

    run.progress.connect(on_progress)
    run.job.finished.disconnect(run._onFinished)
    run.job.finished.connect(lambda: marks.setdefault("finished", time.perf_counter()))
    run.job.finished.connect(run._onFinished)
    start = time.perf_counter()
    run.start()
    started = time.perf_counter()
    run.wait()
    end = time.perf_counter()
    import slicer

    for output in run.outputNodes:
        slicer.mrmlScene.RemoveNode(output)
    parts = {
        "export the node": started - start,
        "process start-up": marks["first"] - started,
        "read": stages["read"],
        "load model": stages["load"],
        "prepare": stages["prepare"],
        "network": stages["network"],
        "restore and write": stages["restore"] + stages["write"],
        "process end": marks["finished"] - marks["computed"],
        "node update": end - marks["finished"],
    }
    # Reading and preparing run beside the import of torch, which is most of this.
    return {"total": end - start, **parts, "rest (import of torch)": end - start - sum(parts.values())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    values = parser.parse_args()
    from benchmark_translate import make_input

    from slicer_harness.core import bootstrap_core

    bootstrap_core()
    import slicer

    from IMTSlicerLib.workers import Worker

    with tempfile.TemporaryDirectory() as folder:
        make_input(Path(folder) / "T1.nii.gz")
        node = slicer.util.loadVolume(str(Path(folder) / "T1.nii.gz"), properties={"show": False})
    kept = Worker(keepSeconds=60)
    run_once(node, kept)
    fresh, second = [], []
    for _ in range(values.runs):  # in turn, so that a drifting machine does not favour one of them
        fresh.append(run_once(node, None))
        second.append(run_once(node, kept))
    kept.stop()
    code = OPEN_PANEL.format(harness=str(ROOT / "Testing" / "harness"), module=str(ROOT / "IMTTranslate" / "IMTTranslate.py"))
    opened = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    ).stdout
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"240×240×155 voxels, model T1-T2, medians of {values.runs} runs; {machine}.\n")
    print("| part | new process (s) | kept model (s) | ratio |\n| --- | --- | --- | --- |")
    for part in fresh[0]:
        first, later = (statistics.median(run[part] for run in runs) for runs in (fresh, second))
        print(f"| {part} | {first:.2f} | {later:.2f} | {first / later if later > 0.005 else float('nan'):.1f} |")
    seconds, modules = re.search(r"OPENED ([\d.]+) (\[.*\])", opened).groups()
    print(f"\nOpening the panel took {float(seconds):.2f} s and imported of torch, SimpleITK, nibabel and scipy: {modules}.")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # VTK and Python take each other down in no certain order
