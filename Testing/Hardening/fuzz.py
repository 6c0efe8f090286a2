"""Give hostile inputs and models to IMT's commands, and count what comes of them.

    python Testing/Hardening/fuzz.py --inputs 1000 --models 200 --seed 1
    python Testing/Hardening/fuzz.py --only "volume, bomb" --number 17 --seed 1 --keep FOLDER    # one case again

Each case runs in a child process with limits on time and memory. Exit code 1 if there was any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: forked processes cannot use its threads
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
ROOT = Path(__file__).resolve().parents[2]
for module in ("IMTTranslate", "IMTRegister", "IMTSegment", "Testing/Hardening"):
    sys.path.insert(0, str(ROOT / module))

from commands import INPUT_SHARES, MODEL_SHARES, make_case
from home import make_home
from sandbox import Verdict, judge, run_cases

RESULTS = ("refused", "accepted", "fault")


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, metavar="N", help="hostile inputs (default 1000)")
    parser.add_argument("--models", type=int, default=200, metavar="N", help="hostile models (default 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--only", metavar="KIND", help="cases of one kind alone")
    parser.add_argument("--number", type=int, metavar="N", help="with --only: this case alone, in this process")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="with --number: where to leave the case's files")
    parser.add_argument("--report", type=Path, metavar="JSON", help="write all verdicts to a file")
    values = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imt-fuzz-") as name:
        work = Path(name)
        home = make_home(work / "home")
        make = partial(make_case, home, values.seed)
        if values.number is not None:
            verdict = judge(make, values.only, values.number, values.keep or work / "case")
            print(f"{verdict.result} in {verdict.seconds} s, memory +{verdict.growth_mb:.0f} MB: {verdict.text}")
            return int(verdict.result == "fault")
        jobs = draw_jobs(values.inputs, values.models, values.only)
        start = time.perf_counter()
        verdicts = []
        for verdict in run_cases(make, jobs, work, values.workers):
            verdicts.append(verdict)
            if verdict.result == "fault":
                print(f"FAULT {verdict.kind} {verdict.number}: {verdict.text}", flush=True)
            shutil.rmtree(work / "case", ignore_errors=True)
        if values.report:
            values.report.write_text(json.dumps([vars(verdict) for verdict in verdicts], indent=1))
    print(table(verdicts))
    print(f"\n{len(verdicts)} cases in {time.perf_counter() - start:.0f} s, seed {values.seed}")
    return int(any(verdict.result == "fault" for verdict in verdicts))


def draw_jobs(inputs: int, models: int, only: str | None = None) -> list[tuple[str, int]]:
    """(kind, number) of the cases: each kind has its share of the inputs or of the models."""
    jobs = []
    for count, shares in ((inputs, INPUT_SHARES), (models, MODEL_SHARES)):
        if only is not None:
            shares = {kind: share for kind, share in shares.items() if kind == only}
        total = sum(shares.values())
        for kind, share in shares.items():
            jobs += [(kind, number) for number in range(-(-count * share // total))]
    return jobs


def table(verdicts: list[Verdict]) -> str:
    """Counts by kind and verdict, as Markdown."""
    counts = Counter((verdict.kind, verdict.result) for verdict in verdicts)
    lines = ["| kind | cases | refused | accepted | faults | most computing, s | most memory, MB |", "| --- | --: | --: | --: | --: | --: | --: |"]
    for kind in [*INPUT_SHARES, *MODEL_SHARES, "all"]:
        mine = [verdict for verdict in verdicts if kind in (verdict.kind, "all")]
        if mine:
            numbers = [len(mine), *(sum(counts[verdict, result] for verdict in {v.kind for v in mine}) for result in RESULTS)]
            worst = max(v.seconds for v in mine), max(v.growth_mb for v in mine)
            lines.append(f"| {kind} | {' | '.join(map(str, numbers))} | {worst[0]:.1f} | {worst[1]:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
