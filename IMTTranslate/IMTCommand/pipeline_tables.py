"""The tables of a pipeline: the summary, which follows every change, and what was measured."""

from __future__ import annotations

import contextlib
import csv
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IMTCore.cases import Case
from IMTCore.errors import OutputFailure
from IMTSegmentLib.segmentation_outputs import STATISTICS_COLUMNS

from .cohort import SUMMARY, Outcome, write_table
from .pipeline_plan import STAGES
from .pipeline_record import CaseRecord
from .pipeline_scores import IMAGE_COLUMNS
from .segment_cohort import SCORE_TABLE, STATISTICS, cell
from .segment_comparison import SCORES

COLUMNS = ("case", "subject", "session", "modality", "state", *STAGES, "seconds", "message")
IMAGE_SCORES = "image_scores.csv"
ATLAS_SCORES = "atlas_scores.csv"
TABLES = (SUMMARY, STATISTICS, SCORE_TABLE, IMAGE_SCORES, ATLAS_SCORES)
WHO = ("case", "subject", "session")
LABEL_COLUMNS = ("code", "name", *SCORES)


def read_summary(folder: Path) -> list[dict[str, str]]:
    """The rows of a summary that an earlier run wrote; empty if there is none, or it is another table."""
    try:
        with open(folder / SUMMARY, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            return [dict(row) for row in reader] if tuple(reader.fieldnames or ()) == COLUMNS else []
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


@dataclass
class Tables:
    """The tables of a run: one row of the summary a case from the start.

    States are waiting, running, done, skipped (was finished before) and failed; a stage that is not in the plan has none.
    """

    folder: Path
    cases: Sequence[Case]
    stages: Sequence[str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        seconds = {row["case"]: row["seconds"] for row in read_summary(self.folder)}  # until the case's turn comes
        for case in self.cases:
            states = dict.fromkeys(STAGES, "") | dict.fromkeys(self.stages, "waiting")
            who = {"case": case.case, "subject": case.subject, "session": case.session, "modality": case.modality}
            self.rows[case.case] = {**who, "state": "waiting", **states, "seconds": seconds.get(case.case, ""), "message": ""}
            self.records[case.case] = CaseRecord.read(self.folder, case.case).content

    def tell(self, case: str, states: Mapping[str, str]) -> None:
        """A case goes on: state by stage. What comes after its end (from another process) is passed over."""
        with self._lock:
            if case in self._ended or case not in self.rows:
                return
            if states.get(self.stages[0]) == "running":
                self.rows[case] |= dict.fromkeys(self.stages, "waiting")  # from the start; once again if its worker was killed
            self.rows[case] |= {**states, "state": "running"}
            with contextlib.suppress(OutputFailure):  # the case itself meets a full disk too, and says so
                self._write_summary()

    def write(self, outcomes: Sequence[Outcome] = ()) -> None:
        """All tables, with what has come of the cases that ended.

        Raises:
            OutputFailure.
        """
        with self._lock:
            for one in outcomes:
                self._end(one)
            self._write_summary()
            self._write_found(STATISTICS, "segment", "statistics", STATISTICS_COLUMNS)
            for name, what, columns in (
                (IMAGE_SCORES, "translate", IMAGE_COLUMNS),
                (SCORE_TABLE, "segment", LABEL_COLUMNS),
                (ATLAS_SCORES, "register", LABEL_COLUMNS),
            ):
                self._write_scores(name, what, columns)

    def stop(self) -> None:
        """The run was stopped: what was running waits again."""
        with self._lock, contextlib.suppress(OutputFailure):
            for row in self.rows.values():
                row |= {key: "waiting" for key in ("state", *self.stages) if row[key] == "running"}
            self._write_summary()

    def _end(self, one: Outcome) -> None:
        name, result, row = one.case.case, one.result, self.rows[one.case.case]
        self._ended.add(name)
        row |= {"state": result.state, "message": result.message, **result.cells}
        stages = {} if result.found is None else result.found["stages"]
        known = [stages[stage].get("seconds") for stage in self.stages if stage in stages]
        # The work on all its stages, also that of earlier runs.
        row["seconds"] = round(sum(seconds for seconds in known if seconds is not None), 2) if known else one.seconds
        for stage in self.stages:  # of a case whose worker was killed
            if row[stage] == "running":
                row[stage] = "failed"
        if result.found is not None:
            self.records[name] = result.found

    def _write_summary(self) -> None:
        write_table(self.folder / SUMMARY, COLUMNS, [[row[column] for column in COLUMNS] for row in self.rows.values()])

    def _found(self, case: Case, stage: str) -> dict[str, Any]:
        found = self.records[case.case]["stages"].get(stage, {}).get("found")
        return found if isinstance(found, dict) else {}

    def _write_found(self, name: str, stage: str, what: str, columns: Sequence[str]) -> None:
        if stage in self.stages:
            found = [(case, entry) for case in self.cases for entry in self._found(case, stage).get(what, ())]
            self._write_rows(name, columns, found)

    def _write_scores(self, name: str, what: str, columns: Sequence[str]) -> None:
        found = [
            (case, row)
            for case in self.cases
            for entry in self._found(case, "evaluate").get("comparisons", ())
            if entry["what"] == what
            for row in entry["rows"]
        ]
        if found:
            self._write_rows(name, columns, found)

    def _write_rows(self, name: str, columns: Sequence[str], found: list[tuple[Case, dict[str, Any]]]) -> None:
        rows = [(case.case, case.subject, case.session, *(cell(row.get(key)) for key in columns)) for case, row in found]
        write_table(self.folder / name, (*WHO, *columns), rows)
