"""The panel's list of models that translate the input into the second modality."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _


class ModelList:
    """Keeps a combo box in step with the pair of modalities and the parameter node's `model` (a name; empty: automatic).

    What can be chosen changes with the modalities, which Slicer's own binding cannot do, so it is bound here.

    :param comboBox: the list.
    :param changed: called when the user has chosen another model.
    """

    def __init__(self, comboBox, changed: Callable[[], None]) -> None:
        self._box, self._changed = comboBox, changed
        self._parameterNode = None
        self._cards: list = []
        self._updating = False
        comboBox.connect("currentIndexChanged(int)", self._onChanged)

    def setParameterNode(self, parameterNode) -> None:
        """Follow another parameter node, or none."""
        self._parameterNode = parameterNode

    def update(self, source: str, target: str | None) -> None:
        """Offer the models from `source` to `target`; none if there is no target."""
        from IMTCore.catalogue import list_cards

        cards = list_cards()[0] if target is not None and source != target else []
        self._cards = [card for card in cards if card.translates(source, target)]
        names = [""] + [card.name for card in self._cards]
        wanted = self._parameterNode.model if self._parameterNode is not None else ""
        self._updating = True
        try:
            if [self._box.itemData(index) for index in range(self._box.count)] != names:
                self._box.clear()
                self._box.addItem(_("(the default for these modalities)"), "")
                for card in self._cards:
                    self._box.addItem(card.name, card.name)
            self._box.currentIndex = names.index(wanted) if wanted in names else 0
        finally:
            self._updating = False

    def isAnyOffered(self) -> bool:
        """Whether there is a model for the pair."""
        return bool(self._cards)

    def chosenPath(self) -> str | None:
        """The path of the chosen model's card; None for the default."""
        name = self._box.currentData
        return next((str(card.path) for card in self._cards if card.name == name), None)

    def _onChanged(self, *_unused) -> None:
        if self._updating or self._parameterNode is None:
            return
        if self._parameterNode.model != self._box.currentData:
            self._parameterNode.model = self._box.currentData
        self._changed()
