"""Comparison of methods on the same subjects: subject means, paired tests, Holm's correction, the best set.

Slices of one subject are not independent, so every test here works on one value for each subject. (Yang et al. 2020
count slices, it seems: their numbers of test images are numbers of slices.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .errors import BadInput

ALPHA = 0.05
RESAMPLES = 10_000
TESTS = ("t", "wilcoxon")
CORRECTIONS = ("holm", "none")


@dataclass(frozen=True)
class Interval:
    """A mean over subjects and its bootstrap confidence interval (NaN bounds for fewer than two subjects)."""

    mean: float
    low: float
    high: float
    level: float
    subjects: int


@dataclass(frozen=True)
class PairedComparison:
    """Two methods on the same subjects.

    Attributes:
        first, second: their names.
        subjects: n, the number of subjects.
        difference: mean of first − second, with its bootstrap interval, in the metric's units.
        t_p, wilcoxon_p: two-sided p of the paired t-test and of the signed-rank test; NaN for fewer than two subjects.
        t_p_adjusted, wilcoxon_p_adjusted: after the correction within the family; the same as p without one.
        wilcoxon_floor: the lowest two-sided p that the signed-rank test can give with n subjects.
    """

    first: str
    second: str
    subjects: int
    difference: Interval
    t_p: float
    wilcoxon_p: float
    t_p_adjusted: float
    wilcoxon_p_adjusted: float
    wilcoxon_floor: float

    def record(self) -> dict[str, float | int | str]:
        """As a flat dictionary."""
        flat = asdict(self)
        difference = flat.pop("difference")
        return {**flat, "difference": difference["mean"], "low": difference["low"], "high": difference["high"]}


@dataclass(frozen=True)
class BestSet:
    """The methods that are not significantly worse than the best one (Yang et al. 2020, Table 1).

    Attributes:
        best: the method with the best mean.
        members: `best` and every method whose p against it is not below `alpha`, in the order given.
        comparisons: of the best with each other method.
        test, correction, alpha: how it was decided.
        notes: what a reader must know about it, such as a test that cannot reach `alpha`.
    """

    best: str
    members: tuple[str, ...]
    comparisons: tuple[PairedComparison, ...]
    test: str
    correction: str
    alpha: float
    notes: tuple[str, ...]


def subject_means(rows: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, float]]:
    """Mean over the rows of each subject (its slices or scans), for each method.

    Args:
        rows: (method, subject, value).

    Returns:
        method → subject → mean; methods and subjects in the order of their first row.

    Raises:
        BadInput: if a value is not a finite number, or a method lacks a subject that another has.
    """
    collected: dict[str, dict[str, list[float]]] = {}
    for method, subject, value in rows:
        if not math.isfinite(value):
            raise BadInput(f"The score of {method} on {subject} is {value}: it cannot be averaged. Leave that subject out.")
        collected.setdefault(method, {}).setdefault(subject, []).append(value)
    subjects = list(dict.fromkeys(subject for values in collected.values() for subject in values))
    for method, values in collected.items():
        missing = [subject for subject in subjects if subject not in values]
        if missing:
            raise BadInput(f"{method} has no score for {', '.join(missing)}: paired tests need every method on every subject.")
    return {method: {subject: float(np.mean(values[subject])) for subject in subjects} for method, values in collected.items()}


def paired_t(differences: np.ndarray) -> float:
    """Two-sided p of the paired t-test on differences [n]; NaN for n < 2, 1 if all differences are 0."""
    from scipy.special import stdtr

    n = len(differences)
    if n < 2:
        return float("nan")
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (deviation / math.sqrt(n))))


def wilcoxon_signed_rank(differences: np.ndarray) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test on differences [n]; NaN for n < 2, 1 if all are 0.

    Differences of 0 are left out and tied ones share their mean rank (Wilcoxon 1945); the distribution is counted over
    all signs, so that it is exact with ties too.
    """
    from scipy.stats import rankdata

    if len(differences) < 2:
        return float("nan")
    nonzero = differences[differences != 0]
    if not nonzero.size:
        return 1.0
    ranks = np.rint(2 * rankdata(np.abs(nonzero))).astype(int)  # twice the ranks: ties give halves
    shares = np.zeros(int(ranks.sum()) + 1)
    shares[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(shares)
        shifted[rank:] = shares[: len(shares) - rank]
        shares = (shares + shifted) / 2
    positive = int(ranks[nonzero > 0].sum())
    lower = min(positive, len(shares) - 1 - positive)
    return float(min(1.0, 2 * shares[: lower + 1].sum()))


def wilcoxon_floor(subjects: int) -> float:
    """The lowest two-sided p of the signed-rank test with so many subjects: 2/2ⁿ (4: 0.125, 5: 0.0625, 6: 0.03125)."""
    return min(1.0, 2.0 ** (1 - subjects))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their family by Holm's step-down method (Holm 1979), in the order given; NaN stays NaN.

    A comparison is significant at the level α of the whole family if its adjusted p is below α.
    """
    adjusted = [float("nan")] * len(p_values)
    order = sorted((n for n, p in enumerate(p_values) if not math.isnan(p)), key=lambda n: p_values[n])
    highest = 0.0
    for rank, n in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[n]))
        adjusted[n] = highest
    return adjusted


def bootstrap_interval(values: Sequence[float] | np.ndarray, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of one value per subject, and the percentile bootstrap interval over subjects (10000 resamples, seeded).

    Percentile intervals of few subjects (below about ten) are too narrow: read them as such.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()) if n else float("nan"), float("nan"), float("nan"), level, n)
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), level, n)


def compare(scores: Mapping[str, Mapping[str, float]], pairs: Sequence[tuple[str, str]], correction: str = "holm") -> list[PairedComparison]:
    """Paired comparisons, corrected over `pairs` as one family (each test separately).

    Args:
        scores: method → subject → value, as `subject_means` gives.
        pairs: (first, second) methods.
        correction: "holm" or "none".

    Raises:
        BadInput: if the two methods of a pair were not scored on the same subjects, or the correction is unknown.
    """
    if correction not in CORRECTIONS:
        raise BadInput(f"Unknown correction {correction!r}: use one of {', '.join(CORRECTIONS)}.")
    differences = []
    for first, second in pairs:
        if set(scores[first]) != set(scores[second]):
            raise BadInput(f"{first} and {second} were not scored on the same subjects: paired tests need the same.")
        differences.append(np.array([scores[first][subject] - scores[second][subject] for subject in scores[first]]))
    t = [paired_t(values) for values in differences]
    ranks = [wilcoxon_signed_rank(values) for values in differences]
    t_adjusted, ranks_adjusted = (holm(t), holm(ranks)) if correction == "holm" else (t, ranks)
    return [
        PairedComparison(*pair, len(d), bootstrap_interval(d), t[n], ranks[n], t_adjusted[n], ranks_adjusted[n], wilcoxon_floor(len(d)))
        for n, (pair, d) in enumerate(zip(pairs, differences, strict=True))
    ]


def best_set(
    scores: Mapping[str, Mapping[str, float]],
    higher_is_better: bool = True,
    test: str = "t",
    correction: str = "holm",
    alpha: float = ALPHA,
) -> BestSet:
    """The best method and all that are not significantly worse than it (Yang et al. 2020, caption of Table 1).

    The paper tests each against the best at p < 0.05 and does not say that it corrects: that is `correction="none"`.
    With Holm's correction over these comparisons the set is never smaller. A method outside of the set is worse; two
    methods in it are not thereby equal.

    Args:
        scores: method → subject → value, as `subject_means` gives.
        higher_is_better: False for errors.
        test: "t" (paired t-test) or "wilcoxon".
        correction: "holm" or "none".
        alpha: level.

    Raises:
        BadInput: if there is no method, or the test or correction is unknown, or the subjects differ.
    """
    if test not in TESTS:
        raise BadInput(f"Unknown test {test!r}: use one of {', '.join(TESTS)}.")
    if not scores:
        raise BadInput("There are no methods to compare.")
    means = {method: float(np.mean(list(values.values()))) for method, values in scores.items()}
    best = (max if higher_is_better else min)(means, key=lambda method: means[method])
    others = [method for method in scores if method != best]
    comparisons = compare(scores, [(best, other) for other in others], correction)
    worse = {c.second for c in comparisons if (c.t_p_adjusted if test == "t" else c.wilcoxon_p_adjusted) < alpha}  # NaN is not
    notes = _notes(len(scores[best]), len(others), test, correction, alpha)
    return BestSet(best, tuple(m for m in scores if m not in worse), tuple(comparisons), test, correction, alpha, tuple(notes))


def _notes(subjects: int, comparisons: int, test: str, correction: str, alpha: float) -> list[str]:
    """What few subjects mean for the tests."""
    if subjects < 2:
        return [f"{subjects} subject: no test is possible, so no method can leave the best set."]
    notes = []
    floor = wilcoxon_floor(subjects)
    family = comparisons if correction == "holm" else 1
    if comparisons and family * floor >= alpha:
        corrected = f", {min(1.0, family * floor):.4g} after Holm's correction over {family} comparisons" if family > 1 else ""
        effect = " so no method can leave the best set" if test == "wilcoxon" else " only the t-test can separate methods here"
        notes.append(f"With {subjects} subjects Wilcoxon's p cannot go below {floor:.4g}{corrected}, never below {alpha:g}:{effect}.")
    if subjects < 10:
        notes.append(f"With {subjects} subjects the t-test rests on normal differences, and bootstrap intervals are too narrow.")
    return notes


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the bars in cells are escaped."""
    cleaned = [[str(cell).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cleaned]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]]) + "\n"


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table."""
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
