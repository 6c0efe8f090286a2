"""The records of the table experiment as scores by measure, method and subject, and their paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from IMTCore.statistics import PairedComparison, compare

from .methods import GIVEN, Method
from .scores import mean_of
from .table import Record

Scores = Mapping[str, Mapping[str, float]]  # method -> subject -> value
MARGIN = 0.002  # Dice by which a fusion may be below the better single modality before it harms
AGAINST_GIVEN, AGAINST_BETTER, AGAINST_ARITHMETIC = "given alone", "better single", "arithmetic"


@dataclass(frozen=True)
class Measure:
    """What is compared: a measure of one structure, or with `structure` "" its mean over all of them.

    Attributes:
        key: as in `score_registration`.
        title, digits: as printed.
        higher: whether more is better.
    """

    key: str
    structure: str = ""
    title: str = "Dice"
    digits: int = 3
    higher: bool = True


MEANS = (
    Measure("dice", title="Dice, mean of structures"),
    Measure("landmarks_mm", title="landmarks, mm", digits=2, higher=False),
    Measure("hausdorff_95_mm", title="Hausdorff 95 %, mm", digits=2, higher=False),
    Measure("mean_surface_distance_mm", title="surface distance, mm", digits=2, higher=False),
)


@dataclass(frozen=True)
class Comparison:
    """A method against a reference: `against` says what the reference is."""

    against: str
    measure: Measure
    result: PairedComparison


@dataclass(frozen=True)
class Harm:
    """Whether a fusion is nowhere worse than the better single modality by more than the margin.

    Attributes:
        differences: structure -> mean Dice of the fusion less that of the better single one.
        better: structure -> the better single method.
    """

    method: str
    differences: Mapping[str, float]
    better: Mapping[str, str]
    margin: float

    @property
    def holding(self) -> list[str]:
        """The structures in which it does no harm."""
        return [name for name, difference in self.differences.items() if difference >= -self.margin]

    @property
    def holds(self) -> bool:
        """In all structures."""
        return len(self.holding) == len(self.differences)

    @property
    def worst(self) -> str:
        """The structure with the lowest difference."""
        return min(self.differences, key=lambda name: self.differences[name])


def structures_of(records: Sequence[Record]) -> list[str]:
    """The structures that some subject has, in the records' order."""
    return list(dict.fromkeys(n for record in records for n, value in record.values("dice").items() if _is_number(value)))


def measures_of(records: Sequence[Record]) -> list[Measure]:
    """The means that the records have, then the Dice of each structure."""
    means = [measure for measure in MEANS if any(record.values(measure.key) for record in records)]
    return [*means, *(Measure("dice", name, f"Dice {name}") for name in structures_of(records))]


def scores_of(records: Sequence[Record], measure: Measure) -> dict[str, dict[str, float]]:
    """Method -> subject -> value; a subject without a value (a structure that it lacks) is left out."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        values = record.values(measure.key)
        value = values.get(measure.structure) if measure.structure else mean_of(list(values.values()))
        if _is_number(value):
            found.setdefault(record.method, {})[record.subject] = float(value)
    return found


def comparisons_of(records: Sequence[Record], methods: Sequence[Method]) -> list[Comparison]:
    """All comparisons of one engine's records; Holm's correction over the methods within one measure and reference."""
    found = []
    for measure in measures_of(records):
        scores = scores_of(records, measure)
        for against, pairs in _pairs(scores, methods, measure).items():
            found += [Comparison(against, measure, result) for result in paired(scores, pairs)]
    return found


def harms_of(records: Sequence[Record], methods: Sequence[Method], margin: float = MARGIN) -> list[Harm]:
    """For each fusion whose two single modalities were run, its Dice against the better of them."""
    found = []
    for method in (m for m in methods if m.is_fused):
        differences, better = {}, {}
        for structure in structures_of(records):
            scores = scores_of(records, Measure("dice", structure))
            reference = better_single(scores, method)
            if reference is None or method.name not in scores:
                continue
            common = [s for s in scores[method.name] if s in scores[reference]]
            if common:
                means = (np.mean([scores[name][s] for s in common]) for name in (method.name, reference))
                differences[structure] = float(next(means) - next(means))
                better[structure] = reference
        if differences:
            found.append(Harm(method.name, differences, better, margin))
    return found


def better_single(scores: Scores, method: Method, higher: bool = True) -> str | None:
    """Of the two single modalities of a fusion the one with the better mean over the fusion's subjects; None unless both ran."""
    if method.name not in scores or any(name not in scores for name in (GIVEN, method.single)):
        return None
    common = [s for s in scores[method.name] if s in scores[GIVEN] and s in scores[method.single]]
    if not common:
        return None
    return (max if higher else min)((GIVEN, method.single), key=lambda name: float(np.mean([scores[name][s] for s in common])))


def paired(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[PairedComparison]:
    """As `compare` with Holm's correction, each pair on the subjects that both have."""
    table = {}
    for number, pair in enumerate(pairs):
        common = [subject for subject in scores[pair[0]] if subject in scores[pair[1]]]
        for side, name in zip("ab", pair, strict=True):
            table[f"{number}{side}"] = {subject: scores[name][subject] for subject in common}
    results = compare(table, [(f"{number}a", f"{number}b") for number in range(len(pairs))])
    return [replace(result, first=first, second=second) for result, (first, second) in zip(results, pairs, strict=True)]


def complete(scores: Scores) -> dict[str, dict[str, float]]:
    """The methods that have a score on as many subjects as any, on the subjects that all of these have."""
    most = max(map(len, scores.values()), default=0)
    full = {method: values for method, values in scores.items() if len(values) == most}
    common = set.intersection(*(set(values) for values in full.values())) if full else set()
    return {method: {s: v for s, v in values.items() if s in common} for method, values in full.items()} if common else {}


def _pairs(scores: Scores, methods: Sequence[Method], measure: Measure) -> dict[str, list[tuple[str, str]]]:
    there = [method for method in methods if method.name in scores]
    pairs: dict[str, list[tuple[str, str]]] = {}
    for method in there:
        if method.name != GIVEN and GIVEN in scores:
            pairs.setdefault(AGAINST_GIVEN, []).append((method.name, GIVEN))
        if not method.is_fused:
            continue
        if reference := better_single(scores, method, measure.higher):
            pairs.setdefault(AGAINST_BETTER, []).append((method.name, reference))
        plain = next((m.name for m in there if m.is_fused and m.is_arithmetic and m.source == method.source), None)
        if plain is not None and plain != method.name:
            pairs.setdefault(AGAINST_ARITHMETIC, []).append((method.name, plain))
    return pairs


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
