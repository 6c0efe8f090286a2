"""Claims on many cases side by side through Dask: the same results, a killed worker, an interrupt."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import head_file
from deadly_work import kill_own_worker
from test_command import PYTHONPATH, child

from IMTCommand import dask_cluster
from IMTCommand.cohort import Cohort
from IMTCore.cases import Case
from IMTCore.errors import SomeCasesFailed

pytestmark = pytest.mark.slow  # a cluster takes seconds to start
needs_signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def column(folder: Path, name: str) -> dict[str, str]:
    with open(folder / "summary.csv", newline="", encoding="utf-8") as stream:
        return {row["case"]: row[name] for row in csv.DictReader(stream)}


def list_of(folder: Path, count: int) -> Path:
    """A list of so many cases, all of one image."""
    head_file(folder / "T1.nii.gz")
    rows = [f"c{n:03},c,{n},T1,T1.nii.gz" for n in range(count)]
    (folder / "list.csv").write_text("case,subject,session,modality,path\n" + "\n".join(rows), encoding="utf-8")
    return folder / "list.csv"


def test_a_local_dask_cluster_does_the_pipeline(model, tmp_path):
    arguments = ("--output", tmp_path / "out", "--translate", model, "--no-modality-check", "--device", "cpu", "--workers", 1)
    run = child("pipeline", list_of(tmp_path, 3), *arguments, "--progress", "json")
    assert run.code == 0 and "Traceback" not in run.err, run.err
    assert set(column(tmp_path / "out", "translate").values()) == {"done"}
    assert len(list((tmp_path / "out").glob("sub-c/ses-*/anat/*_desc-synthetic_T2w.nii.gz"))) == 3
    assert (tmp_path / "out" / "report.html").exists()


@needs_signals
def test_a_killed_worker_fails_its_case_alone(tmp_path, monkeypatch):
    # On a busy machine a worker is slow to come back, and Dask forgets it: here at once.
    monkeypatch.setitem(dask_cluster.SETTINGS, "distributed.deploy.lost-worker-timeout", "100ms")
    monkeypatch.setattr(dask_cluster, "LOOK_S", 1.0)
    cases = [Case(name, name, "", "T1", tmp_path / "x.nii.gz") for name in ("ann", "deadly", "eve")]
    jobs = [SimpleNamespace(case=case, output=tmp_path / case.case) for case in cases]
    with pytest.raises(SomeCasesFailed, match="2 done, 0 finished before, 1 failed"):
        Cohort(tmp_path, kill_own_worker, "done", {}, workers=1).run(jobs, lambda *_: None, lambda *_: None)
    assert column(tmp_path, "state") == {"ann": "done", "deadly": "failed", "eve": "done"}
    message = column(tmp_path, "message")["deadly"]
    assert "was killed" in message and "--workers" in message


@needs_signals
def test_an_interrupt_of_a_cluster_prints_one_line(model, tmp_path):
    """As a terminal does it: the signal goes to all processes, those of the workers too."""
    arguments = ("--output", tmp_path / "out", "--translate", model, "--no-modality-check", "--device", "cpu", "--workers", 1)
    command = [sys.executable, "-m", "IMTCommand", *map(str, ("pipeline", list_of(tmp_path, 400), *arguments))]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    stop = time.monotonic() + 120
    while time.monotonic() < stop and process.poll() is None and not list((tmp_path / "out").glob("sub-*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1 and "Cancelled after" in lines[0] and "run the same command again" in lines[0], said
    assert "running" not in column(tmp_path / "out", "state").values()
