"""Translate one volume into another modality: the main job (Yang et al. 2020, Methods)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from .calibration import Calibration
from .cards import ModelCard
from .devices import choose_device, choose_precision
from .errors import BadInput
from .inference import DEFAULT_BATCH, SliceRunner, VolumeRunner
from .inputs import FileInput, PreparedInput, prepare_input, read_input
from .intensity import AIR_SHARE
from .label_names import LabelNames, colour_table
from .model_packages import load_network
from .outputs import TranslationResult, check_paths, write_result
from .preparation import PreparedVolume
from .progress import Progress, Say, never, quiet
from .provenance import is_mark, sidecar_path
from .settings import TranslationSettings
from .uncertainty_map import TrustLimits, outside_warning, shares, trust_map
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
            known = "dropout_blocks" in card.architecture.arguments
            if not known or arguments.get("dropout_blocks", 3) == 0 or arguments.get("dropout", 0.5) == 0:
                raise BadInput(f"Model {card.name} has no dropout, so it gives no uncertainty. Leave the uncertainty out.")
        self.calibration, self.limits = Calibration.of_card(card.content), TrustLimits.of_card(card.content)
        if settings.trust_map and (self.calibration is None or self.limits is None):
            raise BadInput(
                f"The card of model {card.name} has no calibrated uncertainty and no training range, on which a trust map stands. "
                "Leave the trust map out."
            )
        start = time.perf_counter()
        batch = settings.batch or DEFAULT_BATCH[device.type]
        network = load_network(card, weights, as_stored=True)
        if card.architecture.works_on == "volume":
            if settings.precision not in ("auto", "fp32"):
                raise BadInput(f"Model {card.name} computes in fp32 only, not in {settings.precision}. Leave --precision out.")
            self.runner: SliceRunner | VolumeRunner = VolumeRunner(network, device, batch, say)
        else:
            self.runner = SliceRunner(network, device, dtype, batch, settings.seed, say)
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
        planes = tuple(view.spec.plane for view in source.views)
        why_not = self._why_not_calibrated(planes)
        if settings.trust_map and why_not:
            raise BadInput(f"{source.volume.name}: there is no trust map, since the uncertainty is not calibrated here: {why_not}. Leave it out.")
        start = time.perf_counter()
        mean, variance, restoring = self._fuse(source.views, progress, cancelled)
        computed_at = time.perf_counter() - restoring
        volume, (low, high) = source.volume, card.output_range
        np.clip(mean, low, high, out=mean)  # rounding in the way back may pass the range's end by a bit
        uncertainty, doubts, doubtful, warnings = None, None, {}, list(source.warnings)
        if variance is not None:
            deviation = np.sqrt(variance)
            if settings.trust_map:
                found, doubtful = self._doubts(deviation, source.views[0], volume)
                doubts = volume.with_array(found, f"{volume.name} {self.target} trust map")
                warnings += outside_warning(doubtful, volume.name, card.name)
            if not why_not:
                deviation = np.where(deviation > 0, self.calibration.calibrated(deviation), 0).astype(np.float32)
            elif self.calibration is not None:
                warnings.append(f"The uncertainty is not calibrated: {why_not}. It is too small.")
            uncertainty = volume.with_array(deviation, f"{volume.name} {self.target} uncertainty")
        record = {
            "seed": settings.seed,
            "dropout": settings.dropout,
            "samples": settings.samples,
            "single_plane": settings.single_plane,
            "planes": list(planes),
            **({"uncertainty": self.uncertainty_record(planes)} if settings.samples else {}),
            **({"trust_map": doubtful} if doubtful else {}),
            "bias_correction": "N4" if settings.bias_correction else None,
            **self.runner.where,
            "normalisation": source.views[0].normalisation.record(),
            "output_range": [low, high],
        }
        seconds = {
            "load": round(self.load_seconds, 3),
            "prepare": round(source.seconds, 3),
            "network": round(computed_at - start, 3),
            "restore": round(time.perf_counter() - computed_at, 3),
        }
        result = volume.with_array(mean, f"{volume.name} {self.target} (synthetic)")
        names = self.limits.names() if doubts is not None else LabelNames()
        return TranslationResult(result, uncertainty, self.source, self.target, record, seconds, warnings, doubts, names)

    def _why_not_calibrated(self, planes: tuple[str, ...]) -> str:
        """Why the uncertainty of this run is not calibrated; empty if it is."""
        if self.calibration is None:
            return f"the card of model {self.card.name} has no calibration"
        return self.calibration.why_not(self.settings.samples, planes, self.settings.dropout)

    def uncertainty_record(self, planes: tuple[str, ...]) -> dict[str, object]:
        """What a mark says of the uncertainty of a run in these planes: whether it is calibrated, how, and what holds then."""
        why_not = self._why_not_calibrated(planes)
        if why_not:
            return {"calibrated": False, "reason": why_not}
        values = self.card.content["uncertainty"]
        holds = "translation ± 1.645 × uncertainty: 90 % of a patient's voxels, on average"
        return {"calibrated": True, "holds": holds, **{key: values[key] for key in ("exponent", "floor", "widths", "fitted_on")}}

    def _doubts(self, deviation: np.ndarray, view: PreparedVolume, volume: Volume) -> tuple[np.ndarray, dict[str, float]]:
        """The trust map [k, j, i] of samples that deviate so, and the share of the head of each kind of doubt."""
        image = view.restore(list(range(len(view.images))), (view.images + 1) / 2)
        foreground = np.ascontiguousarray(view.axes.invert(view.foreground))
        foreground &= image > 0
        found = trust_map(self.calibration.half_width(deviation), image, volume.geometry.spacing_mm[::-1], foreground, self.limits)
        return found, shares(found, foreground & (image > AIR_SHARE))

    def _fuse(
        self, views: tuple[PreparedVolume, ...], progress: Progress, cancelled: Callable[[], bool]
    ) -> tuple[np.ndarray, np.ndarray | None, float]:
        """The mean of the planes' translations [k, j, i] in the output range, its variance, and seconds spent on the way back.

        The variance is that of one plane's sample drawn at random: the mean of the planes' variances and the variance
        between the planes.
        """
        low, high = self.card.output_range
        slices = [[int(k) for k in np.flatnonzero(view.filled)] for view in views]
        total = sum(len(one) for one in slices)
        first, squares, within, done, restoring = None, None, None, 0, 0.0
        for number, (view, chosen) in enumerate(zip(views, slices, strict=True)):
            images, deviation = self._run(view, chosen, done, total, progress, cancelled)
            done += len(chosen)
            start = time.perf_counter()
            images += 1  # tanh's range → the card's output range
            images *= (high - low) / 2
            images += low
            plane = view.restore(chosen, images)
            if deviation is not None:
                variance = view.restore(chosen, deviation / 2 * (high - low)) ** 2
                within = variance if within is None else within + variance
            if first is None:  # Welford's running mean and squares
                first = plane
                squares = np.zeros_like(plane) if within is not None else None
            else:
                change = plane - first
                first += change / (number + 1)
                if squares is not None:
                    squares += change * (plane - first)
            restoring += time.perf_counter() - start
        if within is not None:
            within = (within + squares) / len(views)
        return first, within, restoring

    def _run(
        self, view: PreparedVolume, slices: list[int], done: int, total: int, progress: Progress, cancelled: Callable[[], bool]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """One plane's translation, and the deviation over the noise samples."""

        def count(number: int) -> None:
            progress("translate", (done + number) / total, f"slice {done + number} of {total}")

        if isinstance(self.runner, VolumeRunner):
            return self.runner.run(view.images, view.spacing, slices, count, cancelled), None
        settings = self.settings
        return self.runner.run(
            lambda chunk: self._inputs(view, chunk), slices, settings.samples, settings.dropout, count, cancelled
        )

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
    doubts: Path | None = None,
) -> TranslationResult:
    """Read, translate, and write the translation (uncertainty, trust map) with their marks, whole or not at all.

    Args:
        translator: the loaded model.
        source: the input file (or DICOM folder), or what `read_input` made of it for this model.
        output, uncertainty: files to write.
        progress, cancelled: as in `Translator.translate`.
        doubts: the file of the trust map, for a translator whose settings ask for it.

    Raises:
        BadInput, OutputFailure, Cancelled: as said there; then nothing was written.
    """
    further = [one for one in (uncertainty, doubts) if one is not None]
    if bool(further) != (translator.settings.samples > 0):
        raise BadInput("An uncertainty output and a number of samples go together.")
    if (doubts is None) == translator.settings.trust_map:
        raise BadInput("A trust map's output and the setting that asks for one go together.")
    path = source if isinstance(source, Path) else source.path
    check_paths(path, [output, *further])
    if doubts is not None and colour_table(doubts).exists() and not is_mark(sidecar_path(doubts)):
        raise BadInput(f"{colour_table(doubts)} exists and is no legend of IMT: the trust map's would replace it. Choose another name.")
    if isinstance(source, Path):
        progress("read", 0.0, path.name)
        source = read_input(path, translator.card, translator.settings)
    result = translator.translate(source.given, progress, cancelled)
    progress("write", 1.0, output.name)
    start = time.perf_counter()
    write_result(translator.card, result, output, uncertainty, path.name, source.sha256, doubts)
    seconds = {"read": round(source.read_seconds, 3), **result.seconds, "write": round(time.perf_counter() - start, 3)}
    return replace(result, seconds=seconds)
