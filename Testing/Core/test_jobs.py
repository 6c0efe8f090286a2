"""Claims on background jobs, with real processes: signals, cancel, failure, and nothing that is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from IMTCommand.__main__ import main
from IMTCore.child_environment import module_command, module_folders, python_executable, worker_environment
from IMTSlicerLib.job_progress import JobProgress
from IMTSlicerLib.jobs import Job, JobCancelled, JobFailed, JobRefused, ProcessJob
from IMTSlicerLib.processes import ChildProcess, describeExit
from IMTSlicerLib.signals import Signal
from IMTSlicerLib.workers import Worker

MODULE = Path(__file__).resolve().parents[2] / "IMTTranslate"
REGISTER, SEGMENT = MODULE.parent / "IMTRegister", MODULE.parent / "IMTSegment"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")
# A child that starts a child that ignores SIGTERM; both tell their numbers.
FAMILY = """
import os, subprocess, sys, time
code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code])
print(os.getpid(), flush=True)
{then}
"""
STAY = "time.sleep(600)"


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """The place of temporary folders, with a space and other letters; every test must leave it empty."""
    folder = tmp_path_factory.mktemp("t m p ö 脳")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def kept() -> Iterator[Worker]:
    worker = Worker(keepSeconds=60)
    yield worker
    worker.stop()


class Heard:
    """All that a job says, in order; whether its folder and process are there at the end."""

    def __init__(self, job) -> None:
        self.said: list[tuple] = []
        for name in ("progress", "logged", "finished", "failed", "cancelled", "ended"):
            getattr(job, name).connect(lambda *values, name=name: self.said.append((name, *values)))
        job.finished.connect(lambda: self.said.append(("folder", job.folder.is_dir())))
        job.ended.connect(lambda: self.said.append(("folder", job.folder.is_dir())))

    def of(self, name: str) -> list[tuple]:
        return [values for said, *values in self.said if said == name]

    @property
    def ends(self) -> list[str]:
        return [said[0] for said in self.said if said[0] not in ("progress", "logged", "folder")]


def translate(head: Path, model: Path, output: Path, *more: object) -> list[object]:
    return ["translate", head, "--model", model, "--output", output, "--device", "cpu", "--progress", "json", *more]


def long_translate(head: Path, model: Path, folder: Path) -> list[object]:
    """Goes on for longer than any test waits."""
    more = ("--uncertainty", folder / "sd.nrrd", "--samples", 1000, "--batch", 1)
    return translate(head, model, folder / "T2.nrrd", *more)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(*pids: int, seconds: float = 1.0) -> bool:
    """Whether all these processes end within the time; a zombie that another has to bury counts as gone."""
    until = time.monotonic() + seconds
    while True:
        living = []
        for pid in pids:
            try:
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    living.append(pid)
            except psutil.NoSuchProcess:
                pass
        if not living or time.monotonic() > until:
            return not living
        time.sleep(0.01)


def drive(job, until) -> None:
    """Tick until `until()` is true."""
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end and job.state == "running", (job.state, job.errorMessage)
        job.tick()
        time.sleep(0.005)


# ---------------------------------------------------------------- a translation as a job


def test_a_job_translates_as_the_command_does_and_leaves_nothing(tmp_path, model, head, temporary):
    results = []
    job = Job(lambda folder: [translate(head, model, folder / "T2.nrrd", "--batch", 2)], title="T1 to T2")
    heard = Heard(job)
    job.finished.connect(lambda: results.append((job.folder / "T2.nrrd").read_bytes()))
    job.finished.connect(lambda: results.append(job.worker.isRunning()))
    assert (job.state, job.title, job.folder) == ("idle", "T1 to T2", None)
    job.start()
    assert job.state == "running" and job.folder.parent == temporary and job.worker.pid
    job.wait()
    assert job.state == "finished" and heard.ends == ["finished", "ended"] and heard.said[-1] == ("folder", False)
    assert heard.of("folder") == [[True], [False]]
    assert main([str(a) for a in translate(head, model, tmp_path / "T2.nrrd")]) == 0
    assert results == [(tmp_path / "T2.nrrd").read_bytes(), False]

    fractions = [fraction for fraction, _, _ in heard.of("progress")]
    assert fractions == sorted(fractions) and fractions[0] >= 0 and fractions[-1] == 1
    assert len({f for f in fractions if 0.16 < f < 0.97}) >= 3
    messages = [message for _, message, _ in heard.of("progress")]
    assert any(message.startswith("translate: slice 2 of") for message in messages), messages
    job.wait()  # once more does no harm
    with pytest.raises(RuntimeError, match="only once"):
        job.start()


def test_requests_run_in_order_and_share_the_jobs_fraction(model, head):
    def requests(folder: Path) -> list[list[object]]:
        assert folder.is_dir()
        return [
            translate(head, model, folder / "a ö.nrrd"),
            ["models", "list"],
            translate(folder / "a ö.nrrd", model, folder / "b.nrrd"),
        ]

    job = Job(requests)
    heard = Heard(job)
    found = []
    job.finished.connect(lambda: found.extend(sorted(p.name for p in job.folder.glob("*.nrrd"))))
    job.start()
    job.wait(60)
    assert found == ["a ö.nrrd", "b.nrrd"]
    fractions = [fraction for fraction, _, _ in heard.of("progress")]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and any(0.3 < f < 0.34 for f in fractions)
    assert any("T1-T2" in line for (line,) in heard.of("logged"))


def test_bad_input_is_refused_with_the_commands_message(tmp_path, model):
    job = Job([translate(tmp_path / "absent ö.nii", model, tmp_path / "T2.nrrd"), ["models", "list"]])
    heard = Heard(job)
    job.start()
    with pytest.raises(JobRefused, match="absent ö.nii does not exist. Check the path.") as refused:
        job.wait()
    assert isinstance(refused.value, ValueError) and isinstance(refused.value, RuntimeError)
    assert refused.value.exitCode == job.exitCode == 2 and job.errorMessage == str(refused.value)
    assert heard.ends == ["failed", "ended"] and heard.of("failed") == [[str(refused.value), 2]]
    assert not heard.of("finished") and not job.worker.isRunning()
    with pytest.raises(JobRefused):
        job.wait()


def test_without_an_error_line_the_last_log_lines_are_the_message(kept):
    for worker in (None, kept):
        job = Job([["dance"]], worker)
        job.start()
        with pytest.raises(JobRefused, match="(?s)imt: .*dance"):
            job.wait()


def test_another_failure_is_no_refusal(tmp_path, model, head):
    (tmp_path / "file").touch()
    job = Job([translate(head, model, tmp_path / "file" / "T2.nrrd")])
    job.start()
    with pytest.raises(JobFailed, match="Cannot write") as failed:
        job.wait()
    assert failed.value.exitCode == 1 and not isinstance(failed.value, ValueError)


@posix
@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "memory"), (signal.SIGSEGV, "crashed")])
def test_a_worker_that_dies_fails_the_job_and_the_next_job_gets_another(model, head, kept, number, words):
    job = Job(lambda folder: [long_translate(head, model, folder)], kept)
    heard = Heard(job)
    job.progress.connect(lambda fraction, message, left: message.startswith("load") and os.kill(kept.pid, number))
    job.start()
    with pytest.raises(JobFailed, match=words) as failed:
        job.wait(60)
    assert failed.value.exitCode == -number and heard.ends == ["failed", "ended"] and not kept.isRunning()
    job = Job([["models", "list"]], kept)
    job.start()
    job.wait(60)
    assert kept.isRunning()


def test_cancel_ends_a_translation_within_one_second(model, head, temporary):
    job = Job(lambda folder: [long_translate(head, model, folder)])
    heard = Heard(job)
    job.start()
    drive(job, lambda: any("load" in message for _, message, _ in heard.of("progress")))
    time.sleep(0.3)
    pid, start = job.worker.pid, time.monotonic()
    job.cancel()
    assert gone(pid, seconds=0) and not list(temporary.iterdir()) and time.monotonic() - start < 1
    assert job.state == "cancelled" and heard.ends == ["cancelled", "ended"]
    job.cancel()
    assert heard.ends == ["cancelled", "ended"]
    with pytest.raises(JobCancelled):
        job.wait()


# ---------------------------------------------------------------- workers


def test_a_kept_worker_takes_the_next_job_and_stops_when_told(model, head, kept):
    said = []
    pids = []
    for _ in range(2):
        job = Job(lambda folder: [translate(head, model, folder / "T2.nrrd")], kept)
        job.progress.connect(lambda fraction, message, left: said.append(message))
        job.start()
        assert kept.isBusy
        job.wait(60)
        pids.append(kept.pid)
        assert kept.isRunning() and not kept.isBusy
    assert pids[0] == pids[1]
    done = [message for message in said if message.startswith("done: ")]
    assert "load 0.0," in done[-1]
    kept.stop()
    assert gone(pids[0], seconds=0) and kept.pid is None
    kept.stop()


def test_a_failed_request_leaves_a_kept_worker_in_service(tmp_path, model, kept):
    for _ in range(2):
        job = Job([translate(tmp_path / "absent.nii", model, tmp_path / "T2.nrrd"), ["models", "list"]], kept)
        job.start()
        pid = kept.pid
        with pytest.raises(JobRefused):
            job.wait(60)
        assert kept.pid == pid


def test_a_kept_worker_leaves_after_its_time_and_the_next_job_starts_another():
    worker = Worker(keepSeconds=0.5)
    for _ in range(2):
        job = Job([["models", "list"]], worker)
        job.start()
        job.wait(60)
        assert worker.isRunning() and gone(worker.pid, seconds=5)
        time.sleep(0.2)  # to be noticed
        assert not worker.isRunning() and worker.exitCode == 0


def test_a_worker_that_leaves_just_as_a_request_comes_is_replaced(kept):
    job = Job([["models", "list"]], kept)
    job.start()
    job.wait(60)
    pid = kept.pid
    kept.closeInput()  # it ends, as after its idle time, and does not read what comes now
    job = Job([["models", "list"]], kept)
    job.start()
    job.wait(60)
    assert job.state == "finished" and kept.pid != pid


def test_a_worker_takes_one_job_at_a_time(model, head, kept):
    first = Job(lambda folder: [long_translate(head, model, folder)], kept)
    first.start()
    second = Job([["models", "list"]], kept)
    heard = Heard(second)
    with pytest.raises(RuntimeError, match="another job"):
        second.start()
    assert second.state == "failed" and not heard.said and not second.folder.exists() and kept.isBusy
    first.cancel()
    assert not kept.isBusy and not kept.isRunning()


def test_stopping_a_worker_fails_the_job_that_runs_in_it(model, head, kept):
    job = Job(lambda folder: [long_translate(head, model, folder)], kept)
    heard = Heard(job)
    job.start()
    drive(job, lambda: bool(heard.of("progress")))
    kept.stop()
    with pytest.raises(JobFailed):
        job.wait(10)
    assert heard.ends == ["failed", "ended"]


def test_a_worker_that_does_not_leave_is_killed_before_finished_is_told():
    """As one whose libraries hang at the end: no real command does that on request."""

    class Hanging(ChildProcess):
        def start(self, command, environment):
            code = "import json, time\nn = json.loads(input())['id']\n"
            code += "print(json.dumps({'stage': 'end', 'fraction': 1.0, 'message': '', 'exit_code': 0, 'id': n}), flush=True)\ntime.sleep(600)"
            super().start(python(code), environment)

    worker = Worker(process=Hanging)
    job = Job([["models", "list"]], worker)
    running = []
    job.finished.connect(lambda: running.append(gone(pid, seconds=0)))
    job.start()
    pid, start = worker.pid, time.monotonic()
    job.wait(10)
    assert running == [True] and 1.5 < time.monotonic() - start < 4


# ---------------------------------------------------------------- any command


def test_a_command_is_logged_line_by_line_and_its_exit_code_counts(temporary):
    code = "import sys; print('grüße 脳'); sys.stdout.buffer.write(b'\\xff!\\n'); print('no', file=sys.stderr); sys.exit({})"
    job = ProcessJob(python(code.format(0)))
    heard = Heard(job)
    job.start()
    job.wait(60)
    assert sorted(line for (line,) in heard.of("logged")) == ["grüße 脳", "no", "�!"]
    assert heard.ends == ["finished", "ended"] and heard.of("progress")[-1] == [1.0, "", 0.0]
    job = ProcessJob(lambda folder: python(code.format(2)))
    job.start()
    with pytest.raises(JobFailed, match="no") as failed:
        job.wait(60)
    assert failed.value.exitCode == 2 and not isinstance(failed.value, JobRefused)
    job = ProcessJob([temporary / "no such program"])
    with pytest.raises(OSError):
        job.start()
    assert job.state == "failed" and not job.folder.exists()


class Breaking(ChildProcess):
    """A process whose output cannot be read any more, once it is told so."""

    broken = False

    def readLines(self) -> list[tuple[str, str]]:
        if self.broken:
            raise ZeroDivisionError("division by zero")
        return super().readLines()


@pytest.mark.parametrize("how", ["cancel", "raise", "end", "exit"])
def test_grandchildren_that_ignore_sigterm_die_too(how, tmp_path):
    code = FAMILY.format(then=STAY if how != "end" else "time.sleep(0.5)")
    if how == "exit":  # Slicer is closed meanwhile
        program = (
            f"import sys, time\nfrom IMTSlicerLib.jobs import ProcessJob\njob = ProcessJob([sys.executable, '-c', {code!r}])\n"
        )
        program += "job.logged.connect(lambda line: print(line, flush=True))\njob.start()\nend = time.monotonic() + 2\n"
        program += "while time.monotonic() < end:\n    job.tick()\n    time.sleep(0.05)\n"
        run = subprocess.run(
            python(program), cwd=MODULE, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, timeout=60
        )
        pids = [int(line) for line in run.stdout.split()]
        assert len(pids) == 2 and gone(*pids), run.stderr
        assert not list(tmp_path.iterdir())
        return
    process = Breaking()
    job = ProcessJob(python(code), process=lambda: process)
    pids = []
    job.logged.connect(lambda line: pids.append(int(line)))
    job.start()
    drive(job, lambda: len(pids) == 2)
    start = time.monotonic()
    if how == "cancel":
        job.cancel()
    elif how == "raise":
        process.broken = True
        with pytest.raises(JobFailed, match="division"):
            job.wait(10)
    else:
        job.wait(10)
    assert gone(*pids, seconds=0.2) and (how == "end" or time.monotonic() - start < 1)


@posix
def test_the_child_of_a_launcher_has_time_for_a_clean_end(tmp_path):
    """Slicer's Python is a launcher that dies of SIGTERM at once, and the real Python is its child."""
    done = tmp_path / "done"
    code = "import pathlib, signal, sys, time\ndef end(*_):\n    time.sleep(0.1)\n    pathlib.Path(sys.argv[1]).touch()\n    sys.exit()\n"
    code += "signal.signal(signal.SIGTERM, end)\nprint('ready', flush=True)\ntime.sleep(600)"
    job = ProcessJob(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}, {str(done)!r}])"))
    heard = Heard(job)
    job.start()
    drive(job, lambda: heard.of("logged") == [["ready"]])
    start = time.monotonic()
    job.cancel()
    assert done.exists() and time.monotonic() - start < 1


def test_a_request_that_cannot_be_made_starts_nothing(temporary):
    job = Job(lambda folder: 1 / 0)
    heard = Heard(job)
    with pytest.raises(ZeroDivisionError):
        job.start()
    assert job.state == "failed" and not heard.said and not job.worker.isRunning()
    with pytest.raises(ValueError, match="at least one"):
        Job([]).start()


# ---------------------------------------------------------------- listeners, waiting, Slicer


@pytest.mark.parametrize("name", ["progress", "logged", "finished", "ended"])
def test_a_listener_that_raises_leaves_nothing_and_wait_tells(name, caplog):
    process = ChildProcess()
    job = ProcessJob(python("print(1); print(2)"), process=lambda: process)
    getattr(job, name).connect(lambda *_: 1 / 0)
    heard = Heard(job)
    job.start()
    pid = process.pid
    with pytest.raises(ZeroDivisionError):
        job.wait(60)
    assert job.state == "finished" and heard.ends == ["finished", "ended"] and len(heard.of("logged")) == 2
    assert gone(pid) and not job.folder.exists() and "ZeroDivisionError" in caplog.text


def test_a_listener_may_cancel_tick_and_let_others_cancel():
    job = ProcessJob(python("print(1, flush=True); print(2, flush=True); import time; time.sleep(600)"))
    heard = Heard(job)
    job.logged.connect(lambda line: (job.tick(), job.cancel(), job.tick()))
    job.start()
    with pytest.raises(JobCancelled):
        job.wait(60)
    assert heard.ends == ["cancelled", "ended"] and heard.of("logged") == [["1"]]


def test_lines_keep_their_order_when_listeners_tick():
    job = ProcessJob(python("for n in range(5000):\n    print(n)"))
    lines = []
    job.logged.connect(lambda line: (job.tick(), lines.append(int(line))))
    job.start()
    job.wait(60)
    assert lines == list(range(5000))


def test_a_listener_cannot_wait_for_its_own_job():
    job = ProcessJob(python("print(1)"))
    job.logged.connect(lambda line: job.wait())
    job.start()
    with pytest.raises(RuntimeError, match="cannot wait"):
        job.wait(60)


def test_a_job_may_be_cancelled_while_it_makes_its_requests(kept):
    """Exporting a volume may let Slicer work, and the user press Cancel."""

    def requests(folder: Path) -> list[list[str]]:
        job.cancel()
        job.tick()
        (folder / "input.nrrd").touch()
        return [["models", "list"]]

    job = Job(requests, kept)
    heard = Heard(job)
    job.start()
    assert heard.ends == ["cancelled", "ended"] and not kept.isRunning() and not kept.isBusy and not job.folder.exists()


def test_waiting_has_a_limit_and_needs_a_start():
    job = ProcessJob(python("import time; time.sleep(600)"))
    with pytest.raises(RuntimeError, match="Start the job"):
        job.wait()
    job.cancel()
    assert job.state == "idle"
    job.start()
    with pytest.raises(TimeoutError):
        job.wait(0.1)
    assert job.state == "running"
    job.cancel()


@posix
def test_ctrl_c_while_waiting_cancels():
    process = ChildProcess()
    code = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGINT); time.sleep(600)"
    job = ProcessJob(python(code), process=lambda: process)
    job.start()
    with pytest.raises(KeyboardInterrupt):
        job.wait(60)
    assert job.state == "cancelled" and gone(process.pid)


class Timer:
    """What jobs use of qt.QTimer; `fire` is what Slicer's event loop does."""

    made: list[Timer] = []

    def __init__(self) -> None:
        self.timeout, self.active = Signal(), False
        Timer.made.append(self)

    def setInterval(self, milliseconds: int) -> None:
        assert milliseconds == 50

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False

    @classmethod
    def fire(cls) -> None:
        for timer in cls.made:
            if timer.active:
                timer.timeout.emit()


def test_in_slicer_a_timer_drives_the_job_in_slicers_temporary_folder(monkeypatch, tmp_path):
    application = SimpleNamespace(temporaryPath=str(tmp_path / "Slicer tmp"), processEvents=Timer.fire)
    modules = {"slicer": ModuleType("slicer"), "qt": ModuleType("qt")}
    modules["slicer"].app, modules["qt"].QTimer = application, Timer
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Timer, "made", [])
    code = "import time\nfor n in range(5):\n    print(n, flush=True)\n    time.sleep(0.05)"

    job = ProcessJob(python(code))
    heard = Heard(job)
    job.start()
    assert job.folder.parent == tmp_path / "Slicer tmp" and Timer.made[0].active
    end = time.monotonic() + 60
    while job.state == "running" and time.monotonic() < end:
        Timer.fire()
    assert heard.ends == ["finished", "ended"] and not Timer.made[0].active

    job = ProcessJob(python(code))
    heard = Heard(job)
    job.logged.connect(lambda line: application.processEvents())  # a listener that lets Slicer work
    job.start()
    job.wait(60)  # and so does wait
    assert heard.ends == ["finished", "ended"]
    assert [line for (line,) in heard.of("logged")] == ["0", "1", "2", "3", "4"]
    assert not list((tmp_path / "Slicer tmp").iterdir())


# ---------------------------------------------------------------- small parts


def test_the_fraction_never_falls_and_the_time_left_comes_from_the_long_stages_rate():
    now = [0.0]
    progress = JobProgress(2, lambda: now[0])
    assert progress.update(0, "read", 0.0) == (0.0, None)
    assert progress.update(0, "translate", 0.1)[1] is None
    before = progress.fraction
    assert progress.update(0, "note", 0.0) == (before, None)
    now[0] = 2.0
    fraction, left = progress.update(0, "translate", 0.3)
    assert fraction > before and left == pytest.approx(0.7 * 10 + 10)
    assert progress.update(0, "write", 1.0) == (pytest.approx(0.495), pytest.approx(10))
    assert progress.finishRequest(0) == 0.5
    assert progress.update(1, "cases", 0.5) == (0.75, None)
    assert progress.update(1, "cases", 7.0)[0] == 1.0


def test_a_signal_calls_all_listeners_in_order_and_then_raises():
    said, sender = [], Signal()

    def first(value: int) -> None:
        said.append(("first", value))
        sender.disconnect(second)

    def second(value: int) -> None:
        said.append(("second", value))

    def broken(value: int) -> None:
        raise KeyError(value)

    for listener in (broken, first, first, second):
        sender.connect(listener)
    with pytest.raises(KeyError):
        sender.emit(1)
    sender.disconnect(broken)
    sender.disconnect(broken)
    sender.emit(2)
    sender.disconnect()
    sender.emit(3)
    assert said == [("first", 1), ("first", 2)]


@posix
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "memory"),
        (-11, "crashed (SIGSEGV)"),
        (-15, "from outside (SIGTERM)"),
        (3, "exit code 3"),
        (-200, "signal 200"),
        (None, "end"),
    ],
)
def test_an_exit_code_is_told_in_words(code, words):
    assert words in describeExit(code)


def test_the_environment_of_workers(monkeypatch, tmp_path):
    monkeypatch.setenv("ITK_AUTOLOAD_PATH", "somewhere")
    monkeypatch.setenv("PYTHONPATH", f"mine{os.pathsep}{MODULE}")
    environment = worker_environment([tmp_path / "pack ages"])
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "pack ages"), str(MODULE), str(REGISTER), str(SEGMENT), "mine"]
    assert "ITK_AUTOLOAD_PATH" not in environment and os.environ["ITK_AUTOLOAD_PATH"]
    assert environment["PYTHONUTF8"] == environment["PYTHONUNBUFFERED"] == "1"


def test_workers_find_the_modules_of_a_checkout_and_of_an_installation(monkeypatch, tmp_path):
    from IMTCore import child_environment as environment

    def lay(*folders: str) -> None:
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "__init__.py").touch()

    monkeypatch.setattr(environment, "_imported_from", lambda name: MODULE if name in ("IMTCore", "IMTCommand") else None)
    lay(
        "out/IMTTranslate/IMTSlicerLib", "out/IMTTranslate/IMTCore", "out/IMTTranslate/IMTCommand", "out/IMTSegment/IMTSegmentLib"
    )
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "out/IMTTranslate/IMTCore/child_environment.py"))
    assert module_folders() == [str(tmp_path / "out" / name) for name in ("IMTTranslate", "IMTSegment")]
    lay("all/IMTSlicerLib", "all/IMTCore", "all/IMTCommand", "all/IMTRegisterLib", "all/IMTSegmentLib")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "all/IMTCore/child_environment.py"))
    assert module_folders() == [str(tmp_path / "all")]
    lay("alone/IMTSlicerLib", "else/IMTRegisterLib")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "alone/IMTCore/child_environment.py"))
    monkeypatch.setattr(environment, "_imported_from", lambda name: MODULE if name in ("IMTCore", "IMTCommand") else tmp_path / "else")
    assert module_folders() == [str(MODULE), str(tmp_path / "else")]


@posix
def test_slicers_python_is_preferred(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert python_executable() == sys.executable
    (tmp_path / "PythonSlicer").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "Slicer"))
    assert python_executable() == str(tmp_path / "PythonSlicer")
    monkeypatch.setenv("PATH", "")
    assert python_executable() == str(tmp_path / "PythonSlicer")


@posix
def test_an_engines_packages_win_over_those_that_slicers_launcher_puts_first(monkeypatch, tmp_path):
    for place, number in (("Slicer", "1.17"), ("engine", "1.15")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "imt_test_science.py").write_text(f"VERSION = {number!r}\n")
    (tmp_path / "engine" / "imt_test_engine.py").write_text("import imt_test_science\nprint(imt_test_science.VERSION)\n")
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/Slicer:$PYTHONPATH" exec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    command = module_command("imt_test_engine")
    assert command[0] == str(launcher)
    done = subprocess.run(command, env=worker_environment([tmp_path / "engine"]), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1.15", done.stderr


def test_nothing_of_slicer_is_imported_by_the_panels_library():
    names = sorted(
        path.stem for path in (MODULE / "IMTSlicerLib").glob("*.py") if path.stem in ("jobs", "package_folders", "workers")
    )
    code = f"import sys, {', '.join('IMTSlicerLib.' + name for name in names)}\n"
    code += "sys.exit(bool({'slicer', 'qt', 'vtk', 'ctk', 'torch', 'numpy', 'IMTCommand'} & set(sys.modules)))"
    subprocess.run(python(code), cwd=MODULE, check=True, timeout=60)
