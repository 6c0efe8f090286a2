"""`imt study`: make a reader study, and score what its readers answered."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from IMTCore.errors import BadInput
from IMTCore.files import whole_file
from IMTCore.reader_study.trials import STUDY_FILE, read_study

from .progress import close, listener


def run(values: argparse.Namespace) -> int:
    """Do the action that the arguments name."""
    return {"make": make, "score": score}[values.action](values)


def make(values: argparse.Namespace) -> int:
    """Make a study's folder."""
    from IMTCore.reader_study.making import StudyOptions, make_study
    from IMTCore.reader_study.pairs import pairs_from_csv, pairs_from_folders

    folders = (values.real, values.synthetic)
    if (values.pairs is None) == (None in folders) or values.pairs is not None and folders != (None, None):
        raise BadInput("Give either --pairs CSV, or both --real FOLDER and --synthetic FOLDER.")
    pairs = pairs_from_folders(*folders) if values.pairs is None else pairs_from_csv(values.pairs)
    options = StudyOptions(values.practice, values.trials, values.seed, values.plane)
    progress = listener(values.progress)
    try:
        study, notes = make_study(pairs, values.output, options, progress)
    finally:
        close(progress)
    for note in notes:
        print(f"imt: {note}", file=sys.stderr)
    content = study.content
    message = (
        f"{values.output}: study {study.study_id}, {content['practice']} practice and {content['main']} main trials, "
        f"{content['different_pairs']} different pairs of slices from {content['cases']} cases"
    )
    if values.progress == "json":
        progress("done", 1.0, message)
    else:
        print(message)
    return 0


def score(values: argparse.Namespace) -> int:
    """Score and print."""
    from IMTCore.reader_study.answers import read_answers
    from IMTCore.reader_study.report import CSV_COLUMNS, as_json, as_markdown, as_rows
    from IMTCore.reader_study.scores import score_study

    study = read_study(values.study or values.answers[0].parent)
    _check_outputs(values, study.folder)
    files = [read_answers(path, study) for path in values.answers]
    names = [file.reader for file in files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadInput(f"Reader {min(twice)} comes twice. Give one file of answers for each reader.")
    result = score_study(study, files)
    with ExitStack() as stack:  # both files or none
        if values.csv:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([CSV_COLUMNS, *as_rows(result)])
            stack.enter_context(whole_file(values.csv)).write_text(text.getvalue(), encoding="utf-8")
        if values.report:
            temporary = stack.enter_context(whole_file(values.report))
            temporary.write_text(json.dumps(as_json(result), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(as_json(result), indent=2, ensure_ascii=False) if values.json else as_markdown(result).rstrip())
    return 0


def _check_outputs(values: argparse.Namespace, folder: Path) -> None:
    """Refuse outputs that would overwrite the study, an answer file or each other."""
    taken = {path.resolve() for path in (*values.answers, folder / STUDY_FILE)}
    for output in (values.csv, values.report):
        if output is None:
            continue
        if output.resolve() in taken or output.name.startswith("answers-"):
            raise BadInput(f"The output {output} is one of the inputs, another output or a reader's answers: choose another name.")
        taken.add(output.resolve())
