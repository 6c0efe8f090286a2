"""Kill IMT's commands with SIGKILL at random moments, and look at what is left.

    python Testing/Hardening/kill.py --runs 60 --seed 1 [--only "translate, cases"]

After each kill: no file under a final name is half-written, inputs are as they were, no process is left; the same command
again ends well, gives what an undisturbed run gives, and leaves no temporary file. Exit code 1 if any of it fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for module in ("IMTTranslate", "IMTRegister", "IMTSegment", "Testing/Hardening"):
    sys.path.insert(0, str(ROOT / module))

import numpy as np
from home import Home, make_home
from kill_scenarios import Scenario, child_environment, digest_of, problem_of, scenarios

from IMTCore.files import sha256_of

ORPHAN_SECONDS = 5.0
POLL_SECONDS = 0.002
RUN_SECONDS = 600


@dataclass
class Kill:
    """What came of one kill: `reached` is killed, or ended if the command was quicker; `faults` what is wrong."""

    scenario: str
    moment: str
    reached: str
    faults: list[str]
    temporary: int = 0


class Reference:
    """An undisturbed run of a scenario: its time and its outputs."""

    def __init__(self, name: str, scenario: Scenario, folder: Path, home: Home) -> None:
        self.name, self.scenario, self.home = name, scenario, home
        self.given = folder / "given"
        self.given.mkdir(parents=True)
        scenario.prepare(self.given, home)
        self.inputs = _hashes(self.given)
        start = time.perf_counter()
        out = folder / "reference"
        self.finish(out, folder / "tmp-reference")
        self.seconds = time.perf_counter() - start
        self.files = files_of(out)
        self.outputs = {path.relative_to(out).as_posix(): digest_of(path, scenario) for path in self.files}

    def start(self, out: Path, temporary: Path, token: str = "none") -> subprocess.Popen:
        """Start the command."""
        for folder in (out, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        environment = child_environment(out, temporary, token) | self.scenario.environment(out)
        command = self.scenario.command(self.given, out)
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)

    def finish(self, out: Path, temporary: Path) -> None:
        """Run the command to its end. Raises RuntimeError if it fails."""
        process = self.start(out, temporary)
        said = process.communicate(timeout=RUN_SECONDS)[0].decode("utf-8", "replace")
        if process.returncode:
            raise RuntimeError(f"{self.name} failed ({process.returncode}): {said[-800:]}")

    def kill_once(self, rng: np.random.Generator, folder: Path) -> Kill:
        """Run, kill, look, run again, compare."""
        out, temporary, token = folder / "out", folder / "tmp", uuid.uuid4().hex
        process = self.start(out, temporary, token)
        moment = self._wait(rng, process, out)
        with_children = process.poll() is None
        process.kill()
        process.communicate()
        found = Kill(self.name, moment, "killed" if with_children and process.returncode == -signal.SIGKILL else "ended", [])
        if orphans := _orphans(token):
            found.faults.append(f"processes are left: {orphans}")
        found.faults += [problem for path in files_of(out) if (problem := problem_of(path, self.scenario))]
        self._check_inputs(found)
        try:
            self.finish(out, temporary)
            found.faults += self.differences(out)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            found.faults.append(str(error))
        self._check_inputs(found)
        if left := [path.name for path in out.rglob(".imt-*")]:
            found.faults.append(f"temporary files are left in the output folder: {left[:3]}")
        found.temporary = sum(path.is_file() for path in temporary.rglob("*"))
        return found

    def _wait(self, rng: np.random.Generator, process: subprocess.Popen, out: Path) -> str:
        """Wait for the moment to kill: some time after the start, or just after a new file has appeared."""
        start = time.perf_counter()
        if rng.random() < 0.4:
            until = start + rng.uniform(0.3, 1.0) * self.seconds
            while time.perf_counter() < until and process.poll() is None:
                time.sleep(POLL_SECONDS)
            return "time"
        number, pause = int(rng.integers(1, len(self.files) + 2)), rng.exponential(0.004)
        seen: set[str] = set()
        while len(seen) < number and process.poll() is None:
            seen |= {entry for _, _, names in os.walk(out) for entry in names}
            time.sleep(POLL_SECONDS)
        time.sleep(pause)
        return "write"

    def differences(self, out: Path) -> list[str]:
        """How the files in `out` differ from those of the undisturbed run."""
        files = files_of(out)
        here = {path.relative_to(out).as_posix(): digest_of(path, self.scenario) for path in files}
        names = sorted(here.keys() | self.outputs.keys())
        words = {(False, True): "is missing, and is there after", (True, False): "is not there after", (True, True): "differs from that of"}
        return [
            f"{name} {words[name in here, name in self.outputs]} an undisturbed run" for name in names if here.get(name) != self.outputs.get(name)
        ]

    def _check_inputs(self, found: Kill) -> None:
        if _hashes(self.given) != self.inputs:
            found.faults.append("an input was changed")


def files_of(out: Path) -> list[Path]:
    """The files under final names."""
    return sorted(path for path in out.rglob("*") if path.is_file() and not any(part.startswith(".imt-") for part in path.parts))


def _hashes(folder: Path) -> dict[str, str]:
    return {path.as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _orphans(token: str) -> list[int]:
    """The processes that still carry the token after a while."""
    until = time.monotonic() + ORPHAN_SECONDS
    while True:
        left = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if _carries(path, token)]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


def _carries(path: Path, token: str) -> bool:
    try:
        return token.encode() in path.read_bytes()
    except OSError:
        return False


def main() -> int:
    """Kill, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60, metavar="N", help="kills over all scenarios (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="may be given several times")
    values = parser.parse_args()
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory(prefix="imt-kill-") as name:
        home = make_home(Path(name) / "home")
        chosen = {key: one for key, one in scenarios(home).items() if not values.only or key in values.only}
        for number, (key, scenario) in enumerate(chosen.items()):
            try:
                reference = Reference(key, scenario, Path(name) / f"s{number}", home)
            except RuntimeError as error:
                kills.append(Kill(key, "none", "not started", [str(error)]))
                print(f"FAULT {error}", flush=True)
                continue
            print(f"{key}: {len(reference.files)} files in {reference.seconds:.1f} s", flush=True)
            for run in range(-(-values.runs // len(chosen))):
                rng = np.random.default_rng([values.seed, number, run])
                kills.append(reference.kill_once(rng, Path(name) / f"s{number}" / f"run{run}"))
                for fault in kills[-1].faults:
                    print(f"FAULT {key}, run {run} ({kills[-1].moment}): {fault}", flush=True)
                shutil.rmtree(Path(name) / f"s{number}" / f"run{run}", ignore_errors=True)
    print(table(kills))
    return int(any(kill.faults for kill in kills))


def table(kills: list[Kill]) -> str:
    """Counts by scenario, as Markdown."""
    counts = Counter((kill.scenario, key) for kill in kills for key in (kill.reached, kill.moment, *(["fault"] if kill.faults else [])))
    lines = ["| command | kills | while writing | ended before | faults | files left in the system's temporary folder |"]
    lines.append("| --- | --: | --: | --: | --: | --: |")
    for name in dict.fromkeys(kill.scenario for kill in kills):
        mine = [kill for kill in kills if kill.scenario == name]
        numbers = counts[name, "killed"], sum(kill.moment == "write" and kill.reached == "killed" for kill in mine), counts[name, "ended"]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} | {counts[name, 'fault']} | {sum(kill.temporary for kill in mine)} |")
    killed = sum(kill.reached == "killed" for kill in kills)
    lines.append(f"\n{killed} kills, {sum(bool(kill.faults) for kill in kills)} with a fault")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
