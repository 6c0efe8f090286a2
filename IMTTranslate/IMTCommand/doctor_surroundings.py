"""The doctor's look at what surrounds IMT: variables of the environment, other copies of it, the computer's own network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from IMTCore.child_environment import PATHS_VARIABLE

from .doctor_packages import Imported
from .doctor_problems import Findings, good, trouble

REMOVED_AUTOLOAD = "IMT_REMOVED_ITK_AUTOLOAD_PATH"  # `imt` notes there what it has cleared
CONNECT_SECONDS = 5.0


def examine_variables(imported: dict[str, Imported]) -> Findings:
    """PYTHONPATH and ITK_AUTOLOAD_PATH.

    Args:
        imported: packages and where they were imported from.
    """
    own = os.environ.get(PATHS_VARIABLE, "").split(os.pathsep)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in own and not _is_pythons(path)]
    shadowed = {
        name: path for name, result in imported.items() for path in paths if result.file and Path(result.file).is_relative_to(os.path.abspath(path))
    }
    if shadowed:
        yield trouble("pythonpath", "PYTHONPATH", ", ".join(f"{name} comes from {path}" for name, path in shadowed.items()))
    elif paths:
        yield good("PYTHONPATH", f"{os.pathsep.join(paths)}: no package that IMT needs")
    removed = os.environ.get(REMOVED_AUTOLOAD) or os.environ.get("ITK_AUTOLOAD_PATH")
    if removed and os.environ.get("SLICER_HOME"):
        yield good("ITK", "Slicer sets ITK_AUTOLOAD_PATH; IMT clears it for its own processes")
    elif removed:
        yield trouble("itk-autoload", "ITK", f"ITK_AUTOLOAD_PATH is {removed}")


def _is_pythons(path: str) -> bool:
    """Whether a path belongs to this Python, or to Slicer, whose launcher sets PYTHONPATH itself."""
    homes = [sys.prefix, sys.base_prefix, os.environ.get("SLICER_HOME", "")]
    return any(home and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(home)) for home in homes)


def examine_copies() -> Findings:
    """All places from which Python could import IMT."""
    own = Path(__file__).resolve().parents[1]
    found = {own}
    for entry in [*sys.path, *_editable_places()]:
        if (Path(entry) / "IMTCore" / "version.py").is_file():
            found.add(Path(entry).resolve())
    if len(found) == 1:
        yield good("copies", f"one copy of IMT, {own}")
        return
    texts = [f"{_version_at(place)} at {place}" for place in sorted(found, key=lambda place: place != own)]
    yield trouble("two-copies", "copies", f"{texts[0]} is used; also {', '.join(texts[1:])}")


def _editable_places() -> list[str]:
    """Where packages are installed from as they lie there (pip install -e): Python finds them by no path."""
    places = []
    for distribution in importlib.metadata.distributions(name="slicer-imt"):
        try:
            url = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
        except ValueError:
            continue
        if url.startswith("file:"):
            places.append(os.path.join(url2pathname(unquote(urlparse(url).path)), "IMTTranslate"))
    return places


def _version_at(place: Path) -> str:
    text = (place / "IMTCore" / "version.py").read_text(encoding="utf-8", errors="replace")
    found = re.search(r'VERSION = "(.+)"', text)
    return f"version {found[1]}" if found else "unknown version"


def examine_loopback() -> Findings:
    """A connection to itself, as Dask's workers need it."""
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            with socket.create_connection(server.getsockname(), CONNECT_SECONDS):
                yield good("loopback", "programs of this computer reach each other")
    except OSError as error:
        yield trouble("loopback", "loopback", f"127.0.0.1: {error.strerror or error}")
