/* atomics: the only file that names a memory order.
 *
 * Every word of the shared segment that is read without the lock that guards its writers is reached
 * through these macros and nothing else; they work on plain uint32_t and uint64_t fields.
 *
 * The names say the ordering. `_sc` operations take part in one total order: a sleeper (announce,
 * load condition) and a waker (store condition, load announced) both use them, so at least one of the two
 * sees the other. No stand-alone fence is used: ThreadSanitizer does not understand fences. */
#ifndef JNQ_ATOMICS_H
#define JNQ_ATOMICS_H

#include <stdbool.h>
#include <stdint.h>

#define load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define add_relaxed(p, v) __atomic_add_fetch((p), (v), __ATOMIC_RELAXED)
#define load_acq(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define load_sc(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define store_rel(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define store_sc(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define add_sc(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
#define sub_sc(p, v) __atomic_sub_fetch((p), (v), __ATOMIC_SEQ_CST)

/* Sets or clears bits of *p and returns what it was. */
#define set_bits_sc(p, bits) __atomic_fetch_or((p), (bits), __ATOMIC_SEQ_CST)
#define clear_bits_sc(p, bits) __atomic_fetch_and((p), ~(bits), __ATOMIC_SEQ_CST)

/* If *p is *expected, make it `desired` and return true; else load *p into *expected. */
#define cas_sc(p, expected, desired)                                                                                   \
    __atomic_compare_exchange_n((p), (expected), (desired), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

/* Tells the CPU that this thread is spinning. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
