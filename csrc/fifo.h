/* fifo: the blocks of records and the front list; which bytes are the next item.
 *
 * Knows no task, never waits, and takes no lock: fifo_push* require the tail lock, fifo_pop* the head lock, the
 * rest says. State and invariants: layout.h (tail, head, puts, takes, I1, I2, I6).
 *
 * Ordering
 *   R1 commit in fifo_push -> A1 in fifo_pop: the record, the blocks up to it, and the payload's extent
 *   R2 commit in fifo_pop  -> A2 in fifo_room: nothing but the number (blocks pass through the heap's lock)
 *
 * Life of a block: allocated and filled by a put, linked behind the last one by `next` and a JNQ_END record,
 * unlinked when a get finds that record, freed by that get after it released the head lock.
 *
 * Foreign writes: a position is used only within its block, a record only within its block or run, and every walk goes
 * from number to number or to a shorter list, so it ends. The answer is JNQ_CORRUPT.
 *
 * Death: fifo_repair_tail() and fifo_repair_head() walk the records from tail.block and head.block and so find
 * tail.pos and head.pos; they are called by whoever takes the lock from a dead owner. */
#ifndef JNQ_FIFO_H
#define JNQ_FIFO_H

#include "layout.h"

/* For the creator: the first block. Returns JNQ_OK or JNQ_NO_MEMORY. */
int fifo_init(struct jnq_queue *q);

/* Appends a record with a copy of the payload (JNQ_INLINE: at most JNQ_INLINE_BYTES; JNQ_INTEGER: 8), or one that
 * refers to the extent `unit` that holds it (JNQ_EXTENT). Takes effect at R1. Returns JNQ_OK, JNQ_INTERRUPTED (the
 * heap's lock is busy), JNQ_CORRUPT or JNQ_NO_MEMORY. */
int fifo_push(struct jnq_queue *q, enum jnq_kind kind, const char *payload, uint64_t bytes, uint64_t unit,
              int64_t until);

/* True if fewer than maxsize items are queued. Tail lock. */
bool fifo_room(struct jnq_queue *q);

/* Takes the oldest record into the box: front list first. Takes effect at R2, or where the front list is
 * shortened. *freed is a run that the caller must heap_free() after it released the lock, or 0. Returns JNQ_OK,
 * JNQ_LARGE, JNQ_EMPTY or JNQ_CORRUPT. */
int fifo_pop(struct jnq_queue *q, jnq_box *box, uint64_t *freed);

/* Makes the cell the first of the front list; its record is filled in. Head lock. */
void fifo_push_front(struct jnq_queue *q, uint64_t unit);

/* Makes every queued item ours, so that it can be freed after it was cut off. Both locks. */
void fifo_own_all(struct jnq_queue *q);

/* Frees everything that was queued before the cut. Both locks. */
void fifo_discard(struct jnq_queue *q);

/* Derive the positions. Return JNQ_OK or JNQ_CORRUPT. */
int fifo_repair_tail(struct jnq_queue *q);
int fifo_repair_head(struct jnq_queue *q);

/* Marks every run that can be reached. Requires all locks. False if a record refers to no run, or to one that was
 * reached before (I4). */
bool fifo_mark(struct jnq_queue *q);

/* I1, I2, I6; requires both locks. Returns 0 or the number of the broken one. */
int fifo_check(struct jnq_queue *q);

#endif
