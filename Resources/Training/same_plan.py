"""An output folder belongs to one experiment: what it was planned with is kept beside its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from IMTCore.errors import BadInput
from IMTCore.files import write_json


def check_same_plan(path: Path, record: dict[str, Any], what: str) -> None:
    """Refuse to add to another experiment; write the record if there is none yet.

    Args:
        path: the record's file.
        record: what decides the results, as JSON has it.
        what: the kind of experiment, for the message.

    Raises:
        BadInput: damaged, or another plan; names what differs.
    """
    if not path.exists():
        write_json(path, record)
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in {**record, **stored} if record.get(name) != stored.get(name)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is damaged ({error}). Choose another --output.") from error
    if different:
        raise BadInput(f"{path.parent} is of another {what} (differs in {', '.join(different)}). Choose another --output.")
