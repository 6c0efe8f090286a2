"""The FCN-score: a scorer that learns real images tells good translations from bad, on subjects that nobody has seen."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import head_phantom, store
from packages import tiny_card, tiny_network
from scipy.ndimage import gaussian_filter

from IMTCore.cards import read_card
from IMTCore.catalogue import shipped_folder
from IMTCore.errors import BadInput
from IMTCore.model_packages import save_package
from IMTCore.volume_io import read_volume, write_volume

TRAINING = Path(__file__).resolve().parents[2] / "Resources" / "Training"
sys.path.insert(0, str(TRAINING))

import fcn_score
from datasets import find_subjects
from segmentation_scores import as_csv, as_markdown, segmentation_scores, summarise
from segmenter_config import SegmenterConfig
from segmenter_data import class_map, load_examples
from unseen_subjects import check_unseen

SHAPE, SPACING = (12, 60, 64), (6.0, 3.0, 3.0)
HELD_OUT = ("heads/d", "heads/e_ses-1")
SCORER = [
    "--target", "FLAIR", "--labels", "tissues", "--train", "heads/*", "--exclude", *HELD_OUT, "--mode", "spatial", "--spacing-mm", 3,
    "--width", 1 / 16, "--padding", 0, "--stages", "16s", "8s", "--optimiser", "adam", "--learning-rate", 2e-3, "--dropout", 0.1,
    "--batch", 4, "--device", "cpu",
]  # fmt: skip


def write_subject(folder: Path, seed: int) -> None:
    """A T1, a FLAIR and tissues of a phantom: blocks of grey and white matter, so large that FCN-8s can find them."""
    random = np.random.default_rng(seed)
    t1 = head_phantom(SHAPE)
    head = t1 > 0
    j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE[1:]), indexing="ij")
    centre = random.uniform(-0.15, 0.15, 2)
    white = head & (((j - centre[0]) / 0.45) ** 2 + ((i - centre[1]) / 0.4) ** 2 < 1)
    csf = white & (np.abs(i - centre[1]) < 0.14)
    tissues = np.select([csf, white, head], [1, 3, 2], 0).astype(np.uint8)
    flair = np.choose(tissues, [0.0, 150.0, 900.0, 600.0]) + head * random.normal(0, 20, SHAPE)
    for name, array in (("T1", t1), ("FLAIR", flair.astype(np.float32)), ("tissues", tissues)):
        write_volume(folder / f"{name}.nii.gz", store(array, spacing_kji=SPACING))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads to learn from, two held out, and synthetic FLAIRs of these: a copy, and a blurred one."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("a", "b", "c", "d", "e_ses-1")):
        write_subject(root / "real" / "heads" / name, seed)
    for name in HELD_OUT:
        flair = read_volume(root / "real" / name / "FLAIR.nii.gz")
        write_volume(root / "copy" / name / "FLAIR.nii.gz", flair)
        blurred = np.where(flair.array != 0, gaussian_filter(flair.array, (1, 8, 8)), 0).astype(np.float32)
        write_volume(root / "blurred" / Path(name).name / "FLAIR.nii.gz", flair.with_array(blurred))
    return root


def score(data: Path, output: Path, *options: object, steps: int = 4) -> None:
    fcn_score.main(list(map(str, ["--data", data / "real", *SCORER, "--steps", steps, "--output", output, *options])))


def refused(data: Path, output: Path, *options: object) -> str:
    """What a refused run says; nothing is written."""
    with pytest.raises(SystemExit) as caught:
        score(data, output, *options)
    assert isinstance(caught.value.code, str) and not (output / "checkpoint.pt").exists()
    return caught.value.code


def synthetic(data: Path) -> list[object]:
    return ["--synthetic", f"copy={data / 'copy'}", f"blurred={data / 'blurred'}"]


@pytest.fixture(scope="module")
def scored(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "scored"
    score(data, output, *synthetic(data), "--class-weights", "median", "--checkpoint-every", 40, steps=50)
    return output


# --- The score -----------------------------------------------------------------------------------------------------


def test_real_images_of_unseen_subjects_are_segmented(scored: Path) -> None:
    real = json.loads((scored / "summary.json").read_text(encoding="utf-8"))["summary"][0]
    assert real["images"] == "real" and real["subjects"] == 2
    assert real["accuracy all"] > 0.85 and min(real["dice gm"], real["dice wm"]) > 0.6


def test_a_perfect_translation_has_no_gap_and_a_blurred_one_has(scored: Path) -> None:
    rows = {row["images"]: row for row in json.loads((scored / "summary.json").read_text(encoding="utf-8"))["summary"]}
    assert list(rows) == ["real", "copy", "blurred", "real - copy", "real - blurred"]
    scores = [key for key in rows["real"] if key.startswith(("accuracy", "dice"))]
    assert len(scores) == 7 and all(rows["real - copy"][key] == 0 for key in scores)
    assert rows["real - blurred"]["dice gm"] > 0.05 and rows["real - blurred"]["accuracy all"] > 0.02


def test_the_results_hold_every_subject_and_say_what_the_scorer_was(scored: Path) -> None:
    with open(scored / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["subject"], row["images"]) for row in rows] == [(n, k) for n in HELD_OUT for k in ("real", "copy", "blurred")]
    table = (scored / "table.md").read_text(encoding="utf-8")
    assert "| FLAIR (real) |" in table and "| real - blurred |" in table
    assert "initial weights random, 100 steps of 4 slices from 3 subjects" in table
    record = json.loads((scored / "config.json").read_text(encoding="utf-8"))
    assert record["subjects"] == ["heads/a", "heads/b", "heads/c"] and record["test"] == list(HELD_OUT)
    log = [json.loads(line) for line in (scored / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["step"], row["stage"]) for row in log] == [(40, "16s"), (80, "8s"), (100, "8s")]


def test_a_finished_scorer_scores_other_images_without_training_again(data: Path, scored: Path, capsys) -> None:
    before = (scored / "checkpoint.pt").read_bytes(), (scored / "table.md").read_text(encoding="utf-8")
    score(data, scored, *synthetic(data), "--class-weights", "median", "--checkpoint-every", 40, steps=50)
    assert "resumed at step 100" in capsys.readouterr().out
    assert ((scored / "checkpoint.pt").read_bytes(), (scored / "table.md").read_text(encoding="utf-8")) == before


def test_a_model_is_scored_on_translations_made_on_the_spot(data: Path, tmp_path: Path) -> None:
    card = tiny_card("T1-FLAIR-tiny", "T1", "FLAIR")
    card["training"]["held_out"] = list(HELD_OUT)
    path = save_package(tmp_path, card, tiny_network(card)).path
    score(data, tmp_path / "run", "--model", f"random={path}", "--mode", "paper", "--size", 64, "--padding", 100, steps=1)
    rows = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["summary"]
    assert [row["images"] for row in rows] == ["real", "random", "real - random"]


def test_accuracy_and_dice_are_those_of_the_paper() -> None:
    truth = np.array([[0, 0, 1, 1, 1], [2, 2, 0, 0, 0]])
    found = np.array([[0, 1, 1, 1, 2], [2, 0, 0, 0, 0]])
    scores = segmentation_scores(truth, found, ["gm", "wm", "tumour"])
    assert scores["accuracy all"] == pytest.approx(7 / 10)
    assert scores["accuracy gm"] == pytest.approx(2 / 3) and scores["accuracy wm"] == pytest.approx(1 / 2)
    assert scores["dice gm"] == pytest.approx(2 * 2 / (3 + 3)) and scores["dice wm"] == pytest.approx(2 * 1 / (2 + 2))
    assert np.isnan(scores["accuracy tumour"]) and np.isnan(scores["dice tumour"])
    assert segmentation_scores(truth, np.full_like(truth, 3), ["gm", "wm", "tumour"])["dice tumour"] == 0


def test_a_class_that_a_subject_lacks_does_not_count_for_it() -> None:
    rows = [
        {"subject": "a", "images": "real", "dice lesion": 0.8}, {"subject": "b", "images": "real", "dice lesion": float("nan")},
        {"subject": "a", "images": "x", "dice lesion": 0.5}, {"subject": "b", "images": "x", "dice lesion": 0.0},
    ]  # fmt: skip
    table = {row["images"]: row["dice lesion"] for row in summarise(rows)}
    assert table == pytest.approx({"real": 0.8, "x": 0.25, "real - x": 0.3})
    assert "| real - x | +0.300 |" in as_markdown(summarise(rows), "FLAIR")
    assert as_csv(rows).splitlines()[1:3] == ["a,real,0.8", "b,real,"]


def test_label_codes_are_merged_and_keep_their_place(data: Path) -> None:
    codes = np.array([[[0, 1, 2, 3, 4, 5]]])
    assert class_map(codes, ("tumour=1,2,4", "other=5")).tolist() == [[[0, 1, 1, 0, 1, 2]]]
    (subject,) = find_subjects(data / "real", patterns=["heads/a"])
    config = SegmenterConfig("", "FLAIR", "tissues", ("csf=1", "gm=2", "wm=3"), (), mode="spatial", spacing_mm=1.5)
    (example,) = load_examples([subject], config)
    # At half the spacing each class covers four times as many pixels, and its pixels have its intensity.
    tissues = subject.label("tissues").array
    for number in (1, 2, 3):
        assert (example.classes == number).sum() == pytest.approx(4 * (tissues == number).sum(), rel=0.05)
    means = [float(example.images[:, 0][example.classes == number].mean(dtype=np.float32)) for number in (1, 3, 2)]
    assert means == sorted(means) and means[0] < -0.5 < means[1] - 0.3


# --- Runs ----------------------------------------------------------------------------------------------------------


def test_a_run_stopped_in_a_later_stage_ends_with_the_same_weights(data: Path, tmp_path: Path, capsys) -> None:
    score(data, tmp_path / "whole")
    score(data, tmp_path / "broken", "--stop-at", 5)
    assert not (tmp_path / "broken" / "scores.csv").exists()
    score(data, tmp_path / "broken")
    said = capsys.readouterr().out
    assert "stopped at step 5 of 8" in said and "resumed at step 5" in said
    one, other = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "broken"))
    assert one["network"].keys() == other["network"].keys() and "score_pool3.weight" in one["network"]
    assert all(torch.equal(value, other["network"][key]) for key, value in one["network"].items())
    assert (tmp_path / "whole" / "scores.csv").read_text() == (tmp_path / "broken" / "scores.csv").read_text()


def test_another_experiment_is_not_resumed(data: Path, scored: Path) -> None:
    with pytest.raises(SystemExit, match="another experiment .differs in steps, class_weights, seed.. Choose another --output"):
        score(data, scored, "--seed", 1)


def test_the_published_optimiser_learns(data: Path, tmp_path: Path) -> None:
    options = ["--optimiser", "sgd", "--learning-rate", "1e-4", "--checkpoint-every", 8, "--stop-at", 32]
    score(data, tmp_path, *options, steps=32)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(losses) == 4 and losses[-1] < 0.95 * losses[0]


# --- Refused -------------------------------------------------------------------------------------------------------


def test_a_subject_is_never_both_learned_and_tested(data: Path, tmp_path: Path) -> None:
    said = refused(data, tmp_path / "run", "--test", "heads/c", "heads/d")
    assert "heads/c would be trained on, and the same patients tested. Hold them out with --exclude" in said
    write_subject(tmp_path / "heads" / "e_ses-2", 9)
    for name in ("a", "d", "e_ses-1"):
        (tmp_path / "heads" / name).symlink_to(data / "real" / "heads" / name, target_is_directory=True)
    said = refused(data, tmp_path / "run", "--data", tmp_path)
    assert "heads/e_ses-2 would be trained on, and the same patients tested" in said


def test_a_model_that_saw_a_test_subject_is_refused(data: Path, tmp_path: Path) -> None:
    card = tiny_card("T1-FLAIR-tiny", "T1", "FLAIR")
    card["training"]["held_out"] = ["heads/d"]
    path = save_package(tmp_path, card, tiny_network(card)).path
    said = refused(data, tmp_path / "run", "--model", path)
    assert "card of model T1-FLAIR-tiny does not say which subjects it was trained on" in said and "heads/e_ses-1" in said
    shipped = read_card(shipped_folder() / "T1-FLAIR.json")
    check_unseen(shipped, ["nichart/subject03", "open_ms_longitudinal/patient04_study1", "malf2012/1000"])
    with pytest.raises(BadInput, match="T1-FLAIR was trained on nichart/subject01: they cannot be test subjects"):
        check_unseen(shipped, ["nichart/subject01", "nichart/subject03"])


def test_synthetic_files_whose_model_saw_the_subject_are_refused(data: Path, tmp_path: Path) -> None:
    for name, head in {"heads/a": "a", "heads/b": "b", "nichart/subject01": "c", "nichart/subject03": "d"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(data / "real" / "heads" / head, target_is_directory=True)
    card = read_card(shipped_folder() / "T1-FLAIR.json")
    for name in ("subject01", "subject03"):
        image = tmp_path / "made" / name / "FLAIR.nii.gz"
        write_volume(image, read_volume(data / "copy" / "heads" / "d" / "FLAIR.nii.gz"))
        mark = {"synthetic": True, "model": {"name": card.name, "sha256": card.sha256}}
        (image.parent / "FLAIR.json").write_text(json.dumps(mark), encoding="utf-8")
    options = ["--data", tmp_path, "--synthetic", f"T1-FLAIR={tmp_path / 'made'}", "--test"]
    said = refused(data, tmp_path / "run", *options, "nichart/*")
    assert "Model T1-FLAIR was trained on nichart/subject01: they cannot be test subjects" in said
    score(data, tmp_path / "run", *options, "nichart/subject03", steps=1)


def test_missing_and_misplaced_images_are_named_before_any_training(data: Path, tmp_path: Path) -> None:
    said = refused(data, tmp_path / "run", "--synthetic", f"x={tmp_path}")
    assert f"{tmp_path} has no FLAIR of heads/d" in said
    assert "is not LABEL=FOLDER" in refused(data, tmp_path / "run", "--synthetic", str(tmp_path))
    assert "no T2 to translate with T2-FLAIR" in refused(data, tmp_path / "run", "--model", "T2-FLAIR", "--test", "heads/d")
    assert "No subject of --train" in refused(data, tmp_path / "run", "--train", "brains/*")
    assert "classes of 'atlas' are not known" in refused(data, tmp_path / "run", "--labels", "atlas")
    assert "padding must be one of 100, 0" in refused(data, tmp_path / "run", "--padding", 7)
    assert "--stages must follow each other" in refused(data, tmp_path / "run", "--stages", "32s", "8s")
    assert "no such file" in refused(data, tmp_path / "run", "--vgg", tmp_path / "vgg.pth")
    flair = read_volume(data / "real" / "heads" / "d" / "FLAIR.nii.gz")
    for name in HELD_OUT:
        write_volume(tmp_path / "half" / name / "FLAIR.nii.gz", store(flair.array[:, ::2, ::2], spacing_kji=(6.0, 6.0, 6.0)))
    with pytest.raises(SystemExit, match="heads/d: half's synthetic FLAIR .* is not on the grid of FLAIR"):
        score(data, tmp_path / "other", "--synthetic", f"half={tmp_path / 'half'}", steps=1)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_subject(data: Path, tmp_path: Path) -> None:
    options = ["--optimiser", "sgd", "--learning-rate", "1e9", "--checkpoint-every", 1]
    with pytest.raises(SystemExit, match="The loss is (nan|inf) at step .*heads/[abc].*Lower --learning-rate"):
        score(data, tmp_path, *options, steps=40)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] >= 1
