"""The files and the report of a finished registration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.errors import BadInput
from IMTCore.outputs import write_result
from IMTCore.provenance import versions
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume

from ..deformations.resampling import inverse_transform, warp_image, warp_labels
from ..deformations.transforms import Transform
from .labels import read_labels
from .outputs import OutputWriter, RegistrationOutputs, base_record, header_line
from .pairs import PairResult
from .settings import RegistrationSettings

if TYPE_CHECKING:
    from .run import Registration

REPORT_FORMAT = 1


def write_results(run: Registration, outputs: RegistrationOutputs, started: float) -> None:
    """Write all files of a run, or none. `started`: of `time.perf_counter()`, for the total time.

    Raises:
        OutputFailure: a file cannot be written.
    """
    if outputs.translated is not None and run.translation is not None:
        # First, and by itself: should the rest fail, a translated image with its mark is whole and true.
        write_result(run.card, run.translation, outputs.translated, None, run.path.name, run.subject_sha256)
    settings, derived = run.settings, run.is_derived
    line = header_line(settings.engine, settings.preset, settings.fusion, derived)
    with OutputWriter() as writer, run.timed("write"):
        record = run_record(run)
        if outputs.agreement is not None:
            writer.volume(outputs.agreement, run.agreement, line, {**base_record("agreement", derived), **record})
        for name, result in run.registered.items():
            _write_atlas(run, name, result, outputs, writer)
        if outputs.warped is not None:
            writer.names(outputs.warped / "labels.csv", run.names)
        writer.names(outputs.table, run.names)
        writer.volume(outputs.labels, run.labels, line, {**base_record("labels", derived), **record})
        if outputs.report is not None:
            writer.json(outputs.report, report(run, started))


def _write_atlas(run: Registration, name: str, result: PairResult, outputs: RegistrationOutputs, writer: OutputWriter) -> None:
    atlas = next(atlas for atlas in run.atlas_set.atlases if atlas.name == name)
    transform = result.transforms[run.plan.main]
    if outputs.transforms is not None:
        forward, back = outputs.transform_files(name)
        writer.transform(forward, transform)
        try:
            writer.transform(back, _inverse(transform, atlas.images[run.settings.modality]))
        except BadInput as error:
            run.warnings.append(f"Atlas {name} has no inverse transform: {error}")
    if outputs.warped is not None:
        grid = run.subject.geometry
        for modality in run.settings.modalities:
            warped = warp_image(read_volume(atlas.images[modality]), transform, grid)
            writer.volume(outputs.warped_file(name, modality), Volume(warped.array, grid, warped.name))
        labels = warp_labels(read_labels(atlas), transform, grid)
        writer.volume(outputs.warped_file(name, "labels"), Volume(labels.array, grid, labels.name))


def _inverse(transform: Transform, moving: Path) -> Transform:
    return inverse_transform(transform, read_volume(moving).geometry)


def run_record(run: Registration) -> dict[str, Any]:
    """What a mark says of how its file came to be."""
    card = run.card
    return {
        "identity": run.identity,
        "input": {"name": run.path.name, "sha256": run.subject_sha256},
        "model": None if card is None else {"name": card.name, "version": card.content["version"], "sha256": card.sha256},
        "settings": run.settings.record(),
        "atlas_set": run.atlas_set.path.name,
        "atlases": list(run.registered),
        "atlases_failed": {name: str(error) for name, error in run.failed.items()},
        "labels": {str(code): run.names.name_of(code) for code in run.codes},
        "warnings": run.warnings,
        "versions": {**versions(), run.settings.engine: run.engine_version},
    }


def report(run: Registration, started: float) -> dict[str, Any]:
    """The report: what was done with each atlas, and how long it took."""
    content = {"format": REPORT_FORMAT, **base_record("report", run.is_derived), **run_record(run)}
    content["settings"] = {**content["settings"], **machine_settings(run.settings, run)}
    content["atlases"] = [_atlas_report(name, result) for name, result in run.pairs.items()]
    content["weights"] = {
        "background": run.plan.main,
        "structures": {run.names.name_of(code): share for code, share in run.plan.of_code.items()},
    }
    content["folds"] = sum(result.record["folds"] for result in run.registered.values())
    content["cache_hits"] = run.cache_hits
    content["seconds"] = {**run.seconds, "total": round(time.perf_counter() - started, 3)}
    return content


def machine_settings(settings: RegistrationSettings, run: Registration) -> dict[str, Any]:
    """The settings that change the time, and not the result."""
    return {"jobs": run.jobs, "threads": run.threads, "memory_gb": settings.memory_gb}


def _atlas_report(name: str, result: PairResult | Exception) -> dict[str, Any]:
    if not isinstance(result, PairResult):
        return {"name": name, "state": "failed", "message": str(result)}
    return {
        "name": name,
        "state": "done",
        "message": "",
        "seconds": result.seconds,
        "from_cache": result.cached,
        **result.record,
    }
