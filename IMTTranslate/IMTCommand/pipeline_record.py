"""What is written down of each case: its log for people, and its record, from which tables and report are made."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IMTCore.errors import OutputFailure
from IMTCore.files import describe_write_error, write_json
from IMTCore.provenance import read_mark

LOGS = "logs"


def now() -> str:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass
class CaseRecord:
    """One case's record `logs/<case>.json` and its log `logs/<case>.log`.

    `content`: case, input, and by stage state, seconds, warnings, message, outputs, found. It is written whole; lines of
    the log are added.
    """

    folder: Path
    case: str
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, case: str) -> CaseRecord:
        """The record of an earlier run, or an empty one."""
        content = read_mark(folder / LOGS / f"{case}.json")
        return cls(folder, case, content if is_sound(content) else {"stages": {}})

    def stage(self, name: str) -> dict[str, Any]:
        """What is known of a stage."""
        return self.content["stages"].get(name, {})

    def put(self, name: str, **what: Any) -> None:
        """Replace what is known of a stage, and write the record.

        Raises:
            OutputFailure.
        """
        self.content["stages"][name] = what
        self.write()

    def write(self) -> None:
        """Write the record."""
        write_json(self.folder / LOGS / f"{self.case}.json", self.content)

    def log(self, text: str) -> None:
        """Add lines to the log.

        Raises:
            OutputFailure.
        """
        path = self.folder / LOGS / f"{self.case}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as stream:
                stream.writelines(f"{now()} {line}\n" for line in text.splitlines())
        except OSError as error:
            raise OutputFailure(describe_write_error(path, error)) from error


def is_sound(content: dict[str, Any]) -> bool:
    """Whether a record is built as this program builds it; another is as good as none."""
    stages, drawn = content.get("stages"), content.get("pictures", {"pictures": []})
    if not _has(content, {"stages": dict}) or not all(isinstance(stage, dict) for stage in stages.values()):
        return False
    found = {name: stage.get("found") or {} for name, stage in stages.items()}
    if not all(isinstance(one, dict) for one in found.values()):
        return False
    compared, missing = (found.get("evaluate", {}).get(key, []) for key in ("comparisons", "missing"))
    volumes = found.get("segment", {}).get("statistics", [])
    return (
        _all_have(volumes, {"name": str, "volume_ml": float | int})
        and _all_have(compared, {"made": str, "what": str, "identity": dict, "rows": list, "warnings": list})
        and all(isinstance(row, dict) for entry in compared for row in entry["rows"])
        and _all_have(missing, {"what": str, "reason": str})
        and _has(drawn, {"pictures": list})
        and _all_have(drawn["pictures"], {"file": str, "caption": str, "alt": str})
    )


def _has(entry: Any, kinds: dict[str, Any]) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())


def _all_have(entries: Any, kinds: dict[str, Any]) -> bool:
    return isinstance(entries, list) and all(_has(entry, kinds) for entry in entries)
