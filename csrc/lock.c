#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __linux__
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

#if defined(__GLIBC__) && defined(__linux__)

static int our_kind; /* of the mutexes that lock_init() makes */

__attribute__((constructor)) static void learn_kind(void)
{
    pthread_mutex_t one = {0};
    if (!lock_init(&one))
        our_kind = one.__data.__kind;
}

/* Another kind would be locked in another way, and some of those end the process. */
static bool is_ours(pthread_mutex_t *lock) { return load_relaxed(&lock->__data.__kind) == our_kind; }

/* The bytes that the thread's process has mapped, or UINT64_MAX if that cannot be told. */
static uint64_t mapped_by(int thread)
{
    char path[32], pages[32];
    snprintf(path, sizeof path, "/proc/%d/statm", thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, pages, sizeof pages - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return UINT64_MAX;
    pages[n] = 0;
    return strtoull(pages, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What stands in the lock if it names an owner who cannot be one, else 0. */
static int forged_owner(pthread_mutex_t *lock, uint64_t mapped)
{
    int word = load_relaxed(&lock->__data.__lock), owner = word & FUTEX_TID_MASK;
    if (!word || word & FUTEX_OWNER_DIED)
        return 0; /* free, or to be taken over */
    bool gone = !owner || (syscall(SYS_tkill, owner, 0) && errno == ESRCH);
    return gone || mapped_by(owner) < mapped ? word : 0;
}

#else

static bool is_ours(pthread_mutex_t *lock) { return (void)lock, true; }
static int forged_owner(pthread_mutex_t *lock, uint64_t mapped) { return (void)lock, (void)mapped, 0; }

#endif

bool lock_is_forged(pthread_mutex_t *lock, uint64_t mapped)
{
    int word = forged_owner(lock, mapped);
    if (!word)
        return false;
    event_pause(PAUSE_MAX_NS); /* it may have released the lock and ended just now */
    return forged_owner(lock, mapped) == word;
}

static enum lock_result try_once(pthread_mutex_t *lock)
{
    if (!is_ours(lock))
        return LOCK_BROKEN;
    switch (pthread_mutex_trylock(lock)) {
    case 0:
        return LOCK_HELD;
    case EOWNERDEAD:
        return LOCK_ORPHANED;
    case EBUSY:
        return LOCK_BUSY;
    default:
        return LOCK_BROKEN;
    }
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
