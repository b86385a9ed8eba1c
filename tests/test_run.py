"""`python -m joinq run`: a program runs as it does with Python alone, on our queues."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from probes import LIMIT

# What a program can find out about how it was started, and how it can end.
PROGRAM = '''
"""A program."""
import pickle
import re
import sys
class Local:
    pass
seen = {name: str(value) for name, value in sorted(globals().items()) if re.match("__[^bal]", name)}
print(sys.argv, sys.path[0], re.sub(" at 0x[0-9a-f]+", "", str(seen)), type(__loader__).__name__, __builtins__)
print(sys.modules["__main__"].__dict__ is globals(), type(pickle.loads(pickle.dumps(Local()))) is Local)
how = sys.argv[1] if len(sys.argv) > 1 else ""
if how == "raise":
    1 / 0
if how == "exit":
    sys.exit(3)
if how == "text":
    sys.exit("a message")
if how == "interrupt":
    raise KeyboardInterrupt
if how == "hook":
    sys.excepthook = lambda kind, error, trace: print("my hook", kind, trace.tb_lineno)
    1 / 0
if how == "pipe":
    raise BrokenPipeError("mine")
'''

# Its workers, a function of the main module, put instances of its classes on whatever queue multiprocessing makes.
WORKERS = """
import multiprocessing
import sys
context = multiprocessing.get_context(sys.argv[1])
made_at_import = context.Queue()
class Square:
    def __init__(self, task):
        self.square, self.module = task * task, type(made_at_import).__module__.split(".")[0]
def work(tasks, results):
    for task in iter(tasks.get, None):
        results.put(Square(task))
        tasks.task_done()
if __name__ == "__main__":
    tasks, results = context.JoinableQueue(), context.Queue()
    workers = [context.Process(target=work, args=(tasks, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for number in range(100):
        tasks.put(number)
    tasks.join()
    squares = [results.get() for _ in range(100)]
    for worker in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
    print(sum(one.square for one in squares), {one.module for one in squares})
"""


@pytest.fixture
def programs(tmp_path):
    """A directory with programs of every form."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "workers.py").write_text(WORKERS)
    (tmp_path / "syntax.py").write_text("x = 1\nx = = 2\ny = 3\n")
    for name, text in [("package", PROGRAM), ("broken", "import nothing_like_it")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "__main__.py").write_text(text)
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", PROGRAM)
    return tmp_path


def execute(directory, *command):
    """Run Python there, and return exit code, output, errors."""
    run = subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return run.returncode, run.stdout, run.stderr


def alike(text):
    """Leave out what is Python's own: its name, and its own frames above the program's."""
    text = re.sub(r"(?m)^(joinq|\S*python\S*): ", "", text)
    return re.sub(r'(?m)^  File ".*(runpy|importlib)[^"]*".*\n(    .*\n)*', "", text)


COMMANDS = [
    "program.py",
    "./program.py a --report -m x -- -h",
    "program.py raise",
    "program.py exit",
    "program.py text",
    "program.py interrupt",
    "program.py hook",
    "program.py pipe",
    "syntax.py",
    "nothing.py",
    "-m program raise",
    "-m package -m b",
    "-m package interrupt",
    "-m broken",
    "-m nothing",
    "-m package.nothing",
    "-m nothing.nothing",
    "-m email",
    "-m sys",
    "package exit",
    "program.zip raise",
    "empty",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_runs_as_with_python_alone(programs, command):
    """What it sees, what it says, how it ends, and what is said of it."""
    code, out, err = execute(programs, *command.split())
    assert (code, out, alike(err)) != (0, "", "")
    ours = execute(programs, "-m", "joinq", "run", *command.split())
    assert (ours[0], ours[1], alike(ours[2])) == (code, out, alike(err))
    assert "/joinq/" not in ours[2]


def test_another_directory_s_program_finds_its_modules(programs):
    """sys.path begins with where the program is, also behind a symbolic link."""
    (programs / "bin").mkdir()
    (programs / "bin" / "link").symlink_to("../program.py")
    for path in ["../program.py", "link"]:
        expected = execute(programs / "bin", path)
        assert expected[0] == 0
        assert execute(programs / "bin", "-m", "joinq", "run", path) == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 brought -P")
def test_a_safe_path_stays_safe(programs):
    """With -P, sys.path has neither the directory of the program nor the current one."""
    expected = execute(programs, "-P", "program.py")
    assert str(programs) not in expected[1].split("]")[1].split("{")[0]
    assert execute(programs, "-P", "-m", "joinq", "run", "program.py") == expected


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("form", ["workers.py", "-m workers"])
def test_it_uses_our_queues_in_all_its_processes(programs, form, method):
    """From the first line of its main module on, which its children find as well."""
    code, out, err = execute(programs, "-m", "joinq", "run", *form.split(), method)
    assert (code, out, err) == (0, "328350 {'joinq'}\n", "")


def test_a_program_must_be_named():
    """Otherwise it says how it is used."""
    code, out, err = execute(Path.cwd(), "-m", "joinq", "run")
    assert (code, out) == (2, "")
    assert "usage: python -m joinq run" in err
    assert "which program?" in err
