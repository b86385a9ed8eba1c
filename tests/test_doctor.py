"""`python -m joinq doctor`: what it finds, and that what fails is told and not raised."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest
from probes import LIMIT

from joinq import _doctor, _processes
from joinq.__main__ import main


def run(*options, before="pass"):
    line = f"import sys; from joinq.__main__ import main; {before}; sys.exit(main(['doctor', *sys.argv[1:]]))"
    command = [sys.executable, "-c", line, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_this_machine():
    """All is well where the tests run."""
    done = run("--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert found["passed"]
    assert {test["passed"] for test in found["self-test"].values()} == {True}
    assert found["machine"]["CPUs of this process"] == len(os.sched_getaffinity(0))
    assert found["machine"]["robust locks"]
    assert found["machine"]["memfd"] == (found["joinq uses"]["shared memory"] == "memfd")
    assert found["joinq uses"]["a waiter sleeps by"] in ("futex", "semaphore")
    assert found["versions"]["Python"] == sys.version.split()[0]


def test_text():
    """A line for each fact, and for each part of the self-test."""
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    titles = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert titles == ["versions", "machine", "joinq uses", "self-test"]
    assert done.stdout.count(" pass  ") == len(_doctor.trials())


def test_what_fails_is_told(monkeypatch, capsys):
    """With what went wrong; and the exit code is 1."""

    def fail():
        raise ValueError("a screw is loose")

    monkeypatch.setattr(_doctor, "trials", lambda: {"screws": fail})
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(" FAIL  ValueError: a screw is loose")
    assert main(["doctor", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]


def test_where_no_queue_can_be_made():
    """No file may have a byte: every part fails, and the reason is told."""
    done = run(before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))")
    assert (done.returncode, done.stderr) == (1, "")
    assert "no queue can be made: " in done.stdout
    assert " pass " not in done.stdout


def test_without_memfd(monkeypatch):
    """It says what is used instead."""

    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert not _doctor.machine()["memfd"].value
    assert _doctor.uses()["shared memory"].value == "an unlinked file"


def test_limits(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (which, resource.RLIM_INFINITY))
    assert _doctor._limit(5) == 5
    assert _doctor._limit(resource.RLIM_INFINITY) is None


@pytest.mark.parametrize(
    ("group", "mount", "files", "expected"),
    [
        ("0::/a/b", "cgroup2 x rw", {"a/b/memory.max": "max", "a/memory.max": "1000000"}, 1000000),
        ("0::/a/b", "cgroup2 x rw", {"a/b/memory.max": "max"}, None),
        ("4:memory:/a", "cgroup x rw,memory", {"a/memory.limit_in_bytes": "500", "memory.limit_in_bytes": "900"}, 500),
        ("4:memory:/a", "cgroup x rw,memory", {"a/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("4:cpu:/a", "cgroup x rw,memory", {"a/memory.limit_in_bytes": "500"}, None),
    ],
)
def test_memory_limit(tmp_path, monkeypatch, group, mount, files, expected):
    """The smallest of the groups around this process; what is beyond the machine's memory is none."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{group}\n")
    (tmp_path / "proc/self/mountinfo").write_text(f"1 2 0:3 / /cg rw - {mount}\n")
    for name, text in files.items():
        (tmp_path / "cg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cg" / name).write_text(f"{text}\n")
    monkeypatch.setattr(_processes, "_ROOT", str(tmp_path))
    assert _doctor._memory_limit(1 << 40) == expected


@pytest.mark.parametrize(
    ("options", "expected"), [("rw", "0"), ("rw,hidepid=2,gid=5", "2"), ("hidepid=invisible", "invisible")]
)
def test_hidepid(tmp_path, monkeypatch, options, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(f"1 2 0:3 / /proc rw - proc proc {options}\n")
    monkeypatch.setattr(_processes, "_ROOT", str(tmp_path))
    assert _doctor._hidepid() == expected
