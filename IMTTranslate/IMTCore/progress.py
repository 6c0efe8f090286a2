"""What long work tells its caller, and how it asks whether to go on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, str], None]  # (stage, fraction done 0–1, message)
Say = Callable[[str], None]  # a sentence for the user


def quiet(*_: object) -> None:
    """A listener that ignores what it is told."""


def never() -> bool:
    """A cancel check that never cancels."""
    return False
