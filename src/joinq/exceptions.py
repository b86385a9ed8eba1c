"""Exceptions beyond ``queue.Empty``, ``queue.Full`` and ``ValueError``."""

from __future__ import annotations

import queue
from queue import Empty, Full

__all__ = ["Empty", "Full", "JoinTimeout", "ShutDown"]

if hasattr(queue, "ShutDown"):  # 3.13
    ShutDown: type[Exception] = queue.ShutDown
else:

    class _ShutDown(Exception):
        """Raised by put() and get() after shutdown()."""

    _ShutDown.__name__ = _ShutDown.__qualname__ = "ShutDown"
    ShutDown = _ShutDown


class JoinTimeout(TimeoutError):
    """Raised by join() when tasks are still unfinished at the end of its timeout."""
