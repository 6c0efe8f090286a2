"""Claims on the folder of packages: what pip puts there, that it wins, and that it changes wholly or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from wheels import write_wheel

from IMTCore.child_environment import worker_environment
from IMTSlicerLib.jobs import JobCancelled, JobFailed
from IMTSlicerLib.package_folders import InstallJob, PackageFolder, packagesRoot

MODULE = Path(__file__).resolve().parents[2] / "IMTTranslate"


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def run(job: InstallJob) -> list[str]:
    lines: list[str] = []
    job.logged.connect(lines.append)
    job.start()
    job.wait(timeout=120)
    assert not job.folder.exists()
    return lines


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder whose name has a space and other letters."""
    folder = tmp_path / "Päck ages"
    folder.mkdir()
    return folder


def packages(place: Path, requirements: str) -> PackageFolder:
    (place / "needs.txt").write_text(requirements, encoding="utf-8")
    return PackageFolder("engines", place / "needs.txt", place / "home" / "engines")


def test_a_folder_is_installed_from_wheels_wins_over_the_environment_and_leaves_it_untouched(place):
    write_wheel(place / "wheels", "psutil", "99.1", needs=("imt-test-base>=1",))
    write_wheel(place / "wheels", "imt-test-base", "1.5")
    folder = packages(
        place,
        "# engines\n--prefer-binary\npsutil>=99  # newer than the environment's\nImt_Test.Base\nno-such; python_version < '3'\n",
    )
    before = version("psutil")
    assert folder.missing() == ["psutil>=99", "Imt_Test.Base"] and not folder.isInstalled() and folder.sizeBytes() == 0

    lines = run(folder.installJob(place / "wheels"))
    assert any("Successfully installed" in line for line in lines), lines
    assert folder.isInstalled() and folder.missing() == [] and folder.sizeBytes() > 100
    assert [p.name for p in folder.folder.parent.iterdir()] == ["engines"]

    code = "import psutil, imt_test_base, IMTCore; print(psutil.__version__, imt_test_base.__version__)"
    environment = worker_environment([folder.folder])
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["99.1", "1.5"]
    here = subprocess.run(
        [sys.executable, "-c", "import psutil; print(psutil.__version__)"], capture_output=True, text=True, check=True
    )
    assert here.stdout.strip() == before != "99.1"

    folder.remove()
    assert not folder.isInstalled() and not list(folder.folder.parent.iterdir())
    folder.remove()


def test_an_update_replaces_the_whole_folder(place):
    write_wheel(place / "old", "imt-test-base", "1.0", module="imt_test_old")
    write_wheel(place / "new", "imt-test-base", "2.0", module="imt_test_new")
    folder = packages(place, "imt-test-base")
    run(folder.installJob(place / "old"))
    assert packages(place, "imt-test-base>=2").missing() == ["imt-test-base>=2"]
    run(folder.installJob(place / "new"))
    assert folder.isInstalled()
    names = {p.name for p in folder.folder.iterdir()}
    assert "imt_test_new" in names and "imt_test_old" not in names


def test_a_failure_says_pips_reason_and_leaves_the_old_folder_as_it_was(place):
    write_wheel(place / "wheels", "imt-test-base", "1.0")
    folder = packages(place, "imt-test-base")
    run(folder.installJob(place / "wheels"))
    before = snapshot(folder.folder.parent)
    with pytest.raises(JobFailed, match="imt-test-absent") as failure:
        run(packages(place, "imt-test-base\nimt-test-absent").installJob(place / "wheels"))
    assert failure.value.exitCode == 1
    assert snapshot(folder.folder.parent) == before


def test_a_folder_of_wheels_that_lacks_one_is_told_which_and_how_to_get_it(place):
    write_wheel(place / "wheels", "imt-test-base", "1.0", needs=("imt-test-absent>=2",))
    with pytest.raises(JobFailed) as failure:
        run(packages(place, "imt-test-base").installJob(place / "wheels"))
    first = str(failure.value).splitlines()[0]
    version = ".".join(map(str, sys.version_info[:2]))
    for words in (str(place / "wheels"), "no wheel of imt-test-absent>=2", f"Python {version}", "pip download", "needs.txt"):
        assert words in first, first


def test_a_first_installation_that_fails_leaves_nothing(place):
    (place / "wheels").mkdir()
    folder = packages(place, "imt-test-absent")
    with pytest.raises(JobFailed):
        run(folder.installJob(place / "wheels"))
    assert not list((place / "home").iterdir())
    with pytest.raises(ValueError, match="no folder of wheels"):
        folder.installJob(place / "nowhere").start()
    assert not list((place / "home").iterdir())


@pytest.mark.parametrize("there", [True, False], ids=["update", "first"])
def test_cancel_ends_pip_within_one_second_and_leaves_the_old_folder_as_it_was(place, monkeypatch, there):
    (place / "t m p").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "t m p"))
    write_wheel(place / "old", "imt-test-large", "1.0")
    write_wheel(place / "new", "imt-test-large", "2.0", megabytes=60)
    folder = packages(place, "imt-test-large")
    (place / "home").mkdir()
    if there:
        run(folder.installJob(place / "old"))
    before = snapshot(place / "home")
    job = folder.installJob(place / "new")
    said = []
    job.cancelled.connect(lambda: said.append("cancelled"))
    job.ended.connect(lambda: said.append("ended"))
    moment = []

    def cancel(line: str) -> None:
        if "Installing collected" in line:
            pids.extend(p.pid for p in psutil.Process().children(recursive=True) if p.pid not in others)
            start = time.monotonic()
            job.cancel()
            moment.append(time.monotonic() - start)

    pids: list[int] = []
    others = psutil.pids()  # other tests of this process may have left Python's resource tracker
    job.logged.connect(cancel)
    job.start()
    with pytest.raises(JobCancelled):
        job.wait(timeout=120)
    assert said == ["cancelled", "ended"] and moment[0] < 1
    assert pids and not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
    assert snapshot(place / "home") == before
    assert not list((place / "t m p").iterdir())


def test_a_folder_that_cannot_be_replaced_stays(place, monkeypatch):
    write_wheel(place / "wheels", "imt-test-base", "1.0")
    folder = packages(place, "imt-test-base")
    run(folder.installJob(place / "wheels"))
    before = snapshot(folder.folder.parent)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:  # as on Windows while a worker has a library of it open
        if self.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(JobFailed, match="Close what uses it"):
        run(folder.installJob(place / "wheels"))
    assert snapshot(folder.folder.parent) == before


def test_the_place_is_the_users_and_follows_the_python_version(tmp_path, monkeypatch):
    monkeypatch.setenv("IMT_PACKAGES", str(tmp_path / "all"))
    assert PackageFolder("engines", "needs.txt").folder == tmp_path / "all" / f"engines-{sys.implementation.cache_tag}"
    monkeypatch.delenv("IMT_PACKAGES")
    if sys.platform not in ("win32", "darwin"):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert packagesRoot() == tmp_path / "data" / "IMT" / "packages"


def test_a_package_is_found_under_every_spelling_that_means_the_same(place):
    """PEP 503: runs of hyphens, underscores and dots are one hyphen; capitals do not count."""
    write_wheel(place / "wheels", "Imt.Test__Base", "1.0")
    spellings = ("imt-test-base", "IMT_test.base", "imt--test._-base", "Imt.Test__Base")
    folder = packages(place, "\n".join(spellings))
    assert folder.missing() == list(spellings)
    run(packages(place, "imt-test-base").installJob(place / "wheels"))
    assert packages(place, "\n".join(spellings)).missing() == []
    assert packages(place, "imttestbase\nimt-test").missing() == ["imttestbase", "imt-test"]


def test_a_requirement_that_is_none_is_named(place):
    with pytest.raises(ValueError, match="what is this"):
        packages(place, "what is this?").missing()


# ---------------------------------------------------------------- on the terminal


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "IMTSlicerLib.package_folders", *map(str, arguments)]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=MODULE, capture_output=True, text=True, encoding="utf-8", timeout=120)


def test_the_terminal_installs_looks_and_removes(place):
    write_wheel(place / "wheels", "imt-test-base", "1.0")
    (place / "needs.txt").write_text("imt-test-base\n")
    where = ("--requirements", place / "needs.txt", "--folder", place / "engines")
    absent = call("status", *where)
    assert absent.returncode == 1 and "missing imt-test-base" in absent.stdout
    done = call("install", *where, "--wheels", place / "wheels")
    assert done.returncode == 0 and "Successfully installed" in done.stdout, done.stderr
    assert call("status", *where).returncode == 0
    assert call("remove", *where[2:]).returncode == 0 and not (place / "engines").exists()
    assert call("install", *where, "--wheels", place / "none").returncode == 2
    assert call("install", "--folder", place / "engines").returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM")
def test_a_terminated_installation_leaves_nothing(place):
    write_wheel(place / "wheels", "imt-test-large", "2.0", megabytes=60)
    (place / "needs.txt").write_text("imt-test-large\n")
    arguments = ("install", "--requirements", place / "needs.txt", "--folder", place / "home" / "x", "--wheels", place / "wheels")
    with subprocess.Popen(command(*arguments), cwd=MODULE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        for line in process.stdout:
            if "Installing collected" in line:
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
    assert children and not psutil.wait_procs(children, timeout=1)[1]
    assert not list((place / "home").iterdir())
