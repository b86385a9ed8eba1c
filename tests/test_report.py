"""`run --report`: the figures at the end, whatever became of the program and its processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from probes import LIMIT

PROGRAM = """
import multiprocessing
import os
import signal
import sys
import time

def work(tasks, results, how):
    inner = multiprocessing.SimpleQueue()  # made in the child
    for task in iter(tasks.get, None):
        inner.put(bytes(1000))
        results.put(task)
        tasks.task_done()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(0)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    tasks, results = context.JoinableQueue(), context.Queue(5)
    for number in range(4):
        tasks.put(number)
    tasks.put(None)
    worker = context.Process(target=work, args=(tasks, results, sys.argv[2]))
    worker.start()
    worker.join()
    os.write(1, b"done\\n")
    if sys.argv[2] == "main":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def report(tmp_path):
    """Run a program with --report, and return what it wrote, and the rows of the report in words."""

    def report(program, *arguments, code=0):
        (tmp_path / "program.py").write_text(program)
        command = [sys.executable, "-m", "joinq", "run", "--report", "program.py", *arguments]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert run.returncode == code, run.stderr
        rows = [re.split(r"  +", line.strip()) for line in run.stderr.splitlines()]
        return run.stdout, rows

    return report


HEAD = ["kind", "made at", "queues", "items", "bytes", "peak backlog", "blocked in get", "put", "join"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(("how", "code"), [("return", 0), ("kill", 0), ("exit", 0), ("main", -signal.SIGKILL)])
def test_figures_are_those_of_all_processes(report, method, how, code):
    """Also of one that was killed, or did not end in order; and if the program itself was killed."""
    said, rows = report(PROGRAM, method, how, code=code)
    assert said == "done\n"
    assert rows[:2] == [["joinq: the queues of this program"], HEAD]
    sizes = [str(4 * 8), str(4 * 8), f"{4 * 1000:,}"]  # None takes nothing, and bytes themselves
    total = f"{sum(int(size.replace(',', '')) for size in sizes):,}"
    assert [row[:-3] for row in rows[2:6]] == [
        ["JoinableQueue", "program.py:21", "1", "5", sizes[0], "5"],
        ["Queue", "program.py:21", "1", "4", sizes[1], "4"],
        ["SimpleQueue", "program.py:9", "1", "4", sizes[2], "4"],
        ["all", "3", "13", total, "5"],
    ]
    left = [" ".join(row) for row in rows[6:]]
    if how in ("kill", "exit"):  # with None in hand
        assert left[0].startswith("JoinableQueue 'program.py:21', made at program.py:21: 1 task unfinished: ")
        assert re.fullmatch(
            r"process \d+ \(.*Process-1\) (died|was killed by SIGKILL), had 1 task in hand, .*", left.pop()
        )
    assert len(left) == (how in ("kill", "exit"))


BLOCKED = """
import multiprocessing, sys, joinq

def work(tasks, results):
    results.put(tasks.get())

if __name__ == "__main__":
    context = joinq.get_context(sys.argv[1])
    tasks, results = context.JoinableQueue(name="tasks"), context.Queue(1, name="results")
    results.put("full")
    tasks.put(0)
    worker = context.Process(target=work, args=(tasks, results))
    worker.start()
    while not results.stats().writers_blocked:
        pass
    print(worker.pid, flush=True)
    multiprocessing.process._children.clear()  # is not waited for
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_who_is_still_blocked(tmp_path, method):
    """With a task in hand, and in which queue, when the program ends."""
    (tmp_path / "program.py").write_text(BLOCKED)
    command = [sys.executable, "-m", "joinq", "run", "--report", "program.py", method]
    with (
        open(tmp_path / "said", "w") as said,
        subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=subprocess.PIPE, text=True) as run,
    ):
        text = ""
        while "this is not yet all" not in text:
            line = run.stderr.readline()
            assert line, text
            text += line
        os.kill(int((tmp_path / "said").read_text()), signal.SIGKILL)
    assert "JoinableQueue 'tasks', made at program.py:9: 1 task unfinished: 0 of them in the queue, 1 taken" in text
    assert "has 1 task in hand" in text
    assert "in put() of queue 'results', which is full (1 item)" in text


def test_time_blocked(report):
    """Seconds that threads waited, all together."""
    _, rows = report(
        """
import multiprocessing, queue
q = multiprocessing.JoinableQueue(1)
for call in (lambda: q.get(timeout=0.2), lambda: q.put(1), lambda: q.put(1, timeout=0.3)):
    try:
        call()
    except (queue.Empty, queue.Full):
        pass
"""
    )
    get, put, join = rows[2][6:]
    assert float(get.split()[0]) >= 0.2
    assert float(put.split()[0]) >= 0.3
    assert join == "0.000 s"


def test_queues_made_in_one_place_are_one_row(report):
    """The numbers are sums, the peak is the highest; what happened to the queues meanwhile does not matter."""
    _, rows = report(
        """
import multiprocessing
for number in range(300):
    q = multiprocessing.Queue()
    for item in range(number % 7):
        q.put(item)
    q.close()
    del q
"""
    )
    items = sum(number % 7 for number in range(300))
    assert rows[2][:6] == ["Queue", "program.py:4", "300", str(items), f"{8 * items:,}", "6"]
    assert len(rows) == 3


def test_a_program_without_queues(report):
    """Says so."""
    assert report("print('x')") == ("x\n", [["joinq: this program made no queue"]])


def test_the_program_s_exit_code_and_traceback_come_first(report):
    """The report is the last that is written."""
    _, rows = report("1 / 0", code=1)
    assert rows[0] == ["Traceback (most recent call last):"]
    assert rows[-1] == ["joinq: this program made no queue"]


def test_a_process_that_goes_on_is_said_to(report):
    """The end of the main process is the end of the program."""
    _, rows = report(
        """
import multiprocessing, os, sys
q = multiprocessing.Queue()
ready, told = os.pipe()
if not os.fork():
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    q.put(1)
    os.write(told, b"x")
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            q.get(timeout=0.01)
        except Exception:
            pass
    os._exit(0)
os.read(ready, 1)
"""
    )
    assert rows[2][:4] == ["Queue", "program.py:3", "1", "1"]
    assert rows[3] == ["Some of its processes were still running, so this is not yet all."]


def test_a_program_that_closes_what_it_does_not_know_is_warned(report):
    """Its own files are not taken for ours."""
    _, rows = report(
        """
import multiprocessing, os
multiprocessing.Queue()
os.closerange(3, 1000)
mine = [os.open(os.devnull, os.O_RDWR) for _ in range(20)]
multiprocessing.Queue().put(1)
"""
    )
    assert "the one made at program.py:6 will be missing from the report" in str(rows)
    assert rows[-1][:4] == ["Queue", "program.py:3", "1", "0"]


def test_children_of_the_program_are_its_own(report):
    """No wait() finds the process that reports, and no child of a fork reports instead of the program."""
    said, rows = report(
        """
import multiprocessing, os, sys
q = multiprocessing.Queue()
child = os.fork()
if not child:
    sys.exit(0)
print(os.wait() == (child, 0))
try:
    os.wait()
except ChildProcessError:
    print("no more")
q.put(1)
"""
    )
    assert said == "True\nno more\n"
    assert rows[2][:4] == ["Queue", "program.py:3", "1", "1"]


def test_an_interrupt_ends_the_program_and_not_the_report(tmp_path):
    """Ctrl-C goes to all processes of the terminal."""
    (tmp_path / "program.py").write_text(
        "import multiprocessing\nq = multiprocessing.Queue()\nprint('ready', flush=True)\nq.get()\n"
    )
    command = [sys.executable, "-m", "joinq", "run", "--report", "program.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout.readline() == "ready\n"
        os.killpg(run.pid, signal.SIGINT)
        _, err = run.communicate(timeout=LIMIT)
    assert run.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
    assert "program.py:2" in err.split("joinq: the queues of this program")[1]
