"""An object's way into bytes, if it needs a pickle: what ForkingPickler would write, at less cost."""

from __future__ import annotations

import copyreg
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

# Protocol 5 lets large buffers stay where they are until the core copies them, once, into the queue.
PROTOCOL = 5

Parts = tuple[list[Any], list[memoryview]]


class _Reducers(dict[type, Any]):
    """The reducers of copyreg and ForkingPickler as they are now: ForkingPickler copies them for every item."""

    def __missing__(self, kind: type) -> Any:
        extra: dict[type, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
        if kind in extra:
            return extra[kind]
        if kind.__name__ == "ndarray" and kind.__module__ == "numpy" and kind not in copyreg.dispatch_table:
            return _reduce_array
        return copyreg.dispatch_table[kind]


def _reduce_array(array: Any) -> Any:
    """What NumPy's own reducer says, in a fifth of the time where an array is nothing but its buffer."""
    kind, flags = array.dtype, array.flags
    if kind.isbuiltin != 1 or kind.hasobject or not flags.forc:
        return array.__reduce_ex__(PROTOCOL)
    return _array, (pickle.PickleBuffer(array), kind.str, array.shape, "C" if flags.c_contiguous else "F")


def _array(buffer: Any, dtype: str, shape: tuple[int, ...], order: str) -> Any:
    import numpy as np

    ndarray: Any = np.ndarray
    return ndarray(shape, dtype, buffer, 0, None, order)


class _Workshop:
    """A pickler, and where it puts what it makes.

    Attributes:
        parts: of the pickle, in their order. Most often one; a pickler hands large bytes over as they are.
        buffers: those that the objects want to travel outside of the pickle.
    """

    __slots__ = ("buffers", "dump", "forget", "parts", "write")

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.buffers: list[memoryview] = []
        self.write = self.parts.append
        pickler = ForkingPickler(self, PROTOCOL, True, self._set_aside)
        pickler.dispatch_table = _Reducers()
        self.dump = pickler.dump
        self.forget = pickler.clear_memo

    def _set_aside(self, buffer: pickle.PickleBuffer) -> None:
        self.buffers.append(buffer.raw())


# A pickler's memo stays as large as it ever was, and clearing it costs as much: one that has written more is let go.
_KEEP_BYTES = 65536
_KEEP_PARTS = 4

# Workshops not in use. A thread, or a put() in a __reduce__ or a signal handler, finds another one or makes one.
_idle: list[_Workshop] = []

loads = pickle.loads


def dumps(obj: Any) -> bytes | Parts:
    """Pickles the object as multiprocessing does, with its reducers and those registered with ForkingPickler.

    Returns the pickle, or its parts and the buffers that are no part of it.

    Raises:
        Exception: whatever pickling the object raises.
    """
    try:
        shop = _idle.pop()
    except IndexError:
        shop = _Workshop()
    shop.dump(obj)  # if it raises, this workshop is not used again
    parts, buffers = shop.parts, shop.buffers
    data: bytes | Parts = parts[0] if len(parts) == 1 and not buffers else (parts[:], buffers[:])
    if len(parts) <= _KEEP_PARTS and len(parts[0]) <= _KEEP_BYTES:
        parts.clear()
        buffers.clear()
        shop.forget()
        _idle.append(shop)
    return data
