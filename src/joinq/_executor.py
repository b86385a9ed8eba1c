"""The queue through which ProcessPoolExecutor sends its calls, as one of ours."""

from __future__ import annotations

from concurrent.futures.process import _SafeQueue

from joinq._queue import Queue

__all__ = ["CallQueue"]


class CallQueue(_SafeQueue, Queue):
    """What concurrent.futures adds to a queue, added to ours: a call that cannot be pickled fails, the others go on."""
