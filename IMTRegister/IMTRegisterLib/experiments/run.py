"""One registration of an experiment: as `register_subject`, but its transforms can be looked at before they go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from IMTCore.errors import ImtError
from IMTCore.progress import Progress, Say, never, quiet

from ..atlases.atlas_sets import AtlasSet
from ..registration.cache import RegistrationCache
from ..registration.inputs import paste
from ..registration.labels import RegisteredLabels, combine_labels, read_labels
from ..registration.run import Registration
from ..registration.settings import RegistrationSettings
from ..registration.subject import begin, make_labels, prepare_subject, register_atlases
from ..registration.weights import Share, WeightPlan


@contextmanager
def registered(
    path: Path,
    atlas_set: AtlasSet,
    settings: RegistrationSettings,
    shares: Sequence[float] = (),
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
    say: Say = quiet,
) -> Iterator[Registration]:
    """Register the subject at `path`; the run, with its transforms, as long as the block lasts.

    Args:
        shares: shares of the given modality to fuse with, all from the same registrations, instead of the settings'
            weight. The run then has transforms for each of them, and no labels: see `labels_at`.

    Raises:
        As `register_subject`.
    """
    run = begin(Path(path), atlas_set, settings, progress)
    if shares:
        run.plan = WeightPlan(float(shares[0]), {-n: float(share) for n, share in enumerate(shares, start=1)})
    cache = RegistrationCache(settings.cache)
    with tempfile.TemporaryDirectory(prefix="imt-experiment-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        prepare_subject(run, work / "subject", cache, progress, cancelled, say)
        register_atlases(run, work, cache, progress, cancelled)
        if not run.registered:
            reasons = "; ".join(f"{name}: {error}" for name, error in run.failed.items())
            raise ImtError(f"No atlas could be registered with {run.subject.name}. {reasons}")
        if not shares:
            make_labels(run, work, progress, cancelled)
        run.cache_hits = cache.hits
        try:
            yield run
        finally:
            for pair in run.registered.values():
                pair.transforms = {}  # their fields lie in the folder that goes now
    cache.trim()


def labels_at(run: Registration, share: Share, cancelled: Callable[[], bool] = never) -> np.ndarray:
    """(K, J, I) integer on the subject's full grid: the labels by one share of the given modality.

    Raises:
        BadInput, Cancelled: as `combine_labels`.
    """
    atlases = {atlas.name: atlas for atlas in run.atlas_set.atlases}
    parts = [RegisteredLabels(read_labels(atlases[name]), pair.transforms) for name, pair in run.registered.items()]
    plan = WeightPlan(share, {})
    labels, _ = combine_labels(parts, plan, run.codes, run.settings.labels, run.head.geometry, cancelled=cancelled)
    return paste(labels, run.head.box, run.subject.array.shape)
