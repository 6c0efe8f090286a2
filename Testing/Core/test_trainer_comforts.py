"""The trainer's comforts: experiments as files, any loss and network, several processes, early stopping, pictures, errors."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from conftest import store
from training_runs import ONE_THREAD, TRAINING, assert_same, checkpoint, start, train, write_subject

from IMTCore.errors import BadInput
from IMTCore.networks import UNetGenerator
from IMTCore.volume_io import read_volume, write_volume

sys.path.insert(0, str(TRAINING))

from experiment import Config, read_config, read_split
from losses import local_ssim, reconstruction
from monitor import Monitor
from prediction import add_context, load_generators, translate_volume
from sampling import Batch, Sampler, cut
from trainer import Trainer
from trainer_arguments import parse
from training_data import Pair, load_pairs

CONFIGS = TRAINING / "configs"
# The folder also holds lists of experiments, for run_tables.py.
EXPERIMENTS = [path for path in sorted(CONFIGS.glob("*.json")) if "tasks" not in json.loads(path.read_text(encoding="utf-8"))]
SIZES = ("--filters", "4", "--depth", "5", "--size", "32")
LEARNT = ("step", "generator", "average", "discriminator", "adam_g", "adam_d", "torch_random", "numpy_random", "best")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with training_runs.one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects, and one to validate on."""
    root = tmp_path_factory.mktemp("data")
    for name, columns in (("a", 48), ("b", 46), ("v", 44)):
        write_subject(root / "set" / name, (24, 48, columns))
    return root


def base(data: Path, output: Path) -> list[object]:
    """The options of a tiny run."""
    return ["--data", data, "--output", output, "--source", "T1", "--targets", "T2", "--train", "set/[ab]", *SIZES]


def tiny(data: Path, **changes: object) -> Config:
    settings = {"filters": 4, "depth": 5, "size": 32, "steps": 100, **changes}
    return Config(str(data), "T1", ("T2",), ("set/[ab]",), **settings)


def pairs_of(config: Config) -> list[Pair]:
    return load_pairs(
        Path(config.data), config.train, [], config.source, config.targets, config.slicings, config.stride, config.layout
    )


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- Experiments as files ------------------------------------------------------------------------------------------

PUBLISHED = {
    "paper-cgan-l1": ({"l1": 100.0, "adversarial": 1.0, "batch": 1, "learning_rate": 2e-4, "beta1": 0.5}, 54_407_809),
    "paper-l1": ({"l1": 100.0, "adversarial": 0.0}, 54_407_809),
    "paper-cgan": ({"l1": 0.0, "adversarial": 1.0}, 54_407_809),
    "avula": ({"steps": 500 * 1000, "adversarial": 0.0}, None),  # no table of layers is published
    "ca-gan": ({"patch": 32, "batch": 10}, None),
}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_shipped_experiment_can_be_trained_and_is_as_published(path: Path) -> None:
    config = dataclasses.replace(Config("d", "T1", ("T2",), ("x/*",)), **read_config(path)).with_steps(100)
    config.check()
    with torch.device("meta"):
        generator, discriminator = config.generator(), config.discriminator()
    assert (discriminator is None) == (config.adversarial == 0)
    if path.stem in PUBLISHED:
        values, parameters = PUBLISHED[path.stem]
        assert {name: getattr(config, name) for name in values} == values
        assert parameters is None or sum(p.numel() for p in generator.parameters()) == parameters


def test_the_command_line_goes_over_the_file_and_the_file_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(json.dumps({"l1": 7, "seed": 3, "filters": 8, "neighbours_mm": [-2, 0, 2]}))
    (tmp_path / "mine.json").write_text(json.dumps({"base": "base.json", "seed": 4, "filters": 16}))
    given = ["--config", tmp_path / "mine.json", "--data", "d", "--source", "T1", "--targets", "T2", "--train", "x/*", "--filters", 32]
    config, _ = parse([str(word) for word in [*given, "--output", "o"]])
    assert (config.l1, config.seed, config.filters, config.neighbours_mm) == (7.0, 4, 32, (-2.0, 0.0, 2.0))
    assert config.batch == 1 and isinstance(config.l1, float)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"lerning_rate": 1}, "unknown settings: lerning_rate"),
        ({"filters": "many"}, "'filters' is 'many', but must be of type int"),
        ({"targets": "T2"}, "'targets' is 'T2', but must be of type tuple"),
        ({"network": "resnet"}, "--network resnet: use one of unet, encoder-decoder, context"),
        ({"l1": 0, "adversarial": 0}, "All weights of the losses are 0"),
        ({"steps": 0}, "--steps 0: it must be at least 1"),
        ({"patience": 3}, "--patience needs subjects to validate on"),
        ({"weights": ["set"]}, "--weights set: write DATASET=FACTOR"),
        ({"base": "missing.json"}, "missing.json cannot be read"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused_with_the_reason(tmp_path: Path, content: dict, said: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    given = {"data": "d", "source": "T1", "targets": "T2", "train": "x/*"}
    options = [word for name, value in given.items() if name not in content for word in (f"--{name}", value)]
    with pytest.raises(BadInput, match=said):
        parse(["--config", str(path), "--output", str(tmp_path), *options])


def test_a_split_names_the_subjects(data: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"seed": 0, "train": ["set/b"], "validate": ["set/v"], "test": ["set/a"]}))
    options = base(data, tmp_path / "run")
    at = options.index("--train")
    train(*options[:at], *options[at + 2 :], "--split", split, "--steps", 2, "--validate-every", 2)
    record = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert record["subjects"] == ["set/b"] and record["validate"] == ["set/v"] and record["exclude"] == ["set/a"]
    assert [row["step"] for row in rows(tmp_path / "run" / "validation.jsonl")] == [2]
    content = {"train": ["set/b"], "test": ["set/a"], "slices": {"set/b": [7, 5, 9], "set/a": [2]}}
    split.write_text(json.dumps(content))
    options = base(data, tmp_path / "few")
    said = train(*options[:at], *options[at + 2 :], "--split", split, "--steps", 1)
    assert "1 subjects, 3 slices" in said
    split.write_text(json.dumps({**content, "slices": {"set/b": [900]}}))
    options = base(data, tmp_path / "none")
    with pytest.raises(SystemExit, match=r"chose slice 900 of set/b"):
        train(*options[:at], *options[at + 2 :], "--split", split, "--steps", 1)
    split.write_text(json.dumps({"train": [], "test": ["set/a"]}))
    with pytest.raises(BadInput, match=r"split\.json has no training subjects"):
        read_split(split)
    split.write_text(json.dumps({"train": ["set/a", "set/b"], "test": ["set/b"]}))
    with pytest.raises(BadInput, match="set/b is in two parts of the split, train and test"):
        read_split(split)


# --- Losses and networks -------------------------------------------------------------------------------------------


def test_each_loss_is_its_formula() -> None:
    random = np.random.default_rng(0)
    fake, target = (random.uniform(-1, 1, (3, 2, 9, 11)).astype(np.float32) for _ in range(2))
    difference = (fake - target).astype(np.float64)
    steps = [(np.abs(np.diff(target, axis=n)) - np.abs(np.diff(fake, axis=n))) ** 2 for n in (2, 3)]
    expected = {
        "L1": np.abs(difference).mean(),
        "L2": (difference**2).mean(),
        "Euclidean": np.sqrt((difference**2).sum(axis=(2, 3))).mean(),
        "GDL": sum(step.mean() for step in steps),
    }
    names = {"l1": "L1", "l2": "L2", "euclidean": "Euclidean", "gdl": "GDL"}
    made, wanted = torch.from_numpy(fake), torch.from_numpy(target)
    for name, label in names.items():
        total, parts = reconstruction(made, wanted, torch.tensor(1.0), {name: 3.0})
        assert float(parts[label]) == pytest.approx(expected[label], rel=1e-5)
        assert float(total) == pytest.approx(3 * expected[label], rel=1e-5)
    total, _ = reconstruction(made, wanted, torch.tensor(1.0), {"l1": 1.0, "euclidean": 0.5})
    assert float(total) == pytest.approx(expected["L1"] + 0.5 * expected["Euclidean"], rel=1e-5)


def test_ssim_agrees_with_scikit_image_in_two_and_three_dimensions() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics", reason="scikit-image is the oracle").structural_similarity
    random = np.random.default_rng(1)
    for shape in ((20, 23), (12, 13, 14)):
        a, b = (random.uniform(-1, 1, shape) for _ in range(2))
        _, full = structural_similarity(a, b, win_size=7, data_range=2, full=True, use_sample_covariance=False)
        inner = full[tuple(slice(3, -3) for _ in shape)]
        assert np.allclose(local_ssim(*(torch.from_numpy(x)[None, None] for x in (a, b)))[0, 0], inner, atol=1e-6)


@pytest.mark.parametrize("l1", [0.0, 100.0])
def test_without_l1_the_generator_learns_from_the_discriminator_alone(data: Path, l1: float) -> None:
    trainer = Trainer(tiny(data, l1=l1, dropout_blocks=0), pairs_of(tiny(data)))
    batch = trainer.next_batch()
    mirrored = dataclasses.replace(batch, target=-batch.target)
    gradients = []
    for one in (batch, mirrored):
        trainer.discriminator.load_state_dict({k: torch.zeros_like(v) for k, v in trainer.discriminator.state_dict().items()})
        trainer.adam_g.zero_grad()
        trainer.learn(one)
        gradients.append(trainer.generator.decoder[-1].weight.grad.clone())
    # A discriminator of zeros judges all alike, so what is left is the loss to the target.
    assert (float(gradients[0].abs().max()) == 0) == (l1 == 0)


@pytest.mark.parametrize("network", ["encoder-decoder", "context"])
def test_the_rivals_networks_learn_here_too(data: Path, tmp_path: Path, network: str) -> None:
    options = {
        "encoder-decoder": ["--config", CONFIGS / "avula.json", "--epochs", 1, "--epoch-images", 40],
        "context": ["--config", CONFIGS / "ca-gan.json", "--spacing-mm", 6, "--batch", 1, "--filters", 1, "--steps", 12],
    }[network]
    rate = ["--learning-rate", 0.005, "--checkpoint-every", 4, "--augmentation", "none"]
    train(*base(data, tmp_path / "run"), *options, *rate)
    log = rows(tmp_path / "run" / "log.jsonl")
    assert log[-1]["step"] == {"encoder-decoder": 40, "context": 12}[network]  # one epoch of 40 images
    term = {"encoder-decoder": "Euclidean", "context": "L2"}[network]
    assert log[-1][term] < 0.7 * log[0][term]


def test_auto_context_sees_the_translation_of_the_stage_before(data: Path, tmp_path: Path) -> None:
    options = ["--config", CONFIGS / "ca-gan.json", "--spacing-mm", 6, "--batch", 1, "--filters", 1, "--steps", 2]
    train(*base(data, tmp_path / "one"), *options)
    train(*base(data, tmp_path / "two"), *options, "--context-of", tmp_path / "one")
    config, generators = load_generators(tmp_path / "two")
    assert [generator.in_channels for generator in generators] == [1, 2] and config.in_channels == 2
    pair = pairs_of(config)[0]
    expected = translate_volume(generators[0], pair)
    add_context([pair], config, torch.device("cpu"))
    batch = Sampler([pair], dataclasses.replace(config, augmentation="none")).draw()
    place = [int(n) for n in batch.origin.rpartition("(")[2].rstrip(")").split(", ")]
    corner = [n - 16 for n in place]
    assert batch.source.shape == (1, 2, 32, 32, 32)
    for channel, volume in enumerate((pair.source.images, expected)):
        assert np.array_equal(batch.source[0, channel].numpy(), cut(volume, corner, 32).astype(np.float32))
    with pytest.raises(SystemExit, match="cannot be the stage before: its filters is 1, not 2"):
        train(*base(data, tmp_path / "three"), *options, "--filters", 2, "--context-of", tmp_path / "one")


def test_patches_lie_around_the_head_and_beyond_the_volume_is_background() -> None:
    volume = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    assert np.array_equal(cut(volume, [9, -3, 2], 3), volume[1:4, 0:3, 2:5])
    padded = cut(volume, [0, 0, 0], 6)
    assert np.array_equal(padded[:4, :5], volume) and (padded[4:] == -1).all() and (padded[:, 5:] == -1).all()


def test_one_network_learns_from_three_planes(data: Path, tmp_path: Path) -> None:
    config = tiny(data, planes=("axial", "coronal", "sagittal"))
    pairs = pairs_of(config)
    assert [(p.name, p.source.spec.plane) for p in pairs] == [(s, plane) for s in ("set/a", "set/b") for plane in config.planes]
    sampler = Sampler(pairs, config)
    drawn = {sampler.draw().origin.split(" slices")[0] for _ in range(60)}
    assert drawn == {f"{p.name}, {p.source.spec.plane}" for p in pairs}
    train(*base(data, tmp_path / "run"), "--planes", *config.planes, "--steps", 2)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["planes"] == list(config.planes)


@pytest.mark.parametrize("layout", ["torch", "lua"])
def test_the_torch7_variant_has_no_biases_in_its_convolutions(data: Path, layout: str) -> None:
    trainer = Trainer(tiny(data, unet_layout=layout), pairs_of(tiny(data)))
    for _ in range(2):
        trainer.run_step()
    biases = [m.bias for n in (trainer.generator, trainer.discriminator) for m in n.modules() if "Conv" in type(m).__name__]
    there = [bias for bias in biases if bias is not None]
    assert len(there) == {"torch": 1 + 2, "lua": 10 + 2}[layout]
    assert all(bool(bias.any()) == (layout == "torch") for bias in there)


# --- The time budget -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_a_budget_ends_training_and_the_schedule_with_it(data: Path, tmp_path: Path, clock: str) -> None:
    options = ["--budget-s", 0.5, "--budget-clock", clock, "--schedule", "cosine", "--checkpoint-every", 1, "--steps", 400]
    train(*base(data, tmp_path / "run"), *options)
    state, log = checkpoint(tmp_path / "run"), rows(tmp_path / "run" / "log.jsonl")
    assert state["seconds"] >= 0.5 and all(row["seconds"] <= 0.5 for row in log[:-1])
    config = Config.from_record(state["config"])
    trainer = Trainer(config, pairs_of(config))
    for share, factor in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        trainer.seconds = share * config.budget_s
        assert trainer.learning_rate() == pytest.approx(factor * config.learning_rate, abs=1e-9)
    step = state["step"]
    train(*base(data, tmp_path / "run"), *options)  # spent: there is nothing left to do
    assert checkpoint(tmp_path / "run")["step"] == step


# --- The same bits, whatever helps ---------------------------------------------------------------------------------


def test_drawing_ahead_changes_nothing(data: Path) -> None:
    states = []
    for ahead in (0, 3):
        trainer = Trainer(tiny(data), pairs_of(tiny(data)), prefetch=ahead)
        for _ in range(4):
            trainer.run_step()
        states.append(trainer.state())
        trainer.close()
    assert_same({k: states[0][k] for k in states[0] if k != "seconds"}, {k: states[1][k] for k in states[1] if k != "seconds"})


def test_a_run_with_every_comfort_resumes_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    options = ["--steps", 9, "--ema", 0.9, "--validate", "set/v", "--validate-every", 2, "--patience", 9, "--prefetch", 3]
    options += ["--precision", "bf16", "--gradient-checkpointing", "--channels-last", "--deterministic", "--checkpoint-every", 3]
    train(*base(data, tmp_path / "whole"), *options)
    train(*base(data, tmp_path / "broken"), *options, "--stop-at", 5)
    # A run that went on and was killed before its next checkpoint left a line, and half a line.
    with open(tmp_path / "broken" / "validation.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"step": 6, "mae": 9.0}\n{"step": 8, "ma')
    train(*base(data, tmp_path / "broken"), *options)
    whole, broken = (checkpoint(tmp_path / name) for name in ("whole", "broken"))
    assert_same({key: broken[key] for key in LEARNT}, {key: whole[key] for key in LEARNT})
    assert rows(tmp_path / "broken" / "validation.jsonl") == rows(tmp_path / "whole" / "validation.jsonl")
    assert_same(checkpoint(tmp_path / "broken", "best.pt"), checkpoint(tmp_path / "whole", "best.pt"))
    assert not all(torch.equal(whole["average"][k], whole["generator"][k]) for k in whole["generator"])


def test_recomputed_activations_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    network, image = UNetGenerator(1, 1, 4, 5), torch.rand(1, 1, 32, 32) * 2 - 1
    gradients = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        torch.manual_seed(1)  # dropout is on
        network(image).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert_same(gradients[0], gradients[1])
    assert all(bool(gradient.any()) for gradient in gradients[0])


# --- Several processes ---------------------------------------------------------------------------------------------

# The trainer's own command, after which every process leaves its generator's weights.
WORKER = """
import sys
sys.path.insert(0, {training!r})
import torch, train_translator, training_run
whole = training_run.TrainingRun.run
def run(self):
    whole(self)
    torch.save(self.trainer.generator.state_dict(), f"{{self.output}}/rank-{{self.trainer.processes.rank}}.pt")
training_run.TrainingRun.run = run
train_translator.main()
"""


def train_in_two(folder: Path, *options: object) -> None:
    worker = folder / "worker.py"
    worker.write_text(WORKER.format(training=str(TRAINING)), encoding="utf-8")
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, worker, *options, "--device", "cpu")
    said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said


def gradients_of_the_joint_batch(config: Config) -> Trainer:
    """A trainer that made one step on the first batches of both processes at once."""
    pairs = pairs_of(config)
    batches = [Sampler(pairs, config, rank).draw() for rank in range(2)]
    assert not torch.equal(batches[0].source, batches[1].source)
    joint = Batch(*(torch.cat([getattr(b, n) for b in batches]) for n in ("source", "target", "counts")), "both", "")
    trainer = Trainer(config, pairs)
    trainer.learn(joint)
    return trainer


def test_two_processes_learn_one_network_from_the_joint_batch_and_resume(data: Path, tmp_path: Path) -> None:
    options = ["--steps", 4, "--dropout-blocks", 0, "--ssim", 5, "--checkpoint-every", 1]
    train_in_two(tmp_path, *base(data, tmp_path / "whole"), *options)
    train_in_two(tmp_path, *base(data, tmp_path / "broken"), *options, "--stop-at", 1)
    first = checkpoint(tmp_path / "broken")
    alone = gradients_of_the_joint_batch(Config.from_record(first["config"]))
    for name in ("adam_g", "adam_d"):
        # After one step Adam's first moment is (1 - beta1) times the gradient.
        ours, theirs = (s["state"] for s in (getattr(alone, name).state_dict(), first[name]))
        assert first["step"] == 1 and len(ours) == len(theirs) > 0
        for n, moments in ours.items():
            scale = float(moments["exp_avg"].abs().max())
            assert torch.allclose(moments["exp_avg"], theirs[n]["exp_avg"], rtol=0, atol=1e-4 * scale), (name, n)

    train_in_two(tmp_path, *base(data, tmp_path / "broken"), *options)
    whole, broken = (checkpoint(tmp_path / name) for name in ("whole", "broken"))
    learnt = [key for key in LEARNT if key != "best"]
    assert_same({key: broken[key] for key in learnt}, {key: whole[key] for key in learnt})
    weights = [checkpoint(tmp_path / "whole", f"rank-{n}.pt") for n in range(2)]
    assert_same(weights[0], weights[1])
    assert_same(dict(weights[0]), dict(whole["generator"]))
    assert whole["step"] == 4 and whole["numpy_random"][0] != whole["numpy_random"][1]
    assert not torch.equal(*whole["torch_random"])  # each has its own dropout


def test_a_run_of_two_processes_is_not_resumed_by_one(data: Path, tmp_path: Path) -> None:
    train(*base(data, tmp_path / "run"), "--steps", 2, "--stop-at", 1)
    state = checkpoint(tmp_path / "run")
    state |= {name: 2 * state[name] for name in ("torch_random", "numpy_random")}
    torch.save(state, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(SystemExit, match="is of 2 processes, this run has 1"):
        train(*base(data, tmp_path / "run"), "--steps", 2)


# --- Early stopping ------------------------------------------------------------------------------------------------


def test_training_stops_early_and_keeps_the_best(data: Path, tmp_path: Path) -> None:
    options = ["--steps", 50, "--validate", "set/v", "--validate-every", 2, "--patience", 3, "--learning-rate", 0]
    train(*base(data, tmp_path / "run"), *options, "--stop-at", 5)  # patience outlasts a break
    said = train(*base(data, tmp_path / "run"), *options)
    assert "stopped early: no validation after step 2 was better" in said
    state, best = checkpoint(tmp_path / "run"), checkpoint(tmp_path / "run", "best.pt")
    assert state["step"] == 8 and state["best"]["step"] == best["step"] == 2
    assert best["mae"] == state["best"]["mae"] == pytest.approx(rows(tmp_path / "run" / "validation.jsonl")[0]["mae"], abs=1e-6)
    assert_same(dict(best["average"]), dict(state["generator"]))  # at rate 0 nothing changed since
    train(*base(data, tmp_path / "run"), *options)
    assert checkpoint(tmp_path / "run")["step"] == 8


def test_validation_errors_are_those_of_the_volume(data: Path, tmp_path: Path) -> None:
    train(*base(data, tmp_path / "run"), "--steps", 2, "--validate", "set/v", "--validate-every", 2)
    (row,) = rows(tmp_path / "run" / "validation.jsonl")
    config, (generator,) = load_generators(tmp_path / "run", "best.pt")
    (pair,) = pairs_of(dataclasses.replace(config, train=("set/v",)))
    with torch.no_grad():
        made = generator(torch.from_numpy(pair.source.batch([int(k) for k in pair.slices]))).numpy()[:, 0]
    error = np.abs(made - pair.targets["T2"][pair.slices]) / 2
    assert row["mae"] == pytest.approx(error.mean(), rel=1e-3)
    assert row["volume_mse"] == pytest.approx((error**2).mean(axis=(1, 2)).sum(), rel=1e-3)
    assert "set/v" not in json.loads((tmp_path / "run" / "config.json").read_text())["subjects"]


# --- Pictures ------------------------------------------------------------------------------------------------------


def test_pictures_and_boards_are_drawn_and_go_on_after_a_resume(data: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard reads its files")
    plt = pytest.importorskip("matplotlib.image", reason="matplotlib draws the pictures")
    options = ["--steps", 6, "--monitor-every", 2, "--tensorboard", "--checkpoint-every", 3]
    train(*base(data, tmp_path / "run"), *options, "--stop-at", 4)
    train(*base(data, tmp_path / "run"), *options)
    folder = tmp_path / "run" / "monitor"
    assert sorted(path.name for path in folder.glob("*.png")) == ["progress.png", *(f"step-0000000{n}.png" for n in (2, 4, 6))]
    with np.load(folder / "predictions.npz") as kept:
        assert sorted(kept.files) == ["2", "4", "6"]
        assert not np.array_equal(kept["2"], kept["6"])
    for path in folder.glob("*.png"):
        image = plt.imread(path)
        assert min(image.shape[:2]) > 150 and image[..., :3].std() > 0.1
    board = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("training/L1")] == [3, 4, 6]
    logged = {row["step"]: row["L1"] for row in rows(tmp_path / "run" / "log.jsonl")}
    assert [round(event.value, 3) for event in board.Scalars("training/L1")] == [round(logged[n], 3) for n in (3, 4, 6)]
    assert [event.step for event in board.Images("input, prediction, truth")] == [2, 4, 6]


def test_the_strip_shows_input_prediction_and_truth(data: Path, tmp_path: Path) -> None:
    config = tiny(data)
    pair = pairs_of(config)[0]
    generator = config.generator().eval()
    monitor = Monitor(tmp_path, pair, config)
    strip = monitor.draw(generator, 1, {"L1": 0.5})
    k = monitor.slice
    with torch.no_grad():
        made = generator(torch.from_numpy(pair.source.batch([k])))[0, 0].numpy()
    expected = [(image + 1) / 2 for image in (pair.source.images[k], made, pair.targets["T2"][k].astype(np.float32))]
    assert np.allclose(strip, np.concatenate(expected, axis=1), atol=1e-5)


# --- What goes wrong -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_checkpoint(data: Path, tmp_path: Path) -> None:
    options = ["--steps", 50, "--checkpoint-every", 1, "--adversarial", 0, "--learning-rate", "1e38"]
    with pytest.raises(SystemExit) as stopped:
        train(*base(data, tmp_path / "run"), *options)
    said = str(stopped.value)
    assert "Training failed at step " in said and "is not a finite number on set/" in said and "smaller --learning-rate" in said
    step = int(said.split("at step ")[1].split(":", maxsplit=1)[0])
    assert checkpoint(tmp_path / "run")["step"] == step - 1 >= 1
    assert all(math.isfinite(row["L1"]) for row in rows(tmp_path / "run" / "log.jsonl"))


def test_a_full_disk_leaves_the_last_checkpoint(data: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="only POSIX can limit the size of files")
    options = [*base(data, tmp_path / "run"), "--steps", 6, "--device", "cpu"]
    train(*options, "--stop-at", 2)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    limit = len(before) // 2

    def no_more_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, str(TRAINING / "train_translator.py"), *map(str, options)]
    done = subprocess.run(
        command, env={**os.environ, **ONE_THREAD}, preexec_fn=no_more_room, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"Cannot write {tmp_path / 'run' / 'checkpoint.pt'}: it is larger than the system allows" in done.stderr
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".imt-*"))
    train(*options)
    assert checkpoint(tmp_path / "run")["step"] == 6


def test_a_request_to_end_writes_a_checkpoint_first(data: Path, tmp_path: Path) -> None:
    options = [*base(data, tmp_path / "run"), "--steps", 10**6, "--checkpoint-every", 10]
    process = start(TRAINING / "train_translator.py", *options, "--device", "cpu")
    for line in process.stdout:
        if line.startswith('{"step": 10,'):
            process.send_signal(signal.SIGTERM)
            break
    said = process.communicate(timeout=60)[0]
    state = checkpoint(tmp_path / "run")
    assert process.returncode == 1 and f"Stopped at step {state['step']}: the same command goes on from there." in said


def test_an_output_that_cannot_be_written_is_refused_before_the_data_are_read(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match="a file is in the way of its folder"):
        train(*base(data / "missing", tmp_path / "file" / "run"))


@pytest.fixture
def wrong(data: Path, tmp_path: Path) -> Path:
    """Subjects that cannot be trained on, each for one reason."""
    root = tmp_path / "wrong"
    write_subject(root / "set" / "alone", (24, 48, 48), ("T1",))
    write_subject(root / "set" / "broken", (24, 48, 48))
    (root / "set" / "broken" / "T2.nii.gz").write_bytes(b"not an image")
    write_subject(root / "set" / "shifted", (24, 48, 48))
    write_subject(root / "set" / "empty", (24, 48, 48))
    write_subject(root / "set" / "p1_study1", (24, 48, 48))
    write_subject(root / "set" / "p1_study2", (24, 48, 48))
    t2 = read_volume(root / "set" / "shifted" / "T2.nii.gz")
    moved = store(np.zeros((24, 48, 48), np.float32), spacing_kji=(6.0, 4.0, 5.0))
    write_volume(root / "set" / "shifted" / "T2.nii.gz", moved.with_array(t2.array))
    write_volume(root / "set" / "empty" / "T2.nii.gz", t2.with_array(np.zeros_like(t2.array)))
    return root


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["set/alone"], r"set/alone has no T1 with T2 \(it has T1\)"),
        (["set/broken"], r"set/broken, image T2: .*T2\.nii\.gz"),
        (["set/shifted"], r"set/shifted: T2 .* is not on the grid of T1"),
        (["set/empty"], r"set/empty, image T2: .*T2\.nii\.gz is constant"),
        (["set/nobody"], "set/nobody is no subject in"),
        (["other/*"], r"other/\* matches no subject in"),
        (["set/a*"], "No training subjects with T1 and T2"),
        (["set/p1_study1", "--exclude", "set/p1_study2"], "set/p1_study1 would be trained on, but set/p1_study2 of the same patient"),
    ],
)
def test_a_subject_that_cannot_be_trained_on_is_named(wrong: Path, tmp_path: Path, patterns: list[str], said: str) -> None:
    options = ["--data", wrong, "--output", tmp_path / "run", "--source", "T1", "--targets", "T2", *SIZES, "--steps", 1, "--train", *patterns]
    with pytest.raises(SystemExit, match=said):
        train(*options)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--precision", "fp16"], "The CPU does not compute in fp16"),
        (["--network", "encoder-decoder", "--gradient-checkpointing"], "--gradient-checkpointing is for --network unet"),
        (["--initial", "missing.pt"], "missing.pt cannot be read as a checkpoint"),
        (["--size", "40"], r"A slice size of \(40, 40\) is not a multiple of the network's stride, 32"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(data: Path, tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        train(*base(data, tmp_path / "run"), "--steps", 1, *options)


def test_a_damaged_checkpoint_is_named_and_left_alone(data: Path, tmp_path: Path) -> None:
    train(*base(data, tmp_path / "run"), "--steps", 1)
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SystemExit, match=r"checkpoint\.pt cannot be read as a checkpoint"):
        train(*base(data, tmp_path / "run"), "--steps", 1)
    assert path.stat().st_size == 1000


def test_another_generator_may_be_the_start(data: Path, tmp_path: Path) -> None:
    train(*base(data, tmp_path / "first"), "--steps", 2)
    train(*base(data, tmp_path / "second"), "--steps", 1, "--learning-rate", 0, "--initial", tmp_path / "first" / "checkpoint.pt")
    assert_same(dict(checkpoint(tmp_path / "second")["generator"]), dict(checkpoint(tmp_path / "first")["generator"]))
    with pytest.raises(SystemExit, match="holds a generator of another shape"):
        train(*base(data, tmp_path / "third"), "--filters", 6, "--initial", tmp_path / "first" / "checkpoint.pt")
