/* note: whoever takes the head lock over from a dead process completes the step that it had taken, or undoes what it
 * had prepared for the one it had not.
 *
 * The states that note_step() passes through are written by hand here, one after the other. */
#include "harness.h"

#include "cells.h"
#include "fifo.h"
#include "heap.h"
#include "lock.h"
#include "note.h"
#include "procs.h"
#include "record.h"
#include "recover.h"

static void lock_head(jnq_queue *q) { CHECK_EQ(recover_lock_head(q, event_now() + 10 * SECOND), JNQ_OK); }

static void unlock_head(jnq_queue *q) { lock_release(&q->sh->head.lock); }

/* A step about to be taken. */
struct step {
    enum note_kind kind;
    uint64_t *word;
    uint64_t value;
    uint64_t unit; /* the lease, or 0 */
};

/* The steps of note_step() up to the given one, which was the last. The third is the one that it is all about. */
enum { NOTHING, NOTED, PREPARED, TAKEN, LEASE_SETTLED, FOLLOWED, DONE };

static void step_until(jnq_queue *q, const struct step *step, int last)
{
    struct jnq_note *note = &q->sh->head.note;
    note->owner = q->owner;
    note->word = (uint64_t)((char *)step->word - q->base);
    note->value = step->value;
    note->unit = step->unit;
    note->takes = q->me->takes + (step->kind == NOTE_TAKE) - (step->kind == NOTE_RETURN);
    if (last >= NOTED)
        note->kind = step->kind;
    if (last >= PREPARED && step->unit && step->kind == NOTE_TAKE)
        heap_lease(q, step->unit, q->owner);
    if (last >= TAKEN)
        *step->word = step->value;
    if (last >= LEASE_SETTLED && step->unit && step->kind != NOTE_TAKE)
        heap_lease(q, step->unit, 0);
    if (last >= FOLLOWED)
        q->me->takes = note->takes;
    if (last >= DONE)
        note->kind = 0;
}

/* What the lock's next owner does. */
static void repair(jnq_queue *q)
{
    lock_head(q);
    note_repair(q);
    CHECK_EQ(q->sh->head.note.kind, 0);
    CHECK_EQ(fifo_repair_head(q), JNQ_OK);
    unlock_head(q);
}

static bool leases(jnq_queue *q) { return q->on_death == JNQ_REDELIVER; }

/* The figure, and whether the cell, if there is one, is a lease of `other`. */
static void is_in_hand(jnq_queue *q, jnq_queue *other, uint64_t unit, uint64_t takes, bool lease)
{
    CHECK_EQ(other->me->takes, takes);
    if (unit)
        CHECK_EQ(heap_leaser(q, unit), lease ? other->owner : 0);
}

/* What the dead one had is freed, what it had in hand becomes what the mode says, the rest can be taken. */
static void survivors_go_on(jnq_queue *q, jnq_queue *other, uint64_t queued, uint64_t in_hand)
{
    CHECK_EQ(jnq_qsize(q), queued);
    CHECK_EQ(jnq_check(q), 0);
    kill_handle(other, 4711);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_EQ(jnq_check(q), 0);
    CHECK_EQ(counters(q).redeliveries, leases(q) ? in_hand : 0);
    queued += leases(q) ? in_hand : 0;
    CHECK_EQ(jnq_qsize(q), queued);
    uint64_t lost = jnq_unfinished(q) - queued;
    CHECK_EQ(lost, leases(q) ? 0 : in_hand);
    jnq_box box;
    for (uint64_t i = 0; i < queued; i++) {
        CHECK(is_item(jnq_get(q, &box, JNQ_NOW)));
        finish_item(q, &box);
    }
    CHECK_EQ(jnq_unfinished(q), lost);
    CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
    drop_queue(q);
}

#define EACH_STATE(last) for (int last = NOTHING; last <= DONE; last++)

/* For inline payloads and for extents. */
static const uint64_t sizes[] = {10, 10000};
#define EACH_SIZE(bytes)                                                                                               \
    for (uint64_t bytes##_i = 0, bytes; bytes##_i < 2 && (bytes = sizes[bytes##_i], 1); bytes##_i++)

static void take_from_the_blocks(void)
{
    EACH_BASE(base) EACH_SIZE(bytes) EACH_STATE(last)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        jnq_box box, held;
        struct jnq_record *record;
        uint64_t freed;
        for (uint64_t i = 0; i < 3; i++)
            put_item(q, bytes, i);
        take_item(other, &held, bytes, 0);
        lock_head(other);
        CHECK_EQ(fifo_next(other, &record, &freed), JNQ_OK);
        box.lease = 0;
        if (leases(q))
            CHECK_EQ(cells_lease(other, record, JNQ_FOREVER, &box), JNQ_LEASED);
        else
            CHECK_EQ(record_unpack(other, record, 0, &box), bytes > JNQ_INLINE_BYTES ? JNQ_LARGE : JNQ_OK);
        struct step step = {NOTE_TAKE, &other->sh->takes, q->sh->takes + 1, box.lease};
        step_until(other, &step, last);
        unlock_head(other);
        repair(q);
        bool taken = last >= TAKEN;
        is_in_hand(q, other, box.lease, taken ? 2 : 1, taken);
        survivors_go_on(q, other, taken ? 1 : 2, taken ? 2 : 1);
    }
}

static void take_from_the_front(void)
{
    EACH_BASE(base) EACH_SIZE(bytes) EACH_STATE(last)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        jnq_box boxes[3];
        for (uint64_t i = 0; i < 3; i++) {
            put_item(q, bytes, i);
            take_item(q, &boxes[i], bytes, i);
        }
        for (uint64_t i = 3; i--;)
            CHECK_EQ(jnq_unget(q, &boxes[i]), JNQ_OK);
        CHECK_EQ(q->me->takes, 0);
        take_item(other, &boxes[0], bytes, 0);
        uint64_t *front = &other->sh->head.front, unit = list_unit(*front);
        struct jnq_cell *cell = unit_at(q, unit);
        /* As in cells_pop(). */
        if (cell->record.kind == JNQ_EXTENT)
            heap_own(other, cell->record.extent.unit);
        if (!leases(q))
            heap_own(other, unit);
        cell->deaths_then = cell->deaths + 1;
        struct step step = {NOTE_TAKE, front, cell->next, leases(q) ? unit : 0};
        step_until(other, &step, last);
        repair(q);
        bool taken = last >= TAKEN;
        is_in_hand(q, other, step.unit, taken ? 2 : 1, taken);
        survivors_go_on(q, other, taken ? 1 : 2, taken ? 2 : 1);
    }
}

static void give_back(void)
{
    EACH_BASE(base) EACH_SIZE(bytes) for (uint64_t before = 0; before < 2; before++) EACH_STATE(last)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        jnq_box boxes[2], box;
        for (uint64_t i = 0; i < 3; i++)
            put_item(q, bytes, i);
        for (uint64_t i = 0; i < 2; i++)
            take_item(q, &boxes[i], bytes, i);
        CHECK_EQ(jnq_unget(q, &boxes[1]), JNQ_OK);
        if (before)
            CHECK_EQ(jnq_unget(q, &boxes[0]), JNQ_OK); /* then the front list is not empty */
        else
            finish_item(q, &boxes[0]);
        take_item(other, &box, bytes, before ? 0 : 1);
        uint64_t *front = &other->sh->head.front, unit = box.lease;
        if (!unit)
            CHECK_EQ(cells_new(other, &box, JNQ_FOREVER, &unit), JNQ_OK);
        struct jnq_cell *cell = unit_at(q, unit);
        cell->next = *front;
        uint64_t word = (list_length(*front) + 1) << (64 - LIST_BITS) | unit;
        struct step step = {NOTE_RETURN, front, word, box.lease};
        step_until(other, &step, last);
        repair(q);
        bool returned = last >= TAKEN;
        is_in_hand(q, other, step.unit, returned ? 0 : 1, !returned);
        survivors_go_on(q, other, 1 + before + returned, returned ? 0 : 1);
    }
}

static void finish(void)
{
    if (mode != JNQ_REDELIVER)
        return; /* no lock, no note */
    EACH_BASE(base) EACH_SIZE(bytes) EACH_STATE(last)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        jnq_box box;
        put_item(q, bytes, 0);
        put_item(q, bytes, 1);
        take_item(other, &box, bytes, 0);
        struct step step = {NOTE_FINISH, &other->sh->dones, q->sh->dones + 1, box.lease};
        step_until(other, &step, last);
        repair(q);
        bool finished = last >= TAKEN;
        is_in_hand(q, other, box.lease, 1, !finished);
        CHECK_EQ(jnq_unfinished(q), finished ? 1 : 2);
        survivors_go_on(q, other, 1, finished ? 0 : 1);
    }
}

/* After it, and while it is under way. */
static void step_leaves_what_it_should(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t unit = 0, word = 0;
    put_item(q, 10, 0);
    struct jnq_note *note = &q->sh->head.note;
    if (leases(q))
        CHECK_EQ(heap_alloc(q, 10, JNQ_FOREVER, &unit), JNQ_OK);
    lock_head(q);
    note_step(q, NOTE_TAKE, 1, &word, 7, unit);
    CHECK_EQ(word, 7);
    CHECK_EQ(note->kind, 0);
    is_in_hand(q, q, unit, 1, true);
    note_step(q, NOTE_RETURN, 1, &word, 8, unit);
    CHECK_EQ(word, 8);
    is_in_hand(q, q, unit, 0, false);
    note_step(q, NOTE_TAKE, 1, &word, 9, unit);
    note_step(q, NOTE_FINISH, 1, &word, 10, unit);
    CHECK_EQ(word, 10);
    CHECK_EQ(note->kind, 0);
    is_in_hand(q, q, unit, 1, false);
    unlock_head(q);
    if (unit)
        heap_free(q, unit);
    q->me->takes = 0;
    get_item(q, 10, 0);
    drop_queue(q);
}

static void nothing_is_noted_if_nothing_depends_on_it(void)
{
    jnq_queue *q = make_mortal_queue(0, JNQ_IGNORE, 1);
    struct jnq_note before = q->sh->head.note;
    jnq_box box;
    put_item(q, 10, 0);
    take_item(q, &box, 10, 0);
    CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
    get_item(q, 10, 0);
    CHECK(!memcmp(&before, &q->sh->head.note, sizeof before));
    CHECK_EQ(q->me->takes, 1); /* a figure */
    drop_queue(q);
}

static void no_note_means_nothing_to_do(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    jnq_box box;
    put_item(q, 10, 0);
    take_item(other, &box, 10, 0);
    /* All that follows would change something, if there were a kind. */
    struct step step = {NOTE_RETURN, &other->sh->takes, q->sh->takes, box.lease};
    step_until(other, &step, NOTHING);
    repair(q);
    is_in_hand(q, other, box.lease, 1, true);
    repair(q);
    is_in_hand(q, other, box.lease, 1, true);
    finish_item(other, &box);
    jnq_detach(other);
    drop_queue(q);
}

/* Only after foreign writes; it ends no lease, and does not crash. */
static void broken_note_is_dropped(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    jnq_box box;
    put_item(q, 10, 0);
    take_item(other, &box, 10, 0);
    struct jnq_note *note = &q->sh->head.note;
    for (int broken = 0; broken < 4; broken++) {
        struct step step = {broken == 3 ? NOTE_TAKE : NOTE_FINISH, &other->sh->takes, q->sh->takes + (broken == 3), 0};
        step_until(other, &step, NOTED);
        if (broken == 0)
            note->word = UINT64_MAX;
        if (broken == 1)
            note->owner = UINT32_MAX;
        if (broken >= 2)
            note->unit = UINT64_MAX;
        repair(q);
        is_in_hand(q, other, box.lease, 1, true);
    }
    finish_item(other, &box);
    jnq_detach(other);
    drop_queue(q);
}

struct death {
    jnq_queue *q;
    int last;
};

/* Takes the item with the lock in its hands, and dies. */
static void die_in_a_step(void *arg)
{
    struct death *death = arg;
    jnq_queue *q = death->q;
    struct jnq_record *record;
    uint64_t freed;
    jnq_box box = {.lease = 0};
    put_item(q, 10, 1); /* enters */
    lock_head(q);
    CHECK_EQ(fifo_next(q, &record, &freed), JNQ_OK);
    if (leases(q))
        CHECK_EQ(cells_lease(q, record, JNQ_FOREVER, &box), JNQ_LEASED);
    struct step step = {NOTE_TAKE, &q->sh->takes, q->sh->takes + 1, box.lease};
    step_until(q, &step, death->last);
    die();
}

static void next_owner_of_the_lock_repairs(void)
{
    EACH_STATE(last)
    {
        jnq_queue *q = make_queue(0);
        put_item(q, 10, 0);
        struct death death = {q, last};
        join_dead_child(start_child(die_in_a_step, &death));
        bool taken = last >= TAKEN;
        if (last % 2) { /* before anybody looks for the dead, or by who does */
            lock_head(q);
            unlock_head(q);
            CHECK_EQ(counters(q).recoveries, 1);
            CHECK_EQ(procs_entry(q, 2)->takes, taken);
        }
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(q->sh->head.note.kind, 0);
        CHECK_EQ(counters(q).deaths, 1);
        CHECK_EQ(counters(q).redeliveries, leases(q) && taken);
        CHECK_EQ(q->sh->procs.graves, mode == JNQ_RAISE && taken);
        CHECK_EQ(jnq_check(q), 0);
        if (leases(q) || !taken)
            get_item(q, 10, 0);
        get_item(q, 10, 1);
        CHECK_EQ(jnq_unfinished(q), !leases(q) && taken);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_queue(q);
    }
}

TESTS_IN(JNQ_RAISE, JNQ_REDELIVER, "note", take_from_the_blocks, take_from_the_front, give_back, finish,
         step_leaves_what_it_should, nothing_is_noted_if_nothing_depends_on_it, no_note_means_nothing_to_do,
         broken_note_is_dropped, next_owner_of_the_lock_repairs)
