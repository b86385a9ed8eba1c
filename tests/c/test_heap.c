/* heap: runs do not overlap, the map tiles the heap after every step, memory goes back, and the dead leave nothing. */
#include "harness.h"

#include "atomics.h"
#include "heap.h"
#include "lock.h"
#include "recover.h"

#define SLOTS 64

/* heap.c: the owner in the word of a used run */
static uint32_t owner_of(jnq_queue *q, uint64_t unit)
{
    return (uint32_t)(((uint64_t *)at(q, q->sh->map_off))[unit] >> 39) & 0x7ffff;
}

struct run {
    uint64_t unit, bytes, name;
};

static void check_map(jnq_queue *q) { CHECK_EQ(jnq_check(q), 0); }

static void *run_at(jnq_queue *q, const struct run *run) { return unit_at(q, run->unit); }

static void alloc_run(jnq_queue *q, struct run *run, uint64_t bytes, uint64_t name)
{
    *run = (struct run){.bytes = bytes, .name = name};
    CHECK_EQ(heap_alloc(q, bytes, event_now() + 10 * SECOND, &run->unit), JNQ_OK);
    CHECK(run->unit != 0);
    CHECK_OP(heap_bytes(q, run->unit), >=, bytes);
    CHECK_OP(heap_bytes(q, run->unit), <, bytes + q->sh->unit_bytes);
    CHECK_OP(run->unit * q->sh->unit_bytes + bytes, <=, q->sh->units * q->sh->unit_bytes);
    CHECK_EQ(owner_of(q, run->unit), q->owner);
    fill(run_at(q, run), bytes, name);
}

static void free_run(jnq_queue *q, struct run *run)
{
    CHECK(filled(run_at(q, run), run->bytes, run->name));
    heap_free(q, run->unit);
    run->unit = 0;
}

/* Sizes of all magnitudes up to `most`, and their neighbours. */
static uint64_t some_bytes(uint64_t *random, uint64_t most)
{
    uint64_t bytes = below(random, 2) ? 1 + below(random, most) : (uint64_t)1 << below(random, 22);
    bytes += below(random, 3) - 1;
    return bytes < 1 ? 1 : bytes > most ? most : bytes;
}

/* Allocates into or frees one of the slots. */
static void step(jnq_queue *q, struct run *slots, uint64_t *random, uint64_t most)
{
    struct run *run = &slots[below(random, SLOTS)];
    if (run->unit)
        free_run(q, run);
    else
        alloc_run(q, run, some_bytes(random, most), next_random(random));
}

static void free_all(jnq_queue *q, struct run *slots)
{
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].unit)
            free_run(q, &slots[i]);
}

/* --- one process -------------------------------------------------------------------------------------------------- */

static void runs_do_not_overlap(void)
{
    jnq_queue *q = make_queue(0);
    struct run slots[SLOTS] = {0};
    uint64_t random = random_state(0);
    for (unsigned i = 0; i < scaled(4000); i++) {
        step(q, slots, &random, i % 200 == 0 ? 4 << 20 : 100000);
        check_map(q);
        /* By the model: what the bytes do not show, the numbers must. */
        uint64_t used = idle_bytes(q);
        for (int a = 0; a < SLOTS; a++)
            if (slots[a].unit)
                used += heap_bytes(q, slots[a].unit);
        CHECK_EQ(counters(q).used_bytes, used);
    }
    free_all(q, slots);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    drop_queue(q);
}

static void two_owners_share_it(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    struct run slots[2][SLOTS] = {0};
    uint64_t random = random_state(1);
    for (unsigned i = 0; i < scaled(4000); i++) {
        step(q, slots[0], &random, 30000);
        step(other, slots[1], &random, 30000);
    }
    check_map(q);
    struct run mine;
    alloc_run(q, &mine, 1, 1);
    heap_own(other, mine.unit);
    CHECK_EQ(owner_of(q, mine.unit), other->owner);
    free_run(other, &mine);
    free_all(q, slots[0]);
    free_all(other, slots[1]);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    jnq_detach(other);
    drop_queue(q);
}

static void words_outside_the_heap_are_no_runs(void)
{
    jnq_queue *q = make_queue(0);
    CHECK_EQ(heap_bytes(q, 0), 0);
    CHECK_EQ(heap_bytes(q, q->sh->units), 0);
    CHECK_EQ(heap_bytes(q, q->sh->units - 1), 0);
    CHECK_EQ(heap_bytes(q, UINT64_MAX), 0);
    CHECK_EQ(heap_bytes(q, (uint64_t)1 << 61), 0);
    CHECK_EQ(heap_bytes(q, q->sh->head.block), BLOCK_BYTES);
    struct run run;
    alloc_run(q, &run, 10000, 1);
    uint64_t unit = run.unit;
    CHECK_OP(heap_bytes(q, unit), >=, 10000);
    free_run(q, &run);
    CHECK_EQ(heap_bytes(q, unit), 0);
    drop_queue(q);
}

static void freed_memory_goes_back(void)
{
    jnq_queue *q = make_queue(0);
    struct run big[2], small[1000];
    uint64_t before = backed_bytes(q);
    alloc_run(q, &big[0], 40 << 20, 1);
    alloc_run(q, &big[1], 40 << 20, 2);
    CHECK_OP(backed_bytes(q), >=, before + (80 << 20));
    free_run(q, &big[0]);
    free_run(q, &big[1]);
    CHECK_OP(backed_bytes(q), <=, before + RESERVE_BYTES + (1 << 20));
    CHECK_OP(counters(q).reserve_bytes, <=, RESERVE_BYTES);
    for (int i = 0; i < 1000; i++)
        alloc_run(q, &small[i], 40000, (uint64_t)i);
    for (int i = 0; i < 1000; i++) {
        free_run(q, &small[i * 7 % 1000]);
        jnq_counters c = counters(q);
        uint64_t limit = c.used_bytes < RESERVE_BYTES ? RESERVE_BYTES : c.used_bytes;
        CHECK_OP(c.reserve_bytes, <=, limit + (1 << 20)); /* it goes back bit by bit */
    }
    CHECK_OP(counters(q).reserve_bytes, >=, RESERVE_BYTES / 2);
    CHECK_OP(backed_bytes(q), <=, before + RESERVE_BYTES + (1 << 20));
    drop_queue(q);
}

/* The same few sizes again and again find warm memory, whatever order they are freed in. */
static void steady_state_touches_nothing_new(void)
{
    jnq_queue *q = make_queue(0);
    struct run runs[8];
    uint64_t settled = 0;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 8; i++)
            alloc_run(q, &runs[i], i % 2 ? 65536 : 20000, (uint64_t)i);
        for (int i = 0; i < 8; i++)
            free_run(q, &runs[round % 2 ? i : 7 - i]);
        if (round == 20)
            settled = backed_bytes(q);
    }
    CHECK_EQ(backed_bytes(q), settled);
    drop_queue(q);
}

/* So do runs that are too large to stay warm: their place in the heap is used again. */
static void large_runs_do_not_wander(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t unit, settled = 0;
    for (int round = 0; round < 12; round++) {
        CHECK_EQ(heap_alloc(q, RESERVE_BYTES + (1 << 20), JNQ_FOREVER, &unit), JNQ_OK);
        heap_free(q, unit);
        if (round == 3)
            settled = backed_bytes(q);
    }
    CHECK_EQ(backed_bytes(q), settled);
    drop_queue(q);
}

/* Which of three free runs of one size is used next, that `other` has freed one after the other. */
static int next_of_three(jnq_queue *q, jnq_queue *other, uint64_t bytes)
{
    uint64_t units[3], unit;
    int next = -1;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(heap_alloc(q, bytes, JNQ_FOREVER, &units[i]), JNQ_OK);
        heap_own(other, units[i]);
    }
    for (int i = 0; i < 3; i++)
        heap_free(other, units[i]);
    CHECK_EQ(heap_alloc(q, bytes, JNQ_FOREVER, &unit), JNQ_OK);
    for (int i = 0; i < 3; i++)
        if (units[i] == unit)
            next = i;
    heap_free(q, unit);
    return next;
}

/* Runs that another process has read, if caches hold them; of our own the newest is used. */
static void runs_that_others_have_freed_take_turns(void)
{
    uint64_t sizes[] = {16 << 10, 1 << 20, 2560 << 10};
    for (int i = 0; i < 3; i++) {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        CHECK_EQ(next_of_three(q, other, sizes[i]), i < 2 ? 0 : 2);
        jnq_detach(other);
        drop_queue(q);
        q = make_queue(0);
        CHECK_EQ(next_of_three(q, q, sizes[i]), 2);
        drop_queue(q);
    }
}

static void pass(jnq_queue *q, uint64_t bytes, int rounds)
{
    for (uint64_t units[4]; rounds; rounds--) {
        for (int i = 0; i < 4; i++)
            CHECK_EQ(heap_alloc(q, bytes, JNQ_FOREVER, &units[i]), JNQ_OK);
        for (int i = 0; i < 4; i++)
            heap_free(q, units[i]);
    }
}

/* The memory of large items stays while they pass, until somebody has waited long. */
static void large_items_pass_in_warm_memory(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t before = backed_bytes(q);
    pass(q, 16 << 20, 1);
    CHECK_OP(backed_bytes(q), <=, before + RESERVE_BYTES + (1 << 20)); /* once is no stream */
    for (int round = 0; round < 20; round++) {
        pass(q, 16 << 20, 1);
        CHECK_OP(backed_bytes(q), >=, before + (64 << 20));
        CHECK_OP(backed_bytes(q), <=, before + (64 << 20) + RESERVE_BYTES + (1 << 20));
    }
    check_map(q);
    heap_cool(q);
    CHECK_OP(backed_bytes(q), <=, before + RESERVE_BYTES + (1 << 20));
    check_map(q);
    drop_queue(q);
}

/* Backlogs of items that are not so large, and items that are too large, are no such stream. */
static void other_items_leave_nothing(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t before = backed_bytes(q), units[400];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 400; i++)
            CHECK_EQ(heap_alloc(q, 100000, JNQ_FOREVER, &units[i]), JNQ_OK);
        for (int i = 0; i < 400; i++)
            heap_free(q, units[i]);
        CHECK_OP(backed_bytes(q), <=, before + RESERVE_BYTES + (1 << 20));
    }
    q->sh->heap.keep = UINT64_MAX; /* foreign writes */
    pass(q, KEEP_BYTES / 4 + (1 << 20), 1);
    CHECK_OP(backed_bytes(q), <=, before + KEEP_BYTES + (4 << 20));
    check_map(q);
    drop_queue(q);
}

/* Growing, and running ahead of the caches, waits only while readers drain, and not for long. */
static void putting_waits_for_readers_only(void)
{
    jnq_queue *q = make_queue(0);
    struct run runs[8], more[2];
    heap_await(q, 200000);
    CHECK_EQ(q->takes_seen, 0);
    for (int i = 0; i < 8; i++)
        alloc_run(q, &runs[i], 200000, (uint64_t)i);
    CHECK_OP(q->back_ns, >, 0);
    q->back_ns = 1;
    heap_await(q, 200000);
    CHECK_EQ(q->in_vain, 0); /* nobody reads */
    q->sh->takes++;
    heap_await(q, 200000);
    CHECK_OP(q->in_vain, >=, 1); /* somebody did, but not in time */
    q->in_vain = 1;
    q->sh->takes++;
    heap_await(q, 200000);
    CHECK_EQ(q->in_vain, 0); /* left out */
    q->sh->takes++;
    free_run(q, &runs[7]);
    heap_await(q, 200000 - q->unit_bytes);
    CHECK_EQ(q->in_vain, 0); /* there is some */
    for (int i = 0; i < 2; i++)
        alloc_run(q, &more[i], 200000, (uint64_t)i);
    free_run(q, &runs[6]);
    heap_await(q, 200000 - q->unit_bytes);
    CHECK_OP(q->in_vain, >=, 1); /* there is some, but eight others are in use */
    q->in_vain = 0;
    q->sh->takes++;
    free_run(q, &runs[5]);
    heap_await(q, 200000 - q->unit_bytes);
    CHECK_EQ(q->in_vain, 0); /* not so many */
    q->sh->takes -= 4;
    check_map(q);
    drop_queue(q);
}

/* What one call cannot give back, because what is in use is in its way, the next ones do. */
static void cooling_goes_on_where_it_was_hindered(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t before = backed_bytes(q), walls[300];
    for (int i = 0; i < 300; i++)
        CHECK_EQ(heap_alloc(q, 5000, JNQ_FOREVER, &walls[i]), JNQ_OK);
    pass(q, 16 << 20, 3);
    CHECK(heap_is_kept(q));
    CHECK_EQ(heap_lock(q, 0), JNQ_OK);
    heap_cool(q);
    heap_unlock(q);
    CHECK(heap_is_kept(q));
    for (int i = 0; i < 20 && heap_is_kept(q); i++)
        heap_cool(q);
    CHECK(!heap_is_kept(q));
    CHECK_OP(backed_bytes(q), <=, before + 300 * 8192 + RESERVE_BYTES + (1 << 20));
    for (int i = 0; i < 300; i++)
        heap_free(q, walls[i]);
    check_map(q);
    drop_queue(q);
}

struct two_runs {
    jnq_queue *q;
    uint64_t units[2];
};

static void alloc_two_and_die(void *arg)
{
    struct two_runs *runs = arg;
    uint64_t page = runs->q->sh->unit_bytes;
    put_item(runs->q, 0, 0); /* enters */
    CHECK_EQ(heap_alloc(runs->q, 150 * page, JNQ_FOREVER, &runs->units[0]), JNQ_OK);
    CHECK_EQ(heap_alloc(runs->q, 300 * page, JNQ_FOREVER, &runs->units[1]), JNQ_OK);
    die();
}

/* A walk that comes round joins the cold run it found at first to the one before it: the one it gives must be whole. */
static void walk_that_comes_round_gives_a_whole_run(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t page = q->sh->unit_bytes;
    struct two_runs *cold = shared_memory(sizeof *cold); /* neighbours, the second long enough */
    struct run pieces[16], walls[17], given[2];
    cold->q = q;
    join_dead_child(start_child(alloc_two_and_die, cold));
    CHECK_EQ(cold->units[1], cold->units[0] + 150);
    for (uint64_t i = 0; i < 16; i++) {
        alloc_run(q, &walls[i], page, i);
        alloc_run(q, &pieces[i], 100 * page, i); /* warm; each too short for what comes, together enough */
    }
    alloc_run(q, &walls[16], page, 16);
    for (uint64_t i = 0; i < 16; i++)
        free_run(q, &pieces[i]);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    q->sh->heap.rover[0] = cold->units[1]; /* a walk may begin at any run */
    alloc_run(q, &given[0], 200 * page, 100);
    check_map(q);
    alloc_run(q, &given[1], 200 * page, 101);
    check_map(q);
    free_run(q, &given[0]);
    free_run(q, &given[1]);
    for (int i = 0; i < 17; i++)
        free_run(q, &walls[i]);
    get_item(q, 0, 0);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    munmap(cold, sizeof *cold);
    drop_queue(q);
}

static void busy_lock_does_not_hinder_freeing(void)
{
    jnq_queue *q = make_queue(0);
    struct run runs[SLOTS];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SLOTS; i++)
            alloc_run(q, &runs[i], 5000, (uint64_t)i);
        CHECK_EQ(heap_lock(q, 0), JNQ_OK);
        uint64_t unit;
        CHECK_EQ(heap_alloc(q, 1, 0, &unit), JNQ_INTERRUPTED);
        for (int i = 0; i < SLOTS; i++)
            free_run(q, &runs[i]);
        heap_unlock(q);
        check_map(q);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    }
    drop_queue(q);
}

/* --- the end of the heap ------------------------------------------------------------------------------------------ */

static void more_than_the_heap_is_refused(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t unit = 4711, page = q->sh->unit_bytes;
    const uint64_t sizes[] = {q->sh->units * page, q->sh->segment_bytes, (uint64_t)1 << 62, UINT64_MAX};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK_EQ(heap_alloc(q, sizes[i], JNQ_FOREVER, &unit), JNQ_NO_MEMORY);
        CHECK_EQ(jnq_put(q, "", sizes[i], JNQ_FOREVER), JNQ_NO_MEMORY);
        check_map(q);
    }
    CHECK_EQ(unit, 4711);
    put_item(q, 100000, 1);
    get_item(q, 100000, 1);
    drop_queue(q);
}

static void full_heap_is_refused_and_recovers(void)
{
    jnq_queue *q = make_small_queue(0, 4 << 20);
    uint64_t units[1024], n, page = q->sh->unit_bytes;
    for (int round = 0; round < 6; round++) {
        for (n = 0; n < 1024; n++) {
            int rc = heap_alloc(q, round % 2 ? page : (1 + n % 5) * page, JNQ_FOREVER, &units[n]);
            if (rc) {
                CHECK_EQ(rc, JNQ_NO_MEMORY);
                break;
            }
        }
        check_map(q);
        if (round % 2) /* every unit was given out */
            CHECK_EQ(counters(q).used_bytes, (q->sh->units - 1) * page);
        CHECK_EQ(heap_alloc(q, 6 * page, JNQ_FOREVER, &units[n]), JNQ_NO_MEMORY);
        /* Every other one first, so that they lie apart: then the others join them. */
        for (uint64_t i = 0; i < n; i += 2)
            heap_free(q, units[i]);
        check_map(q);
        for (uint64_t i = 1; i < n; i += 2)
            heap_free(q, units[i]);
        check_map(q);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        uint64_t whole, most = (q->sh->units - 1) * page - BLOCK_BYTES;
        CHECK_EQ(heap_alloc(q, most, JNQ_FOREVER, &whole), JNQ_OK);
        CHECK_EQ(heap_alloc(q, 1, JNQ_FOREVER, &units[0]), JNQ_NO_MEMORY);
        check_map(q);
        heap_free(q, whole);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    }
    drop_queue(q);
}

static void random_steps_in_a_full_heap(void)
{
    jnq_queue *q = make_small_queue(0, 4 << 20);
    uint64_t units[SLOTS] = {0}, random = random_state(2), refused = 0;
    for (unsigned i = 0; i < scaled(20000); i++) {
        uint64_t *unit = &units[below(&random, SLOTS)];
        if (*unit) {
            heap_free(q, *unit);
            *unit = 0;
        } else {
            int rc = heap_alloc(q, some_bytes(&random, 250000), JNQ_FOREVER, unit);
            CHECK(rc == JNQ_OK || rc == JNQ_NO_MEMORY);
            refused += rc == JNQ_NO_MEMORY;
        }
        if (i % 16 == 0)
            check_map(q);
    }
    CHECK_OP(refused, >, 0);
    for (int i = 0; i < SLOTS; i++)
        if (units[i])
            heap_free(q, units[i]);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    drop_queue(q);
}

/* --- marks ------------------------------------------------------------------------------------------------------- */

static void sweep_frees_the_unmarked_of_one_owner(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    struct run kept, lost, theirs;
    alloc_run(q, &kept, 10000, 1);
    alloc_run(q, &lost, 20000, 2);
    alloc_run(other, &theirs, 30000, 3);
    CHECK_EQ(heap_lock(q, JNQ_FOREVER), JNQ_OK);
    CHECK(heap_owns_any(q, q->owner));
    CHECK(!heap_owns_any(q, 77));
    heap_unmark_all(q);
    CHECK(heap_mark(q, q->sh->head.block));
    CHECK(heap_mark(q, kept.unit));
    CHECK(!heap_mark(q, kept.unit)); /* twice */
    CHECK(!heap_mark(q, 0));
    CHECK(!heap_mark(q, kept.unit + 1)); /* inside */
    heap_sweep(q, q->owner);
    CHECK_EQ(heap_bytes(q, lost.unit), 0);
    CHECK_OP(heap_bytes(q, kept.unit), >=, 10000);
    CHECK_OP(heap_bytes(q, theirs.unit), >=, 30000);
    heap_unmark_all(q);
    CHECK(heap_mark(q, kept.unit));
    heap_unlock(q);
    check_map(q);
    free_run(q, &kept);
    free_run(other, &theirs);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    jnq_detach(other);
    drop_queue(q);
}

static bool nobody(jnq_queue *q, uint32_t owner)
{
    (void)q;
    (void)owner;
    return false;
}

static bool everybody(jnq_queue *q, uint32_t owner)
{
    (void)q;
    (void)owner;
    return true;
}

static void check_finds_what_is_broken(void)
{
    jnq_queue *q = make_queue(0);
    struct run run;
    uint64_t leases;
    alloc_run(q, &run, 10000, 1);
    CHECK_EQ(heap_lock(q, JNQ_FOREVER), JNQ_OK);
    heap_unmark_all(q);
    CHECK(heap_mark(q, q->sh->head.block));
    CHECK_EQ(heap_check(q, everybody, &leases), 0);
    CHECK_EQ(heap_check(q, nobody, &leases), 5);
    CHECK(heap_mark(q, run.unit));
    CHECK_EQ(heap_check(q, nobody, &leases), 0);
    uint64_t *word = (uint64_t *)at(q, q->sh->map_off) + run.unit, before = *word;
    *word = before + 1; /* leads into the next run */
    CHECK_EQ(heap_check(q, everybody, &leases), 3);
    *word = 0;
    CHECK_EQ(heap_check(q, everybody, &leases), 3);
    *word = UINT64_MAX;
    CHECK_EQ(heap_check(q, everybody, &leases), 3);
    *word = before;
    CHECK_EQ(heap_check(q, everybody, &leases), 0);
    heap_unlock(q);
    free_run(q, &run);
    drop_queue(q);
}

/* Whatever words and hints say: nothing outside the heap is given out or touched, and every walk ends. */
static void foreign_words_lead_nowhere(void)
{
    jnq_queue *q = make_queue(0);
    struct jnq_heap *heap = &q->sh->heap, before = *heap;
    const uint64_t words[] = {
        0, 1, 1ull << 63, 1ull << 63 | ((1ull << 40) - 1), 1ull << 62 | ((1ull << 40) - 1), UINT64_MAX};
    const uint64_t hints[] = {1, q->units - 1, q->units, (uint64_t)1 << 40, UINT64_MAX};
    uint64_t *map = at(q, q->map_off), first = map[1], top = heap->top, last = map[top], unit;
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        map[1] = map[top] = words[i];
        for (unsigned k = 0; k < sizeof hints / sizeof *hints; k++) {
            heap->top = heap->rover[0] = heap->rover[1] = heap->recent[0] = hints[k];
            heap->free_warm = UINT64_MAX >> 1;
            int rc = heap_alloc(q, 100000, JNQ_FOREVER, &unit);
            if (rc == JNQ_OK)
                CHECK_OP(unit, <, q->units);
            else
                CHECK(rc == JNQ_CORRUPT || rc == JNQ_NO_MEMORY);
            heap_free(q, hints[k]);
            heap_own(q, hints[k]);
            counters(q);
            jnq_check(q);
        }
    }
    pthread_mutex_t lock = heap->lock;
    *heap = before;
    heap->lock = lock;
    map[1] = first;
    map[top] = last;
    check_map(q);
    drop_queue(q);
}

static void leases_are_found_by_their_owner(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    enum { LEASES = 5 };
    struct run runs[LEASES], plain;
    uint64_t units[LEASES + 1] = {0}, leases;
    alloc_run(q, &plain, 10000, 99);
    for (uint64_t i = 0; i < LEASES; i++) {
        alloc_run(q, &runs[i], 5000 * (i + 1), i);
        CHECK_EQ(heap_leaser(q, runs[i].unit), 0);
        heap_lease(q, runs[i].unit, other->owner);
        CHECK_EQ(heap_leaser(q, runs[i].unit), other->owner);
        CHECK_EQ(owner_of(q, runs[i].unit), other->owner);
        CHECK_OP(heap_bytes(q, runs[i].unit), >=, runs[i].bytes);
    }
    CHECK_EQ(heap_leaser(q, plain.unit), 0);
    CHECK_EQ(heap_leaser(q, runs[0].unit + 1), 0); /* inside */
    CHECK_EQ(heap_leaser(q, 0), 0);
    CHECK_EQ(heap_leaser(q, UINT64_MAX), 0);
    CHECK_EQ(heap_lock(q, JNQ_FOREVER), JNQ_OK);
    heap_unmark_all(q);
    CHECK_EQ(heap_leases(q, q->owner, units, LEASES), 0);
    CHECK_EQ(heap_leases(q, other->owner, NULL, 0), LEASES);
    CHECK_EQ(heap_leases(q, other->owner, units, 2), LEASES);
    CHECK_EQ(units[2], 0); /* no more than there is room for */
    CHECK_EQ(heap_leases(q, other->owner, units, LEASES), LEASES);
    for (int i = 0; i < LEASES; i++)
        CHECK_EQ(units[i], runs[i].unit);
    CHECK(heap_mark(q, runs[1].unit)); /* can be reached: the bit means nothing */
    CHECK_EQ(heap_leases(q, other->owner, units, LEASES), LEASES - 1);
    CHECK_EQ(units[1], runs[2].unit);
    CHECK_EQ(heap_check(q, everybody, &leases), 0);
    CHECK_EQ(leases, LEASES - 1);
    heap_unmark_all(q);
    heap_unlock(q);
    heap_lease(q, runs[0].unit, 0);
    CHECK_EQ(heap_leaser(q, runs[0].unit), 0);
    CHECK_EQ(owner_of(q, runs[0].unit), other->owner); /* it stays the owner */
    heap_own(q, runs[1].unit);
    CHECK_EQ(heap_leaser(q, runs[1].unit), 0);
    heap_lease(q, runs[2].unit, q->owner); /* handed on */
    CHECK_EQ(heap_leaser(q, runs[2].unit), q->owner);
    check_map(q);
    for (int i = 0; i < LEASES; i++)
        free_run(q, &runs[i]);
    CHECK_EQ(heap_leaser(q, runs[2].unit), 0);
    heap_lease(q, 0, q->owner); /* not a run: nothing happens */
    heap_lease(q, UINT64_MAX, 0);
    free_run(q, &plain);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    jnq_detach(other);
    drop_queue(q);
}

/* --- threads ----------------------------------------------------------------------------------------------------- */

struct worker {
    jnq_queue *q;
    uint64_t random;
    unsigned steps;
};

static void *alloc_and_free(void *arg)
{
    struct worker *w = arg;
    struct run slots[SLOTS] = {0};
    for (unsigned i = 0; i < w->steps; i++)
        step(w->q, slots, &w->random, i % 100 == 0 ? 1 << 20 : 20000);
    free_all(w->q, slots);
    return NULL;
}

static void threads_share_it(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    struct worker workers[4];
    for (unsigned i = 0; i < 4; i++)
        workers[i] = (struct worker){.q = i == 3 ? other : q, .random = random_state(10 + i), .steps = scaled(20000)};
    in_threads(4, alloc_and_free, workers, sizeof *workers);
    check_map(q);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    jnq_detach(other);
    drop_queue(q);
}

/* --- the dead ---------------------------------------------------------------------------------------------------- */

static void die_with_the_lock(void *arg)
{
    CHECK_EQ(heap_lock(arg, JNQ_FOREVER), JNQ_OK);
    die();
}

/* A death costs the hints, and not more than one walk. */
static void hints_come_back(void)
{
    jnq_queue *q = make_queue(0);
    struct run runs[SLOTS], last;
    for (int i = 0; i < SLOTS; i++)
        alloc_run(q, &runs[i], 20000, (uint64_t)i);
    join_dead_child(start_child(die_with_the_lock, q));
    alloc_run(q, &last, 20000, 1);
    CHECK_EQ(counters(q).recoveries, 1);
    CHECK_EQ(q->sh->heap.top, last.unit + heap_bytes(q, last.unit) / q->sh->unit_bytes);
    free_all(q, runs);
    free_run(q, &last);
    drop_queue(q);
}

static void alloc_and_free_for_ever(void *arg)
{
    struct worker *w = arg;
    jnq_queue *q = w->q;
    struct run slots[SLOTS] = {0};
    put_item(q, 0, 0); /* enters */
    for (;; add_sc(&w->steps, 1))
        step(q, slots, &w->random, 20000);
}

static void the_killed_leave_nothing(void)
{
    jnq_queue *q = make_queue(0);
    struct worker *w = shared_memory(2 * sizeof *w);
    struct run slots[SLOTS] = {0};
    uint64_t random = random_state(3), before = backed_bytes(q);
    for (unsigned round = 0; round < scaled(150); round++) {
        pid_t children[2];
        for (int i = 0; i < 2; i++) {
            w[i] = (struct worker){.q = q, .random = next_random(&random)};
            children[i] = start_child(alloc_and_free_for_ever, &w[i]);
        }
        while (!load_sc(&w[0].steps) || !load_sc(&w[1].steps))
            step(q, slots, &random, 20000);
        nap((int64_t)below(&random, MILLISECOND));
        kill_child(children[0]);
        step(q, slots, &random, 20000);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        check_map(q);
        kill_child(children[1]);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        check_map(q);
        CHECK_EQ(counters(q).processes, 1);
        free_all(q, slots);
        while (jnq_qsize(q))
            get_item(q, 0, 0);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    }
    CHECK_EQ(counters(q).deaths, 2 * scaled(150));
    CHECK_OP(backed_bytes(q), <=, before + RESERVE_BYTES + (1 << 20));
    munmap(w, 2 * sizeof *w);
    drop_queue(q);
}

TESTS("heap", runs_do_not_overlap, two_owners_share_it, words_outside_the_heap_are_no_runs, freed_memory_goes_back,
      steady_state_touches_nothing_new, large_runs_do_not_wander, runs_that_others_have_freed_take_turns,
      large_items_pass_in_warm_memory, other_items_leave_nothing, putting_waits_for_readers_only,
      cooling_goes_on_where_it_was_hindered, walk_that_comes_round_gives_a_whole_run, busy_lock_does_not_hinder_freeing,
      more_than_the_heap_is_refused, full_heap_is_refused_and_recovers, random_steps_in_a_full_heap,
      sweep_frees_the_unmarked_of_one_owner, check_finds_what_is_broken, foreign_words_lead_nowhere,
      leases_are_found_by_their_owner, threads_share_it, hints_come_back, the_killed_leave_nothing)
