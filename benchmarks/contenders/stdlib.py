"""`multiprocessing.JoinableQueue`: a pipe, two locks, three semaphores and a feeder thread."""

from __future__ import annotations

import multiprocessing
import platform
from multiprocessing.queues import JoinableQueue
from typing import Any

label = "stdlib"
version = platform.python_version()


def make(maxsize: int) -> JoinableQueue[Any]:
    """Create a queue for processes of the default start method."""
    return multiprocessing.JoinableQueue(maxsize)


def close(queue: JoinableQueue[Any]) -> None:
    """End the feeder thread, so that it cannot compete with what is measured next."""
    queue.close()
    queue.join_thread()
