"""What IMT leaves outside its own folder: where it is, how large, and how to remove all of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from IMTCore.catalogue import USER_FOLDER_VARIABLE, user_folder
from IMTCore.errors import OutputFailure
from IMTCore.files import data_folder, describe_write_error, write_text

from .model_finding import has_segmenters

PACKAGES_VARIABLE = "IMT_PACKAGES"
TEMP_PREFIXES = ("IMT-", "imt-engine-", "imt-register-", "imt-rotation-", "imt-experiment-", "imt-pipeline-")
IN_USE_SECONDS = 3600.0  # a temporary folder in which something changed since is taken for one of a run that goes on
SETTINGS_GROUPS = ("IMTTranslate", "IMTRegister", "IMTSegment")


@dataclass(frozen=True)
class Place:
    """A file or folder, there or not.

    Attributes:
        what: in words.
        variable: of the environment, that can name another place; empty if there is none.
        named: whether the variable does.
        kept: why `remove` leaves it alone; empty if it does not.
    """

    what: str
    path: Path
    variable: str = ""
    named: bool = False
    kept: str = ""

    def size(self) -> int:
        """Bytes; 0 if it is not there."""
        if self.path.is_file():
            return self.path.stat().st_size
        total = 0
        for folder, _, files in os.walk(self.path):
            for file in files:
                with contextlib.suppress(OSError):  # gone meanwhile
                    total += os.lstat(os.path.join(folder, file)).st_size
        return total


def user_places() -> list[Place]:
    """The folders that IMT keeps for a user: models, engines, caches."""
    places = [_user_place("your models", USER_FOLDER_VARIABLE, user_folder())]
    if has_segmenters():
        from IMTSegmentLib import segmenter_catalogue

        places.append(_user_place("your segmenters", segmenter_catalogue.USER_FOLDER_VARIABLE, segmenter_catalogue.user_folder()))
    packages = Path(os.environ.get(PACKAGES_VARIABLE) or data_folder() / "packages")
    places.append(_user_place("engines", PACKAGES_VARIABLE, packages))
    if find_spec("IMTRegisterLib") is not None:
        from IMTRegisterLib.registration.settings import CACHE_VARIABLE, default_cache_folder

        places.append(_user_place("registration cache", CACHE_VARIABLE, default_cache_folder()))
    return places


def _user_place(what: str, variable: str, path: Path) -> Place:
    named = bool(os.environ.get(variable))
    return Place(what, path, variable, named, f"{variable} names it: others may use it too" if named else "")


def all_places() -> list[Place]:
    """All that is there: the user's folders, anything else in IMT's data folder, temporary folders, Slicer's settings."""
    places = [place for place in user_places() if place.path.exists()]
    listed = {place.path for place in places}
    if data_folder().is_dir():
        places += [Place("other data", path) for path in sorted(data_folder().iterdir()) if path not in listed]
    places += [Place("temporary", path, kept=_in_use(path)) for path in _temporary_folders()]
    return places + [Place("settings in Slicer", path) for path in _settings_files() if _without_groups(path) is not None]


def _temporary_folders() -> Iterator[Path]:
    """IMT's folders of this user in the system's place for temporary files, and in Slicer's folder there."""
    top = Path(tempfile.gettempdir())
    for parent in (top, *sorted(top.glob("Slicer*"))):
        for path in sorted(parent.glob("[Ii][Mm][Tt]-*")):
            with contextlib.suppress(OSError):  # gone meanwhile
                mine = not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
                if mine and path.name.startswith(TEMP_PREFIXES) and path.is_dir() and not path.is_symlink():
                    yield path


def _in_use(path: Path) -> str:
    newest = path.stat().st_mtime
    for folder, _, files in os.walk(path):
        for name in (".", *files):
            with contextlib.suppress(OSError):  # gone meanwhile
                newest = max(newest, os.lstat(os.path.join(folder, name)).st_mtime)
    return "changed within the last hour: a run may use it" if time.time() - newest < IN_USE_SECONDS else ""


def _settings_files() -> list[Path]:
    """Slicer's settings files, all of them INI files."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming"))
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return sorted(path for name in ("slicer.org", "www.slicer.org", "NA-MIC") for path in (base / name).glob("*.ini"))


def _without_groups(path: Path) -> str | None:
    """The text of a settings file without IMT's groups; None if it has none of them, or cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError):
        return None
    kept, inside, found = [], False, False
    for line in lines:
        if line.startswith("["):
            inside = line.strip()[1:-1] in SETTINGS_GROUPS
            found = found or inside
        if not inside:
            kept.append(line)
    return "".join(kept) if found else None


def remove(place: Place) -> None:
    """Remove a place; of Slicer's settings, IMT's groups alone.

    Raises:
        OutputFailure: it cannot be removed, or not all of it.
    """
    try:
        if place.path.suffix == ".ini":
            text = _without_groups(place.path)
            if text is not None:
                write_text(place.path, text)
        elif place.path.is_dir() and not place.path.is_symlink():
            shutil.rmtree(place.path)
        else:
            place.path.unlink(missing_ok=True)
    except FileNotFoundError:  # gone meanwhile
        pass
    except OSError as error:
        raise OutputFailure(describe_write_error(place.path, error).replace("Cannot write", "Cannot remove", 1)) from error


def remove_data_folder() -> None:
    """Remove IMT's data folder if nothing is left in it."""
    with contextlib.suppress(OSError):
        data_folder().rmdir()
