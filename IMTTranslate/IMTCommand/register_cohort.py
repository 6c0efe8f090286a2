"""Many subjects: one after the other, or side by side through Dask; finished ones are skipped."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.cases import Case, read_cases
from IMTCore.derived_outputs import check_replaceable
from IMTCore.progress import Progress, Say, quiet
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.volume_io import check_output_path

from .cohort import FINISHED, CaseResult, Cohort, check_folder, check_input_free, check_plain_names
from .register_settings import settings_of

if TYPE_CHECKING:
    from IMTRegisterLib.atlases.atlas_sets import AtlasSet
    from IMTRegisterLib.registration.outputs import RegistrationOutputs
    from IMTRegisterLib.registration.settings import RegistrationSettings

CELLS = {"atlases": 0, "failed_atlases": "", "folds": ""}
LABELS = "labels.nii.gz"


@dataclass(frozen=True)
class CaseJob:
    """One subject to register; may be sent to another process or machine."""

    case: Case
    atlas_set: AtlasSet
    atlas_set_hash: str
    settings: RegistrationSettings
    outputs: RegistrationOutputs

    @property
    def output(self) -> Path:
        """The label volume."""
        return self.outputs.labels


def register_cases(values: argparse.Namespace, progress: Progress, say: Say) -> str:
    """Register every case into `OUT/<case>/`; write `OUT/summary.csv` as it goes. Returns what to tell at the end.

    A case is finished if its outputs are there with a mark of the same inputs, atlases, model and settings; it is
    skipped. A case that fails does not stop the others.

    Raises:
        BadInput: arguments or atlases that no case can work with. SomeCasesFailed. Cancelled.
    """
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.registration.subject import atlas_set_sha256
    from IMTRegisterLib.registration.translation import model_for

    check_folder(values.output_labels, "--output-labels")
    check_input_free(values.input, values.output_labels)
    cohort = Cohort(
        values.output_labels, register_case, "registered", {"register": (0.0, 1.0)}, CELLS, values.workers, values.scheduler
    )
    cohort.check()
    settings = settings_of(values, second_image=None, mask="auto", model=None if values.second_image else values.model)
    check_names(values)
    model_for(settings_of(values, mask="auto"))  # no case could be translated without one
    cases = read_cases(values.input.absolute(), values.modality)  # other processes may have another current folder
    atlas_set = read_atlas_set(values.atlases.absolute(), settings.modalities)
    for warning in atlas_set.warnings:
        say("Warning: " + warning)
    digest = atlas_set_sha256(atlas_set, settings)
    jobs = [CaseJob(case, atlas_set, digest, case_settings(values, case), case_outputs(values, case)) for case in cases]
    return cohort.run(jobs, progress, say)


def check_names(values: argparse.Namespace) -> None:
    """For cases all paths but the first are names in each case's folder.

    Raises:
        BadInput: a path with folders, or an unknown format.
    """
    names = {
        "--output-agreement": values.output_agreement,
        "--output-transforms": values.output_transforms,
        "--output-warped": values.output_warped,
        "--output-translated": values.output_translated,
        "--report": values.report,
        "--second-image": values.second_image,
        "--mask": None if values.mask in ("auto", "none") else Path(values.mask),
    }
    check_plain_names(names, ("--second-image", "--mask"))
    for name in (values.output_agreement, values.output_translated):
        if name is not None:
            check_output_path(name)


def case_settings(values: argparse.Namespace, case: Case) -> RegistrationSettings:
    """The settings of one case: its own second image and mask, and its share of the machine."""
    changes: dict[str, Any] = {}
    if values.second_image is not None:
        changes["second_image"] = (case.path.parent / values.second_image).absolute()
    if values.model is not None and Path(values.model).exists():
        changes["model"] = str(Path(values.model).absolute())
    if values.mask not in ("auto", "none"):
        changes["mask"] = (case.path.parent / values.mask).absolute()
    settings = settings_of(values, **changes)
    if settings.cache is not None:
        settings = replace(settings, cache=settings.cache.absolute())
    if values.workers is None:
        return settings
    from IMTRegisterLib.registration.jobs import available_cores, free_gigabytes

    cores = max(1, available_cores() // values.workers)
    memory = settings.memory_gb if settings.memory_gb is not None else free_gigabytes() / 2
    return replace(
        settings, jobs=settings.jobs or cores, threads=settings.threads or 1, memory_gb=round(memory / values.workers, 3)
    )


def case_outputs(values: argparse.Namespace, case: Case) -> RegistrationOutputs:
    """Where one case's results go."""
    from IMTRegisterLib.registration.outputs import RegistrationOutputs

    folder = (values.output_labels / case.case).absolute()

    def place(name: Path | None) -> Path | None:
        return None if name is None else folder / name

    return RegistrationOutputs(
        folder / LABELS,
        place(values.output_agreement),
        place(values.output_transforms),
        place(values.output_warped),
        place(values.output_translated),
        place(values.report),
    )


def register_case(job: CaseJob, progress: Progress = quiet) -> CaseResult:
    """Register one case, unless it is finished.

    Raises:
        ImtError: as `register_subject`.
    """
    from IMTRegisterLib.registration.outputs import MADE_BY
    from IMTRegisterLib.registration.subject import register_subject

    if is_finished(job):
        return FINISHED
    check_replaceable((job.outputs.labels, job.outputs.agreement, job.outputs.translated), MADE_BY)
    run = register_subject(job.case.path, job.atlas_set, job.settings, job.outputs, progress)
    warnings = [warning for warning in run.warnings if warning not in job.atlas_set.warnings]
    folds = sum(result.record["folds"] for result in run.registered.values())
    cells = {"atlases": len(run.registered), "failed_atlases": " ".join(run.failed), "folds": folds}
    return CaseResult(message=" ".join(warnings), cells=cells)


def is_finished(job: CaseJob) -> bool:
    """Whether the outputs are there, whole, and marked with the same inputs, atlases, model and settings."""
    from IMTRegisterLib.registration.subject import run_identity
    from IMTRegisterLib.registration.translation import model_for

    outputs, settings = job.outputs, job.settings
    if not outputs.labels.is_file() or not job.case.path.exists():
        return False
    identity = run_identity(input_sha256(job.case.path), job.atlas_set_hash, settings, model_for(settings))
    for path in [outputs.labels] + ([outputs.agreement] if outputs.agreement else []):
        record = read_mark(sidecar_path(path))
        written = record.get("output")
        if record.get("identity") != identity or not isinstance(written, dict) or record.get("atlases_failed"):
            return False
        if not path.is_file() or written.get("sha256") != input_sha256(path):
            return False
    if outputs.report is not None and read_mark(outputs.report).get("identity") != identity:
        return False  # left over from another run
    names = [atlas.name for atlas in job.atlas_set.atlases]
    inverses = {outputs.transform_files(name)[1] for name in names} if outputs.transforms else set()
    return all(path.is_file() for path in outputs.files(names, settings.modalities) if path not in inverses)
