"""The kinds of network that a card may name: their arguments, the bounds of these, and where their classes are.

No torch: cards are checked in Slicer's own process. A network "works on" slices, one image [rows, columns] at a time, or
on the volume, all prepared slices [k, rows, columns] at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Key → (types, required). Keys that are not listed are refused: a misspelt key would silently not count.
Schema = dict[str, tuple[tuple[type, ...], bool]]


@dataclass(frozen=True)
class Architecture:
    """One kind of network.

    Attributes:
        module, name: the class, within this package.
        arguments: its constructor's arguments, as a schema.
        bounds: least and largest number of each; they keep a hostile card from asking for more memory than any model of
            the kind needs.
        choices: the values that an argument may have.
        works_on: "slices" or "volume".
        stride: what rows and columns must be multiples of, from the arguments.
    """

    module: str
    name: str
    arguments: Schema
    bounds: dict[str, tuple[float, float]]
    choices: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    works_on: str = "slices"
    stride: Callable[[dict[str, Any]], int] = lambda arguments: 1

    def problem(self, arguments: dict[str, Any]) -> str | None:
        """What is wrong with the values of checked arguments: "KEY must be …", or None."""
        for key, (least, most) in self.bounds.items():
            if key in arguments and not least <= arguments[key] <= most:
                return f"{key} must be {least:g} to {most:g}"
        for key, words in self.choices.items():
            if arguments.get(key, words[0]) not in words:
                return f"{key} must be {' or '.join(map(str, words))}"
        return None

    def build(self, arguments: dict[str, Any]) -> nn.Module:
        """The network, its weights not loaded. Imports torch."""
        return getattr(importlib.import_module("." + self.module, __package__), self.name)(**arguments)


_INTEGER, _INTEGER_IF_ANY = ((int,), True), ((int,), False)

ARCHITECTURES = {
    "unet": Architecture(
        "networks",
        "UNetGenerator",
        {
            "in_channels": _INTEGER,
            "out_channels": _INTEGER,
            "filters": _INTEGER,
            "depth": _INTEGER,
            "max_multiplier": _INTEGER_IF_ANY,
            "dropout_blocks": _INTEGER_IF_ANY,
            "dropout": ((float, int), False),
            "norm": ((str,), False),
            "layout": ((str,), False),
        },
        {
            "in_channels": (1, 64),
            "out_channels": (1, 16),
            "filters": (1, 256),
            "depth": (2, 10),
            "max_multiplier": (1, 32),
            "dropout_blocks": (0, 9),
            "dropout": (0, 0.99),
        },
        {"norm": ("instance", "batch"), "layout": ("torch", "lua")},
        stride=lambda arguments: 2 ** arguments["depth"],
    ),
    "encoder-decoder": Architecture(
        "encoder_decoder",
        "EncoderDecoder",
        {
            "in_channels": _INTEGER,
            "out_channels": _INTEGER,
            "filters": _INTEGER,
            "depth": _INTEGER,
            "skips": _INTEGER_IF_ANY,
            "norm": ((str,), False),
        },
        {"in_channels": (1, 64), "out_channels": (1, 16), "filters": (1, 128), "depth": (2, 8), "skips": (0, 7)},
        {"norm": ("instance", "none")},
        stride=lambda arguments: 2 ** arguments["depth"],
    ),
    "context": Architecture(
        "context_network",
        "ContextCascade",
        {"in_channels": _INTEGER, "out_channels": _INTEGER, "filters": _INTEGER, "stages": _INTEGER, "layout": ((str,), False)},
        {"in_channels": (1, 1), "out_channels": (1, 1), "filters": (1, 64), "stages": (1, 3)},
        {"layout": ("paper", "code")},
        works_on="volume",
    ),
    "forest": Architecture(
        "forest",
        "RegressionForest",
        {
            "trees": _INTEGER,
            "nodes": _INTEGER,
            "passes": _INTEGER,
            "step_mm": ((float, int), True),
            "neighbours": _INTEGER,
            "levels": _INTEGER,
        },
        {"trees": (1, 500), "nodes": (1, 1 << 24), "passes": (1, 2), "step_mm": (0.1, 10), "levels": (0, 8)},
        {"neighbours": (0, 6, 26)},
        works_on="volume",
    ),
}
