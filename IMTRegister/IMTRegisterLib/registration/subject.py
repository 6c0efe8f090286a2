"""Register one subject with the atlases of a set and carry their labels over (Yang et al. 2020, Multi-atlas registration).

The subject is translated once; each atlas is registered modality by modality, from one common linear part; the two
deformations are fused; the atlases' labels are carried over by the fused ones and made one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from IMTCore.cards import ModelCard
from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.files import remove_leftovers, sha256_of, temporary_prefix
from IMTCore.plausibility import check_many_values, doubt_of_modality
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.provenance import input_sha256
from IMTCore.volume_io import read_volume

from ..atlases.atlas_sets import AtlasSet
from ..deformations.resampling import warp_image
from ..engines.interface import EngineMissing, engine_problem
from ..engines.joint_labels import joint_labels
from .cache import RegistrationCache, key_of
from .inputs import paste, read_mask, write_head
from .jobs import available_cores, plan_jobs, run_pairs
from .labels import RegisteredLabels, combine_labels, hard_labels, read_labels
from .outputs import RegistrationOutputs
from .pairs import EngineIdentity, Pair, stage_names
from .results import write_results
from .run import Registration
from .settings import RegistrationSettings, StructureWeights
from .translation import model_for, real_second_image, translate_subject
from .weights import plan_weights


def register_subject(
    path: Path,
    atlas_set: AtlasSet,
    settings: RegistrationSettings,
    outputs: RegistrationOutputs,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
    say: Say = quiet,
) -> Registration:
    """Register the subject at `path` with all atlases of a set, and write what `outputs` names.

    Args:
        atlas_set: as `read_atlas_set(path, settings.modalities)` gives it.
        progress: told (stage, fraction, message); the stages are read, translate, register, labels, write.
        cancelled: asked every fraction of a second.
        say: told of what changes on the way.

    Returns:
        What was found; the transforms are in the files that were written. Atlases that failed are in `failed`, and the others make the result.

    Raises:
        BadInput: an input or setting that cannot be used. EngineMissing: with how to install the engine. OutputFailure.
        Cancelled. ImtError: every atlas failed. Then no output is written.
    """
    start = time.perf_counter()
    outputs.check(input_files(path, atlas_set, settings), [a.name for a in atlas_set.atlases], settings.modalities)
    run = begin(Path(path), atlas_set, settings, progress)
    if outputs.translated is not None and run.card is None:
        raise BadInput("Nothing is translated here, so there is no translated image to write. Leave --output-translated out.")
    cache = RegistrationCache(settings.cache)
    remove_leftovers(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=temporary_prefix("imt-register"), ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        prepare_subject(run, work / "subject", cache, progress, cancelled, say)
        _check_cancelled(cancelled)
        register_atlases(run, work, cache, progress, cancelled)
        for name, error in run.failed.items():
            run.warnings.append(f"Atlas {name} failed and is left out: {error}")
        if not run.registered:
            reasons = "; ".join(f"{name}: {error}" for name, error in run.failed.items())
            raise ImtError(f"No atlas could be registered with {run.subject.name}. {reasons}")
        _check_cancelled(cancelled)
        with run.timed("labels"):
            make_labels(run, work, progress, cancelled)
        run.cache_hits = cache.hits
        progress("write", 0.0, outputs.labels.name)
        write_results(run, outputs, start)
        progress("write", 1.0, outputs.labels.name)
        for result in run.registered.values():
            result.transforms = {}  # their fields lie in the folder that goes now
    cache.trim()
    return run


def input_files(path: Path, atlas_set: AtlasSet, settings: RegistrationSettings) -> list[Path]:
    """All files that a run reads: its outputs must not be among them."""
    files = [Path(path), *(file for atlas in atlas_set.atlases for file in (*atlas.images.values(), atlas.labels, atlas.landmarks) if file)]
    files += [atlas_set.path / "labels.csv"] if atlas_set.path.is_dir() else [atlas_set.path, atlas_set.path.with_name("labels.csv")]
    files += [settings.second_image] if settings.second_image else []
    files += [Path(settings.weight.source)] if isinstance(settings.weight, StructureWeights) else []
    return files + ([Path(settings.mask)] if not isinstance(settings.mask, str) else [])


def atlas_set_sha256(atlas_set: AtlasSet, settings: RegistrationSettings) -> str:
    """SHA-256 of all of an atlas set that the settings use: images, labels, names."""
    content = []
    for atlas in atlas_set.atlases:
        files = [*(atlas.images[modality] for modality in settings.modalities), atlas.labels]
        try:
            content.append([atlas.name, *map(sha256_of, files)])
        except OSError as error:
            raise BadInput(f"Atlas {atlas.name} cannot be read: {error.filename} ({error.strerror}). Check the atlas set.") from error
    names = [[code, entry.name, *entry.colour] for code, entry in atlas_set.names.items()]
    return key_of("atlas set", atlases=sorted(content), names=names)


def run_identity(
    subject_sha256: str, atlas_set_hash: str, settings: RegistrationSettings, card: ModelCard | None
) -> str:
    """SHA-256 of all that decides a run's result: a finished case is known by it."""
    files = {"second": settings.second_image, "mask": None if isinstance(settings.mask, str) else settings.mask}
    return key_of(
        "run",
        subject=subject_sha256,
        atlases=atlas_set_hash,
        settings=settings.record(),
        model=None if card is None else card.sha256,
        files={name: input_sha256(Path(file)) for name, file in files.items() if file is not None},
    )


def begin(path: Path, atlas_set: AtlasSet, settings: RegistrationSettings, progress: Progress) -> Registration:
    """Check what can be checked without work, and read the subject."""
    for engine in {settings.engine, *(["ants"] if settings.labels == "joint" else [])}:
        if problem := engine_problem(engine):
            raise EngineMissing(problem)
    card = model_for(settings)
    codes = atlas_set.names.select(settings.structures) if settings.structures else list(atlas_set.codes)
    if not codes:
        raise BadInput(f"The atlas set {atlas_set.path} has no labels to carry over.")
    plan = plan_weights(settings, atlas_set.names, codes)
    for what, file in (("second image", settings.second_image), ("mask", settings.mask if isinstance(settings.mask, Path) else None)):
        if file is not None and not Path(file).exists():
            raise BadInput(f"The {what} {file} does not exist. Check the path.")
    progress("read", 0.0, path.name)
    start = time.perf_counter()
    subject, digest = read_volume(path), input_sha256(path)
    check_many_values(subject)
    identity = run_identity(digest, atlas_set_sha256(atlas_set, settings), settings, card)
    run = Registration(path, atlas_set, settings, plan, codes, card, subject, digest, identity)
    run.warnings += atlas_set.warnings
    doubt = doubt_of_modality(subject, settings.modality)
    run.warnings += [doubt] if doubt else []
    run.seconds["read"] = round(time.perf_counter() - start, 3)
    return run


def prepare_subject(
    run: Registration, folder: Path, cache: RegistrationCache, progress: Progress, cancelled: Callable[[], bool], say: Say
) -> None:
    """The second modality, and the files for the engines."""
    settings = run.settings
    images = {settings.modality: run.subject}
    if run.card is not None:
        with run.timed("translate"):
            run.translation, _ = translate_subject(run.subject, run.card, settings, cache, progress, cancelled, say)
        images[settings.translate_to] = run.translation.translation
        run.warnings += run.translation.warnings
    elif settings.second_image is not None:
        volume, warnings = real_second_image(Path(settings.second_image), run.subject)
        images[settings.translate_to] = volume
        run.warnings += warnings
    mask: str | np.ndarray = settings.mask if isinstance(settings.mask, str) else read_mask(settings.mask, run.subject.geometry)
    with run.timed("prepare"):
        crop = settings.dimension == 3  # in 2D the slices keep their numbers
        run.head = write_head(run.subject.name, images, folder, mask, crop)


def register_atlases(run: Registration, work: Path, cache: RegistrationCache, progress: Progress, cancelled: Callable[[], bool]) -> None:
    settings, head = run.settings, run.head
    engine = EngineIdentity.of(settings)
    pairs = {
        atlas.name: Pair(head, atlas, settings, run.plan, engine, cache, work / f"atlas{number}")
        for number, atlas in enumerate(run.atlas_set.atlases)
    }
    channels = 2 if run.plan.is_joint else 1
    plan = plan_jobs(settings, len(pairs), int(np.prod(head.geometry.shape)), channels)
    run.jobs, run.threads = plan.jobs, plan.threads
    run.engine_version = engine.version
    with run.timed("register"):
        run.pairs = run_pairs(pairs, settings, plan, len(stage_names(settings, run.plan)), progress, cancelled)


def make_labels(run: Registration, work: Path, progress: Progress, cancelled: Callable[[], bool]) -> None:
    settings, head = run.settings, run.head
    atlases = {atlas.name: atlas for atlas in run.atlas_set.atlases}
    registered = [RegisteredLabels(read_labels(atlases[name]), result.transforms) for name, result in run.registered.items()]
    if settings.labels == "joint":
        labels, agreement = _joint_labels(run, registered, work / "joint", progress, cancelled)
    else:
        labels, agreement = combine_labels(registered, run.plan, run.codes, settings.labels, head.geometry, progress, cancelled)
    shape = run.subject.array.shape
    run.labels = run.subject.with_array(paste(labels, head.box, shape), f"{run.subject.name} labels")
    run.agreement = run.subject.with_array(paste(agreement, head.box, shape, 1.0), f"{run.subject.name} agreement")


def _joint_labels(
    run: Registration, registered: list[RegisteredLabels], folder: Path, progress: Progress, cancelled: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray]:
    settings, head = run.settings, run.head
    atlases = {atlas.name: atlas for atlas in run.atlas_set.atlases}
    images, labels = [], []
    for (name, result), one in zip(run.registered.items(), registered, strict=True):
        transform = result.transforms[run.plan.main]
        images.append({m: warp_image(read_volume(atlases[name].images[m]), transform, head.geometry) for m in settings.modalities})
        labels.append(hard_labels(one, run.plan, run.codes, head.geometry))
    return joint_labels(head, images, labels, run.codes, folder, settings.preset, available_cores(), progress, cancelled)


def _check_cancelled(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("Cancelled: nothing was written.")
