"""Claims on `imt segment`: what it writes and tells, what it refuses, comparisons, and many cases with resume."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import head_file
from packages import write_tiny_package
from tiny_segmenters import write_tiny_segmenter

import IMTCore
import IMTSegmentLib
from IMTCommand.__main__ import main
from IMTCommand.kept_models import KeptSegmenters
from IMTCore.cards import read_card
from IMTCore.label_names import read_label_names
from IMTCore.label_scores import dice_scores
from IMTCore.volume_io import read_volume, write_volume
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_cards import read_segmenter_card

PYTHONPATH = os.pathsep.join(str(Path(package.__file__).parents[1]) for package in (IMTCore, IMTSegmentLib))
TMS = ("given", "given", "second")


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of models that translate and that segment; not to be changed."""
    translators, segmenters = tmp_path_factory.mktemp("translators"), tmp_path_factory.mktemp("segmenters")
    translator = read_card(write_tiny_package(translators))
    write_tiny_package(translators, seed=5, name="T1-T2-other")
    write_tiny_package(translators, name="PD-T2", source="PD")
    write_tiny_segmenter(segmenters, name="tms", channels=TMS, translator=translator, default=True)
    write_tiny_segmenter(segmenters, name="given-only", seed=1)
    write_tiny_segmenter(segmenters, name="free", channels=TMS)
    write_tiny_segmenter(segmenters, name="other-codes", codes=(11, 12, 13))
    write_tiny_segmenter(segmenters, name="of-PD", source="PD", task="lesions")
    return translators, segmenters


@pytest.fixture(autouse=True)
def models(packages, monkeypatch) -> None:
    """The tiny models are the user's own."""
    monkeypatch.setenv("IMT_MODELS", str(packages[0]))
    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(packages[1]))


@pytest.fixture
def imt(capfd) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in this process; gives exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def source(tmp_path) -> Path:
    return head_file(tmp_path / "in" / "T1.nii.gz")


def refusal(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    got, _, err = result
    lines = err.strip().splitlines()
    assert got == code, err
    assert len(lines) == 1 and lines[0].startswith("imt: ") and "Internal error" not in lines[0], err
    for word in words:
        assert word in lines[0], (word, lines[0])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def states(folder: Path) -> dict[str, str]:
    return {row["case"]: row["state"] for row in rows_of(folder / "summary.csv")}


def mark_of(path: Path) -> dict:
    return json.loads(path.with_name(path.name.split(".")[0] + ".json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- one volume


def test_the_task_names_its_default_model_and_labels_come_with_all_that_belongs_to_them(imt, source, tmp_path):
    out = tmp_path / "out"
    more = ("--probabilities", out / "p.nii.gz", "--statistics", out / "s.csv", "--output-translated", out / "T2.nii.gz")
    code, text, err = imt("segment", source, "--model", "tissue", "--output", out / "labels.nii.gz", *more, "--report", out / "r.json")
    assert (code, err) == (0, "")
    assert sorted(p.name for p in out.iterdir()) == [
        "T2.json", "T2.nii.gz", "labels.json", "labels.nii.gz", "labels_labels.csv", "p.json", "p.nii.gz", "r.json", "s.csv"
    ]  # fmt: skip
    labels, given = read_volume(out / "labels.nii.gz"), read_volume(source)
    assert labels.geometry.is_close(given.geometry, 1e-3) and labels.array.dtype == np.uint8
    assert set(np.unique(labels.array)) <= {0, 1, 2, 3} and not labels.array[given.array == 0].any()
    assert [entry.name for entry in read_label_names(out / "labels_labels.csv").values()] == ["CSF", "grey matter", "white matter"]
    ml = np.prod(given.geometry.spacing_mm) / 1000
    for row in rows_of(out / "s.csv"):
        voxels = int((labels.array == int(row["code"])).sum())
        assert int(row["voxels"]) == voxels and abs(float(row["volume_ml"]) - voxels * ml) < 1e-3
        assert f"{row['name']} {voxels * ml:.1f} ml" in text
    assert len(text.splitlines()) == 1 and "model tms, T2 translated by T1-T2" in text
    assert all(f"{stage} " in text for stage in ("read", "load", "translate", "segment", "write"))
    mark, report = mark_of(out / "labels.nii.gz"), json.loads((out / "r.json").read_text())
    assert mark["made_by"] == "imt segment" and mark["derived_from_synthetic"] is True
    assert mark_of(out / "T2.nii.gz")["synthetic"] is True
    assert [entry["voxels"] for entry in report["statistics"]] == [int(row["voxels"]) for row in rows_of(out / "s.csv")]
    assert set(report["seconds"]) >= {"read", "load", "prepare", "translate", "segment"}


def test_json_progress_goes_through_the_stages_and_ends_with_done(imt, source, tmp_path):
    more = ("--compare-with", "given-only", "--progress", "json")
    code, out, err = imt("segment", source, "--model", "tms", "--output", tmp_path / "l.nii.gz", *more)
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == ["read", "load", "translate", "segment", "compare", "write", "done"]
    for stage in {line["stage"] for line in lines}:
        fractions = [line["fraction"] for line in lines if line["stage"] == stage]
        assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] <= 1


def test_a_second_image_of_ones_own_takes_the_translations_place(imt, source, tmp_path):
    second = head_file(tmp_path / "in" / "T2.nii.gz", 1)
    code, text, err = imt("segment", source, "--model", "tms", "--second", second, "--output", tmp_path / "l.nii.gz")
    assert (code, err) == (0, "")
    assert "T2 from" in text and "translat" not in text
    mark = mark_of(tmp_path / "l.nii.gz")
    assert mark["derived_from_synthetic"] is False and mark["second_input"]["name"] == "T2.nii.gz"


def test_another_translator_can_be_named_and_gives_other_labels(imt, source, tmp_path):
    for name, more in (("a", ()), ("b", ("--translator", "T1-T2-other"))):
        assert imt("segment", source, "--model", "tms", "--output", tmp_path / f"{name}.nrrd", *more)[0] == 0
    a, b = (read_volume(tmp_path / f"{name}.nrrd").array for name in "ab")
    assert not np.array_equal(a, b)
    assert mark_of(tmp_path / "b.nrrd")["second"]["model"]["name"] == "T1-T2-other"


def test_a_reference_scores_the_result_in_a_table(imt, source, tmp_path):
    order = ("segment", source, "--model", "given-only", "--output")
    assert imt(*order, tmp_path / "first.nii.gz")[0] == 0
    first = read_volume(tmp_path / "first.nii.gz")
    truth = np.roll(first.array, 1, axis=1)
    write_volume(tmp_path / "truth.nii.gz", first.with_array(truth))
    code, text, _ = imt(*order, tmp_path / "l.nii.gz", "--reference", tmp_path / "truth.nii.gz", "--report", tmp_path / "r.json")
    assert code == 0
    scores = json.loads((tmp_path / "r.json").read_text())["reference"]["scores"]
    for code, expected in dice_scores(truth, first.array, [1, 2, 3]).items():
        (score,) = [entry for entry in scores if entry["code"] == code]
        assert expected < 1 and abs(score["dice"] - expected) < 1e-6 and score["hausdorff_95_mm"] > 0
        (line,) = [line for line in text.splitlines() if line.startswith(score["name"])]
        assert f"{expected:.3f}" in line and f"{score['difference_ml']:+.3f}" in line


def test_two_models_are_compared_with_each_other_and_with_a_reference(imt, source, tmp_path):
    for name in ("tms", "given-only"):
        assert imt("segment", source, "--model", name, "--output", tmp_path / f"{name}.nii.gz")[0] == 0
    one, two = (read_volume(tmp_path / f"{name}.nii.gz").array for name in ("tms", "given-only"))
    more = ("--compare-with", "given-only", "--reference", tmp_path / "given-only.nii.gz", "--report", tmp_path / "r.json")
    code, text, err = imt("segment", source, "--model", "tms", "--output", tmp_path / "l.nii.gz", *more)
    assert code == 0, err
    report = json.loads((tmp_path / "r.json").read_text())
    compared, expected = report["compared_with"], dice_scores(one, two, [1, 2, 3])
    assert compared["model"]["name"] == "given-only" and compared["channels"] == ["given"]
    for code, name in ((1, "CSF"), (2, "grey matter"), (3, "white matter")):
        assert expected[code] < 1 and abs(compared["dice"][name] - expected[code]) < 1e-6
    assert all(score["dice"] == 1 for score in compared["scores"] if score["dice"] is not None)
    assert abs(report["reference"]["scores"][1]["dice"] - expected[2]) < 1e-6
    assert "tms and given-only:" in text and "Dice of the two" in text
    assert sum(line.startswith("grey matter ") for line in text.splitlines()) == 3  # two scored, one compared
    assert np.array_equal(read_volume(tmp_path / "l.nii.gz").array, one)


def test_the_modality_of_a_marked_translation_is_not_guessed_from_its_histogram(imt, tmp_path):
    sample = Path(IMTCore.__file__).parents[1] / "Resources" / "IMT-sample-data" / "IMT-phantom-T1.nii.gz"
    given, second = tmp_path / "T1.nii.gz", tmp_path / "T2.nii.gz"
    shutil.copy(sample, given)
    shutil.copy(sample, second)  # surely looks like T1
    order = ("segment", given, "--model", "tms", "--second", second, "--output", tmp_path / "l.nii.gz")
    refusal(imt(*order), "T2.nii.gz", "looks like a T1 image")
    mark = {"synthetic": True, "content": "translation", "source_modality": "T1", "target_modality": "T2"}
    (tmp_path / "T2.json").write_text(json.dumps(mark))
    code, _, err = imt(*order)
    assert code == 0 and "looks like" not in err, err


def test_a_compared_model_gets_the_same_second_image_and_its_record_says_that_it_is_translated(imt, source, tmp_path):
    order = ("segment", source, "--model", "tms", "--compare-with", "free", "--output", tmp_path / "l.nii.gz")
    assert imt(*order, "--report", tmp_path / "r.json")[0] == 0
    report = json.loads((tmp_path / "r.json").read_text())
    one, two = report["second"], report["compared_with"]["second"]
    assert two == {**one, "as_trained": False} and one["as_trained"] and two["origin"] == "translated"


def test_a_translation_is_not_checked_as_if_it_had_been_given(imt, source, tmp_path, monkeypatch):
    def refuse(second, given):
        raise AssertionError(f"{second.name} was made here, on the grid of {given.name}")

    monkeypatch.setattr("IMTSegmentLib.segmentation_inputs.fit_second", refuse)
    assert imt("segment", source, "--model", "tms", "--compare-with", "free", "--output", tmp_path / "l.nii.gz")[0] == 0


def test_a_compared_model_that_lacks_a_translator_is_refused_before_any_work(imt, source, tmp_path):
    order = ("segment", source, "--model", "given-only", "--output", tmp_path / "l.nii.gz", "--progress", "json")
    code, out, _ = imt(*order, "--compare-with", "free")
    (line,) = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and line["stage"] == "error" and "free needs a T2 image" in line["message"]


def write_blind_segmenter(folder: Path) -> Path:
    """The card of a model that finds nothing."""
    import torch
    from tiny_segmenters import tiny_segmenter_card, tiny_segmenter_network

    from IMTSegmentLib.segmenter_packages import save_segmenter

    card = tiny_segmenter_card(name="nothing")
    network = tiny_segmenter_network(card)
    with torch.no_grad():
        network.score.weight.zero_()
        network.score.bias[:] = torch.tensor([9.0, 0, 0, 0])
    return save_segmenter(folder, card, network).path


def test_a_result_of_nothing_is_said(imt, source, tmp_path):
    path = write_blind_segmenter(tmp_path / "models")
    code, text, err = imt("segment", source, "--model", path, "--output", tmp_path / "l.nii.gz")
    assert code == 0 and "CSF 0.0 ml" in text
    assert "Warning: Nothing was found" in err


BASE = ("{source}", "--model", "tms", "--output", "{tmp}/out.nii.gz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "bones"), ("no segmentation model 'bones'", "tms (tissue)")),
        (("--model", "{tmp}/none.json"), ("none.json", "Check the path")),
        (("--model", "{translator}"), ("T1-T2.json", "no card of a segmentation model")),
        (("--model", "given-only", "--second", "{source}"), ("given-only", "T1 image alone", "--second")),
        (("--model", "given-only", "--translator", "T1-T2"), ("given-only", "T1 image alone", "--translator")),
        (("--model", "free"), ("needs a T2 image", "--second", "--translator")),
        (("--translator", "PD-T2"), ("PD-T2", "does not translate T1 to T2")),
        (("--translator", "none"), ("no model 'none'",)),
        (("--translator", "{segmenter}"), ("tms.json", "card of a segmentation model", "translation model is needed")),
        (("--second", "{tmp}/none.nii"), ("none.nii", "does not exist")),
        (("--second", "{far}"), ("far.nii.gz", "do not overlap")),
        (("--second", "{source}", "--translator", "T1-T2"), ("exclude each other",)),
        (("--second", "{far}", "--output-translated", "{tmp}/t.nii.gz"), ("Nothing is translated",)),
        (("--model", "given-only", "--output-translated", "{tmp}/t.nii.gz"), ("Nothing is translated",)),
        (("--reference", "{tmp}/none.nii"), ("none.nii", "does not exist")),
        (("--reference", "{far}"), ("far.nii.gz", "another grid")),
        (("--reference", "{source}"), ("T1.nii.gz", "no whole numbers")),
        (("--model", "other-codes", "--reference", "{mask}"), ("code(s) 1", "CSF (11)")),
        (("--compare-with", "of-PD"), ("of-PD", "PD images")),
        (("--compare-with", "other-codes"), ("no structure in common",)),
        (("--compare-with", "none"), ("no segmentation model 'none'",)),
        (("--output", "{source}"), ("T1.nii.gz", "choose another")),
        (("--output", "{tmp}/out.jpg"), ("out.jpg", ".nii.gz")),
        (("--output", "{tmp}/scan.nii.gz"), ("scan.json", "not a mark")),
        (("--report", "{tmp}/out.json"), ("out.json", "another")),
        (("--statistics", "{tmp}/out_labels.csv"), ("out_labels.csv", "another")),
        (("--probabilities", "{tmp}/p.mha"), ("p.mha", ".nii.gz")),
        (("--reference", "{mask}", "--output", "{mask}"), ("mask.nii.gz", "choose another")),
        (("--batch", "0"), ("1 to 4096 slices",)),
        (("--seed", "-1"), ("seed",)),
        (("--device", "tpu"), ("'tpu'",)),
        (("--workers", "2"), ("--workers", "many cases")),
        (("--colour",), ("--colour", "See: imt")),
    ],
    ids=lambda v: " ".join(v) if v and v[0].startswith("--") else None,
)
def test_what_cannot_work_is_refused_in_one_line_and_changes_nothing(imt, source, packages, tmp_path, arguments, words):
    volume = read_volume(source)
    write_volume(tmp_path / "mask.nii.gz", volume.with_array((volume.array > 0).astype(np.uint8)))
    geometry = type(volume.geometry)(
        volume.geometry.shape, volume.geometry.spacing_mm, volume.geometry.origin_lps + 1000, volume.geometry.direction
    )
    write_volume(tmp_path / "far.nii.gz", type(volume)(volume.array, geometry))
    (tmp_path / "scan.json").write_text('{"RepetitionTime": 2.3}')
    before = snapshot(tmp_path)
    names = {"tmp": tmp_path, "source": source, "mask": tmp_path / "mask.nii.gz", "far": tmp_path / "far.nii.gz"}
    names |= {"translator": packages[0] / "T1-T2.json", "segmenter": packages[1] / "tms.json"}
    refusal(imt("segment", *(text.format(**names) for text in (*BASE, *arguments))), *words)
    assert snapshot(tmp_path) == before


def test_a_changed_model_or_translator_is_refused(imt, source, packages, tmp_path, monkeypatch):
    for number, variable in enumerate(("IMT_MODELS", "IMT_SEGMENT_MODELS")):
        folder = shutil.copytree(packages[number], tmp_path / variable)
        weights = folder / ("T1-T2.safetensors", "tms.safetensors")[number]
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        with monkeypatch.context() as changed:
            changed.setenv(variable, str(folder))
            result = imt("segment", source, "--model", "tms", "--output", tmp_path / "out" / "l.nii.gz")
        refusal(result, weights.name, "get the model again")
    write_tiny_package(tmp_path / "retrained", seed=9)
    monkeypatch.setenv("IMT_MODELS", str(tmp_path / "retrained"))
    result = imt("segment", source, "--model", "tms", "--output", tmp_path / "out" / "l.nii.gz")
    refusal(result, "T1-T2", "not the one", "--translator", "--second")
    assert not (tmp_path / "out").exists()


def test_its_help_needs_no_torch():
    program = "import sys; from IMTCommand.__main__ import main\ntry: main(['segment', '--help'])\nfinally: print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr
    assert "--compare-with" in done.stdout


def test_a_server_keeps_the_segmenter_and_loads_it_anew_for_another_translator(imt, source, tmp_path, packages, monkeypatch):
    kept = KeptSegmenters()
    kept.count = 2
    monkeypatch.setattr("IMTCommand.segment_command.kept_segmenters", kept)
    order = ("segment", source, "--model", "tms", "--output", tmp_path / "l.nii.gz")
    loaded = []
    load = kept.load
    monkeypatch.setattr(kept, "load", lambda *arguments: loaded.append(arguments) or load(*arguments))
    assert imt(*order)[0] == 0 and imt(*order)[0] == 0
    assert len(loaded) == 1
    first = read_volume(tmp_path / "l.nii.gz").array
    assert imt(*order, "--translator", "T1-T2-other")[0] == 0
    assert len(loaded) == 2 and not np.array_equal(read_volume(tmp_path / "l.nii.gz").array, first)


def test_a_segmenter_whose_translator_full_memory_has_changed_is_loaded_anew(packages):
    card, settings, kept = read_segmenter_card(packages[1] / "tms.json"), SegmentationSettings(device="cpu"), KeptSegmenters()
    kept.count = 2
    segmenter = kept.load(card, settings, print)
    segmenter.load_translator()
    assert kept.find(card, settings, print) is segmenter
    segmenter.translator.runner.batch = 1
    assert kept.find(card, settings, print) is None


# ---------------------------------------------------------------- cases


def case_folder(folder: Path, names: tuple[str, ...] = ("ann", "bob")) -> Path:
    for number, name in enumerate(names):
        head_file(folder / name / "T1.nii.gz", number)
        head_file(folder / name / "T2.nii.gz", number + 10)
    return folder


def test_a_folder_of_cases_is_segmented_and_only_what_changed_is_done_again(imt, tmp_path):
    cases, out = case_folder(tmp_path / "in put"), tmp_path / "aus gabe ü"
    more = ("--probabilities", "p.nii.gz", "--output-translated", "T2.nii.gz")
    order = ("segment", cases, "--model", "tissue", "--output", out)
    code, text, err = imt(*order, *more)
    assert (code, err) == (0, "") and "2 segmented, 0 finished before, 0 failed" in text
    assert sorted(p.name for p in (out / "ann").iterdir()) == [
        "T2.json", "T2.nii.gz", "p.json", "p.nii.gz", "segmentation.json", "segmentation.nii.gz", "segmentation_labels.csv"
    ]  # fmt: skip
    statistics = rows_of(out / "statistics.csv")
    assert [(row["case"], row["code"]) for row in statistics] == [(case, code) for case in ("ann", "bob") for code in "123"]
    for row in statistics:
        labels = read_volume(out / row["case"] / "segmentation.nii.gz").array
        assert int(row["voxels"]) == (labels == int(row["code"])).sum()
    (ann, _) = rows_of(out / "summary.csv")
    assert ann["output"] == "ann/segmentation.nii.gz" and "CSF" in ann["volumes"]

    assert imt(*order, *more)[0] == 0
    assert set(states(out).values()) == {"skipped"} and rows_of(out / "statistics.csv") == statistics
    head_file(cases / "ann" / "T1.nii.gz", 77)
    assert imt(*order, *more)[0] == 0 and states(out) == {"ann": "done", "bob": "skipped"}
    (out / "bob" / "p.nii.gz").write_bytes(b"half")
    assert imt(*order, *more)[0] == 0 and states(out) == {"ann": "skipped", "bob": "done"}
    shutil.copy(out / "ann" / "T2.nii.gz", out / "bob" / "T2.nii.gz")
    shutil.copy(out / "ann" / "T2.json", out / "bob" / "T2.json")  # whole, but of another case
    assert imt(*order, *more)[0] == 0 and states(out) == {"ann": "skipped", "bob": "done"}
    for other in (("--translator", "T1-T2-other"), ("--second", "T2.nii.gz"), ("--model", "given-only"), ("--seed", 3)):
        assert imt(*order, *other)[0] == 0 and set(states(out).values()) == {"done"}, other
    head_file(cases / "bob" / "T2.nii.gz", 78)
    assert imt(*order, "--second", "T2.nii.gz")[0] == 0
    assert imt(*order, "--second", "T2.nii.gz")[0] == 0 and set(states(out).values()) == {"skipped"}
    head_file(cases / "bob" / "T2.nii.gz", 79)
    assert imt(*order, "--second", "T2.nii.gz")[0] == 0 and states(out) == {"ann": "skipped", "bob": "done"}


def test_a_table_of_cases_with_references_gives_a_table_of_scores(imt, tmp_path):
    cases, out = case_folder(tmp_path / "data"), tmp_path / "out"
    with open(tmp_path / "cases.csv", "w", newline="") as stream:
        rows = [(f"s{n}", f"p{n}", "1", "T1", f"data/{name}/T1.nii.gz") for n, name in enumerate(("ann", "bob"))]
        csv.writer(stream).writerows([("case", "subject", "session", "modality", "path"), *rows])
    order = ("segment", tmp_path / "cases.csv", "--model", "given-only", "--output", out)
    assert imt(*order)[0] == 0
    shutil.copy(out / "s0" / "segmentation.nii.gz", cases / "ann" / "labels.nii.gz")
    code, _, err = imt(*order, "--reference", "labels.nii.gz")
    assert code == 3 and "labels.nii.gz" in err.splitlines()[0] and states(out) == {"s0": "skipped", "s1": "failed"}
    shutil.copy(out / "s0" / "segmentation.nii.gz", cases / "bob" / "labels.nii.gz")
    assert imt(*order, "--reference", "labels.nii.gz")[0] == 0
    scores = rows_of(out / "scores.csv")
    assert [(row["case"], row["subject"], row["code"]) for row in scores[:3]] == [("s0", "p0", code) for code in "123"]
    assert {row["dice"] for row in scores[:3]} <= {"1.0000", ""} and any(float(row["dice"] or 1) < 1 for row in scores[3:])


def test_finished_cases_of_nothing_are_scored_again(imt, tmp_path):
    cases, path = case_folder(tmp_path / "in", ("ann",)), write_blind_segmenter(tmp_path / "models")
    given = read_volume(cases / "ann" / "T1.nii.gz")
    write_volume(cases / "ann" / "labels.nii.gz", given.with_array(np.zeros(given.array.shape, np.uint8)))  # nothing to find
    for state in ("done", "skipped"):
        order = ("segment", cases, "--model", path, "--output", tmp_path / "out", "--reference", "labels.nii.gz")
        assert imt(*order)[0] == 0 and states(tmp_path / "out") == {"ann": state}
        assert [row["reference_ml"] for row in rows_of(tmp_path / "out" / "scores.csv")] == ["0.0000"] * 3


def test_statistics_and_reports_left_over_from_another_run_are_not_taken_for_the_cases_own(imt, tmp_path):
    cases, out = case_folder(tmp_path / "in", ("ann",)), tmp_path / "out"
    more = ("--statistics", "s.csv", "--report", "r.json")

    def run(model: str, *arguments: object) -> str:
        assert imt("segment", cases, "--model", model, "--output", out, *arguments)[0] == 0
        return states(out)["ann"]

    assert [run("given-only", *more), run("given-only", *more)] == ["done", "skipped"]
    assert [run("tms"), run("tms", "--statistics", "s.csv"), run("tms", "--report", "r.json")] == ["done"] * 3
    labels = read_volume(out / "ann" / "segmentation.nii.gz").array
    assert [int(row["voxels"]) for row in rows_of(out / "ann" / "s.csv")] == [int((labels == code).sum()) for code in (1, 2, 3)]
    assert json.loads((out / "ann" / "r.json").read_text())["model"]["name"] == "tms"
    assert run("tms", *more) == "skipped"
    shutil.copy(out / "ann" / "segmentation.nii.gz", cases / "ann" / "labels.nii.gz")
    scored = (*more, "--reference", "labels.nii.gz")
    assert [run("tms", *scored), run("tms", *scored)] == ["done", "skipped"], "the report lacked the scores"


@pytest.mark.parametrize("command", ["segment", "translate"])
def test_a_list_of_cases_is_not_overwritten_with_their_summary(imt, tmp_path, packages, command):
    cases = tmp_path / "summary.csv"
    head_file(tmp_path / "T1.nii.gz")
    cases.write_text("case,modality,path\nann,T1,T1.nii.gz\n")
    model = "given-only" if command == "segment" else packages[0] / "T1-T2.json"
    before = snapshot(tmp_path)
    refusal(imt(command, cases, "--model", model, "--output", tmp_path), "summary.csv", "is the input", "another output folder")
    assert snapshot(tmp_path) == before


def test_a_broken_case_does_not_stop_the_others(imt, tmp_path):
    cases, out = case_folder(tmp_path / "in", ("ann", "bob", "eve")), tmp_path / "out"
    (cases / "bob" / "T1.nii.gz").write_bytes(b"no image")
    code, _, err = imt("segment", cases, "--model", "given-only", "--output", out)
    first, last = err.splitlines()
    assert code == 3 and first.startswith("imt: bob failed: ") and "2 segmented, 0 finished before, 1 failed" in last
    assert states(out) == {"ann": "done", "bob": "failed", "eve": "done"} and not (out / "bob").exists()
    assert {row["case"] for row in rows_of(out / "statistics.csv")} == {"ann", "eve"}


def test_labels_without_a_mark_are_not_replaced(imt, tmp_path):
    cases = case_folder(tmp_path / "in", ("ann",))
    (tmp_path / "out" / "ann").mkdir(parents=True)
    drawn = tmp_path / "out" / "ann" / "segmentation.nii.gz"
    drawn.write_bytes(b"drawn by hand")
    code, _, err = imt("segment", cases, "--model", "given-only", "--output", tmp_path / "out")
    assert code == 3 and "somebody's work" in err and drawn.read_bytes() == b"drawn by hand"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--second", "{tmp}/in/ann/T2.nii.gz"), ("--second", "plain name", "beside each case's image")),
        (("--probabilities", "sub/p.nii.gz"), ("--probabilities", "plain name")),
        (("--probabilities", "p.mha"), ("p.mha", ".nii.gz")),
        (("--output-translated", "segmentation.nii.gz"), ("segmentation.nii.gz", "another name")),
        (("--statistics", "Segmentation_labels.csv"), ("labels.csv", "another name")),
        (("--compare-with", "given-only"), ("--compare-with", "one volume")),
        (("--model", "of-PD"), ("no PD image",)),
        (("--model", "free"), ("needs a T2 image",)),
        (("--translator", "PD-T2"), ("does not translate",)),
        (("--workers", "0"), ("1 or more",)),
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), ("not both",)),
        (("--output", "{tmp}/in/ann/T1.nii.gz"), ("is a file", "--output is a folder")),
    ],
    ids=lambda v: " ".join(v) if v and v[0].startswith("--") else None,
)
def test_what_no_case_could_work_with_is_refused_before_anything_is_written(imt, tmp_path, arguments, words):
    case_folder(tmp_path / "in", ("ann",))
    before = snapshot(tmp_path)
    order = ("segment", tmp_path / "in", "--model", "tms", "--output", tmp_path / "out")
    refusal(imt(*order, *(text.format(tmp=tmp_path) for text in arguments)), *words)
    assert snapshot(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_cancelled_run_keeps_what_is_done_and_says_how_to_go_on(imt, tmp_path, monkeypatch):
    from IMTSegmentLib.segmentation import Segmenter

    cases, out = case_folder(tmp_path / "in", ("ann", "bob", "eve")), tmp_path / "out"
    segment, calls = Segmenter.segment, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return segment(self, *arguments)

    monkeypatch.setattr(Segmenter, "segment", interrupted)
    order = ("segment", cases, "--model", "given-only", "--output", out)
    refusal(imt(*order), "Cancelled after 1 of 3 cases", "run the same command again", code=130)
    assert states(out) == {"ann": "done"} and sorted(p.name for p in out.iterdir()) == ["ann", "statistics.csv", "summary.csv"]
    assert imt(*order)[0] == 0 and states(out) == {"ann": "skipped", "bob": "done", "eve": "done"}


@pytest.mark.slow
def test_a_local_dask_cluster_segments_the_cases(imt, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    cases, out = case_folder(tmp_path / "in"), tmp_path / "out"
    head_file(cases / "eve" / "T1.nii.gz").write_bytes(b"no image")
    code, _, err = imt("segment", cases, "--model", "tms", "--output", out, "--workers", 1)
    assert code == 3 and "2 segmented, 0 finished before, 1 failed" in err, err
    assert states(out) == {"ann": "done", "bob": "done", "eve": "failed"} and len(rows_of(out / "statistics.csv")) == 6
    assert imt("segment", cases, "--model", "tms", "--output", tmp_path / "plain")[0] == 3
    for name in ("ann", "bob"):
        one, two = (read_volume(folder / name / "segmentation.nii.gz").array for folder in (out, tmp_path / "plain"))
        assert np.mean(one != two) < 0.01  # another number of threads adds up in another order


# ---------------------------------------------------------------- models


def test_models_that_segment_are_listed_shown_verified_and_imported(imt, packages, tmp_path, monkeypatch):
    listed = {entry["name"]: entry for entry in json.loads(imt("models", "list", "--json")[1])}
    assert (listed["tms"]["kind"], listed["T1-T2"]["kind"]) == ("segmentation", "translation")
    text = imt("models", "list")[1]
    assert "segments" in text and "T1 + T2" in text and "tissue: CSF, grey matter, white matter" in text
    shown = imt("models", "show", "tissue")[1]
    assert shown.startswith("tms 0.1") and "translated by T1-T2" in shown and "2 grey matter" in shown
    assert imt("models", "show", "T1-T2")[1].startswith("T1-T2 0.1")
    code, text, _ = imt("models", "verify", "--json", "tms", "T1-T2")
    assert code == 0 and [entry["state"] for entry in json.loads(text)] == ["good", "good"]
    refusal(imt("models", "show", "none"), "no model 'none'", "T1-T2", "Segmentation models here", "tms")

    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(tmp_path / "mine"))
    assert imt("models", "import", packages[1] / "tms.json")[0] == 0
    assert read_segmenter_card(tmp_path / "mine" / "tms.json").weights_path.is_file()
    assert "is here already" in imt("models", "download", "tms")[1]
    refusal(imt("models", "remove", "given-only"), "no model 'given-only'")
    assert imt("models", "remove", "tms")[0] == 0 and not list((tmp_path / "mine").iterdir())
    assert imt("models", "import", packages[1] / "tms.json")[0] == 0
    (tmp_path / "mine" / "tms.safetensors").write_bytes(b"changed")
    code, text, err = imt("models", "verify", "tms")
    assert code == 2 and "FAILED tms" in text and "1 of 1 models" in err
