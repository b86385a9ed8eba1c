"""What a scenario is: a workload, its size, what it measures, and what joinq has to reach."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, NamedTuple

from joinq._bench.contenders import OBJECT, Contender, Demand

SECONDS, SHARE, BYTES_EACH, KILLS = "s", "share of a core", "bytes", "kills"
"""The units of figures. Of kills more is better, of all others less."""


@dataclass(frozen=True)
class Metric:
    """
    One figure of a scenario, with the targets that joinq has to reach.

    Attributes:
        name: Unique within the scenario.
        unit: One of the units above.
        faster: How many times the stdlib's figure must be greater. 1: ours is not the slower one.
        bound: An absolute limit: at most (of kills: at least).
        floors: Pairs of a factor and the name of a floor, measured in the same run: their sum is a limit, too.
        ahead: No peer that delivers items one by one may be faster.
    """

    name: str = "per item"
    unit: str = SECONDS
    faster: float | None = None
    bound: float | None = None
    floors: tuple[tuple[float, str], ...] = ()
    ahead: bool = False


class Outcome(NamedTuple):
    """What one measurement found: figures by the names of metrics, and perhaps a few words on them."""

    figures: dict[str, float]
    notes: dict[str, str] = {}  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class Scenario:
    """
    One workload.

    Attributes:
        name: What tables show and `--only` selects by.
        run: Measures one contender, in a process that did nothing else before.
        n: Items, round trips, queues, kills or seconds; `run` says which.
        metrics: The figures that `run` returns, by name.
        producers: Processes that put; the measuring process is the first of them.
        consumers: Processes that get; 0: one process does both.
        kind: Of the items.
        item_bytes: Size of each item; of ints, the room that their pickle needs.
        maxsize: Of the queue, in items.
        rounds: Fresh processes for each contender.
        needs: What a contender must be able to do, besides the kind of items.
        floors: What is measured beside the contenders: names of `limits` and of `contenders.FLOORS`.
        batch: Items that are put, and got, at a time.
        prompt: Each item is waited for.
        computing: Every process has another thread, which computes.
        reads: The reader of an array sums it up.
        in_place: Arrays are made in the memory of the queue, if it can do that.
        backlog: Items that wait in the queue at the same time.
    """

    name: str
    run: Callable[[Contender, Scenario], Outcome]
    n: int
    metrics: tuple[Metric, ...] = (Metric(),)
    producers: int = 1
    consumers: int = 1
    kind: str = OBJECT
    item_bytes: int = 32
    maxsize: int = 0
    rounds: int = 5
    needs: frozenset[str] = field(default=frozenset())
    floors: tuple[str, ...] = ()
    batch: int = 0
    prompt: bool = False
    computing: bool = False
    reads: bool = False
    in_place: bool = False
    backlog: int = 0

    def scaled(self, share: float, rounds: float) -> Scenario:
        """Return the same workload with a share of the items, and of the rounds, of which one is left at least."""
        number = max(1, self.batch, self.producers, round(self.n * share))
        backlog = number if self.backlog else 0
        return replace(self, n=number, rounds=max(1, int(rounds * self.rounds)), backlog=backlog)

    def demand(self) -> Demand:
        """Return what this wants of a queue."""
        return Demand(self.kind, self.item_bytes, self.maxsize, self.backlog, self.prompt, self.consumers)

    def takes(self, contender: Contender) -> bool:
        """Return whether a contender can do this."""
        return self.needs | {self.kind} <= contender.can
