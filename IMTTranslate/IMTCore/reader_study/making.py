"""Make the folder of a reader study: choose slices, sides and order, draw the images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, OutputFailure
from ..files import describe_write_error, give_usual_mode, temporary_folder
from ..metrics import CONVENTIONS
from ..progress import Progress, quiet
from ..version import VERSION
from .pairs import Drawing, Pair, draw_slice, plan_drawing, read_pair
from .trials import FORMAT, KIND, SIDES, STUDY_FILE, ReaderStudy, Trial, read_study, study_id_of

NOTICE = (
    "On every trial one of the two images is synthetic, made by a neural network; this file tells which. "
    "Readers must not open it. For research, not for diagnosis."
)
SCALING = "p99.5"
MAX_TRIALS = 100_000
HASH_LENGTH = 16


@dataclass(frozen=True)
class StudyOptions:
    """How a study is made. The defaults are those of Yang et al. 2020.

    Attributes:
        practice: trials with feedback.
        trials: trials without.
        seed: of the choice of slices, of their order and of the sides.
        plane: axial, coronal or sagittal.
    """

    practice: int = 100
    trials: int = 1000
    seed: int = 0
    plane: str = "axial"

    def check(self) -> None:
        """Refuse numbers that make no study (`BadInput`)."""
        if self.practice < 0 or self.trials < 1 or self.practice + self.trials > MAX_TRIALS:
            raise BadInput(f"A study has 0 or more practice trials and 1 to {MAX_TRIALS} trials in all, at least one without feedback.")
        if self.seed < 0:
            raise BadInput(f"The seed must be 0 or more, not {self.seed}.")


Place = tuple[int, int]  # (number of the pair, slice)


def choose_places(places: list[Place], options: StudyOptions, random: np.random.Generator) -> tuple[list[Place], list[str]]:
    """Draw the slices of all trials: practice, then main.

    No slice comes in both phases, so that none is judged that a reader was told about. Within a phase none comes twice until all
    have come; then they come again in another order.

    Args:
        places: all slices that may be shown.
        options: the numbers of trials.
        random: the source of chance.

    Returns:
        One place for each trial, and what the user must know about repeats.

    Raises:
        BadInput: if there are too few slices for two phases.
    """
    total = options.practice + options.trials
    if len(places) < (2 if options.practice else 1):
        raise BadInput(f"Only {len(places)} slices have enough foreground. Give more or larger images, or no practice trials.")
    shuffled = [places[n] for n in random.permutation(len(places))]
    share = round(len(places) * options.practice / total) if len(places) < total else options.practice
    share = min(max(share, 1), len(places) - 1) if options.practice else 0
    chosen: list[Place] = []
    notes = []
    for phase, pool, wanted in (("practice", shuffled[:share], options.practice), ("main", shuffled[share:], options.trials)):
        drawn: list[Place] = []
        while len(drawn) < wanted:
            order = [pool[n] for n in random.permutation(len(pool))]
            if drawn and order[0] == drawn[-1]:  # not twice running
                order = order[1:] + order[:1]
            drawn += order
        chosen += drawn[:wanted]
        if len(pool) < wanted:
            repeats = f"The {wanted} {phase} trials show {len(pool)} different pairs, each up to {-(-wanted // len(pool))} times"
            narrow = ": they are not independent, and the confidence interval is too narrow." if phase == "main" else "."
            notes.append(repeats + narrow)
    return chosen, notes


def make_study(
    pairs: list[Pair], output: Path, options: StudyOptions | None = None, progress: Progress = quiet
) -> tuple[ReaderStudy, list[str]]:
    """Make a study's folder, whole or not at all. The same pairs, options and seed give the same study.

    Args:
        pairs: real and synthetic images, two of a case on one grid.
        output: a folder that is not there yet, or is empty.
        options: numbers of trials, seed, plane.
        progress: hears of every case.

    Returns:
        The study, and what the user must know (repeated pairs).

    Raises:
        BadInput: options, pairs that cannot be used, too few slices, or `output` is there already. OutputFailure: not writable.
    """
    options = options or StudyOptions()
    options.check()
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        what = "is a reader study already" if (output / STUDY_FILE).is_file() else "exists and is not a reader study"
        raise BadInput(f"{output} {what}; nothing in it is changed. Choose another --output.")
    drawings, places = _plan(pairs, options.plane, progress)
    random = np.random.default_rng(options.seed)
    chosen, notes = choose_places(places, options, random)
    sides = [SIDES[n] for n in random.integers(0, 2, len(chosen))]
    staging = _staging_folder(output)
    try:
        names = _draw_all(pairs, drawings, set(chosen), options.plane, staging, progress)
        trials = []
        for number, (place, side) in enumerate(zip(chosen, sides, strict=True), start=1):
            real, synthetic = (f"images/{name}.png" for name in names[place])
            phase = "practice" if number <= options.practice else "main"
            shown = (synthetic, real) if side == "left" else (real, synthetic)
            trials.append(Trial(number, phase, pairs[place[0]].case, place[1], *shown, side))
        content = _content(options, pairs, _common_shape(drawings), len(set(chosen)), notes, trials)
        (staging / STUDY_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if output.is_dir():
            output.rmdir()
        give_usual_mode(staging)
        os.replace(staging, output)
    except OSError as error:
        raise OutputFailure(describe_write_error(output, error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return read_study(output), notes


def _plan(pairs: list[Pair], plane: str, progress: Progress) -> tuple[list[Drawing], list[Place]]:
    """How each pair is drawn, and all slices that may be shown. The volumes are not kept: there may be hundreds."""
    if not pairs:
        raise BadInput("No pairs of images were given.")
    drawings, places = [], []
    for number, pair in enumerate(pairs):
        progress("check", number / len(pairs), pair.case)
        images = read_pair(pair, plane)
        drawings.append(plan_drawing(images))
        places += [(number, k) for k in images.shown_slices()]
    return drawings, places


def _staging_folder(output: Path) -> Path:
    try:
        return temporary_folder(output)
    except OSError as error:
        raise OutputFailure(describe_write_error(output, error)) from error


def _common_shape(drawings: list[Drawing]) -> tuple[int, int]:
    return max(drawing.shape[0] for drawing in drawings), max(drawing.shape[1] for drawing in drawings)


def _draw_all(
    pairs: list[Pair], drawings: list[Drawing], chosen: set[Place], plane: str, folder: Path, progress: Progress
) -> dict[Place, tuple[str, str]]:
    """Write the images of all chosen slices; returns the names of the real and the synthetic one."""
    (folder / "images").mkdir()
    shape, names = _common_shape(drawings), {}
    used = sorted({number for number, _ in chosen})
    for done, number in enumerate(used):
        progress("draw", done / len(used), pairs[number].case)
        images = read_pair(pairs[number], plane)
        for k in sorted(k for of, k in chosen if of == number):
            drawn = draw_slice(images, drawings[number], k, shape)
            names[number, k] = tuple(_write_png(folder / "images", image) for image in drawn)
    for path in folder.glob("images/*"):  # the times of writing would tell real from synthetic
        os.utime(path, (0, 0))
    return names


def _write_png(folder: Path, grey: np.ndarray) -> str:
    """Write an image [row, column] uint8 under the hash of its pixels; returns that name without suffix."""
    import SimpleITK as sitk

    name = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()[:HASH_LENGTH]
    try:
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(folder / f"{name}.png"))
    except RuntimeError as error:
        raise OSError(f"an image could not be written ({str(error).splitlines()[-1].strip()})") from error
    return name


def _content(
    options: StudyOptions, pairs: list[Pair], shape: tuple[int, int], shown: int, notes: list[str], trials: list[Trial]
) -> dict[str, Any]:
    """What `study.json` holds. No paths: a study goes to other machines."""
    content = {
        "kind": KIND,
        "format": FORMAT,
        "contains_synthetic_images": True,
        "notice": NOTICE,
        "design": "two-alternative forced choice: which image is synthetic? (Yang et al. 2020)",
        "imt": VERSION,
        "plane": options.plane,
        "seed": options.seed,
        "practice": options.practice,
        "main": options.trials,
        "cases": len(pairs),
        "different_pairs": shown,
        "image_size": {"rows": shape[0], "columns": shape[1]},
        "scaling": {"name": SCALING, "text": CONVENTIONS[f"scaling {SCALING}"], "region": "one mask for both images of a pair"},
        "notes": notes,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    return {"study": study_id_of(content), **content}
