"""The forest: its features are what they say, its evaluation is scikit-learn's, its runs repeat, and bad ones are refused."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import head_phantom, store
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter1d, map_coordinates

from IMTCore.architectures import ARCHITECTURES
from IMTCore.errors import BadInput, BadModel, Cancelled
from IMTCore.forest import MAX_DEPTH, RegressionForest
from IMTCore.forest_features import FeatureSpec, VolumeFeatures, smoothed
from IMTCore.volume_io import write_volume

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Resources" / "Training"))

import forest_fitting
import train_forest
from training_data import load_pairs

SPACING = (6.0, 4.0, 4.0)
SMALL = ["--source", "T1", "--target", "T2", "--train", "set/*", "--exclude", "set/held*", "--trees", "6", "--leaf", "4"]
SMALL += ["--voxels-per-subject", "1500", "--spacing-mm", "4", "--jobs", "1", "--auto-context"]


def translated(t1: np.ndarray) -> np.ndarray:
    """Another contrast of a phantom: dark for bright, and brighter towards the left."""
    return np.where(t1 > 0, (1100 - t1) * np.linspace(0.5, 1.0, t1.shape[2]), 0).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects to learn from, one without T2, and two held out, one of them unreadable."""
    root = tmp_path_factory.mktemp("data")
    for n, name in enumerate(("a", "b", "c", "held-1", "lone")):
        t1 = head_phantom((20, 40, 40 - n), 1000.0 + 20 * n)
        write_volume(root / "set" / name / "T1.nii.gz", store(t1, spacing_kji=SPACING))
        if name != "lone":
            write_volume(root / "set" / name / "T2.nii.gz", store(translated(t1), spacing_kji=SPACING))
    (root / "set" / "held-2").mkdir()
    for modality in ("T1", "T2"):
        (root / "set" / "held-2" / f"{modality}.nii.gz").write_bytes(b"not an image")
    return root


def train(data: Path, output: Path, *options: object) -> RegressionForest:
    train_forest.main(["--data", str(data), *SMALL, "--output", str(output), *map(str, options)])
    return train_forest.load_run(output)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both passes."""
    output = tmp_path_factory.mktemp("runs") / "both"
    train(data, output)
    return output


def prepared(data: Path, name: str) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float, float]]:
    """A subject's source and target [k, rows, columns] in [-1, 1], and their spacing."""
    config = train_forest.Config(str(data), "T1", "T2", (name,), spacing_mm=4.0)
    (pair,) = load_pairs(data, [name], [], "T1", ["T2"], [config.slicing], 1)
    return torch.from_numpy(pair.source.images), torch.from_numpy(pair.targets["T2"]).float(), pair.source.spacing


# --- Features ------------------------------------------------------------------------------------------------------

UNEVEN = (3.0, 1.0, 0.8)


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    """A smooth random image with its head in the middle."""
    random = np.random.default_rng(5).normal(size=(11, 18, 20))
    for axis, mm in enumerate(UNEVEN):
        random = gaussian_filter1d(random, 2 / mm, axis)
    image = np.full(random.shape, -1.0)
    image[1:9, 3:15, 2:18] = np.clip(random[1:9, 3:15, 2:18] / random.std() / 4, -0.7, 1)
    return torch.from_numpy(image.astype(np.float32))


def test_a_smoothing_is_a_gaussian_of_its_width_in_mm(noise: torch.Tensor) -> None:
    expected = noise.double().numpy()
    for axis, mm in enumerate(UNEVEN):
        expected = gaussian_filter1d(expected, 2.5 / mm, axis, mode="nearest", radius=int(np.ceil(4 * 2.5 / mm)))
    assert np.abs(smoothed(noise, UNEVEN, 2.5).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("neighbours", [0, 6, 26])
def test_features_are_the_patch_the_context_and_the_place(noise: torch.Tensor, neighbours: int) -> None:
    spec = FeatureSpec(1.2, neighbours, 2)
    voxels = np.array([[0, 0, 0], [4, 7, 9], [8, 14, 17], [10, 17, 19]])
    features = VolumeFeatures([noise], UNEVEN, spec).at(tuple(torch.from_numpy(voxels.T))).T.numpy()
    assert features.shape == (4, spec.count(1))
    sides = [np.eye(3)[axis] * sign for axis in range(3) for sign in (-1, 1)]
    cube = [np.array(o) for o in np.ndindex(3, 3, 3) if o != (1, 1, 1)]
    patch = {0: [], 6: sides, 26: [o - 1.0 for o in cube]}[neighbours]
    sampled = [(noise, 1.2 * np.array([np.zeros(3), *patch]))]
    sampled += [(smoothed(noise, UNEVEN, s), 2 * s * np.array([np.zeros(3), *sides])) for s in (1.2, 2.4)]
    expected = []
    for image, offsets in sampled:
        for offset in offsets:
            where = np.clip(voxels + offset / UNEVEN, 0, np.array(noise.shape) - 1)
            expected.append(map_coordinates(image.numpy().astype(np.float64), where.T, order=1))
    expected += list(((voxels - [1, 3, 2]) / [7, 11, 15]).T)
    assert np.abs(features - np.array(expected).T).max() < 1e-5


def test_features_are_of_mm_and_not_of_voxels() -> None:
    k, j, i = np.meshgrid(np.arange(24.0), np.arange(24.0), np.arange(24.0), indexing="ij")
    fine = torch.from_numpy((0.02 * k + 0.01 * j - 0.015 * i).astype(np.float32))
    coarse = fine[::2].contiguous()
    at = [torch.tensor([n]) for n in (12, 11, 13)]
    one = VolumeFeatures([fine], (1.0, 1.0, 1.0), FeatureSpec(1.0, 26, 2)).at(tuple(at))
    other = VolumeFeatures([coarse], (2.0, 1.0, 1.0), FeatureSpec(1.0, 26, 2)).at((at[0] // 2, *at[1:]))
    assert torch.allclose(one[:-3], other[:-3], atol=1e-3)
    assert float(one[:-3].max() - one[:-3].min()) > 0.1


# --- Evaluation ----------------------------------------------------------------------------------------------------


def test_the_evaluation_agrees_with_scikit_learn() -> None:
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(0)
    spec = FeatureSpec(1.0, 6, 0)
    # Few values a feature: many voxels lie exactly on the midpoints that scikit-learn splits at.
    features = random.choice(np.float32([0.1, 0.2, 0.3, 0.7]), (4000, spec.count(1)))
    features[:, 2] = random.normal(size=4000)
    values = np.tanh(features[:, 0] * features[:, 2] + features[:, 3])
    theirs = RandomForestRegressor(9, min_samples_leaf=3, max_features=0.5, random_state=0).fit(features, values)
    ours = forest_fitting.assemble(spec, [[forest_fitting.stored_tree(e.tree_) for e in theirs.estimators_]])
    halfway = (features[:2000] + features[2000:]) / 2
    for x in (features, halfway):
        predicted = ours.predict(0, torch.from_numpy(x.T.copy())).numpy()
        assert np.abs(predicted - theirs.predict(x)).max() < 1e-5
    assert np.ptp(predicted) > 0.5


def test_a_translation_does_not_depend_on_the_chunks_it_is_made_in(data: Path, run: Path, monkeypatch) -> None:
    forest = train_forest.load_run(run)
    images, _, spacing = prepared(data, "set/held-1")
    whole = forest.translate_volume(images, spacing)
    monkeypatch.setitem(sys.modules["IMTCore.forest"].CHUNK, "cpu", 100)
    assert torch.equal(forest.translate_volume(images, spacing), whole)


def test_a_stored_forest_translates_without_scikit_learn(data: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _, spacing = prepared(data, "set/held-1")
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"] + ["sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)  # from here on its import fails
    forest = RegressionForest(**json.loads((run / "arguments.json").read_text(encoding="utf-8")))
    forest.load_state_dict(load_file(run / "forest.safetensors"))
    with pytest.raises(ImportError):
        import sklearn.ensemble  # noqa: F401
    assert float(forest.translate_volume(images, spacing).std()) > 0.1


def test_progress_goes_over_all_slices_and_a_cancel_stops(data: Path, run: Path, monkeypatch) -> None:
    forest = train_forest.load_run(run)
    monkeypatch.setitem(sys.modules["IMTCore.forest"].CHUNK, "cpu", 2000)
    images, _, spacing = prepared(data, "set/held-1")
    told: list[int] = []
    forest.translate_volume(images, spacing, told.append)
    assert told == sorted(told) and told[-1] == len(images) and len(told) > 4
    told.clear()
    with pytest.raises(Cancelled):
        forest.translate_volume(images, spacing, told.append, lambda: len(told) == 2)
    assert len(told) == 2


def test_a_volume_without_head_stays_background() -> None:
    forest = RegressionForest(1, 1)
    nothing = torch.full((2, 3, 4), -1.0)
    assert torch.equal(forest.translate_volume(nothing, (1.0, 1.0, 1.0)), nothing)


# --- Training ------------------------------------------------------------------------------------------------------


def test_a_trained_forest_translates_an_unseen_head(data: Path, run: Path) -> None:
    images, target, spacing = prepared(data, "set/held-1")
    forest = train_forest.load_run(run)
    translation = forest.translate_volume(images, spacing)
    head = images > -1
    assert translation.shape == images.shape and translation.dtype == torch.float32
    assert (translation[~head] == -1).all() and float(translation.abs().max()) <= 1
    inner = head & (target > -0.99)
    error = (translation - target)[inner].abs().mean()
    spread = (target[inner] - target[inner].mean()).abs().mean()
    assert error < 0.2 * spread  # a place-dependent map: intensities alone leave about half of it


def test_context_and_auto_context_can_be_left_out(data: Path, tmp_path: Path) -> None:
    plain = train(data, tmp_path / "plain", "--no-context", "--no-auto-context", "--neighbours", 6)
    assert plain.arguments == {"trees": 6, "nodes": plain.nodes, "passes": 1, "step_mm": 4.0, "neighbours": 6, "levels": 0}
    assert int(plain.feature.max()) < 7 + 3


def test_the_second_forest_looks_at_the_first_translation(run: Path) -> None:
    forest = train_forest.load_run(run)
    one = forest.spec.count(1) - 3
    seen = set(forest.feature[1].unique().tolist())
    assert forest.passes == 2 and max(forest.feature[0].unique().tolist()) < one + 3
    assert seen & set(range(one, 2 * one)) and seen & set(range(one))


def test_the_same_seed_gives_the_same_forest_whatever_the_jobs(data: Path, run: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "again", "--jobs", 3)
    first = load_file(run / "forest.safetensors")
    again = load_file(tmp_path / "again" / "forest.safetensors")
    assert first.keys() == again.keys() == {"feature", "child", "number"}
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = train(data, tmp_path / "other", "--seed", 1, "--trees", 1, "--no-auto-context")
    assert not torch.equal(first["number"][0, 0, :20], other.number[0, 0, :20])


def test_a_run_says_what_it_was_made_from(data: Path, run: Path) -> None:
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert record["subjects"] == ["set/a", "set/b", "set/c"]  # not lone, nor held-2, whose files cannot be read
    assert record["exclude"] == ["set/held*"] and record["trees"] == 6 and record["command"]


def test_what_the_field_of_view_cut_off_is_not_learned() -> None:
    source = np.full((4, 5, 6), 0.5, np.float32)
    source[:, 0] = -1.0  # air
    target = source.copy()
    target[:, :, 3:] = -1.0
    usable = np.array([True, True, True, False])
    expected = np.zeros(source.shape, bool)
    expected[:3, 1:, :3] = True
    assert (forest_fitting.learnable(source, target, usable) == expected).all()


def test_subjects_come_from_a_saved_split(data: Path, tmp_path: Path) -> None:
    split = {"dataset": "set", "seed": 0, "train": ["set/a", "set/b"], "validate": ["set/c"], "test": ["set/held-1"]}
    (tmp_path / "split.json").write_text(json.dumps(split), encoding="utf-8")
    options = ["--data", str(data), "--split", str(tmp_path / "split.json"), "--output", str(tmp_path / "run")]
    config, _ = train_forest.parse(["--source", "T1", "--target", "T2", *options])
    assert set(config.train) == {"set/a", "set/b"} and set(config.exclude) == {"set/c", "set/held-1"}


# --- Bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "set/lone"], "set/lone has no T1 with T2"),
        (["--train", "set/none*"], r"set/none\* matches no subject"),
        (["--train", "set/a"], "Auto-context needs two subjects or more, and there is only set/a. Give --no-auto-context."),
        (["--train", "set/held-2", "set/a", "--exclude"], "set/held-2"),
        (["--trees", "0"], "--trees must be 1 to 500, not 0."),
        (["--share", "1.5"], "--share must be 0.001 to 1, not 1.5."),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(data: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        train(data, tmp_path / "run", *options)
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.json"))


def test_a_finished_run_is_not_overwritten(data: Path, run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(SystemExit, match="holds a finished run already. Choose another --output."):
        train(data, run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"holds no finished run of train_forest.py"):
        train_forest.load_run(tmp_path)
    with pytest.raises(BadInput, match="cannot be read as a split"):
        options = ["--data", "x", "--source", "T1", "--target", "T2", "--output", "y", "--split", str(tmp_path / "none.json")]
        train_forest.parse(options)


def small_forest() -> RegressionForest:
    """A root with two leaves, and two nodes of padding."""
    forest = RegressionForest(trees=2, nodes=5, neighbours=6, levels=0)
    forest.feature[:, :, 0], forest.child[:, :, 0] = 3, 1
    forest.number[:, :, 0], forest.number[:, :, 1], forest.number[:, :, 2] = 0.5, -0.2, 0.4
    return forest


def test_a_sound_forest_passes_its_check_and_gives_its_leaves() -> None:
    forest = small_forest()
    forest.check()
    features = torch.zeros(forest.spec.count(1), 3)
    features[3] = torch.tensor([0.4, 0.5, 0.6])
    assert forest.predict(0, features).tolist() == pytest.approx([-0.2, -0.2, 0.4])


@pytest.mark.parametrize(
    ("buffer", "at", "value", "message"),
    [
        ("child", 0, 0, "does not lie behind its parent"),  # for ever in the root
        ("child", 0, -3, "does not lie behind its parent"),
        ("child", 0, 4, "does not lie behind its parent"),  # its sibling would be in the next tree
        ("feature", 0, 10, "a feature that there is not"),
        ("feature", 0, -2, "a feature that there is not"),
        ("number", 1, float("nan"), "not finite"),
    ],
)
def test_a_hostile_forest_is_refused(buffer: str, at: int, value: float, message: str) -> None:
    forest = small_forest()
    getattr(forest, buffer)[0, 1, at] = value
    with pytest.raises(ValueError, match=message):
        forest.check()


def test_a_hostile_forest_cannot_take_for_ever() -> None:
    for depth in (MAX_DEPTH, MAX_DEPTH + 1):
        chain = RegressionForest(trees=1, nodes=2 * depth + 1)  # every second child splits again
        chain.feature[0, 0, : 2 * depth : 2] = 0
        chain.child[0, 0, : 2 * depth : 2] = torch.arange(1, 2 * depth, 2, dtype=torch.int32)
        chain.number[0, 0, -1] = 0.5
        if depth == MAX_DEPTH:
            chain.check()
            assert chain.predict(0, torch.ones(chain.spec.count(1), 2)).tolist() == [0.5, 0.5]
        else:
            with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
                chain.check()
    shared = RegressionForest(trees=1, nodes=61)  # each node's children are the next two: 2 to the 30 ways down
    shared.feature[0, 0, :59] = 0
    shared.child[0, 0, :59] = torch.arange(1, 60, dtype=torch.int32)
    with pytest.raises(ValueError, match="two parents"):
        shared.check()


def test_the_card_schema_is_the_constructor() -> None:
    known = ARCHITECTURES["forest"]
    parameters = inspect.signature(RegressionForest).parameters
    assert parameters.keys() == known.arguments.keys()
    assert {name for name, p in parameters.items() if p.default is p.empty} <= {
        n for n, (_, needed) in known.arguments.items() if needed
    }
    with pytest.raises(ValueError, match="neighbours must be 0, 6 or 26"):
        RegressionForest(1, 1, neighbours=5)


def test_a_forest_is_built_without_memory_and_takes_its_tensors_over(run: Path) -> None:
    given = train_forest.load_run(run)
    with torch.device("meta"):
        forest = RegressionForest(**given.arguments)
    forest.load_state_dict(given.state_dict(), assign=True)
    forest.check()
    assert forest.feature.dtype == torch.int16 and forest.child.dtype == torch.int32 and forest.number.dtype == torch.float32
