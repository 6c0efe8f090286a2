"""Any layout of `datasets` → plain folders `<dataset>/<subject>/<modality>.nii.gz`, optionally at another spacing.

    python Resources/Training/prepare_dataset.py --data DATA --subjects 'glioma_brats2018/*' \
        --modalities T1 T2 FLAIR --spacing 2 --output DATA-2mm
    python Resources/Training/prepare_dataset.py --data IXI --layout ixi --modalities T2 T1 --resample --output DATA

A subject is done when its `prepared.json` says so; a run that was broken off goes on with the rest. Resizing slices to
256 x 256 and scaling to [0, 1] (Yang et al. 2020, Datasets, step 3) is left to the trainer (`--mode paper`), which does it as
the translator will; which slices a paper used is a matter of the split (make_split.py --slices).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

from IMTCore.errors import BadInput, ImtError
from IMTCore.files import write_json
from IMTCore.version import VERSION
from IMTCore.volume import Volume
from IMTCore.volume_io import write_volume

from datasets import LAYOUTS, Subject, check_same_grid, find_subjects, merged_label
from datasets.folders import RECORD
from datasets.resampling import resample_image, resample_labels, resample_to

MERGED_LABEL = "merged"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the release was unpacked into")
    parser.add_argument("--layout", default="folders", choices=list(LAYOUTS))
    parser.add_argument("--subjects", nargs="+", metavar="PATTERN", help="only those, such as 'nichart/*'")
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="images to take (default: all that a subject has)")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME",
        help="label maps to take; 'merged' is fluid, grey, white and tumour in one",
    )
    parser.add_argument(
        "--resample", action="store_true", help="bring registered images to the grid of the first of --modalities"
    )
    parser.add_argument("--spacing", type=float, metavar="MM", help="resample to this isotropic spacing")
    parser.add_argument("--incomplete-ok", action="store_true", help="leave out subjects without all modalities and labels")
    parser.add_argument("--list", action="store_true", help="only list the subjects, with their patients, images and labels")
    parser.add_argument("--output", type=Path, help="folder to write to")
    arguments = parser.parse_args(argv)
    if arguments.spacing is not None and not 0 < arguments.spacing < float("inf"):
        parser.error(f"--spacing must be positive, not {arguments.spacing}")
    if arguments.resample and not arguments.modalities:
        parser.error("--resample needs --modalities: the grid is that of the first of them")
    if not arguments.list and arguments.output is None:
        parser.error("--output is needed, or --list")
    return arguments


def read_subject(subject: Subject, arguments: argparse.Namespace) -> dict[str, Volume]:
    """{name: volume} of the wanted images and labels, on one grid.

    Raises:
        BadInput: one is missing or unreadable, or their grids differ and may not be resampled.
    """
    volumes = {modality: subject.volume(modality) for modality in arguments.modalities or sorted(subject.images)}
    if not volumes:
        raise BadInput(f"{subject.name} has no image.")
    for name in arguments.labels:
        merge = name == MERGED_LABEL and name not in subject.labels
        volumes[name] = merged_label(subject) if merge else subject.label(name)
    if arguments.resample:
        first = next(iter(volumes.values())).geometry
        volumes = {
            name: volume if volume.geometry.is_close(first) else resample_to(volume, first, name in arguments.labels)
            for name, volume in volumes.items()
        }
    check_same_grid(subject, volumes)
    return volumes


def prepare_subject(subject: Subject, arguments: argparse.Namespace) -> tuple[int, ...]:
    """Write one subject's files between the two versions of its record; (I, J, K), their size."""
    volumes = read_subject(subject, arguments)
    if arguments.spacing is not None:
        volumes = {
            name: (resample_labels if name in arguments.labels else resample_image)(volume, arguments.spacing)
            for name, volume in volumes.items()
        }
    folder = arguments.output / subject.name
    record = record_of(subject, arguments)
    write_json(folder / RECORD, {**record, "done": False})
    for name, volume in volumes.items():
        write_volume(folder / f"{name}.nii.gz", volume)
    write_json(folder / RECORD, {**record, "done": True})
    return next(iter(volumes.values())).geometry.shape[::-1]


def record_of(subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides how the prepared subject looks, and where it came from."""
    sources = {**subject.images, **subject.labels}
    wanted = {*(arguments.modalities or subject.images), *arguments.labels}
    if MERGED_LABEL in wanted:
        wanted |= set(subject.labels)
    settings = {key: getattr(arguments, key) for key in ("layout", "modalities", "labels", "resample", "spacing")}
    return {
        "subject": subject.name,
        "patient": subject.patient,
        "settings": settings,
        "sources": {name: {"path": str(path), "bytes": _bytes(path)} for name, path in sources.items() if name in wanted},
        "version": VERSION,
    }


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def is_done(subject: Subject, arguments: argparse.Namespace) -> bool:
    """Whether a former run has finished this subject in the same way.

    Raises:
        BadInput: the folder holds the subject prepared in another way, or files of another origin.
    """
    folder = arguments.output / subject.name
    if not (folder / RECORD).exists():
        if folder.exists() and any(folder.iterdir()):
            raise BadInput(f"{folder} holds files that this script did not write. Choose another --output.")
        return False
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        done, before = record.pop("done"), {key: record[key] for key in ("settings", "sources")}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{folder / RECORD} is damaged. Remove the folder, and the subject is prepared anew.") from error
    now = record_of(subject, arguments)
    changed = [key for key in before if _without_paths(before[key]) != _without_paths(now[key])]
    if changed:
        raise BadInput(f"{folder} was prepared with other {' and '.join(changed)} (see {RECORD} there). Choose another --output.")
    return bool(done)


def _without_paths(part: dict[str, Any]) -> dict[str, Any]:
    """The data may have been moved; their sizes tell whether they are the same."""
    return {key: value["bytes"] if isinstance(value, dict) else value for key, value in part.items()}


def missing_from(subject: Subject, arguments: argparse.Namespace) -> list[str]:
    """The wanted images and label maps that the subject does not have."""
    there = {*subject.images, *subject.labels} | ({MERGED_LABEL} if subject.labels else set())
    return [name for name in [*(arguments.modalities or []), *arguments.labels] if name not in there]


def prepare_all(subjects: list[Subject], arguments: argparse.Namespace) -> list[str]:
    """Prepare each subject, telling how far it is; the errors of those that failed."""
    errors = []
    for number, subject in enumerate(subjects, 1):
        try:
            missing = missing_from(subject, arguments)
            if is_done(subject, arguments):
                outcome = "done before"
            elif missing and arguments.incomplete_ok:
                outcome = f"left out, no {', '.join(missing)}"
            else:
                outcome = "x".join(map(str, prepare_subject(subject, arguments)))
        except BadInput as error:
            errors.append(str(error))
            outcome = "failed"
        print(f"{number}/{len(subjects)} {subject.name}: {outcome}", flush=True)
    return errors


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        subjects = find_subjects(arguments.data, arguments.layout, arguments.subjects)
        if not subjects:
            raise BadInput(f"No subject below {arguments.data} matches {' '.join(arguments.subjects)}.")
        if arguments.list:
            for subject in subjects:
                print(f"{subject.name}\t{subject.patient}\t{' '.join(subject.images)}\t{' '.join(subject.labels)}")
            return
        errors = prepare_all(subjects, arguments)
    except ImtError as error:
        sys.exit(str(error))
    if errors:
        sys.exit("\n".join([f"{len(errors)} of {len(subjects)} subjects could not be prepared:", *errors]))


if __name__ == "__main__":
    main()
