"""multiprocessing.JoinableQueue as it should have been: fast, and not to be hung by a process that dies."""

from joinq import metrics
from joinq._arrays import empty
from joinq._context import get_context
from joinq._family import ProcessInfo, processes
from joinq._holders import Holder, Wait
from joinq._install import install, uninstall
from joinq._leases import DeadLetter
from joinq._processes import (
    active_children,
    available_cpu_count,
    cpu_count,
    current_process,
    parent_process,
    process_cpu_count,
)
from joinq._queue import JoinableQueue, Queue, SimpleQueue
from joinq._stats import Stats
from joinq.exceptions import DeadLetterWarning, Empty, Full, JoinTimeout, LostProcess, LostTasks, ShutDown

__all__ = [
    "DeadLetter",
    "DeadLetterWarning",
    "Empty",
    "Full",
    "Holder",
    "JoinTimeout",
    "JoinableQueue",
    "LostProcess",
    "LostTasks",
    "ProcessInfo",
    "Queue",
    "ShutDown",
    "SimpleQueue",
    "Stats",
    "Wait",
    "active_children",
    "available_cpu_count",
    "cpu_count",
    "current_process",
    "empty",
    "get_context",
    "install",
    "metrics",
    "parent_process",
    "process_cpu_count",
    "processes",
    "uninstall",
]
