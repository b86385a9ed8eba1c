#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <sched.h>

#include "atomics.h"
#include "event.h"

#define TRIES 40  /* with cpu_relax() in between, about a microsecond */
#define YIELDS 16 /* then the owner is not running: let it */
#define PAUSE_MIN_NS 20000
#define PAUSE_MAX_NS 2000000

int lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);
    if (rc)
        return rc;
    rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (!rc)
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (!rc)
        rc = pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc;
}

static enum lock_result try_once(pthread_mutex_t *lock)
{
    int rc = pthread_mutex_trylock(lock);
    return !rc ? LOCK_HELD : rc == EOWNERDEAD ? LOCK_ORPHANED : LOCK_BUSY;
}

static enum lock_result try_briefly(pthread_mutex_t *lock)
{
    enum lock_result held = try_once(lock);
    for (int i = 0; held == LOCK_BUSY && i < TRIES; i++) {
        cpu_relax();
        held = try_once(lock);
    }
    return held;
}

enum lock_result lock_until(pthread_mutex_t *lock, int64_t deadline)
{
    enum lock_result held;
    int64_t pause = PAUSE_MIN_NS;
    for (int i = 0; (held = try_briefly(lock)) == LOCK_BUSY && deadline; i++) {
        if (i < YIELDS) {
            sched_yield();
            continue;
        }
        if (event_now() >= deadline)
            break;
        event_pause(pause);
        if (pause < PAUSE_MAX_NS)
            pause *= 2;
    }
    return held;
}

void lock_repaired(pthread_mutex_t *lock) { pthread_mutex_consistent(lock); }

void lock_release(pthread_mutex_t *lock) { pthread_mutex_unlock(lock); }
