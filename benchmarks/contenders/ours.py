"""`joinq.JoinableQueue`: used as the stdlib's is, with nothing but the import changed."""

from __future__ import annotations

from importlib import metadata

import joinq

label = "joinq"
try:
    version = metadata.version("joinq")
except metadata.PackageNotFoundError:  # imported from a source tree
    version = "not installed"


def make(maxsize: int) -> joinq.JoinableQueue:
    """Create a queue; it serves processes of every start method."""
    return joinq.JoinableQueue(maxsize)


def close(queue: joinq.JoinableQueue) -> None:
    """Detach this process, as a drop-in for the stdlib's queue is detached."""
    queue.close()
    queue.join_thread()
