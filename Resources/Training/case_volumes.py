"""One test subject's image pair, read and scaled for scores and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from datasets import Subject, read_modalities
from evaluate_translator import target_slices
from training_data import is_pattern, select_subjects

from IMTCore.errors import BadInput
from IMTCore.intensity import background_value, foreground_mask
from IMTCore.metrics import scaled_prediction, unit_scaled
from IMTCore.orientation import AxisMap, anatomical_axes
from IMTCore.translation import Translator
from IMTCore.volume import Volume


@dataclass(frozen=True)
class Case:
    """One subject's image pair, axial.

    Attributes:
        name: `<dataset>/<subject>`.
        source, target: modalities.
        volume: the source image as stored.
        axes: from the stored array to the axial one.
        spacing_kji: mm.
        given, truth: source and target image [k, j, i] in 0 to 1 (divided by their 99.5th foreground percentile).
        head: boolean [k, j, i], the truth's foreground.
        kept: boolean [k], the slices on which the target was acquired.
    """

    name: str
    source: str
    target: str
    volume: Volume
    axes: AxisMap
    spacing_kji: tuple[float, float, float]
    given: np.ndarray
    truth: np.ndarray
    head: np.ndarray
    kept: np.ndarray

    def axial(self, stored: np.ndarray, top: float) -> np.ndarray:
        """A prediction on the subject's grid [k, j, i] as an axial array in 0 to 1; `top` is the end of its range."""
        return scaled_prediction(np.ascontiguousarray(self.axes.apply(stored)), top)


def load_case(subject: Subject, source: str, target: str) -> Case:
    """Read one subject's pair.

    Raises:
        BadInput: an image is missing, unreadable, empty, or on another grid; names the subject.
    """
    volumes = read_modalities(subject, [source, target])
    axes = anatomical_axes(volumes[source].geometry)
    given, truth = (np.ascontiguousarray(axes.apply(volumes[name].array)) for name in (source, target))
    try:
        scaled = unit_scaled(given), unit_scaled(truth)
    except BadInput as error:
        raise BadInput(f"{subject.name}: {error} Leave it out.") from error
    head, kept = foreground_mask(truth, background_value(truth)), target_slices(given, truth)
    if not head[kept].any():
        raise BadInput(f"{subject.name}: {target} covers the head on no slice. Leave it out.")
    spacing = axes.spacing_kji(volumes[source].geometry)
    return Case(subject.name, source, target, volumes[source], axes, spacing, *scaled, head, kept)


def subjects_with(data: Path, patterns: Sequence[str], modalities: Sequence[str], exclude: Sequence[str] = ()) -> list[Subject]:
    """The subjects (plain folders) matching `patterns`, not `exclude`; one that a wildcard found is left out if it lacks a modality.

    Raises:
        BadInput: a pattern matches nothing, a subject given by its name lacks a modality, or none is left.
    """
    chosen = []
    for subject in select_subjects(data, patterns, exclude):
        missing = [name for name in modalities if name not in subject.images]
        if missing and any(not is_pattern(pattern) and fnmatchcase(subject.name, pattern) for pattern in patterns):
            raise BadInput(f"{subject.name} has no {' and no '.join(missing)}. Add the image or leave the subject out.")
        if missing:
            print(f"left out: {subject.name} (no {', '.join(missing)})", flush=True)
        else:
            chosen.append(subject)
    if not chosen:
        raise BadInput(f"No subject of {', '.join(patterns)} in {data} has {' and '.join(modalities)}.")
    return chosen


def predicted(translator: Translator, case: Case) -> np.ndarray:
    """The model's prediction of a case, axial [k, j, i] in 0 to 1."""
    return case.axial(translator.translate(case.volume).translation.array, translator.card.output_range[1])
