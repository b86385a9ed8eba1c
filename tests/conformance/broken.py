"""Queues that are broken on purpose, to prove that the harness notices."""

from __future__ import annotations

from typing import Any

from joinq import JoinableQueue, Queue, SimpleQueue

_put, _get, _task_done = Queue.put, Queue.get, JoinableQueue.task_done


def _task_done_never_raises() -> None:
    def task_done(self: JoinableQueue, n: int = 1) -> None:
        try:
            _task_done(self, n)
        except ValueError:
            pass

    JoinableQueue.task_done = task_done


def _join_returns_at_once() -> None:
    JoinableQueue.join = lambda self, timeout=None: None


def _loses_an_item() -> None:
    """Every hundredth that this process gets."""
    count = 0

    def get(self: Queue, block: bool = True, timeout: float | None = None) -> object:
        nonlocal count
        count += 1
        if count % 100 == 0:
            _get(self, block, timeout)
        return _get(self, block, timeout)

    Queue.get = get


def _repeats_an_item() -> None:
    """Every tenth that this process puts."""
    count = 0

    def put(self: Queue, obj: object, block: bool = True, timeout: float | None = None) -> None:
        nonlocal count
        count += 1
        _put(self, obj, block, timeout)
        if count % 10 == 0:
            _put(self, obj, False)

    Queue.put = put


def _swaps_two_items() -> None:
    """A get() gives the second item, if there is one."""

    def get(self: Queue, block: bool = True, timeout: float | None = None) -> object:
        first = _get(self, block, timeout)
        if self.qsize() == 0:
            return first
        second = _get(self)
        _put(self, first)
        return second

    Queue.get = get


def _is_always_empty() -> None:
    Queue.empty = SimpleQueue.empty = lambda self: True


def _is_never_full() -> None:
    Queue.full = lambda self: False


def _ignores_the_timeout_of_get() -> None:
    Queue.get = lambda self, block=True, timeout=None: _get(self, block)


def _gives_up_before_the_timeout() -> None:
    def get(self: Queue, block: bool = True, timeout: float | None = None) -> object:
        return _get(self, block, None if timeout is None else timeout / 4)

    Queue.get = get


def _waits_in_get_nowait() -> None:
    Queue.get = lambda self, block=True, timeout=None: _get(self, True, timeout)


def _ignores_maxsize() -> None:
    for kind in (Queue, JoinableQueue):

        def init(self: Queue, maxsize: int = 0, *, _init: Any = kind.__init__, **kwargs: Any) -> None:
            _init(self, 0, **kwargs)

        kind.__init__ = init


def _can_be_used_after_close() -> None:
    Queue.close = SimpleQueue.close = lambda self: None


def _children_get_a_copy() -> None:
    """A queue that is not forked arrives as another, empty one."""
    for kind in (Queue, SimpleQueue):
        kind.__getstate__ = lambda self: True
        kind.__setstate__ = lambda self, state: self.__init__()


DEFECTS = {
    name[1:]: defect
    for name, defect in list(vars().items())
    if name.startswith("_") and getattr(defect, "__module__", "") == __name__
}
