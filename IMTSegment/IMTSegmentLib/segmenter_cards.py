"""Cards of segmentation models: one JSON file a model that says all that is needed to run it, and what it was made from.

A card is data from outside. It is checked key by key; nothing in it is ever executed, and the weights file that it
names must lie beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IMTCore.architectures import Architecture, Schema
from IMTCore.card_checker import CARD, NAME_PATTERN, NETWORK, SLICING, WEIGHTS, CardChecker
from IMTCore.cards import PackageCard, read_card_file
from IMTCore.errors import BadInput
from IMTCore.label_names import LabelName, LabelNames

from .architectures import SEGMENTERS

KIND = "segmentation"
GIVEN, SECOND = "given", "second"
MAX_TEXT = 200

_TOP: Schema = {
    **CARD,
    "kind": ((str,), True),
    "task": ((str,), True),
    "channels": ((list,), True),
    "second": ((dict,), False),
    "classes": ((list,), True),
}
_SECOND: Schema = {"modality": ((str,), True), "translator": ((dict,), False)}
_TRANSLATOR: Schema = {"name": ((str,), True), "sha256": ((str,), True)}
_CLASS: Schema = {"code": ((int,), True), "name": ((str,), True), "colour": ((list,), True), "terminology": ((str,), False)}
# Single slices, one output: what only translators have is left out.
_NETWORK: Schema = {key: value for key, value in NETWORK.items() if key != "channel"}
_SLICING: Schema = {key: value for key, value in SLICING.items() if key != "neighbours_mm"}
_WEIGHTS: Schema = {key: value for key, value in WEIGHTS.items() if key != "url"}


@dataclass(frozen=True)
class SegmenterCard(PackageCard):
    """A checked card of a segmentation model.

    `source` is the given modality.
    """

    @property
    def task(self) -> str:
        """What is segmented, "tissue" for example: models of one task can stand in for each other."""
        return self.content["task"]

    @property
    def second(self) -> str | None:
        """The modality of the second image, translated or real; None for a model of the given image alone."""
        return self.content["second"]["modality"] if "second" in self.content else None

    @property
    def translator(self) -> dict[str, str] | None:
        """Name and SHA-256 of the translation model with whose translations it was trained, or None."""
        return self.content.get("second", {}).get("translator")

    @property
    def channels(self) -> tuple[str, ...]:
        """The network's input channels, each "given" or "second"."""
        return tuple(self.content["channels"])

    @property
    def codes(self) -> tuple[int, ...]:
        """The label codes of the network's classes 1, 2, …; class 0 is the background."""
        return tuple(entry["code"] for entry in self.content["classes"])

    @property
    def classes(self) -> LabelNames:
        """Names and colours of the codes."""
        return _label_names(self.content["classes"])

    @property
    def architecture(self) -> Architecture:
        """The kind of network."""
        return SEGMENTERS[self.content["network"]["kind"]]

    def summary(self) -> dict[str, Any]:
        """What a list of models shows."""
        return {
            **super().summary(),
            "task": self.task,
            "second": self.second,
            "translator": None if self.translator is None else self.translator["name"],
            "structures": [entry.name for entry in self.classes.values()],
            "default": self.content.get("default", False),
        }


def read_segmenter_card(path: Path) -> SegmenterCard:
    """Read and check a card.

    Raises:
        BadModel: missing, too long, not JSON, or not a segmentation model's card: the message names the file and the key.
    """
    content = read_card_file(path)
    check_segmenter_card(content, path)
    return SegmenterCard(Path(path), content)


def check_segmenter_card(content: Any, path: Path) -> None:
    """Check a card's content: every key, type and number.

    Raises:
        BadModel: naming `path`, the key and what is wrong with it.
    """
    checker = CardChecker(path, SEGMENTERS)
    if isinstance(content, dict) and content.get("kind") != KIND:
        raise checker.fail(f'it is no card of a segmentation model (kind must be "{KIND}"); imt translate takes translation models')
    checker.keys(content, _TOP, "")
    checker.header(content)
    if not NAME_PATTERN.fullmatch(content["task"]):
        raise checker.fail("task may hold letters, digits and . _ + - only")
    checker.modality(content["source"], "source")
    _check_second(checker, content)
    _check_classes(checker, content["classes"])
    stride = checker.network(content["network"], _NETWORK)
    checker.slicing(content["slicing"], stride, _SLICING)
    _check_network_fits(checker, content)
    checker.given_intensities(content)
    checker.weights(content["weights"], _WEIGHTS)
    checker.documentation(content)


def _check_second(checker: CardChecker, content: dict[str, Any]) -> None:
    channels = content["channels"]
    if not 1 <= len(channels) <= 64 or any(channel not in (GIVEN, SECOND) for channel in channels):
        raise checker.fail(f'channels must be 1 to 64, each "{GIVEN}" or "{SECOND}"')
    if (SECOND in channels) != ("second" in content):
        raise checker.fail(f'the channel "{SECOND}" and the key second go together')
    if "second" not in content:
        return
    second = content["second"]
    checker.keys(second, _SECOND, "second.")
    checker.modality(second["modality"], "second.modality")
    if "translator" in second:
        checker.keys(second["translator"], _TRANSLATOR, "second.translator.")
        if not NAME_PATTERN.fullmatch(second["translator"]["name"]):
            raise checker.fail("second.translator.name may hold letters, digits and . _ + - only")
        checker.sha256(second["translator"]["sha256"], "second.translator.sha256")


def _check_classes(checker: CardChecker, classes: list[Any]) -> None:
    if not 1 <= len(classes) <= 255:
        raise checker.fail("classes must hold 1 to 255 structures")
    for number, entry in enumerate(classes):
        where = f"classes[{number}]."
        checker.keys(entry, _CLASS, where)
        colour = entry["colour"]
        if len(colour) != 3 or any(isinstance(part, bool) or not isinstance(part, int) or not 0 <= part <= 255 for part in colour):
            raise checker.fail(f"{where}colour must be red, green and blue from 0 to 255")
        name = entry["name"]
        if not name.strip() or not name.isprintable() or len(name) > MAX_TEXT:
            raise checker.fail(f"{where}name must be a text of one line")
    try:
        _label_names(classes)
    except BadInput as error:
        raise checker.fail(f"classes: {str(error).rstrip('.')}") from error


def _check_network_fits(checker: CardChecker, content: dict[str, Any]) -> None:
    arguments, channels, classes = content["network"]["arguments"], len(content["channels"]), len(content["classes"]) + 1
    if arguments["in_channels"] != channels:
        raise checker.fail(f"the network takes {arguments['in_channels']} channels, and the card lists {channels}")
    if arguments["classes"] != classes:
        raise checker.fail(f"the network has {arguments['classes']} classes, and the card {classes} with the background")


def _label_names(classes: list[dict[str, Any]]) -> LabelNames:
    return LabelNames(
        LabelName(entry["code"], entry["name"], tuple(entry["colour"]), entry.get("terminology", "")) for entry in classes
    )
