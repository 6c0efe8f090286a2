"""All models by name: those that translate and, where IMTSegment is installed, those that segment. No torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from IMTCore.cards import ModelCard, read_card_file
from IMTCore.catalogue import find_card, list_cards, user_folder
from IMTCore.errors import BadModel


def has_segmenters() -> bool:
    """Whether IMTSegment is installed; in Slicer the modules may be installed one by one."""
    return importlib.util.find_spec("IMTSegmentLib") is not None


def list_models() -> tuple[list[ModelCard], list[str]]:
    """All cards, those that translate first, and what could not be read."""
    cards, problems = list_cards()
    if has_segmenters():
        from IMTSegmentLib.segmenter_catalogue import list_segmenters

        more, further = list_segmenters()
        cards, problems = [*cards, *more], [*problems, *further]
    return cards, problems


def segments(card: ModelCard) -> bool:
    """Whether a model segments; else it translates."""
    return card.content.get("kind") == "segmentation"


def find_model(name: str) -> ModelCard:
    """The card for a name, a path, a pair such as T1-T2 or a task such as tissue; a model that translates comes first.

    Raises:
        BadModel: there is none; the message lists what there is.
    """
    if not has_segmenters():
        return find_card(name)
    from IMTSegmentLib.segmenter_catalogue import find_segmenter, list_segmenters

    if is_segmenter_file(Path(name)):
        return find_segmenter(name)
    try:
        return find_card(name)
    except BadModel as error:
        if Path(name).suffix in (".json", ".safetensors"):
            raise
        try:
            return find_segmenter(name)
        except BadModel:
            names = ", ".join(card.name for card in list_segmenters()[0]) or "none"
            raise BadModel(f"{error} Segmentation models here: {names}.") from error


def is_segmenter_file(path: Path) -> bool:
    """Whether a path names the card or the weights of a model that segments."""
    if path.suffix not in (".json", ".safetensors"):
        return False
    try:
        content = read_card_file(path.with_suffix(".json"))
    except BadModel:
        return False
    return isinstance(content, dict) and content.get("kind") == "segmentation"


def is_users_segmenter(name: str) -> bool:
    """Whether the user's own folders hold a model of that name that segments, and none that translates."""
    if not has_segmenters() or any(card.name == name and card.path.parent == user_folder() for card in list_cards()[0]):
        return False
    from IMTSegmentLib.segmenter_catalogue import list_segmenters
    from IMTSegmentLib.segmenter_catalogue import user_folder as segmenters_folder

    return any(card.name == name and card.path.parent == segmenters_folder() for card in list_segmenters()[0])


def folder_for(card: ModelCard) -> Path:
    """The user's own folder for such a model."""
    if not segments(card):
        return user_folder()
    from IMTSegmentLib.segmenter_catalogue import user_folder as segmenters_folder

    return segmenters_folder()
