"""`imt dicom`: the series of a study; a translated volume as a synthetic series of its study."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from IMTCore.dicom_selection import series_folder
from IMTCore.dicom_sources import check_pydicom
from IMTCore.dicom_studies import read_study
from IMTCore.dicom_writing import WrittenSeries, check_folders, check_options, check_output_folder, write_synthetic_series
from IMTCore.errors import BadInput
from IMTCore.progress import Progress, Say

from .dicom_listing import study_lines, study_record
from .progress import close, listener, speaker, tell_end

# Options that only make sense with one of the three things that the command does.
NEEDS = {
    "json": ("list",),
    "series": ("like", "translate"),
    "output": ("like", "translate"),
    "description": ("like", "translate"),
    "series_number": ("like", "translate"),
    "device": ("translate",),
    "no_modality_check": ("translate",),
}


def run(values: argparse.Namespace) -> int:
    """List, write, or translate and write."""
    check_pydicom()
    action = _action(values)
    if action == "list":
        study = read_study(values.source)
        print(json.dumps(study_record(study), indent=2) if values.json else "\n".join(study_lines(study, values.source)))
        return 0
    progress = listener(values.progress)
    say = speaker(progress)
    try:
        series = write_like(values, progress) if action == "like" else translate_series(values, progress, say)
    finally:
        close(progress)
    for warning in series.warnings:
        say("Warning: " + warning)
    tell_end(
        progress,
        f"{series.folder}: {series.files} slices, series {series.number} {series.description!r} of the source's study, UID {series.uid}",
    )
    return 0


def write_like(values: argparse.Namespace, progress: Progress) -> WrittenSeries:
    """Write a volume that was translated before."""
    check_folders(values.source, values.like, values.output)
    with series_folder(values.like, values.series) as like:
        return write_synthetic_series(values.source, like, values.output, values.description, values.series_number, progress)


def translate_series(values: argparse.Namespace, progress: Progress, say: Say) -> WrittenSeries:
    """Translate a series of a study, as `imt translate` does, and write the result into the study."""
    from IMTCore.catalogue import find_card

    from . import translate_arguments
    from .translate_command import settings_of, translate_one

    if not values.source.is_dir():
        raise BadInput(f"{values.source} is not a folder. --translate takes the folder of a DICOM series or study.")
    check_options(values.description, values.series_number)
    card = find_card(values.translate)
    parser = argparse.ArgumentParser()
    translate_arguments.add_arguments(parser)
    with series_folder(values.source, values.series) as series, tempfile.TemporaryDirectory(prefix="IMT-") as work:
        check_output_folder(values.output, series)
        volume = Path(work) / "translation.nrrd"
        words = [str(series), "--model", values.translate, "--output", str(volume), "--device", values.device or "auto"]
        given = parser.parse_args([*words, *(["--no-modality-check"] if values.no_modality_check else [])])
        result = translate_one(given, card, settings_of(given), progress, say)
        for warning in result.warnings:
            say("Warning: " + warning)
        return write_synthetic_series(volume, series, values.output, values.description, values.series_number, progress)


def _action(values: argparse.Namespace) -> str:
    """list, like or translate.

    Raises:
        BadInput: none or several of them, an option of another one, or no output.
    """
    chosen = [name for name in ("list", "like", "translate") if getattr(values, name)]
    if len(chosen) != 1:
        raise BadInput("Give one of --list, --like STUDY and --translate MODEL. See: imt dicom --help")
    action = chosen[0]
    for name, actions in NEEDS.items():
        if getattr(values, name) not in (None, False) and action not in actions:
            raise BadInput(f"--{name.replace('_', '-')} does not go with --{action}. Leave it out.")
    if action != "list" and values.output is None:
        raise BadInput(f"--{action} needs --output FOLDER, where the new series is written.")
    return action
