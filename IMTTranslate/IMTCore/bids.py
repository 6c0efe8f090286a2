"""Names after BIDS, the Brain Imaging Data Structure (bids-specification.readthedocs.io, 1.10): read, and made for derivatives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BadInput
from .files import stem_of

VERSION = "1.10.0"
# In the order in which names have them (the specification's appendix "Entities"), as far as volumes have them.
ENTITIES = (
    "sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo", "flip",
    "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc",
)  # fmt: skip
SUFFIXES = {"T1": "T1w", "T1C": "T1w", "T2": "T2w", "PD": "PDw", "FLAIR": "FLAIR", "T2STAR": "T2starw"}
AGENT = "ce"  # a T1w with this entity was taken after contrast agent
ANAT = "anat"
_PART = re.compile(r"([a-z]+)-([0-9A-Za-z+]+)")
_SUFFIX = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True)
class BidsName:
    """A file's name: its entities, such as {"sub": "01", "run": "1"}, and its suffix, such as "T1w"."""

    entities: Mapping[str, str]
    suffix: str

    @property
    def stem(self) -> str:
        """The name without its extension.

        Raises:
            ValueError: an entity that BIDS does not have.
        """
        parts = sorted(self.entities.items(), key=lambda part: ENTITIES.index(part[0]))
        return "_".join([*(f"{key}-{value}" for key, value in parts), self.suffix])

    @property
    def folder(self) -> Path:
        """Its folder within a data set: sub-01/anat or sub-01/ses-02/anat."""
        parts = [f"{key}-{self.entities[key]}" for key in ("sub", "ses") if key in self.entities]
        return Path(*parts, ANAT)

    @property
    def examination(self) -> str:
        """All but the suffix: what the images of one examination have in common."""
        return self.stem.removesuffix(f"_{self.suffix}")

    @property
    def modality(self) -> str:
        """What the suffix stands for; a suffix that IMT has no other name for stands for itself."""
        names = [name for name, suffix in SUFFIXES.items() if suffix == self.suffix]
        if self.suffix == SUFFIXES["T1C"]:
            return "T1C" if AGENT in self.entities else "T1"
        return names[0] if names else self.suffix

    def of(self, suffix: str, **entities: str) -> BidsName:
        """The name of something made from it."""
        return BidsName({**self.entities, **entities}, suffix)

    def of_modality(self, modality: str, **entities: str) -> BidsName:
        """The name of an image of another modality. The contrast agent of the one at hand says nothing of it."""
        kept = {key: value for key, value in self.entities.items() if key != AGENT}
        agent = {AGENT: "gadolinium"} if modality.upper() == "T1C" else {}
        suffix = SUFFIXES.get(modality.upper()) or label(modality)
        return BidsName({**kept, **agent, **entities}, suffix)


def label(text: str) -> str:
    """A text as a BIDS label, which has letters and digits only; empty if it holds none."""
    return re.sub(r"[^0-9A-Za-z]", "", text)


def parse_name(path: Path) -> BidsName | None:
    """The parts of a volume's name; None if it is no BIDS name."""
    *parts, suffix = stem_of(path).split("_")
    found = [_PART.fullmatch(part) for part in parts]
    if not found or not all(found) or not _SUFFIX.fullmatch(suffix) or found[0][1] != "sub":
        return None
    entities = {match[1]: match[2] for match in found}
    if len(entities) < len(parts) or not entities.keys() <= set(ENTITIES):
        return None
    return BidsName(entities, suffix)


def is_bids_folder(folder: Path) -> bool:
    """Whether a folder has sub-<label>/anat or sub-<label>/ses-<label>/anat."""
    return bool(_anatomies(folder))


def bids_images(folder: Path) -> list[tuple[Path, BidsName]]:
    """All volumes in the anat folders of a data set; those that are links to nowhere (data not fetched) are among them.

    Raises:
        BadInput: a folder that cannot be read.
    """
    found = []
    for anatomy in _anatomies(folder):
        for path in _sorted(anatomy):
            name = parse_name(path) if path.name.endswith((".nii", ".nii.gz")) and not path.is_dir() else None
            if name is not None:
                found.append((path, name))
    return found


def siblings(path: Path, modality: str) -> list[Path]:
    """The images of a modality in the folder of `path` that belong to the same examination; more than one if it is not clear.

    Of several the one counts that shares the run, then the one that shares the acquisition.
    """
    given = parse_name(path)
    if given is None or not path.parent.is_dir():
        return []
    names = [(other, parse_name(other)) for other in _sorted(path.parent) if other.name.endswith((".nii", ".nii.gz")) and other != path]
    fitting = [(other, name) for other, name in names if name is not None and name.modality.lower() == modality.lower()]
    same = [part for part in fitting if all(part[1].entities.get(key) == given.entities.get(key) for key in ("sub", "ses"))]
    for key in ("run", "acq", "rec", "space", "desc"):
        sharing = [part for part in same if part[1].entities.get(key) == given.entities.get(key)]
        same = sharing if len(same) > 1 and sharing else same
    return [other for other, _ in same]


def _anatomies(folder: Path) -> list[Path]:
    subjects = [sub for sub in _sorted(folder) if re.fullmatch(r"sub-[0-9A-Za-z+]+", sub.name) and sub.is_dir()]
    found = []
    for subject in subjects:
        sessions = [ses for ses in _sorted(subject) if re.fullmatch(r"ses-[0-9A-Za-z+]+", ses.name) and ses.is_dir()]
        found += [place / ANAT for place in (subject, *sessions) if (place / ANAT).is_dir()]
    return found


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"The folder {folder} cannot be read ({error.strerror}). Check its permissions.") from error
