"""Requirements files: what they ask for, and what of it a folder of packages lacks. Nothing is imported from the folder."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_requirements(path: Path) -> list[Any]:
    """The requirements of a file that hold on this system, without pip's options.

    Raises:
        ValueError: a line is no requirement; the message has it.
    """
    found = []
    for line in Path(path).read_text(encoding="utf-8-sig").splitlines():
        text = line.partition(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        try:
            requirement = parse_requirement(text)
        except ValueError as error:
            raise ValueError(f"{path}: {text!r} is no requirement: {error}") from error
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def parse_requirement(text: str) -> Any:
    """One requirement, as `packaging.requirements.Requirement`.

    Raises:
        ValueError: it is none.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:  # pip has it in any case
        from pip._vendor.packaging.requirements import Requirement
    return Requirement(text)


def canonical_name(name: str) -> str:
    """The one form of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(folder: Path | None = None) -> Iterator[tuple[str, importlib.metadata.Distribution]]:
    """Canonical name and metadata of what is installed in a folder, or on this Python's path; unreadable ones are left out."""
    importlib.invalidate_caches()
    paths = {} if folder is None else {"path": [str(folder)]}
    for distribution in importlib.metadata.distributions(**paths):
        if distribution.metadata is not None and distribution.metadata["Name"]:
            yield canonical_name(distribution.metadata["Name"]), distribution


def unmet_requirements(path: Path, folder: Path) -> list[str]:
    """The requirements of a file that a folder of packages does not meet, as they are written.

    Raises:
        ValueError: see `read_requirements`.
    """
    found = {name: distribution.version for name, distribution in distributions(folder)}
    unmet = []
    for requirement in read_requirements(path):
        version = found.get(canonical_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.append(str(requirement))
    return unmet
