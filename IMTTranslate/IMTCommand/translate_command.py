"""`imt translate`: one volume, or many cases with resume."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from IMTCore.cards import ModelCard
from IMTCore.cases import Case, is_case_folder, read_cases
from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, Cancelled, ImtError, OutputFailure, SomeCasesFailed
from IMTCore.files import stem_of, write_text
from IMTCore.inputs import read_input
from IMTCore.outputs import TranslationResult, check_paths
from IMTCore.progress import Progress, Say
from IMTCore.provenance import input_sha256, is_mark, read_mark, sidecar_path
from IMTCore.settings import TranslationSettings
from IMTCore.volume_io import check_output_path
from IMTCore.weights_file import read_weights_file

from .progress import ProgressBar, listener

if TYPE_CHECKING:
    from IMTCore.translation import Translator

DEFAULT_SAMPLES = 8
SUMMARY = "summary.csv"
SUMMARY_COLUMNS = ("case", "subject", "session", "modality", "state", "seconds", "output", "message")


def run(values: argparse.Namespace) -> int:
    """Translate what the arguments say."""
    if len(values.model) > 1 or len(values.targets) > 1:
        raise BadInput("One model, and so one target, a command: start imt translate once for each.")
    if not values.input.exists():
        raise BadInput(f"{values.input} does not exist. Check the path.")
    if values.samples is not None and values.uncertainty is None:
        raise BadInput("--samples needs --uncertainty OUT, where the standard deviation is written.")
    samples = 0 if values.uncertainty is None else DEFAULT_SAMPLES if values.samples is None else values.samples
    if values.uncertainty is not None and samples < 2:
        raise BadInput(f"An uncertainty needs at least 2 samples, not {samples}.")
    settings = TranslationSettings(
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
    )
    card = find_card(values.model[0])
    progress = listener(values.progress)
    started = time.perf_counter()

    def say(message: str) -> None:
        if isinstance(progress, ProgressBar):
            progress.close()
        print(f"imt: {message}", file=sys.stderr, flush=True)
        if values.progress == "json":
            progress("note", 0.0, message)

    try:
        if values.input.suffix.lower() == ".csv" or values.input.is_dir() and is_case_folder(values.input):
            return translate_cases(values, card, settings, progress, say)
        result = translate_one(values, card, settings, progress, say)
    finally:
        if isinstance(progress, ProgressBar):
            progress.close()  # an error's message starts on a line of its own
    for warning in result.warnings:
        say("Warning: " + warning)
    seconds = time.perf_counter() - started
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in result.seconds.items())
    message = f"{values.output}: {result.target} (synthetic) from {result.source}, model {card.name}, {seconds:.1f} s ({stages})"
    if values.progress == "json":
        progress("done", 1.0, message)
    else:
        print(message)
    return 0


class KeptTranslators:
    """The last translators, for a server that gets the same model again; a command of its own keeps none."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: dict[tuple[object, ...], tuple[Translator, tuple[object, ...]]] = {}  # the latest used comes last

    def find(self, card: ModelCard, settings: TranslationSettings, say: Say) -> Translator | None:
        """One for this card and these settings, if it is as it was when it was loaded."""
        translator, state = self._kept.pop(self._key(card, settings), (None, None))
        if translator is None or self._state(translator) != state:  # full memory has changed how it runs
            return None
        self._kept[self._key(card, settings)] = translator, state
        if translator.runner.device.type == "cuda":  # the switch is one for all networks: set by the last one loaded
            import torch

            torch.backends.cudnn.allow_tf32 = translator.runner.dtype != torch.float32
        translator.runner.say, translator.load_seconds = say, 0.0
        return translator

    def load(self, card: ModelCard, settings: TranslationSettings, say: Say, weights: bytes | None = None) -> Translator:
        """Load one, and keep it if any are kept; the one that was not used for longest goes first."""
        from IMTCore.translation import Translator

        while self._kept and len(self._kept) >= self.count:
            del self._kept[next(iter(self._kept))]
        translator = Translator(card, settings, say, weights)
        if self.count:
            self._kept[self._key(card, settings)] = translator, self._state(translator)
        return translator

    @staticmethod
    def _key(card: ModelCard, settings: TranslationSettings) -> tuple[object, ...]:
        """What a translator is made from; a changed weights file is read, and refused, as without a server."""
        try:
            file = card.weights_path.stat()
        except OSError:
            return ()
        return card.sha256, str(card.path), json.dumps(card.content, sort_keys=True), settings, file.st_mtime_ns, file.st_size

    @staticmethod
    def _state(translator: Translator) -> tuple[object, ...]:
        return translator.runner.device, translator.runner.dtype, translator.runner.batch


kept_translators = KeptTranslators()


def translate_one(
    values: argparse.Namespace, card: ModelCard, settings: TranslationSettings, progress: Progress, say: Say
) -> TranslationResult:
    """Translate one volume; it is read and prepared while torch is imported and the model loaded."""
    settings.check()
    check_paths(values.input, [values.output] + ([values.uncertainty] if values.uncertainty else []))
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
    return translate_file(translator, source, values.output, values.uncertainty, progress)


@dataclass
class Outcome:
    """How one case ended: done, skipped (was finished before) or failed."""

    case: Case
    state: str
    seconds: float
    output: Path
    message: str = ""


def translate_cases(
    values: argparse.Namespace, card: ModelCard, settings: TranslationSettings, progress: Progress, say: Say
) -> int:
    """Translate every case into `OUT/<case>/<modality>.nii.gz`; write `OUT/summary.csv` as it goes.

    A case is finished if its output is there with a mark of the same input, model and settings; it is skipped. A
    case that fails does not stop the others.
    """
    from IMTCore.translation import translate_file

    translator = kept_translators.find(card, settings, say) or kept_translators.load(card, settings, say)
    folder: Path = values.output
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; for many cases --output is a folder.")
    if values.uncertainty is not None:
        if len(values.uncertainty.parts) != 1:
            raise BadInput(
                "For many cases --uncertainty is a file name such as T2_uncertainty.nii.gz; it goes into each case's folder."
            )
        check_output_path(values.uncertainty)
        if stem_of(values.uncertainty).lower() == translator.target.lower():
            raise BadInput(f"--uncertainty {values.uncertainty} would take the translation's name. Choose another file name.")
    cases = read_cases(values.input, translator.source)
    outcomes: list[Outcome] = []
    try:
        for number, case in enumerate(cases):
            output = folder / case.case / f"{translator.target}.nii.gz"
            uncertainty = folder / case.case / values.uncertainty if values.uncertainty else None
            started = time.perf_counter()
            base = number / len(cases)

            def case_progress(stage: str, fraction: float, message: str, base: float = base, name: str = case.case) -> None:
                if stage == "translate":
                    progress("cases", base + fraction / len(cases), f"{name}: {message}")

            try:
                if is_finished(case.path, output, uncertainty, translator):
                    state, message = "skipped", "was finished before"
                else:
                    check_replaceable([output] + ([uncertainty] if uncertainty else []))
                    result = translate_file(translator, case.path, output, uncertainty, case_progress)
                    state, message = "done", " ".join(result.warnings)
            except Cancelled:
                raise
            except OutputFailure:
                write_summary_if_possible(folder, outcomes)
                raise
            except ImtError as error:
                state, message = "failed", str(error)
            except Exception as error:  # one broken case must not end the night's run
                state, message = "failed", f"{type(error).__name__}: {error}"
            outcomes.append(Outcome(case, state, round(time.perf_counter() - started, 2), output, message))
            if state == "failed":
                say(f"{case.case} failed: {message}")
            write_summary(folder, outcomes)
            progress("cases", (number + 1) / len(cases), case.case)
    except (Cancelled, KeyboardInterrupt):
        write_summary_if_possible(folder, outcomes)
        raise Cancelled(f"Cancelled after {len(outcomes)} of {len(cases)} cases; run the same command again to go on.") from None
    if isinstance(progress, ProgressBar):
        progress.close()
    counts = {state: sum(o.state == state for o in outcomes) for state in ("done", "skipped", "failed")}
    message = (
        f"{counts['done']} translated, {counts['skipped']} finished before, {counts['failed']} failed; see {folder / SUMMARY}"
    )
    if counts["failed"]:
        raise SomeCasesFailed(message)
    if values.progress == "json":
        progress("done", 1.0, message)
    else:
        print(message)
    return 0


def check_replaceable(outputs: list[Path]) -> None:
    """Refuse to replace an image that is not a result of IMT: cases may hold real images of the wanted modality.

    Raises:
        BadInput: naming the file.
    """
    for path in outputs:
        if path.exists() and not is_mark(sidecar_path(path)):
            raise BadInput(f"{path} exists and has no mark of IMT: it may be a real image. Choose another output folder.")


def is_finished(source: Path, output: Path, uncertainty: Path | None, translator: Translator) -> bool:
    """Whether the outputs are there, whole and marked with the same input, model and settings."""
    settings, card = translator.settings, translator.card
    for path in [output] + ([uncertainty] if uncertainty else []):
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
        if any(record.get(key) != value for key, value in wanted.items()):
            return False
        for key, file in (("input", source), ("output", path)):
            if not isinstance(record.get(key), dict) or record[key].get("sha256") != input_sha256(file):
                return False
    return True


def write_summary(folder: Path, outcomes: list[Outcome]) -> None:
    """Write `summary.csv`, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUMMARY_COLUMNS)
    for o in outcomes:
        relative = o.output.relative_to(folder).as_posix()
        writer.writerow((o.case.case, o.case.subject, o.case.session, o.case.modality, o.state, o.seconds, relative, o.message))
    write_text(folder / SUMMARY, text.getvalue())


def write_summary_if_possible(folder: Path, outcomes: list[Outcome]) -> None:
    """As `write_summary`, but a full disk does not hide the first error."""
    try:
        write_summary(folder, outcomes)
    except OutputFailure:
        pass
