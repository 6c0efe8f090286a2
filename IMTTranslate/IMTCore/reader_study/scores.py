"""Score a reader study: how often the synthetic image was taken for the real one, with its uncertainty.

A reader is fooled on a trial if he or she takes the real image for the synthetic one. At 50 % the two cannot be told apart.
Yang et al. 2020 (Results) report 25 % for three radiologists and 27.6 % for five medical students, without an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .answers import Answer, AnswerFile
from .trials import ReaderStudy

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Proportion:
    """`count` of `total`, with the Wilson 95 % interval and the two-sided exact binomial test against one half.

    Attributes:
        rate, low, high: 0 to 1; NaN if `total` is 0.
        p_half: the test's p-value; 1 if `total` is 0.
    """

    count: int
    total: int
    rate: float
    low: float
    high: float
    p_half: float


def proportion(count: int, total: int) -> Proportion:
    """A proportion with its interval (Wilson 1927, score interval) and its test against 1/2."""
    if total == 0:
        return Proportion(0, 0, math.nan, math.nan, math.nan, 1.0)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rate = count / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == total else centre + half
    return Proportion(count, total, rate, low, high, binomial_p(count, total))


def binomial_p(count: int, total: int) -> float:
    """Two-sided exact p-value of `count` successes in `total` trials for a probability of 1/2 (twice the smaller tail)."""
    tail = term = 1
    for n in range(min(count, total - count)):  # whole numbers: exact for any number of trials
        term = term * (total - n) // (n + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)


def fisher_p(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided exact p-value (Fisher) that two (count, total) have one rate: the sum over tables that are not more likely."""
    (a, n), (b, m) = first, second
    if n == 0 or m == 0:
        return math.nan
    weights = [math.comb(n, k) * math.comb(m, a + b - k) for k in range(max(0, a + b - m), min(n, a + b) + 1)]
    observed = math.comb(n, a) * math.comb(m, b)
    return sum(weight for weight in weights if weight <= observed) / sum(weights)


@dataclass(frozen=True)
class PhaseScore:
    """A reader's answers in one phase.

    Attributes:
        phase: "practice" or "main".
        planned: trials of the phase in the study.
        fooled: trials on which the real image was taken for the synthetic one, of those answered.
        left: answers "left", of those answered; with random sides, half of them without a bias.
        seconds: quartiles of the response times (25, 50, 75 %), s; NaN without answers.
        seconds_fooled, seconds_right: medians when fooled and when not, s.
        first_half, second_half: `fooled` in the earlier and the later half of the answers: learning, or fatigue.
        p_change: Fisher's exact test of the one half against the other; NaN if one is empty.
    """

    phase: str
    planned: int
    fooled: Proportion
    left: Proportion
    seconds: tuple[float, float, float]
    seconds_fooled: float
    seconds_right: float
    first_half: Proportion
    second_half: Proportion
    p_change: float


@dataclass(frozen=True)
class ReaderScore:
    """One reader's scores.

    Attributes:
        reader: the name.
        practice, main: by phase.
        notes: what a user must know: answers that are missing, a line that was cut off.
    """

    reader: str
    practice: PhaseScore
    main: PhaseScore
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StudyScore:
    """All readers' scores.

    Attributes:
        study: the study's identity.
        readers: one by one.
        pooled: fooled in all main trials of all readers, taken as independent.
        mean_rate, sd_rate: over the readers' rates in the main trials; SD is NaN for fewer than two.
        mean_low, mean_high: 95 % t-interval of the mean over readers, clipped to 0–1; NaN for fewer than two. It holds for readers
            in general, where the pooled one holds for these readers.
        notes: what a user must know.
    """

    study: str
    readers: tuple[ReaderScore, ...]
    pooled: Proportion
    mean_rate: float
    sd_rate: float
    mean_low: float
    mean_high: float
    notes: tuple[str, ...]


def score_reader(study: ReaderStudy, file: AnswerFile) -> ReaderScore:
    """Score one reader's answers; of an incomplete log, those that it holds (`notes` say so)."""
    practice, main = (score_phase(study, file.answers, phase) for phase in ("practice", "main"))
    notes = list(file.notes)
    for score in (practice, main):
        if score.fooled.total < score.planned:
            notes.append(f"{file.reader} has answered {score.fooled.total} of {score.planned} {score.phase} trials.")
    return ReaderScore(file.reader, practice, main, tuple(notes))


def score_phase(study: ReaderStudy, answers: tuple[Answer, ...], phase: str) -> PhaseScore:
    """Score the answers to the trials of one phase, in the order of the trials."""
    chosen = sorted((a for a in answers if study.trials[a.trial - 1].phase == phase), key=lambda a: a.trial)
    fooled = [answer.answer != study.trials[answer.trial - 1].side for answer in chosen]
    seconds = np.array([answer.seconds for answer in chosen], dtype=float)
    wrong = np.array(fooled, dtype=bool)
    half = len(fooled) // 2
    first, second = proportion(sum(fooled[:half]), half), proportion(sum(fooled[half:]), len(fooled) - half)
    quartiles = tuple(float(q) for q in np.percentile(seconds, [25, 50, 75])) if len(seconds) else (math.nan,) * 3
    return PhaseScore(
        phase,
        study.count(phase),
        proportion(sum(fooled), len(fooled)),
        proportion(sum(answer.answer == "left" for answer in chosen), len(chosen)),
        quartiles,  # type: ignore[arg-type]
        _median(seconds[wrong]),
        _median(seconds[~wrong]),
        first,
        second,
        fisher_p((first.count, first.total), (second.count, second.total)),
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else math.nan


def score_study(study: ReaderStudy, files: list[AnswerFile]) -> StudyScore:
    """Score all readers, one by one and together."""
    readers = tuple(score_reader(study, file) for file in files)
    pooled = proportion(sum(r.main.fooled.count for r in readers), sum(r.main.fooled.total for r in readers))
    rates = np.array([r.main.fooled.rate for r in readers if r.main.fooled.total])
    mean, deviation, low, high = (float(rates.mean()) if rates.size else math.nan), math.nan, math.nan, math.nan
    if rates.size > 1:
        from scipy.stats import t

        deviation = float(rates.std(ddof=1))
        half = float(t.ppf((1 + CONFIDENCE) / 2, rates.size - 1)) * deviation / math.sqrt(rates.size)
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    notes = (*study.content.get("notes", ()), *(note for r in readers for note in r.notes))
    return StudyScore(study.study_id, readers, pooled, mean, deviation, low, high, notes)
