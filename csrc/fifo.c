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

/* An item: its record's position, its offset there, its number. */
struct place {
    uint64_t pos, off, number;
};

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
    if (!lies_in(q, tail->block, tail->pos)) { /* foreign writes, meanwhile */
        heap_free(q, unit);
        return JNQ_CORRUPT;
    }
    struct jnq_record *end = at(q, tail->pos);
    end->number = number;
    end->kind = JNQ_END;
    end->inline_bytes = 0;
    store_rel(&((struct jnq_block *)unit_at(q, tail->block))->next, unit);
    store_rel(&tail->block, unit); /* from here on the new block can be reached */
    store_relaxed(&tail->pos, first_pos(q, unit));
    store_relaxed(&tail->end, last_pos(q, unit));
    return JNQ_OK;
}

bool fifo_grows(struct jnq_queue *q, uint64_t inline_bytes)
{
    return load_relaxed(&q->sh->tail.pos) + record_room((uint32_t)inline_bytes) > load_relaxed(&q->sh->tail.end);
}

int fifo_push(struct jnq_queue *q, const struct fifo_load *load, int64_t until)
{
    struct jnq_shared *sh = q->sh;
    bool is_inline = load->kind != JNQ_EXTENT;
    uint32_t inline_bytes = is_inline ? (uint32_t)load->bytes : 0;
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
    record->kind = (uint16_t)load->kind;
    record->form = load->form;
    record->inline_bytes = inline_bytes;
    if (is_inline) {
        record_gather(record->payload, load->pieces, load->n);
    } else {
        record->extent.unit = load->unit;
        record->extent.bytes = load->bytes;
    }
    counts_before_put(q);
    store_sc(&sh->puts, number + record_items(record)); /* R1, pairs with A1 in fifo_next */
    store_relaxed(&sh->tail.pos, sh->tail.pos + size);
    return JNQ_OK;
}

uint64_t fifo_room(struct jnq_queue *q)
{
    if (!q->maxsize)
        return UINT64_MAX;
    uint64_t queued = counts_queued(q); /* A2 */
    return queued < q->maxsize ? q->maxsize - queued : 0;
}

/* --- the head ------------------------------------------------------------------------------------------ */

/* True if a record that can be believed lies there, within its block. */
static bool is_whole(struct jnq_queue *q, uint64_t block, uint64_t pos)
{
    const struct jnq_record *record = at(q, pos);
    return record_well_formed(record) && record_size(record) <= last_pos(q, block) - pos;
}

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
        head->off = 0;
        record = at(q, head->pos);
        *freed = old;
    }
    *next_record = record;
    return is_whole(q, head->block, head->pos) && number - record->number < record_items(record) ? JNQ_OK : JNQ_CORRUPT;
}

/* The place behind an item. */
static void go_on(struct place *place, const struct jnq_record *record)
{
    place->number++;
    place->off = record_after(record, place->off);
    if (place->number - record->number < record_items(record))
        return;
    place->pos += record_size(record);
    place->off = 0;
}

/* Takes all items from the head to the place. */
static void step_to(struct jnq_queue *q, const struct place *place, uint64_t lease)
{
    struct jnq_shared *sh = q->sh;
    note_step(q, NOTE_TAKE, place->number - load_relaxed(&sh->takes), &sh->takes, place->number, lease); /* R2 */
    sh->head.pos = place->pos;
    sh->head.off = place->off;
}

static struct place head_place(struct jnq_queue *q)
{
    struct jnq_head *head = &q->sh->head;
    return (struct place){head->pos, head->off, load_relaxed(&q->sh->takes)};
}

void fifo_step(struct jnq_queue *q, const struct jnq_record *record, uint64_t lease)
{
    struct place place = head_place(q);
    go_on(&place, record);
    step_to(q, &place, lease); /* pairs with A2 in fifo_room */
}

/* Up to `most` items of a chunk from the place on, as they stand there, as long as they fit into the room; the place
 * behind them. Gives the bytes. */
static uint64_t copy_chunk(struct jnq_queue *q, const struct jnq_record *record, struct place *place, char *batch,
                           uint64_t room, uint64_t most)
{
    uint64_t rest = record_items(record) - (place->number - record->number), off = place->off, n = 0, next;
    while (n < rest && n < most && (next = record_after(record, off)) && next - place->off <= room) {
        off = next;
        n++;
    }
    uint64_t bytes = off - place->off;
    if (!record_lies(q, record->payload + place->off, bytes))
        return 0;
    memcpy(batch, record->payload + place->off, bytes);
    place->number += n;
    place->off = n < rest ? off : 0;
    place->pos += n < rest ? 0 : record_size(record);
    return bytes;
}

/* The same for an inline record. */
static uint64_t copy_inline(struct jnq_queue *q, const struct jnq_record *record, struct place *place, char *batch,
                            uint64_t room)
{
    jnq_packed header = {record->inline_bytes, record->form};
    uint64_t bytes = record_packed(header.bytes);
    if (bytes > room || !record_lies(q, record->payload, header.bytes))
        return 0;
    memcpy(batch, &header, sizeof header);
    memcpy(batch + sizeof header, record->payload, header.bytes);
    go_on(place, record);
    return bytes;
}

uint64_t fifo_step_batch(struct jnq_queue *q, char *batch, uint64_t room, uint64_t most)
{
    struct jnq_head *head = &q->sh->head;
    struct place place = head_place(q);
    uint64_t first = place.number, puts = load_relaxed(&head->puts_seen);
    if (puts - first > most)
        puts = first + most;
    while (place.number < puts && is_whole(q, head->block, place.pos)) {
        const struct jnq_record *record = at(q, place.pos);
        uint64_t bytes = 0;
        if (place.number - record->number >= record_items(record))
            break;
        if (record->kind == JNQ_CHUNK)
            bytes = copy_chunk(q, record, &place, batch, room, puts - place.number);
        else if (record->kind == JNQ_INLINE)
            bytes = copy_inline(q, record, &place, batch, room);
        if (!bytes)
            break;
        batch += bytes;
        room -= bytes;
    }
    if (place.number != first)
        step_to(q, &place, 0);
    return place.number - first;
}

/* --- walking, after a death or to check ------------------------------------------------------------------- */

/* A record in the chain of blocks. Everything is looked at before it is followed: after foreign writes the walk
 * ends, it does not crash. */
struct walk {
    uint64_t block, pos;
    uint64_t number; /* of its first item */
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

/* The record that begins with item w->number, which exists; enters its block if that is the next one. NULL if broken.
 */
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
    return record->number == w->number && is_whole(q, w->block, w->pos) ? record : NULL;
}

static void walk_past(struct walk *w, const struct jnq_record *record)
{
    w->pos += record_size(record);
    w->number += record_items(record);
}

/* From the start of `block` to the record that holds, or will begin with, item `number`; *off is where in it. */
static bool walk_to(struct jnq_queue *q, struct walk *w, uint64_t block, uint64_t number, uint64_t *off)
{
    *off = 0;
    if (!walk_from(q, w, block))
        return false;
    while (w->number < number) {
        struct jnq_record *record = walk_record(q, w);
        if (!record)
            return false;
        if (number - w->number < record_items(record)) {
            *off = record_off(record, number - w->number);
            return *off != UINT64_MAX;
        }
        walk_past(w, record);
    }
    return w->number == number;
}

int fifo_repair_tail(struct jnq_queue *q)
{
    struct jnq_tail *tail = &q->sh->tail;
    struct walk w;
    uint64_t off;
    if (!walk_to(q, &w, tail->block, load_acq(&q->sh->puts), &off) || off)
        return JNQ_CORRUPT;
    tail->block = w.block;
    store_relaxed(&tail->pos, w.pos);
    store_relaxed(&tail->end, last_pos(q, w.block));
    return JNQ_OK;
}

int fifo_repair_head(struct jnq_queue *q)
{
    struct jnq_head *head = &q->sh->head;
    struct walk w;
    uint64_t off;
    store_relaxed(&head->puts_seen, load_relaxed(&q->sh->takes));
    if (load_relaxed(&q->sh->cut))
        return JNQ_OK; /* never used again */
    if (!walk_to(q, &w, head->block, load_relaxed(&q->sh->takes), &off))
        return JNQ_CORRUPT;
    head->block = w.block;
    head->pos = w.pos;
    head->off = off;
    return JNQ_OK;
}

bool fifo_each(struct jnq_queue *q, bool (*visit)(struct jnq_queue *, uint64_t unit))
{
    struct jnq_shared *sh = q->sh;
    struct walk w;
    uint64_t off;
    if (!walk_to(q, &w, sh->head.block, load_relaxed(&sh->takes), &off))
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
    uint64_t puts = load_acq(&sh->puts), takes = load_acq(&sh->takes), off;
    struct walk w;
    if (takes > puts || load_acq(&sh->dones) > puts)
        return 1;
    if (load_relaxed(&sh->cut))
        return 0;
    if (!walk_to(q, &w, sh->head.block, takes, &off) || w.pos != sh->head.pos || off != sh->head.off)
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
