/* lock: mutual exclusion between processes that reports a dead owner.
 *
 * A robust process-shared POSIX mutex, which is only ever tried, never waited for in the kernel: what it
 * guards takes well under a microsecond, so a lock that stays busy has an owner that is not running, and
 * the waiter steps aside for growing pauses. Releasing is then never a system call.
 *
 * State            written by          guard  order           if the owner dies
 *   the mutex      lock_*              none   acquire/release the kernel marks it; next owner: LOCK_ORPHANED
 *
 * Death: LOCK_ORPHANED means that the words it guards may be half-changed. The new owner repairs them and
 * calls lock_repaired() before lock_release(). If it dies before that, the next one gets LOCK_ORPHANED.
 *
 * Foreign writes: LOCK_BROKEN means that the mutex is none of ours any more, and so nothing can be said of what it
 * guards. It shows in its kind, or in what the C library answers. Where it only seems to be held by somebody, because
 * the number of a thread was written into it, lock_is_forged() can tell (with glibc on Linux): if there is no such
 * thread, the kernel would have marked the lock, and a thread whose process has less memory mapped than the segment
 * takes does not share it. An owner that is stopped passes both tests.
 *
 * Not provided: fairness, recursion. */
#ifndef JNQ_LOCK_H
#define JNQ_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_result { LOCK_HELD, LOCK_ORPHANED, LOCK_BUSY, LOCK_BROKEN };

/* Readies a zeroed lock. Returns 0 or an errno. */
int lock_init(pthread_mutex_t *lock);

/* Tries until the deadline (event_now() scale), stepping aside in between; gives LOCK_BUSY after it, or LOCK_BROKEN.
 * With deadline 0 it tries for about a microsecond and never sleeps. */
enum lock_result lock_until(pthread_mutex_t *lock, int64_t deadline);

/* After a LOCK_BUSY for which one has waited long: true if nobody holds it. `mapped` are the bytes that everybody has
 * mapped who can. Takes some system calls. */
bool lock_is_forged(pthread_mutex_t *lock, uint64_t mapped);

void lock_repaired(pthread_mutex_t *lock);
void lock_release(pthread_mutex_t *lock);

#endif
