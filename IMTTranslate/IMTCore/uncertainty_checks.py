"""The parts of a model card that say what was in training and how sure the model is: their schema, and the checks of it."""

from __future__ import annotations

from typing import Any

from .architectures import Schema
from .calibration import LEVELS
from .card_checker import CardChecker
from .input_check_measures import PERCENTILES, SIDES
from .uncertainty_map import BEYOND, BINS, INSIDE

TRAINING_RANGE: Schema = {
    "subjects": ((int,), True),
    "finest_mm": ((list,), True),
    "coarsest_mm": ((list,), True),
    "height_mm": ((list,), True),
    "skull": ((dict,), True),
    "cut": ((dict,), True),
    "landmarks": ((list,), True),
    "clipped": ((float, int), True),
    "levels": ((int,), True),
    "drift": ((float, int), True),
    "neighbourhood": ((list,), True),
}
UNCERTAINTY: Schema = {
    "exponent": ((float, int), True),
    "floor": ((float, int), True),
    "widths": ((list,), True),
    "samples": ((int,), True),
    "planes": ((list,), True),
    "tissue_range": ((float, int), True),
    "thresholds": ((list,), True),
    "fitted_on": ((list,), True),
    "checked": ((str,), True),
    "coverage": ((list,), True),
    "every_patient": ((float, int), True),
    "rank_correlation": ((float, int), True),
}
COVERAGE: Schema = {
    "level": ((float, int), True),
    "before": ((float, int), True),
    "after": ((float, int), True),
    "lowest": ((float, int), True),
    "highest": ((float, int), True),
}


def check_training_range(checker: CardChecker, values: Any) -> None:
    """What was in training: ranges, counts, and the rows of the neighbourhood's bins.

    Raises:
        BadModel: naming the card, the key and what is wrong with it.
    """
    where = "training_range."
    checker.keys(values, TRAINING_RANGE, where)
    for key, most in (("finest_mm", 100), ("coarsest_mm", 100), ("height_mm", 1000)):
        checker.numbers(values[key], 2, where + key, 0, most)
    for low, high in [(where + "clipped", 1), (where + "drift", 100), (where + "levels", 1e9), (where + "subjects", 1e9)]:
        checker.numbers([values[low.removeprefix(where)]], 1, low, 0, high)
    counts: Schema = dict.fromkeys(("stripped", "whole", "unclear"), ((int,), False))
    checker.keys(values["skull"], counts, where + "skull.")
    checker.keys(values["cut"], dict.fromkeys(SIDES, ((float, int), True)), where + "cut.")
    checker.numbers(list(values["cut"].values()), len(SIDES), where + "cut", 0, 1)
    if len(values["landmarks"]) != len(PERCENTILES) or any(not isinstance(pair, list) for pair in values["landmarks"]):
        raise checker.fail(f"{where}landmarks must hold {len(PERCENTILES)} pairs of numbers")
    for pair in values["landmarks"]:
        checker.numbers(pair, 2, where + "landmarks", 0, 1)
    rows = values["neighbourhood"]
    if len(rows) != BINS or any(not isinstance(row, str) or len(row) != BINS or set(row) - {INSIDE, BEYOND} for row in rows):
        raise checker.fail(f"{where}neighbourhood must hold {BINS} texts of {BINS} marks, {INSIDE} or {BEYOND}")


def check_uncertainty(checker: CardChecker, values: Any) -> None:
    """The calibration of the uncertainty, its coverage, and the limits of the trust map.

    Raises:
        BadModel: naming the card, the key and what is wrong with it.
    """
    where = "uncertainty."
    checker.keys(values, UNCERTAINTY, where)
    checker.numbers([values["exponent"]], 1, where + "exponent", 0, 4)
    for key in ("floor", "tissue_range"):
        checker.numbers([values[key]], 1, where + key, 1e-6, 1e6)
    checker.numbers(values["widths"], len(LEVELS), where + "widths", 0, 1e6)
    checker.numbers([values["samples"]], 1, where + "samples", 2, 1000)
    checker.numbers(values["thresholds"], 2, where + "thresholds", 0, 100)
    checker.numbers([values["every_patient"]], 1, where + "every_patient", 0, 1e3)
    checker.numbers([values["rank_correlation"]], 1, where + "rank_correlation", -1, 1)
    if sorted(values["widths"]) != values["widths"] or sorted(values["thresholds"]) != values["thresholds"]:
        raise checker.fail(f"{where}widths and {where}thresholds must ascend")
    if any(not isinstance(text, str) for text in [*values["planes"], *values["fitted_on"]]):
        raise checker.fail(f"{where}planes and {where}fitted_on must hold texts")
    for row in values["coverage"]:
        checker.keys(row, COVERAGE, where + "coverage.")
        checker.numbers(list(row.values()), len(COVERAGE), where + "coverage", 0, 1)
