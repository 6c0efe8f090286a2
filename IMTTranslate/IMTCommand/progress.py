"""Progress on the terminal: a bar for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time

from IMTCore.plain_text import shown
from IMTCore.progress import Progress, Say, quiet

BAR_WIDTH = 30


class ProgressBar:
    """A bar on standard error with the stage, the fraction and the time left."""

    def __init__(self) -> None:
        self.stage, self.start, self.length = "", time.monotonic(), 0

    def __call__(self, stage: str, fraction: float, message: str) -> None:
        if stage != self.stage:
            self.stage, self.start = stage, time.monotonic()
        elapsed = time.monotonic() - self.start
        left = f", {elapsed / fraction * (1 - fraction):.0f} s left" if 0.05 < fraction < 1 else ""
        filled = round(BAR_WIDTH * min(max(fraction, 0), 1))
        line = f"{stage:<10} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {fraction:4.0%} {message}{left}"
        print("\r" + line.ljust(self.length), end="", file=sys.stderr, flush=True)
        self.length = len(line)

    def close(self) -> None:
        """End the line."""
        if self.length:
            print(file=sys.stderr, flush=True)
            self.length = 0


def json_line(stage: str, fraction: float, message: str) -> None:
    """One JSON object a line on standard output: what the panel reads."""
    print(json.dumps({"stage": stage, "fraction": round(float(fraction), 4), "message": message}), flush=True)


def listener(kind: str | None) -> Progress:
    """The listener for `--progress`: a bar if nothing was said and standard error is a terminal."""
    if kind is None:
        kind = "bar" if sys.stderr.isatty() else "none"
    return {"bar": ProgressBar(), "json": json_line, "none": quiet}[kind]


def speaker(progress: Progress) -> Say:
    """Says a sentence on standard error; for `--progress json` also as a note among the lines."""

    def say(message: str) -> None:
        close(progress)
        print(f"imt: {shown(message)}", file=sys.stderr, flush=True)
        if progress is json_line:
            progress("note", 0.0, message)

    return say


def close(progress: Progress) -> None:
    """End a bar's line: what follows starts on a line of its own."""
    if isinstance(progress, ProgressBar):
        progress.close()


def tell_end(progress: Progress, message: str) -> None:
    """The last word of a command that went well."""
    if progress is json_line:
        progress("done", 1.0, message)
    else:
        print(message)
