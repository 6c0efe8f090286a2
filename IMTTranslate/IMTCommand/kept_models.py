"""The last loaded models, for a server that gets the same one again; a command of its own keeps none. No torch at first."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput
from IMTCore.progress import Say
from IMTCore.settings import TranslationSettings

if TYPE_CHECKING:
    from IMTCore.translation import Translator
    from IMTSegmentLib.segmentation import Segmenter


class KeptModels(ABC):
    """Models by their cards and settings. `count` is how many are kept: each takes a model's memory."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: dict[tuple[object, ...], tuple[Any, tuple[object, ...]]] = {}  # the latest used comes last

    @abstractmethod
    def make(self, card: Any, settings: Any, say: Say, weights: bytes | None) -> Any:
        """Load one."""

    def key(self, card: Any, settings: Any) -> tuple[object, ...]:
        """What a model is made from."""
        return settings, *card_state(card)

    def runners(self, model: Any) -> Iterator[Any]:
        """What runs its networks."""
        yield model.runner

    def find(self, card: Any, settings: Any, say: Say) -> Any:
        """One for this card and these settings, if it is as it was when it was loaded; else None."""
        key = self.key(card, settings)
        model, state = self._kept.pop(key, (None, None))
        if model is None or self._state(model) != state:  # full memory has changed how it runs
            return None
        self._kept[key] = model, state
        if model.runner.device.type == "cuda":  # the switch is one for all networks: set by the last one loaded
            import torch

            torch.backends.cudnn.allow_tf32 = all(runner.dtype != torch.float32 for runner in self.runners(model))
        for part in (model, *self.runners(model)):
            part.say = say
        model.load_seconds = 0.0
        return model

    def load(self, card: Any, settings: Any, say: Say, weights: bytes | None = None) -> Any:
        """Load one, and keep it if any are kept; the one that was not used for longest goes first."""
        while self._kept and len(self._kept) >= self.count:
            del self._kept[next(iter(self._kept))]
        model = self.make(card, settings, say, weights)
        if self.count:
            self._kept[self.key(card, settings)] = model, self._state(model)
        return model

    def _state(self, model: Any) -> tuple[object, ...]:
        return model.runner.device, model.runner.dtype, model.runner.batch


class KeptTranslators(KeptModels):
    """The last translators."""

    def make(self, card: ModelCard, settings: TranslationSettings, say: Say, weights: bytes | None) -> Translator:
        """Load one."""
        from IMTCore.translation import Translator

        return Translator(card, settings, say, weights)


class KeptSegmenters(KeptModels):
    """The last segmenters, each with the translator that makes its second image."""

    def make(self, card: Any, settings: Any, say: Say, weights: bytes | None) -> Segmenter:
        """Load one; its translator is loaded when it is needed first."""
        from IMTSegmentLib.segmentation import Segmenter

        return Segmenter(card, settings, say, weights)

    def key(self, card: Any, settings: Any) -> tuple[object, ...]:
        """Also the translator's file: the settings and the card only name it."""
        from IMTSegmentLib.second_modality import find_translator

        try:
            translator = find_translator(card, settings)
        except BadInput:  # with a real second image none is needed
            translator = None
        return *super().key(card, settings), *(() if translator is None else card_state(translator))

    def runners(self, model: Segmenter) -> Iterator[Any]:
        """Also its translator's."""
        yield model.runner
        if model.translator is not None:
            yield model.translator.runner

    def _state(self, model: Segmenter) -> tuple[object, ...]:
        """Also whether the translator, which comes later, runs elsewhere or in other batches than the segmenter."""
        places = [(runner.device, runner.batch) for runner in self.runners(model)]
        return *super()._state(model), len(set(places)) > 1


def card_state(card: ModelCard) -> tuple[object, ...]:
    """A card and its weights file as they are: a changed file is read, and refused, as without a server."""
    try:
        file = card.weights_path.stat()
    except OSError:
        return (str(card.path),)
    return card.sha256, str(card.path), json.dumps(card.content, sort_keys=True), file.st_mtime_ns, file.st_size


kept_segmenters = KeptSegmenters()
