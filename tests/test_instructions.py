"""How many instructions an operation takes: as many in each run, and no more than benchmarks/instructions.json says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "instructions.py"
spec = importlib.util.spec_from_file_location("instructions", SCRIPT)
instructions = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(instructions)


@pytest.fixture(scope="module")
def counted():
    """What the operations cost: of Python, and of the core alone."""
    try:
        return instructions.measure()
    except instructions.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def comparable(counted):
    """The recorded figures of both, and why there are none."""
    return instructions.comparable(counted[0])


def test_count_is_repeatable(counted):
    """Two runs give the same number, for every operation."""
    python, core = counted
    assert {f"{step} {kind}" for step in ("put", "get", "task_done") for kind in instructions.ITEMS} <= python.keys()
    assert {"core put int", "core get int", "core task_done int"} <= core.keys()
    assert min(cost.instructions for cost in (*python.values(), *core.values())) > 20
    assert not instructions.unsteady(python) + instructions.unsteady(core)


def test_core_takes_no_more_than_recorded(counted, comparable):
    """The core alone, made by the recorded compiler."""
    _, known, reasons = comparable
    if not known:
        pytest.skip("; ".join(reasons))
    assert known.keys() <= counted[1].keys()
    assert not instructions.regressions(counted[1], known, instructions.CORE_LIMIT)


def test_python_takes_no_more_than_recorded(counted, comparable):
    """The whole way, with the recorded interpreter."""
    known, _, reasons = comparable
    if not known:
        pytest.skip("; ".join(reasons))
    assert known.keys() <= counted[0].keys()
    assert not instructions.regressions(counted[0], known, instructions.LIMIT)
