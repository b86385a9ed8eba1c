"""
The scenarios of `python -m joinq bench` as pytest-benchmark shows them:
`pytest benchmarks [--quick] [--peers] [--benchmark-json=F]`.

pytest-benchmark can time only what runs in its own process, and one contender after the other.
Here each figure comes from a fresh process, the rounds are interleaved, and starting processes
does not count. So the rounds of a scenario are measured first; then pytest-benchmark is given a
clock that the measured figures advance. What it shows is seconds per item (per round trip, per
queue; for `blocked` per second blocked, for `memory` bytes, for `killed` kills), one round for each
fresh process.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest

from joinq._bench import contenders, runner
from joinq._bench.rows import OWN, Row, condense, missed
from joinq._bench.scenarios import QUICK_ROUNDS, QUICK_SHARE, SCENARIOS

ABSENT = contenders.absent()
SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}
FIGURES = [(scenario.name, metric.name) for scenario in SCENARIOS for metric in scenario.metrics]


class MeasuredClock:
    """A clock that stands still, but for the measured figures that it is given."""

    def __init__(self) -> None:
        self._now = 0.0

    def read(self) -> float:
        """Return the sum of all figures so far."""
        return self._now

    def advance(self, figure: float) -> None:
        """Let a measured figure pass."""
        self._now += figure


CLOCK = MeasuredClock()


@functools.cache
def measured(name: str, quick: bool, peers: bool) -> list[Row]:
    """Run all rounds of a scenario, once for all tests that look at it."""
    share, rounds = (QUICK_SHARE, QUICK_ROUNDS) if quick else (1.0, 1.0)
    wanted = (contenders.BASELINE, contenders.OURS, *(contenders.PEERS if peers else ()))
    steps = runner.plan([SCENARIO[name].scaled(share, rounds)], [name for name in wanted if name not in ABSENT])
    return condense(filter(None, runner.measure_all(steps, share, "fork")))


def rows(config: pytest.Config, scenario: str, metric: str) -> list[Row]:
    """Return the rows of one figure."""
    found = measured(scenario, config.getoption("--quick"), config.getoption("--peers"))
    return [row for row in found if row["metric"] == metric]


@pytest.mark.benchmark(timer=CLOCK.read)
@pytest.mark.parametrize("contender", contenders.NAMES)
@pytest.mark.parametrize(("scenario", "metric"), FIGURES)
def test_figure(benchmark: Any, pytestconfig: pytest.Config, scenario: str, metric: str, contender: str) -> None:
    """All items arrive, and this is how long it takes."""
    found = next((row for row in rows(pytestconfig, scenario, metric) if row["contender"] == contender), None)
    if found is None or not found["values"]:
        pytest.skip(found["why"] if found else "it cannot do this, or was not asked for")
    benchmark.group = f"{scenario}, {metric}"
    benchmark.extra_info.update(found)
    figures = itertools.cycle(found["values"])
    benchmark.pedantic(lambda: CLOCK.advance(next(figures)), rounds=len(found["values"]))


@pytest.mark.parametrize(("scenario", "metric"), FIGURES)
def test_target(pytestconfig: pytest.Config, scenario: str, metric: str) -> None:
    """joinq reaches the targets of every figure."""
    failures = missed([row for row in rows(pytestconfig, scenario, metric) if row["role"] == OWN])
    assert not failures, "; ".join(failures)
