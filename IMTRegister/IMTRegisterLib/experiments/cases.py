"""The subjects of an experiment, with the atlases each may be registered with, and its results, kept as they are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.files import check_writable, sha256_of, write_json
from IMTCore.label_names import LabelNames, default_label
from IMTCore.volume_io import WRITABLE

from ..atlases.atlas_sets import Atlas, AtlasSet, read_atlas_set

SHOWN_LETTERS = 300  # of an error


@dataclass(frozen=True)
class Subject:
    """One subject: its images, with its labels as the truth.

    Attributes:
        atlas: its files, in the layout of an atlas.
        real: its real second image; None if it has none.
        left_out: the atlases that are this subject itself.
    """

    atlas: Atlas
    real: Path | None = None
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The subject's name."""
        return self.atlas.name


def read_sets(
    atlases: Path, subjects: Path, modality: str, second: str | None, real: bool, names: Sequence[str] = (), atlas_names: Sequence[str] = ()
) -> tuple[AtlasSet, list[Subject], list[str]]:
    """Read the atlases and the subjects of an experiment.

    Args:
        second: the second modality, which every atlas must have; None for none.
        real: whether subjects' real second images are used; a subject may lack its own.
        names, atlas_names: the subjects and atlases to take; none of them means all.

    Returns:
        The atlases, the subjects, and what the user should know.

    Raises:
        BadInput: faults of a set, unknown names, codes that mean two things, or no atlas left for a subject.
    """
    needed = (modality,) if second is None else (modality, second)
    atlas_set = chosen(read_atlas_set(atlases, needed), atlas_names, "atlas")
    subject_set = chosen(read_atlas_set(subjects, (modality,)), names, "subject")
    check_same_codes(atlas_set.names, subject_set.names, atlas_set, subject_set)
    warnings = [*atlas_set.warnings, *(warning for warning in subject_set.warnings if warning not in atlas_set.warnings)]
    found = []
    hashes = {atlas.name: _content(atlas, modality) for atlas in atlas_set.atlases}
    for atlas in subject_set.atlases:
        content = _content(atlas, modality)
        same = [a.name for a in atlas_set.atlases if a.name.casefold() == atlas.name.casefold() or hashes[a.name] & content]
        if len(same) == len(atlas_set.atlases):
            raise BadInput(f"Subject {atlas.name} is the only atlas: there is none to register it with. Add atlases.")
        if same:
            warnings.append(f"{atlas.name} is among the atlases ({', '.join(same)}) and is left out of its own.")
        image = next((path for kind, path in atlas.images.items() if second and kind.casefold() == second.casefold()), None)
        found.append(Subject(atlas, image if real else None, tuple(same)))
    if real and (lacking := [subject.name for subject in found if subject.real is None]):
        if len(lacking) == len(found):
            raise BadInput(f"No subject of {subjects} has a real {second} image. Leave the real pairs out.")
        warnings.append(f"No real {second}: {', '.join(lacking)}.")
    return atlas_set, found, warnings


def chosen(atlas_set: AtlasSet, names: Sequence[str], what: str) -> AtlasSet:
    """The set with the atlases of these names alone, in the set's order; no names mean all.

    Raises:
        BadInput: one that is not there.
    """
    there = [atlas.name for atlas in atlas_set.atlases]
    if unknown := [name for name in names if name not in there]:
        raise BadInput(f"{atlas_set.path} has no {what} {', '.join(unknown)}. It has {', '.join(there)}.")
    return without(atlas_set, [name for name in there if names and name not in names])


def without(atlas_set: AtlasSet, names: Iterable[str]) -> AtlasSet:
    """The set without some of its atlases, and the labels that the others have."""
    out = set(names)
    if not out:
        return atlas_set
    facts = tuple(fact for fact in atlas_set.facts if fact.name not in out)
    codes = tuple(sorted({code for fact in facts for code in fact.volumes_ml}))
    return replace(atlas_set, atlases=tuple(a for a in atlas_set.atlases if a.name not in out), codes=codes, facts=facts)


def check_same_codes(first: LabelNames, second: LabelNames, first_set: AtlasSet, second_set: AtlasSet) -> None:
    """Refuse two sets whose labels have the same codes with other names.

    Raises:
        BadInput: naming the codes.
    """
    wrong = []
    for code in first:
        names = {first.name_of(code).casefold(), second.name_of(code).casefold()}
        if code in second and len(names - {default_label(code).name}) > 1:
            wrong.append(f"{code} ({first.name_of(code)}, {second.name_of(code)})")
    if wrong:
        raise BadInput(f"{first_set.path} and {second_set.path} name the codes {', '.join(wrong[:10])} differently. Bring the labels to one list.")


def translated_images(folder: Path, subjects: Sequence[Subject], second: str) -> dict[str, Path]:
    """Subject -> its translated image in a folder: `<subject>/<second>.nii.gz` or `<subject>.nii.gz` (or another format).

    Raises:
        BadInput: a subject has none, or several.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder of translated images. Give one with <subject>/{second}.nii.gz.")
    found, missing = {}, []
    for subject in subjects:
        stems = (folder / subject.name / second, folder / subject.name)
        files = [path for stem in stems for suffix in WRITABLE if (path := stem.with_name(stem.name + suffix)).is_file()]
        if len(files) > 1:
            raise BadInput(f"{folder} has {len(files)} translated images of {subject.name}: {', '.join(map(str, files))}. Keep one.")
        if files:
            found[subject.name] = files[0]
        else:
            missing.append(subject.name)
    if missing:
        raise BadInput(f"{folder} has no {second} image of {', '.join(missing)}. It needs <subject>/{second}.nii.gz.")
    return found


class Results:
    """Results in a folder, `<key>.json`, each with an identity of all that went into it.

    `get` gives a result if it is there and still holds; `put` keeps one, whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, identity: str) -> dict[str, Any] | None:
        """The result; None if there is none of this identity."""
        try:
            content = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) and content.get("identity") == identity else None

    def put(self, key: str, identity: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a result; numbers that are not finite become null.

        Raises:
            OutputFailure: it cannot be written.
        """
        kept = {"identity": identity, **clean(content)}
        write_json(self.folder / f"{key}.json", kept)
        return kept


def clean(content: Any) -> Any:
    """The same for JSON: NumPy's numbers as Python's, and None for those that are not finite."""
    if isinstance(content, Mapping):
        return {str(key): clean(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [clean(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(content) if np.isfinite(content) else None
    return content.item() if isinstance(content, np.generic) else content


def short(error: BaseException) -> str:
    """An error's message on one line, for a table."""
    text = " ".join(str(error).split())
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 3] + "..."


def keep_plan(path: Path, fixed: Mapping[str, Any], changing: Mapping[str, Any]) -> None:
    """Write an experiment's plan; refuse to add to another experiment.

    Args:
        fixed: what must stay for results to be of one experiment.
        changing: what may grow from call to call.

    Raises:
        BadInput: the folder is another experiment's; the message says in what. OutputFailure.
    """
    check_writable(path)
    fixed, changing = json.loads(json.dumps(clean(fixed))), clean(changing)
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["fixed"]
            different = [name for name in {**stored, **fixed} if stored.get(name) != fixed.get(name)]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadInput(f"{path} is no plan of an experiment ({error}). Choose another output folder.") from error
        if different:
            raise BadInput(f"{path.parent} holds another experiment (other {', '.join(different)}). Choose another output folder.")
    write_json(path, {"fixed": fixed, **changing})


def _content(atlas: Atlas, modality: str) -> set[str]:
    """What the same person's files have in common, whatever they are called."""
    return {sha256_of(atlas.images[modality]), sha256_of(atlas.labels)}
