"""What the outputs of an accepted case must be like: whole, finite, marked, on the input's grid, and the same each time."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import ImtError
from IMTCore.provenance import is_mark, read_mark, sidecar_path
from IMTCore.volume_io import image_suffix, read_volume


def outputs_problem(out: Path, given: Path | None) -> str | None:
    """What is wrong with the files of an accepted case: each is whole, finite, marked, and on the input's grid."""
    if given is not None and (problem := _unsteady(given)):
        return problem
    found = [path for path in out.rglob("*") if path.is_file()]
    for path in found:
        if path.suffix == ".json" and (problem := _json_problem(path)):
            return problem
        if image_suffix(path) is None or path.suffix == ".json":
            continue
        try:
            volume = None if path.name.startswith("p.") else read_volume(path, constant=True)
        except ImtError as error:
            return f"the output cannot be read: {error}"
        if volume is not None and not np.isfinite(volume.array.astype(np.float64)).all():
            return f"{path.name} has values that are not finite"
        if path.name.startswith(("result", "sd")):
            if not is_mark(sidecar_path(path)):
                return f"{path.name} has no mark"
            if read_mark(sidecar_path(path)).get("output", {}).get("name") not in (None, path.name):
                return f"{path.name} has the mark of another file"
            # MGH and MetaImage keep six to seven digits.
            if given is not None and not _same_grid(volume.geometry, read_volume(given).geometry):
                return f"{path.name} is on another grid than the input"
    return None


def _unsteady(path: Path) -> str | None:
    """Whether reading gives what happens to lie in the memory: it is filled with one byte, then with another."""
    libc, m_perturb = ctypes.CDLL(None), -6
    read = []
    for fill in (0x5A, 0xA7):
        libc.mallopt(m_perturb, fill)
        try:
            read.append(read_volume(path, constant=True))
        except ImtError as error:
            read.append(str(error))
    libc.mallopt(m_perturb, 0)
    if isinstance(read[0], str) or isinstance(read[1], str):
        return f"{path.name} was accepted, and is refused when it is read again: {next(r for r in read if isinstance(r, str))}"
    return None if np.array_equal(read[0].array, read[1].array) else f"{path.name} gives other voxels each time: memory that was never written"


def _same_grid(one: Any, other: Any) -> bool:
    size = float(np.abs(other.affine_ras).max()) + float((np.array(other.shape[::-1]) * other.spacing_mm).max())
    return one.is_close(other, max(1e-2, 1e-5 * size))


def _json_problem(path: Path) -> str | None:
    def refuse(word: str) -> float:
        raise ValueError(word)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except ValueError as error:
        return f"{path.name} is no strict JSON: {error}"
    return None if all(math.isfinite(n) for n in _numbers(content)) else f"{path.name} has numbers that are not finite"


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _numbers(part)
    elif isinstance(content, float):
        yield content


