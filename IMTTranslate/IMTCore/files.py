"""Files are written whole or not at all: into a temporary neighbour first, then renamed.

A temporary file's name tells its process. What a killed one left is removed by the next run that writes in the folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import OutputFailure

LEFTOVER = re.compile(r"(?:\.imt|imt-[a-z]+)-(\d+)-([0-9a-f]{8})-")
NAME_KEPT = 40  # letters of a file's name that are put to its temporary one's: a long name stays possible
REPLACE_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds
LOCK_SECONDS = 10.0  # renaming takes far less


def data_folder() -> Path:
    """IMT's folder in the system's place for a user's data; it need not be there."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "IMT"


def describe_write_error(path: Path, error: OSError) -> str:
    """One sentence for the user on why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"Cannot write {path}: the disk is full. Free some space or choose another output folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Cannot write {path}: no permission. Choose an output folder that you may write to."
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"Cannot write {path}: a file is in the way of its folder. Choose another output folder."
    if error.errno == errno.EFBIG:
        return f"Cannot write {path}: it is larger than the system allows (ulimit -f, or a quota). Choose another output folder."
    if error.errno == errno.ENAMETOOLONG:
        return f"Cannot write {path}: the name is too long for this system. Choose a shorter one."
    return f"Cannot write {path}: {error.strerror or error}. Check the disk, or choose another output folder."


def give_usual_mode(path: Path) -> None:
    """Give a temporary file or folder, which is private, the permissions of any new one."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, (0o777 if path.is_dir() else 0o666) & ~umask)


def temporary_prefix(name: str = ".imt") -> str:
    """What the names of this process' temporary files and folders begin with.

    Args:
        name: beside results they are hidden, so that nobody takes them for such; in the system's temporary folder they
            are called imt-<use>.
    """
    return f"{name}-{os.getpid()}-{_computer()}-"


def _computer() -> str:
    """Where this process' number counts: the computer and, in containers, the name space."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes of this computer left in `folder`.

    On Windows nothing is removed: it does not say which processes live.
    """
    if os.name != "posix":
        return
    computer = _computer()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            owner = LEFTOVER.match(entry.name)
            if owner is None or owner[2] != computer or _lives(int(owner[1])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def alone_in(*folders: Path) -> Iterator[None]:
    """Hold folders for the moment in which files get their names together: of two runs with the same outputs one comes after
    the other, and no image gets the other's mark. Where there are no file locks (Windows) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        for folder in sorted({folder.resolve() for folder in folders}):
            with contextlib.suppress(OSError):  # a file system without locks
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                until = time.monotonic() + LOCK_SECONDS
                while time.monotonic() < until:
                    try:
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        time.sleep(0.005)
        yield


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` if the block succeeds.

    The temporary name has the same suffixes, in lower case: ITK would write `.MHA` as two files.

    Raises:
        OutputFailure: if the folder cannot be made, the file not be written or renamed. Nothing is left behind.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise OutputFailure(f"Cannot write {path}: a folder of that name is in the way.")
        remove_leftovers(path.parent)
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(), suffix="-" + path.name.lower()[-NAME_KEPT:], dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        give_usual_mode(temporary)
        _replace(temporary, path)
    except OSError as error:
        raise OutputFailure(describe_write_error(path, error)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _replace(source: Path, target: Path) -> None:
    """Give `source` the name of `target`; on Windows a moment later, if another program is just reading that file."""
    for seconds in REPLACE_WAITS if os.name == "nt" else ():
        with contextlib.suppress(PermissionError):
            os.replace(source, target)
            return
        time.sleep(seconds)
    os.replace(source, target)


def temporary_folder(path: Path) -> Path:
    """A new private folder beside `path`, on the same disk; for callers that fill it, rename it to `path` or remove it.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    return Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=path.parent))


def check_writable(path: Path) -> None:
    """Refuse an output place before any work is done for it.

    Raises:
        OutputFailure: if a file at `path` cannot be made.
    """
    path = Path(path)
    made: list[Path] = []
    try:
        if path.is_dir():
            raise OutputFailure(f"Cannot write {path}: a folder of that name is in the way.")
        for parent in reversed(path.parent.parents):
            if not parent.exists():
                parent.mkdir()
                made.append(parent)
        if not path.parent.exists():
            path.parent.mkdir()
            made.append(path.parent)
        with tempfile.NamedTemporaryFile(prefix=temporary_prefix(), suffix="-" + path.name[-NAME_KEPT:], dir=path.parent):
            pass
    except OSError as error:
        raise OutputFailure(describe_write_error(path, error)) from error
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all."""
    with whole_file(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal; `on_bytes` hears of every block read."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            if on_bytes:
                on_bytes(len(block))
    return digest.hexdigest()


def stem_of(path: Path) -> str:
    """The file's name without its image suffix (`.nii.gz` counts as one)."""
    name = Path(path).name
    for suffix in (".nii.gz", ".mgh.gz"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem
