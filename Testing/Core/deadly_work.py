"""Work on cases for a Dask worker; it imports little, as every worker imports it."""

from __future__ import annotations

import os
import signal
from typing import Any

from IMTCommand.cohort import CaseResult


def kill_own_worker(job: Any, progress: object) -> CaseResult:
    """Work that a case called "deadly" does not survive, nor its process."""
    if job.case.case == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return CaseResult()
