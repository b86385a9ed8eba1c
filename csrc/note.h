/* note: the steps by which a task changes hands, and what follows from each.
 *
 * Taking a task, giving it back and (with JNQ_REDELIVER) finishing it are one store each, to takes, head.front or
 * dones. Two things depend on it: how many tasks its owner has taken, and whether a cell is its lease. So that
 * neither can be wrong when a process dies in between, it first notes which step it is about to take; whoever gets
 * the lock from a dead owner sees by the word whether the step was taken, and lets follow what follows.
 *
 * State            written by         guard      order          if the writer dies here
 *   note.kind      note_step          head lock  rel            0: nothing was begun, or all is done
 *   the others     note_step          head lock  plain          valid while kind is not 0
 *   the word       note_step          head lock  sc             the step
 *   takes of the   note_step,         head lock  plain          note_repair sets it
 *     owner        note_repair
 *   LEASE of the   note_step,         head lock  see heap.h     note_repair sets it
 *     unit         note_repair
 *
 * With JNQ_IGNORE nothing is noted: nothing but a figure depends on the step. */
#ifndef JNQ_NOTE_H
#define JNQ_NOTE_H

#include "layout.h"

/* The unit, if any, is a lease ...                 before the step   after it */
enum note_kind {
    NOTE_TAKE = 1, /*                                no                yes */
    NOTE_RETURN,   /*                                yes               no: it is in the front list */
    NOTE_FINISH,   /*                                yes               no */
};

/* Takes the step for n tasks of ours: stores the value into the word. Requires the head lock. */
void note_step(struct jnq_queue *q, enum note_kind kind, uint64_t n, uint64_t *word, uint64_t value, uint64_t unit);

/* The same for one task of any owner. */
void note_step_of(struct jnq_queue *q, enum note_kind kind, uint32_t owner, uint64_t *word, uint64_t value,
                  uint64_t unit);

/* For who took the lock over from a dead owner. */
void note_repair(struct jnq_queue *q);

#endif
