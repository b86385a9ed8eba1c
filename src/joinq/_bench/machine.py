"""Where figures come from."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from joinq import available_cpu_count

QUIET = 0.5
"""A load average above it is worth a warning before any figure is believed."""


def describe() -> dict[str, Any]:
    """Describe the machine, what runs on it, and what is measured."""
    lines = _text("/proc/cpuinfo").splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": models[0] if models else platform.processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "usable_cpus": available_cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_before": os.getloadavg()[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in ("joinq", "cffi", "numpy")},
        "commit": _commit(),
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the commit that this file is from, or "" if it is installed from somewhere."""
    here = Path(__file__)
    try:
        if not _git(here.parent, "ls-files", here.name):
            return ""
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(directory: Path, *arguments: str) -> str:
    line = ["git", *arguments]
    return subprocess.run(line, cwd=directory, capture_output=True, text=True, check=True).stdout.strip()
