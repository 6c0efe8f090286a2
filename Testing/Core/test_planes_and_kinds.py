"""Claims on models that average over planes, and on networks other than the U-Net: they translate by the same ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ORIENTATIONS, head_phantom, rotation_matrix, store
from packages import tiny_card, tiny_network
from safetensors.torch import load_file, save_file

from IMTCommand.__main__ import main as imt
from IMTCore.architectures import ARCHITECTURES
from IMTCore.cards import ModelCard, read_card
from IMTCore.errors import BadInput, BadModel, Cancelled
from IMTCore.model_packages import load_network, save_package
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.volume_io import read_volume, write_volume

HEAD = head_phantom()
SPACING_KJI = (2.0, 2.0, 2.5)
PLANES = ["axial", "coronal", "sagittal"]
RANGE = 255.0


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """A model of random weights that averages over three planes."""
    card = tiny_card(neighbours_mm=(-2.0, 0.0, 2.0))
    network = tiny_network(card, seed=5)
    with torch.no_grad():
        network.decoder[-1].weight *= 30
    card["slicing"]["planes"] = PLANES
    return save_package(tmp_path_factory.mktemp("fused"), card, network)


def alone(card: ModelCard, plane: str, folder: Path) -> ModelCard:
    """The same weights in one plane."""
    content = {**card.content, "slicing": {**card.content["slicing"], "plane": plane}}
    del content["slicing"]["planes"]
    folder.mkdir(exist_ok=True)
    (folder / card.weights_path.name).write_bytes(card.weights_path.read_bytes())
    (folder / "card.json").write_text(json.dumps(content), encoding="utf-8")
    return read_card(folder / "card.json")


def translate(card: ModelCard, volume, **settings):
    return Translator(card, TranslationSettings(**{"device": "cpu", "precision": "fp32", **settings})).translate(volume)


# --- Planes --------------------------------------------------------------------------------------------------------


def test_a_model_of_three_planes_gives_the_mean_of_their_translations(fused: ModelCard, tmp_path: Path) -> None:
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    each = [translate(alone(fused, plane, tmp_path / plane), volume).translation.array for plane in PLANES]
    assert np.abs(each[0] - each[1]).max() > 0.05 * RANGE  # else the mean would mean nothing
    result = translate(fused, volume)
    assert np.abs(result.translation.array - np.mean(each, axis=0)).max() <= 1e-3
    assert result.settings["planes"] == PLANES
    assert result.translation.geometry.is_close(volume.geometry, 1e-9)
    assert not result.translation.array[HEAD == 0].any()


def test_a_single_plane_can_be_asked_for_and_the_mark_says_so(fused: ModelCard, tmp_path: Path) -> None:
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    result = translate(fused, volume, single_plane=True)
    expected = translate(alone(fused, "axial", tmp_path / "axial"), volume).translation.array
    assert np.array_equal(result.translation.array, expected)
    assert result.settings["planes"] == ["axial"] and result.settings["single_plane"] is True


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_the_fused_translation_does_not_depend_on_the_stored_axes(fused: ModelCard, orientation) -> None:
    plain = translate(fused, store(HEAD, spacing_kji=SPACING_KJI))
    turned = store(HEAD, orientation, spacing_kji=SPACING_KJI)
    result = translate(fused, turned)
    expected = store(plain.translation.array, orientation, spacing_kji=SPACING_KJI).array
    assert np.abs(result.translation.array - expected).max() <= 1e-3


def test_thick_slices_and_single_slices_are_translated_in_their_own_plane(fused: ModelCard) -> None:
    thick = translate(fused, store(HEAD, spacing_kji=(14.0, 2.0, 2.0)))
    assert thick.settings["planes"] == ["axial"]
    single = translate(fused, store(HEAD[9:10], spacing_kji=SPACING_KJI))
    assert single.settings["planes"] == ["axial"] and single.translation.array.any()


def test_the_planes_disagreement_is_part_of_the_uncertainty(fused: ModelCard, tmp_path: Path) -> None:
    volume = store(HEAD, spacing_kji=SPACING_KJI, rotation=rotation_matrix(1, 12.0))
    each = [translate(alone(fused, plane, tmp_path / plane), volume, samples=4) for plane in PLANES]
    within = np.mean([result.uncertainty.array.astype(np.float64) ** 2 for result in each], axis=0)
    between = np.var([result.translation.array.astype(np.float64) for result in each], axis=0)
    result = translate(fused, volume, samples=4)
    assert np.abs(result.uncertainty.array - np.sqrt(within + between)).max() <= 1e-3 * RANGE
    assert between.max() > within.min()


def test_progress_counts_the_slices_of_all_planes_and_cancel_ends_between_them(fused: ModelCard) -> None:
    volume, seen = store(HEAD, spacing_kji=SPACING_KJI), []
    translator = Translator(fused, TranslationSettings(device="cpu", precision="fp32"))
    translator.translate(volume, lambda stage, fraction, message: seen.append(fraction))
    fractions = [fraction for fraction in seen if fraction]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(set(fractions)) >= 6
    with pytest.raises(Cancelled):
        translator.translate(volume, cancelled=iter([False, False, False, True]).__next__)


@pytest.mark.parametrize("planes", [[], ["coronal", "axial"], ["axial", "axial"], ["axial", "diagonal"], ["axial", ["x"]], ["axial", 1]])
def test_a_card_with_wrong_planes_is_refused(fused: ModelCard, tmp_path: Path, planes: list) -> None:
    content = {**fused.content, "slicing": {**fused.content["slicing"], "planes": planes}}
    (tmp_path / "card.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match=r"slicing\.planes"):
        read_card(tmp_path / "card.json")


# --- Other networks ------------------------------------------------------------------------------------------------

ARGUMENTS = {
    "encoder-decoder": {"in_channels": 1, "out_channels": 1, "filters": 4, "depth": 3},
    "context": {"in_channels": 1, "out_channels": 1, "filters": 2, "stages": 2, "layout": "code"},
    "forest": {"trees": 2, "nodes": 3, "passes": 1, "step_mm": 2.0, "neighbours": 6, "levels": 1},
}


def package(kind: str, folder: Path) -> ModelCard:
    """A package of random weights; the forest's trees are bright where the voxel is dark, and the other way round."""
    card = tiny_card(name=f"tiny-{kind}")
    card["network"] = {"kind": kind, "arguments": ARGUMENTS[kind]}
    card["slicing"] = {"plane": "axial", "mode": "spatial", "spacing_mm": 2.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ARCHITECTURES[kind].build(ARGUMENTS[kind])
    if kind == "forest":
        network.feature[..., 0], network.child[..., 0], network.number[..., 0] = 0, 1, 0.0
        network.number[..., 1], network.number[..., 2] = 0.5, -0.5
    return save_package(folder, card, network, torch.float32)


@pytest.fixture(scope="module", params=sorted(ARGUMENTS))
def other(request, tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    return package(request.param, tmp_path_factory.mktemp(request.param))


def test_every_kind_translates_through_the_command(other: ModelCard, tmp_path: Path) -> None:
    source = tmp_path / "head.nii.gz"
    write_volume(source, store(HEAD, spacing_kji=SPACING_KJI))
    assert imt(["translate", str(source), "--model", str(other.path), "--output", str(tmp_path / "T2.nii.gz"), "--progress", "none"]) == 0
    result, given = read_volume(tmp_path / "T2.nii.gz"), read_volume(source)
    assert result.geometry.is_close(given.geometry, 1e-5)
    assert not result.array[HEAD == 0].any() and result.array[HEAD > 0].std() > 0
    assert 0 <= result.array.min() and result.array.max() <= RANGE
    mark = json.loads((tmp_path / "T2.json").read_text(encoding="utf-8"))
    assert mark["synthetic"] is True and mark["model"]["name"] == other.name


def test_the_forests_translation_is_its_trees_values(tmp_path: Path) -> None:
    card = package("forest", tmp_path)
    result = translate(card, store(HEAD, spacing_kji=(2.0, 2.0, 2.0))).translation.array
    dark = (HEAD > 0) & (HEAD < 0.3 * HEAD.max())
    bright = HEAD > 0.9 * HEAD.max()
    assert np.allclose(result[dark], 0.75 * RANGE, atol=0.01) and np.allclose(result[bright], 0.25 * RANGE, atol=0.01)


@pytest.mark.parametrize("kind", ["context", "forest"])
def test_a_network_of_volumes_has_no_uncertainty_and_says_so(kind: str, tmp_path: Path) -> None:
    card = package(kind, tmp_path)
    with pytest.raises(BadInput, match="no dropout"):
        translate(card, store(HEAD), samples=4)
    with pytest.raises(BadInput, match="fp32 only"):
        translate(card, store(HEAD), precision="bf16")


def test_a_forest_whose_tables_lead_nowhere_is_refused(tmp_path: Path) -> None:
    card = package("forest", tmp_path)
    tensors = load_file(card.weights_path)
    tensors["child"][..., 0] = 0  # a node that is its own child: the descent would not end
    save_file(tensors, card.weights_path)
    content = dict(card.content)
    import hashlib

    data = card.weights_path.read_bytes()
    content["weights"] = {**content["weights"], "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    card.path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match="child"):
        load_network(read_card(card.path))


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("forest", "trees", 10**6), ("forest", "neighbours", 5), ("context", "stages", 9), ("encoder-decoder", "depth", 40), ("context", "layout", "x")],
)
def test_arguments_out_of_bounds_are_refused(kind: str, key: str, value: object, tmp_path: Path) -> None:
    content = json.loads(package(kind, tmp_path).path.read_text(encoding="utf-8"))
    content["network"]["arguments"][key] = value
    (tmp_path / "card.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match=rf"network\.arguments\.{key}"):
        read_card(tmp_path / "card.json")


@pytest.mark.parametrize("change", [{"planes": PLANES}, {"neighbours_mm": [-2.0, 0.0, 2.0]}])
def test_a_network_of_volumes_takes_no_planes_or_neighbours(tmp_path: Path, change: dict) -> None:
    content = json.loads(package("forest", tmp_path).path.read_text(encoding="utf-8"))
    content["slicing"] |= change
    (tmp_path / "card.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match="takes whole volumes"):
        read_card(tmp_path / "card.json")
