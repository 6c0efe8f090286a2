"""Find and draw where a translation goes wrong: invented, missing and broken structure (Yang et al. 2020, Fig. 11), and where it is good.

Of each method, over all test subjects (images 0 to 1, error: prediction minus truth):

- invented: where the error, smoothed by a 3D Gaussian, is highest; missing: where it is lowest;
- broken: the lowest SSIM of a neighbourhood inside the head where the truth has structure (its local contrast is above the
  head's median), away from the two places above on the same subject;
- best: the slice with the highest mean SSIM inside the head, among those with at least half of the largest slice's head.

Example:
    python Resources/Training/failure_pictures.py --data DATA --source T1 --target T2 --test glioma/case_02 glioma/case_05 \
        --model 'IMT=T1-T2' --translations RF=runs/tables/glioma-T1-T2/fold0/RF/translations --output results/failures

A folder of --translations holds `<subject>.nii.gz` on the subject's grid, 0 to 255 (as run_tables.py stores it). Writes
`<method>.png` and index.md with the numbers of each place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training_data import select_subjects
from unseen_subjects import check_unseen
from validate_volume import Case, draw_slice, head_box, load_case, predicted, rows_figure, save_figure, subjects_with

from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_text
from IMTCore.settings import TranslationSettings
from IMTCore.statistics import markdown_table
from IMTCore.structural_similarity import SSIM_WINDOWS, ssim_map
from IMTCore.translation import Translator
from IMTCore.volume_io import read_volume

KINDS = ("invented", "missing", "broken", "best")
SIGMA_MM = 3.0
APART_MM = 15.0  # a broken place this near to the invented or missing one would show the same thing
CIRCLE_MM = (8.0, 25.0)
TRANSLATION_TOP = 255.0


@dataclass(frozen=True)
class Place:
    """A place in a prediction.

    Attributes:
        kind: one of `KINDS`.
        subject: its name.
        k, j, i: voxel of the axial array; of kind best, only k counts.
        value: the smoothed error (invented, missing), the neighbourhood's SSIM (broken), or the slice's (best).
        volume_ml: of the connected region where the smoothed error is beyond half of `value`; NaN for the other kinds.
        predicted, true: mean intensity there, 0 to 1; NaN for the other kinds.
        radius_mm: of the circle that marks it.
    """

    kind: str
    subject: str
    k: int
    j: int
    i: int
    value: float
    volume_ml: float = float("nan")
    predicted: float = float("nan")
    true: float = float("nan")
    radius_mm: float = CIRCLE_MM[0]

    def sentence(self) -> str:
        """What there is, for a title."""
        if self.kind == "best":
            return f"Best slice: mean SSIM in the head {self.value:.3f}"
        if self.kind == "broken":
            return f"Broken structure: SSIM of the neighbourhood {self.value:.3f}"
        return f"{self.kind.capitalize()} structure: {self.predicted:.2f} in place of {self.true:.2f} over {self.volume_ml:.2f} mL"


# --- Finding -------------------------------------------------------------------------------------------------------


def error_place(case: Case, prediction: np.ndarray, sign: int, sigma_mm: float = SIGMA_MM) -> Place:
    """The highest (`sign` 1) or lowest (-1) smoothed error on the acquired slices.

    Args:
        case: the subject.
        prediction: axial [k, j, i] in 0 to 1.
        sign: 1 for invented, -1 for missing structure.
        sigma_mm: of the Gaussian; structures of about this size stand out most.
    """
    from scipy.ndimage import gaussian_filter, label

    error = np.where(case.kept[:, None, None], prediction - case.truth, 0)
    smooth = sign * gaussian_filter(error, [sigma_mm / s for s in case.spacing_kji], mode="constant")
    smooth[~case.kept] = -np.inf
    peak = np.unravel_index(int(smooth.argmax()), smooth.shape)
    value = float(smooth[peak])
    parts, _ = label(smooth > value / 2) if value > 0 else (np.zeros(smooth.shape, int), 0)
    blob = parts == parts[peak] if parts[peak] else np.zeros(smooth.shape, bool)
    blob[peak] = True
    in_plane_mm2 = blob[peak[0]].sum() * case.spacing_kji[1] * case.spacing_kji[2]
    radius = float(np.clip(1.5 * np.sqrt(in_plane_mm2 / np.pi), *CIRCLE_MM))
    volume_ml = float(blob.sum() * np.prod(case.spacing_kji) / 1000)
    means = float(prediction[blob].mean()), float(case.truth[blob].mean())
    return Place("invented" if sign > 0 else "missing", case.name, *map(int, peak), sign * value, volume_ml, *means, radius)


def head_ssim(case: Case, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The SSIM (7×7, range 1) around each pixel [k, j, i], and where it counts: windows wholly inside an acquired head.

    Raises:
        BadInput: if there is no such place.
    """
    from scipy.ndimage import binary_erosion, binary_fill_holes

    pad = SSIM_WINDOWS["uniform"] // 2
    if min(case.truth.shape[1:]) <= 2 * pad:
        raise BadInput(f"{case.name}: SSIM needs slices of at least {2 * pad + 1} pixels a side. Leave it out.")
    similar, inside = np.ones(case.truth.shape), np.zeros(case.truth.shape, bool)
    for k in np.flatnonzero(case.kept & case.head.any(axis=(1, 2))):
        similar[k, pad:-pad, pad:-pad] = ssim_map(case.truth[k], prediction[k], 1.0)
        inside[k] = binary_erosion(binary_fill_holes(case.head[k]), np.ones((2 * pad + 1,) * 2))
    if not inside.any():
        raise BadInput(f"{case.name}: the head is nowhere {2 * pad + 1} pixels wide. Leave it out.")
    return similar, inside


def broken_place(case: Case, ssim: tuple[np.ndarray, np.ndarray], others: Sequence[Place], sigma_mm: float = SIGMA_MM) -> Place:
    """The lowest mean SSIM around a place with structure, at least `APART_MM` from `others` of the same subject if any is left.

    Args:
        case: the subject.
        ssim: as `head_ssim` gives.
        others: places that are shown already.
        sigma_mm: of the in-plane Gaussian that weighs the neighbourhood; pixels outside of the head have no weight.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    similar, inside = ssim
    sigmas = [0.0, *(sigma_mm / s for s in case.spacing_kji[1:])]
    weight = gaussian_filter(inside.astype(float), sigmas, mode="constant")
    mean = gaussian_filter(np.where(inside, similar, 0), sigmas, mode="constant") / np.maximum(weight, 1e-6)
    width = [1, *[SSIM_WINDOWS["uniform"]] * 2]
    contrast = uniform_filter(case.truth**2, width) - uniform_filter(case.truth, width) ** 2
    allowed = inside & (contrast >= np.median(contrast[inside]))
    grid = np.indices(allowed.shape, sparse=True)
    apart = allowed.copy()
    for other in (place for place in others if place.subject == case.name):
        at = (other.k, other.j, other.i)
        apart &= sum((s * (x - c)) ** 2 for s, x, c in zip(case.spacing_kji, grid, at, strict=True)) >= APART_MM**2
    allowed = apart if apart.any() else allowed
    lowest = np.unravel_index(int(np.where(allowed, mean, np.inf).argmin()), mean.shape)
    return Place("broken", case.name, *map(int, lowest), float(mean[lowest]), radius_mm=max(CIRCLE_MM[0], 2 * sigma_mm))


def best_slice(case: Case, ssim: tuple[np.ndarray, np.ndarray]) -> Place:
    """The slice with the highest mean SSIM inside the head, among those with at least half of the largest slice's head."""
    similar, inside = ssim
    areas = inside.sum(axis=(1, 2))
    means = np.where(inside, similar, 0).sum(axis=(1, 2)) / np.maximum(areas, 1)
    k = int(np.where(areas >= areas.max() / 2, means, -np.inf).argmax())
    return Place("best", case.name, k, 0, 0, float(means[k]))


def find_places(pairs: Iterator[tuple[Case, np.ndarray]], sigma_mm: float = SIGMA_MM) -> dict[str, tuple[Place, Case, np.ndarray]]:
    """Of one method, the place of each kind over all its subjects, with the case and the prediction.

    Args:
        pairs: each subject and its prediction, axial [k, j, i] in 0 to 1; gone through once.
        sigma_mm: see `error_place`.
    """
    found: dict[str, tuple[Place, Case, np.ndarray]] = {}
    better = {"invented": 1, "missing": -1, "broken": -1, "best": 1}
    for case, prediction in pairs:
        errors = [error_place(case, prediction, sign, sigma_mm) for sign in (1, -1)]
        ssim = head_ssim(case, prediction)
        for place in (*errors, broken_place(case, ssim, errors, sigma_mm), best_slice(case, ssim)):
            sign = better[place.kind]
            if place.kind not in found or sign * place.value > sign * found[place.kind][0].value:
                found[place.kind] = (place, case, prediction)
    return found


# --- Pictures and index --------------------------------------------------------------------------------------------


def draw_places(label: str, found: dict[str, tuple[Place, Case, np.ndarray]]) -> Any:
    """A figure with a row for each kind: input, prediction, truth, signed error, the place in a circle."""
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke

    chosen = [found[kind] for kind in KINDS]
    boxes = [head_box(case, place.k, None if place.kind == "best" else (place.j, place.i)) for place, case, _ in chosen]
    figure, parts = rows_figure([(case, box) for (_, case, _), box in zip(chosen, boxes, strict=True)])
    for part, (place, case, prediction), box in zip(parts, chosen, boxes, strict=True):
        title = f"{label}. {place.sentence()}\n{case.name}, axial slice {place.k}"
        axes = draw_slice(part, case, prediction, place.k, title, box)
        if place.kind == "best":
            continue
        for axis in axes:
            width, height = (2 * place.radius_mm / case.spacing_kji[n] for n in (2, 1))
            circle = Ellipse((place.i, place.j), width, height, fill=False, edgecolor="#f0e442", linewidth=1.6)
            circle.set_path_effects([withStroke(linewidth=3.4, foreground="black")])  # seen on black, grey and colours
            axis.add_patch(circle)
    return figure


def file_stem(label: str) -> str:
    """A method's label as a file name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in label)


def index(found: dict[str, dict[str, tuple[Place, Case, np.ndarray]]], source: str, target: str, sigma_mm: float) -> str:
    """The Markdown page: the numbers of every place, and the pictures."""
    header = ("method", "kind", "subject", "slice k", "j", "i", "smoothed error", "SSIM", "predicted", "true", "mL")
    rows = []
    for label, places in found.items():
        for kind in KINDS:
            p = places[kind][0]
            blob = kind in ("invented", "missing")
            numbers = [f"{p.value:+.3f}", "", f"{p.predicted:.3f}", f"{p.true:.3f}", f"{p.volume_ml:.2f}"] if blob else ["", f"{p.value:.3f}", "", "", ""]
            at = ["", ""] if kind == "best" else [p.j, p.i]
            rows.append([label, kind, p.subject, p.k, *at, *numbers])
    pictures = "".join(f"\n## {label}\n\n![{label}]({file_stem(label)}.png)\n" for label in found)
    return (
        f"# {source} to {target}: where translations fail, and where they do not\n\n{markdown_table(header, rows)}\n"
        f"Images 0 to 1; slices are axial, voxels counted from 0 in axial order. Invented and missing: the highest and lowest error (predicted "
        f"minus true) after a Gaussian of {sigma_mm:g} mm, with the mean intensities and the volume of the region beyond half of it. Broken: the "
        "lowest SSIM (7x7) of a neighbourhood with structure inside the head. Best: the slice with the highest mean SSIM in the head. These are "
        "extremes over the subjects, found by rule, not typical cases.\n" + pictures
    )


# --- Command -------------------------------------------------------------------------------------------------------


def labelled(entries: Sequence[str]) -> dict[str, str]:
    """{label: the rest} of LABEL=REST entries; without a label, the last part of the path.

    Raises:
        BadInput: for a label that comes twice.
    """
    made: dict[str, str] = {}
    for entry in entries:
        label, _, rest = entry.partition("=") if "=" in entry else (Path(entry).stem, "", entry)
        if label in made:
            raise BadInput(f"The label {label} is given twice: name the methods LABEL=... apart.")
        made[label] = rest
    return made


def of_model(model: str, data: Path, values: argparse.Namespace) -> Iterator[tuple[Case, np.ndarray]]:
    """Each test subject with the model's prediction. Raises BadInput, BadModel; refuses subjects that it was trained on."""
    card = find_card(model)
    subjects = subjects_with(data, values.test, [values.source, values.target])
    check_unseen(card, [subject.name for subject in subjects])
    translator = Translator(card, TranslationSettings(values.source, values.target, values.device, "fp32", check_modality=False))
    for subject in subjects:
        case = load_case(subject, values.source, values.target)
        yield case, predicted(translator, case)


def of_folder(folder: Path, data: Path, values: argparse.Namespace) -> Iterator[tuple[Case, np.ndarray]]:
    """Each test subject with its prediction file. Raises BadInput: one is missing or on another grid."""
    for subject in subjects_with(data, values.test, [values.source, values.target]):
        case = load_case(subject, values.source, values.target)
        path = folder / f"{subject.name.partition('/')[2]}.nii.gz"
        volume = read_volume(path)
        if not volume.geometry.is_close(case.volume.geometry, 1e-2):
            raise BadInput(f"{path} is not on the grid of {subject.name}: give the translation of that image.")
        if volume.array.max() > TRANSLATION_TOP:
            raise BadInput(f"{path} goes up to {volume.array.max():g}, beyond {TRANSLATION_TOP:g}: give a translation of range 0 to 255.")
        yield case, case.axial(volume.array, TRANSLATION_TOP)


def make(values: argparse.Namespace) -> None:
    """Find, draw and write."""
    check_writable(values.output / "index.md")
    if not values.sigma_mm > 0:
        raise BadInput(f"--sigma-mm {values.sigma_mm:g}: it must be above 0.")
    models, folders = labelled(values.model), labelled(values.translations)
    if not models and not folders:
        raise BadInput("There is nothing to look at: give --model or --translations.")
    if len({file_stem(label) for label in [*models, *folders]}) < len(models) + len(folders):
        raise BadInput("Two methods have the same label: name each LABEL=...")
    select_subjects(values.data, values.test)
    methods = {label: of_model(model, values.data, values) for label, model in models.items()}
    methods |= {label: of_folder(Path(folder), values.data, values) for label, folder in folders.items()}
    found = {}
    for label, pairs in methods.items():
        found[label] = find_places(pairs, values.sigma_mm)
        save_figure(draw_places(label, found[label]), values.output / f"{file_stem(label)}.png")
        for kind in KINDS:
            place = found[label][kind][0]
            print(f"{label}: {place.subject}, slice {place.k}. {place.sentence()}", flush=True)
    write_text(values.output / "index.md", index(found, values.source, values.target, values.sigma_mm))


def main(arguments: list[str] | None = None) -> None:
    """Make the pictures; an error is one sentence on the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="plain folders <dataset>/<subject>/<modality>.nii.gz")
    parser.add_argument("--source", required=True, help="modality of the given image")
    parser.add_argument("--target", required=True, help="modality of the translation")
    parser.add_argument("--test", required=True, nargs="+", help="patterns of subjects that were not trained on")
    parser.add_argument("--model", nargs="+", default=[], metavar="LABEL=MODEL", help="names or cards of models")
    parser.add_argument("--translations", nargs="+", default=[], metavar="LABEL=FOLDER", help="folders of translated volumes")
    parser.add_argument("--sigma-mm", type=float, default=SIGMA_MM, help=f"size of structures to look for (default {SIGMA_MM:g})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--output", required=True, type=Path)
    try:
        make(parser.parse_args(arguments))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
