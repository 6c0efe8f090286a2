"""Claims on `imt serve`: the same results as the plain command, in order, with models kept, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import head_file
from packages import write_tiny_package

import IMTCore
from IMTCommand.__main__ import main
from IMTCommand.translate_command import KeptTranslators
from IMTCore.cards import read_card
from IMTCore.progress import quiet
from IMTCore.settings import TranslationSettings
from IMTCore.version import VERSION

CPU = TranslationSettings(device="cpu")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, cat")


class Server:
    """A real `imt serve`."""

    def __init__(self, *arguments: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(IMTCore.__file__).parents[1]), "PYTHONUTF8": "1"}
        command = [sys.executable, "-m", "IMTCommand", "serve", *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        self.number = 0

    def write(self, line: str | bytes) -> None:
        self.process.stdin.write(line if isinstance(line, bytes) else line.encode())
        self.process.stdin.flush()

    def send(self, *arguments: object) -> int:
        self.number += 1
        self.write(json.dumps({"id": self.number, "arguments": [str(a) for a in arguments]}) + "\n")
        return self.number

    def lines(self) -> list[dict[str, Any]]:
        """All lines up to the next end line; each must be JSON."""
        found = []
        while not found or found[-1]["stage"] != "end":
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read().decode()
            found.append(json.loads(line))
        return found

    def ask(self, *arguments: object) -> list[dict[str, Any]]:
        number = self.send(*arguments)
        lines = self.lines()
        assert lines[-1]["id"] == number
        return lines

    def end(self, seconds: float = 10) -> int:
        self.process.stdin.close()
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):
                pipe.close()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.kill()


def translate(head: Path, model: Path, output: Path, *more: object) -> list[object]:
    return ["translate", head, "--model", model, "--output", output, "--device", "cpu", "--progress", "json", *more]


def written(output: Path) -> tuple[bytes, dict[str, Any]]:
    record = json.loads(output.with_name(output.name.split(".")[0] + ".json").read_text(encoding="utf-8"))
    record.pop("created")
    return output.read_bytes(), record


def test_the_second_translation_loads_nothing_and_both_equal_the_plain_commands_bit_for_bit(server, tmp_path, model, head):
    more = ("--samples", 3, "--seed", 5)
    places = [tmp_path / name for name in ("first ö", "second", "plain")]
    for place in places[:2]:
        lines = server.ask(*translate(head, model, place / "T2.nrrd", "--uncertainty", place / "sd.nrrd", *more))
        assert lines[-1] == {"stage": "end", "fraction": 1.0, "message": "", "exit_code": 0, "id": server.number}
        stages = [line["stage"] for line in lines]
        assert list(dict.fromkeys(stages)) == ["read", "load", "translate", "write", "done", "end"]
    assert "load 0.0," in lines[-2]["message"]
    assert server.end() == 0
    arguments = translate(head, model, places[2] / "T2.nrrd", "--uncertainty", places[2] / "sd.nrrd", *more)
    assert main([str(a) for a in arguments]) == 0
    for name in ("T2.nrrd", "sd.nrrd"):
        assert written(places[0] / name) == written(places[1] / name) == written(places[2] / name)


def test_cases_are_translated_with_a_kept_model(server, tmp_path, model, head):
    for case in ("a", "b"):
        head_file(tmp_path / "in" / case / "T1.nii.gz")
    assert server.ask(*translate(head, model, tmp_path / "T2.nrrd"))[-1]["exit_code"] == 0
    assert server.ask(*translate(tmp_path / "in", model, tmp_path / "out"))[-1]["exit_code"] == 0
    assert server.ask(*translate(tmp_path / "in" / "b" / "T1.nii.gz", model, tmp_path / "b.nii.gz"))[-1]["exit_code"] == 0
    assert (tmp_path / "out" / "b" / "T2.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_failures_have_their_exit_codes_and_the_server_lives_on(server, tmp_path, model, head):
    lines = server.ask(*translate(tmp_path / "absent.nii", model, tmp_path / "o.nii"))
    assert [line["stage"] for line in lines] == ["error", "end"]
    assert (lines[0]["exit_code"], lines[1]["exit_code"]) == (2, 2) and "does not exist" in lines[0]["message"]
    (tmp_path / "file").touch()
    assert server.ask(*translate(head, model, tmp_path / "file" / "o.nii"))[-1]["exit_code"] == 1
    assert server.ask(*translate(head, model, tmp_path / "o.nii"))[-1]["exit_code"] == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{\n", "JSON"),
        (b"\xff\xfe\n", "JSON"),
        (b"[1]\n", "arguments"),
        (b'{"id": 7}\n', "arguments"),
        (b'{"id": 7, "arguments": "models list"}\n', "arguments"),
        (b'{"id": 7, "arguments": ["serve"]}\n', "another server"),
        (b'{"id": 7, "arguments": ["dance"]}\n', "dance"),
    ],
)
def test_a_broken_request_is_refused_and_the_server_lives_on(server, line, words):
    server.write(b"\n" + line)
    error, end = server.lines()[-2:] if b"dance" not in line else (None, server.lines()[-1])
    assert end["exit_code"] == 2 and end["id"] == (7 if b"7" in line else None)
    if error:
        assert error["stage"] == "error" and words in error["message"]
    server.write(b'{"id": 8, "arguments": ["evaluate"]}\n')
    assert server.lines()[-1] == {"stage": "end", "fraction": 1.0, "message": "", "exit_code": 2, "id": 8}
    assert server.end() == 0
    assert words in server.process.stderr.read().decode()


def test_the_output_of_many_requests_does_not_mix(server, tmp_path, model, head):
    """Also not with what C libraries print, such as ITK's of a damaged .mha."""
    damaged = head_file(tmp_path / "damaged.mha")
    damaged.write_bytes(damaged.read_bytes()[:4000])
    for number in range(8):
        server.send(*translate(damaged if number % 2 else head, model, tmp_path / f"T2-{number}.nii", "--batch", 2))
    for number in range(8):
        lines = server.lines()
        assert lines[-1]["id"] == number + 1 and lines[-1]["exit_code"] == (2 if number % 2 else 0)
        assert lines[0]["message"] == ("damaged.mha" if number % 2 else head.name)
        assert ("damaged.mha" if number % 2 else f"T2-{number}.nii") in lines[-2]["message"]
    assert server.end() == 0


@posix
def test_what_a_request_starts_neither_reads_requests_nor_writes_answers():
    code = "import os\nfrom IMTCommand.serve_command import take_standard_streams\nfile = take_standard_streams()\n"
    code += "os.write(1, b'library\\n')\nos.system('echo program; cat')\nprint(os.read(file, 99).decode())"
    environment = {**os.environ, "PYTHONPATH": str(Path(IMTCore.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], input=b"request", env=environment, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"request\n", b"library\nprogram\n")


def test_what_a_command_prints_comes_before_its_end_line(server):
    said = []
    for request in (("models", "list", "--json"), ("--version",)):
        number = server.send(*request)
        text = b""
        while b'"stage": "end"' not in text:
            text += server.process.stdout.readline()
        body, _, end = text.decode().rstrip().rpartition("\n")
        assert (json.loads(end)["id"], json.loads(end)["exit_code"]) == (number, 0)
        said.append(body)
    assert json.loads(said[0])[0]["name"] and said[1] == f"imt {VERSION}"


def test_the_server_ends_after_the_idle_time_and_at_the_end_of_its_input(server):
    assert server.end() == 0
    start = time.monotonic()
    idle = Server("--idle", 0.5)
    assert idle.process.wait(20) == 0 and time.monotonic() - start > 0.5
    idle.kill()
    refused = Server("--idle", 0)
    assert refused.process.wait(20) == 2 and b"--idle" in refused.process.stderr.read()
    refused.kill()


@posix
def test_sigterm_ends_an_idle_server_and_a_busy_one(tmp_path, model, head):
    for busy in (False, True):
        server = Server()
        server.ask("evaluate")  # it serves
        if busy:
            sd = ("--uncertainty", tmp_path / "sd.nrrd", "--samples", 30, "--batch", 1)
            server.send(*translate(head, model, tmp_path / "T2.nrrd", *sd))
            while json.loads(server.process.stdout.readline())["stage"] != "translate":
                pass
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 130
        server.kill()
        assert not list(tmp_path.iterdir())


def test_torch_is_imported_only_for_a_request_that_needs_it():
    code = "import sys; from IMTCommand.__main__ import main; main(['serve']); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(IMTCore.__file__).parents[1])}
    given = b'{"id": 1, "arguments": ["models", "list"]}\n'
    done = subprocess.run([sys.executable, "-c", code], input=given, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0 and b'"exit_code": 0' in done.stdout


# ---------------------------------------------------------------- the translators that are kept


def test_a_plain_command_keeps_none_and_a_server_reuses_the_same(tmp_path, model, head, monkeypatch):
    arguments, card = [str(a) for a in translate(head, model, tmp_path / "T2.nrrd")], read_card(model)
    kept = KeptTranslators()
    monkeypatch.setattr("IMTCommand.translate_command.kept_translators", kept)
    assert main(arguments) == 0 and kept.find(card, CPU, quiet) is None
    kept.count = 2
    assert main(arguments) == 0
    translator = kept.find(card, CPU, quiet)
    assert translator is not None
    assert main(arguments) == 0 and kept.find(card, CPU, quiet) is translator


def test_two_are_kept_and_the_one_unused_for_longest_goes(tmp_path):
    cards = [read_card(write_tiny_package(tmp_path / name)) for name in "abc"]
    kept = KeptTranslators()
    kept.count = 2
    first, _ = (kept.load(card, CPU, quiet) for card in cards[:2])
    assert kept.find(cards[0], CPU, quiet) is first
    third = kept.load(cards[2], CPU, quiet)
    assert [kept.find(card, CPU, quiet) for card in cards] == [first, None, third]


def test_another_setting_card_or_weights_file_is_loaded_anew(tmp_path):
    path = write_tiny_package(tmp_path)
    card, kept, said = read_card(path), KeptTranslators(), []
    kept.count = 2
    translator = kept.load(card, CPU, quiet)
    assert kept.find(read_card(path), TranslationSettings(device="cpu"), said.append) is translator
    translator.runner.say("full")
    assert said == ["full"]  # told to the request that runs, not to the first
    assert kept.find(card, TranslationSettings(device="cpu", seed=1), quiet) is None
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "output_range": [0, 100]}), encoding="utf-8")
    assert kept.find(read_card(path), CPU, quiet) is None
    path.write_text(json.dumps(content), encoding="utf-8")
    assert kept.find(read_card(path), CPU, quiet) is translator
    os.utime(card.weights_path, (1, 1))
    assert kept.find(card, CPU, quiet) is None


def test_a_translator_that_full_memory_has_changed_is_loaded_anew(tmp_path):
    card, kept = read_card(write_tiny_package(tmp_path)), KeptTranslators()
    kept.count = 2
    kept.load(card, CPU, quiet).runner.batch = 1
    assert kept.find(card, CPU, quiet) is None


def test_a_model_that_was_damaged_meanwhile_is_refused(server, tmp_path, head):
    path = write_tiny_package(tmp_path / "model")
    assert server.ask(*translate(head, path, tmp_path / "T2.nrrd"))[-1]["exit_code"] == 0
    weights = read_card(path).weights_path
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    error, end = server.ask(*translate(head, path, tmp_path / "T2.nrrd"))[-2:]
    assert end["exit_code"] == 2 and "SHA-256" in error["message"]
