"""Puts queues into multiprocessing, in this process and in its children under every start method."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import spawn

import broken
import test

import joinq

INTROSPECTION = ("active_children", "cpu_count", "current_process", "parent_process")


def install(name: str) -> None:
    """Installs what `name` says: "stdlib" is nothing, "joinq" is ours, another is a defect of broken.py in ours."""
    if name not in ("stdlib", "joinq"):
        broken.DEFECTS[name]()
    if name != "stdlib":
        joinq.install()
        for function in INTROSPECTION:
            setattr(multiprocessing, function, getattr(joinq, function))
    if "CONFORMANCE_BORROW" in os.environ:
        test.__path__.append(os.environ["CONFORMANCE_BORROW"])

    prepare = spawn.get_preparation_data

    def prepare_with_queues(*args: object) -> dict[str, object]:
        return {**prepare(*args), "conformance": _Installed(name)}

    spawn.get_preparation_data = prepare_with_queues


class _Installed:
    """Unpickling it, which is the first that a child does, installs the same there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return install, (self.name,)
