/* cells: items in runs of their own. The front list, which is emptied before the blocks are; the leases of
 * JNQ_REDELIVER; the dead letters.
 *
 * State and invariants: layout.h (head.front, head.dead, I6, I7), note.h, and the LEASE bit in heap.h. All of it is
 * guarded by the head lock, but for the dead letters, which never change once they are in their list.
 *
 * Life of a lease: a get of JNQ_REDELIVER copies a record of the blocks into a new cell, makes that a lease of ours,
 * and takes the step (R2); or it takes a cell from the front list. jnq_finish() ends it. If its owner
 * dies, cells_redeliver() links all its leases into a chain and makes that the beginning of the front list in one
 * store, or of the dead letters, which in the same store makes them finished. Who dies before that store changed
 * nothing; after it, the cells can be reached, and so are no leases any more. Nothing has to be allocated for it but
 * a private array.
 *
 * Deaths: a get notes in the cell who takes it and how many takers it will have killed if that one dies; so
 * counting can be begun again by another. */
#ifndef JNQ_CELLS_H
#define JNQ_CELLS_H

#include "layout.h"

/* A cell of ours with a copy of the box's payload, or its reference to an extent. Returns JNQ_OK, JNQ_INTERRUPTED
 * (the heap's lock is busy), JNQ_CORRUPT or JNQ_NO_MEMORY. Needs no lock. */
int cells_new(struct jnq_queue *q, const jnq_box *box, int64_t until, uint64_t *unit);

/* Makes the cell the first of the front list, in one step: one of ours, or a lease of ours. */
void cells_push(struct jnq_queue *q, uint64_t unit);

/* Takes the first of the front list into the box, in one step. *freed as in fifo_step. Returns JNQ_OK, JNQ_LARGE,
 * JNQ_LEASED, JNQ_EMPTY or JNQ_CORRUPT. */
int cells_pop(struct jnq_queue *q, jnq_box *box, uint64_t *freed);

/* For the item about to be taken, in that record: a lease of ours with a copy of it, in the box. Returns JNQ_LEASED or
 * as cells_new. */
int cells_lease(struct jnq_queue *q, const struct jnq_record *record, int64_t until, jnq_box *box);

/* True if the cell is a lease of ours with the task of that number. */
bool cells_ours(struct jnq_queue *q, uint64_t unit, uint64_t number);

/* Ends a lease: the task is finished (R3). The run is its owner's and cannot be reached then. */
void cells_finish(struct jnq_queue *q, uint64_t unit, uint32_t owner);

/* Frees a run and the extent that its record refers to. Requires that both are ours and cannot be reached. */
void cells_free(struct jnq_queue *q, uint64_t unit);

/* Puts the tasks of a dead owner back in front of the queue, in their order, or among the dead letters; after a cut
 * they are finished. Requires all locks, and that what can be reached is marked; marks what it makes reachable.
 * *moved is 1 if there was any. Returns JNQ_OK, JNQ_NO_MEMORY (nothing happened), JNQ_INTERRUPTED (not all would fit
 * into the list: again later) or JNQ_CORRUPT. */
int cells_redeliver(struct jnq_queue *q, uint32_t owner, bool killed, uint64_t *moved);

/* Calls `visit` for every run of a list, given by its word: the cells and their extents. The next run is known before
 * `visit` gets one, which may free it. False if the list is broken or a visit says so. */
bool cells_each(struct jnq_queue *q, uint64_t word, bool (*visit)(struct jnq_queue *, uint64_t unit));

/* Steps through the dead letters: see jnq_read_letter. Needs no lock. */
int cells_letter(struct jnq_queue *q, uint64_t *cursor, jnq_letter *out);

/* I6. Returns 0 or 6. */
int cells_check(struct jnq_queue *q);

#endif
