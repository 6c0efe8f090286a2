"""The tables: simulated pairs in, every method trained, packaged, translated and scored, and a table out; done once only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from IMTCore.volume_io import read_volume

TRAINING = Path(__file__).resolve().parents[2] / "Resources" / "Training"
METHODS = {
    "table": {"kind": "table"},
    "RF": {"kind": "forest", "spacing_mm": 8, "trees": 4, "voxels_per_subject": 500},
    "L1": {"kind": "network", "filters": 4, "depth": 4, "size": 32, "adversarial": 0, "learning_rate": 0.002},
    "RF + L1": {"kind": "mean", "of": ["RF", "L1"]},
}
PLAN = {
    "about": "For tests.", "budget_s": 2, "folds": 2, "seed": 0, "common": {"checkpoint_every": 10000},
    "tasks": [{"dataset": "simulated", "source": "PD", "target": "T2"}], "methods": METHODS,
}  # fmt: skip


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TRAINING / name), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", timeout=240)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four simulated subjects with PD and T2, at 8 mm."""
    folder = tmp_path_factory.mktemp("data")
    ended = script("simulate_pairs.py", "--subjects", 4, "--downsample", 8, "--lesions", 0, "--output", folder)
    assert ended.returncode == 0, ended.stdout
    return folder


def test_simulated_subjects_differ_and_their_modalities_share_a_grid(data: Path) -> None:
    subjects = sorted((data / "simulated").iterdir())
    assert len(subjects) == 4
    images = [read_volume(subject / "T2.nii.gz") for subject in subjects]
    assert all(np.abs(images[0].array - other.array).max() > 50 for other in images[1:])
    for subject, image in zip(subjects, images, strict=True):
        assert read_volume(subject / "PD.nii.gz").geometry.is_close(image.geometry, 1e-5)
        assert json.loads((subject / "simulation.json").read_text(encoding="utf-8"))["simulated"] is True


def test_a_plan_is_trained_scored_and_shown_and_nothing_is_done_twice(data: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN), encoding="utf-8")
    run = ["--config", tmp_path / "plan.json", "--data", data, "--output", tmp_path / "out", "--jobs", 2]
    ended = script("run_tables.py", *run)
    assert ended.returncode == 0, ended.stdout
    assert "8 fits, 0 finished before" in ended.stdout
    fits = sorted((tmp_path / "out").glob("*/fold*/*/scores.json"))
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in fits]
    assert len(reports) == 8
    for report in reports:
        assert len(report["test"]) == 2 and not set(report["test"]) & set(report["train"])
    tested = {name for report in reports for name in report["test"]}
    assert tested == {f"simulated/template{n:02d}" for n in range(1, 5)}  # each subject once a method
    again = script("run_tables.py", *run)
    assert again.returncode == 0 and "8 fits, 8 finished before" in again.stdout
    shown = script("show_tables.py", "--tables", tmp_path / "out", "--pair", "RF", "table")
    assert shown.returncode == 0, shown.stdout
    assert "### PD → T2 (simulated, 4 subjects)" in shown.stdout
    rows = [line.split(" | ")[0].strip("| ") for line in shown.stdout.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["table", "RF", "L1", "RF + L1"]
    assert "RF minus table: MAE (0-255)" in shown.stdout
    of_two = {report["method"]: report["rows"][0]["mae"] for report in reports if report["test"] == reports[0]["test"]}
    assert of_two["RF + L1"] <= (of_two["RF"] + of_two["L1"]) / 2 + 1e-3  # the error of a mean is at most the mean error
    row = {line.split(" | ")[0].strip("| "): line for line in shown.stdout.splitlines() if line.startswith("| ")}
    assert "24.006" in row["RF"] and "29.089" in row["L1"]  # the paper's PSNR of ADNI, each in its method's row
    assert row["table"].endswith("|  |  |  |")  # of which the paper has none


def test_a_plan_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**PLAN, "budget": 3}), encoding="utf-8")
    ended = script("run_tables.py", "--config", tmp_path / "plan.json", "--data", tmp_path, "--output", tmp_path / "out")
    assert ended.returncode == 1 and "must have exactly the keys" in ended.stdout and not (tmp_path / "out").exists()


def test_too_few_subjects_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**PLAN, "folds": 9}), encoding="utf-8")
    ended = script("run_tables.py", "--config", tmp_path / "plan.json", "--data", data, "--output", tmp_path / "out")
    assert ended.returncode == 1 and "4 subjects cannot be split into 9 folds" in ended.stdout
