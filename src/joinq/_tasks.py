"""q.task() and q.tasks(): a block, and a loop over tasks, that report them done; and what shows the progress."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from joinq._native import error, lib
from joinq.exceptions import ShutDown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from joinq._queue import JoinableQueue

__all__ = ["Task", "each", "shown_by"]


class Shown(Protocol):
    """What shows the progress of one loop."""

    def step(self) -> None:
        """A task is done."""

    def end(self, complete: bool) -> None:
        """There are no more; or the loop was left."""


class _Nothing:
    def step(self) -> None: ...
    def end(self, complete: bool) -> None: ...


class _Bar:
    """A bar of tqdm; only our own is closed."""

    def __init__(self, bar: Any, is_ours: bool) -> None:
        self._bar, self._is_ours = bar, is_ours

    def step(self) -> None:
        self._bar.update(1)

    def end(self, complete: bool) -> None:
        if self._is_ours:
            self._bar.close()


class _Row:
    """A row in a Progress of rich; its total is not known until the end."""

    def __init__(self, progress: Any, name: str) -> None:
        self._progress, self._done = progress, 0
        self._row = progress.add_task(name, total=None)

    def step(self) -> None:
        self._done += 1
        self._progress.update(self._row, completed=self._done)

    def end(self, complete: bool) -> None:
        if complete:
            self._progress.update(self._row, total=self._done)
        self._progress.stop_task(self._row)


def shown_by(progress: Any, name: str) -> Callable[[], Shown]:
    """Makes of what the user gives for `progress` what shows it, once it is called.

    Raises:
        TypeError: it is nothing of that kind.
    """
    if progress is None:
        return _Nothing
    if isinstance(progress, type) and hasattr(progress, "update") and not hasattr(progress, "add_task"):
        return lambda: _Bar(progress(desc=name, unit="task"), True)
    if not isinstance(progress, type) and hasattr(progress, "add_task"):
        return lambda: _Row(progress, name)
    if not isinstance(progress, type) and hasattr(progress, "update"):
        return lambda: _Bar(progress, False)
    raise TypeError(f"progress must be tqdm, a bar of it, or a rich.progress.Progress, not {progress!r}")


_forks = [0]  # of this process's ancestors


def _count_fork() -> None:
    _forks[0] += 1


os.register_at_fork(after_in_child=_count_fork)


class Task:
    """What q.task() returns."""

    def __init__(self, queue: JoinableQueue, block: bool, timeout: float | None) -> None:
        self._queue, self._block, self._timeout = queue, block, timeout
        self._entered = False

    def __enter__(self) -> Any:
        if self._entered:
            raise RuntimeError("a task() is one task's; call it again for another one")
        self._entered, self._forks = True, _forks[0]
        item = self._queue.get(self._block, self._timeout)
        # From here to the block nothing is called: signal handlers run in calls, and what they raise would lose it.
        leases = self._queue._leases
        self._lease = leases.mine[-1] if leases and leases.mine else None
        return item

    def __exit__(self, *_: object) -> None:
        if _forks[0] != self._forks:
            return  # the child of a fork has inherited the block: the task is its parent's
        if self._lease:
            self._queue._leases.finish(self._queue._handle, self._lease)  # type: ignore[union-attr]
        else:
            self._queue.task_done()


def each(queue: JoinableQueue, task_done: object, show: Callable[[], Shown]) -> Generator[Any, None, None]:
    """The iterator that q.tasks() returns; `task_done` is JoinableQueue's, which subclasses may replace."""
    shown, complete, item = show(), False, None
    own = type(queue).task_done is not task_done
    try:
        while True:
            forks = _forks[0]
            try:
                item = queue.get()
            except ShutDown:
                complete = True
                return
            # From here to the yield nothing is called, and after it the core first: signal handlers run in calls.
            leases = queue._leases
            lease = leases.mine[-1] if leases and leases.mine else None
            try:
                yield item
            finally:
                item = None
                if _forks[0] == forks:  # else the child of a fork has inherited the loop: the task is its parent's
                    if lease:  # and this may be another thread: a garbage collector runs in any
                        rc = lib.jnq_finish(queue._handle, lease[0], lease[1])
                        leases.finished(queue._handle, lease, rc)  # type: ignore[union-attr]
                    elif own or leases is not None:
                        queue.task_done()
                    else:
                        rc = queue._port.task_done(1)
                        if rc:
                            raise error(rc)
                    shown.step()
    finally:
        shown.end(complete)
