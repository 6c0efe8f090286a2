"""What the doctor says, without what is nobody's business: for a bug report that anyone may read."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

from IMTCore.files import data_folder

VARIABLES = (
    *("IMT_MODELS", "IMT_SEGMENT_MODELS", "IMT_PACKAGES", "IMT_ENGINES", "IMT_REGISTER_CACHE"),
    *("PYTHONPATH", "ITK_AUTOLOAD_PATH", "TMPDIR", "TEMP", "TMP"),
)
SHORTEST_NAME = 3  # a user called "a" does not take that letter out of every word


class Anonymiser:
    """Takes folders, the user's and the computer's name, and the names of the user's own models out of texts."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        for name in VARIABLES:
            for path in os.environ.get(name, "").split(os.pathsep):
                self._add(path, f"${name}")
        places = {str(Path(__file__).resolve().parents[1]): "<IMT>", sys.prefix: "<python>", sys.base_prefix: "<python>"}
        places |= {tempfile.gettempdir(): "<temp>", str(data_folder()): "<data>", str(Path.home()): "~"}
        for path, word in places.items():
            self._add(path, word)
        words = {_user(): "<user>", socket.gethostname(): "<host>"} | dict.fromkeys(_own_models(), "<own model>")
        self._words = {word: text for word, text in words.items() if len(word) >= SHORTEST_NAME}

    def _add(self, path: str, word: str) -> None:
        for form in (path, os.path.realpath(path)) if path else ():
            if os.path.isabs(form) and len(Path(form).parts) > 1:
                self._folders.setdefault(form, word)

    def __call__(self, text: str) -> str:
        """The text without them. A folder that is not known loses all but its place in the sentence."""
        for path in sorted(self._folders, key=len, reverse=True):
            text = re.sub(rf"{re.escape(path)}(?![\w.-])", lambda _, path=path: self._folders[path], text)
        for word, replacement in self._words.items():
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _, replacement=replacement: replacement, text)
        return re.sub(r"(?<![\w>~$.:/])(?:/|[A-Za-z]:\\)[^\s:;,()'\"]+", "<path>", text)


def _own_models() -> list[str]:
    """Names of what lies in the user's own model folders, longest first."""
    try:
        from .doctor_places import user_places

        files = [file for place in user_places() if place.path.is_dir() for file in place.path.glob("*.*")]
    except Exception:  # numpy is broken, and where they are is not known: nothing tells of them then
        return []
    return sorted({file.stem for file in files if file.suffix in (".json", ".safetensors")}, key=len, reverse=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name in the system's list
        return ""
