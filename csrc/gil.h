/* gil: how the core gives up and takes back the interpreter's lock without knowing Python.
 *
 * Both pointers are NULL where there is no interpreter (the C tests); the extension module sets them
 * when it is loaded (ffi_build.py). gil_take_back() may never return: a daemon thread ends there when the
 * interpreter finalizes. So it is called with no lock held and nothing half-done. */
#ifndef JNQ_GIL_H
#define JNQ_GIL_H

#include <stddef.h>

extern void *(*jnq_gil_give_up)(void);
extern void (*jnq_gil_take_back)(void *state);

static inline void *gil_give_up(void) { return jnq_gil_give_up ? jnq_gil_give_up() : NULL; }

static inline void gil_take_back(void *state)
{
    if (jnq_gil_take_back)
        jnq_gil_take_back(state);
}

#endif
