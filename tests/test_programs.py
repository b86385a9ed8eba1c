"""Real programs, unchanged: the same output under `python -m joinq run` as without.

Each makes multiprocessing's queues in another way:

    doit          two Queues, between its workers and the main process (its usual reporter mingles lines of the two)
    luigi         one Queue, to which every task's process reports
    mpire         JoinableQueues, with join(); the program is a script that uses it
    pylint        a ProcessPoolExecutor, and so a SimpleQueue
    segment_wiki  (of gensim) a Pool, and so SimpleQueues

`pip install joinq[programs]` brings them; those that are missing are skipped.
"""

from __future__ import annotations

import bz2
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from probes import LIMIT

pytestmark = pytest.mark.slow

DODO = """
PARTS = [f"part{number}" for number in range(12)]

def write(name):
    with open(name, "w") as file:
        file.write(name * 3)

def collect(targets):
    with open(targets[0], "w") as file:
        file.writelines(open(name).read() for name in PARTS)
    print("collected")

def task_part():
    for name in PARTS:
        yield {"name": name, "actions": [(write, [name])], "targets": [name]}

def task_all():
    return {"actions": [collect], "file_dep": PARTS, "targets": ["all"], "verbosity": 2}
"""

CHAIN = """
import luigi

class Part(luigi.Task):
    number = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(f"part{self.number}")

    def run(self):
        with self.output().open("w") as file:
            file.write(str(self.number))

class Total(luigi.Task):
    def requires(self):
        return [Part(number) for number in range(12)]

    def output(self):
        return luigi.LocalTarget("total")

    def run(self):
        total = 0
        for part in self.input():
            with part.open() as file:
                total += int(file.read())
        with self.output().open("w") as file:
            file.write(str(total))
"""

SQUARES = """
import sys
from mpire import WorkerPool

def square(number):
    return number * number

if __name__ == "__main__":
    with WorkerPool(n_jobs=2, start_method=sys.argv[1]) as pool:
        print(pool.map(square, range(1000), chunk_size=10))
        print(sorted(pool.imap_unordered(square, range(50))))
"""

UNTIDY = """
import os, {0}
def function_{0}(argument):
    unused = 1
    return undefined_{0}
"""

PAGE = """<page><title>Page {0}</title><ns>0</ns><id>{0}</id><revision><id>{0}</id><text>{1}
== Section {0} ==
{1}</text></revision></page>
"""


def dump():
    """A small dump of a wiki."""
    pages = "".join(PAGE.format(number, f"Some words about {number}. " * 20) for number in range(200))
    return bz2.compress(f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'.encode())


MODULES = [f"module{number}.py" for number in range(6)]

# The package, the command, the files that it works on, and the lines of stderr that are no pids, times or temperament.
PROGRAMS = {
    "doit": ("doit", "-m doit -n 2 -r zero", {"dodo.py": DODO}, ".*"),
    "luigi": (
        "luigi",
        "-m luigi --module chain Total --local-scheduler --workers 2",
        {"chain.py": CHAIN},
        r" *[*-] .*",
    ),
    "mpire-fork": ("mpire", "squares.py fork", {"squares.py": SQUARES}, ".*"),
    "mpire-spawn": ("mpire", "squares.py spawn", {"squares.py": SQUARES}, ".*"),
    "mpire-forkserver": ("mpire", "squares.py forkserver", {"squares.py": SQUARES}, ".*"),
    "pylint": (
        "pylint",
        f"-m pylint -j2 --persistent=n {' '.join(MODULES)}",
        {name: UNTIDY.format(name[:-3]) for name in MODULES},
        ".*",
    ),
    "segment_wiki": (
        "gensim",
        "-m gensim.scripts.segment_wiki -w 2 -f dump.xml.bz2 -o articles.json",
        {"dump.xml.bz2": dump()},
        "(?!.*INFO).*",
    ),
}


def execute(directory, command, inputs):
    """Run a command in a new directory with these files; return exit code, stdout, stderr and the files it made."""
    directory.mkdir()
    for name, content in inputs.items():
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    run = subprocess.run(
        [sys.executable, *command.split()],
        cwd=directory,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    made = {path.name: path.read_bytes() for path in Path(directory).iterdir() if path.name not in inputs}
    return run.returncode, run.stdout, run.stderr, {name: made[name] for name in made if "db" not in name}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_same_output(tmp_path, name):
    """Lines are compared sorted, because which of two workers is first is nobody's promise."""
    package, command, inputs, lasting = PROGRAMS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (pip install joinq[programs])")
    code, out, err, made = execute(tmp_path / "stdlib", command, inputs)
    assert out + "".join(made)
    code_, out_, err_, made_ = execute(tmp_path / "joinq", f"-m joinq run --report {command}", inputs)
    err_, report = err_.split("joinq: the queues of this program\n")
    assert code_ == code
    assert sorted(out_.splitlines()) == sorted(out.splitlines())
    assert made_ == made

    def said(text):
        return sorted(line for line in text.splitlines() if re.fullmatch(lasting, line))

    assert said(err_) == said(err)
    rows = [line.split() for line in report.splitlines()[1:]]
    assert all(row[3] != "0" for row in rows), report  # every queue was used
