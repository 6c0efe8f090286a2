"""Atlas sets: subjects with images of several modalities, labels, and perhaps landmarks.

A set is a folder with one sub-folder an atlas, which holds `<modality>.nii.gz`, `labels.nii.gz` and perhaps
`landmarks.mrk.json` (in any format that IMT reads), and with the labels' names and colours in `labels.csv` at the top. Or
it is a CSV file with the columns atlas, modality, path (the modality is "labels" or "landmarks" for those), with
`labels.csv` beside it. Paths in it start at the CSV's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from IMTCore.cases import SAFE_NAME
from IMTCore.errors import BadInput
from IMTCore.files import stem_of
from IMTCore.label_names import FILE_NAME, LabelNames, default_label, default_names, read_label_names, read_rows
from IMTCore.progress import Progress, quiet
from IMTCore.volume_io import image_suffix

from .checks import LABELS, LANDMARKS, SHOWN, AtlasFacts, AtlasFiles, check_atlas, listed, spelling
from .landmarks import landmark_suffix

COLUMNS = ("atlas", "modality", "path")


@dataclass(frozen=True)
class Atlas:
    """One atlas: its files. `images`: modality -> file; a modality that was asked for is spelt as it was asked."""

    name: str
    folder: Path
    images: dict[str, Path]
    labels: Path
    landmarks: Path | None = None


@dataclass(frozen=True)
class AtlasSet:
    """A checked set. `codes`: all labels of its atlases, ascending, without 0; `warnings`: what the user should know."""

    path: Path
    atlases: tuple[Atlas, ...]
    names: LabelNames
    codes: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[AtlasFacts, ...] = ()


@dataclass(frozen=True)
class AtlasSetCheck:
    """An atlas set with all its faults: `atlases` are those without one, `facts` tell of all."""

    path: Path
    atlases: tuple[Atlas, ...]
    names: LabelNames
    facts: tuple[AtlasFacts, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def codes(self) -> tuple[int, ...]:
        """All labels of the atlases, ascending, without 0."""
        return tuple(sorted({code for facts in self.facts for code in facts.volumes_ml}))


def read_atlas_set(
    path: Path | str, modalities: Sequence[str] = (), labels: str = LABELS, progress: Progress = quiet
) -> AtlasSet:
    """Read and check an atlas set; arguments as `check_atlas_set`.

    Raises:
        BadInput: any fault of any atlas; the message lists those of all.
    """
    checked = check_atlas_set(path, modalities, labels, progress=progress)
    refuse_problems(checked)
    return AtlasSet(checked.path, checked.atlases, checked.names, checked.codes, checked.warnings, checked.facts)


def refuse_problems(checked: AtlasSetCheck) -> None:
    """Raise BadInput with the faults of all atlases, if there are any."""
    count = len(checked.problems)
    if count:
        lines = [f"The atlas set {checked.path} has {count} fault{'s' * (count > 1)}:", *checked.problems[:SHOWN]]
        lines += [f"and {count - SHOWN} more, which imt atlas check lists"] if count > SHOWN else []
        raise BadInput("\n- ".join(lines))


def check_atlas_set(
    path: Path | str,
    modalities: Sequence[str] = (),
    labels: str = LABELS,
    names_path: Path | str | None = None,
    progress: Progress = quiet,
) -> AtlasSetCheck:
    """Read all of an atlas set and collect its faults.

    Args:
        path: the set's folder or CSV file.
        modalities: what every atlas must have; only these images are read. None of them: all images are.
        labels: what the label files are called.
        names_path: the file with the labels' names; None takes `labels.csv` in the folder, or beside the CSV, if it is there.
        progress: hears of every atlas.

    Raises:
        BadInput: there is nothing at `path`, or no CSV or folder with atlases. All else is in the result.
    """
    path = Path(path)
    found, problems, warnings = _from_csv(path) if path.is_file() else _from_folder(path, labels)
    names, no_names = _read_names(path, names_path, problems)
    problems += _name_problems(found)
    atlases, facts, seen = [], [], {}
    for number, files in enumerate(found):
        progress("check", number / len(found), files.name)
        fact, digest = check_atlas(files, modalities, labels, names)
        if digest is not None and seen.setdefault(digest, files.name) != files.name:
            warnings.append(f"{seen[digest]} and {files.name} have the same labels, voxel by voxel. Is one atlas there twice?")
        facts.append(fact)
        problems += files.problems
        warnings += files.warnings
        if not files.problems:
            images = {spelling(kind, modalities): files.files[kind][0] for kind in files.images(labels)}
            atlases.append(Atlas(files.name, files.folder, images, files.first(labels), files.first(LANDMARKS)))
    codes = {code for fact in facts for code in fact.volumes_ml}
    if names is None:
        names = default_names(codes)
        called = default_label(min(codes, default=1)).name
        warnings[:0] = [f"There is no {FILE_NAME}: the labels are called {called} and so on, in colours by code."] * no_names
    warnings += _set_warnings(facts, names, modalities)
    return AtlasSetCheck(path, tuple(atlases), names, tuple(facts), tuple(problems), tuple(warnings))


def _from_folder(folder: Path, labels: str) -> tuple[list[AtlasFiles], list[str], list[str]]:
    if not folder.is_dir():
        raise BadInput(f"There is no atlas set {folder}. Give a folder with one sub-folder an atlas, or a CSV file.")
    try:
        subs = sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))
        found, passed = [], []
        for sub in subs:
            atlas = AtlasFiles(sub.name, sub)
            for file in sorted(file for file in sub.iterdir() if file.is_file() and not file.name.startswith(".")):
                suffix = landmark_suffix(file)
                if suffix and file.name[: -len(suffix)].lower() == LANDMARKS:
                    atlas.add(LANDMARKS, file)
                elif image_suffix(file) and not (image_suffix(file) == ".img" and file.with_suffix(".hdr").exists()):
                    atlas.add(stem_of(file), file)
            (found if atlas.files else passed).append(atlas)
    except OSError as error:
        raise BadInput(f"The folder {error.filename} cannot be read ({error.strerror}). Check its permissions.") from error
    if not found:
        raise BadInput(f"{folder} holds no atlas: it needs one sub-folder an atlas with <modality>.nii.gz and {labels}.nii.gz.")
    return found, [], [f"The sub-folder {atlas.name} holds no image and was passed over." for atlas in passed]


def _from_csv(path: Path) -> tuple[list[AtlasFiles], list[str], list[str]]:
    found: dict[str, AtlasFiles] = {}
    problems = []
    for number, row in read_rows(path, COLUMNS, ",".join(COLUMNS)):
        if not all(row[column] for column in COLUMNS):
            problems.append(f"{path}, line {number}: atlas, modality and path must not be empty")
            continue
        file = path.parent / row["path"]
        found.setdefault(row["atlas"], AtlasFiles(row["atlas"], file.parent)).add(row["modality"], file)
    if not found:
        raise BadInput(f"{path} names no atlas. It needs lines of {','.join(COLUMNS)}.")
    return list(found.values()), problems, []


def _read_names(path: Path, names_path: Path | str | None, problems: list[str]) -> tuple[LabelNames | None, bool]:
    """The labels' names, None if there are none; and whether there is no file with them (rather than a faulty one)."""
    beside = (path if path.is_dir() else path.parent) / FILE_NAME
    if names_path is None and (not beside.is_file() or beside == path):
        return None, True
    try:
        return read_label_names(names_path or beside), False
    except BadInput as error:
        problems.append(str(error).rstrip("."))
        return None, False


def _name_problems(found: Sequence[AtlasFiles]) -> list[str]:
    problems, seen = [], {}
    for files in found:
        if not SAFE_NAME.fullmatch(files.name) or files.name.startswith("."):
            problems.append(f"{files.name}: an atlas's name becomes a file's name. Use letters, digits and . _ + - only")
        other = seen.setdefault(files.name.casefold(), files.name)
        if other != files.name:
            problems.append(f"{files.name}: another atlas is called {other}. Give every atlas its own name")
    return problems


def _set_warnings(facts: Sequence[AtlasFacts], names: LabelNames, modalities: Sequence[str]) -> list[str]:
    """What is right, but may surprise."""
    warnings = []
    count = len(facts)
    if count == 1:
        warnings.append("There is one atlas only: its labels are carried over as they are. Majority and STAPLE need several atlases.")
    every = {kind for fact in facts for kind in fact.modalities} if not modalities else set()
    for kind in sorted(every):
        having = sum(kind in fact.modalities for fact in facts)
        if having < count:
            warnings.append(f"{kind} is in {having} of {count} atlases only.")
    codes = {code for fact in facts for code in fact.volumes_ml}
    partly = [code for code in sorted(codes) if sum(code in fact.volumes_ml for fact in facts) < count]
    if partly:
        texts = [f"{names.name_of(code)} ({sum(code in fact.volumes_ml for fact in facts)})" for code in partly]
        warnings.append(f"Some labels are not in all {count} atlases: {listed(texts)}.")
    if unused := [names.name_of(code) for code in names if code not in codes]:
        warnings.append(f"No atlas has the label{'s' * (len(unused) > 1)} {listed(unused)} of {FILE_NAME}.")
    return warnings
