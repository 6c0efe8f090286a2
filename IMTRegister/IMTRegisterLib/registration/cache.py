"""Registrations that were computed before, kept by the content of all that went into them.

A run with other weights, fusion or labels finds its registrations here, and a run that was killed goes on where it was.
One file an entry, `<key>.npz`: plain arrays and a JSON text, read without pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.files import whole_file
from IMTCore.volume import Geometry

from ..deformations.transforms import Transform

FORMAT = 1
LIMIT_GB = 20.0
# What reading a damaged archive, an array in it or its JSON text raises.
DAMAGED = (OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
KEPT_SECONDS = 24 * 3600  # what was used since then is not removed: another run may be about to read it


def key_of(kind: str, **parts: Any) -> str:
    """The key of an entry: SHA-256 of what it is computed from (hashes, numbers, texts; no paths)."""
    text = json.dumps({"kind": kind, "format": FORMAT, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def transform_sha256(transform: Transform) -> str:
    """SHA-256 of a transform's matrix, field and grid."""
    digest = hashlib.sha256(np.round(transform.matrix, 9).tobytes())
    if transform.displacement is not None:
        digest.update(np.ascontiguousarray(transform.displacement).tobytes())
        digest.update(np.round(transform.geometry.affine_ras, 6).tobytes())
    return digest.hexdigest()


class RegistrationCache:
    """Entries in a folder; without a folder it keeps nothing and finds nothing. Threads and processes may share it.

    Attributes:
        hits, misses: entries found, and asked for in vain.
    """

    def __init__(self, folder: Path | None, limit_gb: float = LIMIT_GB) -> None:
        self.folder = None if folder is None else Path(folder)
        self.limit_gb = limit_gb
        self.hits = self.misses = 0

    def arrays(self, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """An entry's arrays and its record; None if it is not there. A damaged entry is not there."""
        path = self._path(key)
        if path is not None and path.is_file():
            try:
                with np.load(path, allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in stored.files}
                record = json.loads(bytes(arrays.pop("record")).decode())
                with contextlib.suppress(OSError):
                    os.utime(path)  # used now: it is the last to be removed
                self.hits += 1
                return arrays, record
            except DAMAGED:
                pass  # computed anew and written over
        self.misses += 1
        return None

    def put_arrays(self, key: str, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        """Keep an entry, whole or not at all.

        Raises:
            OutputFailure: the folder cannot be written.
        """
        path = self._path(key)
        if path is None:
            return
        text = np.frombuffer(json.dumps(record, ensure_ascii=False).encode(), np.uint8)
        with whole_file(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, record=text, **arrays)

    def transform(self, key: str) -> tuple[Transform, dict[str, Any]] | None:
        """A transform and its record (engine, seconds); None if it is not there."""
        found = self.arrays(key)
        if found is None:
            return None
        arrays, record = found
        try:
            if "displacement" not in arrays:
                return Transform(arrays["matrix"]), record
            grid = record["grid"]
            geometry = Geometry(tuple(grid["shape"]), grid["spacing_mm"], grid["origin_lps"], np.array(grid["direction"]))
            return Transform(arrays["matrix"], arrays["displacement"], geometry), record
        except (*DAMAGED, BadInput):
            self.hits, self.misses = self.hits - 1, self.misses + 1
            return None

    def put_transform(self, key: str, transform: Transform, record: dict[str, Any]) -> None:
        """Keep a transform with its record."""
        arrays = {"matrix": np.array(transform.matrix)}
        if transform.displacement is not None:
            geometry = transform.geometry
            arrays["displacement"] = np.asarray(transform.displacement, np.float32)
            record = {
                **record,
                "grid": {
                    "shape": list(geometry.shape),
                    "spacing_mm": geometry.spacing_mm.tolist(),
                    "origin_lps": geometry.origin_lps.tolist(),
                    "direction": geometry.direction.tolist(),
                },
            }
        self.put_arrays(key, arrays, record)

    def trim(self) -> None:
        """Remove the entries that were not used for longest, until the folder is within its limit."""
        if self.folder is None or not self.folder.is_dir():
            return
        entries = []
        for path in self.folder.glob("*.npz"):
            with contextlib.suppress(OSError):
                state = path.stat()
                entries.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in entries)
        for used, size, path in sorted(entries):
            if total <= self.limit_gb * 1e9 or used > time.time() - KEPT_SECONDS:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.npz"
