"""What this computer has, and images that ask for more than it has: these are refused before any memory is taken."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from .errors import BadInput

# Five times a whole head at 0.5 mm. A header may claim any number, and a file of zeros shrinks to a thousandth.
MAX_VOXELS = 1 << 29
MOST_SHRUNK = 1100  # deflate makes at most 1032 bytes of one
WORKING_BYTES = 8  # for each voxel besides those of its own: a float32 copy, and one more in the making


def available_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def free_gigabytes() -> float:
    """Memory that is free now, in GB; 8 where the system does not tell."""
    with contextlib.suppress(ImportError):
        import psutil

        return psutil.virtual_memory().available / 1e9
    with contextlib.suppress(OSError):
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024 / 1e9
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return 8.0


def check_size(path: Path, shape: Sequence[int], voxel_bytes: int, stored_bytes: int | None = None, shrunk: bool = False) -> None:
    """Refuse an image by what its header says of its size, before any of its voxels is read.

    Args:
        path: what the message names.
        shape: the numbers of voxels along its axes.
        voxel_bytes: of one voxel, as it is stored.
        stored_bytes: of the file; None if the voxels may lie elsewhere.
        shrunk: the file is compressed.

    Raises:
        BadInput: more voxels than IMT takes, than the memory has room for, or than the file can hold.
    """
    voxels = math.prod(int(n) for n in shape)
    size = " x ".join(str(int(n)) for n in shape)
    if stored_bytes is not None and voxels * voxel_bytes > stored_bytes * (MOST_SHRUNK if shrunk else 1):
        raise BadInput(
            f"{path} is damaged or truncated: its header says {size} voxels, and the file of {stored_bytes} bytes cannot hold them. "
            "Copy or export it again."
        )
    if voxels > MAX_VOXELS:
        raise BadInput(f"{path} has {size} voxels, and IMT takes at most {MAX_VOXELS / 1e6:.0f} million. Resample it to larger voxels.")
    needed, free = voxels * (voxel_bytes + WORKING_BYTES) / 1e9, free_gigabytes()
    if needed > free:
        raise BadInput(
            f"{path} has {size} voxels: to read it takes about {needed:.1f} GB, and {free:.1f} GB of memory are free. "
            "Close other programs, or resample it to larger voxels."
        )
