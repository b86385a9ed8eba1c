"""The option of `pytest benchmarks` and what it needs to import the modules beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # whatever import mode the project chose


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick`, as `run.py` has it."""
    parser.addoption("--quick", action="store_true", help="benchmarks: a tenth of the items")
