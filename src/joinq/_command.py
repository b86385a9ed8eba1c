"""The manners that the commands of `python -m joinq` share: how they fail, and how they show that they go on."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

TICK = 0.1
"""Seconds between two updates of the text."""


class CommandError(Exception):
    """
    A command cannot be done; the message says why, and what would help.

    Args:
        message: For the user.
        code: The exit code: 2 for bad usage.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def printable(text: str) -> str:
    """Return what a terminal may be shown in a line: names of processes and queues can hold anything."""
    return "".join(char if char.isprintable() else "?" for char in text)


class Bar(Protocol):
    """What shows the progress: the methods of tqdm that are used here."""

    def update(self) -> object: ...
    def set_description(self, desc: str) -> object: ...
    def close(self) -> object: ...


class _NoBar:
    """Nothing is shown."""

    def update(self) -> None: ...
    def set_description(self, desc: str) -> None: ...
    def close(self) -> None: ...


class _TextBar:
    """The progress as plain text."""

    def __init__(self, total: int, desc: str) -> None:
        self.total, self.desc, self.done, self.next_draw = total, desc, 0, 0.0

    def update(self) -> None:
        self.done += 1
        if self.done == self.total or time.monotonic() >= self.next_draw:
            self.next_draw = time.monotonic() + TICK
            text = f"\r{self.desc}: {self.done}/{self.total}\033[K"
            print(text, end="", file=sys.stderr, flush=True)

    def set_description(self, desc: str) -> None:
        self.desc = desc

    def close(self) -> None:
        print(file=sys.stderr)


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Bar]:
    """Yield what to update after each of `total` steps; only on a terminal does it show anything."""
    bar: Any = _TextBar
    if sys.stderr is None or not sys.stderr.isatty():
        bar = lambda total, desc: _NoBar()  # noqa: E731
    else:
        with contextlib.suppress(ImportError):
            bar = importlib.import_module("tqdm").tqdm
            bar.monitor_interval = 0  # No thread for the next fork to meet.
    with contextlib.closing(bar(total=total, desc=label)) as shown:
        yield shown
