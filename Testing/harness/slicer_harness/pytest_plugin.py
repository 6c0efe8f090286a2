"""pytest fixtures. In a process of their own: Qt's classes are changed for the whole process.

* `slicer_app`: slicer.app, with an empty scene; the test fails if a slot or an observer raised an exception.
* `open_module(path)`: the Python widget of a scripted module, shown offscreen, and closed after the test.
* `slot_errors`: the tracebacks of those exceptions; a test that expects some takes them out with `clear()`.
* `dialogs`: slicer_harness.dialogs, to answer modal dialogs.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_workdirs: list[str] = []


def start_session() -> Any:
    """Start the harness, if it has not been; called in conftest.py, it lets test files import `qt` and `ctk`."""
    from . import host

    if not _workdirs:
        # VTK's observers and Qt's widgets go by their owners; a collection in the midst of a test has crashed in VTK.
        gc.disable()
        _workdirs.append(tempfile.mkdtemp(prefix="slicer_harness_"))
    return host.start(_workdirs[0])


@pytest.fixture
def slicer_app() -> Iterator[Any]:
    """slicer.app with an empty scene."""
    app = start_session()
    import slicer

    from . import dialogs, dressing

    slicer.mrmlScene.Clear(False)
    dialogs.reset()
    dressing.slot_errors.clear()
    yield app
    app.processEvents()
    assert not dressing.slot_errors, "exception in a slot or an observer:\n" + "\n".join(dressing.slot_errors)


@pytest.fixture
def slot_errors(slicer_app: Any) -> list[str]:
    """The tracebacks of exceptions in slots and observers."""
    from . import dressing

    return dressing.slot_errors


@pytest.fixture
def dialogs(slicer_app: Any) -> Any:
    """The module that answers modal dialogs."""
    from . import dialogs

    return dialogs


@pytest.fixture
def open_module(slicer_app: Any) -> Iterator[Callable]:
    """Opens a scripted module by the path of its file."""
    from . import host

    opened = []

    def open_(path: Any, size: tuple[int, int] = (520, 700)) -> Any:
        opened.append(host.open_module(path, size))
        return opened[-1]

    yield open_
    for widget in opened:
        host.close_module(widget)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the status for the end."""
    session.config._slicer_harness_status = int(session.exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without taking C++ down: Qt, VTK and Python would do it in no certain order."""
    status = getattr(config, "_slicer_harness_status", None)
    if "qt" in sys.modules and status is not None and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        sys.stderr.flush()
        for folder in _workdirs:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(status)
