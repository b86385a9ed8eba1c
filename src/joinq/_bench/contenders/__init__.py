"""
The queues that are compared: one module each.

A scenario sees a contender only through `Queue`, so that all of them run the very same code. Whatever has another API
than the stdlib gets an adapter in its own module, which uses it as its documentation says. Importing a module fails
where the package is not installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Callable, Protocol, cast

BASELINE = "stdlib"
"""The contender that all ratios refer to."""

OURS = "ours"
"""The contender that the targets are set for."""

PEERS = (
    "queue",
    "simple_queue",
    "pipe",
    "faster_fifo",
    "quick_queue",
    "cloudtoid",
    "kickmsg",
    "zeroq",
    "pyzmq",
    "iceoryx2",
    "shmqueue3",
    "arrayqueues",
    "py_sharedmemory",
)
"""What `--peers` adds, in the order in which a round runs them."""

FLOORS = ("one_list", "semaphore")
"""Queues that are no rivals of ours but what it is measured by: see also `limits`."""

NAMES = (BASELINE, OURS, *FLOORS, *PEERS)
"""Every contender."""

# What a contender can do, and a scenario may need.
OBJECT, BYTES, ARRAY = "object", "bytes", "array"  # kinds of items: any object, bytes, NumPy arrays of one shape
WRITERS, READERS = "several writers", "several readers"
ALONE = "both ends in one process"
BACKLOG = "a million items wait"
BATCHES = "batches"
SLEEPS = "get() sleeps until something comes"
IN_PLACE = "arrays are made in its memory"
REPLACES = "a new process takes the place of a killed one"
ONE_BY_ONE = "every item arrives by itself"

EVERYTHING = frozenset(
    {OBJECT, BYTES, ARRAY, WRITERS, READERS, ALONE, BACKLOG, BATCHES, SLEEPS, REPLACES, ONE_BY_ONE},
)

_ROOM_ITEMS, _ROOM_BYTES = 1 << 14, 256 << 20


def installed(module: str) -> Any:
    """Import a module that need not be there, of which type checkers are to suppose nothing."""
    return importlib.import_module(module)


class Unavailable(Exception):
    """Cannot be measured here, for the reason given."""


@dataclass(frozen=True)
class Demand:
    """
    What a scenario wants of a queue.

    Attributes:
        kind: OBJECT, BYTES or ARRAY (float64, one-dimensional).
        item_bytes: The largest item, in bytes (objects: pickled).
        maxsize: The number of items it is to hold at most; 0: no limit.
        backlog: The number of items that will wait in it.
        prompt: Each item is waited for, so a queue must not hold it back to collect more.
        readers: The number of processes that get.
    """

    kind: str = OBJECT
    item_bytes: int = 32
    maxsize: int = 0
    backlog: int = 0
    prompt: bool = False
    readers: int = 1

    @property
    def room(self) -> int:
        """The number of items for which a queue of fixed size is to have room."""
        return self.maxsize or self.backlog or max(4, min(_ROOM_ITEMS, _ROOM_BYTES // self.item_bytes))


class Queue:
    """
    What a scenario may ask of a queue; made in the measuring process, and given to the workers.

    Each process asks once for each end that it uses, and gets a function. Reading ends exist before anything is put.
    """

    def putter(self) -> Callable[[Any], object]:
        """Return what puts an item, and waits while there is no room."""
        raise NotImplementedError

    def getter(self) -> Callable[[], Any]:
        """Return what waits for an item and takes it; an array that it returns is valid until the next is asked for."""
        raise NotImplementedError

    def task_done(self) -> Callable[[], object] | None:
        """Return what reports an item as finished, or None if this queue does not count them."""
        return None

    def join(self) -> None:
        """Wait until all items are reported as finished; only if there is a `task_done`."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what this process has put and what was held back."""

    def many_putter(self) -> Callable[[Sequence[Any]], object]:
        """Return what puts a batch of items; without an own way to do that, as one list."""
        return self.putter()

    def many_getter(self, size: int) -> Callable[[], Sequence[Any]]:
        """Return what takes as many items at a time as it likes, up to `size`."""
        return self.getter()

    def many_done(self) -> Callable[[int], object] | None:
        """Return what reports a batch as finished that `many_getter` got, of so many items."""
        task_done = self.task_done()
        return task_done and (lambda number: task_done())

    def placer(self, length: int) -> Callable[[Callable[[Any], object]], object]:
        """Return what makes an array of so many floats, has a function write into it, and puts it."""
        numpy = installed("numpy")
        put = self.putter()

        def place(write: Callable[[Any], object]) -> None:
            array = numpy.empty(length)
            write(array)
            put(array)

        return place

    def close(self) -> None:
        """Give back what this process holds of a queue that it no longer needs."""


class Native(Queue):
    """A queue that already has `put` and `get` as the stdlib's have them, and perhaps `task_done` and `join`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def putter(self) -> Callable[[Any], object]:
        put: Callable[[Any], object] = self.inner.put
        return put

    def getter(self) -> Callable[[], Any]:
        get: Callable[[], Any] = self.inner.get
        return get

    def task_done(self) -> Callable[[], object] | None:
        return getattr(self.inner, "task_done", None)

    def join(self) -> None:
        self.inner.join()


class Contender(Protocol):
    """
    What a module in this package offers.

    Attributes:
        label: The name that tables show.
        package: The distribution whose version is shown; "" is the standard library.
        can: What it can do.
        make: Creates a queue.
    """

    label: str
    package: str
    can: frozenset[str]
    make: Callable[[Demand], Queue]


def load(name: str) -> Contender:
    """
    Import the contender called `name`.

    Raises:
        ImportError: Its package is not installed.
    """
    return cast("Contender", importlib.import_module(f"{__name__}.{name}"))


def absent() -> dict[str, str]:
    """Return the contenders that cannot be imported here, and why."""
    reasons = {}
    for name in NAMES:
        try:
            load(name)
        except ImportError as error:
            reasons[name] = str(error)
    return reasons


def version(contender: Contender) -> str:
    """Return the version of what is measured."""
    if not contender.package:
        return ""
    try:
        return metadata.version(contender.package)
    except metadata.PackageNotFoundError:  # imported from a source tree
        return "not installed"
