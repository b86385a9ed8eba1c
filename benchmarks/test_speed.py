"""
The scenarios as pytest-benchmark shows them: `pytest benchmarks [--quick] [--benchmark-json=F]`.

pytest-benchmark can time only what runs in its own process, and one contender after the other.
Here each figure comes from a fresh process, the rounds are interleaved, and starting processes
does not count. So the rounds of a scenario are measured first; then pytest-benchmark is given a
clock that the measured seconds advance. What it shows is seconds per item (per round trip, per
queue; for `idle` per second blocked), one round for each fresh process.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import contenders
import pytest
import report
import run
from scenarios import SCENARIOS

ABSENT = contenders.absent()
SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}
FIGURES = [(scenario.name, metric.name) for scenario in SCENARIOS for metric in scenario.metrics]
QUEUES = [
    pytest.param(name, marks=pytest.mark.skipif(name in ABSENT, reason=ABSENT.get(name, "")))
    for name in contenders.NAMES
]


class MeasuredClock:
    """A clock that stands still, but for the measured seconds that it is given."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def read(self) -> float:
        """Return the sum of all seconds so far."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let measured seconds pass."""
        self._now_s += seconds


CLOCK = MeasuredClock()


@functools.cache
def measured(scenario: str, quick: bool) -> list[report.Row]:
    """Run all rounds of a scenario, once for all tests that look at it."""
    present = [name for name in contenders.NAMES if name not in ABSENT]
    return report.rows(list(run.interleaved([SCENARIO[scenario]], present, quick)))


def row(config: pytest.Config, scenario: str, metric: str, queue: str) -> report.Row:
    """Return the row of one figure of one contender."""
    rows = measured(scenario, config.getoption("--quick"))
    return next(row for row in rows if (row["metric"], row["contender"]) == (metric, queue))


@pytest.mark.benchmark(timer=CLOCK.read)
@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(("scenario", "metric"), FIGURES)
def test_figure(benchmark: Any, pytestconfig: pytest.Config, scenario: str, metric: str, queue: str) -> None:
    """All items arrive, and this is how long it takes."""
    found = row(pytestconfig, scenario, metric, queue)
    benchmark.group = f"{scenario}, {metric}"
    benchmark.extra_info.update(found)
    figures = itertools.cycle(found["values"])
    benchmark.pedantic(lambda: CLOCK.advance(next(figures)), rounds=len(found["values"]))


@pytest.mark.skipif(contenders.OURS in ABSENT, reason=ABSENT.get(contenders.OURS, ""))
@pytest.mark.parametrize(("scenario", "metric"), FIGURES)
def test_target(pytestconfig: pytest.Config, scenario: str, metric: str) -> None:
    """Our queue reaches the target of every figure: times the stdlib, or share of a core."""
    failure = report.missed(row(pytestconfig, scenario, metric, contenders.OURS))
    assert not failure, failure
