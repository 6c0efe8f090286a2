"""Translate one volume into another modality: the main job (Yang et al. 2020, Methods)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from .cards import ModelCard
from .devices import choose_device, choose_precision
from .errors import BadInput
from .inference import DEFAULT_BATCH, SliceRunner
from .inputs import FileInput, PreparedInput, prepare_input, read_input
from .model_packages import load_network
from .outputs import TranslationResult, check_paths, write_result
from .preparation import PreparedVolume
from .progress import Progress, Say, never, quiet
from .settings import TranslationSettings
from .volume import Volume


class Translator:
    """A loaded model, ready for any number of volumes.

    Args:
        card: the model's card.
        settings: how to translate.
        say: told of what changes on the way (memory).
        weights: what `read_weights_file` gave for the card, if it was called before.

    Raises:
        BadModel: if the package is not sound. BadInput: for settings or devices that are not possible.
    """

    def __init__(
        self, card: ModelCard, settings: TranslationSettings | None = None, say: Say = quiet, weights: bytes | None = None
    ) -> None:
        settings = settings or TranslationSettings()
        settings.check()
        self.card, self.settings = card, settings
        self.source, self.target = choose_pair(card, settings.source, settings.target)
        device = choose_device(settings.device)
        dtype = choose_precision(settings.precision, device)
        if settings.samples or settings.dropout:
            arguments = card.content["network"]["arguments"]
            if arguments.get("dropout_blocks", 3) == 0 or arguments.get("dropout", 0.5) == 0:
                raise BadInput(f"Model {card.name} has no dropout, so it gives no uncertainty. Leave the uncertainty out.")
        start = time.perf_counter()
        batch = settings.batch or DEFAULT_BATCH[device.type]
        self.runner = SliceRunner(load_network(card, weights, as_stored=True), device, dtype, batch, settings.seed, say)
        self.load_seconds = time.perf_counter() - start

    def translate(
        self, source: Volume | PreparedInput, progress: Progress = quiet, cancelled: Callable[[], bool] = never
    ) -> TranslationResult:
        """Translate one volume.

        Args:
            source: the input, array [k, j, i] in any orientation, or the same prepared for this model's card.
            progress: told (stage, fraction done, message).
            cancelled: asked between batches of slices.

        Raises:
            BadInput: if the volume is no usable image or does not fit the card. Cancelled.
        """
        settings, card = self.settings, self.card
        if isinstance(source, Volume):
            progress("prepare", 0.0, source.name)
            source = prepare_input(source, card, settings)
        volume, prepared = source.volume, source.prepared
        start = time.perf_counter()
        slices = [int(k) for k in np.flatnonzero(prepared.filled)]
        images, deviation = self.runner.run(
            lambda chunk: self._inputs(prepared, chunk),
            slices,
            settings.samples,
            settings.dropout,
            lambda done: progress("translate", done / len(slices), f"slice {done} of {len(slices)}"),
            cancelled,
        )
        computed_at = time.perf_counter()
        low, high = card.output_range
        images += 1  # tanh's range → the card's output range
        images *= (high - low) / 2
        images += low
        translation = prepared.restore(slices, images)
        np.clip(translation, low, high, out=translation)  # rounding in the way back may pass the range's end by a bit
        uncertainty = None
        if deviation is not None:
            array = prepared.restore(slices, deviation / 2 * (high - low))
            uncertainty = volume.with_array(array, f"{volume.name} {self.target} uncertainty")
        record = {
            "seed": settings.seed,
            "dropout": settings.dropout,
            "samples": settings.samples,
            "bias_correction": "N4" if settings.bias_correction else None,
            **self.runner.where,
            "normalisation": prepared.normalisation.record(),
            "output_range": [low, high],
        }
        seconds = {
            "load": round(self.load_seconds, 3),
            "prepare": round(source.seconds, 3),
            "network": round(computed_at - start, 3),
            "restore": round(time.perf_counter() - computed_at, 3),
        }
        result = volume.with_array(translation, f"{volume.name} {self.target} (synthetic)")
        return TranslationResult(result, uncertainty, self.source, self.target, record, seconds, source.warnings)

    def _inputs(self, prepared: PreparedVolume, slices: list[int]) -> np.ndarray:
        images = prepared.batch(slices)
        if not self.card.modalities:
            return images
        codes = modality_codes(self.card.modalities, self.source, self.target)
        planes = np.broadcast_to(codes[None, :, None, None], (len(images), len(codes), *images.shape[2:]))
        return np.concatenate([images, planes], axis=1)


def modality_codes(modalities: list[str], source: str, target: str) -> np.ndarray:
    """An any-to-any model's code channels (2 × len(modalities),): ±1 one-hot codes of source, then of target."""
    chosen = [m == source for m in modalities] + [m == target for m in modalities]
    return np.where(chosen, 1, -1).astype(np.float32)


def choose_pair(card: ModelCard, source: str | None, target: str | None) -> tuple[str, str]:
    """The modalities to translate from and to.

    Raises:
        BadInput: if an any-to-any model is not told them, or the model does not translate them.
    """
    if card.modalities:
        if source is None or target is None:
            raise BadInput(f"Model {card.name} translates between {', '.join(card.modalities)}: say which with --from and --to.")
    else:
        source, target = source or card.source, target or card.target
    if not card.translates(source, target):
        offers = f"between {', '.join(card.modalities)}" if card.modalities else f"{card.source} to {card.target}"
        raise BadInput(f"Model {card.name} translates {offers}, not {source} to {target}. imt models list shows the others.")
    return source, target


def translate_file(
    translator: Translator,
    source: Path | FileInput,
    output: Path,
    uncertainty: Path | None = None,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
) -> TranslationResult:
    """Read, translate, and write the translation (and uncertainty) with their marks, whole or not at all.

    Args:
        translator: the loaded model.
        source: the input file (or DICOM folder), or what `read_input` made of it for this model.
        output, uncertainty: files to write.
        progress, cancelled: as in `Translator.translate`.

    Raises:
        BadInput, OutputFailure, Cancelled: as said there; then nothing was written.
    """
    if (uncertainty is None) != (translator.settings.samples == 0):
        raise BadInput("An uncertainty output and a number of samples go together.")
    path = source if isinstance(source, Path) else source.path
    check_paths(path, [output] + ([uncertainty] if uncertainty else []))
    if isinstance(source, Path):
        progress("read", 0.0, path.name)
        source = read_input(path, translator.card, translator.settings)
    result = translator.translate(source.given, progress, cancelled)
    progress("write", 1.0, output.name)
    start = time.perf_counter()
    write_result(translator.card, result, output, uncertainty, path.name, source.sha256)
    seconds = {"read": round(source.read_seconds, 3), **result.seconds, "write": round(time.perf_counter() - start, 3)}
    return replace(result, seconds=seconds)
