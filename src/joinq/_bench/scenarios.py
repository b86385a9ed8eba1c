"""The scenarios: their only definition, for `python -m joinq bench` and for pytest-benchmark."""

from __future__ import annotations

from dataclasses import replace

from joinq._bench import limits
from joinq._bench.contenders import ALONE, ARRAY, BACKLOG, BATCHES, BYTES, IN_PLACE, READERS, REPLACES, SLEEPS, WRITERS
from joinq._bench.scenario import BYTES_EACH, KILLS, SHARE, Metric, Scenario
from joinq._bench.workloads.alone import backlog, creation, cycle, hand_over
from joinq._bench.workloads.kills import ITEM_BYTES, kills
from joinq._bench.workloads.latency import idle, round_trip, wake
from joinq._bench.workloads.streams import stream

QUICK_SHARE, QUICK_ROUNDS = 0.1, 0.4
"""A first look: a tenth of the items, and two rounds in place of five."""

_KIB, _MIB = 1 << 10, 1 << 20


def _needs(*needs: str) -> frozenset[str]:
    return frozenset(needs)


def _stream(producers: int, consumers: int, n: int, rounds: int = 5) -> Scenario:
    needs = _needs(*[WRITERS][: producers - 1], *[READERS][: consumers - 1])
    metric = Metric(faster=9 if producers == consumers == 1 else 8, ahead=True)
    return Scenario(
        f"stream {producers}x{consumers}",
        stream,
        n,
        (metric,),
        producers,
        consumers,
        rounds=rounds,
        needs=needs,
    )


def _batches(size: int) -> Scenario:
    metric = Metric(floors=((1.5, "one_list"),), ahead=True)
    return Scenario(
        f"batches of {size}",
        stream,
        1_000_000,
        (metric,),
        needs=_needs(BATCHES),
        floors=("one_list",),
        batch=size,
    )


def _bytes(label: str, size: int, n: int, maxsize: int = 0, floor: bool = False) -> Scenario:
    floors = ((1 / 0.6, limits.MEMCPY),) if floor else ()
    metric = Metric(faster=8, floors=floors, ahead=True)
    return Scenario(
        f"bytes {label}",
        stream,
        n,
        (metric,),
        kind=BYTES,
        item_bytes=size,
        maxsize=maxsize,
        floors=(*(limits.MEMCPY,) * floor, limits.PIPELINE),
    )


def _arrays(mib: int, n: int) -> tuple[Scenario, ...]:
    """Arrays of one size: only passed on, read by the receiver, made in place, and what passing that on costs alone."""
    passed = Scenario(
        f"array {mib} MiB",
        stream,
        n,
        (Metric(faster=1, ahead=True),),
        kind=ARRAY,
        item_bytes=mib * _MIB,
        maxsize=4,
        rounds=3,
    )
    in_place = replace(
        passed,
        name=f"array {mib} MiB, made in place",
        needs=_needs(IN_PLACE),
        in_place=True,
    )
    handed_over = replace(
        in_place,
        name=f"array {mib} MiB, handed over",
        run=hand_over,
        n=60,
        metrics=(Metric("p50", bound=20e-6),),
        consumers=0,
        maxsize=0,
        needs=_needs(IN_PLACE, ALONE),
        prompt=True,
    )
    return (
        passed,
        replace(passed, name=f"array {mib} MiB, summed", reads=True),
        in_place,
        handed_over,
    )


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "put+get+task_done",
        cycle,
        20_000,
        (Metric(faster=60, floors=((2.5, limits.PICKLE),)),),
        consumers=0,
        needs=_needs(ALONE),
        floors=(limits.PICKLE,),
        prompt=True,
    ),
    _stream(1, 1, 200_000),
    _stream(2, 2, 200_000),
    _stream(4, 4, 200_000),
    _stream(1, 8, 200_000),
    _stream(20, 20, 100_000, rounds=3),
    Scenario(
        "stream 1x1, both compute",
        stream,
        20_000,
        (Metric(faster=5),),
        computing=True,
        rounds=3,
    ),
    _batches(100),
    _batches(1000),
    Scenario(
        "round trip",
        round_trip,
        5_000,
        (
            Metric("p50", faster=20, floors=((1, limits.PICKLE), (2, limits.PING_PONG)), ahead=True),
            Metric("p99", faster=1),
        ),
        floors=(limits.PICKLE, limits.PING_PONG),
        prompt=True,
    ),
    Scenario(
        "wake-up",
        wake,
        30,
        (Metric("p50", faster=1, floors=((1.3, limits.WAKE),)),),
        rounds=3,
        needs=_needs(SLEEPS),
        floors=(limits.WAKE, "semaphore"),
        prompt=True,
    ),
    _bytes("1 KiB", _KIB, 100_000),
    _bytes("16 KiB", 16 * _KIB, 40_000),
    _bytes("256 KiB", 256 * _KIB, 3_000, maxsize=64, floor=True),
    _bytes("4 MiB", 4 * _MIB, 100, maxsize=4, floor=True),
    replace(_bytes("4 MiB, no limit", 4 * _MIB, 100), metrics=(Metric(faster=8),), needs=_needs(BACKLOG)),
    replace(_bytes("64 MiB", 64 * _MIB, 30, maxsize=4), rounds=3, floors=(limits.PIPELINE, limits.FRESH)),
    *_arrays(1, 300),
    *_arrays(8, 100),
    *_arrays(64, 30),
    Scenario(
        "backlog",
        backlog,
        1_000_000,
        (
            Metric(faster=5),
            Metric("memory while full", BYTES_EACH, bound=100),
            Metric("memory after", BYTES_EACH, bound=10),
        ),
        consumers=0,
        rounds=3,
        needs=_needs(BACKLOG, ALONE),
        backlog=1_000_000,
    ),
    Scenario(
        "creation",
        creation,
        200,
        (Metric("create", faster=1), Metric("first item", faster=1)),
        consumers=0,
        needs=_needs(ALONE),
        prompt=True,
    ),
    Scenario(
        "blocked",
        idle,
        10,
        (Metric("get", SHARE, bound=0.001), Metric("join", SHARE, bound=0.001)),
        rounds=2,
        needs=_needs(SLEEPS),
        prompt=True,
    ),
    Scenario(
        "killed",
        kills,
        50,
        (Metric("in put", KILLS, bound=50), Metric("in get", KILLS, bound=50)),
        item_bytes=ITEM_BYTES,
        maxsize=64,
        rounds=1,
        needs=_needs(REPLACES),
        prompt=True,
    ),
)
