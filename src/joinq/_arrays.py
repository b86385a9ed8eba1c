"""NumPy arrays in the memory of a queue."""

from __future__ import annotations

import math
from operator import index
from typing import TYPE_CHECKING, Any

from joinq import _queue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

__all__ = ["empty"]


def empty(
    shape: int | tuple[int, ...], dtype: DTypeLike = float, queue: _queue.Queue | None = None
) -> np.ndarray[Any, Any]:
    """Gives an array as `numpy.empty(shape, dtype)` does, but in the memory of a queue: putting it costs no copy.

    Args:
        shape, dtype: as with numpy.empty().
        queue: whose memory; by default that of the queue which this process has made or received last. Where there is
            none, the array lies in memory of its own, and is copied when it is put.

    After put() the array is the receiver's, too: see Queue.buffer(). Put a second time, or into another queue, it is
    copied.

    Raises:
        ImportError: NumPy is not installed.
        ValueError: the dtype holds Python objects, which are no data; or the shape is not allowed.
        MemoryError: there is no memory.
    """
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"an array of {kind} cannot be shared: its elements are Python objects; use numpy.empty()")
    target = queue if queue is not None else _queue.latest()
    if not isinstance(shape, (int, tuple, list)):
        shape = np.broadcast_to(np.empty((), kind), shape).shape  # whatever else NumPy takes for one
    nbytes = math.prod(map(index, (shape,) if isinstance(shape, int) else shape)) * kind.itemsize
    if target is None or nbytes <= 0:
        return np.empty(shape, kind)
    try:
        memory = target.buffer(nbytes)
    except MemoryError:
        np.empty(shape, kind)  # raises what is wrong with the shape, if anything is
        raise
    return np.ndarray(shape, kind, memory)
