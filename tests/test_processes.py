"""
Process introspection and CPU counts.

Overrides are fixed when Python starts, so each of their cases runs a Python of its own.
Control groups are read from a tree that the test lays out under `tmp_path`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import connection
from pathlib import Path

import pytest

import joinq
from joinq import _processes

CONTEXTS = [multiprocessing.get_context(name) for name in multiprocessing.get_all_start_methods()]
each_context = pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.get_start_method())
COUNTS = "print(joinq.cpu_count(), joinq.process_cpu_count(), joinq.available_cpu_count())"


def run(*options, code=COUNTS, variable=None):
    """Run code in a new Python that knows where joinq is, even with -I."""
    place = str(Path(joinq.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_CPU_COUNT"}
    if variable is not None:
        environment["PYTHON_CPU_COUNT"] = variable
    start = f"import sys; sys.path.insert(0, {place!r}); import joinq\n"
    return subprocess.run(
        [sys.executable, *options, "-c", start + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def output(*options, **more):
    """Run code that must succeed; return what it prints."""
    done = run(*options, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Processes


def report(pipe):
    """In a child: say who this is, then wait for leave to go."""
    parent = joinq.parent_process()
    pipe.send(
        {
            "same": joinq.current_process() is multiprocessing.current_process()
            and parent is multiprocessing.parent_process(),
            "name": joinq.current_process().name,
            "pid": joinq.current_process().pid,
            "parent": (parent.name, parent.pid, parent.is_alive()),
            "children": joinq.active_children(),
        }
    )
    pipe.recv()


def outlive(pipe, ready):
    """In a grandchild: wait for the parent's death, then report it."""
    parent = joinq.parent_process()
    ready.send(None)
    parent.join()
    pipe.send(parent.is_alive())


def abandon(method, pipe):
    """In a child: start a grandchild and die at once."""
    context = multiprocessing.get_context(method)
    ready, ready_too = context.Pipe()
    context.Process(target=outlive, args=(pipe, ready_too)).start()
    ready.recv()
    os._exit(0)


@each_context
def test_processes_child_knows_itself_and_its_parent(context):
    """A child of any start method sees the processes that multiprocessing sees."""
    ours, theirs = context.Pipe()
    child = context.Process(target=report, args=(theirs,), name="a worker")
    child.start()
    seen = ours.recv()
    ours.send(None)
    child.join()
    me = joinq.current_process()
    assert seen == {
        "same": True,
        "name": "a worker",
        "pid": child.pid,
        "parent": (me.name, os.getpid(), True),
        "children": [],
    }


@each_context
def test_active_children_lists_the_living_and_joins_the_finished(context):
    """A child is listed until it ends, then it is joined."""
    ours, theirs = context.Pipe()
    child = context.Process(target=report, args=(theirs,))
    assert child not in joinq.active_children()
    child.start()
    ours.recv()
    assert child in joinq.active_children()
    ours.send(None)
    connection.wait([child.sentinel])
    if context.get_start_method() != "forkserver":
        # The sentinel closes a moment before the child can be waited for.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child not in joinq.active_children()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)
    assert child.exitcode == 0


@each_context
def test_active_children_agrees_with_multiprocessing(context):
    """Children of any start method are in the stdlib's list and in ours."""
    ours, theirs = context.Pipe()
    child = context.Process(target=report, args=(theirs,))
    child.start()
    assert set(joinq.active_children()) == set(multiprocessing.active_children())
    assert child in multiprocessing.active_children()
    ours.send(None)
    child.join()
    assert child not in joinq.active_children()


@each_context
def test_parent_process_outlives_the_parent(context):
    """After the parent's death its join() returns and its is_alive() is False."""
    ours, theirs = context.Pipe()
    child = context.Process(target=abandon, args=(context.get_start_method(), theirs))
    child.start()
    assert ours.recv() is False
    child.join()


def test_processes_main_process_has_no_parent():
    """A process that multiprocessing did not start is the main one, without parent."""
    code = "print(joinq.current_process().name, joinq.parent_process())"
    assert output(code=code) == "MainProcess None"


# CPU counts and their overrides


def test_cpu_count_is_the_machines():
    """Without an override the counts are those of the system."""
    code = "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))\n" + COUNTS
    system, ours = output(code=code).split("\n")
    assert ours.rpartition(" ")[0] == system
    _, usable, available = map(int, ours.split())
    assert 1 <= available <= usable


def test_introspection_can_take_the_place_of_the_stdlibs():
    """A program may put our functions into multiprocessing for all its modules."""
    code = (
        "import multiprocessing, joinq\n"
        "for name in ('active_children', 'cpu_count', 'current_process', 'parent_process'):\n"
        "    before = getattr(multiprocessing, name)()\n"
        "    setattr(multiprocessing, name, getattr(joinq, name))\n"
        "    assert getattr(multiprocessing, name)() == before, name\n"
    )
    done = run(code=code)
    assert done.returncode == 0, done.stderr


def test_process_cpu_count_follows_the_affinity():
    """Bound to one CPU, a process may use one, whatever the machine has."""
    bind = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    assert output(code=bind + COUNTS).split() == [output().split()[0], "1", "1"]


@pytest.mark.parametrize(
    ("options", "variable", "count"),
    [
        (["-X", "cpu_count=3"], None, 3),
        ([], "3", 3),
        (["-X", "cpu_count=5"], "3", 5),
        (["-X", "cpu_count=default"], "3", None),
        (["-X", "cpu_count=5"], "default", 5),
        ([], "default", None),
        ([], "", None),
        (["-E"], "3", None),
        (["-I"], "3", None),
        (["-E", "-X", "cpu_count=5"], "3", 5),
        (["-E"], "nonsense", None),
        (["-X", "cpu_count= +007"], None, 7),
        (["-X", "cpu_count=2147483647"], None, 2147483647),
    ],
)
def test_cpu_count_override_replaces_every_count(options, variable, count):
    """-X beats the variable, which -E and -I ignore; `default` is no override."""
    expected = output() if count is None else f"{count} {count} {count}"
    assert output(*options, variable=variable) == expected
    if sys.version_info >= (3, 13):
        code = "import os; print(os.cpu_count(), os.process_cpu_count())"
        native = output(*options, variable=variable, code=code)
        assert native == expected.rpartition(" ")[0]


@pytest.mark.parametrize("value", ["0", "-1", "nonsense", "3.5", "3 ", "3_0", "2147483648", "9" * 5000])
@pytest.mark.parametrize("source", ["-X cpu_count", "PYTHON_CPU_COUNT"])
def test_cpu_count_override_that_is_no_number_is_refused(source, value):
    """A bad override is an error that names it: ours, or from 3.13 on Python's own."""
    done = run(variable=value) if source == "PYTHON_CPU_COUNT" else run("-X", f"cpu_count={value}")
    assert done.returncode != 0
    assert "cpu_count" in done.stderr.lower()
    if sys.version_info < (3, 13):
        error = f"ValueError: {source}: {value!r} is not a number of CPUs; set one from"
        assert error in done.stderr


@pytest.mark.parametrize("option", ["cpu_count", "cpu_count="])
def test_cpu_count_override_without_a_number_is_refused(option):
    """-X cpu_count needs its number, though an empty variable is like none."""
    done = run("-X", option)
    assert done.returncode != 0
    assert "-X cpu_count" in done.stderr
    if sys.version_info < (3, 13):
        assert "ValueError: -X cpu_count: '' is not a number of CPUs" in done.stderr


def test_cpu_count_bad_variable_is_refused_even_if_overridden():
    """As in Python 3.13, a good -X cpu_count does not excuse a bad variable."""
    done = run("-X", "cpu_count=3", variable="nonsense")
    assert done.returncode != 0


def test_cpu_count_override_is_read_once():
    """A change of os.environ is for children; this process keeps its counts."""
    code = "import os; os.environ['PYTHON_CPU_COUNT'] = '7'\n" + COUNTS
    assert output(variable="3", code=code) == "3 3 3"


@pytest.mark.parametrize("name", ["cpu_count", "process_cpu_count", "available_cpu_count"])
def test_cpu_count_unknown_raises(name):
    """Where the system does not know its CPUs, the counts raise like the stdlib."""
    forget = "import os; os.cpu_count = lambda: None; del os.sched_getaffinity\n"
    done = run(code=f"{forget}joinq.{name}()")
    assert "\nNotImplementedError: cannot determine" in done.stderr


# Control groups

V2 = "0::/a/b"
V2_MOUNT = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "4:cpu,cpuacct:/a/b"
V1_MOUNT = "33 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """Return a function that lays out a system and says which limits are seen in it."""

    def lay_out_and_read(groups, mounts, files):
        files = {
            "proc/self/cgroup": groups,
            "proc/self/mountinfo": mounts,
            **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
        }
        for name, text in files.items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
        return _processes._cgroup_limits()

    monkeypatch.setattr(_processes, "_ROOT", str(tmp_path))
    return lay_out_and_read


def v1(group, quota, period=100000):
    """Return the files of a version 1 group."""
    place = f"cpu,cpuacct{group}"
    return {f"{place}/cpu.cfs_quota_us": quota, f"{place}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000", [2]),
        ("150000 100000", [2]),
        ("100001 100000", [2]),
        ("1000 100000", [1]),
        ("max 100000", []),
    ],
)
def test_cgroup_v2_quota_is_rounded_up(limits, text, expected):
    """cpu.max is quota and period; their ratio, rounded up, is the limit."""
    assert limits(V2, V2_MOUNT, {"a/b/cpu.max": text}) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        (200000, 100000, [2]),
        (125000, 50000, [3]),
        (1000, 100000, [1]),
        (-1, 100000, []),
    ],
)
def test_cgroup_v1_quota_is_rounded_up(limits, quota, period, expected):
    """cpu.cfs_quota_us / cpu.cfs_period_us, rounded up, is the limit; -1 is none."""
    assert limits(V1, V1_MOUNT, v1("/a/b", quota, period)) == expected


def test_cgroup_v2_every_ancestor_counts(limits):
    """The group, its parents and the root of the mount are read, innermost first."""
    files = {
        "a/b/cpu.max": "400000 100000",
        "a/cpu.max": "200000 100000",
        "cpu.max": "300000 100000",
        "a/other/cpu.max": "100000 100000",
    }
    assert limits(V2, V2_MOUNT, files) == [4, 2, 3]


def test_cgroup_v1_every_ancestor_counts(limits):
    """An ancestor without a limit, or with a tighter one, does not hide the others."""
    files = {**v1("/a/b", 400000), **v1("/a", -1), **v1("", 300000)}
    assert limits(V1, V1_MOUNT, files) == [4, 3]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (v1("/a/b", 300000), [3]),
        ({"unified/x/cpu.max": "500000 100000"}, [5]),
    ],
)
def test_cgroup_hybrid_reads_the_version_with_the_controller(limits, files, expected):
    """With both versions mounted, the one with the CPU controller is found."""
    groups = f"5:blkio:/a/b\n{V1}\n1:name=systemd:/x\n0::/x"
    mounts = (
        "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "32 25 0:28 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"
        f"{V1_MOUNT}"
    )
    assert limits(groups, mounts, files) == expected


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/docker/abc", "/"),  # the path of the host, which is not there
        ("/docker/abc", "/docker/abc"),  # the container's group is mounted as root
        ("/", "/docker/abc"),  # a mount made outside the namespace
        ("/../outside", "/"),  # a process moved in from outside the namespace
        ("/deep/er", "/.."),  # a mount above the namespace
    ],
)
def test_cgroup_container_falls_back_to_the_root_of_the_mount(limits, group, top):
    """Where the group's own directory is out of sight, the mount's root is read."""
    mount = f"30 20 0:26 {top} /sys/fs/cgroup rw - cgroup2 cgroup rw"
    files = {"cpu.max": "200000 100000", "../outside/cpu.max": "100000 100000"}
    assert limits(f"0::{group}", mount, files) == [2]


def test_cgroup_path_is_relative_to_the_mounted_group(limits):
    """Below a mounted subtree, the part of the path that it stands for is left out."""
    mount = "30 20 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw"
    files = {
        "job/cpu.max": "100000 100000",
        "docker/abc/job/cpu.max": "500000 100000",
        "cpu.max": "200000 100000",
    }
    assert limits("0::/docker/abc/job", mount, files) == [1, 2]


def test_cgroup_mounts_of_other_groups_are_not_ours(limits):
    """A mount of other groups is not read where there is one that shows ours."""
    mounts = (
        "28 20 0:26 /x /sys/fs/cgroup/1 rw - cgroup2 cgroup rw\n"
        "29 20 0:26 /a/b /sys/fs/cgroup/2 rw - cgroup2 cgroup rw\n"
        "30 20 0:26 /a/bc /sys/fs/cgroup/3 rw - cgroup2 cgroup rw"
    )
    files = {
        "1/cpu.max": "100000 100000",
        "2/cpu.max": "200000 100000",
        "3/cpu.max": "300000 100000",
    }
    assert limits("0::/a/bc", mounts, files) == [3]


def test_cgroup_mount_that_shows_most_ancestors_is_read(limits):
    """Of several mounts that show our group, the one nearest to the root counts."""
    mounts = (
        "28 20 0:26 /a/b /sys/fs/cgroup/1 rw - cgroup2 cgroup rw\n29 20 0:26 / /sys/fs/cgroup/2 rw - cgroup2 cgroup rw"
    )
    files = {"2/a/b/cpu.max": "300000 100000", "2/a/cpu.max": "200000 100000"}
    assert limits(V2, mounts, files) == [3, 2]


def test_cgroup_names_may_hold_colons_blanks_and_any_bytes(limits):
    """Colons and blanks in a name, and bytes that are no text, do not mislead."""
    mount = "30 20 0:26 /a\\040b\\134 /sys/fs/cgroup/x\\040y rw - cgroup2 cgroup rw"
    files = {"x y/c:d é/cpu.max": "300000 100000", "x y/cpu.max": "400000 100000"}
    assert limits("0::/a b\\/c:d é", mount, files) == [3, 4]
    assert limits(b"0::/a b\\/c:d \xff\n", mount, files) == [4]


@pytest.mark.parametrize("missing", ["groups", "mounts", "files", "all"])
def test_cgroup_missing_file_is_no_limit(limits, missing):
    """Without cgroup, mountinfo or the limit's own file there is no limit."""
    groups = None if missing in ("groups", "all") else f"{V1}\n{V2}"
    mounts = None if missing in ("mounts", "all") else f"{V1_MOUNT}\n{V2_MOUNT}"
    present = {**v1("/a/b", 100000), "a/b/cpu.max": "100000 100000"}
    files = {} if missing in ("files", "all") else present
    assert limits(groups, mounts, files) == []


@pytest.mark.parametrize(
    "text",
    ["", "1", "1 2 3", "x 1", "1.5 1", "1 0", "0 1", "-5 1", "9" * 5000, b"\xff\0 1"],
)
def test_cgroup_malformed_limit_is_no_limit(limits, text):
    """A limit that makes no sense is none, and does not hide that of the parent."""
    files = {"a/b/cpu.max": text, "a/cpu.max": "200000 100000"}
    assert limits(V2, V2_MOUNT, files) == [2]


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        ("", ""),
        ("nonsense", V2_MOUNT),
        ("0:", V2_MOUNT),
        (b"\xff\x00:::\x00", V2_MOUNT),
        (V2, "30 20 0:26 / /sys/fs/cgroup"),
        (V2, "30 20 0:26 - cgroup2 cgroup2 rw"),
        (V2, "- - - - - cgroup2 - -"),
        (V2, b"30 20 0:26 / /\x00/\xff rw - cgroup2 cgroup2 rw"),
        (V2, V2_MOUNT.replace("cgroup2", "tmpfs")),
        (V1, V1_MOUNT.replace("cpu", "memory")),
    ],
)
def test_cgroup_malformed_tables_are_no_limit(limits, groups, mounts):
    """Lines of /proc that make no sense are passed over."""
    files = {**v1("/a/b", 100000), "a/b/cpu.max": "100000 100000"}
    assert limits(groups, mounts, files) == []


def available(*options):
    """Return the counts that a new Python sees in the system that was laid out."""
    start = f"from joinq import _processes; _processes._ROOT = {_processes._ROOT!r}\n"
    return output(*options, code=start + COUNTS).split()


def test_available_cpu_count_is_the_smallest_limit(limits):
    """The tightest group limits this process, but never to less than one CPU."""
    limits(V2, V2_MOUNT, {"a/b/cpu.max": "900000 1", "a/cpu.max": "1000 100000"})
    assert available()[2] == "1"


def test_available_cpu_count_is_at_most_the_affinity(limits):
    """Groups that allow more than the affinity, or set no limit, change nothing."""
    limits(V2, V2_MOUNT, {"a/b/cpu.max": "900000 1", "a/cpu.max": "max 100000"})
    _, usable, count = available()
    assert count == usable


def test_available_cpu_count_override_wins(limits):
    """The user's number beats the limits of the groups."""
    assert limits(V2, V2_MOUNT, {"a/b/cpu.max": "100000 100000"}) == [1]
    assert available("-X", "cpu_count=6") == ["6", "6", "6"]
