"""The subject's second modality: translated once, and kept for the next run, or a real image brought to the same grid."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from IMTCore.cards import ModelCard
from IMTCore.catalogue import find_card, list_cards
from IMTCore.errors import BadInput, BadModel
from IMTCore.outputs import TranslationResult
from IMTCore.plausibility import check_many_values
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.provenance import volume_sha256
from IMTCore.settings import TranslationSettings
from IMTCore.version import VERSION
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume

from .cache import RegistrationCache, key_of
from .settings import RegistrationSettings


def model_for(settings: RegistrationSettings) -> ModelCard | None:
    """The card of the model that translates the subject; None if none is needed.

    Raises:
        BadModel: there is none for the pair (the message lists the pairs), or it translates another one.
    """
    if not settings.translates:
        return None
    source, target = settings.modality, settings.translate_to
    if settings.model is not None:
        card = find_card(settings.model)
        if not card.translates(source, target):
            raise BadModel(f"Model {card.name} does not translate {source} to {target}. {_offer()}")
        return card
    try:
        card = find_card(f"{source}-{target}")
    except BadModel:
        card = None
    if card is None or not card.translates(source, target):  # a model may bear another pair's name
        raise BadModel(f"No model translates {source} to {target}. {_offer()} Or give a real {target} image (--second-image).")
    return card


def _offer() -> str:
    cards, _ = list_cards()
    pairs = [f"{c.source} to {c.target}" if not c.modalities else f"any of {', '.join(c.modalities)}" for c in cards]
    return f"The models here translate {'; '.join(sorted(set(pairs))) or 'nothing'}."


def translate_subject(
    subject: Volume,
    card: ModelCard,
    settings: RegistrationSettings,
    cache: RegistrationCache,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
    say: Say = quiet,
) -> tuple[TranslationResult, bool]:
    """Translate the subject, or find its translation in the cache.

    Returns:
        The translation on the subject's grid, and whether it was in the cache.

    Raises:
        BadInput: an image that does not fit the model. BadModel. Cancelled.
    """
    wanted = TranslationSettings(source=settings.modality, target=settings.translate_to)
    key = key_of(
        "translation",
        version=VERSION,
        image=volume_sha256(subject),
        model=card.sha256,
        card=card.content,
        pair=[settings.modality, settings.translate_to],
    )
    found = cache.arrays(key)
    if found is not None and found[0].get("translation", np.empty(0)).shape == subject.array.shape:
        arrays, record = found
        volume = subject.with_array(arrays["translation"], f"{subject.name} {record['target']} (synthetic)")
        return TranslationResult(volume, None, record["source"], record["target"], record["settings"], {}, record["warnings"]), True
    from IMTCore.translation import Translator  # torch

    progress("translate", 0.0, f"model {card.name}")
    translator = Translator(card, wanted, say)
    result = translator.translate(subject, progress, cancelled)
    del translator
    gc.collect()  # the network's memory, before engines want theirs
    record = {"source": result.source, "target": result.target, "settings": result.settings, "warnings": result.warnings}
    cache.put_arrays(key, {"translation": result.translation.array}, record)
    return result, False


def real_second_image(path: Path, subject: Volume) -> tuple[Volume, list[str]]:
    """The subject's real image of the second modality on the subject's grid, and what is worth a word.

    Raises:
        BadInput: not readable, or it does not meet the subject's grid.
    """
    from ..deformations.resampling import warp_image
    from ..deformations.transforms import Transform

    volume = read_volume(path)
    check_many_values(volume)
    if volume.geometry.is_close(subject.geometry, 1e-2):
        return Volume(volume.array.astype(np.float32), subject.geometry, volume.name), []
    resampled = warp_image(volume, Transform(), subject.geometry)
    array = resampled.array
    if array.min() == array.max():
        raise BadInput(f"The second image {path} does not overlap with the subject. Register it with the subject first.")
    warning = f"{path.name} is on another grid than the subject: it was resampled by its position, and not registered."
    return Volume(array.astype(np.float32), subject.geometry, volume.name), [warning]
