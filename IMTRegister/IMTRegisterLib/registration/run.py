"""One run of a registration: what it works with, and what it finds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from IMTCore.cards import ModelCard
from IMTCore.errors import ImtError
from IMTCore.label_names import LabelNames
from IMTCore.outputs import TranslationResult
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.volume import Volume

from ..atlases.atlas_sets import AtlasSet
from .inputs import Head
from .pairs import PairResult
from .settings import RegistrationSettings
from .weights import WeightPlan


@dataclass
class Registration:
    """All that one run works with and finds; `write_results` turns it into files.

    Attributes:
        subject, subject_sha256: the image as read, and its file's hash.
        card, translation: of the model and what it made, if a translation took part.
        head: the subject's images as the engines saw them.
        pairs: atlas name -> its result, or the error it ended with.
        labels, agreement: on the subject's full grid.
        codes, names: the labels carried over.
        seconds: by stage. warnings: what the user should know.
    """

    path: Path
    atlas_set: AtlasSet
    settings: RegistrationSettings
    plan: WeightPlan
    codes: list[int]
    card: ModelCard | None
    subject: Volume
    subject_sha256: str
    identity: str
    translation: TranslationResult | None = None
    head: Head | None = None
    pairs: dict[str, PairResult | ImtError] = field(default_factory=dict)
    labels: Volume | None = None
    agreement: Volume | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cache_hits: int = 0
    engine_version: str = ""
    jobs: int = 1
    threads: int = 1

    @property
    def names(self) -> LabelNames:
        """Names and colours of the labels carried over."""
        return LabelNames(self.atlas_set.names[code] for code in self.codes)

    @property
    def is_derived(self) -> bool:
        """Whether a synthetic image took part: a translation made here, or an input that says so in its mark."""
        given = [self.path, *([Path(self.settings.second_image)] if self.settings.second_image is not None else [])]
        return self.card is not None or any(read_mark(sidecar_path(path)).get("synthetic") is True for path in given)

    @property
    def registered(self) -> dict[str, PairResult]:
        """The atlases that came through."""
        return {name: result for name, result in self.pairs.items() if isinstance(result, PairResult)}

    @property
    def failed(self) -> dict[str, ImtError]:
        """The atlases that did not."""
        return {name: result for name, result in self.pairs.items() if not isinstance(result, PairResult)}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to a stage's."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)
