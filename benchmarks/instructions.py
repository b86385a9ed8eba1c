"""
Count instructions: `python benchmarks/instructions.py [--check] [--write] [--functions N] [--keep DIR]`.

How many instructions an operation takes, by callgrind: not how long, but the same number on a busy machine, so that a
regression is seen without trusting a clock. What it cannot see: cache misses, locked instructions that wait for another
CPU, system calls. Needed: valgrind with its headers, a C compiler, joinq installed.

Every operation is done N and 2N times, after a warm-up; the difference, divided by N, is what one costs, with the loop
around it. Start-up is not counted. Each kind of item has a process of its own, because an interpreter that specializes
its instructions learns from what it does. All is done in several states of the heap, because an allocation costs more
where a pool happens to be full; the least figure counts. Two runs must agree.

What libc takes is shown, but compared for the core alone: of Python's operations it is nearly all malloc(), which
depends on what was allocated before, down to the length of a path.

The core alone is built from csrc/ as a library, with the flags of the extension, and called by instructions_core.c.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import functools
import importlib.util
import itertools
import json
import os
import pickle
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import Any

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "csrc"
RECORDED = HERE / "instructions.json"

N = 1023
"""How often something is done: a block of records, so that each block is begun as often as in a long run."""

STATES = 2
"""Of the heap."""

RUNS = 2
BATCH = 100
ITEMS = {"int": 1000, "str": "task 17", "float": 0.5, "tuple": (17, "task", 0.5)}

SPREAD = 0.005
"""By how much the runs may differ, in what is compared."""

LIMIT = 0.03
"""By how much an operation may grow."""

CORE_LIMIT = 0.01
"""The same of the core alone, where no interpreter is in between."""

SAME = 0.02
"""By how much the floors may differ if the interpreter is the recorded one; other builds of its version differ more."""

LIMIT_S = 300.0
"""Ten times what a run takes."""

OBJECTS = ("python", "cffi", "joinq", "libc", "other")


class Unavailable(Exception):
    """Instructions cannot be counted here; its text says why."""


# --- the operations, under callgrind -------------------------------------------------------------


def call(function: Callable[[], object], times: int) -> None:
    """Call a function so often."""
    for _ in itertools.repeat(None, times):
        function()


def call_with(function: Callable[[Any], object], item: object, times: int) -> None:
    """Call a function with an item so often."""
    for _ in itertools.repeat(None, times):
        function(item)


def put_many(function: Callable[[list[int]], object], batch: list[int], items: int) -> None:
    """Put so many items, in batches."""
    for _ in itertools.repeat(None, items // len(batch)):
        function(batch)


def get_many(function: Callable[[int], list[int]], items: int) -> None:
    """Take so many items, in batches."""
    while items:
        items -= len(function(BATCH))


def nothing(item: object) -> None:
    """Do what a call alone costs."""


def there_and_back(item: object) -> None:
    """Pickle and unpickle."""
    pickle.loads(pickle.dumps(item))


Step = tuple[str, Callable[..., None], tuple[Any, ...]]
"""What an operation is called, and the loop that does it and its arguments but the last, how often."""


def floors() -> list[Step]:
    """Give what there is without a queue."""
    return [
        ("floor: call a function", call_with, (nothing, 1000)),
        ("floor: pickle, unpickle int", call_with, (there_and_back, 1000)),
    ]


def singles(kind: str) -> list[Step]:
    """Give the operations that move one item of a kind; they leave the queue empty."""
    import joinq

    queue = joinq.JoinableQueue()
    return [
        (f"put {kind}", call_with, (queue.put, ITEMS[kind])),
        (f"get {kind}", call, (queue.get,)),
        (f"task_done {kind}", call, (queue.task_done,)),
    ]


def batches() -> list[Step]:
    """Give the operations that move many items, if this joinq has them; their figures are per item."""
    import joinq

    queue: Any = joinq.JoinableQueue()
    if not hasattr(queue, "put_many"):
        return []
    batch = list(range(1000, 1000 + BATCH))
    return [
        (f"put_many int, {BATCH} each", put_many, (queue.put_many, batch)),
        (f"get_many int, {BATCH} each", get_many, (queue.get_many,)),
        ("task_done int of a batch", call, (queue.task_done,)),
    ]


def operate(steps: list[Step], n: int, marks: ctypes.CDLL) -> None:
    """Do operations n and 2n times in turn, and mark how often, in all states of the heap."""
    # A loop of its own for each, so that it is specialized for that.
    own = [(name, FunctionType(loop.__code__.replace(), loop.__globals__), args) for name, loop, args in steps]
    ballast: list[object] = []
    for state in range(STATES):
        for times in (1, 2) if state else (1, 1, 2):  # the first of three warms up, and its figure is replaced
            for name, loop, args in own:
                label = f"{name} {state} {times * n}".encode()
                marks.marks_begin()
                loop(*args, times * n)
                marks.marks_end(label)
        ballast += unsettle()


def unsettle() -> list[object]:
    """Change the state of the heap, as long as what is returned lives: another three objects of each size."""
    return [what for i in range(3) for what in (object(), 10**12 + i, *(bytes(size) for size in range(1, 2048, 16)))]


def operate_all(marks_library: str) -> None:
    """Do all operations, each kind in a child."""
    import joinq  # noqa: F401 - once for all children

    marks = ctypes.CDLL(marks_library)
    makers: list[tuple[Callable[[], list[Step]], int]] = [(floors, N)]
    makers += [(functools.partial(singles, kind), N) for kind in ITEMS]
    makers += [(batches, N // BATCH * BATCH)]
    for make, n in makers:
        pid = os.fork()
        if not pid:
            failed = 1
            try:
                operate(make(), n, marks)
                failed = 0
            finally:
                if failed:
                    traceback.print_exc()
                    sys.stderr.flush()
                os._exit(failed)
        if os.waitpid(pid, 0)[1]:
            sys.exit(f"{make} failed")


# --- what callgrind says ---------------------------------------------------------------------------


@dataclass
class Cost:
    """
    What an operation costs.

    Attributes:
        functions: Instructions by (owner of the object file, function), those of what it calls not included.
        spread: The difference of the runs, as a share.
        objects: Instructions by whose code they are: OBJECTS.
    """

    functions: collections.Counter[tuple[str, str]]
    spread: float = 0.0
    objects: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.objects = dict.fromkeys(OBJECTS, 0.0)
        for (owner, _), instructions in self.functions.items():
            self.objects[owner] += instructions

    @property
    def instructions(self) -> float:
        """All of them."""
        return sum(self.objects.values())


def compared(name: str, objects: Mapping[str, float]) -> float:
    """Return how many instructions of an operation are compared, of those by whose code they are."""
    return sum(objects[key] for key in objects if key != "libc" or name.startswith("core "))


def owner(path: str) -> str:
    """Tell whose code an object file holds: one of OBJECTS, or "driver"."""
    name = Path(path).name
    if name.startswith(("_jnq.", "libjnq.")):
        return "joinq"
    if name.startswith("_cffi_backend"):
        return "cffi"
    if name.startswith(("instructions_core", "libmarks")):
        return "driver"
    if re.match(r"(lib(c|m|pthread|dl|rt)|ld(-linux.*)?|ld-musl.*)[.-]", name) or name.startswith("ld-"):
        return "libc"
    if name.startswith(("libpython", "python")) or "/lib-dynload/" in path or path == os.path.realpath(sys.executable):
        return "python"
    return "other"


def read(dump: Path) -> tuple[str, collections.Counter[tuple[str, str]]]:
    """
    Read one of callgrind's files.

    Returns:
        What it was marked with, and the instructions of each (object's owner, function).
    """
    label = ""
    costs: collections.Counter[tuple[str, str]] = collections.Counter()
    names: dict[tuple[str, str], str] = {}  # callgrind writes a name once and then its number
    now = {"ob": "", "fn": ""}
    called = False
    for line in dump.read_text(errors="replace").splitlines():
        if line[:1] in "0123456789+-*" and line:
            fields = line.split()
            if not called and len(fields) > 1:
                costs[owner(now["ob"]), now["fn"]] += int(fields[1])
            called = False  # the line after calls= is what the called function costs
        elif line.startswith("desc: Trigger: Client Request: "):
            label = line.split(": ", 3)[3]
        elif line.startswith("calls="):
            called = True
        else:
            match = re.match(r"(c?)(ob|fn)=(\(\d+\))?\s*(.*)", line)
            if match:
                is_callee, kind, number, name = match.groups()
                if number:
                    name = names.setdefault((kind, number), name)
                if not is_callee:
                    now[kind] = name
    return label, costs


def per_operation(folder: Path) -> dict[str, Cost]:
    """Make of the dumps of one run what one operation costs, by name: the least of all states."""
    counts: dict[tuple[str, str], dict[int, collections.Counter[tuple[str, str]]]] = {}
    for dump in sorted(folder.iterdir(), key=lambda path: (path.stat().st_mtime_ns, int(path.suffix[1:]))):
        label, functions = read(dump)
        if label:
            name, state, times = label.rsplit(" ", 2)
            counts.setdefault((name, state), {})[int(times)] = functions
    costs: dict[str, Cost] = {}
    for (name, _), measured in counts.items():
        (n, few), (twice, many) = sorted(measured.items())
        each = {key: (many[key] - few[key]) / (twice - n) for key in many.keys() | few.keys() if key[0] != "driver"}
        cost = Cost(collections.Counter({key: n for key, n in each.items() if n}))
        if name not in costs or compared(name, cost.objects) < compared(name, costs[name].objects):
            costs[name] = cost
    return costs


# --- running it ------------------------------------------------------------------------------------


def run(command: list[str], **options: Any) -> str:
    """
    Run a command and return what it says.

    Raises:
        RuntimeError: It failed.
    """
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, timeout=LIMIT_S, check=False, **output, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout}")
    return str(done.stdout)


def compiler() -> list[str]:
    """Return the words that the compiler's command begins with."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def extension_flags() -> tuple[list[str], list[str]]:
    """Return what the extension is compiled and linked with."""
    spec = importlib.util.spec_from_file_location("ffi_build", CORE / "ffi_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compile_flags, link_flags = module.flags()
    return [flag for flag in compile_flags if flag != "-fvisibility=hidden"], link_flags


def build_marks(folder: Path) -> None:
    """
    Make the marks, a library.

    Raises:
        Unavailable: There is no valgrind, no compiler, or one of them does not work.
    """
    source = str(HERE / "callgrind_marks.c")
    try:
        run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "true"])
        run([*compiler(), "-shared", "-fPIC", "-O2", "-o", str(folder / "libmarks.so"), source])
    except (OSError, RuntimeError) as reason:
        raise Unavailable(str(reason)) from reason


def build_core(folder: Path) -> None:
    """Make the core, a library, and the program that calls it."""
    exports = folder / "exports"
    exports.write_text("{ global: jnq_*; local: *; };\n")
    compile_flags, link_flags = extension_flags()
    library = [*compiler(), "-shared", "-fPIC", *compile_flags, *link_flags]
    library += ["-fno-semantic-interposition", f"-Wl,--version-script={exports}"]
    run([*library, "-o", str(folder / "libjnq.so"), *sorted(map(str, CORE.glob("*.c")))])
    program = [*compiler(), "-std=gnu11", "-O2", f"-I{CORE}", str(HERE / "instructions_core.c")]
    libraries = [str(folder / "libjnq.so"), str(folder / "libmarks.so"), "-Wl,-z,now"]
    run([*program, "-o", str(folder / "instructions_core"), *libraries])


def callgrind(command: list[str], folder: Path) -> dict[str, Cost]:
    """Run a program that marks under callgrind, which leaves its dumps in the folder."""
    folder.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or name[:6] != "PYTHON"}
    environment["PYTHONHASHSEED"] = "0"
    tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder / 'callgrind.out.%p'}"]
    said = run([*tool, *command], env=environment)
    costs = per_operation(folder)
    if not costs:
        raise RuntimeError(f"callgrind has counted nothing:\n{said}")
    return costs


def together(runs: list[dict[str, Cost]]) -> dict[str, Cost]:
    """Take the least of the runs for each operation."""
    costs = {}
    for name in runs[0]:
        found = sorted((compared(name, one[name].objects), i) for i, one in enumerate(runs))
        costs[name] = runs[found[0][1]][name]
        costs[name].spread = found[-1][0] / found[0][0] - 1
    return costs


def measure(runs: int = RUNS, keep: Path | None = None) -> tuple[dict[str, Cost], dict[str, Cost]]:
    """
    Count, in so many processes each, two at a time.

    Returns:
        What the operations of Python cost, and those of the core alone.

    Raises:
        Unavailable: It is not possible here; RuntimeError: it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_marks(folder)
        build_core(folder)
        commands = {
            "python": [sys.executable, str(HERE / "instructions.py"), "--operate", str(folder / "libmarks.so")],
            "core": [str(folder / "instructions_core"), str(N)],
        }
        with ThreadPoolExecutor(2) as pool:
            futures = {
                part: [pool.submit(callgrind, command, (keep or folder) / f"{part}{i}") for i in range(runs)]
                for part, command in commands.items()
            }
            found = {part: together([future.result() for future in those]) for part, those in futures.items()}
    return found["python"], found["core"]


# --- what is recorded --------------------------------------------------------------------------------


def made_with() -> tuple[str, str, dict[str, str]]:
    """Return under which names the figures of Python and of the core are recorded here, and what else to know."""
    from joinq._native import ffi, lib

    door = ffi.string(lib.jnq_door()).decode()
    version = run([*compiler(), "--version"]).splitlines()[0]
    minor = ".".join(platform.python_version_tuple()[:2])
    about = {"python": platform.python_version(), "cffi": metadata.version("cffi"), "compiler": version}
    machine = platform.machine()
    return f"{platform.python_implementation()} {minor}, {machine}, {door}", f"{version}, {machine}, {door}", about


def recorded() -> dict[str, Any]:
    """Return everything that is recorded."""
    data: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {"python": {}, "core": {}}
    return data


def write(python: Mapping[str, Cost], core: Mapping[str, Cost]) -> None:
    """Record the figures in place of earlier ones that were made with the same."""
    python_key, core_key, about = made_with()
    data = recorded()

    def figures(costs: Mapping[str, Cost]) -> dict[str, dict[str, float]]:
        return {
            name: {key: round(n, 1) for key, n in cost.objects.items() if round(n, 1)} for name, cost in costs.items()
        }

    data["python"][python_key] = {**about, "operations": figures(python)}
    data["core"][core_key] = {"operations": figures(core)}
    RECORDED.write_text(json.dumps(data, indent=1, sort_keys=False) + "\n")


def comparable(python: Mapping[str, Cost]) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """Return the recorded figures that these can be compared with, of Python and of the core, and why not others."""
    python_key, core_key, about = made_with()
    data = recorded()
    reasons = []
    known = {}
    for part, key in (("python", python_key), ("core", core_key)):
        operations = data[part].get(key, {}).get("operations", {})
        known[part] = {name: compared(name, objects) for name, objects in operations.items()}
        if not operations:
            reasons.append(f"nothing is recorded with {key}")
    there = data["python"].get(python_key, about)
    if there["cffi"] != about["cffi"]:
        reasons.append(f"cffi is {about['cffi']}, and {there['cffi']} is recorded")
        known["python"] = {}
    for name, figure in known["python"].items():
        if name.startswith("floor: ") and abs(compared(name, python[name].objects) / figure - 1) > SAME:
            reasons.append(f"another build of {python_key}: {name} takes {compared(name, python[name].objects):.0f}")
            known["python"] = {}
            break
    return known["python"], known["core"], reasons


def regressions(costs: Mapping[str, Cost], known: Mapping[str, float], limit: float) -> list[str]:
    """Say of each operation that has grown too much by how much it has."""
    now = {name: compared(name, cost.objects) for name, cost in costs.items()}
    return [
        f"{name}: {now[name]:.1f} instructions, {known[name]:.1f} are recorded: {now[name] / known[name] - 1:+.1%}"
        for name in costs
        if name in known and now[name] > known[name] * (1 + limit)
    ]


def unsteady(costs: Mapping[str, Cost]) -> list[str]:
    """Say which operations did not take the same in all runs."""
    return [f"{name}: spread {cost.spread:.2%}" for name, cost in costs.items() if cost.spread > SPREAD]


def table(costs: Mapping[str, Cost], known: Mapping[str, float], functions: int = 0) -> str:
    """Render the figures, and if wanted the functions that take most of each."""
    owners = "".join(f"{owner:>8}" for owner in OBJECTS)
    lines = [f"{'operation':<28}{'all':>8} |{owners} |{'compared':>9}{'recorded':>9}{'change':>8}{'spread':>8}"]
    for name, cost in costs.items():
        now, then = compared(name, cost.objects), known.get(name)
        split = "".join(f"{instructions:>8,.0f}" for instructions in cost.objects.values())
        change = f"{then:>9,.1f}{now / then - 1:>+8.1%}" if then else f"{'-':>9}{'':>8}"
        lines.append(f"{name:<28}{cost.instructions:>8,.0f} |{split} |{now:>9,.1f}{change}{cost.spread:>8.2%}")
        for (whose, function), instructions in cost.functions.most_common(functions):
            lines.append(f"{instructions:>36,.1f}  {whose}: {function}")
    return "\n".join(lines)


def main() -> int:
    """Count the instructions of each operation, and show them beside what is recorded."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="fail if one has grown, or is not repeatable")
    parser.add_argument("--write", action="store_true", help=f"record them in {RECORDED.name}")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="processes for each figure")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="the N functions that take most")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for callgrind's dumps")
    parser.add_argument("--operate", metavar="MARKS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.operate:
        operate_all(options.operate)
        return 0

    try:
        python, core = measure(options.runs, options.keep)
    except Unavailable as reason:
        parser.exit(2, f"{reason}\n")
    known_python, known_core, reasons = comparable(python)
    print(table({**python, **core}, {**known_python, **known_core}, options.functions))
    for why in reasons:
        print(f"cannot compare: {why}")
    faults = [*unsteady(python), *unsteady(core)]
    faults += regressions(python, known_python, LIMIT) + regressions(core, known_core, CORE_LIMIT)
    for fault in faults:
        print(fault, file=sys.stderr)
    if options.write:
        write(python, core)
    return 1 if options.check and faults else 0


if __name__ == "__main__":
    sys.exit(main())
