"""`python -m joinq top`: what it shows of other programs, how it ends, and that nobody notices it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import probes
import pytest
import workers
from probes import LIMIT

import joinq
from joinq import _top
from joinq.__main__ import main

PROGRAM = """
import json, multiprocessing, sys
from dataclasses import asdict
import joinq

def work(tasks, results, barrier):
    for number in range(10):
        results.put(tasks.get() + 1)
        tasks.task_done()
    tasks.get()
    barrier.wait()
    barrier.wait()

def stats():
    print(json.dumps([asdict(q.stats()) for q in (results, tasks)]), flush=True)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    tasks, results = joinq.JoinableQueue(name="tasks"), joinq.Queue(30, name="results")
    barrier = context.Barrier(4)
    children = [context.Process(target=work, args=(tasks, results, barrier)) for _ in range(3)]
    for child in children:
        child.start()
    for number in range(40):
        tasks.put(number)
    barrier.wait()
    stats()
    for line in sys.stdin:
        for number in range(int(line)):
            tasks.put(number)
        stats()
    barrier.wait()
"""


class Program:
    """Another program, all of whose processes wait at a barrier."""

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, **pipes)
        self.pid = self.process.pid

    def stats(self):
        """What it says of its queues."""
        return json.loads(self.process.stdout.readline())

    def put(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return self.stats()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


@pytest.fixture
def program():
    program = Program()
    yield program
    if not program.process.stdin.closed:
        program.end()
    program.process.stdout.close()


def command(*arguments):
    return [sys.executable, "-m", "joinq", "top", *map(str, arguments)]


def run(*arguments):
    """Run top; return its exit code and what it wrote."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=LIMIT, check=False)
    return done.returncode, done.stdout, done.stderr


# What it shows ----------------------------------------------------------------------------


def test_exact_at_a_barrier(program):
    """The figures are those of the program itself, and of each process its own."""
    told = program.stats()
    code, out, err = run("--once", "--json", program.pid)
    assert (code, err) == (0, "")
    results, tasks = json.loads(out)["queues"]
    assert [results["stats"], tasks["stats"]] == told
    assert (tasks["stats"]["queued"], tasks["stats"]["in_flight"], tasks["stats"]["task_dones"]) == (7, 3, 30)
    assert (results["name"], results["kind"], results["maxsize"]) == ("results", "Queue", 30)
    held = {holder["name"]: (holder["tasks"], holder["gets"]) for holder in tasks["holders"]}
    assert held == {"MainProcess": (0, 0), **{f"ForkProcess-{i}": (1, 11) for i in (1, 2, 3)}}
    assert {holder["fate"] for holder in tasks["holders"]} == {"is alive"}
    assert program.pid in tasks["pids"]
    assert tasks["rates"] is None


def test_rates_and_the_end(program):
    """From the second look on; when the process ends, so does it."""
    program.stats()
    with subprocess.Popen(command("--json", "--interval", "0.05", program.pid), stdout=subprocess.PIPE) as top:
        looks = ({queue["name"]: queue for queue in json.loads(line)["queues"]} for line in top.stdout)
        tasks = (look["tasks"] for look in looks)
        assert next(tasks)["rates"] is None
        assert next(tasks)["rates"] == {"puts": 0, "gets": 0, "task_dones": 0}
        program.put(1000)
        look = next(look for look in tasks if look["rates"]["puts"])
        assert (look["stats"]["puts"], look["rates"]["gets"]) == (1040, 0)
        program.end()
        assert all(look.keys() <= {"tasks", "results"} for look in looks)  # it lets go of them one after the other
        assert top.wait() == 0


def test_stopped_for_long(monkeypatch):
    """Looks that it has missed are not made up for, and it goes on."""
    naps = []

    class Clock:
        now = 0.0

        def monotonic(self):
            self.now += 100
            return self.now

        def time(self):
            return self.now

        def sleep(self, seconds):
            assert seconds >= 0
            naps.append(seconds)
            if len(naps) == 3:
                raise KeyboardInterrupt

    q = joinq.Queue(name="x")
    monkeypatch.setattr(_top, "time", Clock())
    assert main(["top", "--json", str(os.getpid())]) == 128 + signal.SIGINT
    assert naps == [0, 0, 0]
    del q


def test_table(launch):
    """Of the stopped, the killed, and those that wait."""
    tasks, full = joinq.JoinableQueue(name="table tasks"), joinq.Queue(1, name="table results")
    full.put(0)
    for number in range(3):
        tasks.put(number)
    stopped, killed, waiting = (launch(workers.puppet, tasks) for _ in range(3))
    for child in (stopped, killed):
        child.call("get")
    waiting.begin("join")
    os.kill(stopped.pid, signal.SIGSTOP)
    os.kill(killed.pid, signal.SIGKILL)
    probes.wait_until(lambda: probes.state(stopped.pid) == "T", "it is stopped")
    killed.process.join()
    probes.wait_until(lambda: tasks.stats().joiners_blocked == 1, "it is blocked")
    probes.reap(tasks)
    try:
        look = _top.Watch(os.getpid()).look()
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    lines = [re.split(r"  +", line.strip()) for line in _top.plain(look, 500)]
    queues = {row[0]: row[1:] for row in lines if row[0].startswith("table")}
    assert queues["table results"] == ["1 full", "-", "-", "0", "64 KiB", "Queue"]
    assert queues["table tasks"] == [*("1", "3", "1 in join()", "-", "-", "-", "1", "0", "64 KiB"), "JoinableQueue"]
    about = {row[0]: row[2:5] for row in lines if row[2:3] == ["table tasks"]}
    assert about[str(stopped.pid)][1] == "stopped"
    assert about[str(killed.pid)][1] == "killed by SIGKILL"
    assert re.fullmatch(r"1 for \d+\.\d s", about[str(killed.pid)][2])
    assert re.fullmatch(r"join\(\) \d+\.\d s", about[str(waiting.pid)][2])
    assert _top.news(look)[-1].endswith(
        f" queue table tasks: process {killed.pid} ({killed.process.name}) was killed by SIGKILL, had 1 task in hand"
    )
    tasks.get()
    tasks.task_done(3)


@pytest.mark.parametrize("ctx", ["fork"], indirect=True)
def test_names_cannot_command_the_terminal(launch):
    """A process may call itself anything."""
    q = joinq.Queue(name="plain")
    child = launch(workers.rename_and_use, q, "\033[31mred\n")
    assert child.receive() == "used"
    text = "\n".join(_top.plain(_top.Watch(os.getpid()).look(), 500))
    child.send("end")
    assert "?[31mred?" in text
    assert "\033" not in text


def test_queues_come_and_go():
    """And what is gone is let go of: a dead program's memory is free."""
    watch = _top.Watch(None)
    watch.look()
    q = joinq.Queue(name="comes and goes")

    def seen():
        return [shown.view.name for shown in watch.look().queues].count("comes and goes")

    probes.wait_until(lambda: seen() == 1, "it is found")
    del q
    probes.wait_until(lambda: not seen(), "it is let go of")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (99.94, "99.9 s"), (100, "2 min"), (7200, "2 h"), (10**6, "12 d")]
)
def test_spans_of_time(seconds, text):
    assert _top.ago(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (65536, "64 KiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes(n, text):
    assert _top._bytes(n) == text


# Terminals --------------------------------------------------------------------------------

ESCAPES = re.compile(r"\033\[[?0-9;]*[A-Za-z]")
WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from joinq.__main__ import main; sys.exit(main(sys.argv[1:]))"


class Terminal:
    """A top that believes to be seen by somebody."""

    def __init__(self, pid, columns, with_rich):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
        started = ["-m", "joinq"] if with_rich else ["-c", WITHOUT_RICH]
        line = [sys.executable, *started, "top", "--interval", "0.05", str(pid)]
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.top = subprocess.Popen(
            ["setsid", "--ctty", *line],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm"},
        )
        os.close(slave)
        self.text = ""

    def read_until(self, text, times=1):
        while self.text.count(text) < times:
            self.text += os.read(self.master, 65536).decode()

    def end(self):
        """Wait for its end; return the exit code."""
        with contextlib.suppress(OSError):
            while True:
                self.text += os.read(self.master, 65536).decode()
        os.close(self.master)
        return self.top.wait()


@pytest.mark.parametrize("with_rich", [True, False])
@pytest.mark.parametrize("columns", [200, 80, 25, 8])
def test_fits_any_terminal(program, columns, with_rich):
    """Columns are left out, the lines stay whole; Ctrl-C ends it, and the terminal is as before."""
    if with_rich:
        pytest.importorskip("rich")
    program.stats()
    terminal = Terminal(program.pid, columns, with_rich)
    terminal.read_until("\033[H", 3)
    os.write(terminal.master, b"\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert "Traceback" not in terminal.text
    assert terminal.text.rindex("\033[?1049h") < terminal.text.rindex("\033[?1049l")
    assert terminal.text.rindex("\033[?25l") < terminal.text.rindex("\033[?25h")
    shown = terminal.text[: terminal.text.rindex("\033[H")].replace("\033[H", "\n").replace("^C", "")  # its echo
    lines = ESCAPES.sub("", shown).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.split()[:1] == ["tasks"] for line in lines)
    assert any("Process-1" in line for line in lines) == (columns > 20)


@pytest.mark.parametrize("with_rich", [True, False])
def test_terminated(program, with_rich):
    """The terminal is put in order."""
    if with_rich:
        pytest.importorskip("rich")
    program.stats()
    terminal = Terminal(program.pid, 80, with_rich)
    terminal.read_until("\033[H", 2)
    terminal.top.terminate()
    assert terminal.end() == 128 + signal.SIGTERM
    assert terminal.text.rindex("\033[?1049h") < terminal.text.rindex("\033[?1049l")


# What it cannot show ----------------------------------------------------------------------


def test_no_such_process():
    """It says so."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert run(dead.pid) == (1, "", f"joinq: there is no process {dead.pid}\n")


def test_process_without_a_queue():
    """It says so."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert run(other.pid) == (1, "", f"joinq: process {other.pid} has no queue of joinq\n")


def test_no_queue_at_all(monkeypatch, capsys):
    """It says so."""
    monkeypatch.setattr(_top, "find", lambda pid: [])
    assert main(["top"]) == 1
    assert capsys.readouterr().err == "joinq: no running program that you may look at has a queue of joinq\n"


@pytest.mark.parametrize("bad", [["0"], ["x"], ["-1"], ["--interval", "0"], ["--interval", "nan"], ["--interval", "x"]])
def test_bad_usage(bad, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["top", *bad])
    assert "error: " in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("options", [[], ["--once"], ["--json"]])
def test_another_users_process_is_refused(program, options):
    """In one line."""
    program.stats()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(writer, "wb", 0), write_through=True)
            code = main(["top", str(program.pid), *options])
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader) as end:
        text = end.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert text == f"joinq: process {program.pid} belongs to user root; look at it as that user, or as root\n"


def test_another_versions_queue_is_refused():
    """If there is nothing else; else it is told below the table."""
    look = _top.Look(0.0, [], ["the queue of process 1 cannot be looked at:\nbecause"])
    assert _top.plain(look, 80)[-1] == "not shown: the queue of process 1 cannot be looked at:?because"


# Nobody notices ---------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
def test_killing_it_disturbs_nothing(wait):
    """At any moment: while it looks, or while it starts."""
    q = joinq.JoinableQueue(name="victim")
    for _ in range(4):
        with subprocess.Popen(command("--json", "--interval", "0.05", os.getpid()), stdout=subprocess.PIPE) as top:
            if wait:
                top.stdout.readline()
            for number in range(2000):
                q.put(number)
                assert q.get(timeout=LIMIT) == number
                q.task_done()
            top.kill()
        q.join(LIMIT)
    probes.check_invariants(q)
    counters = probes.counters(q)
    assert (counters["processes"], counters["deaths"], counters["recoveries"]) == (1, 0, 0)
