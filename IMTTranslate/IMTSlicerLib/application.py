"""What jobs take from Slicer's application, where there is one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REMOVE_SECONDS = 1.0  # for Windows to let go of a dead process' files


def processEvents() -> None:
    """Let Slicer work."""
    try:
        import slicer
    except ImportError:
        return
    if hasattr(slicer, "app"):
        slicer.app.processEvents()


def startTimer(milliseconds: int, listener: Callable[[], None]):
    """A Qt timer that calls `listener`, or None where there is no Qt; it must be held, and has a `stop`."""
    try:
        import qt
    except ImportError:
        return None
    timer = qt.QTimer()
    timer.setInterval(milliseconds)
    timer.timeout.connect(listener)
    timer.start()
    return timer


def makeFolder() -> Path:
    """A new temporary folder, inside Slicer's own."""
    parent = None
    try:
        import slicer

        parent = str(slicer.app.temporaryPath)
        Path(parent).mkdir(parents=True, exist_ok=True)
    except (ImportError, AttributeError):
        pass
    return Path(tempfile.mkdtemp(prefix="IMT-", dir=parent))


def removeFolder(folder: Path) -> None:
    """Remove a folder, also if the system holds a file of it for a moment longer."""
    until = time.monotonic() + REMOVE_SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > until:
            return
        time.sleep(0.05)
