/* fifo: the blocks of records; which bytes are the next item.
 *
 * Knows no task, never waits, and takes no lock: fifo_push requires the tail lock, fifo_next and fifo_step the head
 * lock, the rest says. State and invariants: layout.h (tail, head, puts, takes, I1, I2).
 *
 * Ordering
 *   R1 commit in fifo_push -> A1 in fifo_next: the record, the blocks up to it, and the payload's extent
 *   R2 commit in fifo_step, fifo_step_batch -> A2 in fifo_room: nothing but the number (blocks pass through the heap's
 *   lock)
 *
 * Life of a block: allocated and filled by a put, linked behind the last one by `next` and a JNQ_END record,
 * unlinked when a get finds that record, freed by that get after it released the head lock.
 *
 * Foreign writes: a position is used only within its block, a record only within its block or run, and every walk goes
 * from number to number or to a shorter list, so it ends. The answer is JNQ_CORRUPT.
 *
 * Death: fifo_repair_tail() and fifo_repair_head() walk the records from tail.block and head.block and so find
 * tail.pos, head.pos and head.off; they are called by whoever takes the lock from a dead owner. */
#ifndef JNQ_FIFO_H
#define JNQ_FIFO_H

#include "layout.h"

/* For the creator: the first block. Returns JNQ_OK or JNQ_NO_MEMORY. */
int fifo_init(struct jnq_queue *q);

/* What a put appends: one record. */
struct fifo_load {
    enum jnq_kind kind;
    uint16_t form;           /* JNQ_CHUNK: how many items it holds */
    const jnq_piece *pieces; /* of the payload */
    uint64_t n;
    uint64_t bytes; /* all of them; without an extent, at most JNQ_INLINE_BYTES */
    uint64_t unit;  /* JNQ_EXTENT: where they have been copied to */
    bool is_given;  /* that was not ours alone, and is not freed */
};

/* True if such a record probably needs a new block. Without the lock. */
bool fifo_grows(struct jnq_queue *q, uint64_t inline_bytes);

/* Appends a record with a copy of the payload, or one that refers to the extent that holds it. Takes effect at R1.
 * Returns JNQ_OK, JNQ_INTERRUPTED (the heap's lock is busy), JNQ_CORRUPT or JNQ_NO_MEMORY. */
int fifo_push(struct jnq_queue *q, const struct fifo_load *load, int64_t until);

/* How many items may be added. Tail lock. */
uint64_t fifo_room(struct jnq_queue *q);

/* Finds the record that holds the item to be taken next, which begins there at head.off. *freed is a run that the
 * caller must heap_free() after it released the lock, or 0. Returns JNQ_OK, JNQ_EMPTY or JNQ_CORRUPT. */
int fifo_next(struct jnq_queue *q, struct jnq_record **record, uint64_t *freed);

/* Takes that item; `lease` is the cell it was copied to, or 0. Takes effect at R2. */
void fifo_step(struct jnq_queue *q, const struct jnq_record *record, uint64_t lease);

/* After fifo_next(): takes up to `most` items from there to the end of the block, in one step, as long as they fit into
 * the room, and copies them there, packed. None from an extent. Takes effect at R2. Returns how many. */
uint64_t fifo_step_batch(struct jnq_queue *q, char *batch, uint64_t room, uint64_t most);

/* Calls `visit` for the blocks from the head's to the tail's, and the extents of the records not yet taken. The next
 * run is known before `visit` gets one, which may free it. False if the chain is broken or a visit says so. Both
 * locks. */
bool fifo_each(struct jnq_queue *q, bool (*visit)(struct jnq_queue *, uint64_t unit));

/* Derive the positions. Return JNQ_OK or JNQ_CORRUPT. */
int fifo_repair_tail(struct jnq_queue *q);
int fifo_repair_head(struct jnq_queue *q);

/* I1, I2; requires both locks. Returns 0 or the number of the broken one. */
int fifo_check(struct jnq_queue *q);

#endif
