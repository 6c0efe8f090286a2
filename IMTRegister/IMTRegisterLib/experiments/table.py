"""The table experiment: methods and engines on the same subjects, scored against the subjects' own labels.

In the form of Yang et al. 2020, Table 4: the given modality alone, the translated one alone, both fused, and the real
pair as the upper bound. Every result is kept as it is made; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from IMTCore.errors import Cancelled, ImtError, OutputFailure
from IMTCore.files import sha256_of
from IMTCore.progress import Progress, Say, never, quiet
from IMTCore.provenance import input_sha256
from IMTCore.version import VERSION

from ..atlases.atlas_sets import AtlasSet
from ..engines.interface import EngineMissing, engine_problem
from ..registration.cache import key_of
from ..registration.outputs import RegistrationOutputs
from ..registration.pairs import EngineIdentity
from ..registration.results import write_results
from ..registration.settings import RegistrationSettings
from ..registration.subject import atlas_set_sha256, run_identity
from ..registration.translation import model_for
from .cases import Results, Subject, keep_plan, short, without
from .methods import TRANSLATED, Method, weight_record
from .run import registered
from .scores import Truth, score_registration

PLAN = "plan.json"


@dataclass(frozen=True)
class TableExperiment:
    """What to compare.

    Attributes:
        atlas_set, subjects: as `read_sets` gives them.
        base: what all methods share: the given modality, preset, label fusion and so on, fusion "none". Its engine is
            replaced by each of `engines`.
        second: the second modality; None if no method has one.
        model: that translates; None for the one that IMT takes for the pair.
        translated: subject -> translated image, instead of a model.
        surfaces: whether surface distances are scored.
        keep_labels: whether each run's labels are written, to labels/ENGINE/METHOD/SUBJECT.nii.gz.
        output: folder for results and labels.
    """

    atlas_set: AtlasSet
    subjects: Sequence[Subject]
    base: RegistrationSettings
    second: str | None
    engines: Sequence[str]
    methods: Sequence[Method]
    output: Path
    model: str | None = None
    translated: Mapping[str, Path] = field(default_factory=dict)
    surfaces: bool = False
    keep_labels: bool = False

    def settings(self, subject: Subject, engine: str, method: Method) -> RegistrationSettings | None:
        """Of one run; None if the subject has no such image."""
        image = self.translated.get(subject.name) if method.source == TRANSLATED else subject.real
        if method.source == "real" and image is None:
            return None
        return method.settings(replace(self.base, engine=engine), self.second, self.model, image)

    def plan(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What must stay the same in an output folder, and what may change from call to call."""
        base = self.base.record()
        base.pop("engine")
        fixed = {
            "experiment": "register-table",
            "settings": base,
            "atlases": {atlas.name: sha256_of(atlas.labels) for atlas in self.atlas_set.atlases},
            "translation": "files" if self.translated else self.model,
        }
        changing = {
            "version": VERSION,
            "second": self.second,
            "engines": list(self.engines),
            "methods": weight_record(self.methods),
            "subjects": {subject.name: list(subject.left_out) for subject in self.subjects},
            "surfaces": self.surfaces,
        }
        return fixed, changing


@dataclass(frozen=True)
class Record:
    """One subject with one engine and method. `scores` as `score_registration`; None if the run failed, with its `error`."""

    subject: str
    engine: str
    method: str
    scores: Mapping[str, Any] | None
    error: str = ""

    def values(self, measure: str) -> dict[str, float | None]:
        """Of one measure, by structure or landmark; empty if there is none."""
        return dict((self.scores or {}).get(measure) or {})


def run_table(
    experiment: TableExperiment, progress: Progress = quiet, cancelled: Callable[[], bool] = never, say: Say = quiet
) -> list[Record]:
    """Do all runs that are not done, and give all results.

    A run that fails gives a record with its error, and the others go on; it is tried again at the next call.

    Raises:
        BadInput: settings or inputs that no run can work with. EngineMissing, OutputFailure, Cancelled.
    """
    check_engines(experiment.engines)
    jobs = [(s, e, m) for s in experiment.subjects for e in experiment.engines for m in experiment.methods]
    for job in jobs:  # all that can be refused is refused before the first hour is spent
        if (settings := experiment.settings(*job)) is not None:
            model_for(settings)
    keep_plan(experiment.output / PLAN, *experiment.plan())
    results, hashes = Results(experiment.output / "results"), _Hashes()
    records = []
    for number, (subject, engine, method) in enumerate(jobs):
        settings = experiment.settings(subject, engine, method)
        if settings is None:
            continue
        name = f"{subject.name}, {engine}, {method.name}"

        def tell(stage: str, fraction: float, message: str, number: int = number, name: str = name) -> None:
            done = fraction if stage == "register" else 0.0 if stage in ("read", "translate") else 1.0
            progress("experiment", (number + min(done, 1.0)) / len(jobs), f"{name}: {message}")

        tell("read", 0.0, "")
        try:
            scores = _run_one(experiment, subject, method, settings, results, hashes, tell, cancelled)
            if scores["failed"]:
                say(f"{name}: without {', '.join(f'{atlas} ({error})' for atlas, error in scores['failed'].items())}")
            records.append(Record(subject.name, engine, method.name, scores))
        except (Cancelled, OutputFailure, EngineMissing):
            raise
        except ImtError as error:
            say(f"{name} failed: {short(error)}")
            records.append(Record(subject.name, engine, method.name, None, short(error)))
    progress("experiment", 1.0, "done")
    return records


def check_engines(engines: Sequence[str]) -> None:
    """Refuse engines that are not installed before any work is done.

    Raises:
        EngineMissing: with how to install it.
    """
    for engine in engines:
        if problem := engine_problem(engine):
            raise EngineMissing(problem)


def _run_one(
    experiment: TableExperiment,
    subject: Subject,
    method: Method,
    settings: RegistrationSettings,
    results: Results,
    hashes: _Hashes,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> dict[str, Any]:
    atlas_set = without(experiment.atlas_set, subject.left_out)
    image = subject.atlas.images[settings.modality]
    identity = key_of(
        "register-table",
        run=run_identity(hashes.file(image), hashes.atlases(atlas_set, settings), settings, model_for(settings)),
        truth=[hashes.file(path) for path in (subject.atlas.labels, subject.atlas.landmarks) if path],
        landmarks=[hashes.file(atlas.landmarks) if atlas.landmarks else None for atlas in atlas_set.atlases],
        surfaces=experiment.surfaces,
        labels=experiment.keep_labels,
        engine=EngineIdentity.of(settings).version,
        presets=EngineIdentity.of(settings).settings,
    )
    key = f"{settings.engine}/{method.slug}/{subject.name}"
    found = results.get(key, identity)
    if found is not None:
        return found
    start = time.perf_counter()
    with registered(image, atlas_set, settings, progress=progress, cancelled=cancelled) as run:
        scores = score_registration(run, Truth.of(subject.atlas), experiment.surfaces)
        if experiment.keep_labels:
            labels = experiment.output / "labels" / settings.engine / method.slug / f"{subject.name}.nii.gz"
            write_results(run, RegistrationOutputs(labels), start)
    if scores["failed"]:  # not kept: the next call tries it again
        return scores
    return results.put(key, identity, scores)


class _Hashes:
    """Hashes of files and sets, each computed once."""

    def __init__(self) -> None:
        self._files: dict[Path, str] = {}
        self._sets: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}

    def file(self, path: Path) -> str:
        if path not in self._files:
            self._files[path] = input_sha256(path)
        return self._files[path]

    def atlases(self, atlas_set: AtlasSet, settings: RegistrationSettings) -> str:
        key = (tuple(atlas.name for atlas in atlas_set.atlases), settings.modalities)
        if key not in self._sets:
            self._sets[key] = atlas_set_sha256(atlas_set, settings)
        return self._sets[key]
