"""Does an image fit a model's card? Impossible inputs are refused; unusual ones are named, and translated."""

from __future__ import annotations

import numpy as np

from .cards import PackageCard
from .contrast import guess_modality
from .dicom_acquisition import check_acquisition
from .errors import BadInput
from .intensity import background_value, foreground_mask
from .modality_names import guess_from_text
from .orientation import anatomical_axes
from .preparation import PreparedVolume
from .volume import Volume

MIN_DISTINCT_VALUES = 10  # below that it is a mask or a label map, not an image
MIN_IN_PLANE_VOXELS = 8
SLICE_MM = 0.01, 100.0  # distances beyond would ask the bias field's splines for endless memory
DEFAULT_EXTENT_MM = (20.0, 400.0)


def check_many_values(volume: Volume) -> None:
    """Refuse a mask or a label map in an image's place.

    Raises:
        BadInput: fewer than 10 different values.
    """
    values = volume.array.ravel()
    some = values if values.size <= 200_000 else values[:: values.size // 200_000]
    if np.unique(some).size < MIN_DISTINCT_VALUES and np.unique(values).size < MIN_DISTINCT_VALUES:
        raise BadInput(
            f"{volume.name} has fewer than {MIN_DISTINCT_VALUES} different values: it looks like a mask or a label map, "
            "not an MR image. Choose the image itself."
        )


def check_possible(volume: Volume, card: PackageCard, verb: str = "translate") -> None:
    """Check size and histogram of an input, before it is prepared: a wrong voxel size would ask for endless memory.

    Args:
        volume: the input.
        card: the card; its `accepts` may hold `extent_mm` (smallest and largest in-plane extent of the head).
        verb: what the model does, for the messages: "translate" or "segment".

    Raises:
        BadInput: too few voxels in the slicing plane, a head of impossible size, or the histogram of a label map.
    """
    plane = card.slicing.plane
    axes = anatomical_axes(volume.geometry, plane)
    array = axes.apply(volume.array)
    _, rows, columns = array.shape
    if min(rows, columns) < MIN_IN_PLANE_VOXELS:
        raise BadInput(
            f"{volume.name} has only {columns} × {rows} voxels in the {plane} plane, in which model {card.name} works. "
            f"Give a volume, or a slice, of {plane} orientation."
        )
    check_many_values(volume)
    foreground = foreground_mask(array, background_value(array))
    if not foreground.any():  # whole numbers beyond 2^53, for example, that differ by less than a float tells
        raise BadInput(f"{volume.name} is all background: it shows nothing. Choose another image.")
    spacing_k, spacing_j, spacing_i = axes.spacing_kji(volume.geometry)
    seen = np.flatnonzero(foreground.any(axis=(0, 2))), np.flatnonzero(foreground.any(axis=(0, 1)))
    extents = (np.ptp(seen[0]) + 1) * spacing_j, (np.ptp(seen[1]) + 1) * spacing_i
    least, most = card.content.get("accepts", {}).get("extent_mm", DEFAULT_EXTENT_MM)
    if min(extents) < least or max(extents) > most:
        raise BadInput(
            f"What {volume.name} shows is {extents[1]:.0f} × {extents[0]:.0f} mm in the {plane} plane; a head that model {card.name} "
            f"can {verb} measures {least:g} to {most:g} mm. Check the voxel size ({', '.join(f'{s:g}' for s in volume.geometry.spacing_mm)} mm)."
        )
    if not SLICE_MM[0] <= spacing_k <= SLICE_MM[1]:
        raise BadInput(
            f"The slices of {volume.name} are {spacing_k:g} mm apart in its header, and no scanner's are "
            f"(IMT takes {SLICE_MM[0]:g} to {SLICE_MM[1]:g} mm). Repair the voxel size."
        )


def check_modality(volume: Volume, card: PackageCard, modality: str, refuse: bool, verb: str = "translate") -> list[str]:
    """Check that the image shows what the model takes, before any time is spent on it: by its DICOM header, then by its histogram.

    Args:
        volume: the input.
        card: the card.
        modality: what the image is to show.
        refuse: whether an image that surely shows another modality is refused; else there is a warning.
        verb: as in `check_possible`; "use" for an image that is not the model's source.

    Returns:
        A warning in words for the user, if the image may show another modality.

    Raises:
        BadInput: if the image surely shows another modality, and `refuse` says so.
    """
    by_header = check_acquisition(volume, card, modality, refuse, verb)
    other = _other_modality(volume, card, modality, refuse, verb)
    return by_header + ([other] if other else [])


def check_histogram(volume: Volume, prepared: PreparedVolume, card: PackageCard) -> list[str]:
    """Check the histogram of a prepared input.

    Args:
        volume: the input.
        prepared: the same, prepared for the card's model.
        card: the card; its `accepts` may hold `median` (the range of the normalised foreground's median over the
            training images).

    Returns:
        A warning in words for the user, if it is unusual.

    Raises:
        BadInput: if nothing is brighter than air.
    """
    accepts = card.content.get("accepts", {})
    head = prepared.images > -0.8
    if not head.any():
        raise BadInput(f"{volume.name} has no visible head: nearly all voxels are as dark as air. Choose another image.")
    if "median" in accepts:
        low, high = accepts["median"]
        median = float(np.median((prepared.images[head] + 1) / 2))
        if not low <= median <= high:
            warning = (
                f"The histogram of {volume.name} is unlike the {card.source} images that model {card.name} was trained on "
                f"(median {median:.3f}, training {low:.3f} to {high:.3f}). Check that it is a {card.source} image."
            )
            return [warning]
    return []


def doubt_of_modality(volume: Volume, modality: str) -> str | None:
    """A warning if the image surely shows another modality than it is said to, for uses that do not depend on a model.

    Args:
        volume: a scalar image of a head, array [k, j, i].
        modality: such as "T2"; one that is not recognised is never doubted.
    """
    named = guess_from_text(modality)
    wanted = "T1" if named == "T1C" else named
    if wanted is None:
        return None
    guess = guess_modality(volume)
    if not guess.is_sure_not(wanted):
        return None
    return f"{volume.name} looks like a {guess.modality} image, but is said to be {modality}. Check that it is a {modality} image."


def _other_modality(volume: Volume, card: PackageCard, source: str, refuse: bool, verb: str) -> str | None:
    """A warning if the image looks like another modality than `source`; BadInput if it surely is one and `refuse` says so."""
    named = guess_from_text(source)
    wanted = "T1" if named == "T1C" else named
    if wanted is None:  # a modality that is not recognised
        return None
    guess = guess_modality(volume)
    if not guess.speaks_against(wanted):
        return None
    if not guess.is_sure_not(wanted):
        return (
            f"{volume.name} may be a {guess.modality} image ({guess.probabilities[guess.modality]:.0%} likely), but model {card.name} {verb}s {source} "
            f"images. Check that it is a {source} image."
        )
    finding = f"{volume.name} looks like a {guess.modality} image, but model {card.name} {verb}s {source} images"
    if refuse:
        remedy = "Choose another model" if source == card.source else "Choose another image"
        raise BadInput(
            f"{finding}. {remedy}; if it is certain that this is a {source} image, "
            "leave the check of the modality out (--no-modality-check)."
        )
    past = verb + ("d" if verb.endswith("e") else "ed")
    return f"{finding}. It was {past} all the same, as the check of the modality was left out."
