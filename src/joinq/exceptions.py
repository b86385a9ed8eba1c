"""Exceptions beyond ``queue.Empty``, ``queue.Full`` and ``ValueError``."""

from __future__ import annotations

import queue
from queue import Empty, Full
from typing import NamedTuple

__all__ = ["DeadLetterWarning", "Empty", "Full", "JoinTimeout", "LostProcess", "LostTasks", "ShutDown"]

if hasattr(queue, "ShutDown"):  # 3.13
    ShutDown: type[Exception] = queue.ShutDown
else:

    class _ShutDown(Exception):
        """Raised by put() and get() after shutdown()."""

    _ShutDown.__name__ = _ShutDown.__qualname__ = "ShutDown"
    ShutDown = _ShutDown


class JoinTimeout(TimeoutError):
    """Raised by join() when tasks are still unfinished at the end of its timeout."""


class LostProcess(NamedTuple):
    """A process that died with tasks in hand."""

    pid: int
    name: str  # its multiprocessing name
    exitcode: int | None  # as Process.exitcode: -9 is SIGKILL; None where it is not known, as often in a sibling
    tasks: int  # how many


class LostTasks(RuntimeError):
    """Raised by join() when nobody can finish the unfinished tasks any more: who had taken them is dead.

    Attributes:
        processes: the dead, each with the number of its tasks.
        unfinished: how many tasks there are in all; more than those of `processes` if very many have died.
    """

    def __init__(self, message: str, processes: tuple[LostProcess, ...] = (), unfinished: int = 0) -> None:
        super().__init__(message, processes, unfinished)
        self.processes = processes
        self.unfinished = unfinished

    def __str__(self) -> str:
        return str(self.args[0])


class DeadLetterWarning(RuntimeWarning):
    """Tasks were given up, because they had killed too many of the processes that took them."""
