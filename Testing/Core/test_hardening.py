"""A seeded sample of the hostile inputs and of the kills of Testing/Hardening; the long runs are started by hand."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

HARDENING = Path(__file__).resolve().parents[1] / "Hardening"
sys.path.insert(0, str(HARDENING))

pytest.importorskip("pydicom", reason="the hostile DICOM folders are written by pydicom")
if not sys.platform.startswith("linux"):
    pytest.skip("limits on memory, SIGKILL and /proc as on Linux", allow_module_level=True)

from commands import make_case
from fuzz import draw_jobs
from home import Home, make_home
from kill import Reference
from kill_scenarios import scenarios
from sandbox import run_cases

SEED = 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("home") / "home")


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a case sets for itself is undone."""
    for name in ("IMT_SEGMENT_MODELS", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_hostile_inputs_and_models_are_refused_in_words_or_give_sound_results(home: Home, tmp_path: Path) -> None:
    """No crash, no hang, no memory without end, no code executed, no silent NaN, nothing written elsewhere or left behind."""
    verdicts = list(run_cases(partial(make_case, home, SEED), draw_jobs(110, 32), tmp_path, workers=1))
    faults = [f"{one.kind} {one.number}: {one.text}" for one in verdicts if one.result == "fault"]
    assert not faults, "\n".join(faults)
    refused, accepted = (sum(one.result == result for one in verdicts) for result in ("refused", "accepted"))
    assert refused > 60 and accepted > 15, "else the cases show nothing"


@pytest.mark.parametrize("name", ["translate, volume", "import of a package"])
def test_a_killed_command_leaves_nothing_half_written_and_goes_on_to_the_same_result(name: str, home: Home, tmp_path: Path) -> None:
    reference = Reference(name, scenarios(home)[name], tmp_path / "reference", home)
    assert reference.outputs
    for run in range(2 if name.startswith("translate") else 1):
        found = reference.kill_once(np.random.default_rng([SEED, run]), tmp_path / f"run{run}")
        assert not found.faults, found
