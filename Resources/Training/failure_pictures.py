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
from pathlib import Path
from typing import Any

import numpy as np

from case_pictures import draw_slice, head_box, rows_figure, save_figure
from case_volumes import Case, load_case, predicted, subjects_with
from failure_places import KINDS, SIGMA_MM, Place, find_places
from training_data import select_subjects
from unseen_subjects import check_unseen

from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_text
from IMTCore.settings import TranslationSettings
from IMTCore.statistics import markdown_table
from IMTCore.translation import Translator
from IMTCore.volume_io import read_volume

TRANSLATION_TOP = 255.0


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
