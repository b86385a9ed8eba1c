"""
One measurement, in the process that this starts: `python -m joinq._bench.one CONTENDER SCENARIO SHARE METHOD`.

Its last line on stdout is JSON: the figures, or why there are none.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
from typing import Any

from joinq._bench import contenders, limits
from joinq._bench.contenders import Unavailable
from joinq._bench.scenario import Outcome, Scenario
from joinq._bench.scenarios import SCENARIOS


def measure(name: str, scenario: Scenario) -> dict[str, Any]:
    """Measure a contender or a floor once, in this process, which must be a fresh one."""
    try:
        outcome: Outcome
        if name in limits.LABELS:
            outcome = limits.measure(name, scenario)
        else:
            outcome = scenario.run(contenders.load(name), scenario)
    except (Unavailable, ImportError) as error:
        return {"unavailable": str(error)}
    return {"figures": outcome.figures, "notes": outcome.notes}


def main(name: str, wanted: str, share: str, start_method: str) -> None:
    """Measure what the command line says."""
    multiprocessing.set_start_method(start_method)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a hang leaves stacks, not core files
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == wanted)
    print(json.dumps(measure(name, scenario.scaled(float(share), 1.0))))


if __name__ == "__main__":
    main(*sys.argv[1:])
