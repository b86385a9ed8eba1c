"""
What it costs a program to be watched: `python benchmarks/watched.py [ROUNDS [ITEMS]]`.

A stream of ints from one process to another, until join(); with `top` looking at it every second, and with that
stopped, in turn. Prints the ratio of the medians, and how much CPU time `top` took.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pty
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import joinq

ROUNDS, ITEMS = 24, 5_000_000
STARTED = 1.2  # Seconds after which top waits for its next look.


def consume(tasks: joinq.JoinableQueue) -> None:
    """Finish tasks until there is a None."""
    while tasks.get() is not None:
        tasks.task_done()


def stream(tasks: joinq.JoinableQueue, items: int) -> float:
    """Return how many seconds it takes until all items are finished."""
    start = time.perf_counter()
    for number in range(items):
        tasks.put(number)
    tasks.join()
    return time.perf_counter() - start


class Top:
    """`top` in a terminal, looking at all programs once a second."""

    def __init__(self) -> None:
        self._terminal, slave = pty.openpty()
        command = [sys.executable, "-m", "joinq", "top"]
        self._process = subprocess.Popen(command, stdin=slave, stdout=slave, env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        threading.Thread(target=self._drain, daemon=True).start()
        time.sleep(STARTED)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # It has ended.
            while os.read(self._terminal, 65536):
                pass

    def cpu(self) -> float:
        """Return the seconds of CPU time that it has used."""
        with open(f"/proc/{self._process.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it not look until the end of the block."""
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def main(rounds: int = ROUNDS, items: int = ITEMS) -> None:
    """Measure and print."""
    tasks = joinq.JoinableQueue(name="stream")
    consumer = multiprocessing.Process(target=consume, args=(tasks,), daemon=True)
    consumer.start()
    stream(tasks, items)
    top = Top()
    alone, watched, cpu = [], [], 0.0
    for number in range(2 * rounds):
        if number % 4 in (0, 3):
            with top.stopped():
                alone.append(stream(tasks, items))
        else:
            before = top.cpu()
            watched.append(stream(tasks, items))
            cpu += top.cpu() - before
    top.end()
    tasks.put(None)
    consumer.join()
    for name, seconds in (("alone", alone), ("watched", watched)):
        each = sorted(second / items * 1e6 for second in seconds)
        print(f"{name:8} {statistics.median(each):.4f} us per item, {each[0]:.4f} to {each[-1]:.4f}")
    print(f"ratio of the medians: {statistics.median(watched) / statistics.median(alone):.4f}")
    print(f"CPU time of top: {cpu / sum(watched):.2%} of one CPU")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
