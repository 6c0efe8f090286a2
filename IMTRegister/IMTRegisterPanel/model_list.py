"""The panel's list of models that translate the input into the second modality."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from IMTSlicerLib.choice_list import ChoiceList


class ModelList(ChoiceList):
    """Keeps a combo box in step with the pair of modalities and the parameter node's `model` (a name; empty: automatic).

    :param comboBox: the list.
    :param changed: called when the user has chosen another model.
    """

    def __init__(self, comboBox, changed: Callable[[], None]) -> None:
        super().__init__(comboBox, "model", changed)
        self._cards: list = []

    def offer(self, source: str, target: str | None) -> None:
        """Offer the models from `source` to `target`; none if there is no target."""
        from IMTCore.catalogue import list_cards

        cards = list_cards()[0] if target is not None and source != target else []
        self._cards = [card for card in cards if card.translates(source, target)]
        self.update([(_("(the default for these modalities)"), ""), *((card.name, card.name) for card in self._cards)])

    def isAnyOffered(self) -> bool:
        """Whether there is a model for the pair."""
        return bool(self._cards)

    def chosenPath(self) -> str | None:
        """The path of the chosen model's card; None for the default."""
        return next((str(card.path) for card in self._cards if card.name == self.chosen()), None)
