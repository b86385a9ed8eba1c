"""get_context(): the stdlib's context in every respect but its queues, and in the hands of those who take a context."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from multiprocessing.context import BaseContext

import pytest
from probes import LIMIT

import joinq


@pytest.fixture
def ours(ctx):
    """Our context with the same start method."""
    return joinq.get_context(ctx.get_start_method())


def test_it_is_the_stdlib_s_context(ctx, ours):
    """By type, by name, and in what it makes, but for queues."""
    assert isinstance(ours, BaseContext)
    assert isinstance(ours, type(ctx))
    assert type(ours).__name__ == type(ctx).__name__
    assert ours.get_start_method() == ctx.get_start_method()
    assert ours.Process is ctx.Process
    for name in ["Lock", "RLock", "Event", "Condition", "Semaphore", "BoundedSemaphore"]:
        assert type(getattr(ours, name)()) is type(getattr(ctx, name)())
    assert {name for name in dir(ctx) if not name.startswith("_")} <= set(dir(ours))
    for kind in ["Queue", "JoinableQueue", "SimpleQueue"]:
        assert type(getattr(ours, kind)()) is getattr(joinq, kind)


def test_its_start_method_cannot_be_set(ctx, ours):
    """As with the stdlib's."""
    for context in (ctx, ours):
        with pytest.raises(ValueError, match="cannot set start method of concrete context"):
            context.set_start_method("fork")


def test_without_a_method_it_is_the_default_one(monkeypatch):
    """The default at the time of the call."""
    assert joinq.get_context().get_start_method() == multiprocessing.get_start_method()
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", None)
    multiprocessing.set_start_method("spawn")
    assert joinq.get_context().get_start_method() == "spawn"


def test_contexts_made_from_it_make_ours_too():
    """With its options."""
    context = joinq.get_context("fork", on_death="redeliver").get_context("spawn")
    assert context.get_start_method() == "spawn"
    assert context.get_context() is context
    assert context.JoinableQueue()._leases is not None
    with pytest.raises(ValueError, match="cannot find context for 'thread'"):
        context.get_context("thread")
    with pytest.raises(ValueError, match="cannot find context for 'thread'"):
        joinq.get_context("thread")


@pytest.mark.parametrize("way", [lambda c: pickle.loads(pickle.dumps(c)), copy.copy, copy.deepcopy])
def test_it_is_one_object_however_it_travels(ours, way):
    """Pickling one is what programs do that keep it in an object which they give to a child."""
    assert way(ours) is ours
    assert joinq.get_context(ours.get_start_method()) is ours
    assert joinq.get_context(ours.get_start_method(), on_death="ignore") is not ours


def test_manager(ours):
    """A Manager's queues are the threads' ones of its process, as they are with the stdlib."""
    with ours.Manager() as manager:
        q = manager.Queue()
        q.put("an item")
        assert q.get(timeout=LIMIT) == "an item"
        assert manager.list([1, 2])[1] == 2
