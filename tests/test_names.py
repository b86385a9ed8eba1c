"""A queue's name: in every process, however the queue came there."""

from __future__ import annotations

import inspect
import pickle

import pytest
import workers

import joinq

KINDS = [joinq.JoinableQueue, joinq.Queue, joinq.SimpleQueue]

BAD = {
    "bytes": (b"resize", TypeError, r"must be a str, not b'resize'"),
    "number": (7, TypeError, "must be a str, not 7"),
    "empty": ("", ValueError, "printable characters in one line, not ''"),
    "two lines": ("one\ntwo", ValueError, r"in one line, not 'one\\ntwo'"),
    "zero": ("a\0b", ValueError, "in one line"),
    "half a pair": ("\ud800", ValueError, "in one line"),
    "64 letters": ("x" * 64, ValueError, "at most 63 bytes in UTF-8, not 64: 'xxx"),
    "32 umlauts": ("\u00e4" * 32, ValueError, "at most 63 bytes in UTF-8, not 64"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resize", "x" * 63, "\u00e4" * 31, "two words, \u65e5\u672c"])
def test_name_is_kept(kind, name):
    """Up to 63 bytes, in any script; repr() shows it."""
    q = kind(name=name)
    assert q.name == name
    assert repr(q) == f"<{kind.__name__} {name!r} at {id(q):#x}>"
    copy = pickle.loads(pickle.dumps(q))
    assert copy.name == name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", BAD)
def test_bad_name_is_refused(kind, why):
    """With the value and what would do."""
    name, error, text = BAD[why]
    with pytest.raises(error, match=text):
        kind(name=name)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_name_it_is_the_place(kind):
    """The line of the program that makes the queue, also through a context."""
    line = inspect.currentframe().f_lineno + 1
    queues = [kind(), getattr(joinq.get_context("fork"), kind.__name__)()]
    assert [q.name for q in queues] == [f"test_names.py:{line}"] * 2


def test_place_of_a_long_file_name_is_cut_in_front():
    """The line number is what tells two queues apart."""
    made = {"joinq": joinq}
    exec(compile("q = joinq.Queue()", "/x/" + "\u00e4" * 40 + ".py", "exec"), made)
    assert made["q"].name.endswith("\u00e4.py:1")
    assert 60 <= len(made["q"].name.encode()) <= 63


def test_context_takes_names():
    """As its maxsize."""
    context = joinq.get_context("spawn")
    assert context.JoinableQueue(2, name="a").name == "a"
    assert context.Queue(name="b").name == "b"
    assert context.SimpleQueue(name="c").name == "c"


@pytest.mark.parametrize("kind", KINDS)
def test_children_know_the_name(kind, launch):
    """With every start method."""
    q = kind(name="resize")
    assert launch(workers.name_of, q).result() == "resize"


def test_subclass_may_have_its_own_name():
    """As it may with the stdlib's queues; repr() shows ours."""

    class Named(joinq.JoinableQueue):
        def __init__(self):
            super().__init__(name="ours")
            self.name = "theirs"

    q = Named()
    assert q.name == "theirs"
    assert "'ours'" in repr(q)


def test_repr_of_what_was_never_made():
    """A subclass that does not call __init__ can still be shown."""
    assert "JoinableQueue object" in repr(joinq.JoinableQueue.__new__(joinq.JoinableQueue))
