"""Segmentation models as packages: a good one gives its network back, and whatever is wrong with a card is found."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from packages import write_tiny_package
from safetensors.torch import save_file
from tiny_segmenters import tiny_segmenter_card, tiny_segmenter_network, write_tiny_segmenter

from IMTCore.cards import MAX_CARD_BYTES, read_card
from IMTCore.errors import BadModel
from IMTCore.fcn import FCN, initialise
from IMTSegmentLib.segmenter_cards import SegmenterCard, check_segmenter_card, read_segmenter_card
from IMTSegmentLib.segmenter_catalogue import find_segmenter, list_segmenters
from IMTSegmentLib.segmenter_packages import load_segmenter, save_segmenter

MODULES = [Path(__file__).resolve().parents[2] / name for name in ("IMTTranslate", "IMTSegment")]


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory):
    return read_card(write_tiny_package(tmp_path_factory.mktemp("translator")))


@pytest.fixture
def good(tmp_path: Path, translator) -> SegmenterCard:
    return write_tiny_segmenter(tmp_path / "good", channels=("given", "given", "second"), translator=translator)


def full_content(translator) -> dict[str, Any]:
    """A card with all it may hold, weights filled in."""
    content = tiny_segmenter_card(
        channels=("given", "second"),
        translator=translator,
        accepts={"median": [0.1, 0.9]},
        description="d",
        default=True,
        citations=["c"],
    )
    content["weights"] |= {"file": "tissue-T1.safetensors", "sha256": "0" * 64, "bytes": 10}
    return content


# --- Good packages -------------------------------------------------------------------------------------------------


def test_a_card_says_what_the_model_is(good: SegmenterCard, translator) -> None:
    assert (good.name, good.task, good.source, good.second) == ("tissue-T1", "tissue", "T1", "T2")
    assert good.channels == ("given", "given", "second") and good.stride == 4
    assert good.translator == {"name": "T1-T2", "sha256": translator.sha256}
    assert {code: entry.name for code, entry in good.classes.items()} == {1: "CSF", 2: "grey matter", 3: "white matter"}
    summary = good.summary()
    assert summary["structures"] == ["CSF", "grey matter", "white matter"] and summary["present"] and not summary["default"]


def test_the_classes_keep_the_networks_order_whatever_their_codes(tmp_path: Path) -> None:
    card = write_tiny_segmenter(tmp_path, codes=(500, 7, 30))
    assert card.codes == (500, 7, 30) and list(card.classes) == [7, 30, 500]
    assert card.classes[500].name == "CSF"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_package_gives_its_network_back(tmp_path: Path, dtype: torch.dtype) -> None:
    content = tiny_segmenter_card(channels=("given", "given"))
    network = tiny_segmenter_network(content, seed=2)
    loaded = load_segmenter(save_segmenter(tmp_path, content, network, dtype))
    assert not loaded.training and {p.dtype for p in loaded.parameters()} == {torch.float32}
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, network.state_dict()[key].to(dtype).float()), key


def test_an_fcn_is_a_segmenter_too(tmp_path: Path) -> None:
    content = tiny_segmenter_card(mode="paper")
    network = FCN(4, 1, width=1 / 64, padding=0)
    initialise(network)
    content["network"] = {"kind": "fcn", "arguments": network.arguments}
    card = save_segmenter(tmp_path, content, network)
    assert card.stride == 32 and isinstance(load_segmenter(card), FCN)


def test_a_card_of_everything_is_taken(translator) -> None:
    check_segmenter_card(full_content(translator), Path("card.json"))


def test_cards_are_read_without_torch(good: SegmenterCard) -> None:
    """As in Slicer's own process, where torch may be missing: the panel lists models, settings and inputs."""
    code = (
        "import sys; from IMTSegmentLib.segmenter_catalogue import find_segmenter; import IMTSegmentLib.segmentation_inputs, "
        "IMTSegmentLib.segmentation_outputs, IMTSegmentLib.comparison; "
        "assert find_segmenter(sys.argv[1]).build_network; sys.exit('torch' in sys.modules or 'nibabel' in sys.modules)"
    )
    path = f"import sys; sys.path[:0] = {list(map(str, MODULES))!r}; "
    subprocess.run([sys.executable, "-c", path + code, str(good.path)], check=True)


# --- Bad cards -----------------------------------------------------------------------------------------------------

CLASS = {"code": 4, "name": "lesion", "colour": [1, 2, 3]}
WRONG = [
    (("kind",), "translation", "no card of a segmentation model"),
    (("kind",), None, "no card of a segmentation model"),
    (("format",), 2, "format 1"),
    (("name",), "../../etc/passwd", "name may hold"),
    (("extra",), 1, "unknown key"),
    (("task",), "a task", "task may hold"),
    (("source",), "T1/../T2", "no modality's name"),
    (("channels",), [], "1 to 64"),
    (("channels",), ["given"] * 65, "1 to 64"),
    (("channels",), ["given", "third"], "each"),
    (("channels",), ["given", ["second"]], "each"),
    (("channels",), ["given", "given"], "go together"),
    (("channels",), ["given", "second", "second"], "takes 2 channels"),
    (("second", "url"), "https://example.org", "unknown key"),
    (("second", "modality"), "T 2", "no modality's name"),
    (("second", "translator", "sha256"), "12", "64 hexadecimal"),
    (("second", "translator", "name"), "/tmp/x.json", "translator.name"),
    (("second", "translator"), "T1-T2", "must be dict"),
    (("classes",), [], "1 to 255"),
    (("classes",), [CLASS] * 256, "1 to 255"),
    (("classes",), ["CSF"], "must be an object"),
    (("classes", 0, "code"), 0, "not from 1"),
    (("classes", 0, "code"), 65536, "not from 1"),
    (("classes", 0, "code"), 2, "comes twice"),
    (("classes", 0, "code"), True, "must be int"),
    (("classes", 0, "name"), "Grey Matter", "Two labels"),
    (("classes", 0, "name"), "a\nb", "one line"),
    (("classes", 0, "name"), " ", "one line"),
    (("classes", 0, "colour"), [1, 2], "red, green and blue"),
    (("classes", 0, "colour"), [1, 2, 256], "red, green and blue"),
    (("classes", 0, "colour"), [1.0, 2, 3], "red, green and blue"),
    (("classes", 0, "hidden"), 1, "unknown key"),
    (("network", "kind"), "resnet", "unknown; this version knows fcn, unet"),
    (("network", "channel"), 0, "unknown key"),
    (("network", "arguments", "classes"), 5, "has 5 classes"),
    (("network", "arguments", "in_channels"), 3, "takes 3 channels"),
    (("network", "arguments", "filters"), 10**9, "filters must be"),
    (("network", "arguments", "depth"), 40, "depth must be"),
    (("network", "arguments", "depth"), 2.5, "must be int"),
    (("network", "arguments", "dropout"), float("nan"), "dropout must be"),
    (("slicing", "plane"), "oblique", "axial, coronal or sagittal"),
    (("slicing", "planes"), ["axial", "axial"], "each once"),
    (("slicing", "neighbours_mm"), [0.0], "unknown key"),
    (("slicing", "spacing_mm"), 1e-9, "0.1 to 10"),
    (("percentile",), 1000, "50 to 100"),
    (("accepts",), {"median": [0.1]}, "2 numbers"),
    (("weights", "file"), "../other.safetensors", "beside the card"),
    (("weights", "file"), "weights.pt", "beside the card"),
    (("weights", "sha256"), "g" * 64, "64 hexadecimal"),
    (("weights", "bytes"), 1.5, "must be int"),
    (("weights", "url"), "http://example.org/x", "unknown key"),
    (("training", "command"), 3, "must be str"),
    (("limits",), [1], "must hold texts"),
]


@pytest.mark.parametrize(("keys", "value", "message"), WRONG, ids=lambda v: ".".join(map(str, v)) if isinstance(v, tuple) else None)
def test_a_wrong_value_is_refused_by_name(translator, keys: tuple, value: object, message: str) -> None:
    content = json.loads(json.dumps(full_content(translator)))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(BadModel, match=message) as caught:
        check_segmenter_card(content, Path("odd card.json"))
    assert "odd card.json" in str(caught.value)


@pytest.mark.parametrize("key", [k for k in tiny_segmenter_card() if k != "kind"])
def test_a_missing_key_is_refused(key: str) -> None:
    content = tiny_segmenter_card()
    content["weights"] |= {"file": "a.safetensors", "sha256": "0" * 64, "bytes": 10}
    check_segmenter_card(content, Path("card.json"))
    del content[key]
    with pytest.raises(BadModel, match=f"{key} is missing"):
        check_segmenter_card(content, Path("card.json"))


@pytest.mark.parametrize("content", [[], "text", None, 3])
def test_what_is_no_object_is_no_card(content: object) -> None:
    with pytest.raises(BadModel, match="must be an object"):
        check_segmenter_card(content, Path("card.json"))


def test_a_card_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken, large = tmp_path / "broken.json", tmp_path / "large.json"
    broken.write_text('{"format": 1,', encoding="utf-8")
    large.write_text(" " * (MAX_CARD_BYTES + 1), encoding="utf-8")
    for path, message in ((broken, "not valid JSON"), (large, "too large"), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(BadModel, match=message):
            read_segmenter_card(path)


def test_a_translation_models_card_is_not_taken_for_a_segmenters(translator, good: SegmenterCard) -> None:
    with pytest.raises(BadModel, match="imt translate"):
        read_segmenter_card(translator.path)
    with pytest.raises(BadModel):
        read_card(good.path)


def test_weights_of_another_network_are_refused(good: SegmenterCard, tmp_path: Path) -> None:
    other = tiny_segmenter_card(name="other")
    weights = write_tiny_segmenter(tmp_path / "other").weights_path
    shutil.copy(weights, good.weights_path)
    with pytest.raises(BadModel, match="bytes"):
        load_segmenter(read_segmenter_card(good.path))
    content = json.loads(good.path.read_text(encoding="utf-8"))
    state = tiny_segmenter_network(other).state_dict()
    save_file(state, good.weights_path)
    written = good.weights_path.read_bytes()
    content["weights"] |= {"bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}
    good.path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadModel, match="wrong shape"):
        load_segmenter(read_segmenter_card(good.path))


def test_a_bad_card_is_not_written(tmp_path: Path) -> None:
    content = tiny_segmenter_card(channels=("given", "given"))
    network = tiny_segmenter_network(content)
    with pytest.raises(BadModel, match="unknown key"):
        save_segmenter(tmp_path, {**content, "extra": 1}, network)
    assert not list(tmp_path.iterdir())


# --- Catalogue -----------------------------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder with three models, and no shipped ones."""
    folder = tmp_path / "users"
    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(folder))
    monkeypatch.setattr("IMTSegmentLib.segmenter_catalogue.shipped_folder", lambda: tmp_path / "shipped")
    write_tiny_segmenter(folder, name="a-plain")
    write_tiny_segmenter(folder, name="b-chosen", default=True)
    write_tiny_segmenter(folder, name="tumour-T1C", task="tumour")
    return folder


def test_a_model_is_found_by_name_path_task_and_folder(users: Path, tmp_path: Path) -> None:
    assert find_segmenter("a-plain").name == "a-plain"
    assert find_segmenter("tissue").name == "b-chosen"
    assert find_segmenter("tumour").name == "tumour-T1C"
    assert find_segmenter(str(users / "a-plain.json")).name == "a-plain"
    assert find_segmenter(str(users / "a-plain.safetensors")).name == "a-plain"
    alone = write_tiny_segmenter(tmp_path / "alone", name="alone")
    assert find_segmenter(str(alone.path.parent)).name == "alone"


def test_a_users_model_hides_a_shipped_one_of_its_name(users: Path, tmp_path: Path) -> None:
    write_tiny_segmenter(tmp_path / "shipped", name="a-plain", title="shipped")
    write_tiny_segmenter(tmp_path / "shipped", name="c-shipped")
    cards, problems = list_segmenters()
    assert [card.name for card in cards] == ["a-plain", "b-chosen", "tumour-T1C", "c-shipped"] and not problems
    assert find_segmenter("a-plain").content["title"] != "shipped"


def test_what_is_not_there_is_said_with_what_is(users: Path) -> None:
    (users / "broken.json").write_text("{", encoding="utf-8")
    (users / ".half.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadModel, match=r"a-plain \(tissue\).*Not readable: .*broken\.json"):
        find_segmenter("lesion")
    with pytest.raises(BadModel, match="4 model cards"):
        find_segmenter(str(users))
    for text in ("", " ", "x" * 5000, "a\0b"):
        with pytest.raises(BadModel, match="no segmentation model"):
            find_segmenter(text)
    assert len(list_segmenters()[1]) == 1
