"""
Tokenize and hash every .py file under DIR in worker processes.

The same work is done with joinq's queues and with those of the standard library;
times and results are compared. Symbolic links to directories are not followed.

Exit code: 0 if both gave the same results, 1 if not, 2 for bad usage, 3 if a
worker died.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import multiprocessing
import os
import queue
import signal
import stat
import sysconfig
import threading
import time
import tokenize
import warnings
from collections import Counter
from collections.abc import Container, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple

import joinq
from joinq._command import CommandError, progress

if TYPE_CHECKING:
    from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
    from multiprocessing.queues import JoinableQueue, Queue

    Context = ForkContext | ForkServerContext | SpawnContext
    Tasks = JoinableQueue[str | None]
    Results = Queue["Result"]

_TICK = 0.1  # Seconds between two looks at the workers.
_PATIENCE = 10.0  # Seconds that a worker with nothing left to do gets to leave.
_EXAMPLES = 5  # Files named in a list of problems.
NOT_STDLIB = ("site-packages", "dist-packages")  # Though they are inside of it.


class Result(NamedTuple):
    """What is known about one file. There is no digest if it cannot be read."""

    path: str
    size: int = 0
    tokens: int = 0
    digest: bytes = b""
    problem: str = ""


def find(top: str, leave_out: Container[str] = ()) -> tuple[list[str], list[Result]]:
    """
    Return the paths of the .py files in a directory tree, and what cannot be listed.

    Args:
        top: The root of the tree.
        leave_out: Names of directories that are not entered.
    """
    errors: list[OSError] = []
    paths: list[str] = []
    for folder, folders, names in os.walk(top, onerror=errors.append):
        folders[:] = [name for name in folders if name not in leave_out]
        paths += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(paths), [Result(e.filename, problem=str(e.strerror)) for e in errors]


def analyse(path: str) -> Result:
    """Return what is to be known about a file. No file makes it raise."""
    try:
        data = _read(path)
    except (OSError, MemoryError) as error:
        return Result(path, problem=getattr(error, "strerror", "too large"))
    tokens, problem = 0, ""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        # Decoded here, as some versions of the tokenizer let wrong bytes pass.
        lines = io.StringIO(data.decode(encoding), newline=None)
        tokens = sum(1 for _ in tokenize.generate_tokens(lines.readline))
    except Exception as error:  # The tokenizer raises more kinds than it documents.
        plain = isinstance(error, (SyntaxError, tokenize.TokenError))
        problem = f"{type(error).__name__}: {error.args[0] if plain else error}"
    return Result(path, len(data), tokens, hashlib.sha256(data).digest(), problem)


def _read(path: str) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):  # Opening a FIFO waits for a writer.
        raise OSError(errno.EINVAL, "not a regular file")
    with open(path, "rb") as file:
        return file.read()


def work(tasks: Tasks, results: Results) -> None:
    """Be a worker: analyse one file after the other until a task is None."""
    warnings.simplefilter("ignore")  # Tokenizing can warn of what is in the files.
    threading.Thread(target=_follow_parent, daemon=True).start()
    for path in iter(tasks.get, None):
        results.put(analyse(path))
        tasks.task_done()


def _follow_parent() -> None:
    """End this process when its parent ends, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _sigint_held() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block; children started in it ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _workers(context: Context, count: int, tasks: Tasks, results: Results) -> Iterator[list[BaseProcess]]:
    """Start workers; whichever way the block ends, none of them outlives it."""
    processes: list[Any] = []
    try:
        try:
            with _sigint_held():
                for _ in range(count):
                    process = context.Process(target=work, args=(tasks, results), daemon=True)
                    process.start()
                    processes.append(process)
        except OSError as error:
            message = f"cannot start {count} workers ({error}): use fewer --workers"
            raise CommandError(message) from error
        yield processes
        for _ in processes:
            tasks.put(None)
        for process in processes:
            process.join(_PATIENCE)
        tasks.close()
        tasks.join_thread()  # The next fork must not meet the stdlib's feeder thread.
    finally:
        with _sigint_held():
            for process in processes:
                process.kill()
                process.join()
                process.close()  # Not left to a destructor, where Ctrl-C gets lost.
        tasks.cancel_join_thread()  # With no reader left, that thread may be stuck.


def _check(processes: list[BaseProcess]) -> None:
    """Raise CommandError if a worker has ended: none does before it is told to."""
    for process in processes:
        code = process.exitcode
        if code is not None:
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise CommandError(f"worker process {process.pid} died ({how})", 3)


def run(make: Any, context: Context, paths: list[str], workers: int, label: str) -> tuple[float, list[Result]]:
    """
    Analyse files in worker processes, with queues of any make.

    Args:
        make: Whatever has JoinableQueue() and Queue(): `joinq`, or a context.
        context: The context of `multiprocessing` that starts the workers.
        paths: The files; each is one task.
        workers: The number of worker processes.
        label: The name of this run in the display of the progress.

    Returns:
        The seconds from before the first worker was started until join() had returned
        and all results had arrived; the results, sorted by path.

    Raises:
        CommandError: If a worker cannot be started, or dies.
    """
    tasks: Tasks = make.JoinableQueue()
    results: Results = make.Queue()
    found: list[Result] = []
    with progress(label, len(paths)) as bar:
        start = time.perf_counter()
        with _workers(context, workers, tasks, results) as processes:
            for path in paths:
                tasks.put(path)
            # In a thread: the stdlib's join() has no timeout, and a dead worker's task
            # is never done.
            joiner = threading.Thread(target=_join, args=(tasks,), daemon=True)
            joiner.start()
            next_check = 0.0
            while len(found) < len(paths) or joiner.is_alive():
                if len(found) < len(paths):
                    with contextlib.suppress(queue.Empty):
                        found.append(results.get(timeout=_TICK))
                        bar.update()
                else:
                    joiner.join(_TICK)
                if time.monotonic() >= next_check:
                    _check(processes)
                    next_check = time.monotonic() + _TICK
            _check(processes)
            seconds = time.perf_counter() - start
    return seconds, sorted(found)


def _join(tasks: Tasks) -> None:
    with contextlib.suppress(joinq.LostTasks):  # _check() names the dead worker
        tasks.join()


def warm_up(context: Context, paths: list[str]) -> None:
    """Have the files cached and the start method's helpers running before the runs."""
    with progress("reading", len(paths)) as bar:
        for path in paths:
            with contextlib.suppress(OSError, MemoryError):
                _read(path)
            bar.update()
    if context.get_start_method() != "fork":
        # Not left to the first process, as starting the tracker lets Ctrl-C through.
        resource_tracker.ensure_running()
    with _sigint_held():
        process = context.Process(daemon=True)  # It has no target and does nothing.
        process.start()
        process.join()
        process.close()


def differing(a: list[Result], b: list[Result]) -> list[Result]:
    """Return the results that are in one list only, or less often in the other."""
    counts, others = Counter(a), Counter(b)
    return sorted((counts - others) + (others - counts))


def listing(title: str, top: str, results: list[Result]) -> str:
    """Return a text that names the first few files and their problems, if any."""
    lines = [f"{os.path.relpath(r.path, top)!r}: {r.problem}" for r in sorted(results)]
    if len(lines) > _EXAMPLES:
        lines[_EXAMPLES:] = [f"and {len(lines) - _EXAMPLES:,} more"]
    return "\n  ".join([f"\n{title}:", *lines]) + "\n" if lines else ""


def demo(directory: str | None, workers: int | None, start_method: str) -> int:
    """
    Do the work with both makes of queues, and print how they compare.

    Args:
        directory: Where the files are. None is the standard library.
        workers: The number of worker processes; more than files are of no use, and not
            started. None is as many as CPUs are available.
        start_method: fork, spawn or forkserver.

    Returns:
        0 if both gave the same results, or else 1.

    Raises:
        CommandError: If there are no files, or the workers cannot do it.
    """
    top = sysconfig.get_path("stdlib") if directory is None else directory
    paths, unreadable = find(top, NOT_STDLIB if directory is None else ())
    if not paths:
        why = f" ({unreadable[0].problem})" if unreadable else ""
        raise CommandError(f"no Python file in {top!r}{why}: name a directory with some")
    try:
        workers = min(workers or joinq.available_cpu_count(), len(paths))
    except ValueError as error:  # The number that the user put in its place is none.
        raise CommandError(str(error)) from error
    context: Any = multiprocessing.get_context(start_method)
    print(f"{len(paths):,} Python files in {top!r}")
    print("Each is read once beforehand, so that both runs find it in the file cache.")
    print(flush=True)
    warm_up(context, paths)

    seconds, results = run(joinq, context, paths, workers, "joinq")
    seconds_stdlib, results_stdlib = run(context, context, paths, workers, "stdlib")
    odd = differing(results, results_stdlib)
    unreadable += [result for result in results if not result.digest]
    untokenizable = [result for result in results if result.digest and result.problem]
    rows = {
        "files": f"{len(paths):,}",
        "tokens": f"{sum(result.tokens for result in results):,}",
        "bytes": f"{sum(result.size for result in results):,}",
        "unreadable": f"{len(unreadable):,}",
        "not tokenizable": f"{len(untokenizable):,}",
        "workers": f"{workers:,}",
        "start method": start_method,
        "time with joinq": f"{seconds:.3f} s",
        "time with stdlib": f"{seconds_stdlib:.3f} s",
        "stdlib / joinq": f"{seconds_stdlib / seconds:.2f}",
        "same results": "NO" if odd else "yes",
    }
    print(*(f"{name:16}{value:>16}" for name, value in rows.items()), sep="\n")
    print("\nThe times run from the start of the workers until join() and all results.")
    print("Most of that is work on the files, so the ratio is near 1 and varies with the")
    print("load of the machine: the benchmarks measure the queues alone.")
    print(listing("Unreadable", top, unreadable), end="")
    print(listing("Not tokenizable, only hashed", top, untokenizable), end="")
    print(listing("Different results; did the files change?", top, odd), end="")
    return 1 if odd else 0
