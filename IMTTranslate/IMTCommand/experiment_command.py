"""`imt experiment`: the registration experiments of Yang et al. 2020, on any data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.errors import BadInput, SomeCasesFailed
from IMTCore.progress import Progress, Say

from .progress import close, listener, speaker

if TYPE_CHECKING:
    from IMTRegisterLib.experiments.methods import Method
    from IMTRegisterLib.registration.settings import RegistrationSettings


def run(values: argparse.Namespace) -> int:
    """Do the experiment that the arguments name."""
    progress = listener(values.progress)
    say = speaker(progress)
    kinds = {"register-table": register_table, "known-transform": known_transform, "register-weights": register_weights}
    try:
        text, message, failed = kinds[values.kind](values, progress, say)
    finally:
        close(progress)  # an error's message starts on a line of its own
    if values.progress == "json":
        progress("done", 1.0, message)
    else:
        print(text)
        print(message)
    if failed:
        runs = "1 run" if failed == 1 else f"{failed} runs"
        raise SomeCasesFailed(f"{runs} failed; the page names what failed. Run the same command again to try it once more.")
    return 0


def register_table(values: argparse.Namespace, progress: Progress, say: Say) -> tuple[str, str, int]:
    """Compare methods; returns the page, what to tell at the end, and the number of runs that failed."""
    from IMTRegisterLib.experiments.cases import read_sets, translated_images
    from IMTRegisterLib.experiments.methods import REAL
    from IMTRegisterLib.experiments.report import write_report
    from IMTRegisterLib.experiments.table import TableExperiment, run_table

    methods = methods_of(values, values.real)
    second = values.second if any(method.source for method in methods) else None
    real = any(method.source == REAL for method in methods)
    base = base_settings(values)
    atlas_set, subjects, warnings = read_sets(
        values.atlases, values.subjects, values.modality, second, real, values.subject_names, values.atlas_names
    )
    for warning in warnings:
        say("Warning: " + warning)
    translated = {} if values.translated is None else translated_images(values.translated, subjects, values.second)
    experiment = TableExperiment(
        atlas_set,
        subjects,
        base,
        second,
        list(dict.fromkeys(values.engines)),
        methods,
        values.output,
        values.model,
        translated,
        values.surfaces,
        values.keep_labels,
    )
    records = run_table(experiment, progress, say=say)
    text = write_report(experiment, records, warnings, values.margin)
    failed = sum(record.scores is None or bool(record.scores["failed"]) for record in records)
    return text, f"{len(records) - failed} runs done, {failed} failed: {values.output / 'table.md'}", failed


def known_transform(values: argparse.Namespace, progress: Progress, say: Say) -> tuple[str, str, int]:
    """Turn and recover; returns as `register_table`."""
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.experiments.cases import Subject, chosen, translated_images
    from IMTRegisterLib.experiments.rotation import RotationExperiment, run_rotations
    from IMTRegisterLib.experiments.rotation_report import write_rotation_report

    methods = methods_of(values, False)
    second = values.second if any(method.source for method in methods) else None
    base = base_settings(values)
    needed = (values.modality,) if second is None else (values.modality, second)
    subject_set = chosen(read_atlas_set(values.subjects, needed), values.subject_names, "subject")
    subjects = [Subject(atlas) for atlas in subject_set.atlases]
    translated = {} if values.translated is None else translated_images(values.translated, subjects, values.second)
    experiment = RotationExperiment(
        subject_set,
        base,
        second,
        list(dict.fromkeys(values.engines)),
        methods,
        list(dict.fromkeys(values.angles)),
        axis_of(values.axis),
        values.output,
        values.model,
        translated,
    )
    records = run_rotations(experiment, progress, say=say)
    text = write_rotation_report(experiment, records, subject_set.warnings)
    failed = sum(record.scores is None for record in records)
    return text, f"{len(records) - failed} runs done, {failed} failed: {values.output / 'table.md'}", failed


def register_weights(values: argparse.Namespace, progress: Progress, say: Say) -> tuple[str, str, int]:
    """Choose weights or settings; returns as `register_table`."""
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.experiments.cases import Subject, chosen, translated_images
    from IMTRegisterLib.experiments.weights import WeightExperiment, run_weights
    from IMTRegisterLib.experiments.weights_report import write_weights

    if values.output.suffix.lower() != ".json":
        raise BadInput(f"The output {values.output} is a JSON file: end its name in .json.")
    if values.settings is None and values.second is None:
        raise BadInput("Weights are shares of two modalities: name the second one (--translate-to).")
    if values.real and (values.translated is not None or values.model is not None):
        raise BadInput("--real takes the real second images: leave the model and the translated ones out.")
    changes: dict[str, Any] = {"engine": values.engine}
    if values.second is not None:
        changes |= {"translate_to": values.second, "fusion": values.fusion, "model": values.model}
    settings = base_settings(values, **changes)
    atlas_set = chosen(read_atlas_set(values.atlases, settings.modalities), values.atlas_names, "atlas")
    for warning in atlas_set.warnings:
        say("Warning: " + warning)
    images = {}
    if values.real:
        images = {atlas.name: atlas.images[values.second] for atlas in atlas_set.atlases}
    elif values.translated is not None:
        images = translated_images(values.translated, [Subject(atlas) for atlas in atlas_set.atlases], values.second)
    experiment = WeightExperiment(
        atlas_set,
        settings,
        values.output.with_name(f"{values.output.stem}-runs"),
        [] if values.settings else values.weights,
        read_candidates(values.settings) if values.settings else {},
        images,
        values.folds,
        values.seed,
    )
    scored = run_weights(experiment, progress, say=say)
    text, notes = write_weights(experiment, scored, values.output)
    for note in notes:
        say(note)
    return text, f"{values.output}: chosen over {len(atlas_set.atlases)} atlases in {values.folds} folds", 0


def methods_of(values: argparse.Namespace, real: bool) -> list[Method]:
    """The methods that the arguments name, or those that they allow.

    Raises:
        BadInput: methods that cannot be run with these arguments.
    """
    from IMTRegisterLib.experiments.methods import DEFAULT, GIVEN, REAL, SECOND, parse_methods, with_real, without_translation

    names = values.methods
    if names is None:
        names = [GIVEN] if values.second is None else list(DEFAULT)
        if values.no_translation and values.second is not None:
            names = [GIVEN, REAL, *(f"{REAL}-{name}" for name in DEFAULT if name not in (GIVEN, SECOND))]
    methods = parse_methods(names, values.weight)
    if values.second is None and (wrong := [method.name for method in methods if method.source]):
        raise BadInput(f"The methods {', '.join(wrong)} need a second modality: name it with --second.")
    if values.no_translation:
        return without_translation(methods, values.second or "image")
    return with_real(methods) if real else methods


def base_settings(values: argparse.Namespace, **changes: Any) -> RegistrationSettings:
    """What all runs share: the given modality alone, but for `changes`.

    Raises:
        BadInput: values out of range, or that contradict each other.
    """
    from IMTRegisterLib.registration.settings import RegistrationSettings, default_cache_folder

    given = {
        "modality": values.modality,
        "preset": values.preset,
        "labels": values.labels,
        "structures": tuple(values.structures),
        "dimension": values.dimension,
        "mask": values.mask,
        "jobs": values.jobs,
        "threads": values.threads,
        "memory_gb": values.memory_gb,
        "seed": values.seed,
        "cache": default_cache_folder() if values.cache is None else None if values.cache == "none" else Path(values.cache),
    }
    return RegistrationSettings(**{**given, **changes})


def axis_of(words: list[str]) -> str | tuple[float, float, float]:
    """A name, or three numbers.

    Raises:
        BadInput: neither.
    """
    if len(words) == 1:
        return words[0]
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise BadInput(f"An axis is one of L, P, S, i, j, k, or three numbers, not {' '.join(words)}.")
    return numbers


def read_candidates(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> engine settings of a JSON list; an entry without a name is called by its place.

    Raises:
        BadInput: not readable, or of another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no readable JSON file of settings ({error}). Check the path.") from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise BadInput(f'{path} is no list of settings. It needs [{{"name": "smooth", "deformable": {{"smoothing": "2vox 1vox"}}}}, ...].')
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(content, start=1):
        name = str(entry.get("name", f"settings {number}"))
        if name in found:
            raise BadInput(f"{path} has two settings called {name}. Give each its own name.")
        found[name] = {stage: changes for stage, changes in entry.items() if stage != "name"}
    return found
