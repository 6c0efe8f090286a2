"""The mark that every generated file carries: a JSON sidecar, and a line in the image header."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

from .cards import ModelCard
from .errors import BadInput
from .files import sha256_of, stem_of
from .version import VERSION
from .volume import Volume

MAX_MARK_BYTES = 1 << 24  # that of a registration with many atlases has some hundred kB
NOTICE = "Synthetic image made by a neural network. For research, not for diagnosis."


def sidecar_path(output: Path) -> Path:
    """The sidecar of an output: `<stem>.json` beside it."""
    return Path(output).with_name(stem_of(output) + ".json")


def check_sidecar_free(output: Path) -> None:
    """Refuse to overwrite a JSON file that is not one of our marks (a scanner's BIDS sidecar, for example).

    Raises:
        BadInput: naming the file.
    """
    path = sidecar_path(output)
    if path.exists() and not is_mark(path):
        raise BadInput(f"{path} exists and is not a mark of IMT: writing {Path(output).name} would overwrite it. Choose another name.")


def is_mark(path: Path) -> bool:
    """Whether the file is a sidecar of IMT: of a synthetic image, or of what was derived with one's help or might have been."""
    content = read_mark(path)
    return content.get("synthetic") is True or isinstance(content.get("derived_from_synthetic"), bool)


def read_mark(path: Path) -> dict[str, Any]:
    """A sidecar's content, or an empty dictionary if it is none."""
    path = Path(path)
    try:
        if not path.is_file() or path.stat().st_size > MAX_MARK_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def input_sha256(path: Path) -> str:
    """SHA-256 of an input file; of a DICOM folder, that of its files' hashes in the order of their names."""
    if path.is_dir():
        digests = [sha256_of(file) for file in sorted(path.iterdir()) if file.is_file()]
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    return sha256_of(path)


def volume_sha256(volume: Volume) -> str:
    """SHA-256 of a volume in memory: its values and its grid."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.array).tobytes())
    digest.update(np.round(volume.geometry.affine_ras, 6).tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    import torch

    return {"imt": VERSION, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}


def mark(
    card: ModelCard, source: str, target: str, input_name: str, input_hash: str, content: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """The sidecar's content.

    Args:
        card: the model used.
        source, target: modalities.
        input_name, input_hash: the input's file name and SHA-256.
        content: what the file holds, such as "translation" or "uncertainty".
        settings: what else a repeat needs (seed, normalisation, device …).
    """
    return {
        "synthetic": True,
        "notice": NOTICE,
        "content": content,
        "source_modality": source,
        "target_modality": target,
        "model": {"name": card.name, "version": card.content["version"], "sha256": card.sha256},
        "input": {"name": input_name, "sha256": input_hash},
        **settings,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def header_line(card: ModelCard, source: str, target: str, content: str) -> str:
    """The mark for an image header, at most 79 ASCII characters."""
    what = f"{target} from {source}" + ("" if content == "translation" else f" {content}")
    return f"SYNTHETIC {what}; IMT {VERSION} {card.name} {card.sha256[:12]}"[:79]
