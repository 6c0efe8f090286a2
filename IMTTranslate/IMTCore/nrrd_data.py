"""NRRD headers whose voxels lie in other files: that these are files is checked before NrrdIO reads a device or a pipe for ever."""

from __future__ import annotations

from pathlib import Path

from .errors import BadInput

MAX_HEADER_BYTES = 1 << 20
KEYS = ("data file", "datafile")


def check_data_files(path: Path) -> None:
    """Check the files that a NRRD header names. Those that are missing, or named by a pattern, are left to NrrdIO.

    Raises:
        BadInput: one that is there is no file.
    """
    with open(path, "rb") as stream:
        lines = stream.read(MAX_HEADER_BYTES).partition(b"\n\n")[0].decode("latin-1").splitlines()
    named: list[str] = []
    for number, line in enumerate(lines):
        key, _, value = line.partition(":")
        if key.strip().lower() in KEYS:
            named += lines[number + 1 :] if value.split()[:1] == ["LIST"] else [value]
    for name in named:
        data = path.parent / name.strip()
        try:
            is_other = bool(name.strip()) and data.exists() and not data.is_file()
        except OSError:  # no name at all
            continue
        if is_other:
            raise BadInput(f"{path} names {data} for its voxels, and that is no file. Copy or export it again.")
