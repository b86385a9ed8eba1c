"""Programs that never heard of us: every queue that multiprocessing makes becomes ours.

All ways of making one end in a call of a class of multiprocessing.queues, so that is the one place to take hold of: its
`__new__` answers with an instance of our subclass, whose `__init__` Python then calls. The stdlib's own `__init__` is
left to the program's subclasses.
"""

from __future__ import annotations

import functools
import operator
import sys
import warnings
from multiprocessing import queues, spawn
from typing import TYPE_CHECKING, Any

from joinq import _queue, _report

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install", "uninstall"]


class JoinableQueue(_queue.JoinableQueue):
    """The one that is made in place of the stdlib's: with the options of install()."""

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        on_death, max_deliveries = _options or ("raise", 3)
        super().__init__(maxsize, on_death=on_death, max_deliveries=max_deliveries, ctx=ctx)


_OURS: dict[type, type] = {
    queues.Queue: _queue.Queue,
    queues.JoinableQueue: JoinableQueue,
    queues.SimpleQueue: _queue.SimpleQueue,
}

_options: tuple[str, int] | None = None  # of install(); None: not installed
_warned: set[type] = set()


def install(*, on_death: str = "raise", max_deliveries: int = 3) -> None:
    """Lets `multiprocessing` make joinq's queues, for all code of this process and of the children it starts.

    From now on every Queue, JoinableQueue and SimpleQueue of `multiprocessing`, of its contexts and of
    `multiprocessing.queues` is joinq's: here, in children that multiprocessing starts, with every start method, and in
    forked ones. Queues that were made before stay what they are. To install again only changes the options.

    Args:
        on_death, max_deliveries: of the JoinableQueues, as there. The default is joinq's own, "raise": where the
            stdlib's join() would hang for ever because a process died with tasks in hand, LostTasks is raised. With
            "ignore" join() hangs as the stdlib's does.

    Raises:
        ValueError, TypeError: an argument is not allowed.

    Warns:
        RuntimeWarning: when the program makes a queue of its own subclass of the stdlib's, once for each class: it may
            depend on the stdlib's internals, so it stays the stdlib's.
    """
    global _options
    _queue.check_on_death(on_death, max_deliveries)
    _options = on_death, operator.index(max_deliveries)
    for kind in (queues.Queue, queues.SimpleQueue):
        if kind.__new__ is not _new:
            kind.__new__ = _new  # type: ignore[method-assign]
            kind.__init__ = _warning(kind.__init__)  # type: ignore[method-assign]
    if spawn.get_preparation_data is not _prepare:
        global _get_preparation_data
        _get_preparation_data = spawn.get_preparation_data
        spawn.get_preparation_data = _prepare


def uninstall() -> None:
    """Ends the effect of install() on this process and on children started later; does nothing without it.

    Queues that were made stay what they are, and usable.
    """
    global _options
    _options = None
    # _new stays, and so the warning: Python does not forget that a class had a __new__, and would then refuse the
    # arguments of __init__.
    if spawn.get_preparation_data is _prepare:
        spawn.get_preparation_data = _get_preparation_data


def _new(cls: type, *args: Any, **kwargs: Any) -> Any:
    """The `__new__` of the stdlib's queues."""
    if _options and "ctx" in kwargs:  # without, a queue that was made elsewhere is being unpickled
        cls = _OURS.get(cls, cls)
    return object.__new__(cls)


def _warning(init: Callable[..., None]) -> Callable[..., None]:
    """The `__init__` of the stdlib's queues, which tells of the first queue of each subclass."""

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        if _options and cls not in _warned and not _is_stdlib(cls):
            _warned.add(cls)
            level, frame = 2, sys._getframe(1)
            while frame.f_back and frame.f_code.co_filename == queues.__file__:  # JoinableQueue's calls Queue's
                level, frame = level + 1, frame.f_back
            warnings.warn(
                f"joinq: {cls.__module__}.{cls.__qualname__} is a subclass of multiprocessing's queue; it stays the "
                "stdlib's, because it may use the internals. Derive it from joinq's queue, or use that.",
                RuntimeWarning,
                stacklevel=level,
            )
        init(self, *args, **kwargs)

    return __init__


def _is_stdlib(cls: type) -> bool:
    return cls.__module__.startswith(("concurrent.", "multiprocessing."))


_get_preparation_data = spawn.get_preparation_data


def _prepare(name: str) -> dict[str, Any]:
    """What a child that is not forked is told before it imports the main module: also to install."""
    data = _get_preparation_data(name)
    if _options:
        data["joinq"] = (_Path(), _Installed())
        _preload()
    return data


def _preload() -> None:
    """Lets a fork server that is about to start import joinq once for all of its children."""
    forkserver: Any = sys.modules.get("multiprocessing.forkserver")
    if forkserver and "joinq" not in forkserver._forkserver._preload_modules:
        forkserver._forkserver._preload_modules = [*forkserver._forkserver._preload_modules, "joinq"]


class _Path:
    """Arrives as sys.path: a child has the system's until it has read all of the preparation data."""

    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.path[:] = path", {"path": list(sys.path)})


class _Installed:
    """Arrives as install(), and with the report if there is to be one."""

    def __reduce__(self) -> Any:
        return _arrive, (_options, _report.travel())


def _arrive(options: tuple[str, int], report: Any) -> None:
    on_death, max_deliveries = options
    _report.arrive(report)
    install(on_death=on_death, max_deliveries=max_deliveries)
