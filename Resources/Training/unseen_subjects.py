"""Whether a translator has seen a subject in its training, as far as its card tells."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput


def training_patterns(card: ModelCard) -> tuple[list[str], list[str]]:
    """The patterns after --train and after --exclude in the card's training command; empty if it has none."""
    patterns: dict[str, list[str]] = {"--train": [], "--exclude": []}
    option = ""
    try:
        words = shlex.split(card.content["training"]["command"])
    except ValueError:  # quotes that do not close
        words = []
    for word in words:
        if word.startswith("--"):
            option = word
        elif option in patterns:
            patterns[option].append(word)
    return patterns["--train"], patterns["--exclude"]


def check_unseen(card: ModelCard, subjects: Sequence[str]) -> None:
    """Refuse test subjects that the model was trained on, or may have been.

    A subject is unseen if the card's `training.held_out` lists it, or if the card's training command names its training
    subjects (--train, --exclude) and this is none of them.

    Args:
        card: the model's card.
        subjects: `<dataset>/<subject>` names, as in the training.

    Raises:
        BadInput: naming the model and the subjects.
    """
    held_out = set(card.content["training"].get("held_out", []))
    trained, excluded = training_patterns(card)

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    unlisted = [name for name in subjects if name not in held_out]
    if unlisted and not trained:
        raise BadInput(
            f"The card of model {card.name} does not say which subjects it was trained on, and does not list "
            f"{', '.join(unlisted)} under training.held_out: they cannot be test subjects."
        )
    seen = [name for name in unlisted if matches(name, trained) and not matches(name, excluded)]
    if seen:
        raise BadInput(
            f"Model {card.name} was trained on {', '.join(seen)}: they cannot be test subjects. Its card lists those held out: "
            f"{', '.join(sorted(held_out)) or 'none'}."
        )
