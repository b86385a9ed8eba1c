/* record: what one record means: its size, whether it can be believed, and how its payload gets into a box.
 *
 * State: none of its own; the records are those of fifo.h and cells.h, whose locks are required. */
#ifndef JNQ_RECORD_H
#define JNQ_RECORD_H

#include "layout.h"

/* Bytes that a record with so long an inline payload takes. */
uint64_t record_room(uint32_t inline_bytes);

uint64_t record_size(const struct jnq_record *record);

/* The extent that holds its payload, or 0. */
uint64_t record_extent(const struct jnq_record *record);

/* False only after foreign writes: then not even its size can be believed. */
bool record_well_formed(const struct jnq_record *record);

/* Lets the box have the payload: a copy of an inline one (JNQ_OK), or the extent, which becomes ours (JNQ_LARGE).
 * Returns JNQ_CORRUPT if the record cannot be believed. */
int record_unpack(struct jnq_queue *q, const struct jnq_record *record, jnq_box *box);

/* The same without a copy or a change of owner: the payload stays where it is. */
int record_lend(struct jnq_queue *q, const struct jnq_record *record, jnq_box *box);

#endif
