"""What the user calls a queue; without a name, where in the program it was made."""

from __future__ import annotations

import os
import sys
from multiprocessing import util
from typing import Any

from joinq._native import lib

__all__ = ["checked", "made_at"]

_MOST: int = lib.JNQ_LABEL_BYTES - 1
_NOT_THE_PROGRAM = {os.path.dirname(__file__), os.path.dirname(util.__file__)}


def made_at() -> tuple[str, int]:
    """The innermost line of the program that is neither ours nor multiprocessing's: its file and number."""
    frame: Any = sys._getframe(1)
    while frame and os.path.dirname(frame.f_code.co_filename) in _NOT_THE_PROGRAM:
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame else ("?", 0)


def checked(name: str | None) -> bytes:
    """A queue's name as the core takes it; the place where the queue is being made if there is none.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty, too long, or cannot be shown in a line.
    """
    if name is None:
        path, line = made_at()
        place = f"{os.path.basename(path)}:{line}".encode("utf-8", "replace").replace(b"\0", b"?")
        return place[-_MOST:].decode("utf-8", "ignore").encode()
    if not isinstance(name, str):
        raise TypeError(f"the name of a queue must be a str, not {name!r}")
    if not name or not name.isprintable():
        raise ValueError(f"the name of a queue must be some printable characters in one line, not {name!r}")
    label = name.encode()
    if len(label) > _MOST:
        raise ValueError(f"the name of a queue must take at most {_MOST} bytes in UTF-8, not {len(label)}: {name!r}")
    return label
