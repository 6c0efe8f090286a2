"""Time and memory of a process, as Linux tells them in /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Computing time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory now."""
    return _status_mb(pid, "VmRSS")


def peak_mb() -> float:
    """The most resident memory of this process since `forget_peak`."""
    return _status_mb(os.getpid(), "VmHWM")


def _status_mb(pid: int, key: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"{key}:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    """Begin anew to measure the peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
