/* recover: processes are killed at random instants of every operation; what they held is freed, nothing is delivered
 * twice, no item is lost but what the dead had in hand (and with JNQ_REDELIVER none), and the rest goes on. */
#include "harness.h"

#include "heap.h"

#define NAMES (1u << 22)
#define CHILDREN 3

/* Every item carries its name; `put` and `seen` say what became of it. */
struct arena {
    jnq_queue *q;
    uint32_t next;             /* name */
    uint32_t steps;            /* of all children */
    uint32_t again;            /* items that were given again: those of who died before it could report them done */
    unsigned char put[NAMES];  /* put() had returned */
    unsigned char seen[NAMES]; /* a get has given it, for good */
};

static struct arena *fresh_arena(uint64_t maxsize)
{
    struct arena *arena = shared_memory(sizeof *arena);
    arena->q = make_queue(maxsize);
    return arena;
}

static void drop_arena(struct arena *arena)
{
    drop_queue(arena->q);
    munmap(arena, sizeof *arena);
}

static const uint64_t sizes[] = {8, 8, 8, 100, 4000, 8176, 8177, 30000, 70000, 300000};

static int put_named(struct arena *arena, uint64_t *random, int64_t deadline)
{
    static char payload[300000];
    uint64_t bytes = sizes[below(random, sizeof sizes / sizeof *sizes)];
    uint32_t name = add_sc(&arena->next, 1) % NAMES;
    memcpy(payload, &name, sizeof name);
    memset(payload + sizeof name, 0, 4);
    fill(payload + 8, bytes - 8, name);
    int rc = jnq_put(arena->q, payload, bytes, deadline);
    if (!rc)
        store_sc(&arena->put[name], 1);
    return rc;
}

static uint32_t name_of(const jnq_box *box)
{
    uint32_t name;
    CHECK_OP(box->bytes, >=, 8);
    memcpy(&name, box->payload, sizeof name);
    CHECK_OP(name, <, NAMES);
    CHECK(filled(box->payload + 8, box->bytes - 8, name));
    return name;
}

/* The end of an item: no other get has given it, but to one who died right here. */
static void finish(struct arena *arena, jnq_box *box)
{
    uint32_t name = name_of(box);
    bool again = set_bits_sc(&arena->seen[name], (unsigned char)1);
    CHECK(!again || mode == JNQ_REDELIVER);
    if (again)
        add_sc(&arena->again, 1);
    finish_item(arena->q, box);
}

static void put_and_get_for_ever(void *arg)
{
    struct arena *arena = arg;
    uint64_t random = random_state((uint64_t)getpid());
    jnq_box box;
    for (;; add_sc(&arena->steps, 1)) {
        int64_t rc = put_named(arena, &random, below(&random, 8) ? JNQ_NOW : event_now() + MILLISECOND);
        CHECK(rc == JNQ_OK || rc == JNQ_FULL || rc == JNQ_INTERRUPTED);
        if (below(&random, 50) == 0)
            CHECK(jnq_reap(arena->q) <= 0);
        rc = jnq_get(arena->q, &box, below(&random, 8) ? JNQ_NOW : event_now() + MILLISECOND);
        CHECK(is_item(rc) || rc == JNQ_EMPTY || rc == JNQ_INTERRUPTED);
        if (!is_item(rc))
            continue;
        name_of(&box);
        if (below(&random, 4) == 0) {
            while ((rc = jnq_unget(arena->q, &box)) == JNQ_INTERRUPTED)
                ;
            CHECK_EQ(rc, JNQ_OK);
        } else {
            finish(arena, &box);
        }
    }
}

static void drain(struct arena *arena)
{
    jnq_box box;
    int64_t rc;
    while (is_item(rc = jnq_get(arena->q, &box, JNQ_NOW)))
        finish(arena, &box);
    CHECK_EQ(rc, load_sc(&arena->q->sh->ended) ? JNQ_SHUTDOWN : JNQ_EMPTY);
}

static uint64_t kill_all(pid_t *pids, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        kill_child(pids[i]);
    return n;
}

/* What was put and never given was in the hands of the dead; each had at most one item. What came back was given again
 * if its taker died in finish(). */
static void nothing_else_is_lost(struct arena *arena, uint64_t kills)
{
    uint64_t lost = 0;
    CHECK_OP(arena->next, <, NAMES);
    for (uint32_t name = 0; name <= arena->next; name++)
        lost += arena->put[name] && !arena->seen[name];
    CHECK_OP(lost, <=, mode == JNQ_REDELIVER ? 0 : kills);
    CHECK_OP(jnq_unfinished(arena->q), <=, mode == JNQ_REDELIVER ? 0 : kills);
    CHECK_OP(arena->again, <=, kills);
    CHECK_OP(counters(arena->q).redeliveries, <=, kills);
}

static void leaves_one_block(jnq_queue *q)
{
    put_item(q, 8, 1); /* the head goes where the tail is */
    get_item(q, 8, 1);
    CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
    CHECK_EQ(jnq_check(q), 0);
}

static void killed_at_any_instant(uint64_t maxsize)
{
    struct arena *arena = fresh_arena(maxsize);
    jnq_queue *q = arena->q;
    uint64_t random = random_state(maxsize), kills = 0;
    unsigned rounds = scaled(150);
    for (unsigned round = 0; round < rounds; round++) {
        pid_t pids[CHILDREN];
        uint32_t before = load_sc(&arena->steps);
        for (unsigned i = 0; i < CHILDREN; i++)
            pids[i] = start_child(put_and_get_for_ever, arena);
        while (load_sc(&arena->steps) < before + 5)
            nap(MILLISECOND / 10);
        nap((int64_t)below(&random, 3 * MILLISECOND));
        kill_child(pids[0]); /* the others go on */
        if (round % 2)
            CHECK_EQ(jnq_check(q), 0); /* the dead is still in the table */
        before = load_sc(&arena->steps);
        while (load_sc(&arena->steps) == before)
            nap(MILLISECOND / 10);
        kills += 1 + kill_all(pids + 1, CHILDREN - 1);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(counters(q).processes, 1);
        CHECK_EQ(jnq_check(q), 0);
        if (round % 8 == 7) {
            drain(arena);
            leaves_one_block(q);
        }
    }
    drain(arena);
    leaves_one_block(q);
    CHECK_OP(counters(q).deaths, <=, kills); /* some had not entered yet */
    nothing_else_is_lost(arena, kills);
    drop_arena(arena);
}

static void killed_in_an_unbounded_queue(void) { killed_at_any_instant(0); }

static void killed_in_a_bounded_queue(void) { killed_at_any_instant(5); }

/* --- shutdown ----------------------------------------------------------------------------------------------------------- */

struct ending {
    struct arena *arena;
    int immediate;
};

static void shut_down_for_ever(void *arg)
{
    struct ending *ending = arg;
    uint64_t random = random_state((uint64_t)getpid());
    for (int i = 0; i < 20; i++) {
        jnq_box box;
        put_named(ending->arena, &random, JNQ_NOW);
        if (is_item(jnq_get(ending->arena->q, &box, JNQ_NOW)))
            finish(ending->arena, &box);
        for (int more = 0; more < 10; more++)
            put_named(ending->arena, &random, JNQ_NOW);
    }
    for (;; add_sc(&ending->arena->steps, 1))
        jnq_shutdown(ending->arena->q, ending->immediate);
}

static void killed_in_shutdown(void)
{
    uint64_t random = random_state(3);
    for (unsigned round = 0; round < scaled(100); round++) {
        struct ending ending = {.arena = fresh_arena(0), .immediate = round % 2};
        jnq_queue *q = ending.arena->q;
        pid_t pid = start_child(shut_down_for_ever, &ending);
        while (!load_sc(&q->sh->ended) && below(&random, 3000))
            nap(MILLISECOND / 100);
        if (round % 4 < 2)
            nap((int64_t)below(&random, MILLISECOND / 5));
        kill_child(pid);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(jnq_check(q), 0);
        drain(ending.arena);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(jnq_check(q), 0);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        drop_arena(ending.arena);
    }
}

/* --- join and waiters ---------------------------------------------------------------------------------------------------- */

/* Sleepers are killed while others put and get: who is left is woken. */
static void wait_for_ever(void *arg)
{
    struct arena *arena = arg;
    uint64_t since = 0;
    jnq_box box;
    for (;;) {
        if (is_item(jnq_get(arena->q, &box, event_now() + MILLISECOND / 2))) {
            while (jnq_unget(arena->q, &box) == JNQ_INTERRUPTED)
                ;
        }
        since = 0;
        jnq_join(arena->q, &since, event_now() + MILLISECOND / 2);
        add_sc(&arena->steps, 1);
    }
}

static void killed_waiters_leave_the_rest_working(void)
{
    struct arena *arena = fresh_arena(3);
    uint64_t random = random_state(4), kills = 0;
    for (unsigned round = 0; round < scaled(100); round++) {
        pid_t pids[2] = {start_child(wait_for_ever, arena), start_child(wait_for_ever, arena)};
        uint32_t before = load_sc(&arena->steps);
        while (load_sc(&arena->steps) < before + 2)
            if (!put_named(arena, &random, JNQ_NOW))
                drain(arena);
        nap((int64_t)below(&random, MILLISECOND));
        kills += kill_all(pids, 2);
        CHECK_EQ(jnq_reap(arena->q), JNQ_OK);
        CHECK_EQ(jnq_check(arena->q), 0);
        drain(arena);
        leaves_one_block(arena->q);
    }
    nothing_else_is_lost(arena, kills);
    drop_arena(arena);
}

/* A workload completes while its workers are killed, each replaced by another. */
static void workload_completes_in_spite_of_kills(void)
{
    struct arena *arena = fresh_arena(20);
    jnq_queue *q = arena->q;
    uint64_t random = random_state(5), kills = 0;
    pid_t pids[CHILDREN];
    for (unsigned i = 0; i < CHILDREN; i++)
        pids[i] = start_child(put_and_get_for_ever, arena);
    unsigned items = scaled(2000);
    for (unsigned i = 0; i < items; i++) {
        int rc;
        while ((rc = put_named(arena, &random, event_now() + 10 * SECOND)) == JNQ_INTERRUPTED)
            ;
        CHECK_EQ(rc, JNQ_OK);
        if (i % 16 == 0) {
            unsigned victim = (unsigned)below(&random, CHILDREN);
            kill_child(pids[victim]);
            kills++;
            pids[victim] = start_child(put_and_get_for_ever, arena);
        }
    }
    kills += kill_all(pids, CHILDREN);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    drain(arena);
    leaves_one_block(q);
    nothing_else_is_lost(arena, kills);
    drop_arena(arena);
}

TESTS_IN_ALL_MODES("recover", killed_in_an_unbounded_queue, killed_in_a_bounded_queue, killed_in_shutdown,
                   killed_waiters_leave_the_rest_working, workload_completes_in_spite_of_kills)
