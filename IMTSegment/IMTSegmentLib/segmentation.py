"""Segment one volume from its given modality and a translated second one: TMS, translated multichannel segmentation
(Yang et al. 2020, Cross-modality segmentation)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from IMTCore.devices import choose_device, choose_precision
from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.inference import DEFAULT_BATCH
from IMTCore.outputs import TranslationResult
from IMTCore.preparation import PreparedVolume
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.translation import Translator
from IMTCore.volume import Volume

from .channels import normalised_second, on_network_grid, stack_channels
from .second_modality import find_translator
from .segmentation_inputs import SegmentationInput, prepare_segmentation
from .segmentation_results import SegmentationResult, StructureStatistics, choose_labels, structure_statistics
from .segmentation_runner import SegmentationRunner
from .segmentation_settings import SegmentationSettings
from .segmenter_cards import SegmenterCard
from .segmenter_packages import load_segmenter

__all__ = ["SegmentationResult", "SegmentationSettings", "Segmenter", "StructureStatistics"]


class Segmenter:
    """A loaded model, ready for any number of volumes.

    Args:
        card: the model's card.
        settings: how to segment.
        say: told of what changes on the way (memory).
        weights: what `IMTCore.weights_file.read_weights_file` gave for the card, if it was called before.

    Attributes:
        runner: the network on its device.
        translator: the loaded translation model, once one was needed.

    Raises:
        BadModel: if the package is not sound. BadInput: for settings or devices that are not possible.
    """

    def __init__(
        self, card: SegmenterCard, settings: SegmentationSettings | None = None, say: Say = quiet, weights: bytes | None = None
    ) -> None:
        settings = settings or SegmentationSettings()
        settings.check()
        self.card, self.settings, self.say = card, settings, say
        self.translator: Translator | None = None
        device = choose_device(settings.device)
        dtype = choose_precision(settings.precision, device)
        start = time.perf_counter()
        network = load_segmenter(card, weights)
        self.runner = SegmentationRunner(network, device, dtype, settings.batch or DEFAULT_BATCH[device.type], say)
        self.load_seconds = time.perf_counter() - start

    def load_translator(self, weights: bytes | None = None) -> Translator | None:
        """The translation model for the second image, loaded on the first call; None if the model needs none.

        Args:
            weights: what `read_weights_file` gave for the translator's card, if it was called before.

        Raises:
            BadModel, BadInput: as `find_translator` and `Translator`.
        """
        if self.translator is None:
            card = find_translator(self.card, self.settings)
            if card is not None:
                # A network of whole volumes computes in fp32 only, whatever the segmenter does.
                precision = None if card.architecture.works_on == "slices" else "auto"
                settings = self.settings.translation(self.card.source, self.card.second, precision)
                self.translator = Translator(card, settings, self.say, weights)
                self.load_seconds += self.translator.load_seconds
        return self.translator

    def segment(
        self,
        given: Volume | SegmentationInput,
        second: Volume | None = None,
        progress: Progress = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> SegmentationResult:
        """Segment one volume.

        Args:
            given: the input, array [k, j, i] in any orientation, or the same prepared for this model's card (with its
                second image, if it has one).
            second: a real second image; without it, a model that needs one gets a translation of the given image.
            progress: told (stage, fraction done, message); the stages are prepare, load, translate, segment.
            cancelled: asked between batches of slices.

        Returns:
            Labels and probabilities on the given image's grid.

        Raises:
            BadInput: an image that is not usable or does not fit the card, or a second one that the model does not take.
            BadModel: the translation model is missing or another. Cancelled. ImtError: the network gives no numbers.
        """
        if isinstance(given, Volume):
            progress("prepare", 0.0, given.name)
            translator = find_translator(self.card, self.settings) if second is None else None
            given = prepare_segmentation(given, second, self.card, self.settings, translator)
        elif second is not None:
            raise BadInput("A prepared input has its second image already.")
        seconds = {"prepare": given.seconds}
        translation = None
        if self.card.second is not None and given.second is None:
            translation, seconds["translate"] = self._translate(given, progress, cancelled)
        image = given.second if translation is None else translation.translation
        start = time.perf_counter()
        probabilities = self._segment(given, image, progress, cancelled)
        labels, confidence = choose_labels(probabilities, self.card.codes)
        names = self.card.classes
        statistics = structure_statistics(labels, confidence, names, given.volume.geometry)
        seconds["segment"] = time.perf_counter() - start
        warnings = given.warnings + _said_of(statistics, given.volume)
        return SegmentationResult(
            given.volume.with_array(labels, f"{given.volume.name} {self.card.task}"),
            probabilities,
            names,
            self.card.codes,
            image,
            statistics,
            {**self._record(given, translation), "warnings": warnings},
            {"load": round(self.load_seconds, 3), **{stage: round(value, 3) for stage, value in seconds.items()}},
            given.synthetic or translation is not None,
            None if translation is None else (self.translator.card, translation),
            warnings,
        )

    def _translate(
        self, given: SegmentationInput, progress: Progress, cancelled: Callable[[], bool]
    ) -> tuple[TranslationResult, float]:
        """The translation of the given image, with the record of a translation of its own, and the seconds spent."""
        if self.translator is None:
            progress("load", 0.0, "translation model")
        translator = self.load_translator()
        prepared = given.translation
        if prepared is None:
            again = prepare_segmentation(given.volume, None, self.card, self.settings, translator.card)
            prepared = again.translation
        start = time.perf_counter()
        result = translator.translate(prepared, progress, cancelled)
        record = {**result.settings, "bias_correction": "N4" if self.settings.bias_correction else None}
        return replace(result, settings=record), time.perf_counter() - start

    def _segment(
        self, given: SegmentationInput, second: Volume | None, progress: Progress, cancelled: Callable[[], bool]
    ) -> np.ndarray:
        """The planes' mean probabilities [classes + 1, k, j, i] on the given image's grid; the background's are 1 outside
        its foreground and in slices that hold none."""
        try:
            sums = np.zeros((len(self.card.codes) + 1, *given.volume.array.shape), np.float32)
        except MemoryError as error:
            raise ImtError("There is not enough memory for the probabilities. Close other programs and try again.") from error
        normalised = None if second is None else normalised_second(second, self.card.percentile)
        slices = [[int(k) for k in np.flatnonzero(view.filled)] for view in given.views]
        total, done = sum(len(one) for one in slices), 0
        for view, chosen in zip(given.views, slices, strict=True):

            def count(number: int, before: int = done) -> None:
                progress("segment", (before + number) / total, f"slice {before + number} of {total}")

            self._add_plane(view, chosen, normalised, sums, count, cancelled)
            done += len(chosen)
        if cancelled():
            raise Cancelled("Cancelled: nothing was written.")
        view = given.views[0]
        background = view.axes.invert(~view.foreground)
        for structure in sums[1:]:
            structure /= len(given.views)
            structure[background] = 0
            sums[0] += structure
        np.subtract(1, sums[0], out=sums[0])
        return np.maximum(sums, 0, out=sums)  # rounding

    def _add_plane(
        self,
        view: PreparedVolume,
        slices: list[int],
        second: np.ndarray | None,
        sums: np.ndarray,
        progress: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Add one plane's probabilities of the structures to `sums` [classes + 1, k, j, i]; class 0 is left out."""
        images = None if second is None else on_network_grid(view, second)
        top, bottom, left, right = view.grid.box
        places = [view.axes.apply(structure)[:, top:bottom, left:right] for structure in sums[1:]]  # views

        def receive(chunk: list[int], probabilities: np.ndarray) -> None:
            for number, place in enumerate(places):
                for n, k in enumerate(chunk):
                    place[k] += probabilities[n, number]

        def inputs(chunk: list[int]) -> np.ndarray:
            return stack_channels(view, images, self.card.channels, chunk)

        self.runner.run(inputs, slices, view.grid, receive, progress, cancelled)

    def _record(self, given: SegmentationInput, translation: TranslationResult | None) -> dict[str, Any]:
        """What the marks say of how the labels came to be."""
        card = self.card
        second = None
        if card.second is not None:
            second = {"modality": card.second, "origin": "given", "image": None if given.second is None else given.second.name}
        if translation is not None:
            model = self.translator.card
            second = {
                "modality": card.second,
                "origin": "translated",
                "model": {"name": model.name, "version": model.content["version"], "sha256": model.sha256},
                "as_trained": card.translator is not None and card.translator["sha256"].lower() == model.sha256,
                **{key: translation.settings[key] for key in ("device", "precision", "planes", "seed")},
            }
        return {
            "task": card.task,
            "source_modality": card.source,
            "model": {"name": card.name, "version": card.content["version"], "sha256": card.sha256},
            "channels": list(card.channels),
            "second": second,
            "labels": {str(code): entry.name for code, entry in card.classes.items()},
            **self.settings.record(),
            **self.runner.where,
            "planes": [view.spec.plane for view in given.views],
            "normalisation": given.views[0].normalisation.record(),
        }


def _said_of(statistics: list[StructureStatistics], volume: Volume) -> list[str]:
    """A warning if nothing was found, or not every structure."""
    empty = [entry.name for entry in statistics if entry.voxels == 0]
    if len(empty) == len(statistics):
        return [f"Nothing was found in {volume.name}: every voxel is background. Check that the model fits the image."]
    return [f"No voxel of {volume.name} was labelled {', '.join(empty)}."] if empty else []
