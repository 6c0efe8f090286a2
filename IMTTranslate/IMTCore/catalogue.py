"""The models that there are: those shipped with the module and those in the user's folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .cards import ModelCard, read_card
from .errors import BadInput, BadModel, ImtError, OutputFailure
from .files import data_folder, describe_write_error, whole_file
from .progress import Progress

USER_FOLDER_VARIABLE = "IMT_MODELS"
DOWNLOAD_TIMEOUT_S = 60
T = TypeVar("T")


def shipped_folder() -> Path:
    """The folder of the models that come with IMT: in a checkout, in Slicer, or in an installed wheel."""
    beside = Path(__file__).resolve().parents[1] / "Resources" / "IMT-models"
    if beside.is_dir():
        return beside
    return Path(__file__).resolve().parents[1] / "IMTModels"


def user_folder() -> Path:
    """The user's own model folder: `$IMT_MODELS`, or IMT/models in the system's place for user data."""
    if os.environ.get(USER_FOLDER_VARIABLE):
        return Path(os.environ[USER_FOLDER_VARIABLE])
    return data_folder() / "models"


def list_cards(first: Path | None = None) -> tuple[list[ModelCard], list[str]]:
    """All cards, the user's first (a user's model hides a shipped one of the same name), and what could not be read.

    Args:
        first: a folder whose models come before, and hide, all others.
    """
    cards: dict[str, ModelCard] = {}
    problems: list[str] = []
    for folder in (first, user_folder(), shipped_folder()):
        if folder is None or not folder.is_dir():
            continue
        for path in _card_files(folder):
            try:
                card = read_card(path)
            except BadModel as error:
                problems.append(str(error))
                continue
            cards.setdefault(card.name, card)
    return list(cards.values()), problems


def _card_files(folder: Path) -> list[Path]:
    """The folder's JSON files; hidden ones are half-written cards, or a Mac's notes on another file."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def find_card(model: str) -> ModelCard:
    """The card for a name, a path (card, weights or a folder with one card), or a pair of modalities as `T1-T2`.

    A name comes before a pair, and both before a folder; of several models for a pair, the one marked as default,
    else one made for that pair, else the first.

    Raises:
        BadModel: if there is none; the message lists what there is.
    """
    path = Path(model)
    if path.suffix in (".json", ".safetensors"):
        return read_card(path.with_suffix(".json"))
    cards, problems = list_cards()
    for card in cards:
        if card.name == model:
            return card
    pairs = [(model[:n], model[n + 1 :]) for n, letter in enumerate(model) if letter == "-"]  # a modality may hold a -
    fitting = [card for card in cards if any(card.translates(*pair) for pair in pairs)]
    fitting.sort(key=lambda card: (not card.content.get("default", False), bool(card.modalities)))
    if fitting:
        return fitting[0]
    found = _card_files(path) if model.strip() and os.path.isdir(path) else []
    if found:
        if len(found) != 1:
            raise BadModel(f"{path} holds {len(found)} model cards: give the path of one.")
        return read_card(found[0])
    names = ", ".join(card.name for card in cards) or "none"
    trouble = f" Not readable: {problems[0]}" if problems else ""
    raise BadModel(
        f"There is no model {model!r}. Models here: {names}. Give a name, a pair such as T1-T2, or a card's path.{trouble}"
    )


def download(card: ModelCard, progress: Progress | None = None) -> ModelCard:
    """Fetch a card's weights from its URL into the user's folder, checked against size and hash.

    Only ever called on the user's request.

    Raises:
        BadModel: no URL, wrong size or hash (nothing is kept).
        OutputFailure: not written. ImtError: the host does not answer.
    """
    import http.client
    import urllib.request

    weights = card.content["weights"]
    if "url" not in weights:
        raise BadModel(f"The card of {card.name} gives no address to download its weights from.")
    folder = user_folder()
    digest, received = hashlib.sha256(), 0
    target = folder / weights["file"]

    def from_host(step: Callable[[], T]) -> T:
        try:
            return step()
        except (OSError, ValueError, http.client.HTTPException) as error:  # not to be taken for errors of the disk
            reason = getattr(error, "reason", None) or error
            raise ImtError(f"Cannot download {weights['url']}: {reason}. Check the network, or copy the file by hand.") from error

    with from_host(lambda: urllib.request.urlopen(weights["url"], timeout=DOWNLOAD_TIMEOUT_S)) as response:
        with whole_file(target) as temporary:
            with open(temporary, "wb") as stream:
                while block := from_host(lambda: response.read(1 << 18)):
                    received += len(block)
                    if received > weights["bytes"]:
                        raise BadModel(
                            f"{weights['url']} sends more than the {weights['bytes']} bytes that the card says; not kept."
                        )
                    digest.update(block)
                    stream.write(block)
                    if progress:
                        progress("download", received / weights["bytes"], weights["file"])
            if received != weights["bytes"] or digest.hexdigest() != card.sha256:
                raise BadModel(f"What {weights['url']} sent is not the file of the card (size or SHA-256 differ); not kept.")
    if card.path.parent.resolve() != folder.resolve():
        with whole_file(folder / card.path.name) as temporary:
            temporary.write_bytes(card.path.read_bytes())
    return read_card(folder / card.path.name)


def remove(name: str) -> list[Path]:
    """Delete a model of the user's folder, card and weights.

    Raises:
        BadInput: if the user's folder has no such model (shipped models stay).
        OutputFailure: if it cannot be deleted.
    """
    cards: list[ModelCard] = []
    for path in _card_files(user_folder()) if user_folder().is_dir() else []:
        with contextlib.suppress(BadModel):
            cards.append(read_card(path))
    for card in cards:
        if card.name == name:
            shared = any(other is not card and other.weights_path == card.weights_path for other in cards)
            removed = [p for p in (card.weights_path, card.path) if p.exists() and not (shared and p == card.weights_path)]
            try:
                for p in removed:
                    p.unlink()
            except OSError as error:
                raise OutputFailure(describe_write_error(p, error)) from error
            return removed
    raise BadInput(f"The user's folder {user_folder()} has no model {name!r}. Models that come with IMT are not removed.")
