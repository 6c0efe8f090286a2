"""Training: runs can be stopped, killed and resumed without a trace, hold subjects out, and export what they learnt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from conftest import head_phantom, store
from training_runs import SPACING, TRAINING, assert_same, checkpoint, start, translated, write_subject

from IMTCore.cards import read_card
from IMTCore.model_packages import load_network
from IMTCore.networks import UNetGenerator
from IMTCore.slicing import SlicingSpec
from IMTCore.volume_io import write_volume

sys.path.insert(0, str(TRAINING))

import evaluate_translator
from baselines import LookUpTable, RandomForest
from train_translator import Config, Trainer, was_acquired
from training_data import load_pairs

# Yang et al.'s losses, optimiser and augmentation are the script's defaults; only sizes are given here.
TINY = ["--source", "T1", "--train", "set/*", "--exclude", "set/held*", "--filters", "8", "--depth", "5", "--mode", "paper"]
STEPS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects to learn from, one of them without FLAIR, one without T1, and two held out, one of them unreadable."""
    root = tmp_path_factory.mktemp("data")
    for n, (name, modalities) in enumerate(
        {"a": ("T1", "T2", "FLAIR"), "b": ("T1", "T2"), "c": ("T2",), "held-1": ("T1", "T2", "FLAIR")}.items()
    ):
        write_subject(root / "set" / name, (24, 48, 48 - n), modalities)
    (root / "set" / "held-2").mkdir()
    for modality in ("T1", "T2", "FLAIR"):
        (root / "set" / "held-2" / f"{modality}.nii.gz").write_bytes(b"not an image")
    return root


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with training_runs.one_thread():
        yield


def run(script: str, *arguments: object) -> None:
    process = start(TRAINING / script, *arguments)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output


def train(data: Path, output: Path, *options: object) -> str:
    return training_runs.train("--data", data, "--output", output, *TINY, *options)


def whole_run(size: int = 64) -> list[object]:
    return ["--targets", "T2", "--size", size, "--steps", STEPS]


LEARNT = ("step", "generator", "average", "discriminator", "adam_g", "adam_d", "torch_random", "numpy_random")


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a break."""
    output = tmp_path_factory.mktemp("runs") / "reference"
    train(data, output, *whole_run())
    return output


# --- Resuming ------------------------------------------------------------------------------------------------------


def test_a_run_stopped_and_resumed_is_bit_identical_to_one_without_a_break(data: Path, reference: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", *whole_run(), "--stop-at", 7)
    halfway = checkpoint(tmp_path / "run")
    assert halfway["step"] == 7
    assert "resumed at step 7" in train(data, tmp_path / "run", *whole_run())
    ended, expected = checkpoint(tmp_path / "run"), checkpoint(reference)
    assert_same({key: ended[key] for key in LEARNT}, {key: expected[key] for key in LEARNT})
    assert ended["step"] == STEPS and len(ended["adam_d"]["state"]) > 0
    changed = [not torch.equal(value, halfway["generator"][key]) for key, value in ended["generator"].items()]
    assert all(changed)  # so that equality means something


def test_a_killed_run_goes_on_to_the_same_weights(data: Path, reference: Path, tmp_path: Path) -> None:
    where = ["--data", data, "--output", tmp_path / "run", "--device", "cpu"]
    process = start(TRAINING / "train_translator.py", *where, *TINY, *whole_run(), "--checkpoint-every", 1)
    for line in process.stdout:
        if line.startswith('{"step": 5,'):
            process.kill()
            break
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert 4 <= checkpoint(tmp_path / "run")["step"] < STEPS
    assert "resumed at step" in train(data, tmp_path / "run", *whole_run(), "--checkpoint-every", 1)
    ended, expected = checkpoint(tmp_path / "run"), checkpoint(reference)
    assert_same({key: ended[key] for key in LEARNT}, {key: expected[key] for key in LEARNT})


def test_another_experiment_is_not_resumed(data: Path, reference: Path) -> None:
    before = {path.name: path.read_bytes() for path in reference.iterdir()}
    with pytest.raises(SystemExit, match=r"is of another experiment \(differs in l1, seed\)\. Choose another --output\."):
        train(data, reference, *whole_run(), "--seed", "1", "--l1", "10")
    assert {path.name: path.read_bytes() for path in reference.iterdir()} == before


# --- Subjects and targets ------------------------------------------------------------------------------------------


def test_held_out_subjects_are_not_even_opened(data: Path, reference: Path) -> None:
    record = json.loads((reference / "config.json").read_text(encoding="utf-8"))
    assert record["subjects"] == ["set/a", "set/b"]  # and not held-2, whose files cannot be read
    assert record["exclude"] == ["set/held*"] and "--exclude" in record["command"]


@pytest.fixture(scope="module")
def two_targets(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "two"
    options = ["--targets", "T2", "FLAIR", "--size", 32, "--steps", 60, "--checkpoint-every", 15, "--learning-rate", "1e-3"]
    said = train(data, output, *options)
    assert "left out: set/c (no T1 with T2 or FLAIR)" in said
    return output


def test_the_network_learns(two_targets: Path) -> None:
    log = [json.loads(line) for line in (two_targets / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in log] == [15, 30, 45, 60]
    assert log[-1]["L1"] < 0.6 * log[0]["L1"]
    assert all(np.isfinite(row[name]) for row in log for name in ("L1", "GAN", "D"))


def test_a_subject_without_a_target_teaches_the_others_only(data: Path) -> None:
    config = Config(str(data), "T1", ("T2", "FLAIR"), ("set/b",), filters=8, depth=5, size=32, steps=2)
    pairs = load_pairs(data, ["set/*"], ["set/held*", "set/a"], "T1", ["T2", "FLAIR"], config.slicings, 32)
    assert [pair.name for pair in pairs] == ["set/b"] and set(pairs[0].targets) == {"T2"}
    trainer = Trainer(config, pairs)
    before = {key: value.clone() for key, value in trainer.generator.state_dict().items()}
    for _ in range(2):
        trainer.run_step()
    last = trainer.generator.state_dict()
    for key in ("decoder.4.weight", "decoder.4.bias"):
        axis = 1 if key.endswith("weight") else 0
        assert torch.equal(last[key].select(axis, 1), before[key].select(axis, 1)), "FLAIR"
        assert not torch.equal(last[key].select(axis, 0), before[key].select(axis, 0)), "T2"


def test_training_slices_are_those_that_the_target_covers(data: Path, tmp_path: Path) -> None:
    t1 = head_phantom((24, 48, 48))
    t2 = translated(t1, "T2").astype(np.float32)
    t2[14:] = 0  # the target's field of view ends early
    for name, image in (("T1", t1), ("T2", t2)):
        write_volume(tmp_path / "set" / "a" / f"{name}.nii.gz", store(image, spacing_kji=SPACING))
    (pair,) = load_pairs(tmp_path, ["set/*"], [], "T1", ["T2"], [SlicingSpec(size=(32, 32))], 32)
    head = (t1 > 0).sum(axis=(1, 2))
    assert pair.slices.tolist() == [k for k in range(14) if head[k] >= 200]
    assert pair.targets["T2"].shape == (24, 32, 32) and np.abs(pair.targets["T2"]).max() <= 1


# --- Export and scores ---------------------------------------------------------------------------------------------

WRITTEN = {
    "version": "1.0", "title": "For tests", "weights": {"licence": "CC0-1.0"}, "training": {"data": ["phantoms"]},
    "intended_use": "Tests.", "limits": ["Phantoms only."],
}  # fmt: skip


def test_an_exported_package_gives_its_channel_of_the_network(
    data: Path, two_targets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkpoint(two_targets)
    both = UNetGenerator(1, 2, 8, 5)
    both.load_state_dict({key: value.half().float() for key, value in state["generator"].items()})
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = both.eval()(image)
    assert float((expected[:, 0] - expected[:, 1]).abs().max()) > 0.01
    for channel, target in enumerate(("T2", "FLAIR")):
        (tmp_path / "card.json").write_text(json.dumps({**WRITTEN, "name": f"T1-{target}"}), encoding="utf-8")
        options = ["--run", two_targets, "--target", target, "--card", tmp_path / "card.json", "--folder", tmp_path]
        run("export_model.py", *options)
        card = read_card(tmp_path / f"T1-{target}.json")
        with torch.no_grad():
            output = load_network(card)(image)
        assert float((output[:, 0] - expected[:, channel]).abs().max()) < 1e-5
        assert (card.source, card.target) == ("T1", target) and card.slicing == SlicingSpec(size=(32, 32))
        training = card.content["training"]
        assert str(data) not in json.dumps(card.content) and "--data DATA" in training["command"]
        assert "60 steps of 1 slices from 2 subjects" in training["notes"]
    options = ["--data", data, "--model", tmp_path / "T1-T2.json", "--run", two_targets, "--no-baselines"]
    arguments = ["evaluate_translator.py", *map(str, options), "--output", str(tmp_path / "scores")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--test", "set/held-1"])
    evaluate_translator.main()
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text(encoding="utf-8"))
    assert summary["test"] == ["set/held-1"]
    assert [(row["method"], row["region"], row["subjects"]) for row in summary["summary"] if row["scaling"] == "range"] == [
        ("T1-T2", "mask", 1), ("T1-T2", "volume", 1),
    ]  # fmt: skip
    assert all(0 < row["mae"] < 0.5 and 0 < row["ssim"] < 1 for row in summary["summary"])
    monkeypatch.setattr(sys, "argv", [*arguments, "--test", "set/held-1", "set/a"])
    with pytest.raises(SystemExit, match="trained on and cannot be test subjects: set/a"):
        evaluate_translator.main()


# --- Baselines -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    return [np.clip(head_phantom((24, 30, 28), 1.0) * gain, 0, 1) for gain in (0.9, 1.0, 1.1)]


def test_the_look_up_table_recovers_a_map_of_intensities(heads: list[np.ndarray]) -> None:
    targets = [np.where(head > 0, 0.9 - 0.8 * head**2, 0) for head in heads]
    table = LookUpTable().fit(heads[:2], targets[:2])
    predicted = table.predict(heads[2])
    assert np.abs(predicted - targets[2])[heads[2] < 0.75].max() < 0.8 * 2 / 256  # the map's slope times a bin
    assert (predicted[heads[2] == 0] == 0).all()


def test_the_look_up_table_interpolates_between_the_intensities_it_saw() -> None:
    source = np.array([[[0.0, 0.1, 0.9]]])
    table = LookUpTable().fit([source], [2 * source])
    assert table.predict(np.array([[[0.5, 0.0, 1.0]]])) == pytest.approx(np.array([[[1.0, 0.0, 1.8]]]), abs=0.01)


def test_the_random_forest_beats_the_table_on_a_map_that_depends_on_the_place(heads: list[np.ndarray]) -> None:
    towards = np.linspace(0.3, 1.0, 24)[:, None, None]
    targets = [head * towards for head in heads]
    errors = {}
    for name, method in (("table", LookUpTable()), ("forest", RandomForest(trees=8, voxels_per_subject=3000))):
        predicted = method.fit(heads[:2], targets[:2]).predict(heads[2])
        assert predicted.shape == heads[2].shape and (predicted[heads[2] == 0] == 0).all()
        errors[name] = np.abs(predicted - targets[2])[heads[2] > 0].mean()
    assert errors["forest"] < 0.5 * errors["table"]


def test_what_the_field_of_view_cut_off_is_not_learned():
    source = torch.full((1, 3, 4, 6), -1.0)
    source[..., 1:5] = 0.5  # the head; air on both sides
    target = source[:, 1:2].clone()
    target[..., :2, :] = -1.0  # its upper half was not acquired
    expected = torch.ones(1, 1, 4, 6)
    expected[..., :2, 1:5] = 0
    assert torch.equal(was_acquired(source, target), expected)
