"""Translate one volume into another modality: the main job (Yang et al. 2020, Methods)."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .cards import ModelCard
from .devices import choose_device, choose_precision
from .errors import BadInput
from .files import check_writable, sha256_of, whole_file
from .inference import DEFAULT_BATCH, SliceRunner
from .model_packages import load_network
from .plausibility import check_fits_card, check_possible
from .preparation import PreparedVolume, prepare
from .progress import Progress, Say, never, quiet
from .provenance import check_sidecar_free, header_line, input_sha256, mark, sidecar_path
from .volume import Volume, check_image
from .volume_io import check_output_path, image_suffix, read_volume, save_volume


@dataclass(frozen=True)
class TranslationSettings:
    """How to translate.

    Attributes:
        source, target: modalities, only needed for an any-to-any model.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        batch: slices at once; None for the device's default.
        seed: of the noise z (dropout at test time); the result is a function of it.
        dropout: translate with the noise on; off gives the deterministic translation.
        samples: number of noise samples for the uncertainty volume; 0 for none.
    """

    source: str | None = None
    target: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    seed: int = 0
    dropout: bool = False
    samples: int = 0

    def check(self) -> None:
        """Raises BadInput if a number is out of range."""
        if self.batch is not None and not 1 <= self.batch <= 4096:
            raise BadInput(f"The batch must be 1 to 4096 slices, not {self.batch}.")
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"The seed must be a whole number from 0, not {self.seed}.")
        if self.samples < 0 or self.samples == 1 or self.samples > 1000:
            raise BadInput(f"An uncertainty needs 2 to 1000 samples, not {self.samples}.")


@dataclass(frozen=True)
class TranslationResult:
    """A translated volume and what a repeat needs.

    Attributes:
        translation: on the input's grid, float32, background 0, in the card's output range.
        uncertainty: standard deviation over the noise samples, same grid and units, or None.
        source, target: modalities.
        settings: seed, device, precision, normalisation … for the sidecar.
        seconds: time by stage.
        warnings: what was unusual about the input, in words for the user.
    """

    translation: Volume
    uncertainty: Volume | None
    source: str
    target: str
    settings: dict[str, Any]
    seconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)


class Translator:
    """A loaded model, ready for any number of volumes.

    Args:
        card: the model's card.
        settings: how to translate.
        say: told of what changes on the way (memory).

    Raises:
        BadModel: if the package is not sound. BadInput: for settings or devices that are not possible.
    """

    def __init__(self, card: ModelCard, settings: TranslationSettings | None = None, say: Say = quiet) -> None:
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
        self.runner = SliceRunner(load_network(card), device, dtype, batch, settings.seed, say)
        self.load_seconds = time.perf_counter() - start

    def translate(self, volume: Volume, progress: Progress = quiet, cancelled: Callable[[], bool] = never) -> TranslationResult:
        """Translate one volume.

        Args:
            volume: the input, array [k, j, i] in any orientation.
            progress: told (stage, fraction done, message).
            cancelled: asked between batches of slices.

        Raises:
            BadInput: if the volume is no usable image or does not fit the card. Cancelled.
        """
        settings, card = self.settings, self.card
        start = time.perf_counter()
        check_image(volume)
        progress("prepare", 0.0, volume.name)
        check_possible(volume, card)
        try:
            prepared = prepare(volume, card.slicing, self.runner.network.stride, card.percentile)
        except BadInput as error:
            raise BadInput(f"{volume.name}: {error} Choose another image.") from error
        warnings = check_fits_card(volume, prepared, card)
        slices = [int(k) for k in np.flatnonzero(prepared.filled)]
        prepared_at = time.perf_counter()
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
        unit = np.clip((images + 1) / 2, 0, 1)  # tanh's range → [0, 1]
        # Rounding in the way back may pass the range's end by a bit.
        translation = prepared.restore(slices, unit * (high - low) + low).clip(low, high)
        uncertainty = None
        if deviation is not None:
            array = prepared.restore(slices, deviation / 2 * (high - low))
            uncertainty = volume.with_array(array, f"{volume.name} {self.target} uncertainty")
        record = {
            "seed": settings.seed,
            "dropout": settings.dropout,
            "samples": settings.samples,
            **self.runner.where,
            "normalisation": prepared.normalisation.record(),
            "output_range": [low, high],
        }
        seconds = {
            "load": round(self.load_seconds, 3),
            "prepare": round(prepared_at - start, 3),
            "network": round(computed_at - prepared_at, 3),
            "restore": round(time.perf_counter() - computed_at, 3),
        }
        result = volume.with_array(translation, f"{volume.name} {self.target} (synthetic)")
        return TranslationResult(result, uncertainty, self.source, self.target, record, seconds, warnings)

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


def check_paths(source: Path, outputs: list[Path]) -> None:
    """Refuse outputs that cannot or must not be written, before any work is done.

    Raises:
        BadInput: output equal to the input or to another output, of unknown format, or whose sidecar would
            overwrite a foreign file. OutputFailure: not writable.
    """
    seen: dict[Path, Path] = {source.resolve(): source}
    for output in outputs:
        check_output_path(output)
        for path in (output, sidecar_path(output)):
            if path.resolve() in seen:
                raise BadInput(f"{path} is the same file as {seen[path.resolve()]}: choose another output name.")
            seen[path.resolve()] = path
        if output.exists() and source.is_file() and output.samefile(source):
            raise BadInput(f"The output {output} is the input itself: choose another output name.")
        check_sidecar_free(output)
        check_writable(output)


def translate_file(
    translator: Translator,
    source: Path,
    output: Path,
    uncertainty: Path | None = None,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
) -> TranslationResult:
    """Read, translate, and write the translation (and uncertainty) with their marks, whole or not at all.

    Raises:
        BadInput, OutputFailure, Cancelled: as said there; then nothing was written.
    """
    if (uncertainty is None) != (translator.settings.samples == 0):
        raise BadInput("An uncertainty output and a number of samples go together.")
    outputs = [output] + ([uncertainty] if uncertainty else [])
    check_paths(source, outputs)
    start = time.perf_counter()
    progress("read", 0.0, source.name)
    volume = read_volume(source)
    source_hash = input_sha256(source)
    read_seconds = time.perf_counter() - start
    result = translator.translate(volume, progress, cancelled)
    progress("write", 1.0, output.name)
    start = time.perf_counter()
    write_result(translator.card, result, output, uncertainty, source.name, source_hash)
    seconds = {"read": round(read_seconds, 3), **result.seconds, "write": round(time.perf_counter() - start, 3)}
    return replace(result, seconds=seconds)


def write_result(
    card: ModelCard, result: TranslationResult, output: Path, uncertainty: Path | None, input_name: str, input_hash: str
) -> None:
    """Write a result's volumes, each with its sidecar: all of them or none.

    Args:
        card: the model used.
        result: what `Translator.translate` gave.
        output, uncertainty: files to write; `uncertainty` may be None.
        input_name, input_hash: the input's name and SHA-256, for the marks.

    Raises:
        OutputFailure: if a file cannot be written.
    """
    parts = [(output, result.translation, "translation")]
    if uncertainty is not None and result.uncertainty is not None:
        parts.append((uncertainty, result.uncertainty, "uncertainty"))
    metadata = {"IMT_synthetic": "true", "IMT_model": card.name, "IMT_model_sha256": card.sha256}
    settings = {**result.settings, "warnings": result.warnings}
    # Everything is written under temporary names, then renamed in the reverse order of this stack: the sidecars
    # first, so that no image is ever there without its mark. A run killed in between leaves a mark that does not
    # have the hash of the image beside it.
    with ExitStack() as stack:
        hashes = []
        for path, volume, content in parts:
            temporary = stack.enter_context(whole_file(path))
            save_volume(temporary, volume, header_line(card, result.source, result.target, content), metadata)
            _check_written(temporary)
            hashes.append(sha256_of(temporary))
        for (path, _, content), output_hash in zip(parts, hashes, strict=True):
            output_record = {"output": {"name": path.name, "sha256": output_hash}}
            record = mark(card, result.source, result.target, input_name, input_hash, content, output_record | settings)
            temporary = stack.enter_context(whole_file(sidecar_path(path)))
            temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_written(path: Path) -> None:
    """Check a NRRD file's end: on a full disk ITK loses it and says nothing."""
    if image_suffix(path) != ".nrrd":
        return
    with open(path, "rb") as stream:
        while stream.readline().strip():  # the header ends with an empty line
            pass
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            while block := stream.read(1 << 20):
                unpacked.decompress(block)
        except zlib.error:
            pass
    if not unpacked.eof:
        raise OSError("it was not written to its end. Is the disk full? Free some space or choose another output folder")
