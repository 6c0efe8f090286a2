"""`imt serve`: run requests from standard input, one after the other, keeping models loaded.

One JSON object a line comes in, {"id": 1, "arguments": ["translate", ..., "--progress", "json"]}; its output goes out
as that of `imt` with the same arguments, followed by {"stage": "end", "fraction": 1.0, "message": "", "exit_code": 0,
"id": 1}. The server ends with 0 at the end of its input or when it was idle for long enough.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import sys
import threading
from typing import Any

from IMTCore.errors import BadInput, Cancelled

from .kept_models import kept_segmenters
from .translate_command import kept_translators

KEPT_MODELS = 2  # of each kind: each takes a model's memory


def run(values: argparse.Namespace) -> int:
    """Serve until there is nothing more to do."""
    if not values.idle > 0:
        raise BadInput(f"--idle is a number of seconds above 0, not {values.idle:g}.")
    requests = read_lines(take_standard_streams())
    kept_translators.count = kept_segmenters.count = KEPT_MODELS
    while True:
        try:
            line = requests.get(timeout=min(values.idle, threading.TIMEOUT_MAX))
        except queue.Empty:
            return 0
        if line is None:
            return 0
        number, code = answer(line)
        end = {"stage": "end", "fraction": 1.0, "message": "", "exit_code": code, "id": number}
        sys.stderr.flush()
        print(json.dumps(end), flush=True)
        if code == Cancelled.exit_code:  # only a signal does that, and it was meant for the server
            return code


def take_standard_streams() -> int:
    """Keep requests and answers apart from what else reads or writes: C libraries, and programs started by a request.

    From here on they find an empty standard input, and what they print goes to standard error.

    Returns:
        The file number that the requests come from.
    """
    sys.stdout.flush()
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(answers, "wb"), encoding="utf-8", errors="replace", line_buffering=True)
    return requests


def read_lines(file_number: int) -> queue.SimpleQueue[bytes | None]:
    """The lines of a file as they come, then None. A thread reads them: on Windows a pipe cannot be waited for."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(file_number, "rb") as stream:
            for line in stream:
                if line.strip():
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def answer(line: bytes) -> tuple[Any, int]:
    """Run one request; its id (None if it has none) and exit code."""
    from .__main__ import main, report

    number = None
    try:
        request = json.loads(line.decode("utf-8"))
        number = request.get("id") if isinstance(request, dict) else None
        arguments = check_request(request)
    except BadInput as error:
        return number, report(str(error), BadInput.exit_code, True)
    except (ValueError, RecursionError) as error:
        return number, report(f"A request is one JSON object a line, and this is none: {error}.", BadInput.exit_code, True)
    try:
        return number, main(arguments)
    except SystemExit as end:  # --help and --version
        return number, end.code if isinstance(end.code, int) else 0


def check_request(request: Any) -> list[str]:
    """The request's arguments.

    Raises:
        BadInput: if it has none, or asks for another server.
    """
    arguments = request.get("arguments") if isinstance(request, dict) else None
    if not isinstance(arguments, list) or not all(isinstance(part, str) for part in arguments):
        raise BadInput('A request needs "arguments", a list of texts, as {"id": 1, "arguments": ["models", "list"]}.')
    for part in arguments:
        try:
            usable = b"\0" not in os.fsencode(part)
        except UnicodeEncodeError:
            usable = False
        if not usable:
            raise BadInput(f"The argument {part!a} of a request holds a character that no name can have.")
    if "serve" in arguments[:2]:
        raise BadInput("A request cannot start another server.")
    return arguments
