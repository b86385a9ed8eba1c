/* record: what one record means: its size, whether it can be believed, and how an item gets from it into a box.
 *
 * A record holds one item, or is a JNQ_CHUNK of several small ones, each with a header of its own (jnq_packed). An item
 * of a chunk is named by its offset in the payload; everywhere else the offset is 0.
 *
 * State: none of its own; the records are those of fifo.h and cells.h, whose locks are required.
 *
 * Foreign writes: nothing is copied or followed that lies outside of the record. One that comes in the very moment
 * between the look and the copy makes garbage of the copy, but takes nothing from outside of the segment: lengths are
 * looked at once more as they are going to be used. */
#ifndef JNQ_RECORD_H
#define JNQ_RECORD_H

#include "layout.h"

/* Bytes that a record with so long an inline payload takes. */
uint64_t record_room(uint32_t inline_bytes);

uint64_t record_size(const struct jnq_record *record);

/* How many items it holds. */
uint64_t record_items(const struct jnq_record *record);

/* The extent that holds its payload, or 0. */
uint64_t record_extent(const struct jnq_record *record);

/* False only after foreign writes: then not even its size can be believed. */
bool record_well_formed(const struct jnq_record *record);

/* Bytes that an item takes in a batch or a chunk. */
uint64_t record_packed(uint64_t bytes);

/* The item at the offset of a chunk; NULL if there is none. */
const jnq_packed *record_at(const struct jnq_record *record, uint64_t off);

/* Where item number `index` of a record begins, or UINT64_MAX. */
uint64_t record_off(const struct jnq_record *record, uint64_t index);

/* The offset behind the item. */
uint64_t record_after(const struct jnq_record *record, uint64_t off);

/* True if so many bytes from there on lie in the segment. */
bool record_lies(struct jnq_queue *q, const char *from, uint64_t bytes);

/* Copies the pieces, one after the other. */
void record_gather(char *to, const jnq_piece *pieces, uint64_t n);

/* Lets the box have an item: a copy of an inline payload (JNQ_OK), or the extent, which becomes ours (JNQ_LARGE).
 * Returns JNQ_CORRUPT if the record cannot be believed. */
int record_unpack(struct jnq_queue *q, const struct jnq_record *record, uint64_t off, jnq_box *box);

/* The same without a copy or a change of owner: the payload stays where it is. */
int record_lend(struct jnq_queue *q, const struct jnq_record *record, uint64_t off, jnq_box *box);

#endif
