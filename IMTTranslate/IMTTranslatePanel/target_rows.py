"""The panel's rows of modalities to translate to: a check box, a list of models and an output selector each."""

from __future__ import annotations

from collections.abc import Callable

from .model_choice import TARGETS, ModelChoice
from .translation_run import TranslationTarget


class TargetRows:
    """Keeps the rows in step with the models at hand and with the parameter node.

    Check boxes and output selectors are bound to the parameter node by their `SlicerParameterName`; the lists of
    models change with the input's modality, which Slicer's own binding cannot do, so they are bound here.

    :param ui: the panel's widgets.
    :param changed: called when the user has chosen another model.
    """

    def __init__(self, ui, changed: Callable[[], None]) -> None:
        self._ui = ui
        self._changed = changed
        self._choice: ModelChoice | None = None
        self._source = ""
        self._parameterNode = None
        self._updating = False
        for target in TARGETS:
            self._models(target).connect("currentIndexChanged(int)", self._onModelChanged)

    def _check(self, target: str):
        return getattr(self._ui, f"translateTo{target}CheckBox")

    def _models(self, target: str):
        return getattr(self._ui, f"model{target}ComboBox")

    def _output(self, target: str):
        return getattr(self._ui, f"output{target}Selector")

    def setParameterNode(self, parameterNode) -> None:
        """Follow another parameter node, or none."""
        self._parameterNode = parameterNode

    def update(self, choice: ModelChoice, source: str) -> None:
        """Offer what can be made from `source`; rows without a model are not shown."""
        self._choice, self._source = choice, source
        self._updating = True
        try:
            for target in TARGETS:
                self._updateRow(target)
        finally:
            self._updating = False

    def _updateRow(self, target: str) -> None:
        cards = self._choice.forPair(self._source, target)
        models = self._models(target)
        wanted = getattr(self._parameterNode, f"model{target}") if self._parameterNode else ""
        names = [card.name for card in cards]
        shown = [models.itemData(index) for index in range(models.count)]
        if shown != names:
            models.clear()
            for card in cards:
                models.addItem(card.name if target != "Other" else f"{card.target} ({card.name})", card.name)
        if wanted in names:
            models.currentIndex = names.index(wanted)
        for widget in (self._check(target), models, self._output(target)):
            widget.visible = bool(cards)
        models.enabled = self._output(target).enabled = self._check(target).checked

    def _onModelChanged(self, *_unused) -> None:
        if self._updating or self._parameterNode is None:
            return
        for target in TARGETS:
            models = self._models(target)
            if models.count and getattr(self._parameterNode, f"model{target}") != models.currentData:
                setattr(self._parameterNode, f"model{target}", models.currentData)
        self._changed()

    def isOffered(self, target: str) -> bool:
        """Whether there is a model for this row."""
        return self._choice is not None and self._models(target).count > 0

    def isAnyOffered(self) -> bool:
        """Whether there is a model for any row."""
        return any(self.isOffered(target) for target in TARGETS)

    def chosenCards(self) -> list:
        """The cards of the checked rows."""
        return [card for _target, card in self._chosen()]

    def _chosen(self) -> list[tuple[str, object]]:
        found = []
        for target in TARGETS:
            if self.isOffered(target) and self._check(target).checked:
                card = self._choice.named(self._models(target).currentData)
                if card is not None:
                    found.append((target, card))
        return found

    def targets(self) -> list[TranslationTarget]:
        """What the checked rows ask for."""
        return [
            TranslationTarget(str(card.path), card.target if target == "Other" else target, self._output(target).currentNode())
            for target, card in self._chosen()
        ]
