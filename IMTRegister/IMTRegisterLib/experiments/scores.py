"""Scores of a finished registration against a subject's own labels and landmarks (Yang et al. 2020, Evaluation metrics)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.label_scores import dice_scores, score_labels

from ..atlases.atlas_sets import Atlas
from ..atlases.checks import read_label_map
from ..atlases.landmarks import Landmarks, landmark_distances, read_landmarks
from ..registration.run import Registration
from ..registration.weights import Share
from .cases import short


@dataclass(frozen=True)
class Truth:
    """A subject's own labels [k, j, i] and landmarks."""

    labels: np.ndarray
    landmarks: Landmarks

    @classmethod
    def of(cls, subject: Atlas) -> Truth:
        """Read them.

        Raises:
            BadInput: not readable.
        """
        _, labels = read_label_map(subject.labels)
        return cls(labels, read_landmarks(subject.landmarks) if subject.landmarks else {})


def score_registration(
    run: Registration, truth: Truth, surfaces: bool = False, share: Share | None = None, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """What one run reached, for records.

    Args:
        surfaces: also the 95 % Hausdorff and the mean surface distance, which take longer.
        share: whose transforms carry the landmarks; None for the plan's main one.
        labels: (K, J, I) to score on the subject's grid; None for the run's own.

    Returns:
        dice, and with `surfaces` hausdorff_95_mm and mean_surface_distance_mm: structure -> value, NaN where it is neither
        in the truth nor found; landmarks_mm: landmark -> mean over the atlases that have it, absent without landmarks;
        folds; seconds by stage, summed over the atlases, as computed (not as read from the cache); failed.

    Raises:
        BadInput: labels that do not fit the subject's image.
    """
    labels = run.labels.array if labels is None else labels
    if labels.shape != truth.labels.shape:
        raise BadInput(f"The labels of {run.subject.name} have {truth.labels.shape[::-1]} voxels, its image {labels.shape[::-1]}.")
    names = {code: run.names.name_of(code) for code in run.codes}
    if surfaces:
        scores = score_labels(truth.labels, labels, run.subject.geometry, run.codes)
        result: dict[str, Any] = {"dice": {names[code]: score.dice for code, score in scores.items()}}
        for measure in ("hausdorff_95_mm", "mean_surface_distance_mm"):
            result[measure] = {names[code]: getattr(score, measure) for code, score in scores.items()}
    else:
        result = {"dice": {names[code]: value for code, value in dice_scores(truth.labels, labels, run.codes).items()}}
    distances = _landmarks(run, truth, run.plan.main if share is None else share)
    if distances:
        result["landmarks_mm"] = distances
    seconds: dict[str, float] = {}
    for pair in run.registered.values():
        for stage, value in pair.seconds.items():
            seconds[stage] = round(seconds.get(stage, 0.0) + value, 3)
    return {
        **result,
        "atlases": list(run.registered),
        "folds": sum(pair.record["folds"] for pair in run.registered.values()),
        "seconds": seconds,
        "threads": run.threads,
        "failed": {name: short(error) for name, error in run.failed.items()},
    }


def _landmarks(run: Registration, truth: Truth, share: Share) -> dict[str, float]:
    """Landmark -> mm, the mean over the atlases. The paper's Dist: in the moving image, see `landmark_distances`."""
    found: dict[str, list[float]] = {}
    for atlas in run.atlas_set.atlases:
        pair = run.registered.get(atlas.name)
        if pair is None or atlas.landmarks is None or not truth.landmarks:
            continue
        moving = read_landmarks(atlas.landmarks)
        if truth.landmarks.keys() & moving.keys():
            for name, distance in landmark_distances(truth.landmarks, moving, pair.transforms[share]).items():
                found.setdefault(name, []).append(distance)
    return {name: float(np.mean(values)) for name, values in found.items()}


def mean_of(values: Sequence[float | None]) -> float:
    """The mean of what is there; NaN if nothing is."""
    there = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(there)) if there else float("nan")
