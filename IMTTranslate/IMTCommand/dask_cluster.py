"""A client of a Dask cluster: of an existing one, or of one on this machine that ends with the work."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from IMTCore.errors import BadInput

RETRIES = 1  # of a case whose worker was killed
LOOK_S = 5.0  # between two looks at a local cluster's workers
GIVE_UP_S = 300.0  # without any worker
SETTINGS = {
    "distributed.scheduler.allowed-failures": RETRIES,
    # A worker holds one case at a time: else those that wait in a worker that is killed would be blamed too.
    "distributed.scheduler.worker-saturation": 1.0,
    # How long a killed worker may take to start again; on a busy machine Dask's own 15 s are too short.
    "distributed.deploy.lost-worker-timeout": "60s",
}


@contextmanager
def dask_client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A Dask client of a cluster; a local one ends with the block."""
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise BadInput('Running cases side by side needs Dask: pip install "dask[distributed]". Or leave --workers and --scheduler out.') from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise BadInput(f"No Dask scheduler answers at {scheduler} ({error}). Check the address.") from error
        try:
            yield client
        finally:
            client.close()
        return
    import logging

    import dask

    with dask.config.set(SETTINGS):
        with _without_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # of its health page: any free port, as another run may have the usual one
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL + 1,
            )
        try:
            with Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            with _without_interrupts():  # of a second Ctrl-C: the workers are on their way out
                cluster.close()


@contextmanager
def kept_up(client: Any, workers: int | None, futures: Sequence[Any]) -> Iterator[None]:
    """Replace workers of a local cluster that were killed and did not come back; Dask forgets them, and would wait forever.

    If none can be had for `GIVE_UP_S`, the futures are cancelled.
    """
    if workers is None:
        yield
        return
    ended = threading.Event()

    def look() -> None:
        seen = time.monotonic()
        while not ended.wait(LOOK_S):
            connected = len(client.cluster.scheduler_info["workers"])
            seen = time.monotonic() if connected else seen
            with contextlib.suppress(Exception):  # the cluster is just closing
                if time.monotonic() - seen > GIVE_UP_S:
                    client.cancel(futures, force=True)
                elif connected < workers:
                    client.cluster.scale(workers)  # starts those that are missing

    with _without_interrupts():
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Threads and processes started here, and theirs, never see a Ctrl-C, which a terminal sends to all: it is for the command
    alone, which ends them in good order. One that comes meanwhile is kept until the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start, with the first process, would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
