"""
The queues that are compared: one module each, all with the same four names.

A scenario sees a contender only through these names, so that all of them run the very same
code. A queue whose API differs from `multiprocessing.JoinableQueue` gets an adapter in its own
module; importing the module fails where the package is not installed.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Protocol, cast

BASELINE = "stdlib"
"""The contender that all ratios refer to."""

OURS = "ours"
"""The contender that the targets are set for."""

NAMES = (BASELINE, OURS)
"""Every contender, in the order in which a round runs them."""


class Joinable(Protocol):
    """What a scenario may ask of a queue."""

    def put(self, obj: Any, /) -> None: ...
    def get(self) -> Any: ...
    def task_done(self) -> None: ...
    def join(self) -> None: ...


class Contender(Protocol):
    """
    What a module in this package offers.

    Attributes:
        label: The name that tables show.
        version: Of the package that is measured.
        make: Creates a queue for at most so many items; 0 stands for any number.
        close: Gives back what one process holds of a queue that it no longer needs.
    """

    label: str
    version: str
    make: Callable[[int], Any]
    close: Callable[[Any], None]


def load(name: str) -> Contender:
    """
    Import one contender.

    Args:
        name: One of `NAMES`.

    Raises:
        ImportError: The package that it stands for is not installed.
    """
    return cast(Contender, importlib.import_module(f"{__name__}.{name}"))


def absent() -> dict[str, str]:
    """Return the contenders that cannot be measured here, each with the reason."""
    reasons = {}
    for name in NAMES:
        try:
            load(name)
        except ImportError as error:
            reasons[name] = str(error)
    return reasons
