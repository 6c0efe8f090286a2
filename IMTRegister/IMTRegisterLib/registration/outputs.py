"""What a registration writes: all files whole and with their marks, or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IMTCore import derived_outputs
from IMTCore.derived_outputs import check_outputs
from IMTCore.label_names import FILE_NAME, colour_table
from IMTCore.provenance import sidecar_path
from IMTCore.version import VERSION

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
        check_outputs(inputs, (self.labels, self.agreement, self.translated), self.files(atlases, modalities), MADE_BY)


class OutputWriter(derived_outputs.OutputWriter):
    """Also writes transforms."""

    def transform(self, path: Path, transform: Transform) -> None:
        """A transform, as `write_transform`."""
        write_transform(self.temporary(path), transform)


def base_record(content: str, derived: bool) -> dict[str, Any]:
    """What every mark of this module begins with; `derived`: a translation took part."""
    return derived_outputs.base_record(MADE_BY, NOTICE, content, derived)


def header_line(engine: str, preset: str, fusion: str, derived: bool) -> str:
    """The mark for an image header, at most 79 ASCII characters."""
    return f"IMT {VERSION} register: {engine} {preset} {fusion}{'; FROM SYNTHETIC IMAGE' if derived else ''}"[:79]
