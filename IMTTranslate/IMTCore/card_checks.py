"""The schema of model cards, and the checks beyond it. A card is data from outside: every key and number is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .architectures import Schema
from .card_checker import CARD, CardChecker
from .uncertainty_checks import check_training_range, check_uncertainty

_CARD: Schema = {
    **CARD,
    "target": ((str,), True),
    "modalities": ((list,), False),
    "output_range": ((list,), True),
    "training_range": ((dict,), False),
    "uncertainty": ((dict,), False),
}


def check_card(content: Any, path: Path) -> None:
    """Check a card's content against the schema.

    Raises:
        BadModel: naming `path`, the key and what is wrong with it.
    """
    checker = CardChecker(path)
    if isinstance(content, dict) and content.get("kind") == "segmentation":
        raise checker.fail("it is the card of a segmentation model; imt segment takes it, and a translation model is needed here")
    checker.keys(content, _CARD, "")
    checker.header(content)
    checker.modalities(content)
    checker.slicing(content["slicing"], checker.network(content["network"]))
    checker.channels(content)
    checker.intensities(content)
    checker.weights(content["weights"])
    checker.documentation(content)
    if "training_range" in content:
        check_training_range(checker, content["training_range"])
    if "uncertainty" in content:
        check_uncertainty(checker, content["uncertainty"])
