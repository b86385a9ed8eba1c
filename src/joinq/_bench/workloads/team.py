"""The worker processes of one measurement, and the check that nothing was lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

START_S = 60.0
"""How long processes may take to reach a barrier."""

WARM_UP = 500
"""Items that pass before the clock starts, at most: feeder threads run, pages are touched, spins learnt."""


class Team:
    """
    Worker processes.

    A worker that fails would leave the others waiting for ever. So the first failure ends the
    measuring process, and the driver has all others print where they stand. On leaving, every
    worker must have ended well.
    """

    def __init__(self) -> None:
        self._workers: list[multiprocessing.Process] = []

    def __enter__(self) -> Team:
        signal.signal(signal.SIGCHLD, self._exit_if_one_failed)
        return self

    def start(self, target: Callable[..., None], *args: Any) -> None:
        """Start a worker by the default start method."""
        worker = multiprocessing.Process(target=target, args=args, daemon=True)
        worker.start()
        self._workers.append(worker)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for worker in self._workers:
                worker.join()
            verify([worker.exitcode for worker in self._workers], [0] * len(self._workers))
        # From here on daemons are terminated, and that is no failure.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _exit_if_one_failed(self, *_: object) -> None:
        failed = [worker for worker in self._workers if worker.exitcode]
        if failed:
            print(f"failed: {failed}", file=sys.stderr, flush=True)
            os._exit(1)


def verify(found: object, expected: object) -> None:
    """Refuse a figure that was reached by losing or changing items."""
    if found != expected:
        raise RuntimeError(f"found {found}, expected {expected}")


@contextlib.contextmanager
def company(computing: bool) -> Iterator[None]:
    """Have another thread of this process compute, if that is wanted, until the end of the block."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute, daemon=True)
    if computing:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if computing:
            thread.join()
