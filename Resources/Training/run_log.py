"""What a run says of itself: lines in `log.jsonl` and `validation.jsonl`, on the screen a bar or lines."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from IMTCore.errors import OutputFailure
from IMTCore.files import describe_write_error, write_text


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line of JSON.

    Raises:
        OutputFailure: if it cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OutputFailure(describe_write_error(path, error)) from error


def forget_after(path: Path, step: int) -> None:
    """Drop the rows of later steps: a run that was killed after its last checkpoint will write them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # half a line: the process was killed while it wrote
    write_text(path, "".join(kept))


class Screen:
    """A progress bar on a terminal, plain lines elsewhere.

    Args:
        total: of what `advance` counts up to.
        unit: of it.
        start: where a resumed run is.
        shown: False for all but one of several processes.
    """

    def __init__(self, total: float, unit: str, start: float = 0, shown: bool = True) -> None:
        self._shown, self._bar = shown, None
        if shown and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                print("No progress bar: the package tqdm is not installed.", file=sys.stderr)
            else:
                form = "{percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}, {remaining} left{postfix}]"
                self._bar = tqdm(total=total, initial=start, unit=unit, bar_format=form, dynamic_ncols=True)

    def advance(self, done: float, values: Mapping[str, float]) -> None:
        """Show that `done` of the total is done, and the last losses."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
            self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self._shown:
            return
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def close(self) -> None:
        """Leave the bar."""
        if self._bar is not None:
            self._bar.close()


class Interruption:
    """Turns Ctrl-C and a request to end into a flag, asked between steps, so that a checkpoint can be written first."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:  # the second time at once
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
