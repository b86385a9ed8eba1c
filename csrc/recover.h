/* recover: taking locks over from the dead, freeing what they held, and checking that all is whole.
 *
 * State: none of its own.
 *
 * Death: a lock whose owner died is taken together with the duty to derive what it guards (fifo_repair_*, and
 * repair() in heap.c); the counts need nothing. recover_reap() then frees what the dead one owned: with all locks held
 * it marks what can be reached, redelivers its leases (cells.h), frees the rest of its runs, and the table entry
 * last. Whoever dies while repairing or reaping is followed by another who begins again: every step is a derivation,
 * none a journal.
 *
 * Waiting: never; the locks are tried until the caller's deadline, and JNQ_INTERRUPTED means that one stayed busy. */
#ifndef JNQ_RECOVER_H
#define JNQ_RECOVER_H

#include "layout.h"

/* Each returns JNQ_OK with the lock held and what it guards whole, or JNQ_INTERRUPTED or JNQ_CORRUPT without. The
 * first, which is the first one that a process takes, may return JNQ_NAMESPACE. */
int recover_lock_procs(struct jnq_queue *q, int64_t until);
int recover_lock_tail(struct jnq_queue *q, int64_t until);
int recover_lock_head(struct jnq_queue *q, int64_t until);

/* Looks for the dead among the processes that have tasks in hand, and `most` of the others. Returns JNQ_OK,
 * JNQ_INTERRUPTED, JNQ_CORRUPT, or JNQ_NO_MEMORY (tasks will be redelivered later). */
int recover_reap(struct jnq_queue *q, uint32_t most, int64_t until);

/* The same for a few, at most three times a second for all processes together. For waiters, who have the time. */
void recover_tick(struct jnq_queue *q, int64_t now);

/* True if recover_tick() would do something. */
bool recover_due(struct jnq_queue *q, int64_t now);

/* True if every unfinished task is that of a dead process: see jnq_join(). */
bool recover_lost(struct jnq_queue *q);

/* Frees the entry of this process, if it has one, and gives its leases back. Requires that it owns nothing else that
 * nobody can reach. */
void recover_leave(struct jnq_queue *q, int64_t until);

/* jnq_check(). */
int recover_check(struct jnq_queue *q, int64_t until);

#endif
