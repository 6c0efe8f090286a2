"""Held-out patients for the calibration of a model's uncertainty: deviation between samples, error, and whether training knew the place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from evaluate_translator import target_slices
from training_data import find_subject

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput
from IMTCore.files import whole_file
from IMTCore.inputs import prepare_input
from IMTCore.intensity import AIR_SHARE
from IMTCore.metrics import unit_scaled
from IMTCore.orientation import anatomical_axes
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.uncertainty_map import TrustLimits, neighbourhood_bins
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume

VOXELS = 60_000  # of a patient's head, drawn at random


@dataclass(frozen=True)
class Patient:
    """A sample of one held-out patient's head, in the units of the model's output.

    Attributes:
        name: `<dataset>/<subject>`.
        deviation: (n,) between the noise samples.
        error: (n,) |translation − truth|; the truth's 99.5th foreground percentile is the top of the output's range.
        inside: (n,) boolean: the voxel and its neighbourhood are within the training range.
        tissue_range: between the 5th and the 95th percentile of the truth in the head.
    """

    name: str
    deviation: np.ndarray
    error: np.ndarray
    inside: np.ndarray
    tissue_range: float


def calibration_patients(data: Path, card: ModelCard, samples: int, cache: Path, exclude: list[str]) -> list[Patient]:
    """Every held-out patient of the card that has source and target; each is translated once, and kept in `cache`.

    Raises:
        BadInput: fewer than three.
    """
    held_out = [name for name in card.content["training"].get("held_out", []) if name not in exclude]
    names = [name for name in held_out if find_subject(data, name, card.source) and find_subject(data, name, card.target)]
    if len(names) < 3:
        raise BadInput(f"Model {card.name} has {len(names)} held-out patients with {card.source} and {card.target} in {data}: at least 3 are needed.")
    as_sampled = replace(card, content={key: value for key, value in card.content.items() if key != "uncertainty"})
    translator = None
    patients = []
    for name in names:
        path = cache / f"{card.name}-{card.sha256[:12]}-{samples}-{name.replace('/', '-')}.npz"
        if not path.is_file():
            translator = translator or Translator(as_sampled, TranslationSettings(device="cpu", samples=samples))
            source, truth = (read_volume(find_subject(data, name, modality)) for modality in (card.source, card.target))
            result = translator.translate(source)
            patient = sample_patient(name, card, source, truth, result.translation.array, result.uncertainty.array)
            with whole_file(path) as temporary:
                np.savez_compressed(temporary, **{key: value for key, value in vars(patient).items() if key != "name"})
            print(f"{name}: {result.seconds}", flush=True)
        with np.load(path, allow_pickle=False) as kept:
            patients.append(Patient(name, kept["deviation"], kept["error"], kept["inside"], float(kept["tissue_range"])))
    return patients


def sample_patient(
    name: str, card: ModelCard, source: Volume, truth: Volume, translation: np.ndarray, deviation: np.ndarray
) -> Patient:
    """Draw voxels of the head, where the target was acquired.

    Args:
        source, truth: images on one grid, arrays [k, j, i].
        translation, deviation: on that grid, in the output's units; not calibrated.

    Raises:
        BadInput: the card has no training range, which says what is inside.
    """
    trained = card.content.get("training_range")
    if trained is None:
        raise BadInput(f"The card of model {card.name} has no training range: run measure_training_range.py first.")
    inside = TrustLimits.of_card({"training_range": trained, "uncertainty": {"thresholds": [1, 1], "tissue_range": 1}}).inside
    view = prepare_input(source, card, TranslationSettings(check_modality=False)).views[0]
    image = view.restore(list(range(len(view.images))), (view.images + 1) / 2)
    foreground = np.ascontiguousarray(view.axes.invert(view.foreground)) & (image > 0)
    known = inside[neighbourhood_bins(image, source.geometry.spacing_mm[::-1], foreground)]
    axes = anatomical_axes(source.geometry)
    kept = target_slices(axes.apply(source.array), axes.apply(truth.array))
    head = np.stack([ndimage.binary_fill_holes(one) for one in axes.apply(image) > AIR_SHARE])
    region = np.ascontiguousarray(axes.invert(head & kept[:, None, None])) & foreground
    real = unit_scaled(truth.array) * card.output_range[1]
    error = np.abs(translation - real)
    drawn = np.flatnonzero(region)
    drawn = np.random.default_rng(0).choice(drawn, min(VOXELS, drawn.size), replace=False)
    dark, bright = np.percentile(real[region], [5, 95])
    return Patient(name, *(values.ravel()[drawn] for values in (deviation, error, known)), tissue_range=float(bright - dark))
