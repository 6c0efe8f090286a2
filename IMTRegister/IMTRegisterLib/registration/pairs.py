"""One atlas registered with the subject: the linear part once for all modalities, then each deformation, then their fusion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput

from ..atlases.atlas_sets import Atlas
from ..deformations.fields import folds, jacobian
from ..deformations.fusion import Fusion
from ..deformations.resampling import warp_image
from ..deformations.similarity import global_shares, local_shares, local_similarity
from ..deformations.transforms import Transform
from ..engines.interface import Channel, EngineSession, Task, engine_version, preset_settings, read_presets
from .cache import RegistrationCache, key_of, transform_sha256
from .inputs import Head, MovingHead, read_moving
from .settings import AUTO, RegistrationSettings
from .weights import LOCAL, Share, WeightPlan

SIMILARITY_MM = 4.0  # standard deviation of the window in which images are compared
# Of label-free shares. Similarities of two good registrations differ by a few percent, those of a good and a bad one by tens.
SHARPNESS = 8.0
LEAST_SHARE = 0.25  # a registration that earns less is wrong in places: even a little of it moves small structures

Tell = Callable[[str], None]  # told the name of a stage that begins
Session = Callable[[], EngineSession]  # gives the engine


@dataclass
class PairResult:
    """What the registration with one atlas gave.

    Attributes:
        transforms: for each share of the plan, fixed (subject) -> moving (atlas).
        seconds: computing time by stage; of a stage from the cache, what it took then.
        cached: the stages that came from the cache.
        record: shares, similarity by modality, folds and range of the Jacobian, for the report.
    """

    transforms: dict[Share, Transform]
    seconds: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)


def stage_names(settings: RegistrationSettings, plan: WeightPlan) -> list[str]:
    """The stages of one atlas, in their order."""
    given, second = settings.modality, settings.translate_to
    names = ["prepare", "linear"]
    if plan.is_joint:
        names.append(f"{given} + {second}")
    names += [given] if plan.needs_given else []
    names += [second] if plan.needs_second else []
    return [*names, "fuse"]


@dataclass(frozen=True)
class EngineIdentity:
    """What decides an engine's results. Found once for all atlases.

    Attributes:
        version: of its package.
        settings: of each stage; "continued" is a deformable stage that begins with the other modality's deformation, for
            presets that have one. Others begin both modalities from the linear part: with the same settings the warm
            start saved no time, and on phantoms its Dice was lower by 0.005.
    """

    version: str
    settings: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, settings: RegistrationSettings) -> EngineIdentity:
        """That of the settings' engine and preset."""
        stages = dict(preset_settings(settings.engine, settings.preset, settings.parameters))
        if changes := continued_changes(settings):
            stages["continued"] = preset_settings(settings.engine, settings.preset, changes)["deformable"]
        return cls(engine_version(settings.engine) or "", stages)


def continued_changes(settings: RegistrationSettings) -> dict[str, dict[str, Any]] | None:
    """The session settings for a warm-started deformation: None if the preset has no "continued", or the fusion is "log".

    A deformation that begins with another is a composition of the two, which is often no flow of a velocity field.
    """
    continued = read_presets()[settings.engine][settings.preset].get("continued")
    if not continued or settings.fusion == "log":
        return None
    given = {stage: dict(values) for stage, values in (settings.parameters or {}).items()}
    return given | {"deformable": {**given.get("deformable", {}), **continued}}


class Pair:
    """The registration of the subject with one atlas.

    Args:
        subject: its images, of all the settings' modalities.
        atlas: the atlas.
        settings, plan, engine: what to do, and with what.
        cache: registrations of earlier runs.
        folder: for this atlas's files; the transforms stay there as long as they are used.
    """

    def __init__(
        self,
        subject: Head,
        atlas: Atlas,
        settings: RegistrationSettings,
        plan: WeightPlan,
        engine: EngineIdentity,
        cache: RegistrationCache,
        folder: Path,
    ) -> None:
        self.subject, self.atlas, self.settings, self.plan = subject, atlas, settings, plan
        self.engine, self.cache, self.folder = engine, cache, folder
        self.result = PairResult({})

    def run(self, session: Session, tell: Tell) -> PairResult:
        """Do all stages.

        Args:
            session: gives the engine; called only if something is not in the cache.
            tell: told each stage's name as it begins.

        Raises:
            EngineFailed, EngineMissing, Cancelled: of the engine. BadInput: an image that cannot be registered.
        """
        settings, plan = self.settings, self.plan
        tell("prepare")
        start = time.perf_counter()
        self.moving = self._read_atlas()
        self.result.seconds["prepare"] = round(time.perf_counter() - start, 3)
        given, second = settings.modality, settings.translate_to
        linear = self._stage("linear", self._task("linear", [(given, 1.0)], Transform()), session, tell)
        found: dict[str, Transform] = {}
        if plan.is_joint:
            share = self._share_of(linear) if plan.main == AUTO else float(plan.main)
            channels = [(given, share), (second, 1 - share)]
            both = self._stage(f"{given} + {second}", self._task("deformable", channels, linear), session, tell)
            self.result.record["share"] = round(share, 4)
            return self._finish({plan.main: both}, tell)
        if plan.needs_given:
            found[given] = self._stage(given, self._task("deformable", [(given, 1.0)], linear), session, tell)
        if plan.needs_second:
            kind = "continued" if given in found and "continued" in self.engine.settings else "deformable"
            task = self._task("deformable", [(second, 1.0)], found[given] if kind == "continued" else linear)
            found[second] = self._stage(second, task, session, tell, kind)
        return self._finish(None, tell, found)

    def _read_atlas(self) -> MovingHead:
        settings, subject = self.settings, self.subject
        moving = read_moving(self.atlas.name, self.atlas.images, settings.modalities)
        if settings.dimension == 2 and moving.geometry.shape != subject.full.shape:
            raise BadInput(
                f"Atlas {self.atlas.name} has {_size(moving.geometry.shape)} voxels, the subject {_size(subject.full.shape)}: "
                "slice pairs (dimension 2) need the same numbers of slices, rows and columns. Resample one, or use dimension 3."
            )
        return moving

    def _task(self, stage: str, channels: Sequence[tuple[str, float]], initial: Transform) -> Task:
        subject, moving = self.subject, self.moving
        files = tuple(Channel(subject.files[m], moving.files[m], weight) for m, weight in channels)
        return Task(stage, files, initial, subject.mask, None, self.settings.dimension, self.settings.seed)

    def _stage(self, name: str, task: Task, session: Session, tell: Tell, kind: str = "") -> Transform:
        tell(name)
        kind = kind or task.stage
        key = self._key(task, kind)
        found = self.cache.transform(key)
        if found is not None:
            transform, record = found
            self.result.cached.append(name)
            self.result.seconds[name] = record["seconds"]
            return transform
        start = time.perf_counter()
        transform = session().run(task, self.engine.settings[kind])
        if transform.geometry is not None and transform.geometry.is_close(self.subject.geometry, 1e-2):
            transform = transform.with_displacement(transform.displacement, self.subject.geometry)  # not as a file rounds it
        seconds = round(time.perf_counter() - start, 3)
        self.result.seconds[name] = seconds
        settings = self.settings
        self.cache.put_transform(key, transform, {"engine": settings.engine, "preset": settings.preset, "seconds": seconds})
        return transform

    def _key(self, task: Task, kind: str) -> str:
        hashes = {head.files[m]: head.hashes[m] for head in (self.subject, self.moving) for m in head.files}
        return key_of(
            "registration",
            engine=self.engine.version,
            settings=self.engine.settings[kind],
            stage=task.stage,
            channels=[[hashes[c.fixed], hashes[c.moving], c.weight] for c in task.channels],
            mask=self.subject.mask_hash,
            initial=transform_sha256(task.initial),
            dimension=task.dimension,
            seed=task.seed,
        )

    def _finish(self, ready: dict[Share, Transform] | None, tell: Tell, found: dict[str, Transform] | None = None) -> PairResult:
        """Fuse, measure, and put the transforms into files that memory maps to."""
        tell("fuse")
        start = time.perf_counter()
        fused = ready if ready is not None else self._fuse(found or {})
        main = fused[self.plan.main]
        record = self.result.record
        record["similarity"] = {m: round(self._similarity(m, main)[1], 4) for m in self.settings.modalities}
        determinants = jacobian(main, self.subject.geometry)[self.subject.inside]
        record["folds"] = folds(main, self.subject.inside)
        record["jacobian"] = [round(float(determinants.min()), 4), round(float(determinants.max()), 4)]
        self.result.transforms = {share: self._spill(n, transform) for n, (share, transform) in enumerate(fused.items())}
        self.result.seconds["fuse"] = round(time.perf_counter() - start, 3)
        return self.result

    def _fuse(self, found: dict[str, Transform]) -> dict[Share, Transform]:
        if len(found) == 1:
            (only,) = found.values()
            return dict.fromkeys(self.plan.shares, only)
        given, second = found[self.settings.modality], found[self.settings.translate_to]
        fusion = Fusion([given, second], "log" if self.settings.fusion == "log" else "mean")
        fused: dict[Share, Transform] = {}
        for share in self.plan.shares:
            if share in (AUTO, LOCAL):
                fused[share] = fusion.at(self._label_free(share, found))
            else:
                fused[share] = fusion.at([share, 1 - share])
        return fused

    def _label_free(self, share: str, found: dict[str, Transform]) -> list[Any]:
        """The shares that each modality's own registration earns by how well it aligns the images of the given modality.

        By its own images a wrong translation may fit perfectly, and a modality of little contrast well.
        """
        maps = [self._similarity(self.settings.modality, transform)[0] for transform in found.values()]
        if share == LOCAL:
            shares = local_shares(maps, self.subject.geometry, sharpness=SHARPNESS, mask=self.subject.inside)
            self.result.record["share"] = round(float(shares[0][self.subject.inside].mean()), 4)
            return shares
        weights = global_shares(maps, SHARPNESS, mask=self.subject.inside)
        if min(weights) < LEAST_SHARE:
            weights = [float(weight == max(weights)) for weight in weights]
        self.result.record["share"] = round(weights[0], 4)
        return weights

    def _share_of(self, linear: Transform) -> float:
        """The given modality's label-free share before any deformation: for the channels' weights."""
        maps = [self._similarity(m, linear)[0] for m in self.settings.modalities]
        return global_shares(maps, mask=self.subject.inside)[0]

    def _similarity(self, modality: str, transform: Transform) -> tuple[np.ndarray, float]:
        """How the atlas's image agrees with the subject's: at each voxel, and its mean in the head."""
        fixed = self.subject.image(modality)
        warped = warp_image(self.moving.image(modality), transform, self.subject.geometry)
        sigma = SIMILARITY_MM / self.subject.geometry.spacing_mm[::-1]
        map_ = local_similarity(fixed.array, warped.array, sigma, self.subject.inside)
        return map_, float(map_[self.subject.inside].mean())

    def _spill(self, number: int, transform: Transform) -> Transform:
        """The same transform with its field in a file: many atlases' fields together may not fit into memory."""
        if transform.displacement is None:
            return transform
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"field{number}.npy"
        np.save(path, transform.displacement)
        return transform.with_displacement(np.load(path, mmap_mode="r"))


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape[::-1]))
