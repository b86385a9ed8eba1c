/* recover: taking locks over from the dead, freeing what they held, and checking that all is whole.
 *
 * State: none of its own.
 *
 * Death: a lock whose owner died is taken together with the duty to derive what it guards (fifo_repair_*, and
 * repair() in heap.c); the counts need nothing. recover_reap() then frees what the dead one owned: with all locks held
 * it marks what can be reached and frees the rest of its runs, and the table entry last. Whoever dies while
 * repairing or reaping is followed by another who begins again: every step is a derivation, none a journal.
 *
 * Waiting: never; the locks are tried until the caller's deadline, and JNQ_INTERRUPTED means that one stayed busy. */
#ifndef JNQ_RECOVER_H
#define JNQ_RECOVER_H

#include "layout.h"

/* Each returns JNQ_OK with the lock held and what it guards whole, or JNQ_INTERRUPTED or JNQ_CORRUPT without. The first,
 * which is the first one that a process takes, may return JNQ_NAMESPACE. */
int recover_lock_procs(struct jnq_queue *q, int64_t until);
int recover_lock_tail(struct jnq_queue *q, int64_t until);
int recover_lock_head(struct jnq_queue *q, int64_t until);

/* Looks at up to `most` entries of the process table for the dead. Returns JNQ_OK, JNQ_INTERRUPTED, JNQ_CORRUPT. */
int recover_reap(struct jnq_queue *q, uint32_t most, int64_t until);

/* The same for a few, at most once a second for all processes together. For waiters, who have the time. */
void recover_tick(struct jnq_queue *q, int64_t now);

/* Frees the entry of this process, if it has one. Requires that it owns nothing that nobody can reach. */
void recover_leave(struct jnq_queue *q, int64_t until);

/* jnq_check(). */
int recover_check(struct jnq_queue *q, int64_t until);

#endif
