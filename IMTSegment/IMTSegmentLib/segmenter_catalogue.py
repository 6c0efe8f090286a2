"""The segmentation models that there are: those shipped with the module and those in the user's folder."""

from __future__ import annotations

import os
from pathlib import Path

from IMTCore.errors import BadInput, BadModel, OutputFailure
from IMTCore.files import data_folder, describe_write_error

from .segmenter_cards import SegmenterCard, read_segmenter_card

USER_FOLDER_VARIABLE = "IMT_SEGMENT_MODELS"
FOLDER = "IMT-segment-models"  # in an installed Slicer the Resources of all modules are one folder


def shipped_folder() -> Path:
    """The folder of the models that come with IMT: in a checkout, in Slicer, or in an installed wheel."""
    beside = Path(__file__).resolve().parents[1] / "Resources" / FOLDER
    if beside.is_dir():
        return beside
    return Path(__file__).resolve().parents[1] / "IMTSegmentModels"


def user_folder() -> Path:
    """The user's own folder: `$IMT_SEGMENT_MODELS`, or IMT/segment-models in the system's place for user data."""
    if os.environ.get(USER_FOLDER_VARIABLE):
        return Path(os.environ[USER_FOLDER_VARIABLE])
    return data_folder() / "segment-models"


def list_segmenters() -> tuple[list[SegmenterCard], list[str]]:
    """All cards, the user's first (a user's model hides a shipped one of the same name), and what could not be read."""
    cards: dict[str, SegmenterCard] = {}
    problems: list[str] = []
    for folder in (user_folder(), shipped_folder()):
        for path in _card_files(folder):
            try:
                card = read_segmenter_card(path)
            except BadModel as error:
                problems.append(str(error))
                continue
            cards.setdefault(card.name, card)
    return list(cards.values()), problems


def find_segmenter(model: str) -> SegmenterCard:
    """The card for a name, a path (card, weights or a folder with one card), or a task such as "tissue".

    A name comes before a task, and both before a folder; of several models for a task, the one marked as default, else
    the first.

    Raises:
        BadModel: if there is none; the message lists what there is.
    """
    path = Path(model)
    if path.suffix in (".json", ".safetensors"):
        return read_segmenter_card(path.with_suffix(".json"))
    cards, problems = list_segmenters()
    for card in cards:
        if card.name == model:
            return card
    fitting = sorted((card for card in cards if card.task == model), key=lambda card: not card.content.get("default", False))
    if fitting:
        return fitting[0]
    found = _card_files(path) if model.strip() else []
    if len(found) == 1:
        return read_segmenter_card(found[0])
    if found:
        raise BadModel(f"{path} holds {len(found)} model cards: give the path of one.")
    names = ", ".join(f"{card.name} ({card.task})" for card in cards) or "none"
    trouble = f" Not readable: {problems[0]}" if problems else ""
    raise BadModel(
        f"There is no segmentation model {model!r}. Models here: {names}. Give a name, a task such as tissue, or a card's path.{trouble}"
    )


def remove_segmenter(name: str) -> list[Path]:
    """Delete a model of the user's folder, card and weights; shipped ones stay.

    Returns:
        The files that were deleted.

    Raises:
        BadInput: the user's folder has no such model. OutputFailure: a file cannot be deleted.
    """
    cards = [card for card in list_segmenters()[0] if card.path.parent == user_folder()]
    chosen = [card for card in cards if card.name == name]
    if not chosen:
        raise BadInput(f"The user's folder {user_folder()} has no segmentation model {name!r}. Models that come with IMT are not removed.")
    (card,) = chosen
    shared = any(other is not card and other.weights_path == card.weights_path for other in cards)
    removed = [path for path in (card.weights_path, card.path) if path.exists() and not (shared and path == card.weights_path)]
    for path in removed:
        try:
            path.unlink()
        except OSError as error:
            raise OutputFailure(describe_write_error(path, error)) from error
    return removed


def _card_files(folder: Path) -> list[Path]:
    """The folder's JSON files; hidden ones are half-written cards, or a Mac's notes on another file."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith(".")) if os.path.isdir(folder) else []
