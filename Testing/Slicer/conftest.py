"""Tests of the panels, on the offscreen Slicer of Testing/harness; in a process of their own, without xdist."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ.setdefault("MPLBACKEND", "Agg")
HARNESS = Path(__file__).resolve().parents[1] / "harness"
sys.path.insert(0, str(HARNESS))

PIP = "python -m pip install -r Resources/requirements/test.txt"
DEBIAN = "apt-get install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0 fonts-dejavu-core"


def _missing() -> str:
    """What to install before these tests can run; empty if nothing."""
    for package in ("slicer", "PySide6"):
        if importlib.util.find_spec(package) is None:
            return f"no {package}: {PIP}"
    for module in ("slicer", "PySide6.QtWidgets", "PySide6.QtUiTools", "slicer_harness.dressing"):
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            return f"{error} (system libraries: {DEBIAN}; Python packages: {PIP})"
    return ""


MISSING = _missing()
if not MISSING:
    from slicer_harness.pytest_plugin import (  # noqa: F401 - fixtures and hooks
        dialogs,
        open_module,
        pytest_sessionfinish,
        pytest_unconfigure,
        slicer_app,
        slot_errors,
        start_session,
    )

    start_session()  # from here on, test files may import qt, ctk and slicer
    from dicom_fixtures import dicom_study  # noqa: F401
    from register_fixtures import cohort, register_cache, register_logic, register_opened, register_panel  # noqa: F401
    from segment_fixtures import segment_logic, segment_models, segment_opened, segment_panel, tiny_models  # noqa: F401
    from translate_fixtures import (  # noqa: F401 - fixtures
        logic,
        models,
        nothing_left,
        opened,
        panel,
        run,
        temporary,
        worker,
    )
else:

    class _Skipped(pytest.Module):
        def collect(self):
            pytest.skip(MISSING, allow_module_level=True)

    def pytest_pycollect_makemodule(module_path, parent):
        """Skip a file before it imports what is not there."""
        return _Skipped.from_parent(parent, path=module_path)

    def pytest_sessionfinish(session, exitstatus):
        """All skipped is not a failure."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
