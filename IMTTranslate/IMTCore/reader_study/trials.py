"""A reader study: which of two images is the synthetic one? Its trials.

Two-alternative forced choice as in Yang et al. 2020 (Results, perceptual realism): on each trial a reader sees a real slice and
the synthetic one of the same place side by side and says which is fake; 100 practice trials tell the truth after each answer,
1000 main trials do not. `making` makes studies from `pairs`, `answers` keeps what readers
say, `scores` scores it.

A study is a folder: `study.json` (the trials), `images/*.png`, and one `answers-READER.csv` a reader. The names of the images
are hashes of their pixels: they do not tell which one is synthetic. `study.json` does, so readers must not open it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cases import SAFE_NAME
from ..errors import BadInput

FORMAT = 1
KIND = "imt-reader-study"
STUDY_FILE = "study.json"
SIDES = ("left", "right")
PHASES = ("practice", "main")
IMAGE_PATTERN = re.compile(r"images/[0-9a-f]{16}\.png")
ID_LENGTH = 16  # characters of the study's SHA-256 that each answer repeats


@dataclass(frozen=True)
class Trial:
    """One pair of images.

    Attributes:
        number: 1, 2, …, through both phases.
        phase: "practice" (the truth is told after the answer) or "main".
        case: the pair's name.
        slice: index of the slice along the study's plane, in the array that `orientation.anatomical_axes` gives.
        left, right: the PNG files, relative to the study's folder.
        side: where the synthetic image is, "left" or "right".
    """

    number: int
    phase: str
    case: str
    slice: int
    left: str
    right: str
    side: str


@dataclass(frozen=True)
class ReaderStudy:
    """A study as read from its folder.

    Attributes:
        folder: where `study.json` lies.
        content: what `study.json` holds.
        study_id: the first characters of the SHA-256 of that content; every answer carries it.
        trials: in the order in which readers see them.
    """

    folder: Path
    content: dict[str, Any]
    study_id: str
    trials: tuple[Trial, ...]

    def count(self, phase: str) -> int:
        """The number of trials of a phase."""
        return sum(trial.phase == phase for trial in self.trials)

    def image_path(self, trial: Trial, side: str) -> Path:
        """The image that a trial shows on a side."""
        return self.folder / getattr(trial, side)

    def answers_path(self, reader: str) -> Path:
        """Where a reader's answers lie.

        Raises:
            BadInput: if the name cannot be a part of a file's name.
        """
        if not SAFE_NAME.fullmatch(reader) or reader != reader.strip() or len(reader) > 64:
            raise BadInput(f"{reader!r} cannot be a reader's name: use up to 64 letters, digits, spaces and . _ + - only.")
        return self.folder / f"answers-{reader}.csv"


def study_id_of(content: dict[str, Any]) -> str:
    """The identity of a study: a hash of its content. The images belong to it, as their names are hashes of their pixels."""
    text = json.dumps({key: value for key, value in content.items() if key != "study"}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def read_study(folder: Path | str) -> ReaderStudy:
    """Read a study's folder.

    Raises:
        BadInput: no such folder, no study, of another version, changed after it was made, or an image is missing.
    """
    folder = Path(folder)
    path = folder / STUDY_FILE
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder. Choose the folder that imt study make has written.")
    if not path.is_file():
        raise BadInput(f"{folder} is not a reader study: it holds no {STUDY_FILE}. Choose a folder that imt study make has written.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}). Copy the study again or make it anew.") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise BadInput(f"{path} is not a reader study of IMT. Choose a folder that imt study make has written.")
    if content.get("format") != FORMAT:
        raise BadInput(f"{path} has format {content.get('format')!r}; this version of IMT reads format {FORMAT}. Update IMT.")
    study_id = study_id_of(content)
    if content.get("study") != study_id:
        raise BadInput(f"{path} was changed after the study was made: its hash does not fit. Copy it again or make the study anew.")
    study = ReaderStudy(folder, content, study_id, _trials_of(content, path))
    missing = {name for trial in study.trials for name in (trial.left, trial.right) if not (folder / name).is_file()}
    if missing:
        raise BadInput(f"{folder} lacks {len(missing)} of its images, such as {min(missing)}. Copy the whole folder again.")
    return study


def _trials_of(content: dict[str, Any], path: Path) -> tuple[Trial, ...]:
    try:
        trials = tuple(Trial(**entry) for entry in content["trials"])
        valid = bool(trials) and all(
            trial.number == number
            and trial.phase in PHASES
            and trial.side in SIDES
            and IMAGE_PATTERN.fullmatch(trial.left)
            and IMAGE_PATTERN.fullmatch(trial.right)
            for number, trial in enumerate(trials, start=1)
        )
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise BadInput(f"{path} has trials that IMT does not understand. Make the study anew.")
    return trials
