"""The methods that an experiment compares, in the terms of Yang et al. 2020, Tables 4 and 5.

"given" registers the given modality alone, "second" the translated one (after a linear part on the given one, as
`imt register --weight 0`), "mean", "log", "local" and "joint" are the fusions of both. "real", "real-mean" and so on are
the same with the subject's real second image in the place of the translated one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from IMTCore.errors import BadInput

from ..registration.settings import AUTO, DEFAULT_WEIGHT, RegistrationSettings, StructureWeights, parse_weight

Weight = float | str | StructureWeights
GIVEN, SECOND, REAL = "given", "second", "real"
FUSIONS = ("mean", "log", "local", "joint")
WEIGHTED = ("mean", "log", "joint")
TRANSLATED = "translated"
NAMES = (GIVEN, SECOND, *FUSIONS, REAL, *(f"{REAL}-{fusion}" for fusion in FUSIONS))
DEFAULT = (GIVEN, SECOND, *FUSIONS)


@dataclass(frozen=True)
class Method:
    """One method of an experiment.

    Attributes:
        name: as it was asked for, such as "real-mean:0.3".
        fusion: as `RegistrationSettings`; "none" for the given modality alone.
        weight: share of the given modality; None where there is none to give. A second image alone is "mean" with 0.
        source: where the second image comes from, "translated" or "real"; None for the given modality alone.
        shown: the weight as the table shows it.
    """

    name: str
    fusion: str
    weight: Weight | None = None
    source: str | None = None
    shown: str = ""

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    @property
    def is_fused(self) -> bool:
        """Whether both modalities take part."""
        return self.source is not None and self.weight != 0

    @property
    def single(self) -> str:
        """The name of the method that takes this one's second image alone."""
        return REAL if self.source == REAL else SECOND

    @property
    def is_arithmetic(self) -> bool:
        """Whether it is the plain mean of both deformations."""
        return self.fusion == "mean" and self.weight == DEFAULT_WEIGHT

    def title(self, modality: str, second: str) -> str:
        """As the table names it, such as "T2 + T1 translated, mean 0.5"."""
        if self.source is None:
            return modality
        if not self.is_fused:
            return f"{second} {self.source}"
        return f"{modality} + {second} {self.source}, {self.fusion}{f' {self.shown}' if self.shown else ''}"

    def settings(self, base: RegistrationSettings, second: str | None, model: str | None, image: Path | None) -> RegistrationSettings:
        """The settings of a subject's run.

        Args:
            base: engine, preset and all else that the methods share, for the given modality alone.
            second: the second modality.
            model: that translates; None for the one that IMT takes for the pair.
            image: the second image, translated or real; None to translate here.

        Raises:
            BadInput: settings that contradict each other.
        """
        if self.source is None:
            return base
        changes: dict[str, Any] = {"translate_to": second, "fusion": self.fusion, "weight": self.weight, "second_image": image}
        return replace(base, **changes, model=model if image is None else None)


def parse_methods(names: Iterable[str], weight: str) -> list[Method]:
    """Methods by their names; `NAME:WEIGHT` gives one a weight of its own, and `weight` is that of the others.

    Raises:
        BadInput: an unknown name, one that comes twice, a weight that is none or has no meaning.
    """
    methods: list[Method] = []
    for text in names:
        method = _parse(text, weight)
        if any(method.slug == other.slug for other in methods):
            raise BadInput(f"The method {text} is named twice. Leave one out.")
        methods.append(method)
    if not methods:
        raise BadInput(f"Name at least one method of {', '.join(NAMES)}.")
    return methods


def with_real(methods: Sequence[Method]) -> list[Method]:
    """The same and, of each with a translated image, its like with the real one."""
    names = {method.name for method in methods}
    added = []
    for method in methods:
        name = REAL if method.name == SECOND else f"{REAL}-{method.name}"
        if method.source == TRANSLATED and name not in names:
            added.append(replace(method, name=name, source=REAL))
    return [*methods, *added]


def without_translation(methods: Sequence[Method], second: str) -> list[Method]:
    """The methods, if none of them needs a translation.

    Raises:
        BadInput: one does.
    """
    if wrong := [method.name for method in methods if method.source == TRANSLATED]:
        raise BadInput(
            f"Without a translation there is no method {', '.join(wrong)}: they take a translated {second}. "
            f"Name those with the real one ({', '.join(name for name in NAMES if name.startswith(REAL))}), or give a model."
        )
    return list(methods)


def weight_record(methods: Sequence[Method]) -> Mapping[str, Any]:
    """The methods' weights, for records."""
    weights = {method.name: method.weight for method in methods}
    return {name: weight.record() if isinstance(weight, StructureWeights) else weight for name, weight in weights.items()}


def _parse(text: str, default: str) -> Method:
    name, colon, own = text.partition(":")
    if name not in NAMES:
        raise BadInput(f"There is no method {name!r}: use some of {', '.join(NAMES)}.")
    source = REAL if name.startswith(REAL) else TRANSLATED
    fusion = name.removeprefix(f"{REAL}-")
    if colon and fusion not in WEIGHTED:
        raise BadInput(f"The method {name} takes no weight, but {text} gives one. Weights go with {', '.join(WEIGHTED)}.")
    if name == GIVEN:
        return Method(name, "none")
    if name in (SECOND, REAL):
        return Method(name, "mean", 0.0, source)
    if fusion not in WEIGHTED:
        return Method(name, fusion, None, source)
    weight = parse_weight(own if colon else default)
    if weight == 0:
        raise BadInput(f"{text} with the weight 0 is the second modality alone: that is the method {REAL if source == REAL else SECOND}.")
    shown = "by structure" if isinstance(weight, StructureWeights) else weight if weight == AUTO else f"{weight:g}"
    return Method(text, fusion, weight, source, shown)
