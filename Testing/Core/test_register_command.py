"""Claims on `imt register`: what it writes and tells, what it refuses, and many cases with resume."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packages import write_tiny_package
from test_registration import CODES, Cohort, mean_dice, needs, write_cohort

from IMTCommand.__main__ import main
from IMTCore.volume_io import read_volume, write_volume

pytestmark = needs("greedy")


@pytest.fixture(scope="module")
def cohort(icbm152, tmp_path_factory) -> Cohort:
    """One atlas suffices for the command."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), icbm152, atlases=1, downsample=6)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def imt(capfd, cache) -> Callable[..., tuple[int, str, str]]:
    """Call `imt register` in this process; gives exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        kept = [] if "--cache" in arguments else ["--cache", cache]
        code = main(["register", *map(str, [*arguments, *kept, "--jobs", 1, "--threads", 1])])
        return code, *capfd.readouterr()

    return call


def refusal(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    got, out, err = result
    lines = err.strip().splitlines()
    assert got == code, err
    assert len(lines) == 1 and lines[0].startswith("imt: ") and "Internal error" not in lines[0], err
    for word in words:
        assert word in lines[0], (word, lines[0])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- one subject


def test_a_subject_gets_labels_in_one_command(imt, cohort, tmp_path):
    arguments = ("--modality", "T2", "--translate-to", "T1", "--second-image", cohort.second, "--atlases", cohort.atlases)
    outputs = ("--output-labels", tmp_path / "labels.nrrd", "--report", tmp_path / "report.json", "--progress", "json")
    code, out, err = imt(cohort.subject, *arguments, *outputs)
    assert code == 0, err
    assert "one atlas only" in err
    lines = [json.loads(line) for line in out.splitlines()]
    stages = [line["stage"] for line in lines]
    assert stages[-1] == "done" and "1 of 1 atlases" in lines[-1]["message"]
    register = [line for line in lines if line["stage"] == "register"]
    assert [line["fraction"] for line in register] == sorted(line["fraction"] for line in register)
    assert register[-1]["fraction"] == 1 and any("atlas head1: linear" in line["message"] for line in register)
    labels = read_volume(tmp_path / "labels.nrrd").array
    assert set(np.unique(labels)) == {0, *CODES} and mean_dice(labels, cohort.truth) > 0.6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.json", "labels.nrrd", "labels_labels.csv", "report.json"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["weight"] == "auto" and report["seconds"]["total"] > 0
    assert report["versions"]["greedy"].startswith("picsl_greedy")


def test_weights_by_structure_come_from_a_file(imt, cohort, tmp_path):
    (tmp_path / "w.json").write_text('{"default": 0.5, "weights": {"grey": 0.2, "3": 0.9}}')
    arguments = ("--modality", "T2", "--translate-to", "T1", "--second-image", cohort.second, "--atlases", cohort.atlases)
    code, _, err = imt(
        cohort.subject, *arguments, "--weight", tmp_path / "w.json", "--output-labels", tmp_path / "l.nii.gz", "--report", tmp_path / "r.json"
    )
    assert code == 0, err
    weights = json.loads((tmp_path / "r.json").read_text())["weights"]
    assert weights == {"background": 0.5, "structures": {"csf": 0.5, "grey": 0.2, "white": 0.9}}


BASE = ("{subject}", "--modality", "T2", "--atlases", "{atlases}", "--output-labels", "{tmp}/out.nii.gz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--modality", "PD"), ("head1", "PD", "T2")),
        (("--translate-to", "T2"), ("second modality is the given one",)),
        (("--translate-to", "T1", "--fusion", "none"), ("alone",)),
        (("--fusion", "mean"), ("second modality",)),
        (("--modality", "T1", "--translate-to", "T2", "--model", "T2-T1"), ("does not translate T1 to T2", "translate")),
        (("--translate-to", "T1", "--second-image", "{tmp}/none.nii"), ("none.nii", "does not exist")),
        (("--translate-to", "T1", "--second-image", "{second}", "--weight", "2"), ("from 0 to 1",)),
        (("--translate-to", "T1", "--second-image", "{second}", "--weight", "{tmp}/bad.json"), ("bad.json", "no structure", "hippocampus", "grey")),
        (("--translate-to", "T1", "--second-image", "{second}", "--weight", "{tmp}/part.json"), ("part.json", "white", "default")),
        (("--structures", "hippocampus"), ("hippocampus", "grey")),
        (("--atlases", "{tmp}/none"), ("none",)),
        (("--output-labels", "{subject}"), ("input", "choose another")),
        (("--output-labels", "{atlases}/head1/labels.nii.gz"), ("input", "choose another")),
        (("--output-labels", "{tmp}/scan.nii.gz"), ("scan.json", "not a mark")),
        (("--output-labels", "{tmp}/out.jpg"), ("out.jpg", ".nii.gz")),
        (("--report", "{tmp}/out.json"), ("out.json", "another")),
        (("--output-translated", "{tmp}/t.nii.gz"), ("Nothing is translated",)),
        (("--memory-gb", "0.01"), ("needs about", "GB", "--memory-gb")),
        (("--mask", "{tmp}/mask.nii"), ("mask.nii", "does not exist")),
        (("--mask", "{tmp}/other.nii.gz"), ("other.nii.gz", "another grid")),
        (("--workers", "2"), ("--workers", "many cases")),
        (("--engine", "spm"), ("spm", "See: imt register --help")),
        (("--jobs", "many"), ("--jobs", "See: imt register --help")),
    ],
    ids=lambda v: " ".join(v) if v and v[0].startswith("--") else None,
)
def test_what_cannot_work_is_refused_in_one_line_and_changes_nothing(imt, cohort, tmp_path, arguments, words):
    (tmp_path / "bad.json").write_text('{"weights": {"hippocampus": 0.5}}')
    (tmp_path / "part.json").write_text('{"weights": {"grey": 0.5, "csf": 0.5}}')
    (tmp_path / "scan.json").write_text('{"RepetitionTime": 2.3}')
    volume = read_volume(cohort.subject)
    write_volume(tmp_path / "other.nii.gz", volume.with_array((volume.array > 0).astype(np.uint8)))
    shifted = read_volume(tmp_path / "other.nii.gz")
    write_volume(tmp_path / "other.nii.gz", type(volume)(shifted.array[:-1], replace_shape(shifted.geometry)))
    before, set_before = snapshot(tmp_path), snapshot(cohort.folder)
    names = {"tmp": tmp_path, "subject": cohort.subject, "second": cohort.second, "atlases": cohort.atlases}
    refusal(imt(*(text.format(**names) for text in (*BASE, *arguments))), *words)
    assert snapshot(tmp_path) == before and snapshot(cohort.folder) == set_before


def replace_shape(geometry):
    from IMTCore.volume import Geometry

    k, j, i = geometry.shape
    return Geometry((k - 1, j, i), geometry.spacing_mm, geometry.origin_lps, geometry.direction)


def test_no_model_for_the_pair_lists_those_there_are(imt, cohort, tmp_path, monkeypatch):
    models = tmp_path / "models"
    write_tiny_package(models, name="T1-T2")
    monkeypatch.setenv("IMT_MODELS", str(models))
    out = tmp_path / "l.nii.gz"
    (tmp_path / "set").mkdir()
    for atlas in cohort.atlases.glob("head*"):
        shutil.copytree(atlas, tmp_path / "set" / atlas.name)
        shutil.copy(atlas / "T1.nii.gz", tmp_path / "set" / atlas.name / "SWI.nii.gz")
    result = imt(cohort.subject, "--modality", "T2", "--translate-to", "SWI", "--atlases", tmp_path / "set", "--output-labels", out)
    refusal(result, "No model translates T2 to SWI", "T1 to T2", "--second-image")


def test_a_missing_engine_says_how_to_install_it(imt, cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("IMT_ENGINES", str(tmp_path))
    result = imt(cohort.subject, "--modality", "T2", "--atlases", cohort.atlases, "--output-labels", tmp_path / "l.nii.gz")
    refusal(result, "not installed", "package_folders install", code=1)


def test_labels_on_another_grid_are_refused_before_any_work(imt, cohort, tmp_path):
    atlases = Path(shutil.copytree(cohort.atlases, tmp_path / "set"))
    labels = read_volume(atlases / "head1" / "labels.nii.gz")
    write_volume(atlases / "head1" / "labels.nii.gz", type(labels)(labels.array[:-1], replace_shape(labels.geometry)))
    result = imt(cohort.subject, "--modality", "T2", "--atlases", atlases, "--output-labels", tmp_path / "l.nii.gz")
    refusal(result, "head1", "labels", "grid")


# ---------------------------------------------------------------- cases


def case_folder(cohort: Cohort, folder: Path) -> Path:
    """Two good cases and one damaged one."""
    for name in ("ann", "bob", "eve"):
        for file in (cohort.subject, cohort.second):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / name / file.name)
    volume = read_volume(cohort.subject)
    write_volume(folder / "bob" / "T2.nii.gz", volume.with_array(volume.array * np.float32(1.5)))
    (folder / "eve" / "T2.nii.gz").write_bytes(b"no image")
    return folder


def summary(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "summary.csv", newline="", encoding="utf-8") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def cases(cohort, tmp_path_factory) -> Path:
    return case_folder(cohort, tmp_path_factory.mktemp("cases"))


def test_cases_are_registered_one_by_one_and_skipped_when_finished(imt, cohort, cases, tmp_path):
    out = tmp_path / "out"
    arguments = ("--modality", "T2", "--atlases", cohort.atlases, "--output-labels", out, "--output-agreement", "agreement.nii.gz")
    code, _, err = imt(cases, *arguments)
    assert code == 3 and "2 registered, 0 finished before, 1 failed" in err
    rows = summary(out)
    assert [rows[name]["state"] for name in ("ann", "bob", "eve")] == ["done", "done", "failed"]
    assert rows["ann"]["atlases"] == "1" and "not a readable image" in rows["eve"]["message"]
    assert sorted(p.name for p in (out / "ann").iterdir()) == [
        "agreement.json", "agreement.nii.gz", "labels.json", "labels.nii.gz", "labels_labels.csv"
    ]  # fmt: skip
    assert not (out / "eve").exists()
    code, _, err = imt(cases, *arguments)
    assert "0 registered, 2 finished before, 1 failed" in err
    assert summary(out)["ann"]["state"] == "skipped"
    code, _, err = imt(cases, *arguments, "--seed", 3, "--structures", "grey")
    assert "2 registered" in err, "other settings are other results"
    (out / "bob" / "labels.nii.gz").write_bytes(b"half")
    code, _, err = imt(cases, *arguments, "--seed", 3, "--structures", "grey")
    assert "1 registered, 1 finished before" in err
    for name in ("ann", "bob"):
        (out / name / "report.json").write_text('{"identity": "of a run before"}')
    code, _, err = imt(cases, *arguments, "--seed", 3, "--structures", "grey", "--report", "report.json")
    assert "2 registered, 0 finished before" in err


def test_labels_without_a_mark_are_not_replaced(imt, cohort, cases, tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "labels.nii.gz").write_bytes(b"drawn by hand")
    code, _, _ = imt(cases, "--modality", "T2", "--atlases", cohort.atlases, "--output-labels", tmp_path)
    assert code == 3
    assert "somebody's work" in summary(tmp_path)["ann"]["message"]
    assert (tmp_path / "ann" / "labels.nii.gz").read_bytes() == b"drawn by hand"


def test_outputs_of_cases_are_plain_names(imt, cohort, cases, tmp_path):
    arguments = ("--modality", "T2", "--atlases", cohort.atlases, "--output-labels", tmp_path / "out")
    refusal(imt(cases, *arguments, "--output-transforms", tmp_path / "t"), "--output-transforms", "plain name")
    refusal(imt(cases, *arguments, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1"), "not both")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_local_dask_cluster_registers_the_cases(imt, cohort, cases, tmp_path):
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    arguments = ("--modality", "T2", "--translate-to", "T1", "--second-image", "T1.nii.gz", "--atlases", cohort.atlases)
    code, _, err = imt(cases, *arguments, "--output-labels", tmp_path, "--workers", 1)
    assert code == 3 and "2 registered, 0 finished before, 1 failed" in err, err
    assert {name: row["state"] for name, row in summary(tmp_path).items()} == {"ann": "done", "bob": "done", "eve": "failed"}
    mark = json.loads((tmp_path / "ann" / "labels.json").read_text())
    assert mark["settings"]["fusion"] == "mean" and mark["settings"]["second_image"] is True
