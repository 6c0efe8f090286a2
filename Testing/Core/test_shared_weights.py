"""Models of several targets that share one weights file: each card is one of its outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import head_phantom, store
from packages import tiny_card, tiny_network

from IMTCore.cards import read_card
from IMTCore.catalogue import find_card, list_cards, remove
from IMTCore.errors import BadModel
from IMTCore.model_packages import load_network, save_package
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with the cards T1-T2 and T1-PD, two outputs of one network."""
    monkeypatch.setenv("IMT_MODELS", str(tmp_path))
    cards = [tiny_card("T1-T2", target="T2", out_channels=2), tiny_card("T1-PD", target="PD", out_channels=2)]
    network = tiny_network(cards[0])
    for channel, card in enumerate(cards):
        card["network"]["channel"] = channel
        save_package(tmp_path, card, network, stem="T1-T2-PD")
    return tmp_path


def test_each_card_gives_its_own_output_of_the_one_network(folder):
    whole = tiny_network(read_card(folder / "T1-PD.json").content).half().float()
    image = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.inference_mode():
        both = whole(image)
        for channel, name in enumerate(("T1-T2", "T1-PD")):
            one = load_network(find_card(name))(image)
            assert one.shape == (2, 1, 32, 32)
            assert torch.allclose(one[:, 0], both[:, channel], atol=1e-6)
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_a_volume_is_translated_by_either(folder):
    volume = store(head_phantom(), spacing_kji=(3.0, 2.0, 2.0))
    results = [
        Translator(find_card(name), TranslationSettings(device="cpu", precision="fp32")).translate(volume) for name in ("T1-T2", "T1-PD")
    ]
    assert [result.target for result in results] == ["T2", "PD"]
    assert np.abs(results[0].translation.array - results[1].translation.array).max() > 1


def test_removing_one_leaves_the_other_its_weights(folder):
    assert [path.name for path in remove("T1-T2")] == ["T1-T2.json"]
    load_network(find_card(str(folder / "T1-PD.json")))
    assert {path.name for path in remove("T1-PD")} == {"T1-PD.json", "T1-T2-PD.safetensors"}


@pytest.mark.parametrize("channel", [2, -1, True, "0"])
def test_an_output_that_the_network_does_not_have_is_refused(folder, channel):
    path = folder / "T1-PD.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["network"]["channel"] = channel
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match="channel"):
        read_card(path)
    assert any("T1-PD.json" in problem for problem in list_cards()[1])


def test_a_network_of_two_outputs_needs_to_say_which(folder):
    path = folder / "T1-PD.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["network"]["channel"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match="give one"):
        read_card(path)
