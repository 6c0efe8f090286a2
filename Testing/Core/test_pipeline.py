"""Claims on `imt pipeline`: what it writes and under which names, what it refuses, and that a stop at any moment loses nothing."""

from __future__ import annotations

import csv
import fnmatch
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from labelled_heads import write_heads
from packages import write_tiny_package
from test_command import Nursery, Run, needs_fork, sha256
from test_registration import needs, write_cohort
from tiny_segmenters import write_tiny_segmenter

from IMTCommand import pipeline_locks
from IMTCommand.__main__ import main
from IMTCommand.pipeline_locks import gpu_turn, only_run, temporary_place
from IMTCommand.pipeline_names import case_files
from IMTCore.bids import parse_name
from IMTCore.cards import read_card
from IMTCore.cases import Case, companions, read_cases
from IMTCore.errors import BadInput
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume

# After the specification's entity table for anatomical images and its derivatives; "+" is allowed in labels since 1.10.
BIDS_NAME = re.compile(
    r"(sub-[0-9A-Za-z+]+)/(?:(ses-[0-9A-Za-z+]+)/)?anat/\1(?(2)_\2)(_acq-[0-9A-Za-z+]+)?(_ce-[0-9A-Za-z+]+)?(_rec-[0-9A-Za-z+]+)?(_run-[0-9]+)?"
    r"(_space-[0-9A-Za-z+]+)?(_desc-[0-9A-Za-z+]+)_(T1w|T2w|PDw|FLAIR|dseg|probseg)\.(nii\.gz|json|tsv)"
)
COLUMNS = ["case", "subject", "session", "modality", "state", "translate", "register", "segment", "evaluate", "seconds", "message"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> SimpleNamespace:
    """Tiny models: two that translate, one that segments T1 with its FLAIR translation; not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    flair = write_tiny_package(folder, name="T1-FLAIR-tiny", target="FLAIR")
    t2 = write_tiny_package(folder, seed=1, name="T1-T2-tiny")
    of_t2 = write_tiny_package(folder, seed=2, name="T2-T1-tiny", source="T2", target="T1")
    channels, second = ("given", "second"), {"modality": "FLAIR", "translator": {"name": "T1-FLAIR-tiny", "sha256": read_card(flair).sha256}}
    tissue = write_tiny_segmenter(folder / "segmenters", name="tissue-tiny", channels=channels, second=second).path
    return SimpleNamespace(folder=folder, flair=flair, t2=t2, of_t2=of_t2, tissue=tissue)


@pytest.fixture(autouse=True)
def users_models(packages, monkeypatch) -> None:
    monkeypatch.setenv("IMT_MODELS", str(packages.folder))


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    """<case>/T1, FLAIR and tissues of three heads; not to be changed."""
    folder = tmp_path_factory.mktemp("heads")
    write_heads(folder, ("ann", "bob", "eve"))
    return folder


def as_bids(heads: Path, root: Path) -> Path:
    """The heads as a BIDS data set: ann plain, bob with session and acquisition, eve without the FLAIR."""
    for name, stem in (("ann", "sub-ann"), ("bob", "sub-bob_ses-02_acq-fast_run-1"), ("eve", "sub-eve")):
        folder = root.joinpath(*[part for part in stem.split("_") if part[:4] in ("sub-", "ses-")], "anat")
        folder.mkdir(parents=True)
        for modality, suffix in (("T1", "T1w"), ("FLAIR", "FLAIR")):
            if (name, modality) != ("eve", "FLAIR"):
                shutil.copy(heads / name / f"{modality}.nii.gz", folder / f"{stem}_{suffix}.nii.gz")
        shutil.copy(heads / name / "tissues.nii.gz", folder / "tissues.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "heads", "BIDSVersion": "1.8.0"}', encoding="utf-8")
    return root


@pytest.fixture
def cohort(heads, tmp_path) -> Path:
    return as_bids(heads, tmp_path / "in")


@pytest.fixture
def imt(capfd) -> Callable[..., Run]:
    """Call `imt pipeline` in this process."""

    def call(*arguments: object) -> Run:
        capfd.readouterr()
        code = main(["pipeline", *map(str, arguments)])
        return Run(code, *capfd.readouterr())

    return call


@pytest.fixture
def usual(packages) -> tuple[object, ...]:
    """Two translations, and a segmentation that takes one of them."""
    return ("--translate", packages.flair, packages.t2, "--segment", packages.tissue, "--no-modality-check", "--device", "cpu")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def states(folder: Path) -> dict[str, str]:
    return {row["case"]: row["state"] for row in rows_of(folder / "summary.csv")}


def files_in(folder: Path) -> dict[str, Path]:
    """All files, hidden ones too, by their names from the folder."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(_walk(folder)) if path.is_file()}


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder in which a run may be at work: one that vanishes meanwhile is passed over (rglob would fail)."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def results_in(folder: Path) -> dict[str, Path]:
    return {name: path for name, path in files_in(folder).items() if name.startswith("sub-")}


def inodes(paths: dict[str, Path]) -> dict[str, tuple[int, int]]:
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in paths.items()}


def mark_of(image: Path) -> dict:
    return json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))


# --- What is written -----------------------------------------------------------------------------------------------


def test_a_bids_cohort_becomes_a_bids_derivative(imt, cohort, usual, tmp_path):
    out = tmp_path / "out"
    run = imt(cohort, "--output", out, *usual, "--probabilities", "--evaluate", "--reference", "tissues.nii.gz")
    assert run.code == 0, run.err
    ignored = (out / ".bidsignore").read_text(encoding="utf-8").split()
    own = {"dataset_description.json", ".bidsignore"}
    of_bids = [
        name
        for name in files_in(out)
        if name not in own and not any(name.startswith(rule) or fnmatch.fnmatch(name, rule) for rule in ignored)
    ]
    assert of_bids and not [name for name in of_bids if not BIDS_NAME.fullmatch(name)]
    bob = "sub-bob/ses-02/anat/sub-bob_ses-02_acq-fast_run-1"
    made = ("synthetic_FLAIR.nii.gz", "synthetic_T2w.nii.gz", "tissue_dseg.nii.gz", "tissue_dseg.tsv", "tissue_probseg.nii.gz")
    assert {f"{bob}_desc-{name}" for name in made} <= set(of_bids)
    description = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "IMT"
    assert description["SourceDatasets"] == [{"URL": cohort.as_uri()}]
    mark = mark_of(out / f"{bob}_desc-synthetic_T2w.nii.gz")
    assert mark["synthetic"] is True and mark["Sources"] == [f"bids:source:{bob}_T1w.nii.gz"]
    mark = mark_of(out / f"{bob}_desc-tissue_dseg.nii.gz")
    assert mark["derived_from_synthetic"] is True and mark["Sources"][1] == f"bids::{bob}_desc-synthetic_FLAIR.nii.gz"
    table = (out / f"{bob}_desc-tissue_dseg.tsv").read_text(encoding="utf-8").splitlines()
    assert table[0].split("\t") == ["index", "name", "color"] and table[2].split("\t") == ["1", "CSF", "#3c64dc"]


def test_tables_tell_of_every_case(imt, cohort, usual, tmp_path):
    out = tmp_path / "out"
    assert imt(cohort, "--output", out, *usual, "--evaluate", "--reference", "tissues.nii.gz", "--progress", "json").code == 0
    summary = rows_of(out / "summary.csv")
    assert list(summary[0]) == COLUMNS
    assert [(row["case"], row["subject"], row["session"]) for row in summary] == [
        ("sub-ann", "ann", ""),
        ("sub-bob_ses-02_acq-fast_run-1", "bob", "02"),
        ("sub-eve", "eve", ""),
    ]
    for row in summary:
        assert {row[stage] for stage in ("state", "translate", "segment", "evaluate")} == {"done"} and row["register"] == ""
        assert float(row["seconds"]) > 0
    scores = {(row["case"], row["target"]) for row in rows_of(out / "image_scores.csv")}
    assert scores == {("sub-ann", "FLAIR"), ("sub-bob_ses-02_acq-fast_run-1", "FLAIR")}, "eve has no FLAIR, nobody a T2"
    assert {row["case"] for row in rows_of(out / "scores.csv")} == {row["case"] for row in summary}
    assert len(rows_of(out / "statistics.csv")) == 9
    log = (out / "logs" / "sub-eve.log").read_text(encoding="utf-8")
    assert "translate: done" in log and "No acquired FLAIR" in log


def test_results_are_those_of_the_single_commands(imt, heads, usual, packages, tmp_path, capfd):
    assert imt(heads, "--output", tmp_path / "out", *usual).code == 0
    translate = ("translate", heads / "ann" / "T1.nii.gz", "--model", packages.t2, "--output", tmp_path / "T2.nii.gz", "--no-modality-check")
    segment = ("segment", heads / "ann" / "T1.nii.gz", "--model", packages.tissue, "--output", tmp_path / "s.nii.gz", "--no-modality-check")
    for command in (translate, segment):
        assert main([str(word) for word in command]) == 0
    anat = tmp_path / "out" / "sub-ann" / "anat"
    for name, single in (("synthetic_T2w", "T2"), ("tissue_dseg", "s")):
        found, wanted = read_volume(anat / f"sub-ann_desc-{name}.nii.gz"), read_volume(tmp_path / f"{single}.nii.gz")
        assert np.array_equal(found.array, wanted.array) and found.geometry.is_close(wanted.geometry, 1e-6)
    capfd.readouterr()


def test_progress_is_told_in_lines_that_a_program_reads(imt, heads, packages, tmp_path):
    run = imt(heads, "--output", tmp_path / "out", "--translate", packages.flair, "--no-modality-check", "--progress", "json")
    lines = [json.loads(line) for line in run.out.splitlines()]
    assert all(set(line) == {"stage", "fraction", "message"} for line in lines) and lines[-1]["stage"] == "done"
    fractions = [line["fraction"] for line in lines if line["stage"] == "cases"]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_the_uncertainty_is_written_on_wish(imt, heads, packages, tmp_path):
    out = tmp_path / "out"
    assert imt(heads, "--output", out, "--translate", packages.t2, "--uncertainty", 2, "--no-modality-check").code == 0
    sd = read_volume(out / "sub-ann" / "anat" / "sub-ann_desc-uncertainty_T2w.nii.gz").array
    assert sd.max() > 0 and mark_of(out / "sub-ann" / "anat" / "sub-ann_desc-uncertainty_T2w.nii.gz")["samples"] == 2


def test_two_models_of_one_modality_get_names_of_their_own(imt, heads, packages, tmp_path):
    other = write_tiny_package(tmp_path / "models", seed=7, name="T1-T2.other")
    out = tmp_path / "out"
    assert imt(heads, "--output", out, "--translate", packages.t2, other, "--no-modality-check").code == 0
    names = {path.name for path in (out / "sub-ann" / "anat").glob("*.nii.gz")}
    assert names == {"sub-ann_desc-syntheticT1T2tiny_T2w.nii.gz", "sub-ann_desc-syntheticT1T2other_T2w.nii.gz"}


@needs("greedy")
def test_atlases_are_registered_with_every_case(imt, icbm152, packages, tmp_path):
    small = write_cohort(tmp_path / "set", icbm152, atlases=1, downsample=6)
    shutil.move(small.folder / "subject", tmp_path / "in" / "ann")
    out = tmp_path / "out"
    arguments = ("--modality", "T2", "--register", small.atlases, "--atlas-reference", "labels.nii.gz", "--cache", "none")
    assert imt(tmp_path / "in", "--output", out, *arguments).code == 0
    (row,) = rows_of(out / "summary.csv")
    assert (row["register"], row["evaluate"], row["translate"]) == ("done", "done", "")
    dice = [float(row["dice"]) for row in rows_of(out / "atlas_scores.csv")]
    assert len(dice) > 1 and np.mean(dice) > 0.6
    before = inodes(results_in(out))
    assert imt(tmp_path / "in", "--output", out, *arguments).code == 0
    assert inodes(results_in(out)) == before and rows_of(out / "summary.csv")[0]["register"] == "skipped"
    assert not temporary_place(out).exists()


# --- Names ---------------------------------------------------------------------------------------------------------


def test_cases_of_any_name_get_bids_labels_of_their_own(tmp_path):
    names = [("case_02", "case_02", ""), ("case 02", "case 02", ""), ("p1 a", "p 1", "v-1"), ("p1 b", "p 1", "v-1"), ("p1 c", "p 1", "v-2")]
    cases = [Case(case, subject, session, "T1", tmp_path / "x.nii.gz") for case, subject, session in names]
    files = case_files([*cases, Case("sub-9_run-1", "9", "", "T1", tmp_path / "sub-9_run-1_T1w.nii.gz")], tmp_path / "out")
    paths = [one.translation("T2").relative_to(tmp_path / "out").as_posix() for one in files.values()]
    assert len({path.lower() for path in paths}) == len(paths) == 6
    assert all(BIDS_NAME.fullmatch(path) for path in paths), paths
    assert paths[2:] == [
        "sub-p1/ses-v1/anat/sub-p1_ses-v1_acq-p1a_desc-synthetic_T2w.nii.gz",
        "sub-p1/ses-v1/anat/sub-p1_ses-v1_acq-p1b_desc-synthetic_T2w.nii.gz",
        "sub-p1/ses-v2/anat/sub-p1_ses-v2_desc-synthetic_T2w.nii.gz",
        "sub-9/anat/sub-9_run-1_desc-synthetic_T2w.nii.gz",
    ]


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("sub-1_T1w.nii.gz", "T1"),
        ("sub-1_ce-gad_T1w.nii", "T1C"),
        ("sub-1_ses-a_FLAIR.nii.gz", "FLAIR"),
        ("sub-1_task-rest_bold.nii.gz", "bold"),
        ("T1.nii.gz", None),
        ("sub-1_T1.w.nii.gz", None),
        ("ses-1_sub-1_T1w.nii.gz", None),
        ("sub-1_sub-2_T1w.nii.gz", None),
        ("sub-1_x-2_T1w.nii.gz", None),
    ],
)
def test_bids_names_tell_the_modality(name, modality):
    found = parse_name(Path(name))
    assert (None if found is None else found.modality) == modality
    assert found is None or name.startswith(found.stem)


def test_the_contrast_agent_is_kept_apart(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    anat.mkdir(parents=True)
    for name in ("sub-1_T1w", "sub-1_ce-gad_T1w", "sub-1_run-1_T2w", "sub-1_run-2_T2w"):
        (anat / f"{name}.nii.gz").touch()
    (case,) = read_cases(tmp_path, "T1")
    assert case.path.name == "sub-1_T1w.nii.gz"
    assert [path.name for path in companions(tmp_path, [case], "T1C")["sub-1"]] == ["sub-1_ce-gad_T1w.nii.gz"]
    assert len(companions(tmp_path, [case], "T2")["sub-1"]) == 2, "it is not clear which run belongs to it"


# --- Evaluation ----------------------------------------------------------------------------------------------------


def test_a_csv_says_which_image_is_the_truth(imt, heads, packages, tmp_path):
    rows = ["case,subject,session,modality,path", f"a,a,,T1,{heads / 'ann' / 'T1.nii.gz'}", f"a,a,,FLAIR,{heads / 'bob' / 'FLAIR.nii.gz'}"]
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "out"
    assert imt(tmp_path / "list.csv", "--output", out, "--translate", packages.flair, "--evaluate", "--no-modality-check").code == 0
    assert "bob" in json.loads((out / "logs" / "a.json").read_text())["stages"]["evaluate"]["found"]["comparisons"][0]["truth"]


def test_a_synthetic_image_is_no_truth_and_another_grid_is_said(imt, heads, packages, tmp_path):
    root = Path(shutil.copytree(heads, tmp_path / "in"))
    (root / "ann" / "FLAIR.json").write_text('{"synthetic": true}', encoding="utf-8")
    truth = read_volume(root / "bob" / "FLAIR.nii.gz")
    grid = truth.geometry
    fewer = Geometry(truth.array[1:].shape, grid.spacing_mm, grid.origin_lps + grid.direction[:, 2] * grid.spacing_mm[2], grid.direction)
    write_volume(root / "bob" / "FLAIR.nii.gz", Volume(truth.array[1:], fewer))
    out = tmp_path / "out"
    assert imt(root, "--output", out, "--translate", packages.flair, "--evaluate", "--no-modality-check").code == 0
    assert {row["case"] for row in rows_of(out / "image_scores.csv")} == {"bob", "eve"}
    messages = {row["case"]: row["message"] for row in rows_of(out / "summary.csv")}
    assert "another grid" in messages["bob"] and "another grid" not in messages["eve"]


# --- Failures and refusals -----------------------------------------------------------------------------------------


def test_a_broken_case_does_not_stop_the_others(imt, cohort, usual, tmp_path):
    broken = cohort / "sub-ann" / "anat" / "sub-ann_T1w.nii.gz"
    broken.write_bytes(b"no image")
    out = tmp_path / "out"
    run = imt(cohort, "--output", out, *usual, "--evaluate")
    assert run.code == 3 and "2 done, 0 finished before, 1 failed" in run.err
    first, *others = rows_of(out / "summary.csv")
    assert [first[key] for key in ("state", "translate", "segment", "evaluate")] == ["failed", "failed", "waiting", "waiting"]
    assert "sub-ann_T1w.nii.gz" in first["message"] and "Traceback" not in first["message"]
    assert {row["state"] for row in others} == {"done"} and not list((out / "sub-ann").rglob("*.nii.gz"))
    assert "translate: failed" in (out / "logs" / "sub-ann.log").read_text(encoding="utf-8")


def test_a_stage_that_fails_stops_only_what_needs_it(imt, heads, packages, tmp_path):
    other = write_tiny_package(tmp_path / "models", name="T1-PD-tiny", target="PD")
    weights = read_card(other).weights_path
    out = tmp_path / "out"
    arguments = (heads, "--output", out, "--translate", packages.flair, other, "--segment", packages.tissue, "--no-modality-check")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert imt(*arguments).code == 3
    rows = rows_of(out / "summary.csv")
    assert {(row["translate"], row["segment"]) for row in rows} == {("failed", "done")}
    assert "T1-PD-tiny" in rows[0]["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("nothing to do", "--translate")),
        (("--translate", "T1-FLAIR-tiny", "T2-T1-tiny"), ("different modalities", "T2-T1-tiny takes T2")),
        (("--translate", "T1-FLAIR-tiny", "T1-FLAIR-tiny"), ("named twice",)),
        (("--translate", "nothing-like-it"), ("nothing-like-it",)),
        (("--translate", "T1-FLAIR-tiny", "--to", "T2"), ("any-to-any",)),
        (("--translate", "T1-FLAIR-tiny", "--uncertainty", 1), ("at least 2 samples",)),
        (("--translate", "T1-FLAIR-tiny", "--probabilities"), ("--probabilities", "only with --segment")),
        (("--translate", "T1-FLAIR-tiny", "--engine", "ants"), ("--engine", "only with --register")),
        (("--translate", "T1-FLAIR-tiny", "--reference", "t.nii.gz"), ("--reference", "--segment")),
        (("--segment", "tissue-T1", "--evaluate"), ("nothing to evaluate",)),
        (("--translate", "T1-FLAIR-tiny", "--modality", "PD"), ("different modalities", "PD")),
        (("--translate", "T1-FLAIR-tiny", "--workers", 0), ("1 or more",)),
        (("--translate", "T1-FLAIR-tiny", "--workers", 1, "--scheduler", "tcp://127.0.0.1:1"), ("not both",)),
        (("--register", "no-such-set", "--modality", "T1"), ("no-such-set",)),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_and_nothing_is_written(imt, heads, tmp_path, arguments, words):
    imt(heads, "--output", tmp_path / "out", *arguments).refusal(2, *words)
    assert not (tmp_path / "out").exists()


def test_places_that_are_not_its_own_are_left_alone(imt, heads, packages, cohort, tmp_path):
    model = ("--translate", packages.flair)
    imt(cohort, "--output", cohort, *model).refusal(2, "is the input")
    imt(heads / "ann" / "T1.nii.gz", "--output", tmp_path / "out", *model).refusal(2, "is no cohort")
    imt(tmp_path / "absent", "--output", tmp_path / "out", *model).refusal(2, "does not exist")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("summary.csv", "dataset_description.json"):
        (other / name).write_text("{}", encoding="utf-8")
        imt(heads, "--output", other, *model).refusal(2, name, "empty folder")
        (other / name).unlink()
    assert not any(other.iterdir())


def test_another_plan_or_input_is_refused_and_the_difference_named(imt, heads, cohort, packages, tmp_path):
    out = tmp_path / "out"
    assert imt(heads, "--output", out, "--translate", packages.flair, "--no-modality-check").code == 0
    before = inodes(files_in(out))
    imt(heads, "--output", out, "--translate", packages.flair, "--no-modality-check", "--seed", 4).refusal(2, "another plan", "seed is 0 there and 4 here")
    added = ("--translate", packages.flair, "--segment", packages.tissue, "--no-modality-check")
    imt(heads, "--output", out, *added).refusal(2, "segment is not in it there and in it here")
    imt(cohort, "--output", out, "--translate", packages.flair, "--no-modality-check").refusal(2, "another input", cohort)
    with only_run(out):
        imt(heads, "--output", out, "--translate", packages.flair, "--no-modality-check").refusal(2, "Another imt pipeline is running")
    assert inodes(files_in(out)) == before


def test_a_plan_can_come_from_a_file(imt, heads, usual, tmp_path):
    assert imt(heads, "--output", tmp_path / "one", *usual).code == 0
    run = imt(heads, "--output", tmp_path / "two", "--plan", tmp_path / "one" / "plan.json", "--device", "cpu")
    assert run.code == 0, run.err
    assert (tmp_path / "one" / "plan.json").read_text() == (tmp_path / "two" / "plan.json").read_text()
    assert results_in(tmp_path / "one").keys() == results_in(tmp_path / "two").keys()
    imt(heads, "--output", tmp_path / "three", "--plan", tmp_path / "one" / "plan.json", "--seed", 3).refusal(2, "--plan", "--seed")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("is no JSON",)),
        ("[" * 100000, ("is no JSON",)),
        ("[]", ("is no plan",)),
        ('{"format": 2}', ('"format": 1',)),
        ('{"format": 1, "translat": {}}', ("unknown key translat",)),
        ('{"format": 1, "translate": {"models": ["x"], "seeds": 1}}', ("unknown key translate.seeds",)),
        ('{"format": 1, "translate": {}}', ("lacks translate.models",)),
        ('{"format": 1, "translate": []}', ("translate must be an object",)),
        ('{"format": 1, "translate": {"models": "x"}}', ("translate.models", "list of texts")),
        ('{"format": 1, "translate": {"models": []}}', ("names no models",)),
        ('{"format": 1, "seed": true, "segment": {"model": "x"}}', ("seed", "whole number")),
        ('{"format": 1}', ("nothing to do",)),
    ],
)
def test_a_plan_with_a_fault_is_refused_by_its_name(imt, heads, tmp_path, content, words):
    (tmp_path / "plan.json").write_text(content, encoding="utf-8")
    imt(heads, "--output", tmp_path / "out", "--plan", tmp_path / "plan.json").refusal(2, "plan.json" if "models" not in words[0] else "", *words)


def test_cases_can_be_listed_before(imt, cohort, packages):
    run = imt(cohort, "--list", "--translate", packages.flair)
    assert run.code == 0 and len(run.out.splitlines()) == 4 and "sub-eve,eve,,T1," in run.out


def test_a_folder_in_which_nothing_but_the_plan_was_written_is_taken_up(imt, heads, packages, tmp_path):
    arguments = ("--translate", packages.flair, "--no-modality-check")
    assert imt(heads, "--output", tmp_path / "one", *arguments).code == 0
    (tmp_path / "two").mkdir()
    shutil.copy(tmp_path / "one" / "plan.json", tmp_path / "two")
    (tmp_path / "two" / ".imt-abc-dataset_description.json").write_text("{", encoding="utf-8")
    assert imt(heads, "--output", tmp_path / "two", *arguments).code == 0
    assert files_in(tmp_path / "two").keys() == files_in(tmp_path / "one").keys()


# --- Resume --------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_done_again(imt, cohort, usual, tmp_path):
    out, arguments = tmp_path / "out", (*usual, "--evaluate")
    assert imt(cohort, "--output", out, *arguments).code == 0
    before = inodes({**results_in(out), **{name: path for name, path in files_in(out).items() if name.startswith("pictures/")}})
    first = rows_of(out / "summary.csv")
    run = imt(cohort, "--output", out, *arguments)
    assert run.code == 0 and "0 done, 3 finished before" in run.out
    again = rows_of(out / "summary.csv")
    assert {row[stage] for row in again for stage in ("state", "translate", "segment", "evaluate")} == {"skipped"}
    assert [(row["message"], row["seconds"]) for row in again] == [(row["message"], row["seconds"]) for row in first]
    assert before == {name: entry for name, entry in inodes(files_in(out)).items() if name in before}


def test_a_changed_input_redoes_just_what_depends_on_it(imt, cohort, usual, heads, tmp_path):
    out, arguments = tmp_path / "out", (*usual, "--evaluate", "--reference", "tissues.nii.gz")
    assert imt(cohort, "--output", out, *arguments).code == 0
    before = inodes(results_in(out))
    shutil.copy(heads / "bob" / "T1.nii.gz", cohort / "sub-eve" / "anat" / "sub-eve_T1w.nii.gz")
    shutil.copy(heads / "bob" / "FLAIR.nii.gz", cohort / "sub-ann" / "anat" / "sub-ann_FLAIR.nii.gz")
    assert imt(cohort, "--output", out, *arguments).code == 0
    stages = ("translate", "segment", "evaluate")
    found = {row["subject"]: [row[stage] for stage in stages] for row in rows_of(out / "summary.csv")}
    assert found == {"ann": ["skipped", "skipped", "done"], "bob": ["skipped"] * 3, "eve": ["done"] * 3}
    changed = {name for name, entry in inodes(results_in(out)).items() if before[name] != entry}
    assert changed and all(name.startswith("sub-eve/") for name in changed)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.process.stdin.close()
    nursery.process.wait(10)


def content_of(folder: Path) -> dict[str, object]:
    """All results: tables and labels byte for byte, images by their voxels, marks without their time."""
    found: dict[str, object] = {}
    for name, path in results_in(folder).items():
        if name.endswith(".nii.gz"):
            found[name] = read_volume(path, constant=True).array.tobytes()
        elif name.endswith(".json"):
            mark = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: value for key, value in mark.items() if key not in ("created", "output")}
        else:
            found[name] = path.read_bytes()
    for name in ("image_scores.csv", "scores.csv", "statistics.csv"):
        found[name] = (folder / name).read_bytes()
    return found


@pytest.mark.slow
@needs_fork
def test_killed_at_any_moment_it_goes_on_with_nothing_lost_and_nothing_done_twice(nursery, cohort, usual, tmp_path):
    arguments = ("pipeline", cohort, *usual, "--evaluate", "--reference", "tissues.nii.gz", "--progress", "none", "--output")
    nursery.start(*arguments, tmp_path / "whole")
    assert nursery.end().code == 0
    wanted, files = content_of(tmp_path / "whole"), files_in(tmp_path / "whole")
    out, chance, killed = tmp_path / "out", random.Random(5), 0
    out.mkdir()
    for share in (0.0, 0.15, 0.3, 0.45, 0.6, 0.8):
        finished = inodes({name: path for name, path in results_in(out).items() if is_whole(path)})
        nursery.start(*arguments, out)
        stop = time.monotonic() + 60
        while len(files_in(out)) <= share * len(files) and time.monotonic() < stop:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.1))
        nursery.signal(signal.SIGKILL)
        killed += nursery.end().code == -signal.SIGKILL
        assert finished.items() <= inodes(results_in(out)).items(), "what was finished was done again"
        for path in results_in(out).values():
            if path.name.endswith(".nii.gz") and not path.name.startswith("."):
                read_volume(path, constant=True)  # no half-written image
                assert path.with_name(path.name.replace(".nii.gz", ".json")).exists(), "an image without its mark"
    assert killed >= 5
    nursery.start(*arguments, out)
    assert nursery.end().code == 0
    assert content_of(out) == wanted
    assert set(states(out).values()) <= {"done", "skipped"}
    assert files_in(out).keys() == files.keys(), "nothing is missing, and no temporary file is left"


def is_whole(path: Path) -> bool:
    """Whether an image has its mark, or a mark its image."""
    stem = path.name.split(".")[0]
    image, mark = (path.with_name(stem + suffix) for suffix in (".nii.gz", ".json"))
    if path.suffix not in (".gz", ".json") or not (image.exists() and mark.exists()):
        return False
    record = json.loads(mark.read_text(encoding="utf-8"))
    return "Sources" in record and record["output"]["sha256"] == sha256(image)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")
def test_a_gpu_does_one_job_at_a_time(monkeypatch):
    monkeypatch.setattr(pipeline_locks, "_candidates", lambda wish: [("cuda:0", f"test-{os.getpid()}-a"), ("cuda:1", f"test-{os.getpid()}-b")])
    monkeypatch.setattr(pipeline_locks, "PAUSE_S", 0.001)
    with gpu_turn("auto") as first, gpu_turn("auto") as second:
        assert {first, second} == {"cuda:0", "cuda:1"}
        waited = []
        monkeypatch.setattr(pipeline_locks.time, "sleep", lambda seconds: waited.append(seconds) or (_ for _ in ()).throw(TimeoutError()))
        with pytest.raises(TimeoutError), gpu_turn("auto"):
            pass
    assert waited == [0.001]
    with gpu_turn("auto") as again:
        assert again == "cuda:0"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no links that anybody may make")
def test_temporary_files_do_not_follow_a_link_that_somebody_else_made(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    temporary_place(tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="belongs to somebody else.*TMPDIR"), pipeline_locks.own_temporary_place(tmp_path / "out"):
        pass
