"""Model cards: one JSON file a model that says all that is needed to run it, and what it was made from.

A card is data from outside. It is checked key by key; nothing in it is ever executed, and the weights file that it
names must lie beside it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .architectures import ARCHITECTURES, Architecture
from .card_checks import check_card
from .errors import BadModel
from .slicing import SlicingSpec

if TYPE_CHECKING:
    from torch import nn

MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True)
class PackageCard(ABC):
    """A checked card: what the cards of all kinds of model have.

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
    def slicing(self) -> SlicingSpec:
        """How slices are cut (in the first plane, if there are several)."""
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
    def sha256(self) -> str:
        """SHA-256 of the weights file."""
        return self.content["weights"]["sha256"].lower()

    @property
    def weights_path(self) -> Path:
        """The weights file, beside the card."""
        return self.path.parent / self.content["weights"]["file"]

    @property
    def planes(self) -> tuple[str, ...]:
        """The planes in which the network works; of several, the results are averaged."""
        slicing = self.content["slicing"]
        return tuple(slicing.get("planes", (slicing["plane"],)))

    @property
    @abstractmethod
    def architecture(self) -> Architecture:
        """The kind of network."""

    @property
    def stride(self) -> int:
        """What rows and columns of the network's images must be multiples of."""
        return self.architecture.stride(self.content["network"]["arguments"])

    def build_network(self) -> nn.Module:
        """A network of the card's architecture with all its outputs, weights not loaded. Imports torch."""
        return self.architecture.build(self.content["network"]["arguments"])

    def summary(self) -> dict[str, Any]:
        """What a list of models shows."""
        weights = self.content["weights"]
        return {
            "name": self.name,
            "version": self.content["version"],
            "title": self.content["title"],
            "source": self.source,
            "licence": weights["licence"],
            "bytes": weights["bytes"],
            "sha256": self.sha256,
            "present": self.weights_path.is_file(),
            "path": str(self.path),
        }


@dataclass(frozen=True)
class ModelCard(PackageCard):
    """A checked card of a translation model."""

    @property
    def target(self) -> str:
        """Translated modality, or "any"."""
        return self.content["target"]

    @property
    def modalities(self) -> list[str]:
        """The modalities of an any-to-any model, in the order of their codes; empty for a model of one pair."""
        return list(self.content.get("modalities", []))

    @property
    def output_range(self) -> tuple[float, float]:
        """Intensities of the output that the network's −1 and 1 stand for."""
        low, high = self.content["output_range"]
        return float(low), float(high)

    @property
    def architecture(self) -> Architecture:
        """The kind of network."""
        return ARCHITECTURES[self.content["network"]["kind"]]

    def translates(self, source: str, target: str) -> bool:
        """Whether this model translates `source` to `target`."""
        if self.modalities:
            return source != target and source in self.modalities and target in self.modalities
        return (self.source, self.target) == (source, target)

    def summary(self) -> dict[str, Any]:
        """What a list of models shows."""
        return {**super().summary(), "target": self.target, "modalities": self.modalities}


def read_card(path: Path) -> ModelCard:
    """Read and check a card.

    Raises:
        BadModel: missing, too long, not JSON, or not a translation model's card: the message names the file and the key.
    """
    content = read_card_file(path)
    check_card(content, Path(path))
    return ModelCard(Path(path), content)


def read_card_file(path: Path) -> Any:
    """What a card's file holds, not checked.

    Raises:
        BadModel: missing, too long or not JSON.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise BadModel(f"The model card {path} is not a file. Give the card's file itself.")
        if path.stat().st_size > MAX_CARD_BYTES:
            raise BadModel(f"{path} is too large for a model card ({path.stat().st_size} bytes).")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModel(f"The model card {path} cannot be read: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise BadModel(f"The model card {path} is not valid JSON ({error}). Import or download the model again.") from error
