"""`imt translate`: one volume, or many cases with resume."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from IMTCore.cards import ModelCard
from IMTCore.cases import Case, read_cases
from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput
from IMTCore.files import stem_of
from IMTCore.inputs import read_input
from IMTCore.outputs import TranslationResult, check_paths
from IMTCore.progress import Progress, Say
from IMTCore.provenance import input_sha256, is_mark, read_mark, sidecar_path
from IMTCore.settings import TranslationSettings
from IMTCore.volume_io import check_output_path
from IMTCore.weights_file import read_weights_file

from .cohort import FINISHED, CaseResult, Cohort, check_folder, check_input_free, holds_cases
from .kept_models import KeptTranslators
from .progress import close, listener, speaker, tell_end

if TYPE_CHECKING:
    from IMTCore.translation import Translator

DEFAULT_SAMPLES = 8


def run(values: argparse.Namespace) -> int:
    """Translate what the arguments say."""
    if len(values.model) > 1 or len(values.targets) > 1:
        raise BadInput("One model, and so one target, a command: start imt translate once for each.")
    if not values.input.exists():
        raise BadInput(f"{values.input} does not exist. Check the path.")
    settings = settings_of(values)
    card = find_card(values.model[0])
    progress = listener(values.progress)
    say = speaker(progress)
    started = time.perf_counter()
    try:
        if holds_cases(values.input):
            message = translate_cases(values, card, settings, progress, say)
        else:
            result = translate_one(values, card, settings, progress, say)
            for warning in result.warnings:
                say("Warning: " + warning)
            seconds = time.perf_counter() - started
            stages = ", ".join(f"{stage} {value:.1f}" for stage, value in result.seconds.items())
            message = f"{values.output}: {result.target} (synthetic) from {result.source}, model {card.name}, {seconds:.1f} s ({stages})"
    finally:
        close(progress)  # an error's message starts on a line of its own
    tell_end(progress, message)
    return 0


def settings_of(values: argparse.Namespace) -> TranslationSettings:
    """The settings that the arguments give.

    Raises:
        BadInput: samples without an uncertainty, or too few of them.
    """
    sampled = values.uncertainty is not None or values.trust_map is not None
    if values.samples is not None and not sampled:
        raise BadInput("--samples needs --uncertainty OUT, where the standard deviation is written, or --trust-map OUT.")
    samples = 0 if not sampled else DEFAULT_SAMPLES if values.samples is None else values.samples
    if sampled and samples < 2:
        raise BadInput(f"An uncertainty needs at least 2 samples, not {samples}.")
    return TranslationSettings(
        values.source,
        values.targets[0] if values.targets else None,
        values.device,
        values.precision,
        values.batch,
        values.seed,
        values.dropout,
        samples,
        values.single_plane,
        values.bias_correction,
        values.check_modality,
        values.trust_map is not None,
    )


kept_translators = KeptTranslators()


def translate_one(
    values: argparse.Namespace, card: ModelCard, settings: TranslationSettings, progress: Progress, say: Say
) -> TranslationResult:
    """Translate one volume; it is read and prepared while torch is imported and the model loaded."""
    settings.check()
    check_paths(values.input, [one for one in (values.output, values.uncertainty, values.trust_map) if one])
    progress("read", 0.0, values.input.name)
    translator = kept_translators.find(card, settings, say)
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(read_input, values.input, card, settings)
        weights = pool.submit(read_weights_file, card) if translator is None else None
        progress("load", 0.0, f"model {card.name}")
        from IMTCore.translation import translate_file

        if weights is not None:
            translator = kept_translators.load(card, settings, say, weights.result())
        source = reading.result()
    return translate_file(translator, source, values.output, values.uncertainty, progress, doubts=values.trust_map)


@dataclass(frozen=True)
class CaseJob:
    """One case to translate."""

    case: Case
    output: Path
    uncertainty: Path | None
    doubts: Path | None = None

    @property
    def images(self) -> list[Path]:
        """All volumes that it gives."""
        return [path for path in (self.output, self.uncertainty, self.doubts) if path is not None]


def translate_cases(
    values: argparse.Namespace, card: ModelCard, settings: TranslationSettings, progress: Progress, say: Say
) -> str:
    """Translate every case into `OUT/<case>/<modality>.nii.gz`; write `OUT/summary.csv` as it goes.

    A case is finished if its output is there with a mark of the same input, model and settings; it is skipped. A
    case that fails does not stop the others. Returns what to tell at the end.
    """
    folder: Path = values.output
    check_folder(folder, "--output")
    check_input_free(values.input, folder)
    translator = kept_translators.find(card, settings, say) or kept_translators.load(card, settings, say)
    taken = {translator.target.lower()}
    for option, name in (("--uncertainty", values.uncertainty), ("--trust-map", values.trust_map)):
        if name is None:
            continue
        if len(name.parts) != 1:
            raise BadInput(f"For many cases {option} is a file name such as T2_uncertainty.nii.gz; it goes into each case's folder.")
        check_output_path(name)
        if stem_of(name).lower() in taken:
            raise BadInput(f"{option} {name} would take the translation's name, or another map's. Choose another file name.")
        taken.add(stem_of(name).lower())

    def job_of(case: Case) -> CaseJob:
        place = folder / case.case
        maps = (place / name if name else None for name in (values.uncertainty, values.trust_map))
        return CaseJob(case, place / f"{translator.target}.nii.gz", *maps)

    def translate_case(job: CaseJob, progress: Progress) -> CaseResult:
        return translate_with(translator, job, progress)

    cohort = Cohort(folder, translate_case, "translated", {"translate": (0.0, 1.0)})
    return cohort.run([job_of(case) for case in read_cases(values.input, translator.source)], progress, say)


def translate_with(translator: Translator, job: CaseJob, progress: Progress) -> CaseResult:
    """Translate one case, unless it is finished.

    Raises:
        ImtError: as `translate_file`, and for an output that may be a real image.
    """
    from IMTCore.translation import translate_file

    if is_finished(job, translator):
        return FINISHED
    check_replaceable(job.images)
    result = translate_file(translator, job.case.path, job.output, job.uncertainty, progress, doubts=job.doubts)
    return CaseResult(message=" ".join(result.warnings))


def check_replaceable(outputs: list[Path]) -> None:
    """Refuse to replace an image that is not a result of IMT: cases may hold real images of the wanted modality.

    Raises:
        BadInput: naming the file.
    """
    for path in outputs:
        if path.exists() and not is_mark(sidecar_path(path)):
            raise BadInput(f"{path} exists and has no mark of IMT: it may be a real image. Choose another output folder.")


def is_finished(job: CaseJob, translator: Translator) -> bool:
    """Whether the outputs are there, whole and marked with the same input, model, settings and calibration."""
    settings, card, source = translator.settings, translator.card, job.case.path
    for path in job.images:
        if not path.is_file() or not source.exists():
            return False
        record = read_mark(sidecar_path(path))
        wanted = {
            "synthetic": True,
            "source_modality": translator.source,
            "target_modality": translator.target,
            "seed": settings.seed,
            "dropout": settings.dropout,
            "samples": settings.samples,
            "single_plane": settings.single_plane,
            "bias_correction": "N4" if settings.bias_correction else None,
            "model": {"name": card.name, "version": card.content["version"], "sha256": card.sha256},
        }
        if settings.samples:
            wanted["uncertainty"] = translator.uncertainty_record(tuple(record.get("planes", ())))
        if any(record.get(key) != value for key, value in wanted.items()):
            return False
        for key, file in (("input", source), ("output", path)):
            if not isinstance(record.get(key), dict) or record[key].get("sha256") != input_sha256(file):
                return False
    return True
