"""The cases of a batch and how far each is, as `summary.csv` in the output folder tells."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slicer.i18n import tr as _

from IMTSlicerLib.runs import inPanelWords

SUMMARY, REPORT = "summary.csv", "report.html"
STAGES = ("translate", "register", "segment", "evaluate")
FINISHED = ("done", "skipped")
OVER = (*FINISHED, "failed")


@dataclass(frozen=True)
class BatchRow:
    """One case.

    Attributes:
        case: its name, which is unique.
        state: waiting, running, done, skipped (it was finished before) or failed; empty before a batch has begun.
        stage: what is done with it now, or was when it failed; empty otherwise.
        seconds: what it took; None if it is not over.
        message: warnings, or what went wrong.
        path: the input image; None if the input is not at hand.
    """

    case: str
    state: str = ""
    stage: str = ""
    seconds: float | None = None
    message: str = ""
    path: Path | None = None


def readSummary(folder: Path) -> list[BatchRow]:
    """The cases of the batch that an output folder belongs to; empty if no batch has begun there.

    A table of another command, which has no stages, is none of a batch.
    """
    try:
        with open(folder / SUMMARY, newline="", encoding="utf-8") as stream:
            table = csv.DictReader(stream)
            if not {"case", "state", "seconds", "message", *STAGES} <= set(table.fieldnames or ()):
                return []
            return [_rowOf(entry) for entry in table]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def stampOf(folder: Path) -> tuple[int, int] | None:
    """What changes whenever the summary is written; None if there is none."""
    try:
        status = (folder / SUMMARY).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _rowOf(entry: dict[str, str]) -> BatchRow:
    state = entry["state"] or ""
    stage = next((name for name in STAGES if entry[name] == state), "") if state in ("running", "failed") else ""
    if state == "running" and not stage:  # between two stages
        stage = next((name for name in STAGES if entry[name] == "waiting"), "")
    try:
        seconds = float(entry["seconds"])
    except (TypeError, ValueError):
        seconds = None
    return BatchRow(entry["case"] or "", state, stage, seconds if state in OVER else None, inPanelWords(entry["message"] or ""))


def merged(found: Iterable[BatchRow], known: Sequence[BatchRow]) -> list[BatchRow]:
    """The cases of the input, each as far as the summary knows it, then those that the summary alone has.

    A summary that has none of them is of another input, and is left out.

    :param found: the cases of the input, with their paths.
    :param known: from `readSummary`.
    """
    here, states = {row.case: row for row in found}, {row.case: row for row in known}
    if here and not here.keys() & states.keys():
        return list(here.values())
    rows = [replace(states.get(case, row), path=row.path) for case, row in here.items()]
    return rows + [row for row in known if row.case not in here]


def inWords(row: BatchRow, running: bool) -> str:
    """A case's state for the table; what a stopped batch left in the middle is said to be so."""
    words = {
        "waiting": _("waiting"),
        "running": _("running") if running else _("interrupted"),
        "done": _("done"),
        "skipped": _("finished before"),
        "failed": _("failed"),
    }
    return words.get(row.state, row.state)


def stageInWords(stage: str) -> str:
    """What is done with a case."""
    words = {"translate": _("translate"), "register": _("register"), "segment": _("segment"), "evaluate": _("evaluate")}
    return words.get(stage, stage)


def tally(rows: Iterable[BatchRow]) -> Counter:
    """How many cases are in which state."""
    return Counter(row.state for row in rows)


def countsInWords(rows: Sequence[BatchRow]) -> str:
    """ "12 cases: 3 done, 1 failed, 8 to do"; states that no case has are left out."""
    states = tally(rows)
    text = _("1 case") if len(rows) == 1 else _("{count} cases").format(count=len(rows))
    parts = [
        (states["done"], _("{count} done")),
        (states["skipped"], _("{count} finished before")),
        (states["failed"], _("{count} failed")),
        (sum(states[state] for state in ("", "waiting", "running")), _("{count} to do")),
    ]
    if not any(states[state] for state in OVER):
        return text + "."
    return f"{text}: {', '.join(words.format(count=count) for count, words in parts if count)}."
