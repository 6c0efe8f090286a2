"""Which models make what from what, and what to tell of them."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from IMTSlicerLib.model_text import describeCard

if TYPE_CHECKING:
    from IMTCore.cards import ModelCard

MODALITIES = ("T1", "T2", "FLAIR", "PD")
OTHER = "Other"
TARGETS = (*MODALITIES, OTHER)  # the panel's rows
MAX_SCORES = 3


class ModelChoice:
    """The models at hand.

    :param folder: the user's own model folder, or None.

    Attributes: `cards`, and `problems`: what could not be read, in words.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from IMTCore.catalogue import list_cards

        self.problems: list[str] = []
        if folder is not None and not folder.is_dir():
            self.problems.append(_("The model folder {folder} does not exist.").format(folder=folder))
        elif folder is not None and not any(folder.glob("*.json")):
            self.problems.append(_("The folder {folder} holds no models (cards, *.json). Choose another one.").format(folder=folder))
        self.cards, unreadable = list_cards(folder)
        self.problems += unreadable

    def forPair(self, source: str, target: str) -> list[ModelCard]:
        """The cards that translate `source` to `target`, default and single-pair models first.

        :param target: a modality, or "Other" for all that is none of `MODALITIES`.
        """
        if target == OTHER:
            cards = [c for c in self.cards if not c.modalities and c.source == source and c.target not in MODALITIES]
        else:
            cards = [c for c in self.cards if source != target and c.translates(source, target)]
        return sorted(cards, key=lambda card: (not card.content.get("default", False), bool(card.modalities), card.name))

    def named(self, name: str) -> ModelCard | None:
        """The card of this name, if there is one."""
        return next((card for card in self.cards if card.name == name), None)


def describeModel(card: ModelCard) -> str:
    """What a user should know of a model before using it, as HTML."""
    return describeCard(card, scores=_bestScores(card))


def _bestScores(card: ModelCard) -> str:
    """The model's own scores, whole volume, one line a dataset."""
    rows = [row for row in card.content["metrics"] if isinstance(row, dict) and row.get("method") == card.name and row.get("region") == "volume"]
    wanted = [row for row in rows if row.get("scaling") == "range"] or rows
    lines = []
    for row in wanted[:MAX_SCORES]:
        psnr, ssim = row.get("psnr"), row.get("ssim")
        if isinstance(psnr, int | float) and isinstance(ssim, int | float):
            lines.append(f"{escape(str(row.get('dataset', '')))} ({row.get('subjects', '?')}): PSNR {psnr:.1f} dB, SSIM {ssim:.3f}")
    return "; ".join(lines)
