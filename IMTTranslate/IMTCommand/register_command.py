"""`imt register`: one subject, or many cases with resume."""

from __future__ import annotations

import argparse
import time

from IMTCore.errors import BadInput
from IMTCore.progress import Progress, Say

from .cohort import check_no_cluster, holds_cases
from .progress import close, listener, speaker, tell_end
from .register_settings import settings_of


def run(values: argparse.Namespace) -> int:
    """Register what the arguments say."""
    if not values.input.exists():
        raise BadInput(f"{values.input} does not exist. Check the path.")
    progress = listener(values.progress)
    say = speaker(progress)
    try:
        if holds_cases(values.input):
            from .register_cohort import register_cases

            message = register_cases(values, progress, say)
        else:
            message = register_one(values, progress, say)
    finally:
        close(progress)  # an error's message starts on a line of its own
    tell_end(progress, message)
    return 0


def register_one(values: argparse.Namespace, progress: Progress, say: Say) -> str:
    """Register one subject; returns what to tell at the end."""
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.registration.outputs import RegistrationOutputs
    from IMTRegisterLib.registration.subject import register_subject

    check_no_cluster(values.input, values.workers, values.scheduler)
    start = time.perf_counter()
    settings = settings_of(values)
    atlas_set = read_atlas_set(values.atlases, settings.modalities)
    outputs = RegistrationOutputs(
        values.output_labels,
        values.output_agreement,
        values.output_transforms,
        values.output_warped,
        values.output_translated,
        values.report,
    )
    result = register_subject(values.input, atlas_set, settings, outputs, progress, say=say)
    for warning in result.warnings:
        say("Warning: " + warning)
    done, seconds = len(result.registered), time.perf_counter() - start
    from_synthetic = ", from a translated image" if result.card is not None else ""
    return (
        f"{values.output_labels}: {len(result.codes)} labels from {done} of {len(atlas_set.atlases)} atlases "
        f"({settings.engine} {settings.preset}, fusion {settings.fusion}{from_synthetic}), {seconds:.1f} s"
    )
