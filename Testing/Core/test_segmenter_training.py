"""Training of segmenters: channels, stages, resuming, skull stripping, packages, scores; real steps of tiny networks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_heads import run_main, write_heads, write_translator
from training_runs import assert_same, checkpoint

from IMTCore.label_scores import FALSE, MISSING, RIGHT
from IMTCore.volume_io import read_volume, write_volume
from IMTSegmentLib.segmentation import SegmentationSettings, Segmenter
from IMTSegmentLib.segmenter_cards import read_segmenter_card

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Resources" / "Training"))

import evaluate_segmenter
import export_segmenter
import train_segmenter
from datasets import find_subjects
from segmentation_cases import config_for
from segmentation_pictures import best_and_worst, coloured
from segmenter_arguments import config_from, parse
from segmenter_augmentation import augment, move
from segmenter_config import SegmenterConfig
from segmenter_data import examples_of, find_labelled, load_examples, prepare_subject
from segmenter_losses import soft_dice_loss
from segmenter_sampling import SegmenterSampler, share_of
from segmenter_second import SecondModality, blurred, shuffled
from segmenter_trainer import SegmenterTrainer
from segmenter_validation import segment_subject

HEADS = ("heads/a", "heads/b", "heads/c", "heads/d_ses-1")
UNET = [
    "--given", "T1", "--labels", "tissues", "--network", "unet", "--filters", 8, "--depth", 2, "--spacing-mm", 5, "--batch", 8, "--steps", 8,
    "--checkpoint-every", 4, "--device", "cpu",
]  # fmt: skip
TRAIN = ["--train", "heads/*", "--exclude", "heads/d_ses-1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads with skull, one without, in two data sets; `translator.json` is a tiny T1 to FLAIR model."""
    root = tmp_path_factory.mktemp("data")
    write_heads(root, HEADS)
    write_heads(root, ("bare/e",), skull_stripped=True, seed=9)
    return root


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_translator(tmp_path_factory.mktemp("translator"))


def train(data: Path, output: Path, *options: object) -> str:
    return run_main(train_segmenter.main, "--data", data, *UNET, *TRAIN, "--output", output, *options)


def refused(data: Path, output: Path, *options: object) -> str:
    with pytest.raises(SystemExit) as caught:
        train(data, output, *options)
    return str(caught.value.code)


def settings(data: Path, **changes: object) -> SegmenterConfig:
    """The training of `UNET`, with changes."""
    config, _ = parse(list(map(str, ["--data", data, *UNET, *TRAIN, "--output", "none"])))
    return replace(config, **changes)


def tms(data: Path, translator: Path, second_from: str = "translated") -> SegmenterConfig:
    return settings(data, channels=("given", "given", "second"), second="FLAIR", second_from=second_from, translator=str(translator))


def subject_of(data: Path, name: str = "heads/a"):
    (subject,) = find_subjects(data, patterns=[name])
    return subject


def log(output: Path, name: str = "log.jsonl") -> list[dict]:
    return [json.loads(line) for line in (output / name).read_text(encoding="utf-8").splitlines()]


# --- Channels ------------------------------------------------------------------------------------------------------


def test_channels_are_what_they_say(data: Path, translator: Path) -> None:
    config = tms(data, translator)
    second = SecondModality(config, "cpu")
    examples = load_examples([subject_of(data)], config, second)
    assert examples[0].images.shape[1] == 2  # each image once
    batch = SegmenterSampler(examples, config).draw()
    assert batch.images.shape[:2] == (8, 3) and torch.equal(batch.images[:, 0], batch.images[:, 1])
    assert not torch.equal(batch.images[:, 1], batch.images[:, 2])
    alone = SegmenterSampler(load_examples([subject_of(data)], replace(config, channels=("given",) * 3)), replace(config, channels=("given",) * 3))
    assert torch.equal(alone.draw().images[:, 2], batch.images[:, 0])


def test_the_second_image_is_read_translated_or_a_control(data: Path, translator: Path) -> None:
    subject, made = subject_of(data), {}
    for kind in ("real", "translated", "shuffled", "blurred"):
        config = tms(data, translator, kind)
        if kind == "real":
            config = replace(config, translator="")
        said: list[str] = []
        (prepared,) = prepare_subject(subject, config, SecondModality(config, "cpu", say=said.append))
        made[kind] = prepared.second.array
        assert ("control" in said[0]) == (kind in ("shuffled", "blurred")) and "FLAIR" in said[0]
    assert np.array_equal(made["real"], subject.volume("FLAIR").array)
    slices = [frozenset(map(bytes, made[kind])) for kind in ("translated", "shuffled")]
    assert slices[0] == slices[1]  # the same slices,
    filled = (made["translated"] != 0).any(axis=(1, 2))
    assert not (made["translated"] == made["shuffled"]).all(axis=(1, 2))[filled].any()  # none in its place
    inside = made["translated"] != 0
    assert np.array_equal(made["blurred"] != 0, inside) and made["blurred"][inside].std() < made["translated"][inside].std()


def test_shuffling_depends_on_the_subject_and_blurring_keeps_a_constant(data: Path) -> None:
    volume = subject_of(data).volume("T1")
    one, other = shuffled(volume, "heads/a"), shuffled(volume, "heads/b")
    assert np.array_equal(one.array, shuffled(volume, "heads/a").array) and not np.array_equal(one.array, other.array)
    flat = volume.with_array(np.where(volume.array > 0, 7.0, 0.0).astype(np.float32))
    assert np.allclose(blurred(flat, 20.0).array, flat.array, atol=1e-4)


def test_stored_translations_are_those_made_anew_and_a_damaged_one_is_named(data: Path, translator: Path, tmp_path: Path) -> None:
    config, given = tms(data, translator), subject_of(data).volume("T1")
    first = SecondModality(config, "cpu", tmp_path).volume("heads/a", given)
    (stored,) = tmp_path.iterdir()
    again = SecondModality(config, "cpu", tmp_path)
    assert np.array_equal(again.volume("heads/a", given).array, first.array) and again._translator is None
    again.volume("heads/a", given.with_array(given.array * 2))  # another image is another translation
    assert len(list(tmp_path.iterdir())) == 2
    stored.write_bytes(b"no array")
    with pytest.raises(Exception, match="is damaged .*Remove it"):
        again.volume("heads/a", given)


# --- Training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(data: Path, translator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of TMS in three planes that has learnt something, with pictures and validation."""
    output = tmp_path_factory.mktemp("runs") / "learned"
    options = ["--channels", "given", "given", "second", "--second", "FLAIR", "--translator", translator, "--planes", "axial", "coronal"]
    options += ["--augmentation", "none", "--learning-rate", 2e-2, "--schedule", "constant", "--validate", "heads/c", "--validate-every", 30]
    train(data, output, *options, "--steps", 60, "--monitor-every", 60, "--checkpoint-every", 20)
    return output


def test_the_loss_falls_and_unseen_heads_are_segmented(learned: Path) -> None:
    losses = [row["loss"] for row in log(learned)]
    assert len(losses) == 3 and losses[-1] < 0.6 * losses[0]
    validation = log(learned, "validation.jsonl")
    assert [row["step"] for row in validation] == [30, 60] and max(row["dice"] for row in validation) > 0.55
    best = max(validation, key=lambda row: row["dice"])
    assert checkpoint(learned, "best.pt")["step"] == best["step"]
    record = json.loads((learned / "config.json").read_text(encoding="utf-8"))
    assert record["subjects"] == ["heads/a", "heads/b"] and record["validated"] == ["heads/c"]
    assert record["translator_card"]["name"] == "T1-FLAIR-tiny"
    picture = (learned / "monitor" / "step-00000060.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_a_resumed_run_has_the_same_bits(data: Path, tmp_path: Path) -> None:
    options = ["--augmentation", "strong", "--strip-share", 0.5, "--validate", "heads/c", "--validate-every", 3, "--class-weights", "median"]
    train(data, tmp_path / "whole", *options)
    assert "stopped at step 3 of 8" in train(data, tmp_path / "broken", *options, "--stop-at", 3)
    assert "resumed at step 3" in train(data, tmp_path / "broken", *options, "--prefetch", 0)
    for name in ("checkpoint.pt", "best.pt"):
        assert_same(checkpoint(tmp_path / "whole", name), checkpoint(tmp_path / "broken", name))
    assert [row["step"] for row in log(tmp_path / "broken", "validation.jsonl")] == [3, 6, 8]
    said = refused(data, tmp_path / "whole", *options, "--filters", 5)
    assert "another experiment (differs in filters). Choose another --output" in said


def test_fcn_stages_start_from_each_other(data: Path, tmp_path: Path) -> None:
    fcn = [
        "--network", "fcn", "--width", 1 / 32, "--padding", 0, "--mode", "spatial", "--stages", "32s", "16s", "--steps", 3,
        "--checkpoint-every", 1, "--augmentation", "none",
    ]  # fmt: skip
    said = train(data, tmp_path / "two", *fcn, "--stop-at", 3)
    assert "starts from random weights, unlike the published FCN" in said
    one, other = checkpoint(tmp_path / "two"), None
    train(data, tmp_path / "alone", *fcn, "--stages", "32s")
    other = checkpoint(tmp_path / "alone")
    assert one["phase"] == "16s" and other["phase"] == "32s"
    assert_same({name: one["network"][name] for name in other["network"]}, other["network"])
    assert set(one["network"]) - set(other["network"]) == {"score_pool4.weight", "score_pool4.bias"}
    assert not one["network"]["score_pool4.weight"].any()  # the new skip changes nothing yet
    assert "FCN-16s only" not in train(data, tmp_path / "two", *fcn)
    assert [row["stage"] for row in log(tmp_path / "two")] == ["32s"] * 3 + ["16s"] * 3
    groups = checkpoint(tmp_path / "two")["optimiser"]["param_groups"]
    assert [(g["lr"], g["weight_decay"], g["momentum"]) for g in groups] == [(1e-4, 5e-4, 0.99), (2e-4, 0.0, 0.99)]


def test_the_defaults_are_the_papers_and_a_unet_has_its_own(data: Path) -> None:
    fcn = config_from({"data": str(data), "given": "T1", "labels": "tumour", "train": ("heads/*",)})
    assert (fcn.network, fcn.stages, fcn.padding, fcn.dropout, fcn.optimiser, fcn.batch) == ("fcn", ("32s", "16s", "8s"), 100, 0.5, "sgd", 1)
    assert (fcn.learning_rate, fcn.momentum, fcn.weight_decay, fcn.loss, fcn.mode, fcn.size) == (1e-4, 0.99, 5e-4, "cross-entropy", "paper", 256)
    assert fcn.classes == ("tumour=1,2,3,4",) and fcn.codes == [1]
    unet = settings(data)
    assert (unet.optimiser, unet.learning_rate, unet.schedule, unet.loss) == ("adam", 1e-3, "cosine", "cross-entropy+dice")


def test_pretraining_starts_from_the_other_runs_network(data: Path, learned: Path, translator: Path, tmp_path: Path) -> None:
    options = ["--channels", "given", "given", "given", "--augmentation", "none", "--steps", 1]
    train(data, tmp_path / "next", *options, "--init-from", learned, "--learning-rate", 1e-12)
    state, before = checkpoint(tmp_path / "next"), checkpoint(learned, "best.pt")
    assert all(torch.allclose(state["network"][name], value, atol=1e-9) for name, value in before["network"].items())
    assert state["initial"] == f"learned after {before['step']} steps on 2 subjects"
    assert "another shape than this training's" in refused(data, tmp_path / "wrong", *options, "--init-from", learned, "--filters", 5)


def test_soft_dice_is_one_minus_the_overlap() -> None:
    truth = torch.tensor([[[0, 1, 1], [2, 2, 0]]]).repeat(1, 40, 40)
    sure = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1).float() * 40
    assert soft_dice_loss(sure, truth).item() == pytest.approx(0, abs=1e-4)
    assert soft_dice_loss(sure[:, [0, 2, 1]], truth).item() == pytest.approx(1, abs=1e-2)


def test_a_loss_that_is_no_number_names_the_subject(data: Path, tmp_path: Path) -> None:
    options = ["--optimiser", "sgd", "--learning-rate", "1e12", "--schedule", "constant", "--checkpoint-every", 1]
    assert "The loss is" in (said := refused(data, tmp_path, *options, "--steps", 40)) and "(heads/" in said and "Lower --learning-rate" in said


# --- Draws ---------------------------------------------------------------------------------------------------------


def test_stripping_leaves_the_labelled_region_and_its_own_normalisation(data: Path) -> None:
    config = settings(data, strip_share=0.25)
    whole, bare = prepare_subject(subject_of(data), config, strip=True)
    assert bare.stripped and not whole.stripped and whole.paired and bare.paired
    labelled = whole.classes > 0
    assert np.array_equal(bare.given.array[labelled], whole.given.array[labelled])
    outside = (bare.given.array == 0) & (whole.given.array > 0)
    assert outside.sum() > 0.2 * (whole.given.array > 0).sum() and not (outside & labelled).any()
    # Fat no longer sets the scale: the same grey matter is brighter.
    grey = whole.classes == 2
    levels = [v.axes.invert(v.normalisation.apply(v.axes.apply(p.given.array)))[grey].mean() for p in (whole, bare) for v in p.views]
    assert levels[1] > 1.1 * levels[0]
    (same,) = prepare_subject(subject_of(data, "bare/e"), config, strip=True)  # it has no skull to lose
    assert not same.stripped and not same.paired


def test_draws_follow_the_weights_and_the_share_without_skull(data: Path) -> None:
    config = settings(data, train=("heads/a", "bare/e"), strip_share=0.25, weights=("bare/*=3",))
    subjects = find_labelled(config, config.train, (), "training")
    shares = {(e.name, e.stripped): share_of(e, config) for e in load_examples(subjects, config)}
    assert shares == {("bare/e", False): 3.0, ("heads/a", False): 0.75, ("heads/a", True): 0.25}


def test_images_and_classes_move_together_and_only_left_and_right_are_mirrored(data: Path) -> None:
    (example,) = load_examples([subject_of(data)], settings(data))
    classes = torch.from_numpy(example.classes[3:6])
    pattern = classes[:, None].float() * 2 / 3 - 1  # an image that is its own label map
    for seed in range(3):
        image, moved = move(pattern, classes, [15.0, 0.2, 0.08], np.random.default_rng(seed))
        assert (torch.round((image[:, 0] + 1) * 1.5) == moved).float().mean() > 0.93 and not torch.equal(moved, classes)
    sagittal = [augment(pattern, classes, "sagittal", "mild", np.random.default_rng(seed))[1] for seed in range(12)]
    axial = [augment(pattern, classes, "axial", "mild", np.random.default_rng(seed))[1] for seed in range(12)]
    assert not any(torch.equal(c, classes.flip(-1)) for c in sagittal) and any(torch.equal(c, classes.flip(-1)) for c in axial)


def test_augmented_images_stay_in_range_and_keep_their_background(data: Path) -> None:
    (example,) = load_examples([subject_of(data)], settings(data))
    images, classes = torch.from_numpy(example.images[2:8].astype(np.float32)), torch.from_numpy(example.classes[2:8])
    for seed in range(6):
        changed, _ = augment(images, classes, "axial", "strong", np.random.default_rng(seed))
        assert changed.min() == -1 and changed.max() <= 1 and torch.isfinite(changed).all() and not torch.equal(changed, images)


# --- Packages and scores -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    written = {
        "name": "tissue-tiny", "version": "0.1", "title": "Tissue, for tests", "task": "tissue", "weights": {"licence": "CC0-1.0"},
        "classes": [{"name": "Grey matter", "colour": [1, 2, 3]}], "training": {"notes": "Heads of shells."}, "intended_use": "Tests.", "limits": ["Tiny."],
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(written), encoding="utf-8")
    scores = {"test": ["heads/d_ses-1"], "summary": [{"structure": "gm", "dice": 0.5}]}
    (folder / "summary.json").write_text(json.dumps(scores), encoding="utf-8")
    options = ["--precision", "fp32", "--scores", folder / "summary.json", "--folder", folder / "models"]
    said = run_main(export_segmenter.main, "--run", learned, "--card", folder / "card.json", *options)
    assert "tissue-tiny.json: " in said
    return folder / "models" / "tissue-tiny.json"


def test_an_exported_package_gives_the_runs_own_prediction(data: Path, learned: Path, translator: Path, package: Path) -> None:
    config = SegmenterConfig.from_record(json.loads((learned / "config.json").read_text(encoding="utf-8")), "run")
    trainer = SegmenterTrainer(config, [], torch.device("cpu"))
    trainer.network.load_state_dict(checkpoint(learned, "best.pt")["network"])
    (prepared,) = prepare_subject(subject_of(data, "heads/d_ses-1"), config, SecondModality(config, "cpu"))
    own = segment_subject(trainer.network, prepared, config)
    found = {}
    for second in (None, prepared.second):  # translated by the segmenter itself, or given
        model = str(translator) if second is None else None
        segmenter = Segmenter(read_segmenter_card(package), SegmentationSettings("cpu", "fp32", translator=model, check_modality=False))
        found[second is None] = segmenter.segment(prepared.given, second).labels.array
    assert np.array_equal(found[False], own) and (found[True] == own).mean() > 0.999
    assert all((own == number).any() for number in (1, 2, 3))


def test_the_card_holds_what_a_person_wrote_and_what_the_run_decided(package: Path, translator: Path) -> None:
    content = json.loads(package.read_text(encoding="utf-8"))
    assert [(entry["code"], entry["name"]) for entry in content["classes"]] == [(1, "csf"), (2, "Grey matter"), (3, "wm")]
    assert content["classes"][1]["colour"] == [1, 2, 3] and content["slicing"]["planes"] == ["axial", "coronal"]
    sha256 = json.loads(translator.read_text(encoding="utf-8"))["weights"]["sha256"]
    assert content["second"] == {"modality": "FLAIR", "translator": {"name": "T1-FLAIR-tiny", "sha256": sha256}}
    assert content["training"]["held_out"] == ["heads/d_ses-1"] and "Heads of shells." in content["training"]["notes"]
    assert content["metrics"] == [{"dataset": "heads", "structure": "gm", "dice": 0.5}]
    low, high = content["accepts"]["median"]
    assert 0 < low < high < 1


def test_a_package_is_scored_and_its_best_and_worst_are_drawn(data: Path, package: Path, translator: Path, tmp_path: Path) -> None:
    base = ["--data", data, "--model", f"TMS={package}", "--labels", "tissues", "--device", "cpu", "--translator", translator]
    with pytest.raises(SystemExit, match="was trained on heads/a"):
        run_main(evaluate_segmenter.main, *base, "--test", "heads/a", "--output", tmp_path / "seen")
    run_main(evaluate_segmenter.main, *base, "--test", "heads/d_ses-1", "heads/c", "--seen", "--output", tmp_path)
    report = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    rows = {row["structure"]: row for row in report["summary"]}
    assert report["test"] == ["heads/c", "heads/d_ses-1"] and set(rows) == {"all", "csf", "gm", "wm"}
    assert rows["wm"]["dice"] > 0.5 and rows["wm"]["hausdorff_95_mm"] >= 0 and rows["all"]["accuracy"] > 0.7
    assert abs(rows["wm"]["difference_ml"] - (rows["wm"]["found_ml"] - rows["wm"]["truth_ml"])) < 1e-3
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {f"{s}-{w}.png" for s in ("csf", "gm", "wm") for w in ("best", "worst")}
    with pytest.raises(SystemExit, match="does not segment tumour; it segments csf, Grey matter, wm"):
        run_main(evaluate_segmenter.main, *base, "--test", "heads/c", "--classes", "tumour=1", "--output", tmp_path / "other")


def test_regions_have_the_papers_colours_and_ranks_follow_dice() -> None:
    shown = coloured(np.array([[0, RIGHT], [FALSE, MISSING]]))
    pink, red, grey = shown[0, 1, :3], shown[1, 0, :3], shown[1, 1, :3]
    assert shown[0, 0, 3] == 0 and pink[0] > 0.9 and red[0] > 0.5 and red[1] == red[2] == 0 and grey[0] == grey[1] == grey[2]
    rows = [{"subject": s, "structure": "gm", "dice": d} for s, d in (("a", 0.4), ("b", 0.9), ("c", None), ("d", 0.6))]
    assert best_and_worst(rows, "gm") == [("best", "b", 0.9), ("worst", "a", 0.4)]


# --- Refused -------------------------------------------------------------------------------------------------------


def test_a_patient_is_never_on_both_sides(data: Path, tmp_path: Path) -> None:
    for name, subject in (("a", "a"), ("d_ses-1", "b"), ("d_ses-2", "c")):
        (tmp_path / "heads").mkdir(exist_ok=True)
        (tmp_path / "heads" / name).symlink_to(data / "heads" / subject, target_is_directory=True)
    assert "heads/d_ses-2 would be trained on, but heads/d_ses-1 of the same patient is held out" in refused(tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--channels", "given", "second"], "say which modality with --second"),
        (["--channels", "given", "second", "--second", "FLAIR"], "--second-from translated needs --translator"),
        (["--channels", "second"], "at least one channel must be given"),
        (["--second", "FLAIR"], "are for --channels with second"),
        (["--channels", "given", "second", "--second", "T2", "--second-from", "real"], "No training subjects with T1, T2 and tissues"),
        (["--classes", "gm=2", "wm=2"], "the code 2 is of gm and of wm"),
        (["--classes", "gm=2", "cortex=9"], "No training subject has a pixel of cortex"),
        (["--labels", "atlas"], "classes of 'atlas' are not known"),
        (["--weights", "heads"], "write PATTERN=FACTOR"),
        (["--mode", "paper", "--size", 30], "--size 30 is not a multiple of the network's stride, 4"),
        (["--network", "fcn", "--padding", 7], "padding must be"),
        (["--network", "fcn", "--stages", "32s", "8s"], "--stages must follow each other"),
        (["--strip-share", 2], "it must be a share from 0 to 1"),
        (["--validate", "heads/x"], "heads/x is no subject"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(data: Path, tmp_path: Path, options: list[object], said: str) -> None:
    assert said in refused(data, tmp_path / "run", *options)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_translator_of_other_modalities_or_that_saw_the_subjects_is_named(data: Path, translator: Path, tmp_path: Path) -> None:
    options = ["--channels", "given", "second", "--second", "T2", "--translator", translator]
    assert "translates T1 to FLAIR, not T1 to T2" in refused(data, tmp_path / "run", *options)
    said = train(data, tmp_path / "run", *options[:-3], "FLAIR", *options[-2:], "--steps", 1)
    assert "note: The card of model T1-FLAIR-tiny does not say which subjects it was trained on" in said


def test_settings_for_a_package_have_its_channels(package: Path) -> None:
    config = config_for(read_segmenter_card(package), "shuffled", "T1-FLAIR-tiny")
    assert (config.given, config.second, config.channels, config.images) == ("T1", "FLAIR", ("given", "given", "second"), ("given", "second"))


def test_slices_of_the_grid_have_the_volumes_classes(data: Path) -> None:
    config = settings(data, spacing_mm=4.5, planes=("axial",))
    (prepared,) = prepare_subject(subject_of(data), config)
    (example,) = examples_of(prepared, config)
    area = 5.0 * 4.5 / 4.5**2  # a voxel's in pixels
    for number in (1, 2, 3):
        assert (example.classes == number).sum() == pytest.approx(area * (prepared.classes == number).sum(), rel=0.1)


def test_labels_on_another_grid_are_refused(data: Path, tmp_path: Path) -> None:
    t1, labels = (read_volume(data / "heads" / "a" / f"{name}.nii.gz", constant=True) for name in ("T1", "tissues"))
    write_volume(tmp_path / "heads" / "a" / "T1.nii.gz", t1)
    shifted = replace(labels, geometry=replace(labels.geometry, origin_lps=labels.geometry.origin_lps + 3), header=None)
    write_volume(tmp_path / "heads" / "a" / "tissues.nii.gz", shifted)
    with pytest.raises(SystemExit, match="heads/a: tissues .* is not on the grid of T1"):
        run_main(train_segmenter.main, "--data", tmp_path, *UNET, "--train", "heads/*", "--output", tmp_path / "run")
