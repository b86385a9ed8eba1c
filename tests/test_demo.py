"""
`python -m joinq demo`: the main job, on real files, in real processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import joinq
from joinq import __main__ as command
from joinq import _demo
from joinq._demo import Result

LIMIT_S = 120
"""A demo that takes longer hangs: those here take a second or two."""

LONG = b"x = 1\n" * 2_000_000
"""A file that takes seconds to tokenize. No test waits for it."""

START_METHODS = multiprocessing.get_all_start_methods()

DEADLY = """
import multiprocessing, os, signal, sys
import joinq
from joinq import _command, _demo

class Deadly(str):  # The worker that unpickles this task ends thereby.
    def __reduce__(self):
        return {"kill": (signal.raise_signal, (9,)), "exit": (os._exit, (0,))}[ending]

start_method, make, ending = sys.argv[1:]
context = multiprocessing.get_context(start_method)
makes = {"joinq": joinq, "stdlib": context}
try:
    _demo.run(makes[make], context, [joinq.__file__, Deadly()], 2, "")
except _command.CommandError as error:
    print(error)
    sys.exit(error.code)
"""
"""A program that runs the job with a task that is the end of its worker."""


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the demo."""
    line = [sys.executable, "-m", "joinq", "demo", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(line, **options)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """
    Return the exit code of a program, and what it wrote to stdout and stderr.

    Both end only when no process that the program started is left.
    """
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return process.returncode, os.fsdecode(out or b""), os.fsdecode(err or b"")


def demo(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Run the demo to its end, and return what `finish` does."""
    return finish(start(*arguments, **options))


def table(out: str) -> dict[str, str]:
    """Return the table that the demo printed."""
    lines = out.split("\n\n")[1].splitlines()
    return {line[:16].rstrip(): line[16:].strip() for line in lines}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with four files: two in order, one of bad syntax, one of bad bytes."""
    tree = tmp_path / "tree"
    (tree / "package").mkdir(parents=True)
    (tree / "package" / "empty.py").touch()
    (tree / "good.py").write_bytes(b"x = 1\n")
    (tree / "indent.py").write_bytes(b"if x:\n    y\n  z\n")
    (tree / "bytes.py").write_bytes(b"a\nb\nc = '\xff'\n")
    (tree / "other.txt").write_bytes(b"not Python")
    return tree


@pytest.fixture
def without_tqdm(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that cannot import tqdm."""
    (tmp_path / "tqdm.py").write_text("raise ImportError\n")
    path = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: the one to read from, and the one for the program."""
    ends = pty.openpty()
    fcntl.ioctl(ends[1], termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    yield ends
    os.close(ends[0])


def read_terminal(end: int, until: bytes | None = None) -> str:
    """Return what comes from a terminal, to some text or to the end of all writers."""
    text = b""
    while until is None or until not in text:
        assert select.select([end], [], [], LIMIT_S)[0], text
        try:
            text += os.read(end, 4096)
        except OSError:  # So a terminal tells the end.
            assert until is None, text
            break
    return text.decode()


@pytest.mark.parametrize("start_method", START_METHODS)
def test_demo_compares(tree: Path, start_method: str) -> None:
    """With each start method, both queues do all files and give the same results."""
    code, out, err = demo(tree, "--start-method", start_method, "--workers", 2)
    assert (code, err) == (0, "")
    rows = table(out)
    assert float(rows.pop("time with joinq").split()[0]) > 0
    assert float(rows.pop("time with stdlib").split()[0]) > 0
    assert float(rows.pop("stdlib / joinq")) > 0
    assert rows == {
        "files": "4",
        "tokens": str(5 + 1),  # x, =, 1, the end of the line, and that of each file.
        "bytes": str(sum(path.stat().st_size for path in tree.rglob("*.py"))),
        "unreadable": "0",
        "not tokenizable": "2",
        "workers": "2",
        "start method": start_method,
        "same results": "yes",
    }
    assert "\n  'bytes.py': UnicodeDecodeError: " in out
    assert "\n  'indent.py': IndentationError: " in out


def test_demo_fails_on_different_results(tree: Path) -> None:
    """Files that do not give the same results with both queues make it exit with 1."""
    if not os.path.isfile("/proc/self/stat"):
        pytest.skip("no file differs by itself here")
    (tree / "changing.py").symlink_to("/proc/self/stat")
    code, out, _ = demo(tree)
    assert code == 1
    assert table(out)["same results"] == "NO"
    assert "'changing.py'" in out.rpartition("\n\n")[2]


def test_demo_workers_are_no_more_than_files(tree: Path) -> None:
    """A worker that no file is left for is not started."""
    code, out, _ = demo(tree, "--workers", 10**9)
    assert code == 0
    assert table(out)["workers"] == "4"


def test_demo_workers_default_is_available_cpus(tree: Path) -> None:
    """Without --workers, there are as many as CPUs are available."""
    code, out, _ = demo(tree)
    assert code == 0
    assert table(out)["workers"] == str(min(joinq.available_cpu_count(), 4))


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5", "", "²"])
def test_demo_refuses_bad_workers(tree: Path, workers: str) -> None:
    """What is no number of workers is named on stderr, and the exit code is 2."""
    code, out, err = demo(tree, f"--workers={workers}")
    assert (code, out) == (2, "")
    assert repr(workers) in err
    assert "whole number" in err
    assert "Traceback" not in err


def test_demo_refuses_bad_cpu_count(tree: Path) -> None:
    """A bad number of CPUs in the environment is named, and the exit code is 2."""
    if sys.version_info >= (3, 13):
        pytest.skip("Python itself refuses to start")
    code, out, err = demo(tree, env={**os.environ, "PYTHON_CPU_COUNT": "many"})
    assert (code, out) == (2, "")
    assert err.startswith("joinq: PYTHON_CPU_COUNT: 'many' is not a number of CPUs")
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["missing", "file.py", "empty", "loop"])
def test_demo_refuses_directory_without_python(tmp_path: Path, kind: str) -> None:
    """A DIR without Python files is named on stderr, and the exit code is 2."""
    directory = tmp_path / kind
    if kind == "file.py":
        directory.write_bytes(b"x = 1\n")
    elif kind == "empty":
        directory.mkdir()
        (directory / "x.txt").touch()
    elif kind == "loop":
        directory.symlink_to(directory)
    code, out, err = demo(directory)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert repr(str(directory)) in err


def test_demo_reports_what_is_no_file(tree: Path) -> None:
    """What only has the name of a Python file is reported, and the others are done."""
    os.mkfifo(tree / "fifo.py")
    (tree / "directory.py").mkdir()
    (tree / "directory.py" / "inside.py").write_bytes(b"x = 1\n")
    (tree / "package" / "parent").symlink_to(tree)
    (tree / "itself.py").symlink_to("itself.py")
    (tree / "nothing.py").symlink_to("missing")
    code, out, err = demo(tree)
    assert (code, err) == (0, "")
    assert table(out)["files"] == "8"
    assert table(out)["unreadable"] == "3"
    assert "\n  'fifo.py': not a regular file\n" in out
    assert "\n  'itself.py': " in out
    assert "\n  'nothing.py': No such file or directory\n" in out


def test_demo_reports_what_is_forbidden(tree: Path) -> None:
    """Files and directories without permission are reported, and the others are done."""
    (tree / "good.py").chmod(0)
    (tree / "package").chmod(0)
    try:
        if os.access(tree / "good.py", os.R_OK):
            pytest.skip("this user may read everything")
        code, out, err = demo(tree)
    finally:
        (tree / "package").chmod(0o700)
    assert (code, err) == (0, "")
    assert table(out)["files"] == "3"
    assert table(out)["unreadable"] == "2"
    assert "\n  'good.py': Permission denied\n" in out
    assert "\n  'package': Permission denied\n" in out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_demo_prints_any_name(tree: Path, encoding: str) -> None:
    """A file can have any name; stdout need not be able to encode it."""
    for name in (b"\xff.py", "ü.py".encode(), b"line\nbreak.py"):
        (tree / os.fsdecode(name)).write_bytes(b"(")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    code, out, err = demo(tree, "--start-method", "spawn", env=environment)
    assert (code, err) == (0, "")
    assert table(out)["not tokenizable"] == "5"
    assert "\n  '\\udcff.py': TokenError: " in out
    assert "\n  'line\\nbreak.py': TokenError: " in out
    assert f"\n  '{'ü' if encoding == 'utf-8' else chr(92) + 'xfc'}.py': TokenError: " in out


@pytest.mark.parametrize("option", ["--help", "--workers=1"])
def test_demo_is_quiet_on_closed_pipe(tree: Path, option: str) -> None:
    """When nobody reads stdout any more, it ends as if by SIGPIPE, without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    # Unbuffered, argparse of Python 3.11 hides the error and exits with 0.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    code, _, err = demo(tree, option, stdout=writer, env=environment)
    os.close(writer)
    assert (code, err) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("ending", ["kill", "exit"])
@pytest.mark.parametrize("make", ["joinq", "stdlib"])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_run_reports_dead_worker(start_method: str, make: str, ending: str) -> None:
    """A worker that ends early, however it does, is reported and ends the run."""
    line = [sys.executable, "-c", DEADLY, start_method, make, ending]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    code, out, err = finish(process)
    assert (code, err) == (3, "")
    assert {"kill": "(killed by signal 9)", "exit": "(exit code 0)"}[ending] in out


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_demo_ends_with_its_workers(
    tree: Path,
    without_tqdm: dict[str, str],
    terminal: tuple[int, int],
    start_method: str,
    ending: signal.Signals,
) -> None:
    """Ctrl-C ends it at once and quietly; not even SIGKILL leaves a worker behind."""
    for name in ("long1.py", "long2.py"):
        (tree / name).write_bytes(LONG)
    ours, theirs = terminal
    options = {"stdout": theirs, "stderr": theirs, "env": without_tqdm}
    line = (tree, "--workers", 2, "--start-method", start_method)
    process = start(*line, start_new_session=True, **options)
    os.close(theirs)
    read_terminal(ours, b"joinq: 1/6")
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)  # As a terminal does: to all processes.
    else:
        process.send_signal(ending)
    rest = read_terminal(ours)
    assert "stdlib" not in rest
    assert "Traceback" not in rest
    expected = 128 + ending if ending == signal.SIGINT else -ending
    assert process.wait(LIMIT_S) == expected


def test_demo_shows_progress_as_text(tree: Path, without_tqdm: dict[str, str], terminal: tuple[int, int]) -> None:
    """Without tqdm, a terminal is shown done/total as plain text."""
    ours, theirs = terminal
    process = start(tree, stderr=theirs, stdout=subprocess.DEVNULL, env=without_tqdm)
    os.close(theirs)
    text = read_terminal(ours)
    assert process.wait(LIMIT_S) == 0
    for label in ("reading", "joinq", "stdlib"):
        assert f"\r{label}: 4/4\033[K\r\n" in text


def test_demo_shows_progress_with_tqdm(tree: Path, terminal: tuple[int, int]) -> None:
    """With tqdm, a terminal is shown its bar."""
    pytest.importorskip("tqdm")
    ours, theirs = terminal
    process = start(tree, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    text = read_terminal(ours)
    assert process.wait(LIMIT_S) == 0
    for label in ("reading", "joinq", "stdlib"):
        assert f"\r{label}: 100%|" in text


def test_command_needs_a_name() -> None:
    """Without a command, or with one that does not exist, the exit code is 2."""
    for arguments in ([], ["nonsense"]):
        with pytest.raises(SystemExit) as error:
            command.main(arguments)
        assert error.value.code == 2


def test_positive_reads_numbers() -> None:
    """A whole number from 1 up is taken, and nothing else."""
    assert command.positive("1") == 1
    assert command.positive("007") == 7
    for text in ("0", "+1", "1_0", " 1", "1e3"):
        with pytest.raises(ArgumentTypeError, match="whole number"):
            command.positive(text)


def test_find_takes_the_standard_library() -> None:
    """What the demo takes without DIR holds the modules, but not site-packages."""
    top = sysconfig.get_path("stdlib")
    paths, _ = _demo.find(top, _demo.NOT_STDLIB)
    assert os.path.join(top, "queue.py") in paths
    assert os.path.join(top, "multiprocessing", "queues.py") in paths
    assert not [path for path in paths if f"{os.sep}site-packages{os.sep}" in path]


def test_find_leaves_out_only_there(tmp_path: Path) -> None:
    """With a DIR of the user's, nothing is left out."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "x.py").touch()
    assert _demo.find(str(tmp_path)) == ([str(tmp_path / "site-packages" / "x.py")], [])
    assert _demo.find(str(tmp_path), _demo.NOT_STDLIB) == ([], [])


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "latin-1", "cp1252"])
def test_analyse_decodes(tmp_path: Path, coding: str) -> None:
    """A file is read in the encoding that it declares; its own bytes are hashed."""
    data = f"# coding: {coding}\nx = 'ü'\r\n".encode(coding)
    path = tmp_path / "x.py"
    path.write_bytes(data)
    digest = hashlib.sha256(data).digest()
    assert _demo.analyse(str(path)) == Result(str(path), len(data), 7, digest)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"# coding: klingon\n", "SyntaxError: unknown encoding: klingon"),
        (b"# coding: hex\n", "LookupError: "),
        (b"x = '\xff'\n", "SyntaxError: invalid or missing encoding declaration"),
        (b"\n\nx = '\xff'\n", "UnicodeDecodeError: "),
        (b"x = (\n", "TokenError: "),
        (b"if x:\n    y\n  z\n", "IndentationError: unindent does not match"),
    ],
)
def test_analyse_survives_bad_files(tmp_path: Path, data: bytes, problem: str) -> None:
    """A file that cannot be tokenized has no tokens, but size, digest and a reason."""
    path = tmp_path / "x.py"
    path.write_bytes(data)
    result = _demo.analyse(str(path))
    assert result[:4] == (str(path), len(data), 0, hashlib.sha256(data).digest())
    assert result.problem.startswith(problem)


def test_analyse_survives_vanished_file(tmp_path: Path) -> None:
    """A file that has vanished has a reason and nothing else."""
    path = str(tmp_path / "x.py")
    assert _demo.analyse(path) == Result(path, problem="No such file or directory")


def test_differing_compares_every_result() -> None:
    """Any change, loss or doubling of any result makes a difference, the order none."""
    a, b = Result("a", 1, 2, b"3"), Result("b", 1, 2, b"3")
    assert _demo.differing([a, b], [b, a]) == []
    assert _demo.differing([a, b], [a]) == [b]
    assert _demo.differing([a], [a, a]) == [a]
    assert _demo.differing([a], [b]) == [a, b]
    for change in ({"size": 0}, {"tokens": 0}, {"digest": b""}, {"problem": "x"}):
        assert len(_demo.differing([a, b], [a._replace(**change), b])) == 2


def test_listing_names_only_a_few() -> None:
    """A list of problems is sorted and short, and says how many it leaves out."""
    results = [Result(f"/top/{n}", problem="why") for n in range(8, 0, -1)]
    assert _demo.listing("Title", "/top", []) == ""
    assert _demo.listing("Title", "/top", results[-1:]) == "\nTitle:\n  '1': why\n"
    lines = _demo.listing("Title", "/top", results).splitlines()
    assert lines == [
        "",
        "Title:",
        *(f"  '{n}': why" for n in range(1, 6)),
        "  and 3 more",
    ]
