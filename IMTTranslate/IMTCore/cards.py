"""Model cards: one JSON file a model that says all that is needed to run it, and what it was made from.

A card is data from outside. It is checked key by key; nothing in it is ever executed, and the weights file that it
names must lie beside it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadModel
from .orientation import PLANES
from .slicing import SlicingSpec

if TYPE_CHECKING:
    from .networks import UNetGenerator

CARD_FORMAT = 1
MAX_CARD_BYTES = 1 << 20
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
ANY = "any"

# Key → (types, required). Keys that are not listed are refused: a misspelt key would silently not count.
_TOP: dict[str, tuple[tuple[type, ...], bool]] = {
    "format": ((int,), True),
    "name": ((str,), True),
    "version": ((str,), True),
    "title": ((str,), True),
    "description": ((str,), False),
    "source": ((str,), True),
    "target": ((str,), True),
    "modalities": ((list,), False),
    "default": ((bool,), False),
    "network": ((dict,), True),
    "slicing": ((dict,), True),
    "percentile": ((float, int), True),
    "output_range": ((list,), True),
    "accepts": ((dict,), False),
    "weights": ((dict,), True),
    "training": ((dict,), True),
    "metrics": ((list,), True),
    "intended_use": ((str,), True),
    "limits": ((list,), True),
    "citations": ((list,), False),
}
# `channel`: which output of a network of several targets is this model's; such models share their weights file.
_NETWORK = {"kind": ((str,), True), "arguments": ((dict,), True), "channel": ((int,), False)}
_ARGUMENTS: dict[str, tuple[tuple[type, ...], bool]] = {
    "in_channels": ((int,), True),
    "out_channels": ((int,), True),
    "filters": ((int,), True),
    "depth": ((int,), True),
    "max_multiplier": ((int,), False),
    "dropout_blocks": ((int,), False),
    "dropout": ((float, int), False),
    "norm": ((str,), False),
    "layout": ((str,), False),
}
_SLICING: dict[str, tuple[tuple[type, ...], bool]] = {
    "plane": ((str,), True),
    "mode": ((str,), True),
    "size": ((list,), False),
    "spacing_mm": ((float, int), False),
    "neighbours_mm": ((list,), False),
}
_ACCEPTS = {"extent_mm": ((list,), False), "median": ((list,), False)}
_WEIGHTS: dict[str, tuple[tuple[type, ...], bool]] = {
    "file": ((str,), True),
    "sha256": ((str,), True),
    "bytes": ((int,), True),
    "licence": ((str,), True),
    "url": ((str,), False),
}
_TRAINING: dict[str, tuple[tuple[type, ...], bool]] = {
    "data": ((list,), True),
    "held_out": ((list,), False),
    "command": ((str,), True),
    "date": ((str,), True),
    "notes": ((str,), False),
}
# Bounds that keep a hostile card from asking for more memory than any model of this kind needs.
_BOUNDS = {"in_channels": 64, "out_channels": 16, "filters": 256, "depth": 10, "max_multiplier": 32, "dropout_blocks": 9}


@dataclass(frozen=True)
class ModelCard:
    """A checked card.

    Attributes:
        path: the card's file.
        content: the whole card as read.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name, which is also its files' stem."""
        return self.content["name"]

    @property
    def source(self) -> str:
        """Given modality, or "any"."""
        return self.content["source"]

    @property
    def target(self) -> str:
        """Translated modality, or "any"."""
        return self.content["target"]

    @property
    def modalities(self) -> list[str]:
        """The modalities of an any-to-any model, in the order of their codes; empty for a model of one pair."""
        return list(self.content.get("modalities", []))

    @property
    def slicing(self) -> SlicingSpec:
        """How slices are cut."""
        values = self.content["slicing"]
        return SlicingSpec(
            values["plane"],
            values["mode"],
            tuple(values.get("size", (256, 256))),
            float(values.get("spacing_mm", 1.0)),
            tuple(float(v) for v in values.get("neighbours_mm", (0.0,))),
        )

    @property
    def percentile(self) -> float:
        """Foreground percentile of the input that is normalised to 1."""
        return float(self.content["percentile"])

    @property
    def output_range(self) -> tuple[float, float]:
        """Intensities of the output that the network's −1 and 1 stand for."""
        low, high = self.content["output_range"]
        return float(low), float(high)

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights file."""
        return self.content["weights"]["sha256"].lower()

    @property
    def weights_path(self) -> Path:
        """The weights file, beside the card."""
        return self.path.parent / self.content["weights"]["file"]

    def build_network(self) -> UNetGenerator:
        """A generator of the card's architecture with all its outputs, weights not loaded."""
        from .networks import UNetGenerator  # torch: cards alone are read without it, in Slicer's own process

        return UNetGenerator(**self.content["network"]["arguments"])

    def translates(self, source: str, target: str) -> bool:
        """Whether this model translates `source` to `target`."""
        if self.modalities:
            return source != target and source in self.modalities and target in self.modalities
        return (self.source, self.target) == (source, target)

    def summary(self) -> dict[str, Any]:
        """What a list of models shows."""
        weights = self.content["weights"]
        return {
            "name": self.name,
            "version": self.content["version"],
            "title": self.content["title"],
            "source": self.source,
            "target": self.target,
            "modalities": self.modalities,
            "licence": weights["licence"],
            "bytes": weights["bytes"],
            "sha256": self.sha256,
            "present": self.weights_path.is_file(),
            "path": str(self.path),
        }


def read_card(path: Path) -> ModelCard:
    """Read and check a card.

    Raises:
        BadModel: missing, too long, not JSON, or not a card: the message names the file and the key.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise BadModel(f"{path} is too large for a model card ({path.stat().st_size} bytes).")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModel(f"The model card {path} cannot be read: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise BadModel(f"The model card {path} is not valid JSON ({error}). Import or download the model again.") from error
    check_card(content, path)
    return ModelCard(path, content)


def check_card(content: Any, path: Path) -> None:
    """Check a card's content against the schema.

    Raises:
        BadModel: naming `path`, the key and what is wrong with it.
    """

    def fail(problem: str) -> BadModel:
        return BadModel(f"The model card {path} is not usable: {problem}. Nothing was loaded.")

    def check(values: Any, schema: dict[str, tuple[tuple[type, ...], bool]], where: str) -> None:
        if not isinstance(values, dict):
            raise fail(f"{where or 'its content'} must be an object")
        for key in values:
            if key not in schema:
                raise fail(f"unknown key {where}{key!r}")
        for key, (types, required) in schema.items():
            if key not in values:
                if required:
                    raise fail(f"{where}{key} is missing")
                continue
            value = values[key]
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise fail(f"{where}{key} must be {' or '.join(t.__name__ for t in types)}, not {type(value).__name__}")

    def numbers(values: list, count: int | None, where: str, low: float, high: float) -> None:
        if (count is not None and len(values) != count) or not values or len(values) > 32:
            raise fail(f"{where} must hold {count or '1 to 32'} numbers")
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not low <= v <= high for v in values):
            raise fail(f"{where} must hold numbers from {low:g} to {high:g}")

    check(content, _TOP, "")
    if content["format"] != CARD_FORMAT:
        raise fail(f"its format is {content['format']}, and this version of IMT reads format {CARD_FORMAT}")
    if not NAME_PATTERN.fullmatch(content["name"]):
        raise fail("name may hold letters, digits and . _ + - only")
    for key in ("source", "target"):
        if not NAME_PATTERN.fullmatch(content[key]):
            raise fail(f"{key} {content[key]!r} is no modality's name")
    modalities = content.get("modalities", [])
    if any(not isinstance(m, str) or not NAME_PATTERN.fullmatch(m) for m in modalities):
        raise fail("modalities must be names")
    pair = (content["source"], content["target"])
    if (pair == (ANY, ANY)) != bool(modalities) or (ANY in pair and not modalities):
        raise fail('an any-to-any model has source and target "any" and a list of modalities')
    if modalities and (len(modalities) < 2 or len(set(modalities)) < len(modalities)):
        raise fail("modalities must be two or more, each named once")
    check(content["network"], _NETWORK, "network.")
    arguments = content["network"]["arguments"]
    check(arguments, _ARGUMENTS, "network.arguments.")
    if content["network"]["kind"] != "unet":
        raise fail(f"network.kind {content['network']['kind']!r} is unknown")
    for key, most in _BOUNDS.items():
        least = 0 if key == "dropout_blocks" else 2 if key == "depth" else 1
        if key in arguments and not least <= arguments[key] <= most:
            raise fail(f"network.arguments.{key} must be {least} to {most}")
    if not 0 <= arguments.get("dropout", 0.5) < 1:
        raise fail("network.arguments.dropout must be at least 0 and below 1")
    if arguments.get("norm", "instance") not in ("instance", "batch") or arguments.get("layout", "torch") not in ("torch", "lua"):
        raise fail("network.arguments.norm must be instance or batch, and layout torch or lua")
    slicing = content["slicing"]
    check(slicing, _SLICING, "slicing.")
    if slicing["plane"] not in PLANES or slicing["mode"] not in ("paper", "spatial"):
        raise fail("slicing.plane must be axial, coronal or sagittal, and slicing.mode paper or spatial")
    numbers(slicing.get("size", [256, 256]), 2, "slicing.size", 8, 2048)
    numbers([slicing.get("spacing_mm", 1.0)], 1, "slicing.spacing_mm", 0.1, 10)
    numbers(slicing.get("neighbours_mm", [0.0]), None, "slicing.neighbours_mm", -50, 50)
    stride = 2 ** arguments["depth"]
    if slicing["mode"] == "paper" and any(n % stride for n in slicing.get("size", [256, 256])):
        raise fail(f"slicing.size must be multiples of the network's stride, {stride}")
    channels = len(slicing.get("neighbours_mm", [0.0])) + 2 * len(modalities)
    channel = content["network"].get("channel")
    if arguments["in_channels"] != channels or (arguments["out_channels"] != 1 and channel is None):
        raise fail(f"the network must take {channels} channels (slices and modality codes) and give one")
    if channel is not None and not 0 <= channel < arguments["out_channels"]:
        raise fail("network.channel must be one of the network's output channels, from 0")
    numbers([content["percentile"]], 1, "percentile", 50, 100)
    numbers(content["output_range"], 2, "output_range", -1e6, 1e6)
    if content["output_range"][0] != 0 or content["output_range"][1] <= 0:
        raise fail("output_range must go from 0, the background, to a positive number")
    check(content.get("accepts", {}), _ACCEPTS, "accepts.")
    for key, values in content.get("accepts", {}).items():
        numbers(values, 2, f"accepts.{key}", 0, 1e4)
    weights = content["weights"]
    check(weights, _WEIGHTS, "weights.")
    file = weights["file"]
    if not file.endswith(".safetensors") or not NAME_PATTERN.fullmatch(file.removesuffix(".safetensors")):
        raise fail(f"weights.file {file!r} must be the name of a .safetensors file beside the card")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", weights["sha256"]):
        raise fail("weights.sha256 must be 64 hexadecimal digits")
    if "url" in weights and not weights["url"].startswith("https://"):
        raise fail("weights.url must start with https://")
    check(content["training"], _TRAINING, "training.")
    for where, lines in (
        ("limits", content["limits"]),
        ("citations", content.get("citations", [])),
        ("training.held_out", content["training"].get("held_out", [])),
    ):
        if any(not isinstance(line, str) for line in lines):
            raise fail(f"{where} must hold texts")
