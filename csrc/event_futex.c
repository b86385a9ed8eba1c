/* event_futex: sleeping by futex(2). The only file that makes this system call.
 *
 * The futex word is `seq`, shared between processes, with an absolute monotonic deadline. What the kernel
 * can answer is sorted into three results: woken (0, EAGAIN: seq has moved), ETIMEDOUT, EINTR. */
#ifndef JNQ_DOOR_SEM
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "event_door.h"
#include "jnq.h"
#include "atomics.h"

const char *jnq_door(void) { return "futex"; }

int event_init(struct jnq_event *ev)
{
    (void)ev;
    return 0;
}

enum event_result event_sleep(struct jnq_event *ev, uint32_t e, int64_t until_ns)
{
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    if (!syscall(SYS_futex, &ev->seq, FUTEX_WAIT_BITSET, e, &until, NULL, FUTEX_BITSET_MATCH_ANY))
        return EVENT_WOKEN;
    switch (errno) {
    case ETIMEDOUT:
        return EVENT_TIMEOUT;
    case EINTR:
        return EVENT_INTERRUPTED;
    default: /* EAGAIN; anything else would be a bug, and looking again is safe */
        return EVENT_WOKEN;
    }
}

bool door_wake(struct jnq_event *ev, uint64_t n)
{
    store_relaxed(&ev->woken_ns, (uint64_t)event_now());
    return syscall(SYS_futex, &ev->seq, FUTEX_WAKE, n < INT_MAX ? (int)n : INT_MAX, NULL, NULL, 0) > 0;
}

int64_t event_woken_ns(struct jnq_event *ev) { return (int64_t)load_relaxed(&ev->woken_ns); }

void door_wake_all(struct jnq_event *ev) { door_wake(ev, INT_MAX); }

#else
typedef int event_futex_is_not_built; /* ISO C wants a declaration */
#endif
