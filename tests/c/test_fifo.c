/* fifo: items come out in order, whole, across blocks; the positions can be derived in every state that a death leaves;
 * what is no record is refused.
 *
 * The states that extend(), fifo_next() and fifo_step() pass through are written by hand here, one after the other. */
#include "harness.h"

#include "fifo.h"
#include "heap.h"
#include "lock.h"
#include "record.h"
#include "recover.h"

static const uint64_t sizes[] = {0, 1, 47, 48, 49, 8175, 8176};
#define SIZES (sizeof sizes / sizeof *sizes)

static uint64_t size_at(uint64_t number) { return sizes[number % SIZES]; }

/* Every third item is an extent, whatever its size. */
static bool is_extent(uint64_t number) { return number % 3 == 2; }

static int64_t soon(void) { return event_now() + 10 * SECOND; }

static void lock_tail(jnq_queue *q) { CHECK_EQ(recover_lock_tail(q, soon()), JNQ_OK); }

static void lock_head(jnq_queue *q) { CHECK_EQ(recover_lock_head(q, soon()), JNQ_OK); }

static void unlock_tail(jnq_queue *q) { lock_release(&q->sh->tail.lock); }

static void unlock_head(jnq_queue *q) { lock_release(&q->sh->head.lock); }

static uint64_t staged(jnq_queue *q, uint64_t bytes, uint64_t name)
{
    uint64_t unit;
    CHECK_EQ(heap_alloc(q, bytes ? bytes : 1, JNQ_FOREVER, &unit), JNQ_OK);
    fill(unit_at(q, unit), bytes, name);
    return unit;
}

static void push_sized(jnq_queue *q, uint64_t bytes, uint64_t name, bool extent)
{
    char payload[JNQ_INLINE_BYTES];
    fill(payload, bytes, name);
    uint64_t unit = extent ? staged(q, bytes, name) : 0;
    lock_tail(q);
    jnq_piece piece = {payload, bytes};
    struct fifo_load load = {
        .kind = extent ? JNQ_EXTENT : JNQ_INLINE, .pieces = &piece, .n = 1, .bytes = bytes, .unit = unit};
    CHECK_EQ(fifo_push(q, &load, JNQ_FOREVER), JNQ_OK);
    unlock_tail(q);
}

static void push(jnq_queue *q, uint64_t number) { push_sized(q, size_at(number), number, is_extent(number)); }

static int pop_box(jnq_queue *q, jnq_box *box)
{
    uint64_t freed;
    struct jnq_record *record;
    lock_head(q);
    int rc = fifo_next(q, &record, &freed);
    if (!rc)
        rc = record_unpack(q, record, q->sh->head.off, box);
    if (rc == JNQ_OK || rc == JNQ_LARGE)
        fifo_step(q, record, 0);
    unlock_head(q);
    if (freed)
        heap_free(q, freed);
    return rc;
}

static void pop_sized(jnq_queue *q, uint64_t bytes, uint64_t name, bool extent)
{
    jnq_box box;
    CHECK_EQ(pop_box(q, &box), extent ? JNQ_LARGE : JNQ_OK);
    CHECK_EQ(box.bytes, bytes);
    CHECK_EQ(box.unit != 0, extent);
    CHECK(filled(box.payload, bytes, name));
    if (extent)
        heap_free(q, box.unit);
}

static void pop(jnq_queue *q, uint64_t number) { pop_sized(q, size_at(number), number, is_extent(number)); }

static void is_empty(jnq_queue *q)
{
    jnq_box box;
    CHECK_EQ(pop_box(q, &box), JNQ_EMPTY);
}

static void is_whole(jnq_queue *q) { CHECK_EQ(jnq_check(q), 0); }

/* --- order ---------------------------------------------------------------------------------------------------------- */

static void items_come_in_order_over_blocks(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        uint64_t pushed = 0, popped = 0, random = random_state(0), blocks = 0, last = q->sh->tail.block;
        is_empty(q);
        for (unsigned i = 0; i < scaled(1500); i++) {
            /* Drifts up, then down. */
            if (below(&random, 100) < (i % 400 < 200 ? 70 : 30))
                push(q, pushed++);
            else if (popped < pushed)
                pop(q, popped++);
            else
                is_empty(q);
            CHECK_EQ(jnq_qsize(q), pushed - popped);
            blocks += q->sh->tail.block != last;
            last = q->sh->tail.block;
            is_whole(q);
        }
        CHECK_OP(blocks, >=, 3);
        while (popped < pushed)
            pop(q, popped++);
        is_empty(q);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

/* Each size alone: records that fill the block to the last line, and some that leave a rest. */
static void every_size_fills_blocks(void)
{
    for (unsigned k = 0; k < 2 * SIZES; k++) {
        jnq_queue *q = make_queue(0);
        bool extent = k >= SIZES;
        uint64_t bytes = sizes[k % SIZES], first = q->sh->tail.block, n = 0;
        for (uint64_t more = 3; more; n++) {
            push_sized(q, bytes, n, extent);
            more -= q->sh->tail.block != first; /* a few in the second */
        }
        is_whole(q);
        for (uint64_t i = 0; i < n; i++)
            pop_sized(q, bytes, i, extent);
        is_empty(q);
        is_whole(q);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

static void room_is_what_maxsize_leaves(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(2);
        rebase(q, base);
        for (uint64_t i = 0; i < 10; i++) {
            CHECK(fifo_room(q));
            push(q, 2 * i);
            CHECK(fifo_room(q));
            push(q, 2 * i + 1);
            CHECK(!fifo_room(q));
            pop(q, 2 * i);
            CHECK(fifo_room(q));
            pop(q, 2 * i + 1);
        }
        drop_queue(q);
    }
}

static void no_memory_leaves_it_as_it_was(void)
{
    jnq_queue *q = make_small_queue(0, 4 << 20);
    char payload[8000];
    fill(payload, sizeof payload, 7);
    int rc = JNQ_OK;
    uint64_t n = 0;
    lock_tail(q);
    jnq_piece piece = {payload, sizeof payload};
    struct fifo_load load = {.kind = JNQ_INLINE, .pieces = &piece, .n = 1, .bytes = sizeof payload};
    while (!(rc = fifo_push(q, &load, JNQ_FOREVER)))
        n++;
    unlock_tail(q);
    CHECK_EQ(rc, JNQ_NO_MEMORY);
    CHECK_OP(n, >, 100);
    CHECK_EQ(jnq_qsize(q), n);
    is_whole(q);
    for (uint64_t i = 0; i < n; i++)
        pop_sized(q, sizeof payload, 7, false);
    is_empty(q);
    push(q, 1);
    pop(q, 1);
    drop_queue(q);
}

/* --- repair --------------------------------------------------------------------------------------------------------- */

static void repair_tail(jnq_queue *q)
{
    lock_tail(q);
    CHECK_EQ(fifo_repair_tail(q), JNQ_OK);
    unlock_tail(q);
}

static void repair_head(jnq_queue *q)
{
    lock_head(q);
    CHECK_EQ(fifo_repair_head(q), JNQ_OK);
    unlock_head(q);
}

/* Whatever the positions were, repair makes them what they had been. */
static void positions_are_derived_at_every_step(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        struct jnq_tail *tail = &q->sh->tail;
        struct jnq_head *head = &q->sh->head;
        const uint64_t garbage[] = {0, 1, UINT64_MAX, q->sh->heap_off, (uint64_t)1 << 63};
        uint64_t pushed = 0, popped = 0, random = random_state(1);
        for (unsigned i = 0; i < scaled(1000); i++) {
            if (below(&random, 100) < (i % 300 < 150 ? 70 : 30) || popped == pushed)
                push(q, pushed++);
            else
                pop(q, popped++);
            uint64_t pos = tail->pos, end = tail->end, block = tail->block;
            tail->pos = garbage[below(&random, 5)];
            tail->end = garbage[below(&random, 5)];
            repair_tail(q);
            CHECK_EQ(tail->block, block);
            CHECK_EQ(tail->pos, pos);
            CHECK_EQ(tail->end, end);
            pos = head->pos, block = head->block;
            head->pos = garbage[below(&random, 5)];
            head->puts_seen = garbage[below(&random, 5)];
            repair_head(q);
            CHECK_EQ(head->block, block);
            CHECK_EQ(head->pos, pos);
            is_whole(q);
        }
        while (popped < pushed)
            pop(q, popped++);
        is_empty(q);
        drop_queue(q);
    }
}

/* A queue whose next long record needs a new block; `queued` of its items were not taken. Gives the next number. */
static uint64_t fill_block(jnq_queue *q, uint64_t queued)
{
    uint64_t number = 0;
    for (; q->sh->tail.pos + 8256 <= q->sh->tail.end; number++)
        push_sized(q, 8176, number, false);
    for (uint64_t i = 0; i + queued < number; i++)
        pop_sized(q, 8176, i, false);
    return number;
}

/* The steps of extend() up to the given one, which was the last; the rest is missing. Gives the new block. */
static uint64_t extend_until(jnq_queue *q, int last)
{
    struct jnq_tail *tail = &q->sh->tail;
    uint64_t unit, number = q->sh->puts;
    CHECK_EQ(heap_alloc(q, BLOCK_BYTES, JNQ_FOREVER, &unit), JNQ_OK);
    struct jnq_block *block = unit_at(q, unit);
    block->next = 0;
    block->first = number;
    if (last >= 1) {
        struct jnq_record *end = at(q, tail->pos);
        end->number = number;
        end->kind = JNQ_END;
        end->inline_bytes = 0;
    }
    if (last >= 2)
        ((struct jnq_block *)unit_at(q, tail->block))->next = unit;
    if (last >= 3)
        tail->block = unit;
    if (last >= 4)
        tail->pos = (uint64_t)((char *)block - q->base) + sizeof *block;
    if (last >= 5)
        tail->end = (uint64_t)((char *)block - q->base) + BLOCK_BYTES - LINE_BYTES;
    return unit;
}

static void death_in_extend_is_repaired(void)
{
    EACH_BASE(base) for (int last = 0; last <= 5; last++) for (int variant = 0; variant < 8; variant++)
    {
        bool small = variant & 1, empty = variant & 2, head_too = variant & 4;
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        uint64_t number = fill_block(q, empty ? 0 : 3), popped = empty ? number : number - 3, old = q->sh->tail.block;
        uint64_t unit = extend_until(q, last);
        repair_tail(q);
        if (head_too)
            repair_head(q);
        is_whole(q);
        CHECK_EQ(q->sh->tail.block, last >= 3 ? unit : old);
        CHECK_EQ(jnq_qsize(q), number - popped);
        if (empty)
            is_empty(q);
        if (small) { /* may take the place of the end of the block */
            push_sized(q, 0, number++, false);
            is_whole(q);
        }
        for (int i = 0; i < 10; i++) {
            push_sized(q, 8176, number++, false);
            is_whole(q);
        }
        for (; popped < number; popped++) {
            pop_sized(q, small && popped == number - 11 ? 0 : 8176, popped, false);
            is_whole(q);
        }
        is_empty(q);
        if (last < 3) /* it was never reached, and is ours */
            heap_free(q, unit);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

/* The steps of a pop that goes to the next block. */
static void pop_until(jnq_queue *q, int last)
{
    struct jnq_head *head = &q->sh->head;
    uint64_t next = ((struct jnq_block *)unit_at(q, head->block))->next;
    CHECK_EQ(((struct jnq_record *)at(q, head->pos))->kind, JNQ_END);
    if (last >= 0)
        head->puts_seen = q->sh->puts;
    if (last >= 1)
        heap_own(q, head->block);
    if (last >= 2)
        head->block = next;
    uint64_t pos = (uint64_t)((char *)unit_at(q, next) - q->base) + sizeof(struct jnq_block);
    if (last >= 3)
        head->pos = pos;
    if (last >= 4) {
        struct jnq_record *record = at(q, pos);
        if (record->kind == JNQ_EXTENT)
            heap_own(q, record->extent.unit);
    }
    if (last >= 5)
        q->sh->takes++;
}

static void death_between_blocks_is_repaired(void)
{
    EACH_BASE(base) for (int last = 0; last <= 5; last++) for (int variant = 0; variant < 4; variant++)
    {
        bool extent = variant & 1, tail_too = variant & 2;
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        uint64_t number = fill_block(q, 0), popped = number, old = q->sh->head.block, lost = 0;
        for (; q->sh->tail.block == old; number++) /* small ones, until it is full: the last goes to the next block */
            push_sized(q, 48, number, extent);
        for (; popped + 1 < number; popped++)
            pop_sized(q, 48, popped, extent);
        push_sized(q, 49, number++, !extent);
        pop_until(q, last);
        if (last >= 5) {
            lost = extent ? ((struct jnq_record *)at(q, q->sh->head.pos))->extent.unit : 0;
            popped++;
        }
        repair_head(q);
        if (tail_too)
            repair_tail(q);
        is_whole(q);
        CHECK_EQ(jnq_qsize(q), number - popped);
        for (; popped < number; popped++) {
            bool second = popped == number - 1;
            pop_sized(q, second ? 49 : 48, popped, extent != second);
            is_whole(q);
        }
        is_empty(q);
        if (last >= 2) /* unlinked, but nobody has freed it */
            heap_free(q, old);
        if (lost)
            heap_free(q, lost);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

static void repair_finds_what_is_broken(void)
{
    jnq_queue *q = make_queue(0);
    for (uint64_t i = 0; i < 5; i++)
        push_sized(q, 10, i, false);
    struct jnq_record *record = at(q, q->sh->head.pos + 2 * LINE_BYTES), before = *record;
    uint64_t tail_block = q->sh->tail.block;
    lock_tail(q);
    lock_head(q);
    record->number += 1;
    CHECK_EQ(fifo_repair_tail(q), JNQ_CORRUPT);
    *record = before;
    record->kind = 77;
    CHECK_EQ(fifo_repair_tail(q), JNQ_CORRUPT);
    *record = before;
    record->kind = JNQ_END; /* leads nowhere */
    CHECK_EQ(fifo_repair_tail(q), JNQ_CORRUPT);
    *record = before;
    record->inline_bytes = JNQ_INLINE_BYTES + 1;
    CHECK_EQ(fifo_repair_tail(q), JNQ_CORRUPT);
    *record = before;
    q->sh->tail.block = UINT64_MAX;
    CHECK_EQ(fifo_repair_tail(q), JNQ_CORRUPT);
    q->sh->tail.block = tail_block;
    q->sh->head.block = tail_block + 1;
    CHECK_EQ(fifo_repair_head(q), JNQ_CORRUPT);
    q->sh->head.block = tail_block;
    CHECK_EQ(fifo_repair_tail(q), JNQ_OK);
    CHECK_EQ(fifo_repair_head(q), JNQ_OK);
    unlock_head(q);
    unlock_tail(q);
    for (uint64_t i = 0; i < 5; i++)
        pop_sized(q, 10, i, false);
    drop_queue(q);
}

static void pop_refuses_what_is_no_record(void)
{
    jnq_queue *q = make_queue(0);
    jnq_box box;
    for (int extent = 0; extent < 2; extent++) {
        push_sized(q, 20, 1, extent);
        struct jnq_record *record = at(q, q->sh->head.pos), before = *record;
        record->number++;
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        *record = before;
        record->kind = 0;
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        record->kind = UINT16_MAX;
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        record->kind = JNQ_END;
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        *record = before;
        if (extent) {
            record->extent.bytes = q->sh->unit_bytes + 1;
            CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
            *record = before;
            record->extent.unit = UINT64_MAX;
            CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        } else {
            record->inline_bytes = UINT32_MAX;
            CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        }
        *record = before;
        pop_sized(q, 20, 1, extent);
    }
    drop_queue(q);
}

static void positions_outside_are_not_used(void)
{
    jnq_queue *q = make_queue(0);
    struct jnq_shared *sh = q->sh;
    jnq_box box;
    push_sized(q, 20, 0, false);
    const uint64_t block = sh->head.block, head = sh->head.pos, tail = sh->tail.pos;
    const uint64_t wrong_pos[] = {0, 1, head + 1, head + BLOCK_BYTES, sh->segment_bytes, UINT64_MAX - 63, UINT64_MAX};
    const uint64_t wrong_block[] = {block + 1, sh->units - 1, sh->units, UINT64_MAX};
    for (unsigned i = 0; i < sizeof wrong_pos / sizeof *wrong_pos; i++) {
        sh->head.pos = sh->tail.pos = wrong_pos[i];
        CHECK_EQ(jnq_put(q, "x", 1, JNQ_NOW), JNQ_CORRUPT);
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        sh->head.pos = head;
        sh->tail.pos = tail;
    }
    for (unsigned i = 0; i < sizeof wrong_block / sizeof *wrong_block; i++) {
        sh->head.block = sh->tail.block = wrong_block[i];
        CHECK_EQ(jnq_put(q, "x", 1, JNQ_NOW), JNQ_CORRUPT);
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        sh->head.block = sh->tail.block = block;
    }
    pop_sized(q, 20, 0, false);
    is_whole(q);
    drop_queue(q);
}

static void records_that_do_not_fit_are_refused(void)
{
    jnq_queue *q = make_queue(0);
    jnq_box box;
    for (uint64_t number = 0; q->sh->tail.pos < q->sh->tail.end; number++) /* to the last line of the block */
        CHECK_EQ(jnq_put_integer(q, 1, JNQ_NOW), JNQ_OK);
    while (q->sh->head.pos < q->sh->tail.end - LINE_BYTES)
        CHECK_EQ(pop_box(q, &box), JNQ_OK);
    struct jnq_record *record = at(q, q->sh->head.pos), before = *record;
    record->kind = JNQ_INLINE;
    record->inline_bytes = JNQ_INLINE_BYTES; /* more than the block has */
    CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
    *record = before;
    const struct jnq_record no_items[] = {{.kind = JNQ_INLINE, .form = JNQ_INTEGER, .inline_bytes = 7},
                                          {.kind = JNQ_INLINE, .form = JNQ_FLOAT, .inline_bytes = 9},
                                          {.kind = JNQ_INLINE, .form = JNQ_NONE, .inline_bytes = 1},
                                          {.kind = JNQ_INLINE, .form = JNQ_FORMS, .inline_bytes = 8},
                                          {.kind = JNQ_CHUNK, .form = 0, .inline_bytes = 16}};
    for (int i = 0; i < 5; i++) {
        record->kind = no_items[i].kind;
        record->form = no_items[i].form;
        record->inline_bytes = no_items[i].inline_bytes;
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
    }
    *record = before;
    CHECK_EQ(pop_box(q, &box), JNQ_OK);
    is_whole(q);
    drop_queue(q);
}

static void check_names_the_broken_invariant(void)
{
    jnq_queue *q = make_queue(0);
    struct jnq_shared *sh = q->sh;
    push_sized(q, 20, 0, false);
    push_sized(q, 20, 1, true);
    sh->dones = 3;
    CHECK_EQ(jnq_check(q), 1);
    sh->dones = 0;
    sh->takes = 3;
    CHECK_EQ(jnq_check(q), 1);
    sh->takes = 0;
    sh->head.pos += LINE_BYTES;
    CHECK_EQ(jnq_check(q), 2);
    sh->head.pos -= LINE_BYTES;
    sh->tail.pos += LINE_BYTES;
    CHECK_EQ(jnq_check(q), 2);
    sh->tail.pos -= LINE_BYTES;
    struct jnq_record *record = at(q, sh->head.pos + LINE_BYTES);
    uint64_t unit = record->extent.unit;
    record->extent.unit = sh->head.block; /* reached twice */
    CHECK_EQ(jnq_check(q), 4);
    record->extent.unit = unit;
    sh->head.front = (uint64_t)1 << (64 - LIST_BITS) | (unit + 1);
    CHECK_EQ(jnq_check(q), 6);
    sh->head.front = 0;
    is_whole(q);
    pop_sized(q, 20, 0, false);
    pop_sized(q, 20, 1, true);
    drop_queue(q);
}

/* --- every run -------------------------------------------------------------------------------------------------------- */

#define VISITS_MAX 200
static uint64_t visited[VISITS_MAX];
static unsigned visits, visits_wanted; /* the visit after so many ends the walk */

static bool visit(jnq_queue *q, uint64_t unit)
{
    CHECK_OP(heap_bytes(q, unit), >, 0);
    for (unsigned i = 0; i < visits; i++)
        CHECK(visited[i] != unit); /* each once */
    visited[visits++] = unit;
    return visits <= visits_wanted;
}

static bool visit_each(jnq_queue *q, unsigned wanted)
{
    visits = 0;
    visits_wanted = wanted;
    lock_tail(q);
    lock_head(q);
    bool whole = fifo_each(q, visit);
    unlock_head(q);
    unlock_tail(q);
    return whole;
}

static void each_visits_blocks_and_extents_in_order(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t extents[40], n = 0, blocks = 1, last = q->sh->tail.block;
    CHECK(visit_each(q, VISITS_MAX));
    CHECK_EQ(visits, 1); /* the block */
    for (uint64_t i = 0; i < 40; i++) {
        push_sized(q, 8000, i, false);
        blocks += q->sh->tail.block != last;
        last = q->sh->tail.block;
        push_sized(q, 10, 100 + i, true);
        extents[i] = ((struct jnq_record *)at(q, q->sh->tail.pos - LINE_BYTES))->extent.unit;
    }
    pop_sized(q, 8000, 0, false); /* an item taken is visited no more */
    pop_sized(q, 10, 100, true);
    CHECK(visit_each(q, VISITS_MAX));
    CHECK_OP(blocks, >=, 5);
    CHECK_EQ(visits, 39 + blocks);
    for (unsigned i = 0; i < visits; i++)
        n += n < 39 && visited[i] == extents[1 + n]; /* the blocks are in between */
    CHECK_EQ(n, 39);
    CHECK_EQ(visited[visits - 1], q->sh->tail.block);
    unsigned all = visits;
    for (unsigned wanted = 0; wanted < all; wanted++) {
        CHECK(!visit_each(q, wanted)); /* a visit may end it */
        CHECK_EQ(visits, wanted + 1);
    }
    for (uint64_t i = 1; i < 40; i++) {
        pop_sized(q, 8000, i, false);
        pop_sized(q, 10, 100 + i, true);
    }
    CHECK(visit_each(q, VISITS_MAX));
    CHECK_EQ(visits, idle_bytes(q) / BLOCK_BYTES);
    drop_queue(q);
}

static bool own(jnq_queue *q, uint64_t unit)
{
    heap_own(q, unit);
    return true;
}

static bool discard(jnq_queue *q, uint64_t unit)
{
    if (unit != q->sh->tail.block)
        heap_free(q, unit);
    return true;
}

/* As in queue.c: what is visited may be freed. */
static void each_may_free_what_it_visits(void)
{
    for (uint64_t queued = 0; queued < 200; queued += 39) {
        jnq_queue *q = make_queue(0);
        for (uint64_t i = 0; i < queued + 10; i++)
            push(q, i);
        for (uint64_t i = 0; i < 10; i++)
            pop(q, i);
        lock_tail(q);
        lock_head(q);
        CHECK(fifo_each(q, own));
        store_sc(&q->sh->cut, 11);
        CHECK(fifo_each(q, discard));
        unlock_head(q);
        unlock_tail(q);
        is_empty(q);
        CHECK_EQ(jnq_qsize(q), 0);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        repair_head(q);
        repair_tail(q);
        drop_queue(q);
    }
}

/* --- chunks --------------------------------------------------------------------------------------------------------- */

/* Of items in chunks. */
static uint64_t small_at(uint64_t number)
{
    static const uint64_t smalls[] = {0, 1, 7, 8, 9, 40, 47, 900};
    return smalls[number % (sizeof smalls / sizeof *smalls)];
}

static int push_packed(jnq_queue *q, const struct packed *chunk)
{
    jnq_piece piece = {chunk->start, chunk->bytes};
    struct fifo_load load = {
        .kind = JNQ_CHUNK, .form = (uint16_t)chunk->items, .pieces = &piece, .n = 1, .bytes = chunk->bytes};
    lock_tail(q);
    int rc = fifo_push(q, &load, JNQ_FOREVER);
    unlock_tail(q);
    return rc;
}

/* So many items from `number` on, as many as fit. Gives how many. */
static uint64_t push_chunk(jnq_queue *q, uint64_t n, uint64_t number)
{
    struct packed chunk = {0};
    while (chunk.items < n && chunk.bytes + record_packed(small_at(number + chunk.items)) <= JNQ_INLINE_BYTES)
        pack_item(&chunk, small_at(number + chunk.items), number + chunk.items);
    CHECK_EQ(push_packed(q, &chunk), JNQ_OK);
    return chunk.items;
}

/* Takes a batch of items from `number` on. Gives how many, or why none. Nothing is written behind the room. */
static int64_t pop_batch(jnq_queue *q, uint64_t room, uint64_t most, uint64_t number)
{
    static _Alignas(8) char batch[4 * JNQ_INLINE_BYTES], untouched[sizeof batch];
    uint64_t freed, n = 0;
    struct jnq_record *record;
    memset(batch, '?', sizeof batch);
    memset(untouched, '?', sizeof untouched);
    lock_head(q);
    int rc = fifo_next(q, &record, &freed);
    if (!rc)
        n = fifo_step_batch(q, batch, room, most);
    unlock_head(q);
    if (freed)
        heap_free(q, freed);
    if (room < sizeof batch)
        CHECK(!memcmp(batch + room, untouched, sizeof batch - room));
    if (rc || number == UINT64_MAX)
        return rc ? rc : (int64_t)n;
    const char *at = batch;
    for (uint64_t i = 0; i < n; i++)
        at = next_packed(at, small_at(number + i), number + i);
    CHECK_OP(at - batch, <=, room);
    CHECK_OP(n, <=, most);
    return (int64_t)n;
}

/* Whatever the head's position was, repair makes it what it had been. */
static void derive_head(jnq_queue *q, uint64_t *random)
{
    struct jnq_head *head = &q->sh->head;
    const uint64_t garbage[] = {0, 1, 8, head->off + 8, UINT64_MAX, UINT64_MAX - 7};
    uint64_t pos = head->pos, off = head->off, block = head->block;
    if (below(random, 2))
        head->pos = garbage[below(random, 6)];
    head->off = garbage[below(random, 6)];
    repair_head(q);
    CHECK_EQ(head->block, block);
    CHECK_EQ(head->pos, pos);
    CHECK_EQ(head->off, off);
}

static void chunks_come_item_by_item_and_in_batches(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        uint64_t pushed = 0, popped = 0, random = random_state(2), blocks = 0, last = q->sh->tail.block, most = 0;
        for (unsigned i = 0; i < scaled(2000); i++) {
            bool grows = i % 500 < 250;
            switch (below(&random, grows ? 4 : 9)) {
            case 0:
            case 1:
                pushed += push_chunk(q, 1 + below(&random, below(&random, 4) ? 20 : 2000), pushed);
                break;
            case 2:
                push_sized(q, small_at(pushed), pushed, false);
                pushed++;
                break;
            case 3:
                if (popped < pushed) {
                    uint64_t room = 8 + below(&random, 2) * below(&random, 16384);
                    int64_t n = pop_batch(q, room, 1 + below(&random, 300), popped);
                    CHECK_OP(n, >=, room >= 1000 ? 1 : 0);
                    popped += (uint64_t)n;
                    most = (uint64_t)n > most ? (uint64_t)n : most;
                }
                break;
            default:
                if (popped < pushed) {
                    pop_sized(q, small_at(popped), popped, false);
                    popped++;
                } else {
                    is_empty(q);
                    CHECK_EQ(pop_batch(q, 16384, 5, popped), JNQ_EMPTY);
                }
            }
            CHECK_EQ(jnq_qsize(q), pushed - popped);
            blocks += q->sh->tail.block != last;
            last = q->sh->tail.block;
            derive_head(q, &random);
            repair_tail(q);
            is_whole(q);
        }
        CHECK_OP(blocks, >=, 3);
        CHECK_OP(most, >=, 50);
        while (popped < pushed)
            popped += (uint64_t)pop_batch(q, 16384, INT64_MAX, popped);
        is_empty(q);
        CHECK_EQ(q->sh->takes, base + pushed);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

/* A batch takes no more than asked for, than fits, than lies in this block, or than lies before an extent. */
static void batch_ends_where_it_must(void)
{
    jnq_queue *q = make_queue(0);
    struct packed chunk = {0};
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 10; i++) {
        pack_item(&chunk, small_at(i), i);
        sum += record_packed(small_at(i));
    }
    for (uint64_t n = 1; n <= 11; n++) { /* the number */
        CHECK_EQ(push_packed(q, &chunk), JNQ_OK);
        CHECK_EQ(pop_batch(q, 16384, n, 0), n < 10 ? n : 10);
        if (n < 10)
            CHECK_EQ(pop_batch(q, 16384, 16384, n), 10 - n);
    }
    CHECK_EQ(push_packed(q, &chunk), JNQ_OK); /* the room */
    CHECK_EQ(pop_batch(q, record_packed(small_at(0)) - 1, 10, 0), 0);
    CHECK_EQ(pop_batch(q, record_packed(small_at(0)), 10, 0), 1);
    uint64_t rest = sum - record_packed(small_at(0));
    CHECK_EQ(pop_batch(q, rest - 1, 10, 1), 8);
    CHECK_EQ(pop_batch(q, record_packed(small_at(9)) - 1, 10, 9), 0);
    CHECK_EQ(pop_batch(q, record_packed(small_at(9)), 10, 9), 1);
    is_empty(q);
    push_sized(q, 9, 7, false); /* an inline record's room */
    CHECK_EQ(pop_batch(q, record_packed(9) - 1, 10, UINT64_MAX), 0);
    CHECK_EQ(pop_batch(q, record_packed(9), 10, UINT64_MAX), 1);
    CHECK_EQ(push_packed(q, &chunk), JNQ_OK); /* an extent behind, and in front */
    push_sized(q, 5, 10, true);
    CHECK_EQ(push_packed(q, &chunk), JNQ_OK);
    CHECK_EQ(pop_batch(q, 16384, 100, 0), 10);
    CHECK_EQ(pop_batch(q, 16384, 100, 10), 0);
    is_whole(q);
    pop_sized(q, 5, 10, true);
    CHECK_EQ(pop_batch(q, 16384, 100, 0), 10);
    is_whole(q);
    uint64_t number = fill_block(q, 0), first = q->sh->tail.block; /* the end of the block */
    CHECK_OP(number, >, 0);
    uint64_t in_first = 0, all = 0;
    while (q->sh->tail.block == first) {
        in_first = all;
        all += push_chunk(q, 3, all);
    }
    CHECK_EQ(q->sh->head.block, first);
    uint64_t popped = 0;
    while (popped < in_first) {
        CHECK_EQ(q->sh->head.block, first);
        popped += (uint64_t)pop_batch(q, 16384, INT64_MAX, popped);
    }
    CHECK_EQ(popped, in_first);
    is_whole(q);
    CHECK_EQ(pop_batch(q, 16384, INT64_MAX, popped), all - popped);
    CHECK(q->sh->head.block != first);
    is_empty(q);
    CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
    drop_queue(q);
}

/* Chunks that fill a block to its last line, and that leave some. */
static void chunks_of_every_size_fill_blocks(void)
{
    for (uint64_t last = 0; last <= 8168; last += last < 64 ? 8 : 1013) {
        jnq_queue *q = make_queue(0);
        uint64_t first = q->sh->tail.block, n = 0;
        struct packed chunk = {0};
        pack_item(&chunk, last, 5);
        while (chunk.items < 3 && chunk.bytes + 8 <= JNQ_INLINE_BYTES)
            pack_item(&chunk, 0, 5);
        for (uint64_t more = 3; more; n++) {
            CHECK_EQ(push_packed(q, &chunk), JNQ_OK);
            more -= q->sh->tail.block != first;
        }
        is_whole(q);
        CHECK_EQ(jnq_qsize(q), n * chunk.items);
        for (uint64_t i = 0; i < n; i++) {
            pop_sized(q, last, 5, false);
            for (uint64_t k = 1; k < chunk.items; k++)
                pop_sized(q, 0, 5, false);
        }
        is_empty(q);
        is_whole(q);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

/* After R2 of any number of items, with the position as it was, half-changed or changed. */
static void death_inside_a_chunk_is_repaired(void)
{
    EACH_BASE(base) for (uint64_t before = 0; before < 12; before++) for (uint64_t n = 1; before + n <= 12; n++)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        struct jnq_head *head = &q->sh->head;
        push_chunk(q, 5, 0); /* 5, 1 and 6 items */
        push_sized(q, small_at(5), 5, false);
        push_chunk(q, 6, 6);
        for (uint64_t i = 0; i < before; i++)
            pop_sized(q, small_at(i), i, false);
        uint64_t pos = head->pos, off = head->off;
        CHECK_EQ(pop_batch(q, 16384, n, before), n);
        uint64_t new_pos = head->pos, new_off = head->off;
        for (int changed = 0; changed < 4; changed++) {
            head->pos = changed & 1 ? new_pos : pos;
            head->off = changed & 2 ? new_off : off;
            repair_head(q);
            CHECK_EQ(head->pos, new_pos);
            CHECK_EQ(head->off, new_off);
        }
        q->sh->takes = base + before; /* and before R2 */
        repair_head(q);
        CHECK_EQ(head->pos, pos);
        CHECK_EQ(head->off, off);
        for (uint64_t i = before; i < 12; i++) {
            pop_sized(q, small_at(i), i, false);
            is_whole(q);
        }
        is_empty(q);
        drop_queue(q);
    }
}

static void check_sees_a_wrong_place_in_a_chunk(void)
{
    jnq_queue *q = make_queue(0);
    push_chunk(q, 5, 0);
    pop_sized(q, small_at(0), 0, false);
    q->sh->head.off += 8;
    CHECK_EQ(jnq_check(q), 2);
    q->sh->head.off = 0;
    CHECK_EQ(jnq_check(q), 2);
    repair_head(q);
    is_whole(q);
    drop_queue(q);
}

/* Everything that may be done with a queue whose chunk is a lie: each answer is an item or JNQ_CORRUPT, and whatever it
 * is, nothing is read or written outside. Gives whether any was an item. */
static bool survives(jnq_queue *q)
{
    struct jnq_shared *sh = q->sh;
    struct jnq_head head = sh->head;
    struct jnq_tail tail = sh->tail;
    uint64_t takes = sh->takes;
    bool any = false;
    jnq_box box;
    for (int i = 0; i < 20; i++) { /* more than there are */
        int rc = pop_box(q, &box);
        CHECK(rc == JNQ_OK || rc == JNQ_CORRUPT || rc == JNQ_EMPTY);
        CHECK(rc != JNQ_OK || box.bytes <= JNQ_INLINE_BYTES);
        any |= rc == JNQ_OK;
    }
    for (uint64_t most = 1; most < 20; most += 6) {
        sh->head.pos = head.pos;
        sh->head.off = head.off;
        sh->takes = takes;
        for (uint64_t room = 8; room < 20000; room *= 5) {
            int64_t n = pop_batch(q, room, most, UINT64_MAX);
            CHECK(n >= 0 || n == JNQ_CORRUPT || n == JNQ_EMPTY);
            CHECK_OP(n, <=, most);
        }
    }
    sh->head.pos = head.pos;
    sh->head.off = head.off;
    sh->takes = takes;
    lock_tail(q);
    lock_head(q);
    int rc = fifo_repair_tail(q);
    CHECK(rc == JNQ_OK || rc == JNQ_CORRUPT);
    rc = fifo_repair_head(q);
    CHECK(rc == JNQ_OK || rc == JNQ_CORRUPT);
    visits = 0;
    visits_wanted = VISITS_MAX - 1;
    fifo_each(q, visit);
    fifo_check(q);
    unlock_head(q);
    unlock_tail(q);
    sh->head.pos = head.pos;
    sh->head.off = head.off;
    sh->head.puts_seen = head.puts_seen;
    sh->tail.pos = tail.pos;
    sh->tail.end = tail.end;
    sh->takes = takes;
    return any;
}

static void forged_chunks_are_refused(void)
{
    jnq_queue *q = make_queue(0);
    push_chunk(q, 10, 0);
    push_chunk(q, 3, 10);
    for (uint64_t taken = 0; taken < 10; taken += 3) {
        for (; q->sh->takes < taken;)
            pop_sized(q, small_at(q->sh->takes), q->sh->takes, false);
        struct jnq_record *record = at(q, q->sh->head.pos), before = *record;
        CHECK(survives(q)); /* the truth */
        const uint16_t counts[] = {0, 1, 2, 9, 11, 13, 14, 1000, UINT16_MAX};
        for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
            record->form = counts[i];
            survives(q);
        }
        *record = before;
        const uint32_t lengths[] = {0,
                                    1,
                                    7,
                                    8,
                                    15,
                                    16,
                                    before.inline_bytes - 8,
                                    before.inline_bytes - 1,
                                    before.inline_bytes + 1,
                                    before.inline_bytes + 64,
                                    JNQ_INLINE_BYTES,
                                    JNQ_INLINE_BYTES + 1,
                                    UINT32_MAX - 63,
                                    UINT32_MAX};
        for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            record->inline_bytes = lengths[i];
            survives(q);
        }
        *record = before;
        uint64_t off = q->sh->head.off;
        const uint64_t offs[] = {1,
                                 4,
                                 8,
                                 off + 8,
                                 before.inline_bytes,
                                 before.inline_bytes - 8,
                                 8176,
                                 BLOCK_BYTES,
                                 (uint64_t)1 << 40,
                                 UINT64_MAX,
                                 UINT64_MAX - 7};
        for (unsigned i = 0; i < sizeof offs / sizeof *offs; i++) {
            q->sh->head.off = offs[i];
            survives(q);
        }
        q->sh->head.off = off;
        const uint32_t words[] = {0,         1, 8, 9, 900, 8160, 8168, 8169, 8176, 8177, UINT32_MAX - 7, UINT32_MAX - 6,
                                  UINT32_MAX};
        for (uint64_t item = 0, place = 0; item < 10; item++) {
            jnq_packed *header = (jnq_packed *)(void *)(record->payload + place), was = *header;
            for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
                header->bytes = words[i];
                survives(q);
                *header = was;
                header->form = words[i];
                survives(q);
                *header = was;
            }
            place += record_packed(was.bytes);
        }
    }
    const jnq_packed lies[] = {{7, JNQ_INTEGER}, {9, JNQ_FLOAT},  {8, JNQ_NONE},    {1, JNQ_TRUE},
                               {0, JNQ_FORMS},   {0, UINT32_MAX}, {9000, JNQ_BYTES}};
    struct jnq_record *record = at(q, q->sh->head.pos), whole = *record;
    jnq_packed *header = (jnq_packed *)(void *)(record->payload + q->sh->head.off), was = *header;
    for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
        jnq_box box;
        *header = lies[i];
        CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
        CHECK_EQ(pop_batch(q, 16384, 10, UINT64_MAX), 0);
        *header = was;
    }
    record->inline_bytes = 20000; /* longer than any, and an item that is, too */
    *header = (jnq_packed){9000, JNQ_BYTES};
    jnq_box box;
    CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
    CHECK_EQ(pop_batch(q, 16384, 10, UINT64_MAX), JNQ_CORRUPT);
    *record = whole;
    *header = was;
    struct jnq_record *second = at(q, q->sh->head.pos + record_size(record));
    second->number++;
    uint64_t left = 10 - q->sh->takes;
    CHECK_EQ(pop_batch(q, 16384, 10, UINT64_MAX), left); /* not one of the second */
    CHECK_EQ(pop_batch(q, 16384, 10, UINT64_MAX), JNQ_CORRUPT);
    second->number--;
    is_whole(q);
    while (q->sh->takes < 13)
        pop_sized(q, small_at(q->sh->takes), q->sh->takes, false);
    is_empty(q);
    drop_queue(q);
}

/* A chunk of which a part was taken is walked over once, and what lies behind it is seen. */
static void each_visits_what_lies_behind_a_chunk(void)
{
    jnq_queue *q = make_queue(0);
    push_chunk(q, 5, 0);
    push_sized(q, 10, 100, true);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK(visit_each(q, VISITS_MAX));
        CHECK_EQ(visits, 2);
        pop_sized(q, small_at(i), i, false);
    }
    CHECK(visit_each(q, VISITS_MAX));
    CHECK_EQ(visits, 2);
    pop_sized(q, 10, 100, true);
    CHECK(visit_each(q, VISITS_MAX));
    CHECK_EQ(visits, 1);
    drop_queue(q);
}

TESTS("fifo", items_come_in_order_over_blocks, every_size_fills_blocks, room_is_what_maxsize_leaves,
      no_memory_leaves_it_as_it_was, positions_are_derived_at_every_step, death_in_extend_is_repaired,
      death_between_blocks_is_repaired, repair_finds_what_is_broken, pop_refuses_what_is_no_record,
      positions_outside_are_not_used, records_that_do_not_fit_are_refused, check_names_the_broken_invariant,
      each_visits_blocks_and_extents_in_order, each_may_free_what_it_visits, chunks_come_item_by_item_and_in_batches,
      batch_ends_where_it_must, chunks_of_every_size_fill_blocks, death_inside_a_chunk_is_repaired,
      check_sees_a_wrong_place_in_a_chunk, forged_chunks_are_refused, each_visits_what_lies_behind_a_chunk)
