"""What a registration writes: all files whole and with their marks, or none."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IMTCore.errors import BadInput
from IMTCore.files import check_writable, sha256_of, stem_of, whole_file
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.version import VERSION
from IMTCore.volume import Volume
from IMTCore.volume_io import check_output_path, save_volume

from ..atlases.label_names import FILE_NAME, LabelNames, write_label_names
from ..deformations.transforms import Transform, write_transform

MADE_BY = "imt register"
NOTICE = "Made by registration of atlases. For research, not for diagnosis."


@dataclass(frozen=True)
class RegistrationOutputs:
    """Where to write what.

    Attributes:
        labels: label volume; its colour table goes beside it as `<stem>_labels.csv`, its mark as `<stem>.json`.
        agreement: share of the atlases for the label that won.
        transforms: folder for `<atlas>.h5` (subject -> atlas, LPS) and `<atlas>-inverse.h5`.
        warped: folder for each atlas's images and labels on the subject's grid: `<atlas>/<modality>.nii.gz`, an atlas set again.
        translated: the subject's translated image with its usual mark.
        report: JSON.
    """

    labels: Path
    agreement: Path | None = None
    transforms: Path | None = None
    warped: Path | None = None
    translated: Path | None = None
    report: Path | None = None

    @property
    def table(self) -> Path:
        """The labels' names and colours."""
        return colour_table(self.labels)

    def files(self, atlases: Sequence[str], modalities: Sequence[str]) -> list[Path]:
        """All files that may be written."""
        found = [self.labels, sidecar_path(self.labels), self.table]
        for image in (self.agreement, self.translated):
            found += [image, sidecar_path(image)] if image else []
        for name in atlases:
            found += list(self.transform_files(name)) if self.transforms else []
            found += [self.warped_file(name, what) for what in (*modalities, "labels")] if self.warped else []
        found += [self.warped / FILE_NAME] if self.warped else []
        return [*found, self.report] if self.report else found

    def transform_files(self, atlas: str) -> tuple[Path, Path]:
        """An atlas's transform and its inverse."""
        return self.transforms / f"{atlas}.h5", self.transforms / f"{atlas}-inverse.h5"

    def warped_file(self, atlas: str, what: str) -> Path:
        """An atlas's image (`what` is its modality) or labels on the subject's grid."""
        return self.warped / atlas / f"{what}.nii.gz"

    def check(self, inputs: Iterable[Path], atlases: Sequence[str], modalities: Sequence[str]) -> None:
        """Refuse outputs that cannot or must not be written, before any work is done.

        Raises:
            BadInput: an unknown format, an output that is an input or another output, a foreign file in a mark's place.
            OutputFailure: not writable.
        """
        for image in (self.labels, self.agreement, self.translated):
            if image is not None:
                check_output_path(image)
        taken = {path.resolve() for path in inputs}
        for path in self.files(atlases, modalities):
            if path.resolve() in taken:
                raise BadInput(f"The output {path} is an input or another output: choose another name.")
            if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
                raise BadInput(f"The output {path} is an input by another name: choose another.")
            taken.add(path.resolve())
        for image in (self.labels, self.agreement, self.translated):
            if image is not None:
                check_mark_free(image)
        for path in self.files(atlases, modalities):
            check_writable(path)


def colour_table(labels: Path) -> Path:
    """`<stem>_labels.csv` beside a label volume."""
    return labels.with_name(f"{stem_of(labels)}_labels.csv")


def is_registration_mark(path: Path) -> bool:
    """Whether a JSON file is a mark of this module's outputs."""
    return read_mark(path).get("made_by") == MADE_BY


def check_mark_free(image: Path) -> None:
    """Refuse to overwrite a JSON file beside `image` that is not one of IMT's marks.

    Raises:
        BadInput: naming the file.
    """
    path = sidecar_path(image)
    if path.exists() and not is_registration_mark(path) and read_mark(path).get("synthetic") is not True:
        raise BadInput(f"{path} exists and is not a mark of IMT: writing {image.name} would overwrite it. Choose another name.")


class OutputWriter:
    """Writes files under temporary names; they get their own together when the block ends well.

    >>> with OutputWriter() as writer:
    ...     writer.volume(path, volume)

    Raises:
        OutputFailure: a file cannot be written; then none is left.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> OutputWriter:
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def text(self, path: Path, content: str) -> None:
        """A text in UTF-8."""
        self._stack.enter_context(whole_file(path)).write_text(content, encoding="utf-8")

    def json(self, path: Path, content: Any) -> None:
        """Indented JSON."""
        self.text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def transform(self, path: Path, transform: Transform) -> None:
        """A transform, as `write_transform`."""
        write_transform(self._stack.enter_context(whole_file(path)), transform)

    def names(self, path: Path, names: LabelNames) -> None:
        """A colour table, in the form of an atlas set's `labels.csv`."""
        write_label_names(self._stack.enter_context(whole_file(path)), names)

    def volume(self, path: Path, volume: Volume, description: str = "", record: dict[str, Any] | None = None) -> None:
        """A volume, and with `record` its mark. The mark gets its name first: no image is there without one."""
        temporary = self._stack.enter_context(whole_file(path))
        save_volume(temporary, volume, description)
        if record is not None:
            self.json(sidecar_path(path), {**record, "output": {"name": path.name, "sha256": sha256_of(temporary)}})


def base_record(content: str, derived: bool) -> dict[str, Any]:
    """What every mark of this module begins with; `derived`: a translation took part."""
    return {
        "made_by": MADE_BY,
        "content": content,
        "notice": NOTICE,
        "derived_from_synthetic": derived,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def header_line(engine: str, preset: str, fusion: str, derived: bool) -> str:
    """The mark for an image header, at most 79 ASCII characters."""
    return f"IMT {VERSION} register: {engine} {preset} {fusion}{'; FROM SYNTHETIC IMAGE' if derived else ''}"[:79]
