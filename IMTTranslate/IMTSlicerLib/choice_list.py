"""A combo box whose items change, kept in step with a text of the parameter node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class ChoiceList:
    """Binds a combo box to a text parameter; Slicer's own binding cannot change what is offered.

    :param comboBox: the list.
    :param name: the parameter's name; its value is the data of the chosen item.
    :param changed: called when the user has chosen another item.
    """

    def __init__(self, comboBox, name: str, changed: Callable[[], None]) -> None:
        self._box, self._name, self._changed = comboBox, name, changed
        self._parameterNode: Any = None
        self._updating = False
        comboBox.connect("currentIndexChanged(int)", self._onChanged)

    def setParameterNode(self, parameterNode) -> None:
        """Follow another parameter node, or none."""
        self._parameterNode = parameterNode

    def update(self, items: Sequence[tuple[str, str]]) -> None:
        """Offer (shown text, data) and choose what the parameter says; the first item, if it is not offered."""
        wanted = getattr(self._parameterNode, self._name) if self._parameterNode is not None else ""
        data = [value for _text, value in items]
        self._updating = True
        try:
            shown = [(self._box.itemText(index), self._box.itemData(index)) for index in range(self._box.count)]
            if shown != list(items):
                self._box.clear()
                for text, value in items:
                    self._box.addItem(text, value)
            if items:
                self._box.currentIndex = data.index(wanted) if wanted in data else 0
        finally:
            self._updating = False

    def chosen(self) -> str:
        """The data of the chosen item; empty if there is none."""
        return self._box.currentData or ""

    def _onChanged(self, *_unused) -> None:
        if self._updating or self._parameterNode is None:
            return
        if getattr(self._parameterNode, self._name) != self.chosen():
            setattr(self._parameterNode, self._name, self.chosen())
        self._changed()
