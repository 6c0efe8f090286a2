"""The check of an input before a run, in plain words: what would stop it, what to look at, and what is fine.

A model's card may say what was in its training (`training_range`, measured by Resources/Training/measure_training_range.py);
the input is held against that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cards import PackageCard
from .contrast import UNSURE, guess_modality
from .errors import BadInput
from .input_check_measures import PERCENTILES, InputMeasures, measure_input
from .plausibility import check_modality, check_possible
from .volume import Volume, check_image

STOP, WARN, FINE = "stop", "warn", "fine"
SPACING_TOLERANCE = 1.25  # of the training's finest and coarsest voxels
COARSE_TIMES = 2.0  # a voxel's shortest edge may be so much longer than any in training: it is resampled to the model's spacing
MIN_HEIGHT_MM = 90.0  # less is a slab of a brain
DOME_RADIUS_MM = 70.0
CUT_SHARE = 0.25  # a head that ends by itself ends in a smaller slice than this
MAX_CLIPPED, MIN_LEVELS, MAX_DRIFT = 0.01, 32, 0.5  # where a card says nothing
CLIPPED_TIMES, DRIFT_TIMES = 3.0, 1.5  # of the worst in training
EVEN_DRIFT = 0.2  # of an image without a bias field: left and right, front and back of a head are not quite alike
SYMMETRY_MARGIN = 0.1
HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Finding:
    """One result of the check.

    Attributes:
        check: what was looked at: image, size, modality, head, field of view, brain extraction, resolution, intensities,
            histogram or orientation.
        severity: "stop" (a run would refuse it), "warn" or "fine".
        text: one or two sentences for the user.
    """

    check: str
    severity: str
    text: str


def check_input(volume: Volume, card: PackageCard, source: str | None = None, verb: str = "translate") -> list[Finding]:
    """Check an image for one model, as a run would, and more.

    Args:
        volume: the input as read, array [k, j, i].
        card: the model's card.
        source: what the image is to show; None for the card's source.
        verb: what the model does, for the messages.

    Returns:
        What was found, in the order of the checks. After a "stop" of size or image there is nothing more to measure.
    """
    findings: list[Finding] = []
    try:
        check_image(volume)
        findings.append(Finding("image", FINE, f"{volume.name} is a scalar image without NaN or infinite values."))
        check_possible(volume, card, verb)
        findings.append(Finding("size", FINE, "What it shows has the size of a head."))
    except BadInput as error:
        return [*findings, Finding("size" if findings else "image", STOP, str(error))]
    findings += _modality(volume, card, source or card.source, verb)
    measures = measure_input(volume)
    if measures is None:
        text = f"No head was found in {volume.name}: in no slice as much as 30 cm² is brighter than air. Check that it is an image of a head."
        return [*findings, Finding("head", WARN, text)]
    return [*findings, *findings_of(volume.name, measures, card)]


def unusual_input(volume: Volume, card: PackageCard, histogram: bool = True) -> list[str]:
    """The warnings that a run adds to those of plausibility.py; an image in which no head is found has none.

    Args:
        volume, card: as in `check_input`.
        histogram: also hold the histogram against the training's.
    """
    measures = measure_input(volume)
    if measures is None:
        return []
    found = findings_of(volume.name, measures, card)
    return [one.text for one in found if one.severity == WARN and (histogram or one.check != HISTOGRAM)]


def worst(findings: list[Finding]) -> str:
    """The gravest severity among the findings."""
    return next((severity for severity in (STOP, WARN) if any(one.severity == severity for one in findings)), FINE)


def _modality(volume: Volume, card: PackageCard, source: str, verb: str) -> list[Finding]:
    """What the contrast tells: whether it is a head, and of which modality."""
    try:
        warnings = check_modality(volume, card, source, refuse=True, verb=verb)
    except BadInput as error:
        return [Finding("modality", STOP, str(error))]
    if warnings:
        return [Finding("modality", WARN, warnings[0])]
    guess = guess_modality(volume)
    if guess.modality != UNSURE:
        return [Finding("modality", FINE, f"It looks like a {guess.modality} image ({guess.probabilities[guess.modality]:.0%} likely).")]
    if np.isinf(guess.unusual):
        return [Finding("head", WARN, f"No head of the usual size was recognised in {volume.name}. Check that it is an image of a head.")]
    if max(guess.probabilities.values()) - min(guess.probabilities.values()) < 1e-6:
        text = f"The contrast of {volume.name} is unlike that of every head IMT has seen. Check that it is a {source} image of a head."
        return [Finding("head", WARN, text)]
    return [Finding("modality", FINE, f"Its contrast is not clear, but nothing speaks against {source}.")]


def findings_of(name: str, found: InputMeasures, card: PackageCard) -> Iterator[Finding]:
    """What an image's measures say, held against a model's card; `name` is what messages call the image."""
    known = card.content.get("training_range", {})
    yield _field_of_view(name, found, known)
    yield _brain_extraction(name, found, known, card.name)
    yield _resolution(name, found, known, card.name)
    yield _intensities(name, found, known)
    if known:
        yield _histogram(name, found, known, card)
    yield _orientation(name, found)


def _field_of_view(name: str, found: InputMeasures, known: dict[str, Any]) -> Finding:
    trained = known.get("cut", {})
    dome = 2 * 1.5 * found.voxel_mm[1] / DOME_RADIUS_MM  # the last slice of a round head, one and a half slices from its end
    limits = {side: max(CUT_SHARE + dome, 1.1 * trained.get(side, 0.0)) for side in found.cut}
    if found.skull == "whole":
        limits["bottom"] = 1.1  # a head goes on in a neck
    cut = [side for side, share in found.cut.items() if share > limits[side]]
    low = min(MIN_HEIGHT_MM, known.get("height_mm", [MIN_HEIGHT_MM])[0])
    size = f"{found.height_mm:.0f} mm from bottom to top"
    if found.height_mm < low:
        text = f"{name} shows only {size} of the head; a whole brain measures about 105 to 140 mm. What it does not show is not translated."
        return Finding("field of view", WARN, text)
    if cut:
        text = (
            f"The head in {name} ends abruptly at the {' and the '.join(cut)}: it is cut off there, or the image is turned. "
            "Expect errors near the cut; check the field of view."
        )
        return Finding("field of view", WARN, text)
    return Finding("field of view", FINE, f"The brain is covered ({size}).")


def _brain_extraction(name: str, found: InputMeasures, known: dict[str, Any], model: str) -> Finding:
    check, counts = "brain extraction", known.get("skull")
    states = {"stripped": "a brain without its skull", "whole": "a whole head", "unclear": "a head"}
    if found.skull == "unclear":
        return Finding(check, FINE, "It is not clear whether it shows a whole head or a brain without its skull.")
    if counts is None:
        return Finding(check, FINE, f"It shows {states[found.skull]}. The card does not say what the model was trained on.")
    same = counts.get(found.skull, 0)
    if same:
        return Finding(check, FINE, f"It shows {states[found.skull]}, as {same} of {sum(counts.values())} training images did.")
    remedy = "Remove the skull first" if found.skull == "whole" else "Give the image from before the skull was removed"
    text = f"{name} shows {states[found.skull]}; none of the images that model {model} was trained on did. {remedy}, or expect errors."
    return Finding(check, WARN, text)


def _resolution(name: str, found: InputMeasures, known: dict[str, Any], model: str) -> Finding:
    fine, coarse = found.voxel_mm
    size = f"{fine:.3g} mm" if coarse < 1.05 * fine else f"{fine:.3g} to {coarse:.3g} mm"
    if not known:
        return Finding("resolution", FINE, f"Its voxels measure {size}. The card does not say what the model was trained on.")
    finest, coarsest = known["finest_mm"], known["coarsest_mm"]
    trained = f"{finest[0]:g} to {coarsest[1]:g} mm"
    if coarse > SPACING_TOLERANCE * coarsest[1] or fine > COARSE_TIMES * finest[1]:
        narrow = "" if coarse > SPACING_TOLERANCE * coarsest[1] else f" (at most {finest[1]:g} mm along their shortest edge)"
        text = f"The voxels of {name} are coarse ({size}); those that model {model} was trained on measure {trained}{narrow}. Small structures will be wrong."
        return Finding("resolution", WARN, text)
    if fine < finest[0] / SPACING_TOLERANCE:
        text = f"The voxels of {name} are fine ({size}); those that model {model} was trained on measure {trained}. The result is no finer than those."
        return Finding("resolution", WARN, text)
    return Finding("resolution", FINE, f"Its voxels measure {size}; those in training {trained}.")


def _intensities(name: str, found: InputMeasures, known: dict[str, Any]) -> Finding:
    faults = []
    if found.clipped > max(MAX_CLIPPED, CLIPPED_TIMES * known.get("clipped", 0.0)):
        faults.append(f"{found.clipped:.1%} of the head have the highest value (it was clipped: export it again with its full range)")
    if found.levels < min(MIN_LEVELS, known.get("levels", MIN_LEVELS)):
        faults.append(f"there are only {found.levels} grey levels (export it again with more than 8 bits, or without a mask's threshold)")
    limit = DRIFT_TIMES * max(known["drift"], EVEN_DRIFT) if "drift" in known else MAX_DRIFT
    if found.drift > limit:
        times = 2**found.drift
        faults.append(f"one half of the head is {times:.1f} times as bright as the other (a strong bias field: try --bias-correction)")
    if faults:
        return Finding("intensities", WARN, f"Intensities of {name}: {'; '.join(faults)}.")
    return Finding("intensities", FINE, "Its intensities are neither clipped nor few nor uneven beyond the usual.")


def _histogram(name: str, found: InputMeasures, known: dict[str, Any], card: PackageCard) -> Finding:
    strange = []
    for percentile, value, (low, high) in zip(PERCENTILES, found.landmarks, known["landmarks"], strict=True):
        margin = (high - low) / 3
        if not low - margin <= value <= high + margin:
            strange.append(f"its {percentile} % point is {value:.2f}, in training {low:.2f} to {high:.2f}")
    if strange:
        text = (
            f"The histogram of {name} is unlike the {card.source} images that model {card.name} was trained on ({strange[0]}). "
            f"Check that it is a {card.source} image."
        )
        return Finding(HISTOGRAM, WARN, text)
    return Finding(HISTOGRAM, FINE, "Its histogram lies within the range of the training images.")


def _orientation(name: str, found: InputMeasures) -> Finding:
    up, back, side = found.symmetry
    if max(up, back) - side > SYMMETRY_MARGIN:
        other = "top and bottom" if up > back else "front and back"
        text = (
            f"In {name} {other} are more alike than left and right: the axes in its header may be wrong. "
            "Look at it in Slicer: the eyes must be in front, the vertex on top."
        )
        return Finding("orientation", WARN, text)
    return Finding("orientation", FINE, "Left and right are alike, as they should be; a mirrored image cannot be told.")
