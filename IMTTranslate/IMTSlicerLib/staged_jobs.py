"""Jobs whose command has other stages than a translation: their share of the whole is told by whoever starts them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .application import removeFolder
from .job_progress import JobProgress
from .jobs import Job, Requests
from .processes import ChildProcess
from .workers import Worker


class StageProgress(JobProgress):
    """The progress of one request whose stages take the given spans; the time left is told of the timed stages only.

    :param spans: stage -> (where it begins, where it ends), 0 to 1 of the request.
    :param timed: the stages whose rate tells how long the rest will take.
    """

    def __init__(self, spans: Mapping[str, tuple[float, float]], timed: tuple[str, ...]) -> None:
        super().__init__(1)
        self._spans, self._timed = dict(spans), timed

    def update(self, request: int, stage: str, fraction: float) -> tuple[float, float | None]:
        """As `JobProgress.update`; a stage without a span, such as a note, moves nothing."""
        if stage not in self._spans:
            return self.fraction, None
        low, high = self._spans[stage]
        overall = low + min(max(fraction, 0.0), 1.0) * (high - low)
        told, left = super().update(request, f"all of it, during {stage}", overall)
        return told, left if stage in self._timed else None


class StagedJob(Job):
    """A `Job` of one request with stages of its own, in a process whose temporary files go with the job.

    A process that is cancelled has a third of a second to tidy up, which is not enough for one with children at work.

    :param spans, timed: see `StageProgress`.

    Attributes: `scratch`, the folder that the process takes for its temporary files; plain ASCII as far as the system's own
    temporary folder is, as registration engines take no other names.
    """

    def __init__(
        self,
        requests: Requests | Callable[[Path], Requests],
        spans: Mapping[str, tuple[float, float]],
        timed: tuple[str, ...] = (),
        title: str = "",
    ) -> None:
        super().__init__(requests, Worker(process=lambda: _ProcessWithScratch(self.scratch)), title)
        self._spans, self._timed = spans, timed
        self.scratch: Path | None = None

    def _begin(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="IMT-job-"))
        super()._begin()
        self._progress = StageProgress(self._spans, self._timed)  # nothing has been read yet

    def _discard(self) -> None:
        super()._discard()
        if self.scratch is not None:
            removeFolder(self.scratch)


class _ProcessWithScratch(ChildProcess):
    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._scratch = str(scratch)

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        super().start(command, {**environment, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._scratch)})
