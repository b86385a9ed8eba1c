"""Describes the extension module ``joinq._jnq`` to cffi (API mode).

What Python may call is the marked region of ``jnq.h``; the compiler and cffi read the same text.

Environment, for builds from source:
    JNQ_DOOR      ``futex`` (default on Linux) or ``semaphore``: how a waiter sleeps
    JNQ_SANITIZE  ``address,undefined`` or ``thread``: passed to ``-fsanitize=``
    JNQ_WERROR    if set, warnings are errors
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = (
    "cells",
    "counts",
    "event",
    "event_futex",
    "event_sem",
    "fifo",
    "heap",
    "lock",
    "note",
    "procs",
    "queue",
    "ready",
    "record",
    "recover",
    "segment",
    "spin",
    "watch",
)

# cffi's wrappers give up the GIL around every call, which costs more than the calls do. Ours keep it; the core gives
# it up through gil.h where it sleeps. They also carry errno from call to call: nobody asks for it.
PREAMBLE = """
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }
#undef _cffi_restore_errno
#undef _cffi_save_errno
#define _cffi_restore_errno() ((void)0)
#define _cffi_save_errno() ((void)0)

#include "gil.h"
#include "jnq.h"
#include "python/objects.h"

/* What cffi makes is one part of the module; objects.c adds the other. */
PyMODINIT_FUNC make_cffi_part(void);
PyMODINIT_FUNC PyInit__jnq(void);
PyMODINIT_FUNC PyInit__jnq(void)
{
    PyObject *module = make_cffi_part();
    if (module && objects_add(module))
        Py_CLEAR(module);
    return module;
}
#define PyInit__jnq make_cffi_part

static void *give_up(void) { return PyEval_SaveThread(); }
static void take_back(void *state) { PyEval_RestoreThread(state); }

__attribute__((constructor)) static void connect_gil(void)
{
    jnq_gil_give_up = give_up;
    jnq_gil_take_back = take_back;
}
"""


def contract() -> str:
    """The region of jnq.h between its markers."""
    text = (HERE / "jnq.h").read_text(encoding="utf-8")
    return text.split("/* [cdef */", 1)[1].split("/* cdef] */", 1)[0]


def can_build(*options: str) -> bool:
    """Whether the compiler and its linker take these options."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "one.c")
        source.write_text("int one(void) { return 1; }\n", encoding="utf-8")
        command = [*compiler, *options, "-shared", "-fPIC", "-o", str(source.with_suffix(".so")), str(source)]
        try:
            return not subprocess.run(command, capture_output=True, check=False).returncode
        except OSError:
            return False


def flags() -> "tuple[list[str], list[str]]":
    """Compiler and linker flags of this build."""
    door = os.environ.get("JNQ_DOOR") or ("futex" if sys.platform == "linux" else "semaphore")
    if door not in ("futex", "semaphore"):
        raise SystemExit(f"JNQ_DOOR is {door!r}; use 'futex' or 'semaphore'")
    compile_flags = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]
    link_flags = ["-pthread"]
    if door == "semaphore":
        compile_flags.append("-DJNQ_DOOR_SEM")
    if os.environ.get("JNQ_WERROR"):
        compile_flags.append("-Werror")
    sanitizers = os.environ.get("JNQ_SANITIZE")
    if sanitizers:
        compile_flags += ["-g", f"-fsanitize={sanitizers}"]
        link_flags.append(f"-fsanitize={sanitizers}")
    elif can_build("-O2", "-flto"):
        compile_flags.append("-flto")  # a call crosses a dozen files
        link_flags += ["-O2", "-flto"]
        if can_build("-O2", "-flto", "-flto-partition=one"):
            link_flags.append("-flto-partition=one")  # else what is inlined hangs on where GCC cuts the core in two
    return compile_flags, link_flags


ffibuilder = FFI()
ffibuilder.cdef(contract())
compile_args, link_args = flags()
ffibuilder.set_source(
    "joinq._jnq",
    PREAMBLE,
    sources=[f"csrc/{name}.c" for name in (*SOURCES, "python/objects")],
    py_limited_api=False,  # objects.c looks into objects
    include_dirs=["csrc"],
    depends=[f"csrc/{path.relative_to(HERE)}" for path in HERE.rglob("*.h")],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)
