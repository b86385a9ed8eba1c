/* event_sem: sleeping on a POSIX process-shared semaphore, for systems without futexes.
 *
 * A token in the semaphore is one wake-up. Tokens carry no address: a sleeper that came later may take one
 * meant for an earlier sleeper, which then looks again after its slice. Whether somebody sleeps cannot be asked: but
 * where TOKENS_MAX tokens lie that nobody takes, nobody does. Those left over wake later sleepers for nothing.
 *
 * The number of sleepers is unknown, so a wake for all is handed on: `all` keeps the seq of the last one, and
 * whoever was asleep since before it posts a token for the next. Many tokens are posted to begin with, so that a later
 * sleeper who takes one does not end the chain.
 *
 * Foreign writes: a semaphore that is none any more is not used; then sleepers look again after their slice. */
#ifdef JNQ_DOOR_SEM
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "atomics.h"
#include "event_door.h"
#include "jnq.h"

#define TOKENS_MAX 32

const char *jnq_door(void) { return "semaphore"; }

int event_init(struct jnq_event *ev) { return sem_init(&ev->sem, 1, 0) ? errno : 0; }

#if defined(__GLIBC__) && UINTPTR_MAX == UINT64_MAX

#define SEM_COUNTS 8 /* bytes that change; with others in the rest the C library ends the process */

static sem_t model;

__attribute__((constructor)) static void make_model(void) { sem_init(&model, 1, 0); }

static bool is_ours(sem_t *sem)
{
    return !memcmp((char *)sem + SEM_COUNTS, (char *)&model + SEM_COUNTS, sizeof model - SEM_COUNTS);
}

#else

static bool is_ours(sem_t *sem) { return (void)sem, true; }

#endif

/* Posts up to n tokens; false if TOKENS_MAX lie there. */
static bool post(struct jnq_event *ev, uint64_t n)
{
    if (!is_ours(&ev->sem))
        return true;
    int tokens = TOKENS_MAX;
    sem_getvalue(&ev->sem, &tokens);
    if (tokens >= TOKENS_MAX)
        return false;
    for (uint64_t room = (uint64_t)(TOKENS_MAX - tokens), i = 0; i < n && i < room; i++)
        sem_post(&ev->sem);
    return true;
}

static int sleep_until(sem_t *sem, int64_t until_ns)
{
    struct timespec until;
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
    until.tv_sec = until_ns / 1000000000;
    until.tv_nsec = until_ns % 1000000000;
    return sem_clockwait(sem, CLOCK_MONOTONIC, &until);
#else
    /* Only the wall clock is offered: what a jump of it costs is bounded by the slice. */
    int64_t span = until_ns - event_now();
    clock_gettime(CLOCK_REALTIME, &until);
    span = span < 0 ? 0 : span + until.tv_nsec;
    until.tv_sec += span / 1000000000;
    until.tv_nsec = span % 1000000000;
    return sem_timedwait(sem, &until);
#endif
}

enum event_result event_sleep(struct jnq_event *ev, uint32_t e, int64_t until_ns)
{
    if (load_sc(&ev->seq) != e)
        return EVENT_WOKEN;
    if (!is_ours(&ev->sem)) {
        int64_t span = until_ns - event_now();
        event_pause(span < 0 ? 0 : span < EVENT_SLICE_NS ? span : EVENT_SLICE_NS);
        return EVENT_WOKEN;
    }
    if (!sleep_until(&ev->sem, until_ns)) {
        if ((int32_t)(load_sc(&ev->all) - e) > 0)
            post(ev, 1);
        return EVENT_WOKEN;
    }
    return errno == ETIMEDOUT ? EVENT_TIMEOUT : errno == EINTR ? EVENT_INTERRUPTED : EVENT_WOKEN;
}

bool door_wake(struct jnq_event *ev, uint64_t n)
{
    uint32_t seq = load_sc(&ev->seq);
    if (seq - load_sc(&ev->all) > 1u << 30)
        store_sc(&ev->all, seq); /* keeps it in the past when seq wraps */
    return post(ev, n);
}

int64_t event_woken_ns(struct jnq_event *ev) { return (void)ev, 0; }

void door_wake_all(struct jnq_event *ev)
{
    store_sc(&ev->all, load_sc(&ev->seq));
    post(ev, TOKENS_MAX);
}

#else
typedef int event_sem_is_not_built; /* ISO C wants a declaration */
#endif
