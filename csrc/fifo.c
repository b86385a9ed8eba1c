#include "fifo.h"

#include <errno.h>
#include <string.h>

#include "atomics.h"
#include "counts.h"
#include "heap.h"
#include "note.h"
#include "record.h"

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

/* A block of ours that begins with the record numbered `first`. */
static int new_block(struct jnq_queue *q, uint64_t first, int64_t until, uint64_t *unit)
{
    int rc = heap_alloc_to_put(q, BLOCK_BYTES, until, unit);
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
    uint64_t size = record_room(inline_bytes);
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

/* --- the head ------------------------------------------------------------------------------------------ */

int fifo_next(struct jnq_queue *q, struct jnq_record **next_record, uint64_t *freed)
{
    struct jnq_shared *sh = q->sh;
    struct jnq_head *head = &sh->head;
    *freed = 0;
    if (load_relaxed(&sh->cut))
        return JNQ_EMPTY;
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
    *next_record = record;
    bool whole = record_well_formed(record) && record_size(record) <= last_pos(q, head->block) - head->pos;
    return whole && record->number == number ? JNQ_OK : JNQ_CORRUPT;
}

void fifo_step(struct jnq_queue *q, const struct jnq_record *record, uint64_t lease)
{
    struct jnq_shared *sh = q->sh;
    uint64_t size = record_size(record);
    note_step(q, NOTE_TAKE, q->owner, &sh->takes, load_relaxed(&sh->takes) + 1,
              lease); /* R2, pairs with A2 in fifo_room */
    sh->head.pos += size;
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
    if (!record_well_formed(record) || record->number != w->number ||
        w->pos + record_size(record) > last_pos(q, w->block))
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

bool fifo_each(struct jnq_queue *q, bool (*visit)(struct jnq_queue *, uint64_t unit))
{
    struct jnq_shared *sh = q->sh;
    struct walk w;
    if (!walk_to(q, &w, sh->head.block, load_relaxed(&sh->takes)))
        return false;
    uint64_t puts = load_acq(&sh->puts), block = w.block;
    while (w.number < puts) {
        struct jnq_record *record = walk_record(q, &w);
        if (!record)
            return false;
        uint64_t extent = record_extent(record);
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
    return 0;
}
