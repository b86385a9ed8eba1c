"""Compiling the C core, and test programs with it, without Python: CC names the compiler; else it is cc or gcc."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "csrc"

CFLAGS = ["-std=gnu11", "-g", "-pthread", f"-I{CORE}", f"-I{HERE / 'c'}"]
CFLAGS += ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wmissing-prototypes"]
CFLAGS += ["-Werror"] if os.environ.get("JNQ_WERROR") else []  # in CI: another compiler may know other warnings
ASAN = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
VARIANTS = {"plain": ["-O2"], "address": ["-O1", *ASAN], "thread": ["-O1", "-fsanitize=thread"]}
DOORS = {"futex": [], "sem": ["-DJNQ_DOOR_SEM"]}

# What a developer's own environment must not decide: the tests bring the sanitizers' options along.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.endswith("SAN_OPTIONS")}


def call(command, folder):
    """Run a command; its exit code and all it wrote."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=ENVIRONMENT, check=False, **output)
    return done.returncode, done.stdout


def compiler():
    """The words that the compiler's command begins with."""
    return shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or "gcc"]


def can_link(folder, variant):
    """Whether the compiler can link programs of this variant."""
    source = folder / f"{variant}.c"
    source.write_text("int main(void) { return 0; }\n")
    return call([*compiler(), *VARIANTS[variant], "-o", source.with_suffix(""), source], folder)[0] == 0


def compile_core(folder, variant, door):
    """Make the folder and the core's object files in it."""
    folder.mkdir()
    flags = [*CFLAGS, *VARIANTS[variant], *DOORS[door]]
    return call([*compiler(), *flags, "-c", *sorted(CORE.glob("*.c"))], folder)


def compile_program(folder, variant, door, name, source, *link):
    """Make a program in the folder of the core's object files."""
    flags = [*CFLAGS, *VARIANTS[variant], *DOORS[door], *link]
    return call([*compiler(), *flags, "-o", name, source, *sorted(folder.glob("*.o"))], folder)


def first_failure(*steps):
    """Take the steps, functions that give an exit code and an output, until one fails."""
    for step in steps:
        code, output = step()
        if code:
            break
    return code, output
