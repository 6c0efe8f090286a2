"""What the readers of a reader study answered: one CSV file a reader, written line by line while the study runs."""

from __future__ import annotations

import csv
import datetime
import errno
import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput, OutputFailure
from ..files import describe_write_error
from .trials import SIDES, ReaderStudy, Trial

ANSWER_COLUMNS = ("study", "reader", "trial", "phase", "answer", "seconds", "time")
HEADER = (",".join(ANSWER_COLUMNS) + "\n").encode()


@dataclass(frozen=True)
class Answer:
    """What a reader said on one trial.

    Attributes:
        trial: the trial's number.
        answer: the side that the reader took for the synthetic one.
        seconds: from when the images were shown to the answer, without pauses.
        time: when it was given, ISO 8601, UTC.
    """

    trial: int
    answer: str
    seconds: float
    time: str = ""


@dataclass(frozen=True)
class AnswerFile:
    """One reader's answers, checked against the study.

    Attributes:
        reader: the name.
        answers: in the file's order, one a trial at most.
        notes: what a user must know, such as a last line that a crash cut off.
        whole_bytes: size of the file up to its last whole line.
    """

    reader: str
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]
    whole_bytes: int


def read_answers(path: Path, study: ReaderStudy) -> AnswerFile:
    """Read one reader's answers. A last line without its end (the program was killed while it wrote) is left out and noted.

    Raises:
        BadInput: unreadable, not answers, of another study, of several readers, or with a line that does not fit its trial.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        raise BadInput(f"{path} is no file of answers. Give the answers-READER.csv of a study.")
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        rows = list(csv.DictReader(io.StringIO(whole.decode("utf-8-sig"), newline="")))
        header = next(csv.reader(io.StringIO(whole.decode("utf-8-sig"), newline="")), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a readable CSV file in UTF-8 ({error}).") from error
    if tuple(header) != ANSWER_COLUMNS:
        raise BadInput(f"{path} holds no answers of a reader study: its first line must be {','.join(ANSWER_COLUMNS)}.")
    notes = [f"{path.name}: the last line was cut off and is left out."] if len(whole) < len(content) else []
    answers: dict[int, Answer] = {}
    for line, row in enumerate(rows, start=2):
        answer = _answer_of(row, study, f"{path}, line {line}")
        if answer.trial in answers:
            raise BadInput(f"{path}, line {line}: trial {answer.trial} was answered before. Remove one of its lines.")
        answers[answer.trial] = answer
    readers = {row["reader"] for row in rows}
    if len(readers) > 1:
        raise BadInput(f"{path} holds answers of several readers ({', '.join(sorted(readers))}). Give each reader a file.")
    name = readers.pop() if readers else path.stem.removeprefix("answers-")
    return AnswerFile(name, tuple(answers.values()), tuple(notes), len(whole))


def _answer_of(row: dict[str, Any], study: ReaderStudy, where: str) -> Answer:
    if row["study"] != study.study_id:
        raise BadInput(f"{where}: this answer belongs to another study ({row['study']}, not {study.study_id} of {study.folder}).")
    try:
        number, seconds = int(row["trial"]), float(row["seconds"])
        trial = study.trials[number - 1] if number > 0 else None
    except (TypeError, ValueError, IndexError):
        trial = None
    if trial is None or not math.isfinite(seconds) or seconds < 0:
        raise BadInput(f"{where}: no such trial, or the time is no number. Restore the file as it was written.")
    if row["phase"] != trial.phase or row["answer"] not in SIDES:
        raise BadInput(f"{where}: trial {number} is a {trial.phase} trial and its answer left or right. Restore the file.")
    return Answer(number, row["answer"], seconds, row["time"] or "")


@dataclass
class AnswerLog:
    """One reader's answers while the study runs: each is on the disk before the next trial comes.

    Open it with `open_log`, which goes on where the reader has stopped.
    """

    study: ReaderStudy
    reader: str
    path: Path
    answers: dict[int, Answer] = field(default_factory=dict)
    size: int = 0  # bytes of the file up to its last whole line
    file_size: int = 0  # bytes of the file; more, if a crash has cut off its last line

    def next_trial(self) -> Trial | None:
        """The first trial without an answer, or None at the end."""
        return next((trial for trial in self.study.trials if trial.number not in self.answers), None)

    def append(self, trial: Trial, side: str, seconds: float) -> Answer:
        """Write an answer to the disk and keep it.

        Raises:
            OutputFailure: if it cannot be written; it is not kept then, and the file is as before.
            BadInput: if another program has written to the file meanwhile.
        """
        if side not in SIDES or trial.number in self.answers:
            raise ValueError(f"no new answer: trial {trial.number}, {side}")
        answer = Answer(trial.number, side, round(seconds, 3), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        row = (self.study.study_id, self.reader, trial.number, trial.phase, side, f"{answer.seconds:.3f}", answer.time)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([row] if self.size else [ANSWER_COLUMNS, row])
        self._write(text.getvalue().encode())
        self.answers[trial.number] = answer
        return answer

    def _write(self, line: bytes) -> None:
        try:
            with open(self.path, "r+b" if self.path.exists() else "xb", buffering=0) as stream:
                if stream.seek(0, os.SEEK_END) != self.file_size:
                    raise BadInput(f"{self.path} was changed by another program. Does the same reader answer twice? Start again.")
                try:
                    stream.truncate(self.size)
                    stream.seek(self.size)
                    if stream.write(line) != len(line):
                        raise OSError(errno.ENOSPC, "disk full")
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(self.size)
                    self.file_size = self.size
                    raise
        except OSError as error:
            raise OutputFailure(describe_write_error(self.path, error)) from error
        self.size = self.file_size = self.size + len(line)


def open_log(study: ReaderStudy, reader: str) -> AnswerLog:
    """The log of a reader: new, or with the answers given so far. Nothing is written before the first answer.

    Raises:
        BadInput: a name that cannot be used, or a file that holds no answers of this study.
    """
    path = study.answers_path(reader)
    if not path.exists():
        return AnswerLog(study, reader, path)
    size = path.stat().st_size
    if size <= len(HEADER) and HEADER.startswith(path.read_bytes()):  # killed while it wrote the first line
        return AnswerLog(study, reader, path, {}, 0, size)
    known = read_answers(path, study)
    if known.answers and known.reader != reader:
        raise BadInput(f"{path} holds the answers of {known.reader}, not of {reader}. Use another name.")
    return AnswerLog(study, reader, path, {answer.trial: answer for answer in known.answers}, known.whole_bytes, size)
