"""multiprocessing.JoinableQueue as it should have been: fast, and not to be hung by a process that dies."""

from joinq._processes import (
    active_children,
    available_cpu_count,
    cpu_count,
    current_process,
    parent_process,
    process_cpu_count,
)
from joinq._queue import JoinableQueue, Queue, SimpleQueue
from joinq.exceptions import Empty, Full, JoinTimeout, ShutDown

__all__ = [
    "Empty",
    "Full",
    "JoinTimeout",
    "JoinableQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
    "active_children",
    "available_cpu_count",
    "cpu_count",
    "current_process",
    "parent_process",
    "process_cpu_count",
]
