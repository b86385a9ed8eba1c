"""install(): every queue that multiprocessing makes is ours, here and in children of all kinds."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import queues
from pickle import PicklingError

import installed
import pytest
import workers
from probes import LIMIT

import joinq

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]


@pytest.fixture(autouse=True)
def removed():
    """Leave the stdlib as it was."""
    yield
    joinq.uninstall()


def makers(kind):
    """The ways in which a program can come by a queue."""
    context = multiprocessing.get_context("fork")
    return {
        "multiprocessing": getattr(multiprocessing, kind),
        "context": getattr(context, kind),
        "class": lambda: getattr(queues, kind)(ctx=context),
    }


@pytest.mark.parametrize("way", ["multiprocessing", "context", "class"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_making_a_queue_gives_ours(kind, way):
    """Between install() and uninstall(), and only then; also with a function that was taken before."""
    make, ours = makers(kind)[way], getattr(joinq, kind)
    assert not isinstance(make(), ours)
    joinq.install()
    q = make()
    assert isinstance(q, ours)
    assert isinstance(q, getattr(queues, kind))
    q.put("an item")
    assert q.get() == "an item"
    joinq.uninstall()
    assert not isinstance(make(), ours)
    assert q.empty()


def test_arguments_of_the_constructor_arrive():
    """maxsize is the program's; on_death and max_deliveries are those of the last install()."""
    joinq.install()
    joinq.install(on_death="redeliver", max_deliveries=1)
    q = multiprocessing.JoinableQueue(maxsize=1)
    q.put(1)
    assert q.full()
    assert multiprocessing.Queue(1)._maxsize == 1
    assert q._leases is not None
    joinq.install()
    assert multiprocessing.JoinableQueue()._leases is None


def test_join_raises_where_the_stdlib_would_hang(launch):
    """The default of an installed program is joinq's own: "raise"."""
    joinq.install()
    q = multiprocessing.JoinableQueue()
    q.put(1)
    child = launch(installed.take_and_wait, q)
    child.receive()
    child.kill()
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)


def test_wrong_options_change_nothing():
    """As with JoinableQueue itself."""
    with pytest.raises(ValueError, match="on_death"):
        joinq.install(on_death="never")
    with pytest.raises(TypeError, match="max_deliveries"):
        joinq.install(max_deliveries="3")
    assert not isinstance(multiprocessing.Queue(), joinq.Queue)


def test_install_and_uninstall_may_be_called_at_any_time():
    """Twice, without the other, and again."""
    joinq.uninstall()
    for _ in range(2):
        assert joinq.install() is None
        assert joinq.install() is None
        assert isinstance(multiprocessing.Queue(), joinq.Queue)
        assert joinq.uninstall() is None
        assert joinq.uninstall() is None
        assert not isinstance(multiprocessing.Queue(5), joinq.Queue)


def test_a_subclass_of_the_stdlib_s_queue_stays_with_one_warning():
    """It may use the internals; it works as it did."""
    joinq.install()
    context = multiprocessing.get_context("fork")
    with pytest.warns(RuntimeWarning, match=r"installed\.Counted .* stays the stdlib's") as said:
        q, _ = (installed.Counted(ctx=context) for _ in range(2))
    assert [one.filename for one in said] == [__file__]
    assert not isinstance(q, joinq.Queue)
    q.put("an item")
    assert q.get(timeout=LIMIT) == "an item"
    assert q.puts == 1
    q.close()
    q.join_thread()


def test_a_subclass_warns_wherever_its_context_comes_from():
    """Also if its own __init__ gives it, as is usual; and not when one is unpickled."""
    joinq.install()
    with pytest.warns(RuntimeWarning, match=r"installed\.Bounded .* stays the stdlib's") as said:
        q, _ = (installed.Bounded() for _ in range(2))
    assert [one.filename for one in said] == [installed.__file__]
    assert not isinstance(q, joinq.Queue)
    assert q._maxsize == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        installed.Counted.__new__(installed.Counted)


def test_subclasses_of_ours_and_of_the_stdlib_itself_are_no_matter_of_warning():
    """Nobody wrote them who could do anything about it."""
    joinq.install()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(installed.Ours()) is installed.Ours
        assert type(installed.Ours(ctx=None)) is installed.Ours


def test_executor_works_beside(ctx):
    """The queue of its calls, a subclass, stays the stdlib's; that of the results is ours."""
    joinq.install()
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        bad, good = executor.submit(len, lambda: 0), executor.submit(pow, 2, 3)
        assert isinstance(executor._result_queue, joinq.SimpleQueue)
        assert not isinstance(executor._call_queue, joinq.Queue)
        with pytest.raises((PicklingError, AttributeError)):
            bad.result(LIMIT)
        assert good.result(LIMIT) == 8
        assert list(executor.map(pow, range(500), [2] * 500, timeout=LIMIT)) == [n * n for n in range(500)]
        with pytest.raises(BrokenProcessPool):
            executor.submit(os._exit, 1).result(LIMIT)


def test_children_make_ours_too(ctx, launch):
    """With every start method, and in children of children."""
    joinq.install(on_death="ignore")
    q = ctx.JoinableQueue()
    child = launch(installed.make_queues, q)
    assert child.result() == {"child": KINDS, "grandchild": KINDS, "on_death": "ignore", "arrived": "JoinableQueue"}


def test_children_started_after_uninstall_do_not(ctx, launch):
    """And a queue of ours still travels to them."""
    joinq.install()
    q = ctx.Queue()
    joinq.uninstall()
    child = launch(installed.make_queues, q)
    assert child.result() == {"child": [], "grandchild": [], "on_death": None, "arrived": "Queue"}


def test_a_queue_made_before_arrives_as_what_it_is(ctx, launch):
    """Unpickling the stdlib's class does not make ours of it."""
    q = ctx.Queue()
    joinq.install()
    child = launch(installed.pass_on, q)
    q.put("an item")
    assert child.receive() == ("multiprocessing.queues", "an item")
    child.result()
    q.close()
    q.join_thread()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_finds_joinq_where_the_parent_did(tmp_path, method):
    """Also if only the program's own sys.path has it; and before the main module is imported."""
    paths = [path for path in sys.path if path]
    (tmp_path / "program.py").write_text(
        f"""
import sys
if __name__ == "__main__":
    sys.path += {paths!r}
    import joinq
    joinq.install()
import multiprocessing
made_at_import = multiprocessing.Queue()
def child(q):
    q.put(type(made_at_import).__module__)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    q = context.Queue()
    p = context.Process(target=child, args=(q,))
    p.start()
    p.join()
    print(q.get(timeout={LIMIT}))
"""
    )
    command = [sys.executable, "-I", "-S", str(tmp_path / "program.py")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (run.stdout, run.stderr) == ("joinq._queue\n", "")


def test_fork_server_has_us():
    """It imports us once for all of its children."""
    done = workers.run_script(
        """
import multiprocessing
import installed, joinq
if __name__ == "__main__":
    joinq.install()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["json"])
    ours, theirs = context.Pipe()
    child = context.Process(target=installed.look_at_parent, args=(theirs,))
    child.start()
    assert ours.recv()
    child.join()
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
