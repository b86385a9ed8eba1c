"""`python -m joinq why`: from a call that waits to whoever could end it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys

import probes
import pytest
from probes import LIMIT

from joinq import _blame, _top
from joinq.__main__ import main

# The tasks come from MainProcess, who would read the results when all of them are done.
DEADLOCK = """
import multiprocessing, os, signal
import joinq

def work(tasks, results, how):
    number = tasks.get()
    if how:
        os.kill(os.getpid(), how)
    results.put(number)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    tasks, results = joinq.JoinableQueue(name="tasks"), joinq.Queue(1, name="results")
    results.put(0)
    for how, name in ((signal.SIGSTOP, "stopped"), (signal.SIGKILL, "killed"), (0, "blocked")):
        context.Process(target=work, args=(tasks, results, how), name=name).start()
    for number in range(4):
        tasks.put(number)
    tasks.join()
"""

# Who fills the queue is stopped.
STARVED = """
import multiprocessing, os, signal
import joinq

def supply(q):
    q.put(1)
    os.kill(os.getpid(), signal.SIGSTOP)

if __name__ == "__main__":
    q = joinq.Queue(name="supplies")
    multiprocessing.get_context("fork").Process(target=supply, args=(q,), name="supplier").start()
    q.get()
    q.get()
"""

# Nobody puts anything.
FORGOTTEN = "import joinq; joinq.SimpleQueue(name='forgotten').get()"

# Nobody waits.
IDLE = "import joinq, sys; q = joinq.Queue(); print(flush=True); sys.stdin.read()"


def views(pid):
    with contextlib.suppress(OSError):
        return {view.name: view for view in _blame.related(pid)}
    return {}


@pytest.fixture
def start():
    """Start another program, and end it and its processes afterwards."""
    programs = []

    def start(script):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        programs.append(subprocess.Popen([sys.executable, "-c", script], **pipes))
        return programs[-1]

    yield start
    for program in programs:
        for view in views(program.pid).values():
            for holder in view.holders:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder.pid, signal.SIGKILL)
        program.communicate()


def why(pid):
    """What it says, a line each, without figures that change, and with names instead of pids."""
    command = [sys.executable, "-m", "joinq", "why", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r"process \d+ \((\w+)\)", r"\1", re.sub(r"\d+\.\d s", "N s", done.stdout)).splitlines()


def fates(view):
    return {holder.name: holder.fate for holder in view.holders} if view else {}


def test_stopped_killed_and_blocked_on_a_full_queue(start):
    """Each worker has a task in hand; and nobody reads the results, as he who would waits for the tasks."""
    program = start(DEADLOCK)

    def stuck():
        seen = views(program.pid)
        tasks, results = seen.get("tasks"), seen.get("results")
        about = fates(tasks)
        return (
            about.get("stopped") == "is stopped"
            and about.get("killed", "is alive") != "is alive"
            and tasks.stats.joiners_blocked == 1
            and results.stats.writers_blocked == 1
        )

    probes.wait_until(stuck, "it is stuck")
    said = [re.sub("killed died", "killed was killed by SIGKILL", line) for line in why(program.pid)]
    border = next(number for number, line in enumerate(said) if line.startswith("queue 'results'"))
    assert said[0] == "queue 'tasks': 4 tasks unfinished: 1 of them in the queue, 3 taken"
    assert sorted(said[1:border]) == [
        "  MainProcess waits in join() for N s",
        "  blocked is alive, has 1 task in hand, the oldest for N s, waits for N s in put() of queue 'results', "
        "which is full (1 item)",
        "  killed was killed by SIGKILL, had 1 task in hand, the oldest for N s",
        "  stopped is stopped, has 1 task in hand, the oldest for N s",
    ]
    assert [line for line in said[border:] if "killed" not in line] == [
        "queue 'results': 1 item in the queue, which is full",
        "  blocked waits in put() for N s",
        "  no living process has ever taken anything out of it",
        "  MainProcess has it, too, but waits for N s in join() of queue 'tasks'",
    ]


def test_who_puts_is_stopped(start):
    """The reader is told of whoever has put something before."""
    program = start(STARVED)
    probes.wait_until(
        lambda: (
            (seen := views(program.pid).get("supplies"))
            and fates(seen).get("supplier") == "is stopped"
            and seen.stats.readers_blocked
        ),
        "it waits",
    )
    assert why(program.pid) == [
        "queue 'supplies': 0 items in the queue",
        "  MainProcess waits in get() for N s",
        "  supplier is stopped",
        "  supplier has put items into it, but is stopped",
    ]


def test_nobody_has_put_anything(start):
    program = start(FORGOTTEN)
    probes.wait_until(lambda: (s := views(program.pid).get("forgotten")) and s.stats.readers_blocked, "it waits")
    assert why(program.pid) == [
        "queue 'forgotten': 0 items in the queue",
        "  MainProcess waits in get() for N s",
        "  no living process has ever put anything into it",
    ]


def test_asked_about_another_process_of_the_program(start):
    """Who does not wait himself is told of those that do."""
    program = start(STARVED)
    probes.wait_until(lambda: "is stopped" in fates(views(program.pid).get("supplies")).values(), "it is stopped")
    [supplier] = [holder.pid for holder in views(program.pid)["supplies"].holders if holder.name == "supplier"]
    probes.wait_until(lambda: views(program.pid)["supplies"].stats.readers_blocked, "it waits")
    first, *rest = why(supplier)
    assert first == f"process {supplier} does not wait in a call of a queue, but others do:"
    assert rest == why(program.pid)


def test_nobody_waits(start):
    program = start(IDLE)
    program.stdout.readline()
    assert why(program.pid) == [
        f"process {program.pid} does not wait in a call of a queue, "
        "nor does any other process that shares a queue with it"
    ]


def test_no_queue(monkeypatch, capsys):
    """In the words of top."""
    monkeypatch.setattr(_top, "find", lambda pid: [])
    assert main(["why", "1"]) == 1
    assert capsys.readouterr().err == "joinq: process 1 has no queue of joinq\n"


def test_another_users_process(monkeypatch, capsys):
    """The same refusal."""

    def refuse(pid):
        raise PermissionError("process 1 belongs to user root; look at it as that user, or as root")

    monkeypatch.setattr(_top, "find", refuse)
    assert main(["why", "1"]) == 2
    assert capsys.readouterr().err == "joinq: process 1 belongs to user root; look at it as that user, or as root\n"


def test_processes_that_go_meanwhile(monkeypatch):
    """They are left out."""

    def gone(pid):
        raise ProcessLookupError(pid)

    monkeypatch.setattr(_blame, "find", gone)
    assert _blame.related(1) == []
