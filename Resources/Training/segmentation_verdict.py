"""Is translation worth it? The rule, the comparisons that it rests on, and the answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from IMTCore.statistics import ALPHA, PairedComparison, compare, subject_means

TMS = "tms"
# What TMS must beat: the same network without the translation, and with one that says nothing or little about the place.
CONTROLS = ("xxx", "shuffled", "blurred")
MEAN = "mean"
RULE = (
    f"Rule: yes, if TMS has a higher Dice than each of {', '.join(CONTROLS)} with p < {ALPHA:g} (paired t-test over subjects, Holm's correction "
    "over all comparisons of the table) and a 95 % bootstrap interval above 0; no, if against one of them the mean difference is 0 or less; "
    "not shown otherwise. One value for each subject: the mean over structures and over the seeds that all methods have."
)


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        answer: yes, no, not shown, or not asked (a control was not run).
        text: one line with the reasons.
        comparisons: TMS against every other method.
    """

    answer: str
    text: str
    comparisons: tuple[PairedComparison, ...]


def scores_by_subject(rows: Sequence[Mapping[str, Any]], structure: str = MEAN, measure: str = "dice") -> dict[str, dict[str, float]]:
    """Method -> subject -> mean over seeds.

    Args:
        rows: dictionaries with method, seed, subject, structure and the measures; None where there is no score.
        structure: one of the structures, or `MEAN` for the mean over all of a subject.

    Returns:
        Only seeds that every method has (all, if they share none), and only subjects that each of these fits has a score of:
        a structure that neither image nor reference has is no score.

    Raises:
        BadInput: as `subject_means`.
    """
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row["method"], set()).add(row["seed"])
    shared = set.intersection(*seeds.values()) if seeds else set()
    found: dict[tuple[str, int, str], list[float]] = {}
    for row in rows:
        if row.get(measure) is not None and (row["structure"] == structure or (structure == MEAN and row["structure"] != "all")):
            found.setdefault((row["method"], row["seed"], row["subject"]), []).append(float(row[measure]))
    fits = list(dict.fromkeys((row["method"], row["seed"]) for row in rows if not shared or row["seed"] in shared))
    subjects = [s for s in dict.fromkeys(row["subject"] for row in rows) if all((*fit, s) in found for fit in fits)]
    return subject_means((method, s, float(np.mean(found[method, seed, s]))) for method, seed in fits for s in subjects)


def judge(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """The answer by `RULE`.

    Args:
        rows: as of `scores_by_subject`.
    """
    scores = scores_by_subject(rows)
    missing = [name for name in (TMS, *CONTROLS) if name not in scores]
    comparisons = tuple(compare(scores, [(TMS, name) for name in scores if name != TMS])) if TMS in scores else ()
    if missing:
        return Verdict("not asked", f"Is translation worth it? Not asked: without a finished fit of {', '.join(missing)}.", comparisons)
    against = [c for c in comparisons if c.second in CONTROLS]
    worse = [c for c in against if not c.difference.mean > 0]
    open_ = [c for c in against if not (c.t_p_adjusted < ALPHA and c.difference.low > 0)]
    if worse:
        answer, reason = "no", f"TMS is no better than {_named(worse)}"
    elif open_:
        answer, reason = "not shown", f"TMS is better on average, but not significantly better than {_named(open_)}"
    else:
        answer, reason = "yes", f"TMS is better than {_named(against)}"
    return Verdict(answer, f"Is translation worth it? {answer.capitalize()}: {reason}; {against[0].subjects} subjects.", comparisons)


def _named(comparisons: Sequence[PairedComparison]) -> str:
    return ", ".join(
        f"{c.second} ({c.difference.mean:+.4f}, {c.difference.low:+.4f} to {c.difference.high:+.4f}, p {c.t_p_adjusted:.2g})" for c in comparisons
    )
