"""Files that are derived from images, labels for example: all whole and with their marks, or none."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .errors import BadInput
from .files import alone_in, check_writable, sha256_of, whole_file
from .label_names import LabelNames, write_label_names
from .outputs import check_written
from .provenance import read_mark, sidecar_path
from .volume import Volume
from .volume_io import check_output_path, save_volume


def is_mark_of(path: Path, made_by: str) -> bool:
    """Whether a JSON file is a mark of what `made_by` (such as "imt register") wrote."""
    return read_mark(path).get("made_by") == made_by


def is_own_mark(path: Path, made_by: str) -> bool:
    """Whether a JSON file is a mark of `made_by`, or of a translation."""
    return is_mark_of(path, made_by) or read_mark(path).get("synthetic") is True


def check_mark_free(image: Path, made_by: str) -> None:
    """Refuse to overwrite a JSON file beside `image` that is not one of IMT's marks.

    Raises:
        BadInput: naming the file.
    """
    path = sidecar_path(image)
    if path.exists() and not is_own_mark(path, made_by):
        raise BadInput(f"{path} exists and is not a mark of IMT: writing {image.name} would overwrite it. Choose another name.")


def check_replaceable(images: Iterable[Path | None], made_by: str) -> None:
    """Refuse to replace labels or images that are not a result of IMT: they may be somebody's work.

    Raises:
        BadInput: naming the file.
    """
    for path in images:
        if path is not None and path.exists() and not is_own_mark(sidecar_path(path), made_by):
            raise BadInput(f"{path} exists and has no mark of IMT: it may be somebody's work. Choose another output folder.")


def check_outputs(inputs: Iterable[Path], images: Sequence[Path | None], files: Sequence[Path], made_by: str) -> None:
    """Refuse outputs that cannot or must not be written, before any work is done.

    Args:
        inputs: files that are read.
        images: the volumes among the outputs; None are passed over.
        files: all outputs, the images and their marks among them.
        made_by: the command, as its marks say it.

    Raises:
        BadInput: an unknown format, an output that is an input or another output, a foreign file in a mark's place.
        OutputFailure: not writable.
    """
    inputs = list(inputs)
    written = [image for image in images if image is not None]
    for image in written:
        check_output_path(image)
    taken = {path.resolve() for path in inputs}
    for path in files:
        if path.resolve() in taken:
            raise BadInput(f"The output {path} is an input or another output: choose another name.")
        if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
            raise BadInput(f"The output {path} is an input by another name: choose another.")
        taken.add(path.resolve())
    for image in written:
        check_mark_free(image, made_by)
    for path in files:
        check_writable(path)


class OutputWriter:
    """Writes files under temporary names; they get their own together when the block ends well.

    >>> with OutputWriter() as writer:
    ...     writer.volume(path, volume)

    Raises:
        OutputFailure: a file cannot be written; then none is left.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folders: set[Path] = set()

    def __enter__(self) -> OutputWriter:
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        with alone_in(*self._folders):
            return self._stack.__exit__(*error)

    def temporary(self, path: Path) -> Path:
        """A name to write to; the file gets the name `path` at the end."""
        temporary = self._stack.enter_context(whole_file(path))
        self._folders.add(temporary.parent)
        return temporary

    def text(self, path: Path, content: str) -> None:
        """A text in UTF-8."""
        self.temporary(path).write_text(content, encoding="utf-8")

    def json(self, path: Path, content: Any) -> None:
        """Indented JSON."""
        self.text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def names(self, path: Path, names: LabelNames) -> None:
        """A colour table in the form of `labels.csv`."""
        write_label_names(self.temporary(path), names)

    def volume(self, path: Path, volume: Volume, description: str = "", record: dict[str, Any] | None = None) -> None:
        """A volume, and with `record` its mark. The mark gets its name first: no image is there without one."""
        temporary = self.temporary(path)
        save_volume(temporary, volume, description)
        check_written(temporary)
        if record is not None:
            self.json(sidecar_path(path), {**record, "output": {"name": path.name, "sha256": sha256_of(temporary)}})


def base_record(made_by: str, notice: str, content: str, derived: bool) -> dict[str, Any]:
    """What the mark of a derived file begins with; `derived`: a synthetic image took part."""
    return {
        "made_by": made_by,
        "content": content,
        "notice": notice,
        "derived_from_synthetic": derived,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
