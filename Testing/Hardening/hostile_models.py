"""Hostile models: cards, weights and state dicts that are damaged, that lie, that would run code or use up the memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from home import Home
from hostile_volumes import put
from mutations import damage, damage_json, json_text, pick
from sandbox import CANARY

FILE_NAMES = (
    "../../outside.safetensors", "/etc/hostname", "..", "a/b.safetensors", "T1-T2.pth", "T1-T2.safetensors\0.x", "C:\\x.safetensors",
    "T1-T2.json", "", ".safetensors", "x" * 300 + ".safetensors", "T1\u202e-T2.safetensors", "-rf.safetensors",
)  # fmt: skip
Maker = Callable[[np.random.Generator, Path, Home, bool], Path]


def _package(home: Home, segments: bool) -> tuple[dict[str, Any], bytes]:
    card = json.loads((home.segmenter if segments else home.model).read_text())
    return card, (home.folder / "models" / card["weights"]["file"]).read_bytes()


def _save(folder: Path, card: Any, content: bytes, text: bytes | None = None, honest: bool = True) -> Path:
    """Write a package as `name.json`, `name.safetensors`; `honest`: its card tells the weights' size and hash."""
    if honest and isinstance(card, dict) and isinstance(card.get("weights"), dict):
        card["weights"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    folder.mkdir(exist_ok=True)
    put(folder / "hostile.safetensors", content)
    return put(folder / "hostile.json", json.dumps(card).encode() if text is None else text)


def card_values(rng: np.random.Generator, folder: Path, home: Home, segments: bool) -> Path:
    """A card with hostile values."""
    card, content = _package(home, segments)
    card["weights"]["file"] = "hostile.safetensors"
    kind = rng.random()
    if kind < 0.12:
        card["weights"]["file"] = pick(rng, FILE_NAMES)
    elif kind < 0.2:
        card["name"] = pick(rng, ("../../x", "", ".", "a/b", "x" * 500, "T1\nT2", "\x1b[31mred", "\u202e2T-1T"))
    elif kind < 0.3:
        key = pick(rng, ("title", "version", "intended_use", "description"))
        card[key] = pick(rng, ("\x1b]0;owned\x07", "\u202etxet", "two\nlines", "\0", "x" * 400_000, "\ud800"))
    elif kind < 0.4:
        arguments = card["network"]["arguments"]
        arguments[pick(rng, list(arguments))] = pick(rng, (1, 10, 64, 255, 256, 1 << 40, -5, 2.5, float("nan")))
    else:
        card = damage_json(rng, card)
    return _save(folder, card, content, honest=rng.random() < 0.8)


def card_bytes(rng: np.random.Generator, folder: Path, home: Home, segments: bool) -> Path:
    """A card that is not quite JSON, too long, a folder or a link to itself."""
    card, content = _package(home, segments)
    kind = rng.random()
    if kind < 0.7:
        return _save(folder, card, content, json_text(rng, card))
    if kind < 0.8:
        return _save(folder, card, content, b'{"a": "' + b"x" * (1 << 21) + b'"}')
    path = _save(folder, card, content)
    path.unlink()
    if kind < 0.87:
        path.mkdir()
    elif kind < 0.94:
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
    return path


def weights(rng: np.random.Generator, folder: Path, home: Home, segments: bool) -> Path:
    """A safetensors file that lies, with an honest card."""
    card, content = _package(home, segments)
    card["weights"]["file"] = "hostile.safetensors"
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    key = pick(rng, [key for key in header if key != "__metadata__"])
    entry = header[key]
    kind = pick(
        rng,
        ("length", "overlap", "beyond", "shape", "dtype", "nan", "key", "missing", "json", "bytes", "short", "long", "pickle", "negative", "metadata"),
    )
    if kind == "overlap":
        entry["data_offsets"] = [0, entry["data_offsets"][1] - entry["data_offsets"][0]]
    elif kind == "beyond":
        entry["data_offsets"] = pick(rng, ([0, 1 << 62], [1 << 63, 1 << 63], [len(data), len(data) + 8], [10, 2], [-8, 8], ["0", "8"], [0], None))
    elif kind == "shape":
        entry["shape"] = pick(rng, ([1 << 40], [1 << 62, 4], [-1], [0], [], ["4"], [10**30], None, entry["shape"][::-1]))
    elif kind == "dtype":
        entry["dtype"] = pick(rng, ("F64", "I64", "BOOL", "F8_E4M3", "I8", "object", None, 7, ["F32"], {"F16": 1}))
    elif kind == "nan":
        start, end = entry["data_offsets"]
        value = pick(rng, (b"\0\x7e", b"\0\x7c", b"\xff\xff"))
        size = 4 if entry["dtype"] == "F32" else 2
        value = value if size == 2 else struct.pack("<f", pick(rng, (float("nan"), float("inf"), -float("inf"))))
        places = rng.integers(0, (end - start) // size, int(pick(rng, (1, 3))))
        changed = bytearray(data)
        for place in places:
            changed[start + size * place : start + size * (place + 1)] = value
        data = bytes(changed)
    elif kind == "key":
        header[pick(rng, ("__class__", "../../x", "a\0", "x" * 10_000))] = header.pop(key)
    elif kind == "missing":
        del header[key]
    elif kind == "metadata":
        header["__metadata__"] = pick(rng, (7, ["x"], {"a": 1}, {"a": "\0" * 1000}, None, {"__reduce__": "x"}))
    elif kind == "json":
        header = damage_json(rng, header)
    text = json_text(rng, header) if kind == "json" else json.dumps(header).encode()
    size = len(text) if kind != "length" else int(pick(rng, (0, 1, len(text) - 1, 1 << 20, (1 << 20) + 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)))
    content = struct.pack("<Q", size) + text + data
    if kind == "bytes":
        content = damage(rng, content, length + 8)
    elif kind == "short":
        content = content[: int(rng.integers(0, len(content)))]
    elif kind == "long":
        content += rng.bytes(int(rng.integers(1, 5000)))
    elif kind == "pickle":
        content = malicious_pickle(folder.parent / CANARY)
    return _save(folder, card, content, honest=rng.random() < 0.9)


class _Runs:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path, how: int) -> None:
        self.canary, self.how = canary, how

    def __reduce__(self) -> Any:
        if self.how == 0:
            return os.system, (f"touch '{self.canary}'",)
        if self.how == 1:
            return eval, (f"open({str(self.canary)!r}, 'w').close()",)
        return os.mkdir, (str(self.canary),)


def malicious_pickle(canary: Path, how: int = 0) -> bytes:
    """A pickle that makes the file `canary` where it is loaded."""
    return pickle.dumps({"encoder.0.weight": _Runs(canary, how)}, protocol=2)


def state_dict(rng: np.random.Generator, folder: Path, home: Home, segments: bool) -> Path:
    """A `.pth` file: malicious, damaged, or not a U-Net's."""
    canary = folder.parent / CANARY
    path = folder / f"hostile.{pick(rng, ('pth', 'pt', 'bin', 'safetensors', 'json'))}"
    folder.mkdir(exist_ok=True)
    kind = pick(rng, ("pickle", "zip", "module", "list", "bytes", "bytes", "shapes", "nan", "keys", "other", "claims", "bomb"))
    stored = io.BytesIO()
    state: dict[Any, Any] = {
        "encoder.0.weight": torch.zeros(4, 1, 4, 4),
        "encoder.0.bias": torch.zeros(4),
        "encoder.1.weight": torch.zeros(8, 4, 4, 4),
        "decoder.0.weight": torch.zeros(8, 4, 4, 4),
        "decoder.1.weight": torch.zeros(8, 1, 4, 4),
        "decoder.1.bias": torch.zeros(1),
    }
    if kind == "pickle":
        return put(path, malicious_pickle(canary, int(rng.integers(3))))
    if kind == "zip":  # torch's own container around a malicious pickle
        with zipfile.ZipFile(stored, "w") as archive:
            archive.writestr("archive/data.pkl", malicious_pickle(canary, int(rng.integers(3))))
            archive.writestr("archive/version", "3\n")
        return put(path, stored.getvalue())
    if kind == "bomb":
        with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(1 << 28))
            archive.writestr("archive/version", "3\n")
        return put(path, stored.getvalue())
    if kind == "module":
        torch.save(torch.nn.Linear(2, 2), stored)
        return put(path, stored.getvalue())
    if kind == "list":
        state = pick(rng, ([1, 2], {}, {"a": 1}, {"state_dict": None}, {1: torch.zeros(2)}, {"encoder.x.weight": torch.zeros(2)}, "text", None))
    elif kind == "shapes":
        key = pick(rng, list(state))
        state[key] = pick(rng, (torch.zeros(0), torch.zeros(()), torch.zeros(3, 3), torch.zeros(0, 1, 4, 4), torch.zeros(4, 1, 4, 4, 4)))
    elif kind == "nan":
        state["encoder.1.weight"][0, 0, 0, 0] = pick(rng, (float("nan"), float("inf"), 1e38))
    elif kind == "keys":
        state[pick(rng, ("encoder.999999999.weight", "encoder.-1.weight", "model.model.1", "../../x", "", "encoder.1e5.weight", "encoder."))] = (
            torch.zeros(4, 4)
        )
    elif kind == "other":
        key = pick(rng, list(state))
        state[key] = pick(rng, (state[key].to(torch.complex64), state[key].long(), state[key].to_sparse(), state[key].double(), state[key].bool()))
    elif kind == "claims":  # a view of one number that seems to be gigabytes
        state["encoder.1.weight"] = torch.zeros(1).expand(int(pick(rng, (8, 1 << 16))), 1 << 14, 4, 4)
    torch.save(state, stored)
    content = stored.getvalue()
    return put(path, damage(rng, content, 400) if kind == "bytes" else content)


MODELS: dict[str, Maker] = {
    "model, card values": card_values,
    "model, card bytes": card_bytes,
    "model, weights": weights,
    "model, state dict": state_dict,
}
