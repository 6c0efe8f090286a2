"""Texts from outside that a terminal or a window shows: characters that would act there instead of being shown."""

from __future__ import annotations

import re
from typing import Any

# C0 and C1 without tab and line break, what turns the direction of writing, and halves of characters.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """`text` with a question mark for each such character."""
    return CONTROLS.sub("?", text)


def has_controls(content: Any) -> bool:
    """Whether a text, or any text or key in a JSON structure, has such a character."""
    if isinstance(content, str):
        return CONTROLS.search(content) is not None
    if isinstance(content, dict):
        return any(has_controls(key) or has_controls(value) for key, value in content.items())
    return isinstance(content, list) and any(has_controls(part) for part in content)
