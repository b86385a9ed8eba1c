"""The logger "joinq": deaths, redeliveries, dead letters."""

from __future__ import annotations

import logging
import threading

import probes
import pytest
import workers
from probes import LIMIT

import joinq

pytestmark = pytest.mark.filterwarnings("ignore::joinq.DeadLetterWarning")


@pytest.fixture
def told(caplog):
    """What was logged: level and text."""
    caplog.set_level(logging.INFO, "joinq")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "joinq"]


def dies(launch, q, how="SIGKILL", count=1):
    child = launch(workers.take_and_end, q, count, how)
    assert child.receive() == "taken"
    child.process.join()
    return f"process {child.pid} ({child.process.name})"


def filled(count, **options):
    q = joinq.JoinableQueue(name="tasks", **options)
    q.put_many(range(count))
    return q


def test_silent_by_default():
    """Without a handler of the program nothing is written."""
    assert [type(handler) for handler in logging.getLogger("joinq").handlers] == [logging.NullHandler]


def test_lost_tasks(launch, told):
    """By join(), once."""
    q = filled(2)
    who = dies(launch, q, count=2)
    for _ in range(2):
        with pytest.raises(joinq.LostTasks):
            q.join(LIMIT)
    assert told() == [("WARNING", f"queue 'tasks': {who} was killed by SIGKILL with 2 tasks in hand")]


@pytest.mark.parametrize(
    ("how", "words"), [("SIGSEGV", "was killed by SIGSEGV"), ("sys.exit(3)", "ended with exit code 3")]
)
def test_how(launch, told, how, words):
    """As far as it is known."""
    q = filled(1)
    who = dies(launch, q, how)
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)
    assert told() == [("WARNING", f"queue 'tasks': {who} {words} with 1 task in hand")]


def test_end_in_order_is_not_told(ctx, told):
    """It is no death."""
    q = filled(0)
    child = ctx.Process(target=q.put, args=(1,))
    child.start()
    child.join()
    probes.reap(q)
    q.get()
    q.task_done()
    q.join()
    assert told() == []


def test_redelivery_and_dead_letter(launch, told):
    """What became of the task."""
    q = filled(1, on_death="redeliver", max_deliveries=2)
    dead = []
    for _ in range(2):
        dead.append(dies(launch, q))
        probes.reap(q)
    q.join(LIMIT)
    first, second = (f"queue 'tasks': {who} was killed by SIGKILL with 1 task in hand" for who in dead)
    pids = ", ".join(who.split()[1] for who in dead)
    text = f"a task was given up after it had killed 2 of the processes that took it (the last: {pids})"
    assert told() == [
        ("WARNING", first),
        ("WARNING", second),
        ("WARNING", "queue 'tasks': 1 task of dead processes went back to the queue"),
        ("ERROR", f"queue 'tasks': {text}"),
    ]


BLOCKED = {
    "get": lambda q: q.get(timeout=LIMIT),
    "get_many": lambda q: q.get_many(10, timeout=LIMIT),
    "put": lambda q: (q.put(1, timeout=LIMIT), q.get()),
    "put_many": lambda q: (q.put_many([1, 2], timeout=LIMIT), q.get()),
}


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
@pytest.mark.parametrize("call", BLOCKED)
def test_blocked_call_tells(launch, told, call):
    """While it waits: nothing else is called, perhaps for ever."""
    q = joinq.Queue(maxsize=0 if "get" in call else 1, name="items")
    child = launch(workers.puppet, q)
    child.call("put", 0)
    if "get" in call:
        q.get()
    child.kill()

    def release():
        probes.wait_until(told, "it is told")
        q.put(0) if "get" in call else q.get()
        if call == "put_many":
            q.get()

    thread = threading.Thread(target=release)
    thread.start()
    BLOCKED[call](q)
    thread.join()
    [(level, text)] = told()
    assert level == "INFO"
    assert text.startswith("queue 'items': process ")


def test_who_comes_later_is_not_told_of_old_deaths(launch, told):
    """Only of what has happened since it has the queue; a handler's output in the child would be a message."""
    q = filled(1)
    dies(launch, q)
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)
    assert len(told()) == 1
    child = launch(workers.log_of_join, q)
    assert child.result() == []


class Handler(logging.Handler):
    def __init__(self, do):
        super().__init__()
        self.handle = do


@pytest.fixture
def handler():
    """Install a handler that does something."""
    installed = []

    def install(do):
        installed.append(Handler(do))
        logging.getLogger("joinq").addHandler(installed[-1])

    yield install
    for one in installed:
        logging.getLogger("joinq").removeHandler(one)


def test_handler_that_raises(launch, handler, capsys):
    """Its error is shown, and the call goes on."""

    def fail(record):
        raise ValueError("no disk")

    handler(fail)
    q = filled(1)
    dies(launch, q)
    with pytest.raises(joinq.LostTasks):
        q.join(LIMIT)
    assert "ValueError: no disk" in capsys.readouterr().err
    probes.check_invariants(q)


def test_handler_that_uses_the_queue(launch, handler):
    """The same queue, from within its calls."""
    q = filled(1, on_death="redeliver")
    seen = []

    def use(record):
        q.put(record.getMessage())
        with pytest.raises(joinq.JoinTimeout):
            q.join(0.01)
        seen.append(record)

    handler(use)
    dies(launch, q)
    with pytest.raises(joinq.JoinTimeout):
        q.join(2)
    assert q.get() == 0
    texts = [q.get() for _ in seen]
    assert len(texts) == 2
    assert all(text.startswith("queue 'tasks': ") for text in texts)
    q.task_done(3)
    q.join(0)
    probes.check_invariants(q)


def test_interrupt_in_a_handler(launch, handler):
    """Ends the call, as in any code."""

    def interrupt(record):
        raise KeyboardInterrupt

    handler(interrupt)
    q = filled(1)
    dies(launch, q)
    with pytest.raises(KeyboardInterrupt):
        q.get(timeout=LIMIT)
    probes.check_invariants(q)
