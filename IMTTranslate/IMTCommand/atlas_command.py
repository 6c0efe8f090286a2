"""`imt atlas`: check and build atlas sets."""

from __future__ import annotations

import argparse
import json
from typing import Any

from IMTCore.errors import BadInput
from IMTRegisterLib.atlases.atlas_sets import AtlasFacts, AtlasSetCheck, check_atlas_set

from .progress import close, listener
from .text_table import columns


def run(values: argparse.Namespace) -> int:
    """Do the action that the arguments name."""
    actions = {"check": check, "build": build}
    return actions[values.action](values)


def check(values: argparse.Namespace) -> int:
    """Print what is in an atlas set, and refuse it if it has faults."""
    checked = check_atlas_set(values.path, values.modality, values.labels, values.labels_csv)
    print(json.dumps(as_record(checked), indent=2, ensure_ascii=False) if values.json else as_text(checked))
    count = len(checked.problems)
    if count:
        raise BadInput(f"The atlas set {values.path} has {count} fault{'s' * (count > 1)}, listed above. Mend them, or leave those atlases out.")
    return 0


def build(values: argparse.Namespace) -> int:
    """Make an atlas set in IMT's layout."""
    from IMTRegisterLib.atlases.building import build_atlas_set

    progress = listener(values.progress)
    try:
        built = build_atlas_set(
            values.source, values.output, values.modality, values.labels, values.labels_csv, values.rename, progress
        )
    finally:
        close(progress)
    if values.progress == "json":
        return 0
    for name, origin in built.origins.items():
        print(f"{name}" + (f" from {origin}" if origin != name else ""))
    for warning in built.atlases.warnings:
        print(f"warning: {warning}")
    print(f"{len(built.origins)} atlases with {len(built.atlases.codes)} labels: {values.output}")
    return 0


def as_record(checked: AtlasSetCheck) -> dict[str, Any]:
    """What was found, for programs: volumes in ml by label code; sizes and voxel sizes along i, j, k."""
    labels = [
        {
            "code": code,
            "name": checked.names.name_of(code),
            "colour": list(checked.names[code].colour) if code in checked.names else None,
            "volumes_ml": {fact.name: round(fact.volumes_ml[code], 4) for fact in checked.facts if code in fact.volumes_ml},
        }
        for code in checked.codes
    ]
    return {
        "path": str(checked.path),
        "atlases": [atlas_record(fact) for fact in checked.facts],
        "labels": labels,
        "warnings": list(checked.warnings),
        "problems": list(checked.problems),
    }


def atlas_record(fact: AtlasFacts) -> dict[str, Any]:
    """One atlas, for programs."""
    grid = fact.geometry
    return {
        "atlas": fact.name,
        "modalities": list(fact.modalities),
        "size": None if grid is None else list(grid.shape[::-1]),
        "voxel_mm": None if grid is None else [round(float(mm), 6) for mm in grid.spacing_mm],
        "labels": len(fact.volumes_ml),
        "landmarks": fact.landmarks,
    }


def as_text(checked: AtlasSetCheck) -> str:
    """What was found, for people."""
    rows = [("atlas", "modalities", "size", "voxel mm", "labels", "landmarks")]
    for record in map(atlas_record, checked.facts):
        size = "x".join(map(str, record["size"])) if record["size"] else "-"
        voxel = "x".join(f"{mm:.4g}" for mm in record["voxel_mm"]) if record["voxel_mm"] else "-"
        modalities = ", ".join(record["modalities"]) or "-"
        rows.append((record["atlas"], modalities, size, voxel, str(record["labels"]), str(record["landmarks"] or "-")))
    lines = columns(rows)
    rows = [("code", "label", "atlases", "mean ml", "least", "most")]
    for code in checked.codes:
        volumes = [fact.volumes_ml[code] for fact in checked.facts if code in fact.volumes_ml]
        numbers = (sum(volumes) / len(volumes), min(volumes), max(volumes))
        rows.append((str(code), checked.names.name_of(code), str(len(volumes)), *(f"{ml:.3f}" for ml in numbers)))
    lines += ["", *columns(rows)] if len(rows) > 1 else []
    lines += [f"warning: {warning}" for warning in checked.warnings]
    lines += [f"fault: {problem}" for problem in checked.problems]
    return "\n".join(lines)
