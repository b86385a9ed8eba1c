"""Puts queues into multiprocessing, in this process and in its children under every start method."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import queues, spawn

import broken
import test

import joinq

INTROSPECTION = ("active_children", "cpu_count", "current_process", "parent_process")


def install(name: str) -> None:
    """Installs what `name` says: "stdlib" is nothing, "joinq" is ours, another is a defect of broken.py in ours."""
    if name != "stdlib":
        joinq.install()
    _complete(name)


def _complete(name: str) -> None:
    """Does what joinq.install() does not do; it has come here, and to children, before."""
    if name not in ("stdlib", "joinq"):
        broken.DEFECTS[name]()
    if name != "stdlib":
        made = queues.SimpleQueue(ctx=multiprocessing.get_context("fork"))
        assert isinstance(made, joinq.SimpleQueue), "joinq is not installed"
        for function in INTROSPECTION:
            setattr(multiprocessing, function, getattr(joinq, function))
    if "CONFORMANCE_BORROW" in os.environ:
        test.__path__.append(os.environ["CONFORMANCE_BORROW"])

    prepare = spawn.get_preparation_data

    def prepare_to_complete(*args: object) -> dict[str, object]:
        return {**prepare(*args), "conformance": _Complete(name)}

    spawn.get_preparation_data = prepare_to_complete


class _Complete:
    """Unpickling it, which a child does first, does the same there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return _complete, (self.name,)
