"""Weights, or engine settings, chosen by k-fold cross-validation over the atlases (Yang et al. 2020, Results: five-fold weights).

Each fold's atlases are in turn subjects, registered with the atlases of the other folds; their own labels are the truth.
What is best on the mean over all of them is chosen, for each structure. How much of that would hold for new subjects is
measured too: on each fold with what the other folds alone would have chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.files import sha256_of
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.provenance import input_sha256
from IMTCore.version import VERSION
from IMTCore.warps import random_stream

from ..atlases.atlas_sets import Atlas, AtlasSet
from ..engines.interface import preset_settings
from ..registration.cache import key_of
from ..registration.pairs import EngineIdentity
from ..registration.settings import DEFAULT_WEIGHT, RegistrationSettings
from ..registration.subject import atlas_set_sha256, run_identity
from ..registration.translation import model_for
from .cases import Results, keep_plan, without
from .run import labels_at, registered
from .scores import Truth, mean_of, score_registration
from .table import PLAN, check_engines

TIE = 1e-4  # Dice: candidates closer than this to the best are as good
FLAT = 0.002  # Dice: if all candidates are within this, the choice does not matter
LANDMARK_TIE_MM = 1e-3

Parameters = Mapping[str, Mapping[str, Any]]  # stage -> setting -> value, as `RegistrationSettings`


@dataclass(frozen=True)
class WeightExperiment:
    """What to choose.

    Attributes:
        atlas_set: atlases with both modalities.
        settings: of the registrations: fusion "mean" or "log" with a second modality to choose weights, any to choose
            engine settings.
        weights: shares of the given modality to choose from; none of them to choose from `candidates` instead.
        candidates: name -> engine settings.
        second_images: subject -> its second image, translated or real; those that are not there are translated.
        folds, seed: number of folds, and of their draw.
        output: folder for results.
    """

    atlas_set: AtlasSet
    settings: RegistrationSettings
    output: Path
    weights: Sequence[float] = ()
    candidates: Mapping[str, Parameters] = field(default_factory=dict)
    second_images: Mapping[str, Path] = field(default_factory=dict)
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        count = len(self.atlas_set.atlases)
        if not 2 <= self.folds <= count:
            raise BadInput(f"{count} atlases cannot be cut into {self.folds} folds: choose from 2 to {count}.")
        if bool(self.weights) == bool(self.candidates):
            raise BadInput("Choose from weights or from engine settings, one of them.")
        if len(self.labels) < 2:
            raise BadInput("There must be at least two weights or settings to choose from.")
        if self.weights and not all(0 <= weight <= 1 for weight in self.weights):
            raise BadInput(f"Weights are from 0 to 1, not {', '.join(f'{w:g}' for w in self.weights)}.")
        if self.weights and self.settings.fusion not in ("mean", "log"):
            raise BadInput("Weights for structures are of a fusion of fields: choose the fusion mean or log.")
        if self.weights and self.settings.labels == "joint":
            raise BadInput("Weights for structures do not go with joint labels. Choose labels mean, majority or staple.")
        for name, changes in self.candidates.items():
            try:
                preset_settings(self.settings.engine, self.settings.preset, changes)
            except BadInput as error:
                raise BadInput(f"Settings {name}: {error}") from error

    @property
    def labels(self) -> list[str]:
        """The candidates as text, in the order given."""
        return [f"{weight:g}" for weight in dict.fromkeys(self.weights)] or list(self.candidates)

    @property
    def parts(self) -> list[list[str]]:
        """The folds: the atlases' names, drawn by the seed, as even as can be."""
        names = sorted(atlas.name for atlas in self.atlas_set.atlases)
        order = random_stream(self.seed, "folds").permutation(len(names))
        return [sorted(names[n] for n in order[number :: self.folds]) for number in range(self.folds)]


@dataclass(frozen=True)
class Scored:
    """Scores of every candidate: candidate -> subject -> structure -> Dice (None where it has none), and -> mean landmark mm."""

    dice: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    landmarks: Mapping[str, Mapping[str, float]]

    @property
    def structures(self) -> list[str]:
        """All of them."""
        return list(dict.fromkeys(name for by in self.dice.values() for values in by.values() for name in values))

    def mean(self, candidate: str, structure: str, subjects: Sequence[str]) -> float:
        """Mean Dice over subjects that have the structure; NaN if none has."""
        return mean_of([self.dice[candidate][subject].get(structure) for subject in subjects])

    def curve(self, structure: str, subjects: Sequence[str] | None = None) -> dict[str, float]:
        """Candidate -> mean Dice."""
        return {c: self.mean(c, structure, list(by) if subjects is None else subjects) for c, by in self.dice.items()}

    def landmark_curve(self) -> dict[str, float]:
        """Candidate -> mean landmark distance in mm; empty without landmarks."""
        return {c: mean_of(list(values.values())) for c, values in self.landmarks.items() if values}


@dataclass(frozen=True)
class Choice:
    """What was chosen for one structure.

    Attributes:
        chosen, plain: the candidate, and what it is compared with (0.5, or the first settings).
        dice, plain_dice: their mean Dice.
        span: the best candidate's mean Dice less the worst one's.
        held_out: mean Dice that choices made without a subject's fold gain over `plain` on it; NaN if it cannot be told.
    """

    structure: str
    chosen: str
    plain: str
    dice: float
    plain_dice: float
    span: float
    held_out: float

    @property
    def is_flat(self) -> bool:
        """Whether all candidates are alike."""
        return self.span < FLAT


def run_weights(
    experiment: WeightExperiment, progress: Progress = quiet, cancelled: Callable[[], bool] = never, say: Say = quiet
) -> Scored:
    """Register every atlas with those of the other folds and score all candidates; results that are there are taken.

    Raises:
        BadInput: inputs that cannot be used. EngineMissing, EngineFailed, OutputFailure, Cancelled. A subject that fails
        ends the run: weights chosen without it would not be those that were asked for.
    """
    check_engines([experiment.settings.engine])
    keep_plan(experiment.output / PLAN, *_plan(experiment))
    results = Results(experiment.output / "results")
    dice: dict[str, dict[str, Any]] = {label: {} for label in experiment.labels}
    landmarks: dict[str, dict[str, float]] = {label: {} for label in experiment.labels}
    subjects = list(experiment.atlas_set.atlases)
    for number, subject in enumerate(subjects):

        def tell(stage: str, fraction: float, message: str, number: int = number, name: str = subject.name) -> None:
            done = fraction if stage == "register" else 0.0 if stage in ("read", "translate") else 1.0
            progress("experiment", (number + min(done, 1.0)) / len(subjects), f"{name}: {message}")

        for label, scores in _scores_of(experiment, subject, results, tell, cancelled, say).items():
            dice[label][subject.name] = scores["dice"]
            if scores.get("landmarks_mm"):
                landmarks[label][subject.name] = mean_of(list(scores["landmarks_mm"].values()))
    progress("experiment", 1.0, "done")
    return Scored(dice, landmarks)


def choose(scored: Scored, plain: str, parts: Sequence[Sequence[str]]) -> list[Choice]:
    """The best candidate for each structure, with what it gains.

    Args:
        plain: what a tie goes towards: of candidates that tie with the best, the nearest to it is chosen (weights), or the
            first (settings).
        parts: the folds, for the gain on subjects that took no part in the choice.
    """
    choices = []
    subjects = [subject for part in parts for subject in part]
    for structure in scored.structures:
        curve = scored.curve(structure, subjects)
        values = [value for value in curve.values() if np.isfinite(value)]
        if not values:
            continue
        chosen = best_of(curve, plain)
        gains = []
        for part in parts:
            others = [subject for subject in subjects if subject not in part]
            without_part = scored.curve(structure, others)
            if all(np.isnan(value) for value in without_part.values()):
                continue
            candidate = best_of(without_part, plain)
            for subject in part:
                gains.append(scored.mean(candidate, structure, [subject]) - scored.mean(plain, structure, [subject]))
        span = max(values) - min(values)
        choices.append(Choice(structure, chosen, plain, curve[chosen], curve[plain], span, mean_of(gains)))
    return choices


def best_of(curve: Mapping[str, float], plain: str, higher: bool = True, tie: float = TIE) -> str:
    """The candidate with the best value; of those that tie with it, the nearest to `plain` by weight, else the first."""
    there = {name: value if higher else -value for name, value in curve.items() if np.isfinite(value)}
    best = max(there.values())
    ties = [name for name, value in there.items() if value >= best - tie]
    if plain in ties:
        return plain
    try:
        return min(ties, key=lambda name: abs(float(name) - float(plain)))
    except ValueError:  # names of settings
        return ties[0]


def plain_of(experiment: WeightExperiment) -> str:
    """What candidates are compared with: of the weights the one nearest to 0.5, else the first settings."""
    if experiment.weights:
        return f"{min(experiment.weights, key=lambda weight: abs(weight - DEFAULT_WEIGHT)):g}"
    return experiment.labels[0]


def overall(scored: Scored, plain: str) -> str:
    """The candidate for all else: the least landmark distance where there are landmarks, else the best mean of all structures."""
    distances = scored.landmark_curve()
    if distances:
        return best_of(distances, plain, higher=False, tie=LANDMARK_TIE_MM)
    means = {c: mean_of([scored.curve(s)[c] for s in scored.structures]) for c in scored.dice}
    return best_of(means, plain)


def _scores_of(
    experiment: WeightExperiment, subject: Atlas, results: Results, progress: Progress, cancelled: Callable[[], bool], say: Say
) -> dict[str, dict[str, Any]]:
    """Candidate -> scores of one subject, with the atlases of the other folds."""
    (part,) = (part for part in experiment.parts if subject.name in part)
    atlas_set = without(experiment.atlas_set, part)
    settings = replace(experiment.settings, second_image=experiment.second_images.get(subject.name))
    if settings.second_image is not None:
        settings = replace(settings, model=None)
    truth = Truth.of(subject)
    image = subject.images[settings.modality]
    if experiment.weights:
        shares = list(dict.fromkeys(float(weight) for weight in experiment.weights))
        identity = _identity(settings, subject, atlas_set, weights=shares)
        kept = results.get(subject.name, identity)
        if kept is None:
            kept = {}
            # 0.5 is among them in any case: both registrations take part, the second one begun from the given one.
            with registered(image, atlas_set, settings, [*shares, DEFAULT_WEIGHT], progress, cancelled, say) as run:
                _refuse_failures(run.failed, subject)
                for share in shares:
                    kept[f"{share:g}"] = score_registration(run, truth, share=share, labels=labels_at(run, share, cancelled))
            kept = results.put(subject.name, identity, kept)
        return {label: kept[label] for label in experiment.labels}
    found: dict[str, dict[str, Any]] = {}
    for number, (name, parameters) in enumerate(experiment.candidates.items()):
        own = replace(settings, parameters=parameters)
        identity, key = _identity(own, subject, atlas_set), f"{number}/{subject.name}"
        kept = results.get(key, identity)
        if kept is None:
            with registered(image, atlas_set, own, (), progress, cancelled, say) as run:
                _refuse_failures(run.failed, subject)
                kept = results.put(key, identity, score_registration(run, truth))
        found[name] = kept
    return found


def _identity(settings: RegistrationSettings, subject: Atlas, atlas_set: AtlasSet, **more: Any) -> str:
    """Of all that goes into one subject's result."""
    engine = EngineIdentity.of(settings)
    return key_of(
        "register-weights",
        run=run_identity(input_sha256(subject.images[settings.modality]), atlas_set_sha256(atlas_set, settings), settings, model_for(settings)),
        truth=[sha256_of(path) for path in (subject.labels, subject.landmarks) if path],
        landmarks=[sha256_of(atlas.landmarks) if atlas.landmarks else None for atlas in atlas_set.atlases],
        engine=[engine.version, engine.settings],
        **more,
    )


def _refuse_failures(failed: Mapping[str, Exception], subject: Atlas) -> None:
    for name, error in failed.items():
        raise BadInput(f"{subject.name} could not be registered with atlas {name}, so nothing is chosen: {error}")


def _plan(experiment: WeightExperiment) -> tuple[dict[str, Any], dict[str, Any]]:
    fixed = {
        "experiment": "register-weights",
        "settings": {name: value for name, value in experiment.settings.record().items() if name not in ("weight", "second_image")},
        "atlases": {atlas.name: sha256_of(atlas.labels) for atlas in experiment.atlas_set.atlases},
        "folds": experiment.parts,
    }
    return fixed, {"version": VERSION, "weights": list(experiment.weights), "candidates": dict(experiment.candidates)}
