"""The option of `pytest benchmarks`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick` and `--peers`, as `python -m joinq bench` has them."""
    parser.addoption("--quick", action="store_true", help="benchmarks: a tenth of the items")
    parser.addoption("--peers", action="store_true", help="benchmarks: also the other queues that are installed")
