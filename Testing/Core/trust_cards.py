"""Cards of tiny models that say what was in training and how sure the model is, as the shipped ones do. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BINS = 24


def training_range(**changed: Any) -> dict[str, Any]:
    """A card's `training_range`: brains without skull, 1 to 3 mm; every neighbourhood occurred."""
    values = {
        "subjects": 4,
        "finest_mm": [1.0, 2.5],
        "coarsest_mm": [1.0, 3.0],
        "height_mm": [20.0, 180.0],
        "skull": {"stripped": 4},
        "cut": dict.fromkeys(("bottom", "top", "front", "back", "right", "left"), 0.1),
        "landmarks": [[0.05, 0.7], [0.1, 0.8], [0.2, 0.9], [0.3, 1.0], [0.4, 1.0]],
        "clipped": 0.01,
        "levels": 60,
        "drift": 0.3,
        "neighbourhood": ["#" * BINS] * BINS,
    }
    return {**values, **changed}


def uncertainty(**changed: Any) -> dict[str, Any]:
    """A card's `uncertainty`: the error is twice the deviation's square root."""
    values = {
        "exponent": 0.5,
        "floor": 1.0,
        "widths": [1.0, 2.0, 4.0, 6.0],
        "samples": 2,
        "planes": ["axial"],
        "tissue_range": 100.0,
        "thresholds": [0.1, 0.2],
        "fitted_on": ["some/one", "some/other"],
        "checked": "not at all",
        "coverage": [{"level": 0.9, "before": 0.3, "after": 0.9, "lowest": 0.8, "highest": 0.95}],
        "every_patient": 1.2,
        "rank_correlation": 0.4,
    }
    return {**values, **changed}


def calibrate(path: Path, trained: dict[str, Any] | None = None, sure: dict[str, Any] | None = None) -> Path:
    """Put both keys on a card's file; returns its path."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"training_range": trained or training_range(), "uncertainty": sure or uncertainty()}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
