"""The known-transform experiment: heads that are turned by a known rotation, and registered with themselves.

Yang et al. 2020, Table 5: images and translated images rotated by 30 degrees are the fixed ones, the images themselves the
moving ones. What is to be found is known exactly. Here in three dimensions, and for any angle and axis.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput, Cancelled, ImtError, OutputFailure
from IMTCore.files import sha256_of
from IMTCore.label_scores import dice_scores
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.provenance import input_sha256
from IMTCore.version import VERSION
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume

from ..atlases.atlas_sets import Atlas, AtlasSet
from ..atlases.checks import read_label_map
from ..atlases.landmarks import landmark_distances, read_landmarks
from ..deformations.resampling import warp_image, warp_labels
from ..deformations.transforms import Transform, voxel_centres
from ..engines.interface import EngineMissing, engine_version, preset_settings
from ..registration.cache import RegistrationCache, key_of
from ..registration.inputs import box_around, crop_geometry, head_region
from ..registration.settings import RegistrationSettings
from ..registration.translation import model_for, translate_subject
from .cases import Results, keep_plan, short
from .methods import REAL, TRANSLATED, Method, weight_record
from .rotation_geometry import (
    MANY_POINTS,
    about_centre,
    axis_vector,
    centre_of,
    covering,
    nearest_rotation,
    rotation,
    spread_points,
)
from .run import registered
from .table import PLAN, check_engines


@dataclass(frozen=True)
class RotationExperiment:
    """What to turn and recover.

    Attributes:
        subject_set: subjects with the given modality, the second one if a method has one, labels, and perhaps landmarks.
        base: what all methods share; its engine is replaced by each of `engines`.
        axis: "L", "P" or "S", the image's own "i", "j" or "k", or an LPS vector as three numbers.
        model, translated: as `TableExperiment`; the upright image is translated, and then turned, as in the paper.
        output: folder for results.
    """

    subject_set: AtlasSet
    base: RegistrationSettings
    second: str | None
    engines: Sequence[str]
    methods: Sequence[Method]
    angles: Sequence[float]
    axis: str | tuple[float, float, float]
    output: Path
    model: str | None = None
    translated: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.angles or not all(0 <= angle <= 180 for angle in self.angles):
            raise BadInput(f"The angles must be from 0 to 180 degrees, not {', '.join(map(str, self.angles)) or 'none'}.")


@dataclass(frozen=True)
class Turned:
    """A subject turned by a known transform.

    Attributes:
        transform: fixed (turned) -> moving (as it was): what is to be found.
        geometry: the fixed grid; it holds the whole turned head.
        labels: (K, J, I) on it, exact up to the nearest voxel.
        landmarks, fixed_landmarks: in the moving and the fixed image, name -> (3,) LPS mm.
        images: method's source ("" for the given image) -> file on the fixed grid.
    """

    transform: Transform
    geometry: Geometry
    labels: np.ndarray
    landmarks: Mapping[str, np.ndarray]
    fixed_landmarks: Mapping[str, np.ndarray]
    images: Mapping[str, Path]


@dataclass(frozen=True)
class RotationRecord:
    """One subject, angle, engine and method; `scores` as `score_rotation`, None if the run failed."""

    subject: str
    angle: float
    engine: str
    method: str
    scores: Mapping[str, Any] | None
    error: str = ""


def run_rotations(
    experiment: RotationExperiment, progress: Progress = quiet, cancelled: Callable[[], bool] = never, say: Say = quiet
) -> list[RotationRecord]:
    """Turn every subject by every angle and register it with itself; results that are there are taken as they are.

    Raises:
        BadInput: settings or inputs that no run can work with. EngineMissing, OutputFailure, Cancelled.
    """
    check_engines(experiment.engines)
    keep_plan(experiment.output / PLAN, *_plan(experiment))
    results = Results(experiment.output / "results")
    records: list[RotationRecord] = []
    places = [(atlas, angle) for atlas in experiment.subject_set.atlases for angle in experiment.angles]
    steps = len(places) * len(experiment.engines) * len(experiment.methods)
    for atlas, angle in places:
        turned: Turned | None = None
        with tempfile.TemporaryDirectory(prefix="imt-rotation-", ignore_cleanup_errors=True) as folder:
            for engine in experiment.engines:
                for method in experiment.methods:
                    name = f"{atlas.name}, {angle:g} degrees, {engine}, {method.name}"
                    progress("experiment", len(records) / steps, name)
                    identity = _identity(experiment, atlas, angle, engine, method)
                    key = f"{engine}/{method.slug}/{atlas.name}-{angle:g}"
                    scores, error = results.get(key, identity), ""
                    if scores is None:
                        try:
                            turned = turned or turn(experiment, atlas, angle, Path(folder), say)
                            scores = _run_one(experiment, atlas, engine, method, turned, cancelled)
                            scores = results.put(key, identity, scores)
                        except (Cancelled, OutputFailure, EngineMissing):
                            raise
                        except ImtError as failure:
                            error = short(failure)
                            say(f"{name} failed: {error}")
                    records.append(RotationRecord(atlas.name, angle, engine, method.name, scores, error))
    progress("experiment", 1.0, "done")
    return records


def turn(experiment: RotationExperiment, atlas: Atlas, angle: float, folder: Path, say: Say = quiet) -> Turned:
    """A subject's images, labels and landmarks, turned about the centre of its head by one interpolation.

    The images go into `folder`.

    Raises:
        BadInput: images or labels that cannot be used.
    """
    given = read_volume(atlas.images[experiment.base.modality])
    box = box_around(head_region(given), given.geometry.spacing_mm)
    head = crop_geometry(given.geometry, box)
    transform = about_centre(rotation(axis_vector(experiment.axis, given.geometry), angle), centre_of(head))
    geometry = covering(head, transform)
    _, codes = read_label_map(atlas.labels)
    labels = Volume(codes, given.geometry, f"{atlas.name} labels")
    volumes = {"": given}
    sources = {method.source for method in experiment.methods}
    if REAL in sources:
        volumes[REAL] = read_volume(atlas.images[experiment.second])
    if TRANSLATED in sources:
        volumes[TRANSLATED] = _translated(experiment, atlas, given, say)
    images = {}
    for number, (source, volume) in enumerate(volumes.items()):
        if not volume.geometry.is_close(given.geometry, 1e-2):
            raise BadInput(f"The {source} {experiment.second} image of {atlas.name} is on another grid than its {experiment.base.modality} image.")
        images[source] = folder / f"turned{number}.nii"
        write_volume(images[source], warp_image(volume, transform, geometry))
    points = read_landmarks(atlas.landmarks) if atlas.landmarks else spread_points(codes, given.geometry)
    back = Transform(np.linalg.inv(transform.matrix))
    fixed = dict(zip(points, back.to_moving(np.array(list(points.values()))), strict=True))
    return Turned(transform, geometry, warp_labels(labels, transform, geometry).array, points, fixed, images)


def score_rotation(turned: Turned, found: Transform, labels: Volume, names: Mapping[int, str]) -> dict[str, Any]:
    """How well the known transform was found.

    Args:
        found: fixed -> moving.
        labels: the moving labels.
        names: of the codes to score.

    Returns:
        dice: structure -> Dice of the labels carried by the found transform against those carried by the true one (NaN
        where the subject has none); landmarks_mm: landmark -> distance; labels_mm: the mean error over labelled voxels;
        linear_mm: the mean landmark distance with the linear part alone; turn_deg: how far the linear part's rotation is
        from the true one.
    """
    carried = warp_labels(labels, found, turned.geometry).array
    linear = Transform(found.matrix)
    points = voxel_centres(turned.geometry)[turned.labels > 0]
    points = points[:: max(1, len(points) // MANY_POINTS)]
    errors = np.linalg.norm(found.to_moving(points) - turned.transform.to_moving(points), axis=1)
    between = nearest_rotation(linear.matrix[:3, :3]) @ turned.transform.matrix[:3, :3].T
    return {
        "dice": {names[code]: value for code, value in dice_scores(turned.labels, carried, names).items()},
        "landmarks_mm": landmark_distances(turned.fixed_landmarks, turned.landmarks, found),
        "labels_mm": float(errors.mean()),
        "linear_mm": float(np.mean(list(landmark_distances(turned.fixed_landmarks, turned.landmarks, linear).values()))),
        "turn_deg": float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))),
    }


def _run_one(
    experiment: RotationExperiment,
    atlas: Atlas,
    engine: str,
    method: Method,
    turned: Turned,
    cancelled: Callable[[], bool],
) -> dict[str, Any]:
    image = None if method.source is None else turned.images[method.source]
    settings = method.settings(replace(experiment.base, engine=engine), experiment.second, None, image)
    alone = replace(experiment.subject_set, atlases=(atlas,))
    geometry, codes = read_label_map(atlas.labels)
    with registered(turned.images[""], alone, settings, cancelled=cancelled) as run:
        (pair,) = run.registered.values()
        names = {code: run.names.name_of(code) for code in run.codes if (codes == code).any()}
        scores = score_rotation(turned, pair.transforms[run.plan.main], Volume(codes, geometry, "labels"), names)
        return {**scores, "folds": pair.record["folds"], "seconds": pair.seconds, "generated": atlas.landmarks is None}


def _translated(experiment: RotationExperiment, atlas: Atlas, given: Volume, say: Say) -> Volume:
    if atlas.name in experiment.translated:
        return read_volume(experiment.translated[atlas.name])
    settings = replace(experiment.base, translate_to=experiment.second, fusion="mean", model=experiment.model)
    result, _ = translate_subject(given, model_for(settings), settings, RegistrationCache(settings.cache), say=say)
    return result.translation


def _plan(experiment: RotationExperiment) -> tuple[dict[str, Any], dict[str, Any]]:
    base = experiment.base.record()
    base.pop("engine")
    fixed = {
        "experiment": "known-transform",
        "settings": base,
        "second": experiment.second,
        "axis": experiment.axis,
        "translation": "files" if experiment.translated else experiment.model,
    }
    subjects = {atlas.name: sha256_of(atlas.labels) for atlas in experiment.subject_set.atlases}
    changing = {"version": VERSION, "engines": list(experiment.engines), "methods": weight_record(experiment.methods)}
    return fixed, {**changing, "angles": list(experiment.angles), "subjects": subjects}


def _identity(experiment: RotationExperiment, atlas: Atlas, angle: float, engine: str, method: Method) -> str:
    """Of all that goes into one result."""
    settings = replace(experiment.base, engine=engine).record()
    files = [atlas.images[experiment.base.modality], atlas.labels, atlas.landmarks]
    model = None
    if method.source is not None:
        files.append(atlas.images[experiment.second])
    if method.source == TRANSLATED:
        if atlas.name in experiment.translated:
            files.append(experiment.translated[atlas.name])
        else:
            model = model_for(replace(experiment.base, translate_to=experiment.second, fusion="mean", model=experiment.model)).sha256
    return key_of(
        "known-transform",
        settings=settings,
        method=[method.fusion, weight_record([method])[method.name], method.source],
        angle=angle,
        axis=experiment.axis,
        second=experiment.second if method.source else None,
        files=[None if file is None else input_sha256(file) for file in files],
        model=model,
        presets=preset_settings(engine, experiment.base.preset),
        version=engine_version(engine),
    )
