"""From the arguments of `imt register` to its settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IMTRegisterLib.registration.settings import RegistrationSettings


def settings_of(values: argparse.Namespace, **changes: object) -> RegistrationSettings:
    """The settings that the arguments give, with `changes`.

    Raises:
        BadInput: values out of range, or that contradict each other.
    """
    from IMTRegisterLib.registration.settings import RegistrationSettings, default_cache_folder, parse_weight

    given = {
        "modality": values.modality,
        "translate_to": values.translate_to,
        "model": values.model,
        "second_image": values.second_image,
        "engine": values.engine,
        "preset": values.preset,
        "fusion": values.fusion,
        "weight": None if values.weight is None else parse_weight(values.weight),
        "labels": values.labels,
        "structures": tuple(values.structures),
        "dimension": values.dimension,
        "mask": values.mask if values.mask in ("auto", "none") else Path(values.mask),
        "jobs": values.jobs,
        "threads": values.threads,
        "memory_gb": values.memory_gb,
        "seed": values.seed,
        "cache": default_cache_folder() if values.cache is None else None if values.cache == "none" else Path(values.cache),
    }
    return RegistrationSettings(**{**given, **changes})
