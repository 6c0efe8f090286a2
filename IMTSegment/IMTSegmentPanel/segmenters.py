"""Which segmentation models there are for what, and what to tell of them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from IMTSlicerLib.model_text import describeCard

if TYPE_CHECKING:
    from IMTSegmentLib.segmenter_cards import SegmenterCard

MAX_SCORES = 3


class Segmenters:
    """The models at hand.

    Attributes: `cards`; `problems`: what could not be read, in words; `userFolder`: where the user's own models lie.
    """

    def __init__(self) -> None:
        from IMTSegmentLib.segmenter_catalogue import list_segmenters, user_folder

        self.userFolder = user_folder()
        self.cards, self.problems = list_segmenters()

    def forModality(self, source: str) -> list[SegmenterCard]:
        """The cards that segment images of a modality, those of a task together and its default first."""
        cards = [card for card in self.cards if card.source == source]
        return sorted(cards, key=lambda card: (card.task, not card.content.get("default", False), card.name))

    def inPlaceOf(self, card: SegmenterCard) -> list[SegmenterCard]:
        """The other cards that do the same task from the same modality, those of the given image alone first."""
        same = [other for other in self.cards if (other.task, other.source) == (card.task, card.source)]
        same = [other for other in same if other.name != card.name]
        return sorted(same, key=lambda other: (other.second is not None, other.name))

    def named(self, name: str) -> SegmenterCard | None:
        """The card of this name, if there is one."""
        return next((card for card in self.cards if card.name == name), None)


def titleOf(card: SegmenterCard) -> str:
    """A card in a list: its task, and its name."""
    return f"{card.task}: {card.name}"


def channelsInWords(card: SegmenterCard) -> str:
    """What the network sees: "T1, T1, FLAIR (translated from T1)"."""
    names = {"given": card.source, "second": card.second or ""}
    text = ", ".join(names[channel] for channel in card.channels)
    if card.second is not None and card.translator is not None:
        text += " " + _("({second} translated by {model})").format(second=card.second, model=card.translator["name"])
    return text


def describeSegmenter(card: SegmenterCard) -> str:
    """What a user should know of a model before using it, as HTML."""
    facts = {
        _("Segments:"): ", ".join(entry.name for entry in card.classes.values()),
        _("From:"): channelsInWords(card),
    }
    return describeCard(card, facts, _scores(card))


def _scores(card: SegmenterCard) -> str:
    """The model's own mean Dice, one piece a dataset."""
    rows = [row for row in card.content["metrics"] if isinstance(row, dict) and isinstance(row.get("dice"), int | float)]
    own = [row for row in rows if row.get("method", card.name) == card.name][:MAX_SCORES]
    text = "{where}{structure}: Dice {dice:.3f}"
    return "; ".join(
        text.format(
            where=escape(f"{row.get('dataset', '')} ({row.get('subjects', '?')}) " if row.get("dataset") else ""),
            structure=escape(str(row.get("structure", _("mean")))),
            dice=row["dice"],
        )
        for row in own
    )
