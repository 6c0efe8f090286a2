"""Faults that the hostile inputs and the kills of Testing/Hardening found, each mended: in commands, requests, tables and files."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import head_file
from packages import write_tiny_package

from IMTCommand.__main__ import main
from IMTCommand.serve_command import answer
from IMTCore.cards import read_card
from IMTCore.cases import read_cases
from IMTCore.errors import BadInput
from IMTCore.files import remove_leftovers, sha256_of, temporary_prefix, whole_file, write_text
from IMTCore.outputs import write_result
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.volume_io import read_volume
from IMTRegisterLib.registration.cache import RegistrationCache
from IMTSlicerLib.jobs import parseEvent

ROUNDS = 25
posix = pytest.mark.skipif(sys.platform == "win32", reason="links, locks and signals")

# --- What is told --------------------------------------------------------------------------------------------------


@posix
def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path: Path, model: Path, capfd: pytest.CaptureFixture) -> None:
    name = tmp_path / "esc\x1b[31m.nii.gz"
    name.write_bytes(b"no image")
    assert main(["translate", str(name), "--model", str(model), "--output", str(tmp_path / "o.nii.gz")]) == 2
    said = capfd.readouterr().err
    assert "esc?[31m.nii.gz" in said and "\x1b" not in said


@posix
def test_a_link_to_itself_and_a_name_that_is_too_long_are_one_clear_error(tmp_path: Path, model: Path, capfd: pytest.CaptureFixture) -> None:
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    for given in ("loop.nii.gz", "x" * 300 + ".nii.gz"):
        assert main(["evaluate", "--truth", str(tmp_path / given), "--prediction", str(tmp_path / given)]) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and given[:20] in said and "Internal" not in said
    head = head_file(tmp_path / "head.nii.gz")
    assert main(["translate", str(head), "--model", str(model), "--output", str(tmp_path / ("y" * 300 + ".nii.gz"))]) == 2
    assert "too long for this system" in capfd.readouterr().err


def test_a_message_has_an_end(tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.json").write_text(json.dumps({"default": 1, "weights": {"x" * 60_000: 7}}))
    words = ["register", "a.nii", "--modality", "T1", "--translate-to", "T2", "--atlases", "a", "--output-labels", "o.nii.gz"]
    (tmp_path / "a.nii").touch()
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--weight", str(tmp_path / "w.json")]) == 2
    assert len(capfd.readouterr().err) < 4500


# --- Requests and progress -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"a":' * 100_000, b'{"id": 1, "arguments": ["models", "show", "a\\u0000"]}', b"9" * 9999])
def test_no_request_ends_the_server(line: bytes, capfd: pytest.CaptureFixture) -> None:
    assert answer(line)[1] == 2
    assert "Internal" not in capfd.readouterr().err


def test_a_request_with_half_a_character_is_refused(capfd: pytest.CaptureFixture) -> None:
    assert answer(b'{"id": 3, "arguments": ["models", "show", "\\ud800"]}') == (3, 2)
    assert "no name can have" in capfd.readouterr().err


@pytest.mark.parametrize("fraction", ["NaN", "Infinity", "-Infinity"])
def test_a_line_of_progress_without_a_number_is_only_logged(fraction: str) -> None:
    assert parseEvent('{"stage": "translate", "fraction": 0.5, "message": ""}')
    assert parseEvent('{"stage": "translate", "fraction": ' + fraction + ', "message": ""}') is None
    assert parseEvent('{"a":' * 100_000) is None


# --- Tables of cases, and the cache --------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "path", "reason"), [("a", "x\0.nii", "line 2.*NUL"), ("a", "b/" + "x" * 300, "line 2"), ("n" * 150, "a.nii", "too long")])
def test_a_row_that_no_file_system_takes_is_refused_at_once(tmp_path: Path, case: str, path: str, reason: str) -> None:
    (tmp_path / "cases.csv").write_text(f"case,subject,session,modality,path\n{case},s,,T1,{path}\n")
    with pytest.raises(BadInput, match=reason):
        read_cases(tmp_path / "cases.csv", "T1")


def test_a_damaged_entry_of_the_cache_is_computed_anew(tmp_path: Path) -> None:
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    head += b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 9), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("record.npy", head)
    stored = io.BytesIO()
    np.savez(stored, record=np.frombuffer(b"[" * 100_000, np.uint8))
    (tmp_path / "nested.npz").write_bytes(stored.getvalue())
    record = np.frombuffer(json.dumps({"grid": 7}).encode(), np.uint8)
    np.savez(tmp_path / "words.npz", record=record, matrix=np.array(["a"]), displacement=np.array(["b"]))
    cache = RegistrationCache(tmp_path)
    assert [cache.transform(name) for name in ("claims", "nested", "words")] == [None, None, None]
    assert (cache.hits, cache.misses) == (0, 3)


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path: Path) -> None:
    write_text(tmp_path / ("a" * 250 + ".txt"), "whole")
    assert (tmp_path / ("a" * 250 + ".txt")).read_text() == "whole"


def test_a_changed_record_of_a_pipeline_is_told_and_its_report_not_begun(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    model = write_tiny_package(tmp_path / "model")
    head_file(tmp_path / "cases" / "a" / "T1.nii.gz")
    words = ["pipeline", str(tmp_path / "cases"), "--output", str(tmp_path / "out"), "--translate", str(model), "--device", "cpu"]
    assert main(words) == 0
    report = (tmp_path / "out" / "report.html").read_bytes()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps({**run, "models": [True]}))
    capfd.readouterr()
    assert main(["pipeline", "--output", str(tmp_path / "out"), "--report-only"]) == 2
    assert "changed or damaged" in capfd.readouterr().err and (tmp_path / "out" / "report.html").read_bytes() == report
    assert main(words) == 0, "a run writes it anew"


# --- Leftovers, and two at once ------------------------------------------------------------------------------------


@posix
def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom IMTCore.files import temporary_folder, whole_file\n"
    code += f"folder = Path({str(tmp_path)!r})\ntemporary_folder(folder / 'x')\n"
    code += "with whole_file(folder / 'a.txt') as t:\n    t.write_text('half')\n    print('now', flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert process.stdout.readline() == b"now\n"
    before = sorted(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == before and len(before) == 2, "it lives"
    process.kill()
    process.wait()
    process.stdout.close()
    (tmp_path / ".imt-notes").write_text("somebody's own")
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".imt-notes", "a.txt"]


@posix
def test_leftovers_of_another_computer_stay(tmp_path: Path) -> None:
    other = tmp_path / ".imt-999999999-00000000-x-a.txt"
    other.touch()
    remove_leftovers(tmp_path)
    assert other.exists() and not temporary_prefix().startswith(".imt-999999999-00000000")


def _write_often(card: Path, head: Path, output: Path, seed: int, together: Any, bad: Any) -> None:
    card, volume = read_card(card), read_volume(head)
    result = Translator(card, TranslationSettings(device="cpu", seed=seed, dropout=True)).translate(volume)
    for _ in range(ROUNDS):
        together.wait(60)
        write_result(card, result, output, None, "head.nii.gz", str(seed))
        together.wait(60)
        mark = json.loads(output.with_name("T2.json").read_text())
        bad.value += mark["output"]["sha256"] != sha256_of(output)


@posix
def test_of_two_runs_with_one_output_the_image_has_its_own_mark(tmp_path: Path) -> None:
    """Without the lock 19 of 60 rounds ended with an image beside the mark of the other."""
    card, head, output = write_tiny_package(tmp_path), head_file(tmp_path / "head.nii.gz"), tmp_path / "out" / "T2.nii"
    context = multiprocessing.get_context("spawn")
    together, bad = context.Barrier(2), context.Value("i", 0)
    processes = [context.Process(target=_write_often, args=(card, head, output, seed, together, bad)) for seed in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0] and bad.value == 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["T2.json", "T2.nii"]


def test_a_file_is_whole_for_every_reader_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "0" * 100_000)
    with whole_file(path) as temporary:
        temporary.write_text("1" * 10)
        assert path.read_text() == "0" * 100_000
    assert path.read_text() == "1" * 10
