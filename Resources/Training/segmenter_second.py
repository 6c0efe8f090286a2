"""The second modality of a segmenter's channels: acquired, inferred by a translator, or a control that holds less.

Yang et al. 2020 (Cross-modality segmentation) infer it. The controls ask where a gain comes from: "shuffled" is the
translation with its axial slices in another order, an image of the same intensities that says nothing about its place;
"blurred" is the translation without its fine structure.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from segmenter_config import SegmenterConfig

from IMTCore.cards import ModelCard
from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput
from IMTCore.files import whole_file
from IMTCore.orientation import anatomical_axes
from IMTCore.progress import Say, quiet
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.volume import Volume
from IMTCore.warps import random_stream

SHUFFLE_SEED = 0  # of the slices' order; with the subject's name it gives each subject an order of its own


class SecondModality:
    """Gives each subject its second image. Translations are made once, and kept in `cache` if there is one.

    Args:
        config: what the second image is.
        device: to translate on.
        cache: folder of earlier translations.
        say: told what is used.

    Raises:
        BadModel: there is no such translator. BadInput: it translates other modalities.
    """

    def __init__(self, config: SegmenterConfig, device: str = "auto", cache: Path | None = None, say: Say = quiet) -> None:
        self.config, self.device, self.cache = config, device, cache
        self.card: ModelCard | None = None
        self._translator: Translator | None = None
        if config.second_from != "real":
            self.card = find_card(config.translator)
            if not self.card.translates(config.given, config.second):
                there = f"{self.card.source} to {self.card.target}"
                raise BadInput(f"Model {self.card.name} translates {there}, not {config.given} to {config.second}. Choose another.")
        say(f"second channel: {self.describe()}")

    def describe(self) -> str:
        """What the second image is, in words."""
        config = self.config
        if self.card is None:
            return f"{config.second} as acquired"
        made = f"{config.second} translated from {config.given} by {self.card.name}"
        return {
            "translated": made,
            "shuffled": f"control: {made}, its axial slices in a random order (seed {SHUFFLE_SEED} and the subject's name)",
            "blurred": f"control: {made}, Gaussian of sigma {config.blur_mm:g} mm",
        }[config.second_from]

    def volume(self, name: str, given: Volume, acquired: Volume | None = None) -> Volume:
        """One subject's second image, on the given one's grid.

        Args:
            name: `<dataset>/<subject>`, which decides the order of shuffled slices.
            given: the given image, as a segmenter would get it.
            acquired: the real second image, for "real".

        Raises:
            BadInput: if the given image cannot be translated.
        """
        if self.config.second_from == "real":
            if acquired is None:
                raise BadInput(f"{name} has no {self.config.second}. Add the image or leave the subject out.")
            return acquired
        made = self._translation(name, given)
        if self.config.second_from == "shuffled":
            return shuffled(made, name)
        return blurred(made, self.config.blur_mm) if self.config.second_from == "blurred" else made

    def _translation(self, name: str, given: Volume) -> Volume:
        card = self.card
        content = hashlib.sha256(f"{card.sha256} {self.config.given} {self.config.second} {given.geometry.affine_ras.round(4).tolist()}".encode())
        content.update(np.ascontiguousarray(given.array).tobytes())
        stored = self.cache / f"{name.replace('/', '-')}-{content.hexdigest()[:16]}.npy" if self.cache else None
        if stored is not None and stored.is_file():
            return given.with_array(_stored(stored, given), f"{given.name} {self.config.second} (synthetic)")
        if self._translator is None:
            settings = TranslationSettings(self.config.given, self.config.second, self.device, "fp32", check_modality=False)
            self._translator = Translator(card, settings)
        made = self._translator.translate(given).translation
        if stored is not None:
            with whole_file(stored) as temporary, open(temporary, "wb") as stream:
                np.save(stream, made.array, allow_pickle=False)
        return made


def _stored(path: Path, given: Volume) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"The stored translation {path} is damaged ({error}). Remove it: it is made anew.") from error
    if array.shape != given.array.shape:
        raise BadInput(f"The stored translation {path} has the shape {array.shape}, not {given.array.shape}. Remove it.")
    return array


def shuffled(volume: Volume, name: str, seed: int = SHUFFLE_SEED) -> Volume:
    """The volume with its axial slices that hold something in a random order, none of them in its own place.

    Args:
        volume: an image [k, j, i] in any orientation, 0 in the background.
        name: the subject; with `seed` it decides the order.
    """
    axes = anatomical_axes(volume.geometry, "axial")
    anatomical = axes.apply(volume.array).copy()
    filled = np.flatnonzero((anatomical != 0).any(axis=(1, 2)))
    order = np.arange(len(filled))
    random = random_stream(seed, f"shuffled {name}")
    for n in range(len(order) - 1, 0, -1):  # one cycle through all (Sattolo 1986): no slice stays
        other = int(random.integers(0, n))
        order[[n, other]] = order[[other, n]]
    anatomical[filled] = anatomical[filled[order]]
    return volume.with_array(np.ascontiguousarray(axes.invert(anatomical)), f"{volume.name}, shuffled")


def blurred(volume: Volume, sigma_mm: float) -> Volume:
    """The volume smoothed by a Gaussian of `sigma_mm` within its foreground (not 0), so that its rim is not darkened."""
    from scipy.ndimage import gaussian_filter

    sigma = sigma_mm / volume.geometry.spacing_mm[::-1]
    inside = volume.array != 0
    share = gaussian_filter(inside.astype(np.float32), sigma)
    smooth = gaussian_filter(volume.array.astype(np.float32), sigma) / np.maximum(share, 1e-6)
    return volume.with_array(np.where(inside, smooth, 0).astype(np.float32), f"{volume.name}, blurred")
