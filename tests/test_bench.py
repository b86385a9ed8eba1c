"""
`python -m joinq bench`: its command line, what it writes, and its verdicts. No figure is judged here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from joinq import _command
from joinq._bench import contenders, limits, page, runner, table
from joinq._bench.contenders import BASELINE, OURS
from joinq._bench.rows import Row, condense, losses, missed
from joinq._bench.runner import Run
from joinq._bench.scenario import KILLS, Metric, Outcome, Scenario
from joinq._bench.scenarios import SCENARIOS
from joinq._bench.text import figure, times

LIMIT_S = 120
"""A command that takes longer hangs: those here take some seconds."""

TINY = ("--share", 0.001)
"""One round with a thousandth of the items."""

MODULES = {
    "faster_fifo": "faster_fifo",
    "quick_queue": "quick_queue",
    "cloudtoid": "cloudtoid_interprocess",
    "kickmsg": "kickmsg",
    "zeroq": "zeroq",
    "pyzmq": "zmq",
    "iceoryx2": "iceoryx2",
    "shmqueue3": "shmqueue3",
    "arrayqueues": "arrayqueues",
    "py_sharedmemory": "py_sharedmemory",
}
"""What the contenders import that are no part of the standard library."""

BROKEN = """
class Queue:
    def __init__(self, name, *_, **__):
        self.close = int
        self.get = int
    def put(self, item):
        {}
"""
"""A package that can be imported in place of zeroq."""

NAMESPACE = "{http://www.w3.org/1999/xhtml}"


def bench(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Run the command, and return the exit code and what it wrote to stdout and stderr."""
    line = [sys.executable, "-m", "joinq", "bench", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def quiet(err: str) -> str:
    """Return what is on stderr but for the warning of a busy machine."""
    return "".join(line for line in err.splitlines(True) if not line.startswith("load "))


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules children of this process import first."""
    path = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return tmp_path


def workload(contender: Any, scenario: Scenario) -> Outcome:
    """Does nothing."""
    raise AssertionError


def report_of(figures: dict[str, Sequence[float]], metric: Metric, **run: Any) -> list[Row]:
    """Return the rows that follow from the figures of some contenders."""
    scenario = Scenario("work", workload, 50, (metric,), floors=(limits.PICKLE,))
    rounds = [(name, value) for name, values in figures.items() for value in values]
    return condense(Run(name, scenario, {metric.name: value}, {}, **run) for name, value in rounds)


def met(rows: Sequence[Row]) -> list[bool | None]:
    """Return the verdicts on joinq's targets."""
    return [target["met"] for row in rows if row["contender"] == OURS for target in row["targets"]]


def test_bench_writes_what_it_shows(tmp_path: Path) -> None:
    """The table, the JSON file, the page and the chart hold the same rows, and the page the machine."""
    files = {kind: tmp_path / f"bench.{kind}" for kind in ("json", "html", "svg")}
    options = [text for kind, path in files.items() for text in (f"--{kind}", path)]
    code, out, err = bench("--only", "put+get", "--only", "creation", *TINY, *options)
    assert (code, quiet(err)) == (0, "")
    report = json.loads(files["json"].read_text())
    rows = report["rows"]
    assert {(row["scenario"], row["metric"], row["label"]) for row in rows} == {
        ("put+get+task_done", "per item", "stdlib"),
        ("put+get+task_done", "per item", "joinq"),
        ("put+get+task_done", "per item", "pickle alone"),
        *(("creation", metric, label) for metric in ("create", "first item") for label in ("stdlib", "joinq")),
    }
    shown = "".join(ElementTree.fromstring(files["html"].read_text()).itertext())
    for row in rows:
        assert row["n"] == 20 if row["scenario"] == "put+get+task_done" else 1
        assert row["min"] <= row["median"] <= row["max"]
        for text in (row["label"], figure(row["median"], row["unit"])):
            assert text in out
            assert text in shown
    where = report["machine"]
    for text in (where["processor"], where["kernel"], where["python"], where["packages"]["joinq"], where["date"]):
        assert text in shown
    for line in [*losses(rows), *missed(rows)]:
        assert line in out
        assert line in shown
    chart = ElementTree.fromstring(files["svg"].read_text())
    assert "put+get+task_done" in "".join(chart.itertext())


def test_bench_page_needs_nothing_else(tmp_path: Path) -> None:
    """The page has no scripts and refers to no other place."""
    assert bench("--only", "put+get", *TINY, "--html", tmp_path / "f")[0] == 0
    for element in ElementTree.fromstring((tmp_path / "f").read_text()).iter():
        assert element.tag != f"{NAMESPACE}script"
        assert not {"src", "href"} & element.attrib.keys()
    assert "url(" not in (tmp_path / "f").read_text()


def test_bench_shows_a_file_again(tmp_path: Path) -> None:
    """--from measures nothing, and shows the same as when the file was written."""
    _, out, _ = bench("--only", "put+get", *TINY, "--json", tmp_path / "a")
    assert bench("--from", tmp_path / "a", "--json", tmp_path / "b") == (0, out, "")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "nonsense"), "no scenario's name holds 'nonsense'; there are: put+get+task_done, "),
        (("--json", "missing/f"), "cannot write 'missing/f': No such file or directory"),
        (("--html", "."), "cannot write '.': Is a directory"),
        (("--from", "missing"), "cannot show 'missing': "),
        (("--from", "other.json"), "cannot show 'other.json': it was made by another version"),
        (("--from", "text"), "cannot show 'text': "),
    ],
)
def test_bench_refuses(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    """What cannot be done is named in one line on stderr before anything is measured, and the exit code is 2."""
    (tmp_path / "other.json").write_text('{"format": 1}')
    (tmp_path / "text").write_text("no JSON")
    code, out, err = bench(*arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"joinq: {complaint}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["--share=x", "--start-method=x", "--x"])
def test_bench_refuses_bad_options(option: str) -> None:
    """Bad usage is explained, and the exit code is 2."""
    code, out, err = bench(option)
    assert (code, out) == (2, "")
    assert "usage: python -m joinq" in err


def test_bench_names_absent_peers(replaced: Path) -> None:
    """With --peers, what is not installed is named: on stderr, in the JSON file and on the page."""
    for module in MODULES.values():
        (replaced / f"{module}.py").write_text("raise ImportError('not for this test')\n")
    files = replaced / "f.json", replaced / "f.html"
    code, _, err = bench("--peers", "--only", "put+get", *TINY, "--json", files[0], "--html", files[1])
    assert code == 0
    assert set(quiet(err).splitlines()) == {f"{name} is absent: not for this test" for name in MODULES}
    report = json.loads(files[0].read_text())
    assert report["absent"] == dict.fromkeys(MODULES, "not for this test")
    assert "zeroq: not for this test" in "".join(ElementTree.fromstring(files[1].read_text()).itertext())
    assert [row["label"] for row in report["rows"]] == [
        *("stdlib", "joinq", "mp.Queue", "SimpleQueue", "Pipe", "pickle alone"),
    ]


def test_bench_survives_a_failing_peer(replaced: Path) -> None:
    """A peer that fails is a row that says why, its stacks are shown, and the others are measured."""
    (replaced / "zeroq.py").write_text(BROKEN.format("raise ValueError('broken')"))
    code, out, err = bench("--peers", "--only", "put+get", *TINY, "--json", replaced / "f")
    assert code == 0
    row = next(row for row in json.loads((replaced / "f").read_text())["rows"] if row["label"] == "zeroq")
    assert (row["median"], row["failed"], row["why"]) == (None, True, "exit status 1: ValueError: broken")
    assert row["why"] in out
    assert "in put" in err


def test_measure_ends_what_hangs(
    replaced: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A measurement that hangs is ended with all of its processes, and their stacks are shown."""
    (replaced / "zeroq.py").write_text(BROKEN.format("__import__('time').sleep(1000)"))
    monkeypatch.setattr(runner, "LIMIT_S", 2)
    cycle = SCENARIOS[0]
    run = runner.measure("zeroq", cycle, 0.001, "fork")
    assert run.failure.startswith("hung for 2 s")
    assert not run.figures
    assert "Stacks of process" in capfd.readouterr().err


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_measures_joinq(scenario: Scenario) -> None:
    """Every scenario gives all of its figures for joinq, unless something is not there."""
    run = runner.measure(OURS, scenario, 0.0001, "fork")
    assert not run.failure
    if not run.unavailable:
        assert run.figures.keys() == {metric.name for metric in scenario.metrics}
        assert all(value >= 0 for value in run.figures.values())


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
@pytest.mark.parametrize("name", [BASELINE, OURS, "queue", "simple_queue", "pipe"])
def test_contenders_with_every_start_method(name: str, start_method: str) -> None:
    """The queues of the standard library and ours can be measured with each start method."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "stream 1x1")
    assert runner.measure(name, scenario, 0.0001, start_method).figures["per item"] > 0


@pytest.mark.parametrize("name", MODULES)
def test_every_peer_carries_items(name: str) -> None:
    """Every peer that is installed can be measured with the first scenario that it takes part in."""
    try:
        contender = contenders.load(name)
    except ImportError as error:
        pytest.skip(str(error))
    scenario = next(scenario for scenario in SCENARIOS if scenario.takes(contender))
    run = runner.measure(name, scenario, 0.0001, "fork")
    assert run.figures, run


def test_plan_interleaves_rounds() -> None:
    """In each round of a scenario, one contender follows the other, floors last."""
    cycle = SCENARIOS[0].scaled(1, 0.4)
    steps = [(step.round, step.contender) for step in runner.plan([cycle], [BASELINE, OURS, "shmqueue3"][:2])]
    assert steps == [(number, name) for number in (0, 1) for name in (BASELINE, OURS, limits.PICKLE)]


def test_stdlib_and_joinq_can_do_everything() -> None:
    """No scenario asks for something that the two that are always compared cannot do."""
    for scenario in SCENARIOS:
        assert scenario.takes(contenders.load(BASELINE))
        assert scenario.takes(contenders.load(OURS))


def test_names_are_unique() -> None:
    """Scenarios can be told apart by name, and their metrics, too."""
    names = [(scenario.name, metric.name) for scenario in SCENARIOS for metric in scenario.metrics]
    assert len(names) == len(set(names))


def test_rows_condense_rounds() -> None:
    """A row has median, minimum and maximum of all rounds, and the ratio of the medians."""
    rows = report_of({BASELINE: [9.0, 1.0, 8.0], OURS: [4.0, 2.0, 1.0]}, Metric(faster=4))
    assert [(row["median"], row["min"], row["max"], row["ratio"]) for row in rows] == [(8, 1, 9, 1), (2, 1, 4, 4)]
    assert met(rows) == [True]
    assert missed(rows) == []


def test_losses_are_listed(tmp_path: Path) -> None:
    """Where another queue is faster, the report says so, the fastest first, also if no target is missed."""
    rows = report_of({BASELINE: [1.0], OURS: [2.0, 2.5], "queue": [3.0], "pipe": [0.5, 2.0]}, Metric())
    assert losses(rows) == ["work: joinq 2.25 s, stdlib 1 s, Pipe 1.25 s (spans overlap)"]
    assert missed(rows) == []
    assert losses(rows)[0] in table.render(rows)
    data = {"format": 2, "share": 1, "start_method": "fork", "absent": {}, "rows": rows}
    where = {"processor": "x<y", "machine": "", "usable_cpus": 1, "cpus": 2, "memory_bytes": 0, "kernel": ""}
    where.update(load_before=0.0, python="", packages={}, commit="", date="")
    html = page.render({**data, "machine": where})
    shown = [item.text for item in ElementTree.fromstring(html).iter(f"{NAMESPACE}li")]
    assert shown == losses(rows)


def test_missed_targets_are_listed_and_checked(tmp_path: Path) -> None:
    """A missed target is listed, and is what --check fails for."""
    rows = report_of({BASELINE: [6.0], OURS: [2.0], "queue": [1.0]}, Metric(faster=4, bound=1.5, ahead=True))
    assert missed(rows) == [
        "work: 4x the stdlib demanded, found 3x",
        "work: at most 1.5 s demanded, found 2 s",
        "work: no peer ahead demanded, found mp.Queue ahead",
    ]
    file = tmp_path / "f"
    file.write_text(json.dumps({"format": 2, "share": 1, "start_method": "fork", "absent": {}, "rows": rows}))
    report = json.loads(file.read_text())
    where = {"processor": "", "machine": "", "usable_cpus": 1, "cpus": 2, "memory_bytes": 0, "kernel": ""}
    where.update(load_before=0.0, python="", packages={}, commit="", date="")
    file.write_text(json.dumps({**report, "machine": where}))
    assert bench("--from", file)[0] == 0
    code, out, _ = bench("--from", file, "--check")
    assert code == 1
    assert "  work: 4x the stdlib demanded, found 3x\n" in out


def test_floors_are_added_up() -> None:
    """A target that refers to floors is the sum of their figures times their factors."""
    metric = Metric(floors=((2, limits.PICKLE), (1, "one_list")))
    assert met(report_of({OURS: [5.0], limits.PICKLE: [2.0], "one_list": [1.0]}, metric)) == [True]
    assert met(report_of({OURS: [5.1], limits.PICKLE: [2.0], "one_list": [1.0]}, metric)) == [False]
    assert met(report_of({OURS: [5.0], limits.PICKLE: [2.0]}, metric)) == [None]


def test_floors_in_c_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The floors in C stand for the first metric of their scenario; what they say they cannot do is no failure."""
    from joinq import _bench

    floors: Any = types.ModuleType("joinq._bench.floors")
    floors.Unavailable = type("Unavailable", (Exception,), {})
    floors.memcpy_s = lambda size: size * 1e-9
    floors.memcpy_parallel_s = floors.memcpy_fresh_s = lambda size: size * 2e-9
    floors.round_trip_s = lambda n: n * 1e-6

    def wake_s(n: int) -> float:
        raise floors.Unavailable("no compiler")

    floors.wake_s = wake_s
    monkeypatch.setitem(sys.modules, "joinq._bench.floors", floors)
    monkeypatch.setattr(_bench, "floors", floors, raising=False)
    scenario = {scenario.name: scenario for scenario in SCENARIOS}
    assert limits.measure(limits.MEMCPY, scenario["bytes 256 KiB"]).figures == {"per item": (256 << 10) * 1e-9}
    assert limits.measure(limits.FRESH, scenario["bytes 64 MiB"]).figures == {"per item": (64 << 20) * 2e-9}
    assert limits.measure(limits.PING_PONG, scenario["round trip"]).figures == {"p50": 5000 * 1e-6}
    with pytest.raises(contenders.Unavailable, match="no compiler"):
        limits.measure(limits.WAKE, scenario["wake-up"])


def test_more_kills_are_better() -> None:
    """Of kills, the greater number is the better one."""
    metric = Metric("in put", KILLS, bound=50)
    assert met(report_of({OURS: [50.0]}, metric)) == [True]
    rows = report_of({OURS: [49.0], "queue": [50.0], "pipe": [1.0]}, metric)
    assert met(rows) == [False]
    assert losses(rows) == ["work, in put: joinq 49 kills, mp.Queue 50 kills"]


def test_what_was_not_measured_is_missed() -> None:
    """Without a figure of ours, no target is met: neither if we failed, nor if we were left out."""
    rows = report_of({OURS: [1.0]}, Metric(faster=2), failure="exit status 1: ouch")
    assert missed(rows) == ["work: exit status 1: ouch"]
    assert missed(report_of({BASELINE: [1.0]}, Metric(faster=2))) == ["joinq was not measured"]


def test_figures_are_readable() -> None:
    """Figures have three digits and a unit that suits them."""
    assert [figure(value, "s") for value in (12.0, 0.0123456, 1.5e-6, 2.34e-7, None)] == [
        *("12 s", "12.3 ms", "1.5 us", "234 ns", "-"),
    ]
    assert figure(0.00042, "share of a core") == "0.042%"
    assert [times(ratio) for ratio in (0.5, 9.876, 1234.5)] == ["0.5x", "9.88x", "1,234x"]


def test_progress_names_the_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tqdm, a terminal is told what is being done, and how far that is; nothing else is told anything."""
    with _command.progress("first", 2) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with _command.progress("first", 2) as bar:
        bar.update()
        bar.set_description("second")
        bar.update()
    assert capsys.readouterr().err == "\rfirst: 1/2\033[K\rsecond: 2/2\033[K\n"
