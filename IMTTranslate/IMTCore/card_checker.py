"""Checks of a card's parts that all kinds of model have: their keys, types and bounds; an error names the card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .architectures import ARCHITECTURES, Architecture, Schema
from .errors import BadModel
from .orientation import PLANES
from .plain_text import has_controls

CARD_FORMAT = 1
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
ANY = "any"

# What the cards of all kinds of model have.
CARD: Schema = {
    "format": ((int,), True),
    "name": ((str,), True),
    "version": ((str,), True),
    "title": ((str,), True),
    "description": ((str,), False),
    "source": ((str,), True),
    "default": ((bool,), False),
    "network": ((dict,), True),
    "slicing": ((dict,), True),
    "percentile": ((float, int), True),
    "accepts": ((dict,), False),
    "weights": ((dict,), True),
    "training": ((dict,), True),
    "metrics": ((list,), True),
    "intended_use": ((str,), True),
    "limits": ((list,), True),
    "citations": ((list,), False),
}
# `channel`: which output of a network of several targets is this model's; such models share their weights file.
NETWORK: Schema = {"kind": ((str,), True), "arguments": ((dict,), True), "channel": ((int,), False)}
SLICING: Schema = {
    "plane": ((str,), True),
    "planes": ((list,), False),
    "mode": ((str,), True),
    "size": ((list,), False),
    "spacing_mm": ((float, int), False),
    "neighbours_mm": ((list,), False),
}
_ACCEPTS = {"extent_mm": ((list,), False), "median": ((list,), False)}
WEIGHTS: Schema = {
    "file": ((str,), True),
    "sha256": ((str,), True),
    "bytes": ((int,), True),
    "licence": ((str,), True),
    "url": ((str,), False),
}
_TRAINING: Schema = {
    "data": ((list,), True),
    "held_out": ((list,), False),
    "command": ((str,), True),
    "date": ((str,), True),
    "notes": ((str,), False),
}


class CardChecker:
    """Checks parts of one card; what is wrong becomes a `BadModel` that names the card.

    Args:
        path: the card's file.
        architectures: the kinds of network that such a card may name.
    """

    def __init__(self, path: Path, architectures: Mapping[str, Architecture] = ARCHITECTURES) -> None:
        self.path, self.architectures = path, architectures

    def fail(self, problem: str) -> BadModel:
        """The error for `problem`."""
        return BadModel(f"The model card {self.path} is not usable: {problem}. Nothing was loaded.")

    def keys(self, values: Any, schema: Schema, where: str) -> None:
        """Keys and their types."""
        if not isinstance(values, dict):
            raise self.fail(f"{where or 'its content'} must be an object")
        for key in values:
            if key not in schema:
                raise self.fail(f"unknown key {where}{key!r}")
        for key, (types, required) in schema.items():
            if key not in values:
                if required:
                    raise self.fail(f"{where}{key} is missing")
                continue
            value = values[key]
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise self.fail(f"{where}{key} must be {' or '.join(t.__name__ for t in types)}, not {type(value).__name__}")

    def numbers(self, values: list, count: int | None, where: str, low: float, high: float) -> None:
        """A list of `count` numbers (None: 1 to 32) from low to high."""
        if (count is not None and len(values) != count) or not values or len(values) > 32:
            raise self.fail(f"{where} must hold {count or '1 to 32'} numbers")
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not low <= v <= high for v in values):
            raise self.fail(f"{where} must hold numbers from {low:g} to {high:g}")

    def header(self, content: dict[str, Any]) -> None:
        """Format and name of the model, once its keys are checked; and that its texts can be shown."""
        if content["format"] != CARD_FORMAT:
            raise self.fail(f"its format is {content['format']}, and this version of IMT reads format {CARD_FORMAT}")
        if has_controls(content):
            raise self.fail("it holds control characters, which no text of a card needs")
        if not NAME_PATTERN.fullmatch(content["name"]):
            raise self.fail("name may hold letters, digits and . _ + - only")

    def modality(self, text: str, where: str) -> None:
        """A modality's name."""
        if not NAME_PATTERN.fullmatch(text):
            raise self.fail(f"{where} {text!r} is no modality's name")

    def modalities(self, content: dict[str, Any]) -> None:
        """Source, target, and the list of an any-to-any model."""
        for key in ("source", "target"):
            self.modality(content[key], key)
        modalities = content.get("modalities", [])
        if any(not isinstance(m, str) or not NAME_PATTERN.fullmatch(m) for m in modalities):
            raise self.fail("modalities must be names")
        pair = (content["source"], content["target"])
        if (pair == (ANY, ANY)) != bool(modalities) or (ANY in pair and not modalities):
            raise self.fail('an any-to-any model has source and target "any" and a list of modalities')
        if modalities and (len(modalities) < 2 or len(set(modalities)) < len(modalities)):
            raise self.fail("modalities must be two or more, each named once")

    def network(self, network: Any, schema: Schema = NETWORK) -> int:
        """A known kind, with arguments within their bounds; returns the network's stride."""
        self.keys(network, schema, "network.")
        architecture = self.architectures.get(network["kind"])
        if architecture is None:
            raise self.fail(f"network.kind {network['kind']!r} is unknown; this version knows {', '.join(self.architectures)}")
        self.keys(network["arguments"], architecture.arguments, "network.arguments.")
        problem = architecture.problem(network["arguments"])
        if problem:
            raise self.fail("network.arguments." + problem)
        return architecture.stride(network["arguments"])

    def slicing(self, slicing: Any, stride: int, schema: Schema = SLICING) -> None:
        """Planes, mode, sizes in voxels and mm."""
        self.keys(slicing, schema, "slicing.")
        if slicing["plane"] not in PLANES or slicing["mode"] not in ("paper", "spatial"):
            raise self.fail("slicing.plane must be axial, coronal or sagittal, and slicing.mode paper or spatial")
        planes = slicing.get("planes", [slicing["plane"]])
        if any(not isinstance(plane, str) or plane not in PLANES for plane in planes) or len(set(planes)) < len(planes):
            raise self.fail("slicing.planes must be some of axial, coronal and sagittal, each once")
        if planes[:1] != [slicing["plane"]]:
            raise self.fail("slicing.planes must begin with slicing.plane")
        self.numbers(slicing.get("size", [256, 256]), 2, "slicing.size", 8, 2048)
        self.numbers([slicing.get("spacing_mm", 1.0)], 1, "slicing.spacing_mm", 0.1, 10)
        self.numbers(slicing.get("neighbours_mm", [0.0]), None, "slicing.neighbours_mm", -50, 50)
        if slicing["mode"] == "paper" and any(n % stride for n in slicing.get("size", [256, 256])):
            raise self.fail(f"slicing.size must be multiples of the network's stride, {stride}")

    def channels(self, content: dict[str, Any]) -> None:
        """What the slicing gives is what the network takes."""
        network, modalities, slicing = content["network"], content.get("modalities", []), content["slicing"]
        arguments, channel = network["arguments"], network.get("channel")
        neighbours = len(slicing.get("neighbours_mm", [0.0]))
        if ARCHITECTURES[network["kind"]].works_on == "volume":
            if modalities or neighbours > 1 or len(slicing.get("planes", [""])) > 1 or channel is not None:
                raise self.fail(f"a network of kind {network['kind']} takes whole volumes: no neighbours, planes, channel or modalities")
            return
        channels = neighbours + 2 * len(modalities)
        if arguments["in_channels"] != channels or (arguments["out_channels"] != 1 and channel is None):
            raise self.fail(f"the network must take {channels} channels (slices and modality codes) and give one")
        if channel is not None and not 0 <= channel < arguments["out_channels"]:
            raise self.fail("network.channel must be one of the network's output channels, from 0")

    def intensities(self, content: dict[str, Any]) -> None:
        """Percentile, output range and what the model accepts."""
        self.given_intensities(content)
        self.numbers(content["output_range"], 2, "output_range", -1e6, 1e6)
        if content["output_range"][0] != 0 or content["output_range"][1] <= 0:
            raise self.fail("output_range must go from 0, the background, to a positive number")

    def given_intensities(self, content: dict[str, Any]) -> None:
        """Percentile of the given image, and what the model accepts."""
        self.numbers([content["percentile"]], 1, "percentile", 50, 100)
        self.keys(content.get("accepts", {}), _ACCEPTS, "accepts.")
        for key, values in content.get("accepts", {}).items():
            self.numbers(values, 2, f"accepts.{key}", 0, 1e4)

    def weights(self, weights: Any, schema: Schema = WEIGHTS) -> None:
        """The weights file's name, hash and address."""
        self.keys(weights, schema, "weights.")
        file = weights["file"]
        if not file.endswith(".safetensors") or not NAME_PATTERN.fullmatch(file.removesuffix(".safetensors")):
            raise self.fail(f"weights.file {file!r} must be the name of a .safetensors file beside the card")
        self.sha256(weights["sha256"], "weights.sha256")
        if "url" in weights and not weights["url"].startswith("https://"):
            raise self.fail("weights.url must start with https://")

    def sha256(self, text: str, where: str) -> None:
        """A SHA-256 in hexadecimal."""
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
            raise self.fail(f"{where} must be 64 hexadecimal digits")

    def documentation(self, content: dict[str, Any]) -> None:
        """How it was trained, its limits and citations."""
        self.keys(content["training"], _TRAINING, "training.")
        for where, lines in (
            ("limits", content["limits"]),
            ("citations", content.get("citations", [])),
            ("training.held_out", content["training"].get("held_out", [])),
        ):
            if any(not isinstance(line, str) for line in lines):
                raise self.fail(f"{where} must hold texts")
