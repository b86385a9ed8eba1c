"""The floors of joinq._bench: they are measured, or it is said why not."""

from __future__ import annotations

import shutil
import sys

import pytest

from joinq._bench import floors

FLOORS = [
    (floors.round_trip_s, 100),
    (floors.wake_s, 3),
    (floors.memcpy_s, 100),
    (floors.memcpy_s, 1 << 20),
    (floors.memcpy_fresh_s, 100),
    (floors.memcpy_fresh_s, 8 << 20),
    (floors.memcpy_parallel_s, 100),
    (floors.memcpy_parallel_s, 1 << 20),
]


@pytest.fixture
def fresh():
    """The program is compiled anew, in this test and in the next that needs it."""
    floors._program.cache_clear()
    yield
    floors._program.cache_clear()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="floors are measured on Linux only")
@pytest.mark.skipif(not any(map(shutil.which, ["cc", "gcc", "clang"])), reason="no C compiler")
@pytest.mark.parametrize(("floor", "number"), FLOORS)
def test_floor_is_measured(floor, number):
    """Each gives a time that is longer than nothing."""
    assert 1e-9 < floor(number) < 60


@pytest.mark.parametrize("floor", dict.fromkeys(floor for floor, _ in FLOORS))
def test_nothing_is_not_measured(floor):
    """What there is none of is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        floor(0)


@pytest.mark.parametrize(("compiler", "reason"), [("nonesuch -O2", "no C compiler"), ("false", "false failed")])
def test_without_a_compiler_floors_are_unavailable(fresh, monkeypatch, compiler, reason):
    """Where the program cannot be made, the reason is told."""
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(floors.Unavailable, match=reason):
        floors.wake_s(1)


def test_elsewhere_floors_are_unavailable(fresh, monkeypatch):
    """Other systems have no futexes."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(floors.Unavailable, match="darwin"):
        floors.round_trip_s(1)
