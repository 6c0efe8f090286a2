"""Ways to damage bytes and JSON, drawn from a generator of random numbers: the same seed gives the same damage."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

# What stands in the place of a number, a text or a list in a JSON file that somebody else wrote.
HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1 << 31,
    1 << 63,
    10**400,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    " ",
    "a\0b",
    "\x1b[2J\x1b[31mred",
    "\u202egnp.\u202c",
    "../../outside",
    "/etc/hostname",
    "C:\\Windows\\x",
    "T1\nT2",
    "x" * 70_000,
    "é́脳🧠",
    "\ud800",
    [],
    {},
    [[[[[[1]]]]]],
    [float("nan"), float("nan")],
    [10**400, 10**400],
    [1, "1"],
    {"a": {"b": None}},
)


def pick(rng: np.random.Generator, choices: Any) -> Any:
    """One of a sequence, as it is."""
    return choices[int(rng.integers(len(choices)))]


def damage(rng: np.random.Generator, content: bytes, head: int = 512) -> bytes:
    """Cut, flip, overwrite, repeat or insert; half of the damage falls into the first `head` bytes."""
    kind = pick(rng, ("cut", "flip", "fill", "repeat", "insert", "drop"))
    reach = min(len(content), head) if rng.random() < 0.5 else len(content)
    at = int(rng.integers(max(reach, 1)))
    length = int(rng.integers(1, 65))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        changed = bytearray(content)
        for place in rng.integers(0, max(reach, 1), int(rng.integers(1, 33))):
            if place < len(changed):
                changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == "fill":
        return content[:at] + bytes([int(pick(rng, (0, 255, 0x20, 0x7F)))]) * length + content[at + length :]
    if kind == "repeat":
        return content[: at + length] + content[at:]
    if kind == "insert":
        return content[:at] + rng.bytes(length) + content[at:]
    return content[:at] + content[at + length :]


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON structure, containers included."""
    found = [path] if path else []
    if isinstance(content, dict):
        for key, value in content.items():
            found += places(value, (*path, key))
    elif isinstance(content, list):
        for number, value in enumerate(content[:5]):
            found += places(value, (*path, number))
    return found


def damage_json(rng: np.random.Generator, content: Any) -> Any:
    """A copy with one to three values replaced, removed, renamed or added."""
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        known = places(content)
        if not known:
            return pick(rng, HOSTILE_VALUES)
        path = pick(rng, known)
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        kind = rng.random()
        if kind < 0.7:
            parent[path[-1]] = copy.deepcopy(pick(rng, HOSTILE_VALUES))
        elif kind < 0.85:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[pick(rng, ("extra", "__class__", "", "x" * 3000, "a\0b"))] = parent.pop(path[-1])
        else:
            parent.insert(0, parent[path[-1]])
    return content


def json_text(rng: np.random.Generator, content: Any) -> bytes:
    """JSON as bytes; now and then not quite JSON: nested too deep, a key twice, another encoding, damaged."""
    text = json.dumps(content)  # NaN and Infinity are written as such, and Python reads them
    kind = rng.random()
    if kind < 0.8:
        return text.encode()
    if kind < 0.84:
        return b"[" * 200_000
    if kind < 0.88:
        return b'{"a":' * 200_000
    if kind < 0.9 and text.startswith("{"):
        return ('{"name": "first", "format": 7, ' + text[1:]).encode()
    if kind < 0.92:
        return text.encode("utf-16")
    if kind < 0.94:
        return b"\xef\xbb\xbf" + text.encode()
    if kind < 0.95:
        return b'{"a": ' + b"9" * 5000 + b"}"
    return damage(rng, text.encode(), 200)
