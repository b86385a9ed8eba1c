"""An object's way into bytes, if it needs a pickle: what ForkingPickler would write, at less cost."""

from __future__ import annotations

import copyreg
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable

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
            global _ndarray
            _ndarray = kind
            return _reduce_array
        return copyreg.dispatch_table[kind]


_ndarray: Any = None  # NumPy's class, once an array has passed


def _order_of(array: Any) -> str:
    return "C" if array.ndim < 2 or array.flags.c_contiguous else "F"


def _reduce_array(array: Any) -> Any:
    """What NumPy's own reducer says, in a fifth of the time where an array is nothing but its buffer."""
    name = _name_of(array.dtype)
    if name is None or not array.flags.forc:
        return array.__reduce_ex__(PROTOCOL)
    return _array, (pickle.PickleBuffer(array), name, array.shape, _order_of(array))


def _array(buffer: Any, dtype: str, shape: tuple[int, ...], order: str) -> Any:
    import numpy as np

    global _ndarray
    ndarray: Any = np.ndarray
    _ndarray = ndarray
    return ndarray(shape, dtype, buffer, 0, None, order)


class _Head:
    """Pickled as a plain array is. The elements are not in the pickle, so it is the same for all that say this."""

    def __init__(self, dtype: str, shape: tuple[int, ...], order: str, is_readonly: bool) -> None:
        buffer = pickle.PickleBuffer(b"" if is_readonly else bytearray())
        self.reduced = _array, (buffer, dtype, shape, order)

    def __reduce__(self) -> Any:
        return self.reduced


class _Memory(dict[Any, Any]):
    """What was found out once about arrays; not about all that ever pass."""

    def learn(self, key: Any, value: Any) -> Any:
        if len(self) >= 256:
            self.clear()
        self[key] = value
        return value


_dtypes = _Memory()  # by id(): a dtype whose name says all about it, and that
_heads = _Memory()  # by what a _Head is made of: its pickle, in parts
_makers = _Memory()  # by a pickle: what makes the array of its buffer, or False; None if it has come once
_HEAD_BYTES = 256


def _name_of(dtype: Any) -> str | None:
    """The dtype's name, if that says all about it."""
    known = _dtypes.get(id(dtype))
    if known is None:
        if dtype.isbuiltin != 1 or dtype.hasobject or dtype.kind in "mM" or dtype.metadata or not dtype.itemsize:
            return None
        known = _dtypes.learn(id(dtype), (dtype, dtype.str))
    name: str = known[1]
    return name


def _head_of(name: str, shape: tuple[int, ...], order: str, is_readonly: bool) -> list[Any]:
    """What is pickled, in parts, of a plain array: one with nothing to it but this, and its buffer."""
    says = name, shape, order, is_readonly
    head: list[Any] | None = _heads.get(says)
    return head or cast("list[Any]", _heads.learn(says, cast("Parts", dumps(_Head(*says)))[0]))


def _array_parts(array: Any) -> Parts | None:
    """What dumps() returns for an array; None if it is not plain, or somebody has registered a reducer."""
    if _ndarray in copyreg.dispatch_table or _ndarray in ForkingPickler._extra_reducers:  # type: ignore[attr-defined]
        return None
    name = _name_of(array.dtype)
    if name is None:
        return None
    try:
        buffer = pickle.PickleBuffer(array).raw()
    except BufferError:  # with gaps
        return None
    return _head_of(name, array.shape, _order_of(array), buffer.readonly), [buffer]


class _Sink:
    """What a pickler writes to."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], object]) -> None:
        self.write = write


class _Workshop(NamedTuple):
    """A pickler, and where it puts what it makes."""

    dump: Callable[[Any], None]
    forget: Callable[[], None]
    parts: list[Any]  # of the pickle. Most often one; a pickler hands large bytes over as they are
    buffers: list[memoryview]  # that the objects want to travel outside of the pickle


def _new_workshop() -> _Workshop:
    parts: list[Any] = []
    buffers: list[memoryview] = []

    def set_aside(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw())

    pickler = pickle.Pickler(_Sink(parts.append), PROTOCOL, True, set_aside)
    pickler.dispatch_table = _Reducers()
    return _Workshop(pickler.dump, pickler.clear_memo, parts, buffers)


# A pickler's memo stays as large as it ever was, and clearing it costs as much: one that has written more is let go.
_KEEP_BYTES = 65536
_KEEP_PARTS = 4

# Workshops not in use. A thread, or a put() in a __reduce__ or a signal handler, finds another one or makes one.
_idle: list[_Workshop] = []


def _hold(parts: list[Any]) -> list[Any]:
    """The parts, as they will stay: a pickler hands a large bytearray over, after its length in 8 bytes."""
    held = parts[:]
    for i, part in enumerate(parts):
        if type(part) is bytearray:
            held[i] = memoryview(part)  # nobody can change its length from here on
            if len(part) != int.from_bytes(parts[i - 1][-8:], "little"):
                raise RuntimeError("bytearray changed size while it was pickled")
    return held


def dumps(obj: Any) -> bytes | Parts:
    """Pickles the object as multiprocessing does, with its reducers and those registered with ForkingPickler.

    Returns the pickle, or its parts and the buffers that are no part of it.

    Raises:
        Exception: whatever pickling the object raises.
    """
    if type(obj) is _ndarray:
        array = _array_parts(obj)
        if array is not None:
            return array
    try:
        shop = _idle.pop()
    except IndexError:
        shop = _new_workshop()
    dump, forget, parts, buffers = shop
    dump(obj)  # if it raises, this workshop is not used again
    data: bytes | Parts
    if len(parts) == 1 and not buffers:
        data = parts.pop()
        if len(data) <= _KEEP_BYTES:
            forget()
            _idle.append(shop)
        return data
    data = _hold(parts), buffers[:]
    if len(parts) <= _KEEP_PARTS and len(parts[0]) <= _KEEP_BYTES:
        parts.clear()
        buffers.clear()
        forget()
        _idle.append(shop)
    return data


loads = pickle.loads


def assemble(data: bytes, buffers: list[memoryview]) -> Any:
    """Returns what pickle.loads(data, buffers=buffers) does, but plain arrays that come again faster."""
    if len(data) > _HEAD_BYTES:
        return loads(data, buffers=buffers)
    maker = _makers.get(data)
    if maker:
        return maker(buffers[0])
    item = loads(data, buffers=buffers)
    if maker is None and type(item) is _ndarray:
        _makers.learn(data, _maker_of(item, data) if data in _makers else None)
    return item


def _maker_of(array: Any, data: bytes) -> Callable[[memoryview], Any] | bool:
    """What makes the array of its buffer, if this is what a plain one is pickled as; else False."""
    name, shape, order = _name_of(array.dtype), array.shape, _order_of(array)
    is_readonly = not array.flags.writeable
    if name is None or b"".join(_head_of(name, shape, order, is_readonly)) != data:
        return False
    ndarray, dtype = type(array), array.dtype
    if is_readonly:
        return lambda buffer: ndarray(shape, dtype, buffer.toreadonly(), 0, None, order)
    return lambda buffer: ndarray(shape, dtype, buffer, 0, None, order)
