"""Start the same command twice at once, with one output and one cache: both end right, or one says clearly why it does not.

    python Testing/Hardening/together.py --runs 3 [--only register]

Exit code 1 if a file is not whole, differs from that of a run alone, or a message is not clear.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for module in ("IMTTranslate", "IMTRegister", "IMTSegment", "Testing/Hardening"):
    sys.path.insert(0, str(ROOT / module))

from home import make_home
from kill import RUN_SECONDS, Reference, files_of
from kill_scenarios import problem_of, scenarios

CHOSEN = ("translate, volume", "translate, cases", "segment, cases", "register", "pipeline", "import of a package")


def run_twice(reference: Reference, folder: Path) -> tuple[list[int], list[str]]:
    """Two runs at once into one folder; their exit codes, and what is wrong."""
    out = folder / "out"
    processes = [reference.start(out, folder / f"tmp{n}") for n in (1, 2)]
    said = [process.communicate(timeout=RUN_SECONDS)[0].decode("utf-8", "replace") for process in processes]
    codes = [process.returncode for process in processes]
    faults = [problem for path in files_of(out) if (problem := problem_of(path, reference.scenario))] + reference.differences(out)
    if 0 not in codes:
        faults.append(f"both failed: {said[0][-300:]} | {said[1][-300:]}")
    for code, text in zip(codes, said, strict=True):
        if code and (code not in (1, 2, 3) or "Traceback" in text or "Internal error" in text or "imt: " not in text):
            faults.append(f"exit code {code}: {text[-400:]}")
    if left := [path.name for path in out.rglob(".imt-*")]:
        faults.append(f"temporary files are left: {left[:3]}")
    return codes, faults


def main() -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="pairs of each command (default 3)")
    parser.add_argument("--only", action="append", metavar="SCENARIO", choices=CHOSEN)
    values = parser.parse_args()
    lines, any_fault = ["| command | pairs | both right | one refused | faults |", "| --- | --: | --: | --: | --: |"], False
    with tempfile.TemporaryDirectory(prefix="imt-together-") as name:
        home = make_home(Path(name) / "home")
        for number, key in enumerate(values.only or CHOSEN):
            reference = Reference(key, scenarios(home)[key], Path(name) / f"s{number}", home)
            results = [run_twice(reference, Path(name) / f"s{number}" / f"run{run}") for run in range(values.runs)]
            for codes, faults in results:
                if faults:
                    print(f"FAULT {key} {codes}: {'; '.join(faults)}", flush=True)
            both = sum(codes == [0, 0] for codes, _ in results)
            bad = sum(bool(faults) for _, faults in results)
            any_fault = any_fault or bool(bad)
            lines.append(f"| {key} | {values.runs} | {both} | {values.runs - both} | {bad} |")
    print("\n".join(lines))
    return int(any_fault)


if __name__ == "__main__":
    sys.exit(main())
