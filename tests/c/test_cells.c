/* cells: the front list comes first; a lease is its taker's until it is finished, given back, or redelivered after
 * a death, in order; what has killed too many becomes a dead letter; and whoever dies while redelivering is followed
 * by another who does it once.
 *
 * Linked with --wrap=heap_lease and --wrap=clock_gettime: there a redelivery can be made to die. */
#include "harness.h"

#include "cells.h"
#include "counts.h"
#include "heap.h"
#include "lock.h"
#include "procs.h"
#include "recover.h"

static const uint64_t sizes[] = {0, 1, 48, 8176, 8177, 70000};
#define SIZES (sizeof sizes / sizeof *sizes)

static uint64_t size_at(uint64_t name) { return sizes[name % SIZES]; }

static int64_t soon(void) { return event_now() + 10 * SECOND; }

static void lock_head(jnq_queue *q) { CHECK_EQ(recover_lock_head(q, soon()), JNQ_OK); }

static void unlock_head(jnq_queue *q) { lock_release(&q->sh->head.lock); }

static void is_whole(jnq_queue *q) { CHECK_EQ(jnq_check(q), 0); }

static jnq_queue *make_redelivering(uint32_t max_deliveries)
{
    return make_mortal_queue(0, JNQ_REDELIVER, max_deliveries);
}

static void put_names(jnq_queue *q, uint64_t first, uint64_t n)
{
    for (uint64_t name = first; name < first + n; name++)
        put_item(q, size_at(name), name);
}

static void take_name(jnq_queue *q, jnq_box *box, uint64_t name) { take_item(q, box, size_at(name), name); }

static void get_names(jnq_queue *q, uint64_t first, uint64_t n)
{
    for (uint64_t name = first; name < first + n; name++)
        get_item(q, size_at(name), name);
}

/* A process that takes so many, the first of them called `first`, and dies. */
static void take_and_die(jnq_queue *q, uint64_t first, uint64_t n)
{
    jnq_queue *other = second_handle(q);
    jnq_box box;
    for (uint64_t name = first; name < first + n; name++)
        take_name(other, &box, name);
    kill_handle(other, 4711);
}

static void is_empty_again(jnq_queue *q)
{
    CHECK_EQ(jnq_qsize(q), 0);
    CHECK_EQ(jnq_unfinished(q), 0);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    is_whole(q);
}

/* --- the front list --------------------------------------------------------------------------------------------------- */

static void push_front(jnq_queue *q, uint64_t bytes, uint64_t name)
{
    jnq_box box = {.bytes = bytes, .payload = box.copy, .kind = JNQ_INLINE, .form = JNQ_PICKLE};
    uint64_t unit;
    if (bytes > JNQ_INLINE_BYTES) {
        CHECK_EQ(heap_alloc(q, bytes, JNQ_FOREVER, &box.unit), JNQ_OK);
        box.payload = unit_at(q, box.unit);
        box.kind = JNQ_EXTENT;
    }
    fill((char *)box.payload, bytes, name);
    CHECK_EQ(cells_new(q, &box, JNQ_FOREVER, &unit), JNQ_OK);
    lock_head(q);
    cells_push(q, unit);
    unlock_head(q);
}

static int pop_box(jnq_queue *q, jnq_box *box)
{
    uint64_t freed;
    lock_head(q);
    int rc = cells_pop(q, box, &freed);
    unlock_head(q);
    if (freed)
        heap_free(q, freed);
    return rc;
}

static void pop_front(jnq_queue *q, uint64_t bytes, uint64_t name)
{
    jnq_box box;
    CHECK_EQ(pop_box(q, &box), bytes > JNQ_INLINE_BYTES ? JNQ_LARGE : JNQ_OK);
    CHECK_EQ(box.bytes, bytes);
    CHECK(filled(box.payload, bytes, name));
    if (box.unit)
        heap_free(q, box.unit);
}

static uint64_t front_length(jnq_queue *q) { return list_length(q->sh->head.front); }

static void front_list_comes_first_and_backwards(void)
{
    for (int on_death = JNQ_IGNORE; on_death <= JNQ_RAISE; on_death++) {
        jnq_queue *q = make_mortal_queue(0, on_death, 1);
        put_names(q, 0, 5);
        for (uint64_t i = 0; i < 3 * SIZES; i++) {
            push_front(q, size_at(i), 100 + i);
            CHECK_EQ(front_length(q), i + 1);
            CHECK_EQ(jnq_qsize(q), 5 + i + 1);
            is_whole(q);
        }
        for (uint64_t i = 3 * SIZES; i--;) {
            if (i % 2)
                pop_front(q, size_at(i), 100 + i);
            else
                CHECK_EQ(jnq_put(q, "", 0, JNQ_NOW), JNQ_OK); /* they do not meet */
            if (i % 2 == 0)
                pop_front(q, size_at(i), 100 + i);
            CHECK_EQ(front_length(q), i);
            is_whole(q);
        }
        CHECK_EQ(q->sh->head.front, 0);
        get_names(q, 0, 5);
        jnq_box box;
        while (jnq_get(q, &box, JNQ_NOW) >= 0)
            jnq_release(&box);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

static void broken_front_list_is_refused(void)
{
    jnq_queue *q = make_queue(0);
    jnq_box box;
    push_front(q, 10, 1);
    uint64_t front = q->sh->head.front;
    struct jnq_cell *cell = unit_at(q, list_unit(front)), before = *cell;
    q->sh->head.front = front + 1; /* no run begins there */
    CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
    CHECK_EQ(jnq_check(q), 6);
    q->sh->head.front = front + ((uint64_t)1 << (64 - LIST_BITS)); /* longer than it is */
    CHECK_EQ(jnq_check(q), 6);
    q->sh->head.front = front;
    cell->record.kind = 77;
    CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
    *cell = before;
    cell->record.inline_bytes = UINT32_MAX;
    CHECK_EQ(pop_box(q, &box), JNQ_CORRUPT);
    *cell = before;
    is_whole(q);
    pop_front(q, 10, 1);
    drop_queue(q);
}

static unsigned visits;

static bool count_visit(jnq_queue *q, uint64_t unit)
{
    CHECK_OP(heap_bytes(q, unit), >, 0);
    visits++;
    return true;
}

static bool stop_at_third(jnq_queue *q, uint64_t unit)
{
    (void)q, (void)unit;
    return ++visits < 3;
}

static bool free_visited(jnq_queue *q, uint64_t unit)
{
    heap_free(q, unit);
    return true;
}

static void each_visits_cells_and_extents(void)
{
    jnq_queue *q = make_queue(0);
    for (uint64_t i = 0; i < 4; i++)
        push_front(q, i % 2 ? 10 : 10000, i);
    visits = 0;
    CHECK(cells_each(q, q->sh->head.front, count_visit));
    CHECK_EQ(visits, 6);
    visits = 0;
    CHECK(!cells_each(q, q->sh->head.front, stop_at_third)); /* a visit may end it */
    CHECK_EQ(visits, 3);
    visits = 0;
    CHECK(cells_each(q, 0, count_visit));
    CHECK_EQ(visits, 0);
    lock_head(q);
    uint64_t word = q->sh->head.front;
    q->sh->head.front = 0;
    CHECK(cells_each(q, word, free_visited)); /* and free what it gets */
    unlock_head(q);
    CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
    drop_queue(q);
}

/* --- leases ------------------------------------------------------------------------------------------------------------ */

static void lease_is_ours_until_it_is_finished(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_redelivering(3), *other = second_handle(q);
        rebase(q, base);
        put_names(q, 0, SIZES);
        for (uint64_t i = 0; i < SIZES; i++) {
            jnq_box box;
            take_name(q, &box, i);
            CHECK_EQ(box.number, base + i);
            CHECK(cells_ours(q, box.lease, box.number));
            CHECK(!cells_ours(q, box.lease, box.number + 1));
            CHECK(!cells_ours(q, box.lease + 1, box.number));
            CHECK(!cells_ours(other, box.lease, box.number));
            is_whole(q);
            CHECK_EQ(jnq_finish(q, box.lease, box.number + 1), JNQ_NOT_OURS);
            CHECK_EQ(jnq_finish(other, box.lease, box.number), JNQ_NOT_OURS);
            CHECK_EQ(jnq_finish(q, 0, 0), JNQ_NOT_OURS);
            CHECK_EQ(jnq_finish(q, UINT64_MAX, box.number), JNQ_NOT_OURS);
            CHECK_EQ(jnq_finish(q, q->sh->head.block, box.number), JNQ_NOT_OURS);
            CHECK(filled(box.payload, box.bytes, i));
            CHECK_EQ(jnq_unfinished(q), SIZES - i);
            CHECK_EQ(jnq_finish(q, box.lease, box.number), JNQ_OK);
            CHECK_EQ(jnq_finish(q, box.lease, box.number), JNQ_NOT_OURS);
            CHECK_EQ(jnq_unfinished(q), SIZES - i - 1);
            is_whole(q);
        }
        is_empty_again(q);
        CHECK(!procs_holds(q, q->owner));
        jnq_detach(other);
        drop_queue(q);
    }
}

/* The unit may be another's lease by now. */
static void lease_is_told_apart_from_the_next_in_its_place(void)
{
    jnq_queue *q = make_redelivering(3);
    jnq_box first, second;
    put_names(q, 0, 2);
    take_name(q, &first, 0);
    CHECK_EQ(jnq_finish(q, first.lease, first.number), JNQ_OK);
    take_name(q, &second, 1);
    CHECK_EQ(second.lease, first.lease);
    CHECK_EQ(jnq_finish(q, first.lease, first.number), JNQ_NOT_OURS);
    CHECK_EQ(jnq_unfinished(q), 1);
    finish_item(q, &second);
    is_empty_again(q);
    drop_queue(q);
}

static void lease_given_back_is_taken_next(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_redelivering(1), *other = second_handle(q);
        rebase(q, base);
        put_names(q, 0, 2 * SIZES);
        static jnq_box boxes[SIZES];
        for (uint64_t i = 0; i < SIZES; i++)
            take_name(q, &boxes[i], i);
        uint64_t used = counters(q).used_bytes;
        for (uint64_t i = SIZES; i--;) {
            uint64_t lease = boxes[i].lease, number = boxes[i].number;
            CHECK_EQ(jnq_unget(q, &boxes[i]), JNQ_OK);
            CHECK_EQ(boxes[i].taken, 0);
            CHECK_EQ(jnq_finish(q, lease, number), JNQ_NOT_OURS);
            CHECK_EQ(front_length(q), SIZES - i);
            is_whole(q);
        }
        CHECK_EQ(counters(q).used_bytes, used); /* nothing new was needed */
        CHECK(!procs_holds(q, q->owner));
        for (uint64_t i = 0; i < SIZES; i++) {
            take_name(other, &boxes[i], i);
            CHECK_EQ(boxes[i].number, base + i); /* as ever */
            finish_item(other, &boxes[i]);
            is_whole(q);
        }
        get_names(q, SIZES, SIZES);
        is_empty_again(q);
        jnq_detach(other);
        drop_queue(q);
    }
}

struct fork {
    jnq_queue *q;
    jnq_box box;
    bool entered;
};

static void finish_the_parents(void *arg)
{
    struct fork *f = arg;
    if (f->entered)
        put_item(f->q, size_at(9), 9);
    CHECK_EQ(jnq_finish(f->q, f->box.lease, f->box.number), JNQ_NOT_OURS);
    CHECK_EQ(jnq_unget(f->q, &f->box), JNQ_OK); /* only empties the box */
    CHECK_EQ(f->box.taken, 0);
    jnq_detach(f->q);
}

static void lease_is_the_parents(void)
{
    static struct fork f;
    f.q = make_redelivering(1);
    put_names(f.q, 0, 1);
    take_name(f.q, &f.box, 0);
    for (int entered = 0; entered < 2; entered++) {
        f.entered = entered;
        join_child(start_child(finish_the_parents, &f));
        CHECK_EQ(jnq_unfinished(f.q), 1 + (uint64_t)entered);
        CHECK(cells_ours(f.q, f.box.lease, f.box.number));
        is_whole(f.q);
    }
    finish_item(f.q, &f.box);
    get_names(f.q, 9, 1);
    CHECK_EQ(jnq_reap(f.q), JNQ_OK);
    CHECK_EQ(counters(f.q).redeliveries, 0);
    is_empty_again(f.q);
    drop_queue(f.q);
}

/* --- redelivery --------------------------------------------------------------------------------------------------------- */

static void tasks_of_the_dead_come_back_in_order(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_redelivering(9), *other = second_handle(q);
        rebase(q, base);
        jnq_box box, kept, boxes[4];
        put_names(q, 0, 20);
        take_name(q, &kept, 0);
        /* 3 and 4 come from the front, 5 and 6 from the blocks, taken before them; 1 and 2 are finished. */
        for (uint64_t i = 1; i <= 4; i++)
            take_name(q, &boxes[i - 1], i);
        take_name(other, &box, 5);
        take_name(other, &box, 6);
        CHECK_EQ(jnq_unget(q, &boxes[2]), JNQ_OK);
        CHECK_EQ(jnq_unget(q, &boxes[3]), JNQ_OK);
        take_name(other, &box, 4);
        take_name(other, &box, 3);
        take_name(other, &box, 7);
        finish_item(other, &box);
        finish_item(q, &boxes[0]);
        finish_item(q, &boxes[1]);
        uint64_t queued = jnq_qsize(q), unfinished = jnq_unfinished(q);
        kill_handle(other, 4711);
        is_whole(q); /* the dead one is still in the table */
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(jnq_qsize(q), queued + 4);
        CHECK_EQ(jnq_unfinished(q), unfinished);
        CHECK_EQ(counters(q).redeliveries, 4);
        CHECK_EQ(counters(q).deaths, 1);
        CHECK_EQ(counters(q).processes, 1);
        is_whole(q);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(counters(q).redeliveries, 4);
        for (uint64_t i = 3; i < 20; i++) {
            if (i == 7)
                continue;
            take_name(q, &box, i);
            CHECK_EQ(box.number, base + i);
            finish_item(q, &box);
            is_whole(q);
        }
        CHECK(filled(kept.payload, kept.bytes, 0)); /* the living keep theirs */
        finish_item(q, &kept);
        is_empty_again(q);
        drop_queue(q);
    }
}

static void redelivered_come_before_what_was_given_back(void)
{
    jnq_queue *q = make_redelivering(9), *other = second_handle(q);
    jnq_box box, mine;
    put_names(q, 0, 3);
    take_name(other, &box, 0);
    take_name(q, &mine, 1);
    CHECK_EQ(jnq_unget(q, &mine), JNQ_OK);
    kill_handle(other, 4711);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    get_names(q, 0, 3);
    is_empty_again(q);
    drop_queue(q);
}

static void get_looks_for_the_dead_first(void)
{
    jnq_queue *q = make_redelivering(9);
    put_names(q, 0, 2);
    take_and_die(q, 0, 1);
    q->sh->procs.seen_ns = 0; /* long ago */
    get_names(q, 0, 2);
    is_empty_again(q);
    drop_queue(q);
}

static void many_come_back(void)
{
    jnq_queue *q = make_redelivering(9);
    uint64_t n = scaled(2000), random = random_state(1);
    put_names(q, 0, n);
    for (int round = 0; round < 3; round++) {
        take_and_die(q, 0, n - below(&random, 10));
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(jnq_qsize(q), n);
        is_whole(q);
    }
    get_names(q, 0, n);
    is_empty_again(q);
    drop_queue(q);
}

/* Tasks of a process that leaves while it has them; `how`: 0 it said nothing, 1 in order, 2 that it failed. */
static void depart(jnq_queue *other, int how, bool dies)
{
    if (how)
        jnq_depart(other, how == 2);
    if (dies)
        kill_handle(other, 4711);
    else
        jnq_detach(other);
}

static void only_a_death_is_counted(void)
{
    for (int how = 0; how < 3; how++) {
        for (int dies = 0; dies < 2; dies++) {
            jnq_queue *q = make_redelivering(1), *other = second_handle(q);
            jnq_box box;
            jnq_letter letter;
            put_names(q, 0, 2);
            take_name(other, &box, 0);
            depart(other, how, dies);
            if (dies)
                CHECK_EQ(jnq_reap(q), JNQ_OK);
            bool killed = how == 2 || (how == 0 && dies);
            CHECK_EQ(counters(q).dead_letters, killed);
            CHECK_EQ(counters(q).redeliveries, !killed);
            CHECK_EQ(counters(q).processes, 1);
            CHECK_EQ(jnq_news(q), dies && killed); /* else it was the other's */
            CHECK_EQ(jnq_news(q), 0);
            CHECK_EQ(jnq_unfinished(q), killed ? 1 : 2);
            is_whole(q);
            uint64_t cursor = 0;
            CHECK_EQ(jnq_read_letter(q, &cursor, &letter), killed ? JNQ_OK : JNQ_EMPTY);
            get_names(q, killed, killed ? 1 : 2);
            drop_queue(q);
        }
    }
}

/* The first announcement counts. */
static void failure_is_not_taken_back(void)
{
    jnq_queue *q = make_redelivering(1), *other = second_handle(q);
    jnq_box box;
    put_names(q, 0, 1);
    take_name(other, &box, 0);
    jnq_depart(other, 1);
    jnq_depart(other, 0);
    jnq_detach(other);
    CHECK_EQ(counters(q).dead_letters, 1);
    drop_queue(q);
}

/* --- dead letters ------------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
    struct timespec now;
    CHECK(!clock_gettime(CLOCK_REALTIME, &now));
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void task_that_kills_too_many_is_a_dead_letter(void)
{
    for (uint32_t most = 1; most <= 5; most++) {
        EACH_BASE(base)
        {
            jnq_queue *q = make_redelivering(most);
            rebase(q, base);
            jnq_box box;
            jnq_letter letter;
            uint64_t before = now_ms(), cursor = 0, since = 0;
            put_names(q, 4, 1); /* an extent */
            CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_TIMEOUT);
            for (uint32_t death = 1; death <= most; death++) {
                CHECK_EQ(counters(q).dead_letters, 0);
                CHECK_EQ(jnq_unfinished(q), 1);
                jnq_queue *other = second_handle(q);
                take_name(other, &box, 4);
                CHECK_EQ(jnq_unget(other, &box), JNQ_OK); /* to give it back is no death */
                take_name(other, &box, 4);
                kill_handle(other, 4000000 + death);
                CHECK_EQ(jnq_reap(q), JNQ_OK);
                is_whole(q);
            }
            CHECK_EQ(counters(q).dead_letters, 1);
            CHECK_EQ(counters(q).redeliveries, most - 1);
            CHECK_EQ(jnq_news(q), 1);
            CHECK_EQ(jnq_qsize(q), 0);
            CHECK_EQ(jnq_unfinished(q), 0); /* it is finished */
            CHECK_EQ(counters(q).dones, base);
            CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
            CHECK_EQ(jnq_get(q, &box, JNQ_NOW), JNQ_EMPTY);
            CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_OK);
            CHECK_EQ(letter.bytes, size_at(4));
            CHECK(filled(letter.payload, letter.bytes, 4));
            CHECK_EQ(letter.number, base);
            CHECK_EQ(letter.form, JNQ_PICKLE);
            CHECK_EQ(letter.deaths, most);
            for (uint32_t i = 0; i < JNQ_LETTER_DEATHS; i++) { /* the last of them, oldest first */
                uint32_t known = most < JNQ_LETTER_DEATHS ? most : JNQ_LETTER_DEATHS;
                CHECK_EQ(letter.pid[i], i < known ? 4000000 + most - known + i + 1 : 0);
                CHECK(i < known ? letter.time_ms[i] >= before && letter.time_ms[i] <= now_ms() : !letter.time_ms[i]);
            }
            CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_EMPTY);
            CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_EMPTY);
            drop_queue(q);
        }
    }
}

static void letters_are_read_newest_first(void)
{
    jnq_queue *q = make_redelivering(1);
    jnq_letter letter;
    uint64_t cursor = 0, n = 10;
    CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_EMPTY);
    for (uint64_t i = 0; i < n; i++) {
        CHECK_EQ(i % 3 ? JNQ_OK : jnq_put_integer(q, (int64_t)i - 5, JNQ_NOW), JNQ_OK);
        if (i % 3)
            put_names(q, i, 1);
        jnq_queue *other = second_handle(q);
        jnq_box box;
        CHECK_EQ(jnq_get(other, &box, JNQ_NOW), JNQ_LEASED);
        kill_handle(other, 4711);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(counters(q).dead_letters, i + 1);
    }
    CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK); /* they stay */
    is_whole(q);
    for (uint64_t i = n; i--;) {
        CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_OK);
        CHECK_EQ(letter.number, i);
        CHECK_EQ(letter.form, i % 3 == 0 ? JNQ_INTEGER : JNQ_PICKLE);
        int64_t value = 0;
        if (letter.form == JNQ_INTEGER)
            memcpy(&value, letter.payload, sizeof value);
        if (letter.form == JNQ_INTEGER)
            CHECK_EQ(value, (int64_t)i - 5);
        else
            CHECK(filled(letter.payload, size_at(i), i));
    }
    CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_EMPTY);
    drop_queue(q);
}

/* One death: some tasks go to the letters, the others to the front. */
static void one_death_fills_both_lists(void)
{
    jnq_queue *q = make_redelivering(2);
    put_names(q, 0, 3);
    take_and_die(q, 0, 3); /* 0, 1 and 2 have killed one */
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    put_names(q, 3, 3);
    jnq_box box;
    take_name(q, &box, 0);
    finish_item(q, &box);
    take_and_die(q, 1, 4); /* 1 and 2 have killed two, 3 and 4 one */
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    is_whole(q);
    CHECK_EQ(counters(q).dead_letters, 2);
    CHECK_EQ(counters(q).redeliveries, 3 + 2);
    CHECK_EQ(jnq_qsize(q), 3);
    CHECK_EQ(jnq_unfinished(q), 3);
    get_names(q, 3, 3);
    CHECK_EQ(jnq_unfinished(q), 0);
    drop_queue(q);
}

static void broken_letters_are_refused(void)
{
    jnq_queue *q = make_redelivering(1);
    jnq_letter letter;
    put_names(q, 1, 1);
    take_and_die(q, 1, 1);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    uint64_t dead = q->sh->head.dead, one = (uint64_t)1 << (64 - LIST_BITS);
    struct jnq_cell *cell = unit_at(q, list_unit(dead)), before = *cell;
    const uint64_t words[] = {dead + 1, dead + one, one | ((uint64_t)-1 >> LIST_BITS)};
    for (int i = 0; i < 3; i++) {
        uint64_t cursor = words[i];
        CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_CORRUPT);
        q->sh->head.dead = words[i];
        CHECK(jnq_check(q) == 6 || jnq_check(q) == 1);
        q->sh->head.dead = dead;
    }
    cell->record.kind = 77;
    uint64_t cursor = 0;
    CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_CORRUPT);
    *cell = before;
    drop_queue(q);
}

/* --- after shutdown(immediate) -------------------------------------------------------------------------------------------- */

static void after_a_cut_the_tasks_of_the_dead_are_finished(void)
{
    EACH_BASE(base) for (int dies = 0; dies < 2; dies++)
    {
        jnq_queue *q = make_redelivering(1), *other = second_handle(q);
        rebase(q, base);
        jnq_box box, mine;
        uint64_t since = 0;
        put_names(q, 0, 20);
        take_name(q, &mine, 0);
        for (uint64_t i = 1; i < 10; i++)
            take_name(other, &box, i);
        CHECK_EQ(jnq_unget(other, &box), JNQ_OK);
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_TIMEOUT);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(jnq_unfinished(q), 9);
        is_whole(q);
        depart(other, 0, dies);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        is_whole(q);
        CHECK_EQ(jnq_unfinished(q), 1);
        CHECK_EQ(counters(q).redeliveries, 0);
        CHECK_EQ(counters(q).dead_letters, 0);
        CHECK_EQ(jnq_get(q, &box, JNQ_NOW), JNQ_SHUTDOWN);
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_TIMEOUT);
        finish_item(q, &mine);
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

static void last_death_after_a_cut_is_a_zero(void)
{
    jnq_queue *q = make_redelivering(1), *other = second_handle(q);
    jnq_box box;
    uint64_t since = 0;
    put_names(q, 0, 2);
    take_name(other, &box, 0);
    CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_TIMEOUT);
    CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
    kill_handle(other, 4711);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_EQ(q->sh->zero_at, UINT64_MAX);
    CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
    drop_queue(q);
}

static void shutdown_alone_lets_them_come_back(void)
{
    jnq_queue *q = make_redelivering(9);
    jnq_box box;
    put_names(q, 0, 3);
    take_and_die(q, 0, 2);
    CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    get_names(q, 0, 3);
    CHECK_EQ(jnq_get(q, &box, JNQ_NOW), JNQ_SHUTDOWN);
    is_empty_again(q);
    drop_queue(q);
}

/* --- a list that is full --------------------------------------------------------------------------------------------------- */

#define LIST_FULL ((((uint64_t)1) << LIST_BITS) - 1)

/* As long as these may be; no cell is behind most of it, so nobody may walk there. */
static uint64_t forged(uint64_t word, uint64_t length) { return length << (64 - LIST_BITS) | list_unit(word); }

/* All that cells_redeliver() requires but the marks, which would need cells. */
static int redeliver(jnq_queue *q, uint32_t owner, uint64_t *moved)
{
    lock_head(q);
    CHECK_EQ(heap_lock(q, soon()), JNQ_OK);
    heap_unmark_all(q);
    int rc = cells_redeliver(q, owner, true, moved);
    heap_unlock(q);
    unlock_head(q);
    return rc;
}

static void what_does_not_fit_comes_later(void)
{
    jnq_queue *q = make_redelivering(9), *other = second_handle(q);
    jnq_box box;
    uint64_t moved;
    put_names(q, 0, 5);
    for (uint64_t i = 0; i < 5; i++)
        take_name(other, &box, i);
    q->sh->head.front = forged(0, LIST_FULL);
    CHECK_EQ(redeliver(q, other->owner, &moved), JNQ_INTERRUPTED);
    CHECK_EQ(q->sh->head.front, forged(0, LIST_FULL)); /* nothing happened */
    CHECK_EQ(counters(q).redeliveries, 0);
    q->sh->head.front = forged(0, LIST_FULL - 2);
    CHECK_EQ(redeliver(q, other->owner, &moved), JNQ_INTERRUPTED);
    CHECK_EQ(moved, 1);
    CHECK_EQ(front_length(q), LIST_FULL); /* the youngest two */
    CHECK_EQ(counters(q).redeliveries, 2);
    /* They are the front list now, and there is room again. */
    struct jnq_cell *first = unit_at(q, list_unit(q->sh->head.front)), *last = unit_at(q, list_unit(first->next));
    CHECK_EQ(first->record.number, 3);
    CHECK_EQ(last->record.number, 4);
    CHECK_EQ(last->next, forged(0, LIST_FULL - 2));
    last->next = 0;
    first->next = forged(first->next, 1);
    q->sh->head.front = forged(q->sh->head.front, 2);
    is_whole(q);
    kill_handle(other, 4711);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_EQ(counters(q).redeliveries, 5);
    get_names(q, 0, 5); /* in order, in spite of it */
    is_empty_again(q);
    drop_queue(q);
}

static void no_room_among_the_letters_is_no_loss(void)
{
    jnq_queue *q = make_redelivering(1), *other = second_handle(q);
    jnq_box box;
    uint64_t moved;
    put_names(q, 0, 3);
    for (uint64_t i = 0; i < 3; i++)
        take_name(other, &box, i);
    q->sh->head.dead = forged(0, LIST_FULL - 1);
    CHECK_EQ(redeliver(q, other->owner, &moved), JNQ_OK);
    CHECK_EQ(list_length(q->sh->head.dead), LIST_FULL);
    CHECK_EQ(front_length(q), 2); /* these may kill more */
    struct jnq_cell *letter = unit_at(q, list_unit(q->sh->head.dead));
    CHECK_EQ(letter->record.number, 2);
    letter->next = 0;
    q->sh->head.dead = forged(q->sh->head.dead, 1);
    is_whole(q);
    kill_handle(other, 4711);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    get_names(q, 0, 2);
    drop_queue(q);
}

/* --- death of the heir ------------------------------------------------------------------------------------------------------ */

static unsigned leases_to_death, clocks_to_death; /* 0: never */

void __real_heap_lease(jnq_queue *q, uint64_t unit, uint32_t owner);
void __wrap_heap_lease(jnq_queue *q, uint64_t unit, uint32_t owner);
void __wrap_heap_lease(jnq_queue *q, uint64_t unit, uint32_t owner)
{
    if (leases_to_death && !--leases_to_death)
        die();
    __real_heap_lease(q, unit, owner);
}

/* Marks are set before, too; what was moved is in the front list then. */
bool __real_heap_mark(jnq_queue *q, uint64_t unit);
bool __wrap_heap_mark(jnq_queue *q, uint64_t unit);
bool __wrap_heap_mark(jnq_queue *q, uint64_t unit)
{
    if (leases_to_death && list_length(q->sh->head.front) && !--leases_to_death)
        die();
    return __real_heap_mark(q, unit);
}

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock == CLOCK_REALTIME && clocks_to_death && !--clocks_to_death)
        die();
    return __real_clock_gettime(clock, now);
}

struct heir {
    jnq_queue *q;
    unsigned leases, clocks;
};

/* Enters only with all it needs, so that it dies in jnq_reap() and not before. */
static void reap_and_die(void *arg)
{
    struct heir *heir = arg;
    leases_to_death = heir->leases;
    clocks_to_death = heir->clocks;
    jnq_reap(heir->q);
    _exit(7); /* it did not come so far */
}

/* 0 and 1 become letters; 2 and 3 have killed nobody before and go back. */
static jnq_queue *queue_with_an_estate(bool cut)
{
    jnq_queue *q = make_redelivering(2);
    put_names(q, 0, 2);
    take_and_die(q, 0, 2);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    put_names(q, 2, 3);
    jnq_queue *other = second_handle(q);
    jnq_box box;
    for (uint64_t i = 0; i < 4; i++)
        take_name(other, &box, i);
    if (cut)
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
    kill_handle(other, 4711);
    CHECK_EQ(counters(q).redeliveries, 2);
    return q;
}

static void estate_is_settled(jnq_queue *q)
{
    jnq_letter letter;
    uint64_t cursor = 0;
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    is_whole(q);
    CHECK_EQ(counters(q).dead_letters, 2);
    CHECK_EQ(counters(q).processes, 1);
    CHECK_EQ(jnq_qsize(q), 3);
    CHECK_EQ(jnq_unfinished(q), 3);
    for (uint64_t i = 0; i < 2; i++) {
        CHECK_EQ(jnq_read_letter(q, &cursor, &letter), JNQ_OK);
        CHECK_EQ(letter.deaths, 2); /* counted once */
        CHECK(filled(letter.payload, letter.bytes, letter.number));
    }
    for (uint64_t i = 2; i < 5; i++) {
        jnq_box box;
        take_name(q, &box, i);
        struct jnq_cell *cell = unit_at(q, box.lease);
        CHECK_EQ(cell->deaths, i < 4);
        CHECK_EQ(cell->deaths_then, cell->deaths + 1);
        finish_item(q, &box);
        is_whole(q);
    }
    CHECK_EQ(jnq_unfinished(q), 0);
    CHECK_EQ(counters(q).dead_letters, 2);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q) + 2 * q->sh->unit_bytes); /* nothing but the letters */
    drop_queue(q);
}

static void heir_that_dies_is_followed(void)
{
    for (unsigned point = 0; point < 8; point++) {
        jnq_queue *q = queue_with_an_estate(false);
        /* At each death that is counted, and at each cell that was moved. */
        struct heir heir = {q, point < 4 ? 0 : point - 3, point < 4 ? point + 1 : 0};
        join_dead_child(start_child(reap_and_die, &heir));
        if (point % 2)
            is_whole(q);
        estate_is_settled(q);
    }
}

static void heirs_that_die_one_after_the_other_are_followed(void)
{
    jnq_queue *q = queue_with_an_estate(false);
    for (unsigned point = 0; point < 5; point++) {
        struct heir heir = {q, point < 4 ? 0 : 1, point < 4 ? point + 1 : 0};
        join_dead_child(start_child(reap_and_die, &heir));
    }
    estate_is_settled(q);
}

/* Between its two steps: the front list has what is its, the letters not yet. */
static void heir_that_dies_between_its_steps_is_followed(void)
{
    jnq_queue *q = queue_with_an_estate(false);
    struct heir heir = {q, 1, 0};
    uint64_t dead = q->sh->head.dead;
    join_dead_child(start_child(reap_and_die, &heir));
    CHECK_EQ(list_length(q->sh->head.dead), 2);
    CHECK_EQ(front_length(q), 2);
    q->sh->head.dead = dead;
    estate_is_settled(q);
}

static void heir_that_dies_after_a_cut_is_followed(void)
{
    for (unsigned point = 1; point <= 4; point++) {
        jnq_queue *q = queue_with_an_estate(true);
        uint64_t dones = counters(q).dones;
        CHECK_EQ(jnq_unfinished(q), 4);
        struct heir heir = {q, point, 0}; /* in the step that finishes the task: done, but still a lease */
        join_dead_child(start_child(reap_and_die, &heir));
        CHECK_EQ(counters(q).dones, dones + point);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        is_whole(q);
        CHECK_EQ(counters(q).dones, dones + 4);
        CHECK_EQ(jnq_unfinished(q), 0);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

static void finish_and_die(void *arg)
{
    struct heir *heir = arg;
    jnq_box box;
    take_name(heir->q, &box, 4); /* enters */
    leases_to_death = 1;
    jnq_finish(heir->q, box.lease, box.number);
    _exit(7);
}

static void task_finished_by_one_who_dies_of_it_is_finished(void)
{
    struct heir heir = {.q = make_redelivering(1)};
    put_names(heir.q, 4, 1); /* an extent */
    join_dead_child(start_child(finish_and_die, &heir));
    CHECK_EQ(jnq_reap(heir.q), JNQ_OK);
    is_empty_again(heir.q);
    CHECK_EQ(counters(heir.q).dead_letters, 0);
    drop_queue(heir.q);
}

/* An owner that follows another's number must not be taken for the one whose leases came back. */
static void moved_cells_are_no_leases(void)
{
    for (unsigned point = 1; point <= 4; point++) {
        jnq_queue *q = queue_with_an_estate(false);
        struct heir heir = {q, point, 0};
        join_dead_child(start_child(reap_and_die, &heir));
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        jnq_queue *other = second_handle(q);
        CHECK_EQ(other->owner, 2); /* that of the dead one */
        for (uint64_t word = q->sh->head.front; list_length(word);) {
            struct jnq_cell *cell = unit_at(q, list_unit(word));
            CHECK(!cells_ours(other, list_unit(word), cell->record.number));
            word = cell->next;
        }
        jnq_detach(other);
        estate_is_settled(q);
    }
}

/* --- jnq_check() ------------------------------------------------------------------------------------------------------------ */

static void check_names_the_broken_invariant(void)
{
    jnq_queue *q = make_redelivering(1);
    struct jnq_shared *sh = q->sh;
    jnq_box boxes[2];
    put_names(q, 0, 3);
    take_name(q, &boxes[0], 0);
    take_name(q, &boxes[1], 1);
    __real_heap_lease(q, boxes[0].lease, 0);
    CHECK_EQ(jnq_check(q), 7);
    __real_heap_lease(q, boxes[0].lease, q->owner);
    is_whole(q);
    sh->dones++;
    CHECK_EQ(jnq_check(q), 7);
    sh->dones--;
    sh->head.front = (uint64_t)1 << (64 - LIST_BITS) | boxes[0].lease; /* as if it were queued */
    struct jnq_cell *cell = unit_at(q, boxes[0].lease);
    cell->next = 0;
    CHECK_EQ(jnq_check(q), 0); /* what can be reached is no lease */
    cell->next = sh->head.front;
    CHECK_EQ(jnq_check(q), 6); /* in a ring */
    sh->head.front = 0;
    __real_heap_lease(q, boxes[0].lease, q->owner);
    is_whole(q);
    CHECK_EQ(jnq_unget(q, &boxes[1]), JNQ_OK);
    CHECK_EQ(jnq_unget(q, &boxes[0]), JNQ_OK);
    uint64_t front = sh->head.front;
    cell->next = 0; /* the list is shorter than its word says */
    CHECK_EQ(jnq_check(q), 6);
    cell->next = (uint64_t)1 << (64 - LIST_BITS) | boxes[0].lease; /* reached twice */
    CHECK(jnq_check(q) != 0);
    cell->next = (uint64_t)1 << (64 - LIST_BITS) | boxes[1].lease;
    sh->head.front = front;
    is_whole(q);
    get_names(q, 0, 3);
    is_empty_again(q);
    drop_queue(q);
}

TESTS("cells", front_list_comes_first_and_backwards, broken_front_list_is_refused, each_visits_cells_and_extents,
      lease_is_ours_until_it_is_finished, lease_is_told_apart_from_the_next_in_its_place,
      lease_given_back_is_taken_next, lease_is_the_parents, tasks_of_the_dead_come_back_in_order,
      redelivered_come_before_what_was_given_back, get_looks_for_the_dead_first, many_come_back,
      only_a_death_is_counted, failure_is_not_taken_back, task_that_kills_too_many_is_a_dead_letter,
      letters_are_read_newest_first, one_death_fills_both_lists, broken_letters_are_refused,
      after_a_cut_the_tasks_of_the_dead_are_finished, last_death_after_a_cut_is_a_zero,
      shutdown_alone_lets_them_come_back, what_does_not_fit_comes_later, no_room_among_the_letters_is_no_loss,
      heir_that_dies_is_followed, heirs_that_die_one_after_the_other_are_followed,
      heir_that_dies_between_its_steps_is_followed, heir_that_dies_after_a_cut_is_followed,
      task_finished_by_one_who_dies_of_it_is_finished, moved_cells_are_no_leases, check_names_the_broken_invariant)
