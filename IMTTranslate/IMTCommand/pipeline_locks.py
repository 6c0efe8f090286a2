"""One run at a time in an output folder, one job at a time on a GPU. The system takes a lock back when its process dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from IMTCore.errors import BadInput

PAUSE_S = 0.05


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold an output folder for the time of the block. On systems without file locks (Windows) nothing is held.

    Raises:
        BadInput: another run holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"Another imt pipeline is running in {folder}. Wait for its end, stop it, or choose another output folder.") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def temporary_place(folder: Path) -> Path:
    """A folder of its own, on this machine, for the temporary files of the runs in an output folder."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"imt-pipeline-{user}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


@contextmanager
def own_temporary_place(folder: Path) -> Iterator[None]:
    """What is made in the system's temporary folder within the block goes to `temporary_place`: the next run removes what a
    killed one left there.

    Raises:
        BadInput: somebody else has made something of that name.
    """
    place, before = temporary_place(folder), tempfile.tempdir
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or (hasattr(os, "getuid") and place.stat().st_uid != os.getuid()):
        raise BadInput(f"{place} belongs to somebody else, and temporary files would go there. Remove it, or set TMPDIR to a folder of your own.")
    tempfile.tempdir = str(place)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def gpu_turn(wish: str) -> Iterator[str]:
    """Wait for a GPU that no other process of this user's pipelines uses, and hold it for the time of the block.

    Args:
        wish: as `choose_device` takes it. "auto" and "cuda" take the first of all GPUs that is free.

    Returns:
        The device to use; "cpu" is never waited for.
    """
    devices = _candidates(wish)
    if not devices:
        yield wish
        return
    with contextlib.ExitStack() as stack:
        while True:
            for device, name in devices:
                if _taken(stack, name):
                    yield device
                    return
            time.sleep(PAUSE_S)


def _candidates(wish: str) -> list[tuple[str, str]]:
    """(device, a name for it that is the same in all processes) of the GPUs that may be used; none for the CPU."""
    import torch

    from IMTCore.devices import choose_device

    device = choose_device(wish)
    if device.type == "cpu":
        return []
    if device.type != "cuda":
        return [(wish, device.type)]
    numbers = [device.index] if device.index is not None else range(torch.cuda.device_count())
    return [(f"cuda:{number}", str(getattr(torch.cuda.get_device_properties(number), "uuid", number))) for number in numbers]


def _taken(stack: contextlib.ExitStack, name: str) -> bool:
    """Try to take a device; it is given back when the stack closes."""
    try:
        import fcntl
    except ImportError:
        return True
    user = os.getuid()
    handle = os.open(Path(tempfile.gettempdir()) / f"imt-{user}-{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    stack.callback(os.close, handle)
    return True
