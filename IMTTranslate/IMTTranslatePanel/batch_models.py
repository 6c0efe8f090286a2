"""What the batch page offers to do with images of a modality: translation models to tick, and segmentation models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import qt
from slicer.i18n import tr as _

from IMTSlicerLib.choice_list import ChoiceList

from .model_choice import MODALITIES, ModelChoice

MAX_ROWS = 5  # of translation models that are shown without scrolling
MIN_ROW_HEIGHT = 16  # px


@dataclass
class Chosen:
    """What the user has chosen, also where it is not offered now."""

    modality: str = ""
    segmenter: str = ""  # its card's path
    ticked: list[str] = field(default_factory=list)  # names of translation models


class BatchModels:
    """Keeps the lists of modalities, translation models and segmentation models in step with each other.

    Attributes: `problems`: what could not be read, in words.

    :param ui: the page's widgets by name.
    :param changed: called when the user has chosen otherwise.
    """

    def __init__(self, ui, changed: Callable[[], None]) -> None:
        self._ui, self._models, self._changed = ui, ui.batchModelsListWidget, changed
        self._chosen = Chosen()
        self._modalities = ChoiceList(ui.batchModalityComboBox, "modality", changed)
        self._segmenters = ChoiceList(ui.batchSegmenterComboBox, "segmenter", changed)
        self._shown: list[tuple] = []
        self._updating = False
        self.problems: list[str] = []
        self._follow()
        self._models.connect("itemChanged(QListWidgetItem*)", self._onTicked)

    def _follow(self) -> None:
        for choices in (self._modalities, self._segmenters):
            choices.setParameterNode(self._chosen)

    def update(self, modelFolder: Path | None) -> None:
        """Offer what there is.

        :param modelFolder: the user's own models, or None.
        """
        choice = ModelChoice(modelFolder)
        translators = [card for card in choice.cards if not card.modalities]
        segmenters, problems = listSegmenters()
        self.problems = choice.problems + problems
        sources = {card.source for card in (*translators, *segmenters)}
        modalities = [name for name in MODALITIES if name in sources] + sorted(sources.difference(MODALITIES))
        self._modalities.update([(name, name) for name in modalities])
        fitting = [card for card in segmenters if card.source == self.modality]
        named = sorted((f"{card.task}: {card.name}", str(card.path)) for card in fitting)
        self._segmenters.update([(_("(no segmentation)"), ""), *named])
        self._showModels(sorted((card for card in translators if card.source == self.modality), key=lambda card: (card.target, card.name)))

    def _showModels(self, cards: list) -> None:
        shown = [(str(card.path), card.sha256, card.name in self._chosen.ticked) for card in cards]
        if shown == self._shown:
            return
        self._shown = shown
        self._updating = True
        try:
            self._models.clear()
            for card in cards:
                item = qt.QListWidgetItem(_("{target} by {model}").format(target=card.target, model=card.name))
                item.setData(qt.Qt.UserRole, str(card.path))
                item.setToolTip(card.content["title"])
                item.setCheckState(qt.Qt.Checked if card.name in self._chosen.ticked else qt.Qt.Unchecked)
                self._models.addItem(item)
            rows = min(max(len(cards), 2), MAX_ROWS)
            self._models.setFixedHeight(rows * max(self._models.sizeHintForRow(0), MIN_ROW_HEIGHT) + 2 * self._models.frameWidth)
        finally:
            self._updating = False

    def setEnabled(self, enabled: bool) -> None:
        """Let the user choose, or not while a batch runs."""
        for widget in (self._ui.batchModalityComboBox, self._models, self._ui.batchSegmenterComboBox):
            widget.enabled = enabled

    @property
    def modality(self) -> str:
        """The modality of the input images; empty if there are no models."""
        return self._modalities.chosen()

    @property
    def models(self) -> tuple[str, ...]:
        """The cards' paths of the ticked translation models."""
        return tuple(path for path, ticked in self._items() if ticked)

    @property
    def segmenter(self) -> str:
        """The card's path of the segmentation model; empty for none."""
        return self._segmenters.chosen()

    def _items(self) -> list[tuple[str, bool]]:
        items = (self._models.item(row) for row in range(self._models.count))
        return [(item.data(qt.Qt.UserRole), item.checkState() == qt.Qt.Checked) for item in items]

    def _onTicked(self, *_unused) -> None:
        if self._updating:
            return
        here = {Path(path).stem: ticked for path, ticked in self._items()}
        kept = [name for name in self._chosen.ticked if name not in here]
        self._chosen.ticked = sorted(kept + [name for name, ticked in here.items() if ticked])
        self._changed()

    # ---- remembered

    def asText(self) -> str:
        """What is chosen, for the user's settings."""
        return json.dumps(asdict(self._chosen))

    def restore(self, text: str) -> None:
        """Choose what `asText` gave; what is not offered any more is left out at the next `update`."""
        try:
            chosen = json.loads(text)
            ticked = [str(name) for name in chosen["ticked"]]
            self._chosen = Chosen(str(chosen["modality"]), str(chosen["segmenter"]), ticked)
        except (ValueError, TypeError, KeyError):  # of another version of IMT
            return
        self._follow()


def listSegmenters() -> tuple[list, list[str]]:
    """The segmentation models, and what could not be read; none where IMT Segment is not installed."""
    try:
        from IMTSegmentLib.segmenter_catalogue import list_segmenters
    except ImportError:
        return [], []
    return list_segmenters()

