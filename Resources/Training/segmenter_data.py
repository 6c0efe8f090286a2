"""Subjects with labels made ready for a segmenter: images and classes as slices, with the skull and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from datasets import Subject, read_modalities
from segmenter_config import SegmenterConfig
from segmenter_second import SecondModality
from training_data import is_pattern, select_subjects

from IMTCore.errors import BadInput
from IMTCore.intensity import background_value, foreground_mask
from IMTCore.preparation import PreparedVolume, prepare
from IMTCore.volume import Volume
from IMTSegmentLib.channels import second_images

# Labels leave gaps (ventricles in a map of tissues, sulci) that belong to the brain: those up to twice this wide are closed.
CLOSE_MM = 5.0
# A head of which the labelled region leaves out less than this share was stripped already.
ALREADY_STRIPPED = 0.02


@dataclass
class PreparedSubject:
    """One subject's images in every plane, and its classes.

    Attributes:
        name: `<dataset>/<subject>`.
        given: the given image, as a segmenter gets it.
        second: the second image, or None.
        views: the given image as slices, one a plane.
        seconds: the second image on each view's grid [k, rows, columns] in [-1, 1], or None.
        classes: [k, j, i] uint8 on the images' own grid, 0 the background.
        stripped: whether all but the labelled region was made background.
        paired: whether the same subject is there with its skull and without.
    """

    name: str
    given: Volume
    second: Volume | None
    views: list[PreparedVolume]
    seconds: list[np.ndarray | None]
    classes: np.ndarray
    stripped: bool = False
    paired: bool = False


@dataclass
class Example:
    """One subject's slices to learn from, in one plane.

    Attributes:
        name, stripped, paired: as of the `PreparedSubject`.
        plane: axial, coronal or sagittal.
        images: [n, images, rows, columns] float16 in [-1, 1], the slices with foreground; images as `config.images`.
        classes: [n, rows, columns] uint8, 0 where there is background or padding.
    """

    name: str
    plane: str
    images: np.ndarray
    classes: np.ndarray
    stripped: bool = False
    paired: bool = False


def class_map(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """A label map's codes merged into classes (`NAME=CODE,CODE`), counted from 1; uint8, other codes become 0."""
    merged = np.zeros(labels.shape, np.uint8)
    for number, entry in enumerate(classes, start=1):
        codes = [int(code) for code in entry.partition("=")[2].split(",")]
        merged[np.isin(labels, codes)] = number
    return merged


def find_labelled(config: SegmenterConfig, patterns: Sequence[str], exclude: Sequence[str], purpose: str) -> list[Subject]:
    """The subjects matching `patterns`, not `exclude`, that have the images and the label map.

    A subject that a wildcard found is left out, said aloud, if it lacks them.

    Raises:
        BadInput: a pattern matches nothing, a subject given by its name lacks something, or none is left.
    """
    wanted = [config.given] + ([config.second] if "second" in config.images and config.second_from == "real" else [])
    kept = []
    for subject in select_subjects(Path(config.data), patterns, exclude, config.layout):
        missing = [name for name in wanted if name not in subject.images]
        missing += [] if config.labels in subject.labels else [f"label map {config.labels}"]
        if missing and any(not is_pattern(p) and fnmatchcase(subject.name, p) for p in patterns):
            raise BadInput(f"{subject.name} has no {' and no '.join(missing)}. Add it or leave the subject out.")
        if missing:
            print(f"left out: {subject.name} (no {', '.join(missing)})", flush=True)
        else:
            kept.append(subject)
    if not kept:
        raise BadInput(f"No {purpose} subjects with {', '.join(wanted)} and {config.labels} in {config.data}.")
    return kept


def prepare_subject(subject: Subject, config: SegmenterConfig, second: SecondModality | None = None, strip: bool = False) -> list[PreparedSubject]:
    """Read a subject and prepare it as the training wants it; with `strip` also without its skull, if it has one.

    Raises:
        BadInput: an image or label map is missing, unreadable, without contrast or on another grid; names the subject.
    """
    real = "second" in config.images and config.second_from == "real"
    volumes = read_modalities(subject, [config.given] + ([config.second] if real else []), [config.labels])
    classes = class_map(volumes[config.labels].array, config.classes)
    given, acquired = volumes[config.given], volumes.get(config.second)
    try:
        made = [_prepared(subject.name, given, acquired, classes, config, second)]
        region = labelled_region(classes, given, config.strip_margin_mm) if strip else None
        if region is not None:
            acquired = None if acquired is None else without_skull(acquired, region)
            bare = _prepared(subject.name, without_skull(given, region), acquired, classes, config, second)
            made = [replace(one, paired=True, stripped=one is bare) for one in (*made, bare)]
    except BadInput as error:
        raise BadInput(f"{subject.name}: {error} Mend its images or leave it out (--exclude {subject.name}).") from error
    return made


def _prepared(
    name: str, given: Volume, acquired: Volume | None, classes: np.ndarray, config: SegmenterConfig, second: SecondModality | None
) -> PreparedSubject:
    views = [prepare(given, spec, config.stride, config.percentile) for spec in config.slicings]
    if "second" not in config.images or second is None:
        return PreparedSubject(name, given, None, views, [None] * len(views), classes)
    other = second.volume(name, given, acquired)
    seconds = [second_images(view, other, config.percentile) for view in views]
    return PreparedSubject(name, given, other, views, seconds, classes)


def labelled_region(classes: np.ndarray, given: Volume, margin_mm: float) -> np.ndarray | None:
    """[k, j, i] bool: the labelled voxels with their gaps and `margin_mm` around them; None if no head lies outside it."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt

    if not classes.any():
        return None
    spacing, reach = given.geometry.spacing_mm[::-1], max(CLOSE_MM, margin_mm)
    around = [int(np.ceil(reach / size)) + 2 for size in spacing]
    padded = np.pad(classes > 0, [(n, n) for n in around])
    closed = binary_fill_holes(distance_transform_edt(~padded, sampling=spacing) <= reach)
    # The labels with their gaps lie deeper than `reach` in the closed region; with the margin, so much less deep.
    region = distance_transform_edt(closed, sampling=spacing) > reach - margin_mm
    region = (region | padded)[tuple(slice(n, n + size) for n, size in zip(around, classes.shape, strict=True))]
    head = foreground_mask(given.array, background_value(given.array))
    return region if (head & ~region).sum() > ALREADY_STRIPPED * head.sum() else None


def without_skull(volume: Volume, region: np.ndarray) -> Volume:
    """The volume with its background's value outside `region` [k, j, i]."""
    background = background_value(volume.array)
    air = volume.array.min() if background is None else background
    return volume.with_array(np.where(region, volume.array, np.asarray(air, volume.array.dtype)))


def examples_of(prepared: PreparedSubject, config: SegmenterConfig) -> list[Example]:
    """The slices of each plane; on the network's grid each pixel has the class that fills most of it."""
    examples = []
    for view, second in zip(prepared.views, prepared.seconds, strict=True):
        filled = np.flatnonzero(view.filled)
        images = np.stack([image[filled].astype(np.float16) for image in (view.images, second) if image is not None], axis=1)
        classes = classes_on_grid(view.axes.apply(prepared.classes)[filled], view, len(config.classes))
        examples.append(Example(prepared.name, view.spec.plane, images, classes, prepared.stripped, prepared.paired))
    return examples


def classes_on_grid(classes: np.ndarray, view: PreparedVolume, number: int) -> np.ndarray:
    """Classes of anatomical slices [n, j, i] on the network's grid [n, rows, columns], uint8: of each pixel the largest share."""
    best = np.zeros((len(classes), *view.grid.shape), np.uint8)
    # Twice a share less 1, as all images on the grid; the background's share is what the classes leave.
    shares = [view.grid.to_network((classes == c).astype(np.float32)) for c in range(1, number + 1)]
    most = 1 - sum(share + 1 for share in shares)
    for c, share in enumerate(shares, start=1):
        best[share > most] = c
        most = np.maximum(most, share)
    return best


def load_examples(subjects: Sequence[Subject], config: SegmenterConfig, second: SecondModality | None = None) -> list[Example]:
    """All slices of these subjects to learn from. Errors as `prepare_subject`."""
    strip = config.strip_share > 0
    return [
        example
        for subject in subjects
        for prepared in prepare_subject(subject, config, second, strip)
        for example in examples_of(prepared, config)
    ]
