"""Model packages: a good one gives its network back, and whatever is wrong with one is found before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import tiny_card, tiny_network, write_tiny_package
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from IMTCore.cards import MAX_CARD_BYTES, check_card, read_card
from IMTCore.errors import BadModel
from IMTCore.model_packages import MAX_HEADER_BYTES, load_network, save_package

Header = dict[str, dict]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of one pair; tests work on copies."""
    return write_tiny_package(tmp_path_factory.mktemp("good"))


@pytest.fixture
def card_path(good: Path, tmp_path: Path) -> Path:
    for path in (good, good.with_suffix(".safetensors")):
        shutil.copy(path, tmp_path)
    return tmp_path / good.name


def weights_of(card_path: Path) -> bytes:
    return card_path.with_suffix(".safetensors").read_bytes()


def replace_weights(card_path: Path, content: bytes) -> None:
    """Change the weights and let the card vouch for the change: size and hash then do not protect."""
    card_path.with_suffix(".safetensors").write_bytes(content)
    card = json.loads(card_path.read_text(encoding="utf-8"))
    card["weights"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card_path.write_text(json.dumps(card), encoding="utf-8")


def change_card(card_path: Path, *keys: str | int, value: object = None, delete: bool = False) -> None:
    card = json.loads(card_path.read_text(encoding="utf-8"))
    *parents, last = keys
    place = card
    for key in parents:
        place = place[key]
    if delete:
        del place[last]
    else:
        place[last] = value
    card_path.write_text(json.dumps(card), encoding="utf-8")


def change_header(card_path: Path, change: Callable[[Header], object]) -> None:
    content = weights_of(card_path)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    changed = change(header)
    text = json.dumps(header if changed is None else changed).encode()
    replace_weights(card_path, struct.pack("<Q", len(text)) + text + content[8 + length :])


def change_tensors(card_path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_tensors(weights_of(card_path))
    change(tensors)
    replace_weights(card_path, save_tensors(tensors))


def refused(card_path: Path, message: str) -> None:
    with pytest.raises(BadModel, match=message) as caught:
        load_network(read_card(card_path))
    assert card_path.stem in str(caught.value)


# --- Good packages -------------------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"mode": "paper"},
    {"neighbours_mm": (-3.0, 0.0, 3.0)},
    {"modalities": ("T1", "T2", "FLAIR")},
    {"layout": "lua", "dropout_blocks": 0},
    {"norm": "batch"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)) or "pair")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_package_gives_the_output_of_the_network_it_was_made_from(tmp_path: Path, dtype: torch.dtype, options: dict) -> None:
    card = tiny_card(**options)
    network = tiny_network(card, seed=3)
    loaded = load_network(read_card(save_package(tmp_path, card, network, dtype).path))
    assert not loaded.training and {p.dtype for p in loaded.parameters()} == {torch.float32}
    image = torch.rand(2, card["network"]["arguments"]["in_channels"], 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected, output = network(image), loaded(image)
    if dtype == torch.float32:
        assert torch.equal(output, expected)
    else:  # half precision keeps 11 bits of each weight
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, network.state_dict()[key].half().to(value.dtype)), key
        assert 0 < float((output - expected).abs().max()) < 2e-3


def test_the_weights_of_a_package_are_half_the_size_in_half_precision(tmp_path: Path) -> None:
    card, network = tiny_card(), tiny_network(tiny_card())
    sizes = [save_package(tmp_path, card, network, dtype).content["weights"]["bytes"] for dtype in (torch.float32, torch.float16)]
    weights = sum(value.numel() for value in network.state_dict().values())
    assert sizes[0] - sizes[1] == pytest.approx(2 * weights, abs=64)  # but for the header's padding


def test_saving_keeps_nothing_of_a_package_that_is_not_valid(tmp_path: Path) -> None:
    card, network = tiny_card(), tiny_network(tiny_card())
    with pytest.raises(BadModel, match="unknown key"):
        save_package(tmp_path, {**card, "extra": 1}, network)
    with torch.no_grad():
        network.encoder[0].weight[0, 0, 0, 0] = 70000.0  # beyond half precision
    with pytest.raises(BadModel, match=r"encoder\.0\.weight .*not finite in torch\.float16"):
        save_package(tmp_path, card, network)
    assert list(tmp_path.iterdir()) == []


# --- Bad weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 8, 200, -1])
def test_one_changed_byte_is_found_by_the_hash(card_path: Path, place: int) -> None:
    content = bytearray(weights_of(card_path))
    content[place] ^= 1
    card_path.with_suffix(".safetensors").write_bytes(content)
    refused(card_path, "SHA-256 is not the card's")


def test_another_size_than_the_card_says_is_refused(card_path: Path) -> None:
    card_path.with_suffix(".safetensors").write_bytes(weights_of(card_path)[:-1])
    refused(card_path, "and the card says")


def test_missing_weights_are_said_to_be_missing(card_path: Path) -> None:
    card_path.with_suffix(".safetensors").unlink()
    refused(card_path, "are not there .* import it again")
    card_path.with_suffix(".safetensors").mkdir()
    refused(card_path, "are not there")


def test_weights_with_other_tensors_than_the_network_has_are_refused(card_path: Path) -> None:
    original = weights_of(card_path)
    change_tensors(card_path, lambda tensors: tensors.update(extra=torch.zeros(1)))
    refused(card_path, "unknown 'extra'")
    replace_weights(card_path, original)
    change_tensors(card_path, lambda tensors: tensors.pop("decoder.1.weight"))
    refused(card_path, r"missing 'decoder\.1\.weight'")
    replace_weights(card_path, original)
    change_tensors(card_path, lambda tensors: tensors.update({"decoder.2.bias": torch.zeros(2)}))
    refused(card_path, r"decoder\.2\.bias has the wrong shape \(the network needs \[1\]\)")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool, torch.float8_e4m3fn])
def test_types_other_than_half_and_single_floats_are_refused(card_path: Path, dtype: torch.dtype) -> None:
    change_tensors(card_path, lambda tensors: tensors.update({"decoder.2.bias": tensors["decoder.2.bias"].to(dtype)}))
    refused(card_path, r"decoder\.2\.bias has the type")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(card_path: Path, value: float) -> None:
    change_tensors(card_path, lambda tensors: tensors["encoder.1.weight"].view(-1)[7:8].fill_(value))
    refused(card_path, r"encoder\.1\.weight has values that are not finite")


def test_header_lengths_that_do_not_fit_are_refused(card_path: Path) -> None:
    content = weights_of(card_path)
    for length in (len(content) - 7, 2**63, 2**64 - 1):
        replace_weights(card_path, struct.pack("<Q", length) + content[8:])
        refused(card_path, "its header claims")
    long = b"{" + b" " * MAX_HEADER_BYTES + content[9:]
    replace_weights(card_path, struct.pack("<Q", MAX_HEADER_BYTES + 1) + long)
    refused(card_path, "its header claims")
    replace_weights(card_path, struct.pack("<Q", 0) + content[8:])
    refused(card_path, "its header is not valid JSON")
    for short in (b"", content[:7], content[:9]):
        replace_weights(card_path, short)
        refused(card_path, "too short")


@pytest.mark.parametrize("text", [b"{", b"[1]", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000])
def test_headers_that_are_no_json_object_are_refused(card_path: Path, text: bytes) -> None:
    replace_weights(card_path, struct.pack("<Q", len(text)) + text + weights_of(card_path)[-100:])
    refused(card_path, "its header is not")


def set_entry(key: str, value: object) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header["decoder.2.bias"][key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_entry("dtype", ["F16"]),
        set_entry("dtype", {}),
        set_entry("dtype", None),
        set_entry("shape", [1.0]),
        set_entry("shape", [True]),
        set_entry("shape", "1"),
        set_entry("data_offsets", [0, 2**62]),
        set_entry("data_offsets", [-2, 0]),
        set_entry("data_offsets", None),
        lambda header: header.update({"decoder.2.bias": 5}),
        lambda header: header.update(__metadata__={"format": 1}),
        lambda header: header["encoder.0.weight"].update(data_offsets=header["encoder.1.weight"]["data_offsets"]),
    ],
)
def test_header_entries_of_the_wrong_kind_are_refused(card_path: Path, change: Callable[[Header], None]) -> None:
    change_header(card_path, change)
    refused(card_path, "were not loaded")


def test_of_a_tensor_named_twice_in_the_header_the_one_that_is_used_is_checked(card_path: Path) -> None:
    content = weights_of(card_path)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    wrong = ("decoder.2.bias", {**header["decoder.2.bias"], "shape": [1, 1]})
    for pairs, sound in (([*header.items(), wrong], False), ([wrong, *header.items()], True)):
        text = ("{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}").encode()
        replace_weights(card_path, struct.pack("<Q", len(text)) + text + content[8 + length :])
        if sound:
            assert load_network(read_card(card_path)).decoder[2].bias.shape == (1,)
        else:
            refused(card_path, r"decoder\.2\.bias has the wrong shape")


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_named_safetensors_is_refused_and_not_executed(card_path: Path, tmp_path: Path, writer: str) -> None:
    trap = tmp_path / "executed"
    weights = card_path.with_suffix(".safetensors")
    if writer == "pickle":
        weights.write_bytes(pickle.dumps(_Touch(trap)))
    else:
        torch.save({"encoder.0.weight": _Touch(trap)}, weights)
    replace_weights(card_path, weights.read_bytes())
    refused(card_path, "its header")
    assert not trap.exists()
    if writer == "pickle":
        pickle.loads(weights.read_bytes())  # the trap does work
        assert trap.exists()


def test_random_damage_to_a_header_is_refused_or_harmless(card_path: Path) -> None:
    original = weights_of(card_path)
    (length,) = struct.unpack("<Q", original[:8])
    random = np.random.default_rng(20)
    loaded = 0
    for _ in range(100):
        content = bytearray(original)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(0, 8 + length)) if random.random() < 0.9 else int(random.integers(0, 8))
            content[place] = (
                int(random.integers(0, 256)) if random.random() < 0.5 else content[place] ^ (1 << int(random.integers(8)))
            )
        if random.random() < 0.1:
            content = content[: int(random.integers(0, len(content)))]
        replace_weights(card_path, bytes(content))
        try:
            network = load_network(read_card(card_path))
        except BadModel:
            continue
        loaded += 1
        assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
    assert loaded < 50  # the damage is real


# --- Bad cards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../T1-T2.safetensors", "/etc/passwd", "/T1-T2.safetensors", "sub/T1-T2.safetensors", "..\\T1-T2.safetensors",
        "C:T1-T2.safetensors", "T1-T2.pth", "", ".", "..", ".safetensors", "a\0.safetensors", "x" * 300 + ".safetensors",
        "T1-T2.safetensors/", "T1-T2.safetensors\n",
    ],
)  # fmt: skip
def test_weights_elsewhere_than_beside_the_card_are_refused(card_path: Path, name: str) -> None:
    shutil.copy(card_path.with_suffix(".safetensors"), card_path.parent.parent)
    change_card(card_path, "weights", "file", value=name)
    refused(card_path, "holds control characters" if "\0" in name else "must be the name of a .safetensors file beside the card")


def test_a_link_out_of_the_folder_is_refused_and_one_within_it_is_not(card_path: Path, tmp_path: Path) -> None:
    weights = card_path.with_suffix(".safetensors")
    within = weights.rename(tmp_path / "other.safetensors")
    try:
        weights.symlink_to(within)
    except OSError:
        pytest.skip("this system makes no links")
    load_network(read_card(card_path))
    (tmp_path / "elsewhere").mkdir()
    outside = within.rename(tmp_path / "elsewhere" / "other.safetensors")
    weights.unlink()
    weights.symlink_to(outside)
    refused(card_path, "leads out of the card's folder")
    outside.unlink()
    refused(card_path, "are not there")


REQUIRED = [
    ("format",), ("name",), ("version",), ("title",), ("source",), ("target",), ("network",), ("slicing",), ("percentile",),
    ("output_range",), ("weights",), ("training",), ("metrics",), ("intended_use",), ("limits",), ("network", "kind"),
    ("network", "arguments"), ("network", "arguments", "depth"), ("network", "arguments", "filters"), ("slicing", "plane"),
    ("slicing", "mode"), ("weights", "file"), ("weights", "sha256"), ("weights", "bytes"), ("weights", "licence"),
    ("training", "data"), ("training", "command"), ("training", "date"),
]  # fmt: skip


@pytest.mark.parametrize("keys", REQUIRED, ids=".".join)
def test_a_card_without_a_required_key_is_refused_by_its_name(card_path: Path, keys: tuple[str, ...]) -> None:
    change_card(card_path, *keys, delete=True)
    refused(card_path, rf"{'.'.join(keys).replace('.', '[.]')} is missing")


@pytest.mark.parametrize(
    "keys",
    [
        ("percentil",),
        ("network", "x"),
        ("network", "arguments", "y"),
        ("slicing", "sizes"),
        ("weights", "path"),
        ("training", "z"),
    ],
)
def test_an_unknown_key_is_refused_by_its_name(card_path: Path, keys: tuple[str, ...]) -> None:
    change_card(card_path, *keys, value=1)
    refused(card_path, f"unknown key .*'{keys[-1]}'")


ARGUMENTS = ("network", "arguments")
WRONG = [
    (("format",), True), (("format",), 2), (("format",), "1"), (("name",), 5), (("name",), "../x"), (("name",), ""),
    (("name",), "-x"), (("source",), "T1 w"), (("target",), []), (("default",), 1), (("modalities",), "T1"),
    (("modalities",), ["T1", "T2"]), (("source",), "any"), (("network",), []), (("network", "kind"), "resnet"),
    ((*ARGUMENTS, "depth"), 10**9), ((*ARGUMENTS, "depth"), 1), ((*ARGUMENTS, "depth"), True), ((*ARGUMENTS, "depth"), 3.0),
    ((*ARGUMENTS, "filters"), 10**6), ((*ARGUMENTS, "filters"), -4), ((*ARGUMENTS, "filters"), True),
    ((*ARGUMENTS, "max_multiplier"), 10**6), ((*ARGUMENTS, "in_channels"), 2), ((*ARGUMENTS, "in_channels"), True),
    ((*ARGUMENTS, "out_channels"), 2), ((*ARGUMENTS, "dropout"), 1), ((*ARGUMENTS, "dropout"), float("nan")),
    ((*ARGUMENTS, "dropout"), True), ((*ARGUMENTS, "norm"), "layer"), ((*ARGUMENTS, "layout"), "keras"),
    (("slicing", "plane"), "oblique"), (("slicing", "mode"), "2d"), (("slicing", "size"), [64]), (("slicing", "size"), [4, 4]),
    (("slicing", "size"), [64, True]), (("slicing", "size"), ["64", 64]), (("slicing", "spacing_mm"), 0),
    (("slicing", "spacing_mm"), float("inf")), (("slicing", "neighbours_mm"), []), (("slicing", "neighbours_mm"), [float("nan")]),
    (("slicing", "neighbours_mm"), [0.0, 1.0]), (("slicing", "neighbours_mm"), [0.0] * 1000), (("percentile",), 10),
    (("percentile",), True), (("percentile",), float("nan")), (("output_range",), [0, 0]), (("output_range",), [-1, 1]),
    (("output_range",), [0]), (("output_range",), [0, float("inf")]), (("accepts",), {"median": [0]}), (("accepts",), {"x": [0, 1]}),
    (("weights", "sha256"), "abc"), (("weights", "sha256"), "z" * 64), (("weights", "bytes"), "5"), (("weights", "bytes"), True),
    (("weights", "bytes"), 5.5), (("weights", "url"), "http://example.org/x"), (("weights", "url"), "file:///etc/passwd"),
    (("training", "data"), "all"), (("training", "held_out"), [5]), (("limits",), [None]), (("citations",), [{}]), (("metrics",), {}),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "value"), WRONG, ids=[f"{'.'.join(k)}={v!r}"[:60] for k, v in WRONG])
def test_a_wrong_value_in_a_card_is_refused(card_path: Path, keys: tuple[str, ...], value: object) -> None:
    change_card(card_path, *keys, value=value)
    refused(card_path, "The model card .* is not usable: ")


@pytest.mark.parametrize("modalities", [["T1"], ["T1", "T1"], ["T1", 5], []])
def test_an_any_to_any_card_needs_two_modalities_or_more(tmp_path: Path, modalities: list) -> None:
    path = write_tiny_package(tmp_path, modalities=("T1", "T2"))
    change_card(path, "modalities", value=modalities)
    change_card(path, *ARGUMENTS, "in_channels", value=1 + 2 * len(modalities))
    refused(path, "modalities")


def test_paper_mode_needs_slices_of_whole_strides(tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path, mode="paper")
    change_card(path, "slicing", "size", value=[64, 60])
    refused(path, "multiples of the network's stride, 8")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"not json", b"[]", b"null", b"\xff\xfe\x00", b"[" * 200_000, b'{"a":' * 100_000, b'{"format": ' + b"9" * 5000 + b"}"],
    ids=["empty", "open", "words", "list", "null", "binary", "deep", "deeper", "number"],
)  # fmt: skip
def test_a_card_that_is_no_json_object_is_refused(card_path: Path, text: bytes) -> None:
    card_path.write_bytes(text)
    refused(card_path, "is not valid JSON|is not usable")


def test_a_card_over_a_megabyte_or_missing_is_refused(card_path: Path) -> None:
    card_path.write_text(card_path.read_text(encoding="utf-8") + " " * MAX_CARD_BYTES, encoding="utf-8")
    refused(card_path, "too large for a model card")
    card_path.unlink()
    refused(card_path, "cannot be read")
    card_path.mkdir()
    refused(card_path, "is not a file")


def test_random_nonsense_in_a_card_is_refused_as_a_bad_model_or_valid(good: Path) -> None:
    """Any value of any type anywhere: the check answers with BadModel and never with another error."""
    content = json.loads(good.read_text(encoding="utf-8"))
    values = [
        None,
        True,
        False,
        0,
        -1,
        2**70,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\0",
        "any",
        [],
        [[]],
        [None],
        {},
        {"": 0},
    ]

    def paths(value: object, at: tuple = ()) -> list[tuple]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
        return [at + (key,) for key, _ in items] + [path for key, inner in items for path in paths(inner, at + (key,))]

    outcomes = {"refused": 0, "valid": 0}
    for path in paths(content):
        for value in values:
            changed = json.loads(json.dumps(content))
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            try:
                check_card(changed, good)
                outcomes["valid"] += 1
            except BadModel:
                outcomes["refused"] += 1
    assert outcomes["refused"] > 10 * len(values) and outcomes["valid"] > 0
