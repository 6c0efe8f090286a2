"""Where a pipeline writes what: names of BIDS derivatives, and what a derivative data set needs besides."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IMTCore import bids
from IMTCore.bids import BidsName, parse_name
from IMTCore.cases import Case
from IMTCore.errors import BadInput
from IMTCore.files import write_json, write_text
from IMTCore.label_names import colour_table, read_label_names
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.version import VERSION

DESCRIPTION = "dataset_description.json"
IGNORE = ".bidsignore"
NAME = "IMT"
SOURCE = "source"  # the input's name in BIDS URIs
# What lies in the folder and is not of BIDS; each stands in .bidsignore.
NOT_BIDS = ("logs/", "pictures/", "plan.json", "run.json", "*.csv", "report.html", "**/*_labels.csv")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case. `name`: the input's name after BIDS, which others are made from; `folder`: of all outputs."""

    folder: Path
    name: BidsName

    def translation(self, modality: str, model: str = "") -> Path:
        """A translated image; `model` tells two of one modality apart."""
        return self._path(self.name.of_modality(modality, desc="synthetic" + bids.label(model)))

    def uncertainty(self, modality: str, model: str = "") -> Path:
        """The standard deviation of the translation."""
        return self._path(self.name.of_modality(modality, desc="uncertainty" + bids.label(model)))

    def labels(self, what: str) -> Path:
        """Labels; `what` is the task of the model, or "atlas"."""
        return self._path(self.name.of("dseg", desc=bids.label(what)))

    def probabilities(self, what: str) -> Path:
        """Probabilities of all classes."""
        return self._path(self.name.of("probseg", desc=bids.label(what)))

    def _path(self, name: BidsName) -> Path:
        return self.folder / name.folder / f"{name.stem}.nii.gz"


def case_files(cases: list[Case], folder: Path) -> dict[str, CaseFiles]:
    """The files of each case, by its name. Cases of no BIDS names get labels made from theirs; no two get the same.

    Raises:
        BadInput: a case whose name has neither letters nor digits.
    """
    names = {case.case: parse_name(case.path) or _made_name(case) for case in cases}
    made = {case.case for case in cases if parse_name(case.path) is None}
    for case in _alike(names) & made:
        names[case] = names[case].of(names[case].suffix, acq=bids.label(case) or "x")
    for case in _alike(names):
        digest = hashlib.sha256(case.encode()).hexdigest()[:6]
        names[case] = names[case].of(names[case].suffix, acq=names[case].entities.get("acq", "") + digest)
    return {case: CaseFiles(folder, name) for case, name in names.items()}


def _alike(names: dict[str, BidsName]) -> set[str]:
    """The cases that share their name with another one."""
    counts = Counter(name.examination.lower() for name in names.values())
    return {case for case, name in names.items() if counts[name.examination.lower()] > 1}


def _made_name(case: Case) -> BidsName:
    subject = bids.label(case.subject) or bids.label(case.case)
    if not subject:
        raise BadInput(f"The case name {case.case!r} has neither letters nor digits, of which BIDS makes names. Rename the case.")
    session = bids.label(case.session)
    return BidsName({"sub": subject, **({"ses": session} if session else {})}, "T1w").of_modality(case.modality)


def write_description(folder: Path, source: Path) -> None:
    """dataset_description.json and .bidsignore, unless they are there as they should be.

    Raises:
        BadInput: the folder holds a data set that IMT did not make. OutputFailure.
    """
    path = folder / DESCRIPTION
    before = read_mark(path)
    made_by = before.get("GeneratedBy")
    if path.exists() and not (isinstance(made_by, list) and any(isinstance(one, dict) and one.get("Name") == NAME for one in made_by)):
        raise BadInput(f"{folder} holds a data set that IMT did not make ({DESCRIPTION}). Choose another output folder.")
    root = source_root(source).resolve()
    content = {
        "Name": f"IMT pipeline of {root.name}",
        "BIDSVersion": bids.VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": VERSION, "Description": "Image modality translation. Synthetic images: for research, not for diagnosis."}],
        "SourceDatasets": [{"URL": root.as_uri()}],
        "DatasetLinks": {SOURCE: root.as_uri()},
    }
    if before != content:
        write_json(path, content)
    ignored = "\n".join(NOT_BIDS) + "\n"
    if not (folder / IGNORE).exists():
        write_text(folder / IGNORE, ignored)


def source_root(source: Path) -> Path:
    """The folder that the input is, or lies in."""
    return source if source.is_dir() else source.absolute().parent


def complete_sidecar(image: Path, made_from: list[Path], root: Path, folder: Path, **more: Any) -> None:
    """Add to an image's mark the keys that BIDS wants and the mark has no words for; a mark that has them stays as it is.

    Args:
        made_from: the images that it was made from.
        root: folder of the input. folder: of the outputs.
        more: further keys.
    """
    path = sidecar_path(image)
    record = read_mark(path)
    wanted = {"Sources": [uri(file, root, folder) for file in made_from], **more}
    if record and any(record.get(key) != value for key, value in wanted.items()):
        write_json(path, {**record, **wanted})


def uri(path: Path, root: Path, folder: Path) -> str:
    """A file of the input or the output as a BIDS URI; one that lies elsewhere by its own."""
    path = Path(os.path.abspath(path))
    for name, start in (("", folder), (SOURCE, root)):
        start = Path(os.path.abspath(start))
        if path.is_relative_to(start):
            return f"bids:{name}:{path.relative_to(start).as_posix()}"
    return path.as_uri()


def write_label_table(labels: Path) -> None:
    """The labels' names and colours as BIDS has them, from the table beside them: `<stem>.tsv`, unless it is there already."""
    names = read_label_names(colour_table(labels))
    lines = ["index\tname\tcolor", "0\tbackground\t#000000"]
    lines += [f"{code}\t{' '.join(entry.name.split())}\t#{bytes(entry.colour).hex()}" for code, entry in names.items()]
    text = "\n".join(lines) + "\n"
    path = labels.with_name(labels.name.removesuffix(".nii.gz") + ".tsv")
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
