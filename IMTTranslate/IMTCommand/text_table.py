"""Tables for people: rows of texts in columns."""

from __future__ import annotations

import math
from collections.abc import Sequence


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: float | None, form: str) -> str:
    """A number in a format such as ".3f"; "-" where there is none."""
    return "-" if value is None or math.isnan(value) else format(value, form)
