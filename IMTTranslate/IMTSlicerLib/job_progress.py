"""From the stages that a command tells to one fraction of the whole job and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

# Which part of a request each stage of a translation takes; any other stage is taken for the whole request.
SPANS = {
    "read": (0.0, 0.04),
    "load": (0.04, 0.12),
    "prepare": (0.12, 0.16),
    "translate": (0.16, 0.97),
    "write": (0.97, 0.99),  # told when the writing begins
}
# Stages whose rate says nothing of the time that is left.
SHORT_STAGES = {"read", "load", "prepare", "write", "note", "done"}
MIN_SECONDS = 0.5  # before this much of a stage is seen, its rate is not known
MIN_FRACTION = 0.01


class JobProgress:
    """The progress of `count` requests that run one after the other; the fraction never falls."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        self._stage: tuple[int, str] | None = None  # (request, stage) that is timed
        self._start = (0.0, 0.0)  # (time, fraction) at its first line
        self._requestSeconds: float | None = None  # of a whole request, as its long stage tells
        self.fraction = 0.0

    def update(self, request: int, stage: str, fraction: float) -> tuple[float, float | None]:
        """Take in that `stage` of the request of this index is at `fraction`.

        :return: the fraction of the job, and the seconds left or None if not known.
        """
        fraction = min(max(fraction, 0.0), 1.0)
        low, high = SPANS.get(stage, (0.0, 1.0))
        self.fraction = max(self.fraction, (request + low + fraction * (high - low)) / self._count)
        after = self._count - request - 1
        if stage in SHORT_STAGES:
            known = self._requestSeconds is not None and stage == "write"
            return self.fraction, after * self._requestSeconds if known else None
        now = self._clock()
        if self._stage != (request, stage):
            self._stage, self._start = (request, stage), (now, fraction)
        seconds, done = now - self._start[0], fraction - self._start[1]
        if seconds < MIN_SECONDS or done < MIN_FRACTION:
            return self.fraction, None
        self._requestSeconds = seconds / done
        return self.fraction, (1 - fraction + after) * self._requestSeconds

    def finishRequest(self, request: int) -> float:
        """The fraction of the job when the request of this index has ended well."""
        self.fraction = max(self.fraction, (request + 1) / self._count)
        return self.fraction
