"""Segmentation of volumes: labels on the input's grid whatever that is, from a given and a real or translated second image."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from conftest import ORIENTATIONS, head_phantom, rotation_matrix, store
from network_checks import one_thread  # noqa: F401
from packages import write_tiny_package
from tiny_segmenters import tiny_segmenter_card, tiny_segmenter_network, write_tiny_segmenter
from torch.nn import functional as F

import IMTCore
from IMTCore.cards import ModelCard, read_card
from IMTCore.errors import BadInput, BadModel, Cancelled, ImtError, OutputFailure
from IMTCore.label_names import read_label_names
from IMTCore.preparation import prepare
from IMTCore.settings import TranslationSettings
from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import icbm152_tissues
from IMTCore.translation import Translator
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTSegmentLib.channels import second_images, stack_channels
from IMTSegmentLib.comparison import compare_labels
from IMTSegmentLib.probability_files import read_probabilities, save_probabilities
from IMTSegmentLib.segment_files import segment_file
from IMTSegmentLib.segmentation import SegmentationSettings, Segmenter
from IMTSegmentLib.segmentation_inputs import prepare_segmentation, read_segmentation
from IMTSegmentLib.segmentation_outputs import SegmentationOutputs
from IMTSegmentLib.segmentation_results import choose_labels
from IMTSegmentLib.segmenter_cards import SegmenterCard, read_segmenter_card
from IMTSegmentLib.segmenter_packages import save_segmenter

HEAD = head_phantom()
SPACING_KJI = (2.0, 2.0, 2.5)
PLANES = ("axial", "coronal", "sagittal")
PAIR = ("given", "given", "second")
BORDER = 400.0  # between the phantom's dark and bright tissue


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory):
    """The translator lies in the user's own folder, where a card's name is looked up."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_package(folder)
    return folder


@pytest.fixture(autouse=True)
def users(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMT_MODELS", str(models))


@pytest.fixture(scope="module")
def translator(models: Path) -> ModelCard:
    return read_card(models / "T1-T2.json")


@pytest.fixture(scope="module")
def tms(tmp_path_factory: pytest.TempPathFactory, translator: ModelCard) -> SegmenterCard:
    """Random weights, three planes, channels [given, given, translated]."""
    return write_tiny_segmenter(tmp_path_factory.mktemp("tms"), channels=PAIR, translator=translator, planes=PLANES)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> SegmenterCard:
    """Random weights, the given image alone."""
    return write_tiny_segmenter(tmp_path_factory.mktemp("single"), seed=3, planes=PLANES)


def segmenter(card: SegmenterCard, **settings) -> Segmenter:
    return Segmenter(card, SegmentationSettings(**{"device": "cpu", "precision": "fp32", "check_modality": False, **settings}))


def head(**options) -> Volume:
    return store(HEAD, **{"spacing_kji": SPACING_KJI, **options})


def other_contrast(volume: Volume) -> Volume:
    """Dark where the given image is bright, 0 outside the head."""
    return volume.with_array(np.where(volume.array > 0, 1200 - volume.array, 0).astype(np.float32), "second")


# --- Labels on the input's grid ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SegmenterCard:
    """A model that has learnt to tell dark from bright tissue of the phantom, at 2 mm."""
    card = tiny_segmenter_card(codes=(10, 20), slicing={"plane": "axial", "mode": "spatial", "spacing_mm": 2.0})
    card["network"]["arguments"]["filters"] = 8
    view = prepare(acquired(), SegmenterCard(Path("card.json"), card).slicing, 4)
    border = 2 * float(view.normalisation.apply(np.array(BORDER))) - 1
    truth = torch.from_numpy(np.select([view.images <= -0.999, view.images < border], [0, 1], 2))
    network = tiny_segmenter_network(card, seed=1).train()
    x = torch.from_numpy(view.images[:, None])
    optimiser = torch.optim.Adam(network.parameters(), 2e-2)
    for _ in range(80):
        loss = F.cross_entropy(network(x), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return save_segmenter(tmp_path_factory.mktemp("trained"), card, network, torch.float32)


def acquired(voxels: tuple[int, int, int] = HEAD.shape, **options) -> Volume:
    """The same head, 34 × 46 × 40 mm between its outer voxels' centres, in so many voxels [k, j, i]."""
    spacing = [extent / (n - 1) for extent, n in zip((34, 46, 40), voxels, strict=True)]
    return store(head_phantom(voxels), spacing_kji=tuple(spacing), **options)


def truth_of(volume: Volume) -> Volume:
    """The phantom's two tissues by their intensity."""
    return volume.with_array(np.select([volume.array == 0, volume.array < BORDER], [0, 10], 20).astype(np.uint8), "truth")


ACQUISITIONS = {
    "as trained": {},
    "flipped": {"orientation": ((0, 1, 2), (True, True, True))},
    "sagittal, oblique": {"orientation": ((2, 0, 1), (True, False, True)), "rotation": rotation_matrix(3, 25.0)},
    "thick slices": {"voxels": (8, 24, 21)},
    "fine pixels": {"voxels": (18, 40, 37)},
    "coarse rows": {"voxels": (18, 18, 30)},
}


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_labels_lie_on_the_structures_however_the_image_was_acquired(trained: SegmenterCard, acquisition: str) -> None:
    volume = acquired(**ACQUISITIONS[acquisition])
    result = segmenter(trained).segment(volume)
    assert result.labels.geometry is volume.geometry and result.labels.array.dtype == np.uint8
    dice = {entry.code: entry.dice for entry in compare_labels(result.labels, truth_of(volume), result.names)}
    assert set(dice) == {10, 20} and min(dice.values()) > (0.93 if acquisition == "as trained" else 0.85), dice


def test_a_single_slice_gives_what_it_gives_among_its_copies(trained: SegmenterCard) -> None:
    work = segmenter(trained)
    alone, stack = (work.segment(store(np.repeat(HEAD[9:10], n, axis=0), spacing_kji=(5.0, 2.0, 2.0))) for n in (1, 3))
    assert alone.labels.array.shape == (1, *HEAD.shape[1:]) and len(np.unique(alone.labels.array)) == 3
    assert np.abs(alone.probabilities - stack.probabilities[:, 1:2]).max() < 0.02  # percentiles of fewer voxels


@pytest.mark.parametrize("orientation", ORIENTATIONS[1::9])
def test_the_labels_do_not_depend_on_the_stored_axes(tms: SegmenterCard, orientation) -> None:
    axes, flips = orientation
    work, rotation = segmenter(tms), rotation_matrix(3, 25.0)
    plain, turned = (work.segment(head(orientation=o, rotation=rotation)) for o in (ORIENTATIONS[0], orientation))
    for first, second in ((plain.labels.array[None], turned.labels.array[None]), (plain.probabilities, turned.probabilities)):
        expected = np.flip(first.transpose(0, *(1 + a for a in axes)), [1 + n for n in range(3) if flips[n]])
        assert np.abs(expected.astype(np.float64) - second).max() < 1e-4


# --- Probabilities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["paper", "spatial"])
def test_probabilities_add_up_to_one_and_the_labels_are_the_largest(tmp_path: Path, mode: str) -> None:
    card = write_tiny_segmenter(tmp_path, mode=mode, codes=(7, 3, 5))
    result = segmenter(card).segment(head())
    probabilities = result.probabilities
    assert probabilities.shape == (4, *head().array.shape) and probabilities.dtype == np.float32
    assert np.abs(probabilities.sum(axis=0) - 1).max() < 1e-5 and probabilities.min() >= 0
    assert np.array_equal(result.labels.array, np.array([0, 7, 3, 5])[probabilities.argmax(axis=0)])
    assert len(np.unique(result.labels.array)) > 2  # else the claim would mean little
    assert np.all(probabilities[0][head().array == 0] == 1) and not result.labels.array[head().array == 0].any()
    assert np.array_equal(result.probability(3).array, probabilities[2])


def test_the_planes_probabilities_are_averaged(single: SegmenterCard, tmp_path: Path) -> None:
    volume = head(orientation=((1, 2, 0), (False, True, False)))
    each = []
    for plane in PLANES:
        content = {**single.content, "slicing": {"plane": plane, "mode": "spatial"}}
        (tmp_path / plane).mkdir()
        (tmp_path / plane / single.weights_path.name).write_bytes(single.weights_path.read_bytes())
        (tmp_path / plane / "card.json").write_text(json.dumps(content), encoding="utf-8")
        each.append(segmenter(read_segmenter_card(tmp_path / plane / "card.json")).segment(volume).probabilities)
    assert np.abs(each[0] - each[1]).max() > 0.05
    result = segmenter(single).segment(volume)
    assert np.abs(result.probabilities - np.mean(each, axis=0)).max() < 1e-5
    assert result.record["planes"] == list(PLANES)


def test_the_batch_changes_nothing(tms: SegmenterCard) -> None:
    one, many = (segmenter(tms, batch=batch).segment(head()) for batch in (1, 7))
    assert np.abs(one.probabilities - many.probabilities).max() < 1e-4
    assert np.array_equal(one.labels.array, many.labels.array)


def test_of_equal_probabilities_the_first_class_wins() -> None:
    probabilities = np.array([[0.4, 0.2, 0.1], [0.4, 0.4, 0.2], [0.2, 0.4, 0.7]], np.float32).reshape(3, 1, 1, 3)
    labels, best = choose_labels(probabilities, [300, 4])
    assert labels.tolist() == [[[0, 300, 4]]] and labels.dtype == np.uint16
    assert np.allclose(best, [[[0.4, 0.4, 0.7]]])


def test_full_memory_halves_the_batch_and_says_so(single: SegmenterCard) -> None:
    """A network that asks for too much, as a device with little memory would see it."""
    said: list[str] = []
    expected = segmenter(single).segment(head())
    work = Segmenter(single, SegmentationSettings(device="cpu", precision="fp32", batch=8, check_modality=False), said.append)
    work.runner.network.register_forward_pre_hook(refuse_more_than(2))
    assert np.abs(work.segment(head()).probabilities - expected.probabilities).max() < 1e-5
    assert work.runner.batch == 2 and [text for text in said if "now 2 slices" in text]
    work.runner.network.register_forward_pre_hook(refuse_more_than(0))
    with pytest.raises(ImtError, match="single slice"):
        work.segment(head())


def refuse_more_than(most: int):
    def hook(_, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")

    return hook


def test_a_network_that_gives_no_numbers_is_an_error(single: SegmenterCard) -> None:
    work = segmenter(single)
    work.runner.network.score.bias.fill_(float("nan"))
    with pytest.raises(ImtError, match="not numbers"):
        work.segment(head())


def test_cancelling_ends_it(single: SegmenterCard) -> None:
    asked = []
    with pytest.raises(Cancelled):
        segmenter(single, batch=1).segment(head(), cancelled=lambda: bool(asked.append(1)) or len(asked) > 3)
    assert len(asked) == 4


def test_progress_names_the_stages_and_ends_at_one(tms: SegmenterCard) -> None:
    told: list[tuple[str, float]] = []
    segmenter(tms).segment(head(), progress=lambda stage, share, _: told.append((stage, share)))
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["prepare", "load", "translate", "segment"]
    for stage in ("translate", "segment"):
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares) and shares[-1] == 1


# --- Statistics ----------------------------------------------------------------------------------------------------


def test_statistics_count_voxels_millilitres_and_confidence(single: SegmenterCard) -> None:
    result = segmenter(single).segment(head())
    for entry in result.statistics:
        inside = result.labels.array == entry.code
        assert entry.voxels == int(inside.sum())
        if not entry.voxels:
            assert np.isnan(entry.confidence) and f"No voxel of head was labelled {entry.name}." in result.warnings
            continue
        assert entry.volume_ml == pytest.approx(entry.voxels * 2.0 * 2.0 * 2.5 / 1000, rel=1e-6)
        assert entry.confidence == pytest.approx(float(result.probability(entry.code).array[inside].mean()), rel=1e-5)
        assert 1 / 4 < entry.confidence <= 1
    assert [entry.name for entry in result.statistics] == ["CSF", "grey matter", "white matter"]
    assert sum(entry.voxels > 0 for entry in result.statistics) >= 2


def test_an_empty_segmentation_is_said_and_is_no_error(tmp_path: Path) -> None:
    card = tiny_segmenter_card()
    network = tiny_segmenter_network(card)
    with torch.no_grad():
        network.score.bias[0] = 50
    result = segmenter(save_segmenter(tmp_path, card, network)).segment(head())
    assert not result.labels.array.any()
    assert all(entry.voxels == 0 and np.isnan(entry.confidence) for entry in result.statistics)
    assert any("Nothing was found in head" in text for text in result.warnings)


# --- The second image ----------------------------------------------------------------------------------------------


def test_a_translation_takes_part_where_no_second_image_is_given(tms: SegmenterCard, translator: ModelCard) -> None:
    result = segmenter(tms).segment(head())
    settings = TranslationSettings(device="cpu", precision="fp32", check_modality=False)
    expected = Translator(translator, settings).translate(head()).translation
    assert np.allclose(result.second.array, expected.array, atol=1e-3)
    assert result.derived and result.record["second"]["origin"] == "translated" and result.record["second"]["as_trained"]
    as_given = segmenter(tms).segment(head(), expected)
    assert np.abs(as_given.probabilities - result.probabilities).max() < 1e-4
    assert not as_given.derived and as_given.record["second"]["origin"] == "given" and as_given.translation is None


def test_the_second_image_counts(tms: SegmenterCard) -> None:
    first, second = (segmenter(tms).segment(head(), image).probabilities for image in (head(), other_contrast(head())))
    assert np.abs(first - second).max() > 0.05


def test_channels_are_what_they_say() -> None:
    volume = head(orientation=((2, 1, 0), (False, True, False)))
    spec = SegmenterCard(Path("card.json"), tiny_segmenter_card()).slicing
    view = prepare(volume, spec, 4)
    images = second_images(view, other_contrast(volume), 99.5)
    assert images.shape == view.images.shape and images.min() >= -1 and images.max() <= 1
    stacked = stack_channels(view, images, ("given", "second", "given"), [8, 5])
    assert stacked.shape == (2, 3, *images.shape[1:]) and stacked.dtype == np.float32
    assert np.array_equal(stacked[:, 0], view.images[[8, 5]]) and np.array_equal(stacked[:, 1], images[[8, 5]])
    assert np.array_equal(stack_channels(view, None, ("given",))[:, 0], view.images)
    assert np.array_equal(second_images(view, volume, 99.5), view.images), "the given image as its own second is itself"
    with pytest.raises(BadInput, match="another size"):
        second_images(view, Volume(HEAD[:9], Geometry(HEAD[:9].shape, (1, 1, 1), (0, 0, 0), np.eye(3)), "short"), 99.5)


def test_a_second_image_on_another_grid_is_resampled_and_reported(tms: SegmenterCard) -> None:
    given = head(rotation=rotation_matrix(3, 15.0))
    smooth = other_contrast(given)
    on_grid = segmenter(tms).segment(given, smooth)
    turned = other_contrast(head(rotation=rotation_matrix(3, 15.0), orientation=((2, 0, 1), (True, False, False))))
    result = segmenter(tms).segment(given, turned)
    assert np.abs(result.probabilities - on_grid.probabilities).max() < 1e-3, "the same voxels in another order"
    assert result.second.geometry.is_close(given.geometry)
    assert any("another grid" in text for text in result.warnings)
    assert not any("another grid" in text for text in on_grid.warnings)


def test_a_second_image_that_covers_a_part_is_reported(tms: SegmenterCard) -> None:
    part = store(HEAD[4:13], spacing_kji=SPACING_KJI)
    lifted = Geometry(part.geometry.shape, part.geometry.spacing_mm, part.geometry.origin_lps + [0, 0, 8.0], part.geometry.direction)
    result = segmenter(tms).segment(head(), Volume(part.array, lifted, "part"))
    assert any("covers only" in text for text in result.warnings)


def test_a_second_image_elsewhere_is_refused(tms: SegmenterCard) -> None:
    away = replace(head().geometry, origin_lps=np.array([500.0, 0, 0]))
    with pytest.raises(BadInput, match="do not overlap"):
        segmenter(tms).segment(head(), Volume(HEAD, away, "far away"))


def test_a_second_image_that_no_channel_takes_is_refused(single: SegmenterCard) -> None:
    with pytest.raises(BadInput, match="alone"):
        segmenter(single).segment(head(), other_contrast(head()))
    with pytest.raises(BadInput, match="--translator"):
        segmenter(single, translator="T1-T2").segment(head())


def test_a_second_image_and_a_translator_exclude_each_other(tms: SegmenterCard) -> None:
    with pytest.raises(BadInput, match="exclude each other"):
        segmenter(tms, translator="T1-T2").segment(head(), other_contrast(head()))


def test_a_missing_translator_is_refused_with_what_to_do(tms: SegmenterCard, tmp_path: Path, monkeypatch) -> None:
    content = json.loads(json.dumps(tms.content))
    content["second"]["translator"]["name"] = "T1-nothing"
    card = SegmenterCard(tms.path, content)
    with pytest.raises(BadModel, match=r"T1-nothing.*not here.*--translator.*--second"):
        segmenter(card).segment(head())
    assert segmenter(card, translator="T1-T2").segment(head()).record["second"]["model"]["name"] == "T1-T2"
    assert segmenter(card).segment(head(), other_contrast(head())).labels.array.any(), "a given image needs none"


def test_a_translator_of_another_hash_is_refused_unless_it_is_chosen(tms: SegmenterCard, tmp_path: Path, monkeypatch) -> None:
    other = write_tiny_package(tmp_path / "other", seed=9)
    monkeypatch.setenv("IMT_MODELS", str(other.parent))
    with pytest.raises(BadModel, match=r"is not the one.*SHA-256"):
        segmenter(tms).segment(head())
    chosen = segmenter(tms, translator=str(other)).segment(head())
    assert chosen.record["second"]["as_trained"] is False


def test_a_translator_of_another_pair_is_refused(tms: SegmenterCard, tmp_path: Path) -> None:
    other = write_tiny_package(tmp_path, name="T2-PD", source="T2", target="PD")
    with pytest.raises(BadModel, match="does not translate T1 to T2"):
        segmenter(tms, translator=str(other)).segment(head())


def test_a_model_without_a_translator_asks_for_one(tmp_path: Path) -> None:
    card = write_tiny_segmenter(tmp_path, channels=PAIR)
    with pytest.raises(BadInput, match=r"needs a T2 image.*--second.*--translator"):
        segmenter(card).segment(head())
    assert segmenter(card, translator="T1-T2").segment(head()).derived


def test_the_translators_views_are_shared_where_both_slice_alike(tms: SegmenterCard, translator: ModelCard, tmp_path: Path) -> None:
    settings = SegmentationSettings(check_modality=False)
    apart = prepare_segmentation(head(), None, tms, settings, translator)  # strides 4 and 8
    assert apart.translation.views[0].images is not apart.views[0].images
    content = tiny_segmenter_card(channels=PAIR, translator=translator)
    content["network"]["arguments"]["depth"] = 3
    card = save_segmenter(tmp_path, content, tiny_segmenter_network(content))
    together = prepare_segmentation(head(), None, card, settings, translator)
    assert together.translation.views[0].images is together.views[0].images
    assert together.translation.views[0].spec == translator.slicing


def test_the_translations_mark_says_what_was_unusual_about_the_given_image(tmp_path: Path, translator: ModelCard, image: Path) -> None:
    card = write_tiny_segmenter(tmp_path / "model", channels=PAIR, translator=translator, accepts={"median": [0.0, 0.01]})
    result = segment_file(segmenter(card), image, outputs_in(tmp_path / "out"))
    mark = json.loads((tmp_path / "out" / "T2.json").read_text(encoding="utf-8"))
    assert len(mark["warnings"]) == 1 and mark["warnings"][0] in result.warnings and "histogram" in mark["warnings"][0]


# --- Bad input -----------------------------------------------------------------------------------------------------


def test_a_label_map_is_refused(single: SegmenterCard) -> None:
    with pytest.raises(BadInput, match="label map"):
        segmenter(single).segment(head().with_array((HEAD > 300).astype(np.uint8)))


def test_a_head_of_impossible_size_is_refused_in_the_models_words(single: SegmenterCard) -> None:
    with pytest.raises(BadInput, match="tissue-T1 can segment"):
        segmenter(single).segment(head(spacing_kji=(0.01, 0.01, 0.01)))


def test_an_image_that_surely_shows_another_modality_is_refused(tms: SegmenterCard, single: SegmenterCard, icbm152: Path) -> None:
    t1 = simulate(icbm152_tissues(icbm152, downsample=4), PhantomSpec(modalities=("T1",))).images["T1"]
    assert not prepare_segmentation(t1, None, single).warnings
    with pytest.raises(BadInput, match="looks like a T1 image, but model tissue-T1 uses T2 images. Choose another image"):
        prepare_segmentation(t1, t1, tms)
    warnings = prepare_segmentation(t1, t1, tms, SegmentationSettings(check_modality=False)).warnings
    assert any("It was used all the same" in text for text in warnings)
    other = SegmenterCard(single.path, {**single.content, "source": "T2"})
    with pytest.raises(BadInput, match="segments T2 images"):
        prepare_segmentation(t1, None, other)


def test_an_image_without_slices_in_the_translators_plane_is_refused(tmp_path: Path, translator: ModelCard) -> None:
    slicing = {"plane": "coronal", "mode": "spatial", "neighbours_mm": [0.0]}
    coronal = ModelCard(translator.path, {**translator.content, "slicing": slicing})
    card = write_tiny_segmenter(tmp_path, channels=PAIR)
    few = store(HEAD[7:12], spacing_kji=SPACING_KJI)
    assert prepare_segmentation(few, None, card, None, translator).translation
    with pytest.raises(BadInput, match="only 21 × 5 voxels in the coronal plane, in which model T1-T2 works"):
        prepare_segmentation(few, None, card, None, coronal)


@pytest.mark.parametrize("settings", [{"batch": 0}, {"seed": -1}, {"device": "abacus"}, {"precision": "fp8"}])
def test_impossible_settings_are_refused(single: SegmenterCard, settings: dict) -> None:
    with pytest.raises(BadInput):
        segmenter(single, **settings)


# --- Files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "kopf.nii.gz"
    write_volume(path, head(orientation=((1, 0, 2), (True, False, False)), rotation=rotation_matrix(3, 10.0)))
    return path


def outputs_in(folder: Path, probabilities: str = "p.nii.gz") -> SegmentationOutputs:
    return SegmentationOutputs(
        folder / "seg.nii.gz", folder / probabilities, folder / "sizes.csv", folder / "T2.nii.gz", folder / "report.json"
    )


def test_all_files_are_written_with_their_marks(tms: SegmenterCard, image: Path, tmp_path: Path) -> None:
    outputs = outputs_in(tmp_path / "out")
    result = segment_file(segmenter(tms), image, outputs)
    assert sorted(outputs.files()) == sorted((tmp_path / "out").iterdir())
    given, labels = read_volume(image), read_volume(outputs.labels)
    assert labels.geometry.is_close(given.geometry) and np.array_equal(labels.array, result.labels.array)
    assert dict(read_label_names(outputs.table)) == dict(tms.classes)
    mark = json.loads((tmp_path / "out" / "seg.json").read_text(encoding="utf-8"))
    assert mark["made_by"] == "imt segment" and mark["derived_from_synthetic"] is True
    assert mark["model"]["sha256"] == tms.sha256 and mark["second"]["model"]["name"] == "T1-T2"
    assert mark["input"]["name"] == "kopf.nii.gz" and len(mark["input"]["sha256"]) == 64
    assert "FROM SYNTHETIC" in nibabel.load(outputs.labels).header["descrip"].item().decode()
    translated = json.loads((tmp_path / "out" / "T2.json").read_text(encoding="utf-8"))
    assert translated["synthetic"] is True and translated["input"] == mark["input"]
    with open(outputs.statistics, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["voxels"]) for row in rows] == [entry.voxels for entry in result.statistics]
    report = json.loads(outputs.report.read_text(encoding="utf-8"))
    assert set(report["seconds"]) == {"read", "load", "prepare", "translate", "segment"}
    assert [entry["name"] for entry in report["statistics"]] == ["CSF", "grey matter", "white matter"]


@pytest.mark.parametrize("name", ["p.nii.gz", "p.nii", "p.nrrd"])
def test_probabilities_come_back_from_their_file(single: SegmenterCard, image: Path, tmp_path: Path, name: str) -> None:
    outputs = SegmentationOutputs(tmp_path / "seg.nrrd", tmp_path / name)
    result = segment_file(segmenter(single), image, outputs)
    values, geometry = read_probabilities(outputs.probabilities)
    assert geometry.is_close(result.labels.geometry)
    assert np.abs(values - result.probabilities).max() <= 0.5 / 255 + 1e-6
    mark = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert [entry["code"] for entry in mark["volumes"]] == [0, 1, 2, 3] and mark["derived_from_synthetic"] is False
    if name != "p.nrrd":
        assert nibabel.load(outputs.probabilities).shape == (*result.labels.array.shape[::-1], 4)


@pytest.mark.parametrize("form", ["none", "metres"])
def test_probabilities_lie_where_the_image_lies_whatever_its_header_says(form: str, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape(HEAD.T.shape)
    header.set_zooms((2.5, 2, 2) if form == "none" else (0.0025, 0.002, 0.002))
    if form == "metres":
        header.set_xyzt_units("meter")
        header.set_sform(np.diag([0.0025, 0.002, 0.002, 1]), 1)
    nibabel.Nifti1Image(HEAD.T, None, header).to_filename(tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    save_probabilities(tmp_path / "p.nii", np.full((2, *HEAD.shape), 0.5, np.float32), volume, "")
    assert read_probabilities(tmp_path / "p.nii")[1].is_close(volume.geometry)


def test_labels_get_their_name_after_all_that_belongs_to_them(tms: SegmenterCard, image: Path, tmp_path: Path, monkeypatch) -> None:
    named, replace_file = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: named.append(Path(new)) or replace_file(old, new))
    outputs = outputs_in(tmp_path / "out")
    segment_file(segmenter(tms), image, outputs)
    named = [path for path in named if not path.name.startswith(".")]
    assert sorted(named) == sorted(outputs.files()) and named[-1] == outputs.labels, "a run killed before is no finished one"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from IMTCore.derived_outputs import OutputWriter
from IMTCore.errors import OutputFailure
from IMTCore.volume import Geometry, Volume
array = np.random.default_rng(0).integers(0, 200, (20, 30, 40)).astype(np.uint8)
labels, path = Volume(array, Geometry(array.shape, (1, 1, 1), (0, 0, 0), np.eye(3))), Path(sys.argv[1]) / "labels.nrrd"
def write():
    with OutputWriter() as writer:
        writer.volume(path, labels, "", {"made_by": "a test"})
write()
size = path.stat().st_size
path.unlink(), path.with_suffix(".json").unlink()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size - 20, resource.RLIM_INFINITY))
try:
    write()
except OutputFailure as failure:
    print(failure)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes to set")
def test_labels_whose_last_bytes_find_no_room_are_not_kept(tmp_path: Path) -> None:
    places = {**os.environ, "PYTHONPATH": str(Path(IMTCore.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, env=places)
    assert "Is the disk full?" in done.stdout and not list(tmp_path.iterdir()), done.stderr


def test_codes_above_255_are_kept(image: Path, tmp_path: Path) -> None:
    card = write_tiny_segmenter(tmp_path / "model", codes=(1000, 4, 65535))
    result = segment_file(segmenter(card), image, SegmentationOutputs(tmp_path / "seg.nii.gz"))
    labels = read_volume(tmp_path / "seg.nii.gz")
    assert labels.array.dtype == np.uint16 and set(np.unique(labels.array)) <= {0, 4, 1000, 65535}
    assert np.array_equal(labels.array, result.labels.array) and labels.array.max() >= 1000


def test_labels_from_a_synthetic_image_say_so_though_nothing_was_translated_here(tms: SegmenterCard, image: Path, tmp_path: Path) -> None:
    outputs = SegmentationOutputs(tmp_path / "a" / "seg.nii.gz", translated=tmp_path / "a" / "T2.nii.gz")
    first = segment_file(segmenter(tms), image, outputs)
    result = segment_file(segmenter(tms), image, SegmentationOutputs(tmp_path / "b" / "seg.nii.gz"), outputs.translated)
    assert result.derived and result.translation is None
    mark = json.loads((tmp_path / "b" / "seg.json").read_text(encoding="utf-8"))
    assert mark["derived_from_synthetic"] is True and mark["second_input"]["name"] == "T2.nii.gz"
    assert np.abs(result.probabilities - first.probabilities).max() < 1e-4


def test_outputs_that_must_not_be_written_are_refused_before_any_work(tms: SegmenterCard, image: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "bids.json"
    foreign.write_text('{"EchoTime": 0.1}', encoding="utf-8")
    for outputs, message in (
        (SegmentationOutputs(image), "is an input"),
        (SegmentationOutputs(tmp_path / "seg.txt"), "format"),
        (SegmentationOutputs(tmp_path / "bids.nii.gz"), "not a mark"),
        (SegmentationOutputs(tmp_path / "a.nii.gz", tmp_path / "bids.nrrd"), "not a mark"),
        (SegmentationOutputs(tmp_path / "a.nii.gz", tmp_path / "p.mgz"), "Probabilities cannot"),
        (SegmentationOutputs(tmp_path / "a.nii.gz", translated=tmp_path / "a.nii.gz"), "another output"),
        (SegmentationOutputs(tmp_path / "a.nii.gz", report=tmp_path / "a.json"), "another output"),
    ):
        with pytest.raises(BadInput, match=message):
            segment_file(segmenter(tms), image, outputs)
    with pytest.raises(BadInput, match="Nothing is translated"):
        segment_file(segmenter(tms), image, SegmentationOutputs(tmp_path / "a.nii.gz", translated=tmp_path / "t.nii"), image)
    assert not (tmp_path / "a.nii.gz").exists() and "EchoTime" in foreign.read_text(encoding="utf-8")


def test_a_failure_in_writing_leaves_nothing(tms: SegmenterCard, image: Path, tmp_path: Path, monkeypatch) -> None:
    outputs = outputs_in(tmp_path / "out")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("IMTCore.derived_outputs.write_label_names", full_disk)
    with pytest.raises(OutputFailure, match="full"):
        segment_file(segmenter(tms), image, outputs)
    assert not list((tmp_path / "out").iterdir())


def test_a_prepared_file_gives_the_same_as_its_path(tms: SegmenterCard, image: Path, tmp_path: Path) -> None:
    work = segmenter(tms)
    source = read_segmentation(image, None, tms, work.settings)
    assert source.prepared.translation is not None
    first = segment_file(work, source, SegmentationOutputs(tmp_path / "a.nii.gz"))
    second = segment_file(work, image, SegmentationOutputs(tmp_path / "b.nii.gz"))
    assert np.array_equal(first.labels.array, second.labels.array)


# --- Comparison ----------------------------------------------------------------------------------------------------


def label_volumes() -> tuple[Volume, Volume]:
    """Two 20-voxel boxes, the found one shifted by one voxel of 2 mm along j."""
    truth, found = np.zeros((10, 12, 12), np.uint8), np.zeros((10, 12, 12), np.uint8)
    truth[2:6, 2:7, 3:4], found[2:6, 3:8, 3:4] = 1, 1
    geometry = Geometry(truth.shape, (2.5, 2.0, 2.0), (0, 0, 0), np.eye(3))
    return Volume(found, geometry, "found"), Volume(truth, geometry, "truth")


def test_a_segmentation_is_scored_structure_by_structure(single: SegmenterCard) -> None:
    found, truth = label_volumes()
    scores = compare_labels(found, truth, single.classes)
    assert [entry.name for entry in scores] == ["CSF", "grey matter", "white matter"]
    first = scores[0]
    assert first.dice == pytest.approx(2 * 16 / 40) and first.hausdorff_95_mm == pytest.approx(2.0)
    assert first.found_ml == pytest.approx(0.2) and first.difference_ml == 0 and first.difference_percent == 0
    assert scores[1].record() == {
        "code": 2, "name": "grey matter", "dice": None, "hausdorff_95_mm": None, "found_ml": 0.0, "reference_ml": 0.0,
        "difference_ml": 0.0, "difference_percent": None,
    }  # fmt: skip


def test_a_reference_that_does_not_fit_is_refused(single: SegmenterCard) -> None:
    found, truth = label_volumes()
    with pytest.raises(BadInput, match=r"code\(s\) 9.*CSF \(1\)"):
        compare_labels(found, truth.with_array(truth.array * 9), single.classes)
    with pytest.raises(BadInput, match="another grid"):
        compare_labels(found, replace(truth, geometry=replace(truth.geometry, origin_lps=(5, 0, 0))), single.classes)
    with pytest.raises(BadInput, match="no whole numbers"):
        compare_labels(found, truth.with_array(truth.array * 0.5), single.classes)
    assert compare_labels(found, truth.with_array(truth.array.astype(np.float32)), single.classes)[0].dice == pytest.approx(0.8)
