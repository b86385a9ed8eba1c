#include "fifo.h"

#include <errno.h>
#include <string.h>

#include "atomics.h"
#include "counts.h"
#include "heap.h"

static uint64_t off_of(struct jnq_queue *q, const void *p) { return (uint64_t)((const char *)p - q->base); }

static uint64_t first_pos(struct jnq_queue *q, uint64_t block)
{
    return off_of(q, unit_at(q, block)) + sizeof(struct jnq_block);
}

/* Where the last record, a JNQ_END, can be. */
static uint64_t last_pos(struct jnq_queue *q, uint64_t block)
{
    return off_of(q, unit_at(q, block)) + BLOCK_BYTES - LINE_BYTES;
}

/* True if a record may begin at `pos` of the block. False only after foreign writes. */
static bool lies_in(struct jnq_queue *q, uint64_t block, uint64_t pos)
{
    uint64_t first = first_pos(q, block), last = last_pos(q, block);
    return block < q->units && last < q->bytes && pos - first <= last - first && pos % LINE_BYTES == 0;
}

static uint64_t size_of(uint32_t inline_bytes)
{
    return (offsetof(struct jnq_record, payload) + inline_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

static uint64_t record_size(const struct jnq_record *record)
{
    return size_of(record->kind == JNQ_EXTENT ? 0 : record->inline_bytes);
}

/* A block of ours that begins with the record numbered `first`. */
static int new_block(struct jnq_queue *q, uint64_t first, int64_t until, uint64_t *unit)
{
    int rc = heap_alloc(q, BLOCK_BYTES, until, unit);
    if (!rc) {
        struct jnq_block *block = unit_at(q, *unit);
        block->next = 0;
        block->first = first;
    }
    return rc;
}

int fifo_init(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    uint64_t unit;
    int rc = new_block(q, 0, JNQ_FOREVER, &unit);
    if (rc)
        return rc;
    sh->head.block = sh->tail.block = unit;
    sh->head.pos = sh->tail.pos = first_pos(q, unit);
    sh->tail.end = last_pos(q, unit);
    return JNQ_OK;
}

/* --- the tail ------------------------------------------------------------------------------------------ */

/* Links a new block behind the last one, which ends here. */
static int extend(struct jnq_queue *q, int64_t until)
{
    struct jnq_tail *tail = &q->sh->tail;
    uint64_t unit, number = load_relaxed(&q->sh->puts);
    int rc = new_block(q, number, until, &unit);
    if (rc)
        return rc;
    struct jnq_record *end = at(q, tail->pos);
    end->number = number;
    end->kind = JNQ_END;
    end->inline_bytes = 0;
    store_rel(&((struct jnq_block *)unit_at(q, tail->block))->next, unit);
    store_rel(&tail->block, unit); /* from here on the new block can be reached */
    tail->pos = first_pos(q, unit);
    tail->end = last_pos(q, unit);
    return JNQ_OK;
}

int fifo_push(struct jnq_queue *q, enum jnq_kind kind, const char *payload, uint64_t bytes, uint64_t unit,
              int64_t until)
{
    struct jnq_shared *sh = q->sh;
    uint32_t inline_bytes = kind == JNQ_EXTENT ? 0 : (uint32_t)bytes;
    uint64_t size = size_of(inline_bytes);
    if (!lies_in(q, sh->tail.block, sh->tail.pos) || sh->tail.end != last_pos(q, sh->tail.block))
        return JNQ_CORRUPT;
    if (sh->tail.pos + size > sh->tail.end) {
        int rc = extend(q, until);
        if (rc)
            return rc;
    }
    struct jnq_record *record = at(q, sh->tail.pos);
    uint64_t number = load_relaxed(&sh->puts); /* only the holder of the lock writes it */
    record->number = number;
    record->kind = kind;
    record->inline_bytes = inline_bytes;
    if (kind == JNQ_EXTENT) {
        record->extent.unit = unit;
        record->extent.bytes = bytes;
    } else {
        memcpy(record->payload, payload, bytes);
    }
    counts_before_put(q);
    store_sc(&sh->puts, number + 1); /* R1, pairs with A1 in fifo_pop */
    sh->tail.pos += size;
    return JNQ_OK;
}

bool fifo_room(struct jnq_queue *q) { return !q->maxsize || counts_queued(q) < q->maxsize; /* A2 */ }

/* False only after foreign writes: then not even the size of the record can be believed. */
static bool well_formed(const struct jnq_record *record)
{
    switch (record->kind) {
    case JNQ_EXTENT:
        return true;
    case JNQ_INLINE:
        return record->inline_bytes <= JNQ_INLINE_BYTES;
    case JNQ_INTEGER: /* another integer would look like another answer of jnq_get() */
        return record->inline_bytes == sizeof record->integer && record->integer >= -JNQ_INTEGER_MIN &&
               record->integer <= JNQ_INTEGER_MIN;
    default:
        return false;
    }
}

/* The same for a record that was not taken yet: its extent, if it has one, still exists. */
static bool intact(struct jnq_queue *q, const struct jnq_record *record)
{
    return well_formed(record) &&
           (record->kind != JNQ_EXTENT || record->extent.bytes <= heap_bytes(q, record->extent.unit));
}

/* --- the head ------------------------------------------------------------------------------------------ */

/* What the record, which has `room` bytes, holds becomes the box's. */
static int unpack(struct jnq_queue *q, const struct jnq_record *record, uint64_t room, jnq_box *box)
{
    if (!intact(q, record) || record_size(record) > room)
        return JNQ_CORRUPT;
    box->taken = 1;
    box->kind = record->kind;
    if (record->kind != JNQ_EXTENT) {
        box->bytes = record->inline_bytes;
        box->payload = box->copy;
        box->unit = 0;
        memcpy(box->copy, record->payload, record->inline_bytes);
        return JNQ_OK;
    }
    box->bytes = record->extent.bytes;
    box->payload = unit_at(q, record->extent.unit);
    box->unit = record->extent.unit;
    heap_own(q, record->extent.unit);
    return JNQ_LARGE;
}

static uint64_t front_unit(uint64_t front) { return front & ((uint64_t)-1 >> FRONT_BITS); }

static uint64_t front_length(uint64_t front) { return front >> (64 - FRONT_BITS); }

/* The first cell of the list that the front word describes, or NULL: only after foreign writes. The word in the cell
 * describes a shorter list, so whoever follows it comes to an end. */
static struct jnq_cell *first_cell(struct jnq_queue *q, uint64_t front)
{
    if (heap_bytes(q, front_unit(front)) < sizeof(struct jnq_cell))
        return NULL;
    struct jnq_cell *cell = unit_at(q, front_unit(front));
    return front_length(front) == 1 + front_length(cell->next) ? cell : NULL;
}

static int pop_front(struct jnq_queue *q, jnq_box *box, uint64_t *freed)
{
    struct jnq_head *head = &q->sh->head;
    uint64_t front = load_relaxed(&head->front), unit = front_unit(front);
    struct jnq_cell *cell = first_cell(q, front);
    if (!cell)
        return JNQ_CORRUPT;
    int rc = unpack(q, &cell->record, heap_bytes(q, unit) - offsetof(struct jnq_cell, record), box);
    if (rc == JNQ_CORRUPT)
        return rc;
    heap_own(q, unit);
    store_sc(&head->front, cell->next); /* the item is ours */
    *freed = unit;
    return rc;
}

int fifo_pop(struct jnq_queue *q, jnq_box *box, uint64_t *freed)
{
    struct jnq_shared *sh = q->sh;
    struct jnq_head *head = &sh->head;
    *freed = 0;
    if (load_relaxed(&sh->cut))
        return JNQ_EMPTY;
    if (load_relaxed(&head->front))
        return pop_front(q, box, freed);
    uint64_t number = load_relaxed(&sh->takes); /* only the holder of the lock writes it */
    if (number == load_relaxed(&head->puts_seen)) {
        uint64_t puts = load_acq(&sh->puts); /* A1, pairs with R1 in fifo_push */
        if (number == puts)
            return JNQ_EMPTY;
        store_relaxed(&head->puts_seen, puts);
    }
    if (!lies_in(q, head->block, head->pos))
        return JNQ_CORRUPT;
    struct jnq_record *record = at(q, head->pos);
    if (record->kind == JNQ_END) {
        uint64_t old = head->block, next = ((struct jnq_block *)unit_at(q, old))->next;
        if (heap_bytes(q, next) < BLOCK_BYTES || next == old)
            return JNQ_CORRUPT;
        heap_own(q, old); /* before it is unlinked: so that it is freed if we die */
        store_rel(&head->block, next);
        head->pos = first_pos(q, head->block);
        record = at(q, head->pos);
        *freed = old;
    }
    uint64_t room = last_pos(q, head->block) - head->pos;
    int rc = record->number == number ? unpack(q, record, room, box) : JNQ_CORRUPT;
    if (rc == JNQ_CORRUPT)
        return rc;
    uint64_t size = record_size(record);
    store_sc(&sh->takes, number + 1); /* R2, pairs with A2 in fifo_room */
    head->pos += size;
    return rc;
}

void fifo_push_front(struct jnq_queue *q, uint64_t unit)
{
    struct jnq_head *head = &q->sh->head;
    struct jnq_cell *cell = unit_at(q, unit);
    cell->next = load_relaxed(&head->front);
    store_sc(&head->front, (front_length(cell->next) + 1) << (64 - FRONT_BITS) | unit);
}

/* --- walking, after a death or to check ------------------------------------------------------------------- */

/* A position in the chain of blocks. Everything is looked at before it is followed: after foreign writes the walk
 * ends, it does not crash. */
struct walk {
    uint64_t block, pos, number;
};

static bool walk_enter(struct jnq_queue *q, struct walk *w, uint64_t block)
{
    if (heap_bytes(q, block) < BLOCK_BYTES)
        return false;
    w->block = block;
    w->pos = first_pos(q, block);
    return true;
}

static bool walk_from(struct jnq_queue *q, struct walk *w, uint64_t block)
{
    if (!walk_enter(q, w, block))
        return false;
    w->number = ((struct jnq_block *)unit_at(q, block))->first;
    return true;
}

/* The record numbered w->number, which exists; enters its block if that is the next one. NULL if broken. */
static struct jnq_record *walk_record(struct jnq_queue *q, struct walk *w)
{
    struct jnq_record *record = at(q, w->pos);
    if (record->kind == JNQ_END) {
        struct jnq_block *block = unit_at(q, w->block);
        if (!walk_enter(q, w, block->next))
            return NULL;
        block = unit_at(q, w->block);
        if (block->first != w->number)
            return NULL;
        record = at(q, w->pos);
    }
    if (!well_formed(record) || record->number != w->number || w->pos + record_size(record) > last_pos(q, w->block))
        return NULL;
    return record;
}

static void walk_past(struct walk *w, const struct jnq_record *record)
{
    w->pos += record_size(record);
    w->number++;
}

/* From the start of `block` to where the record numbered `number` is or will be. */
static bool walk_to(struct jnq_queue *q, struct walk *w, uint64_t block, uint64_t number)
{
    if (!walk_from(q, w, block))
        return false;
    while (w->number < number) {
        struct jnq_record *record = walk_record(q, w);
        if (!record)
            return false;
        walk_past(w, record);
    }
    return w->number == number;
}

int fifo_repair_tail(struct jnq_queue *q)
{
    struct jnq_tail *tail = &q->sh->tail;
    struct walk w;
    if (!walk_to(q, &w, tail->block, load_acq(&q->sh->puts)))
        return JNQ_CORRUPT;
    tail->block = w.block;
    tail->pos = w.pos;
    tail->end = last_pos(q, w.block);
    return JNQ_OK;
}

int fifo_repair_head(struct jnq_queue *q)
{
    struct jnq_head *head = &q->sh->head;
    struct walk w;
    store_relaxed(&head->puts_seen, load_relaxed(&q->sh->takes));
    if (load_relaxed(&q->sh->cut))
        return JNQ_OK; /* never used again */
    if (!walk_to(q, &w, head->block, load_relaxed(&q->sh->takes)))
        return JNQ_CORRUPT;
    head->block = w.block;
    head->pos = w.pos;
    return JNQ_OK;
}

/* Calls `visit` for every run that can be reached: the blocks from the head's to the tail's, the extents of the
 * records not yet taken, the front cells and theirs. The next run is known before `visit` gets one, which may free
 * it. False if the chain is broken or a visit says so. */
static bool each_run(struct jnq_queue *q, bool (*visit)(struct jnq_queue *, uint64_t unit))
{
    struct jnq_shared *sh = q->sh;
    struct walk w;
    for (uint64_t front = load_relaxed(&sh->head.front); front;) {
        if (!first_cell(q, front))
            return false;
        struct jnq_cell cell = *first_cell(q, front);
        if (!visit(q, front_unit(front)) || (cell.record.kind == JNQ_EXTENT && !visit(q, cell.record.extent.unit)))
            return false;
        front = cell.next;
    }
    if (!walk_to(q, &w, sh->head.block, load_relaxed(&sh->takes)))
        return false;
    uint64_t puts = load_acq(&sh->puts), block = w.block;
    while (w.number < puts) {
        struct jnq_record *record = walk_record(q, &w);
        if (!record)
            return false;
        uint64_t extent = record->kind == JNQ_EXTENT ? record->extent.unit : 0;
        walk_past(&w, record);
        if (w.block != block) {
            if (!visit(q, block))
                return false;
            block = w.block;
        }
        if (extent && !visit(q, extent))
            return false;
    }
    /* The tail may have gone on to a block that holds no record yet. */
    return block == sh->tail.block ? visit(q, block) : visit(q, block) && visit(q, sh->tail.block);
}

bool fifo_mark(struct jnq_queue *q)
{
    if (load_relaxed(&q->sh->cut))
        return heap_mark(q, q->sh->tail.block);
    return each_run(q, heap_mark);
}

static bool own(struct jnq_queue *q, uint64_t unit)
{
    heap_own(q, unit);
    return true;
}

void fifo_own_all(struct jnq_queue *q) { each_run(q, own); }

static bool discard(struct jnq_queue *q, uint64_t unit)
{
    if (unit != q->sh->tail.block)
        heap_free(q, unit);
    return true;
}

void fifo_discard(struct jnq_queue *q) { each_run(q, discard); }

int fifo_check(struct jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    uint64_t puts = load_acq(&sh->puts), takes = load_acq(&sh->takes);
    struct walk w;
    if (takes > puts || load_acq(&sh->dones) > puts)
        return 1;
    if (load_relaxed(&sh->cut))
        return 0;
    if (!walk_to(q, &w, sh->head.block, takes) || w.pos != sh->head.pos)
        return 2;
    while (w.number < puts) {
        struct jnq_record *record = walk_record(q, &w);
        if (!record)
            return 2;
        walk_past(&w, record);
    }
    if (w.block != sh->tail.block) {
        struct jnq_record *end = at(q, w.pos);
        if (end->kind != JNQ_END || !walk_enter(q, &w, ((struct jnq_block *)unit_at(q, w.block))->next))
            return 2;
    }
    if (w.block != sh->tail.block || w.pos != sh->tail.pos)
        return 2;
    for (uint64_t front = load_acq(&sh->head.front); front; front = first_cell(q, front)->next)
        if (!first_cell(q, front))
            return 6;
    return 0;
}
