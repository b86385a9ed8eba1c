/* counts: what is derived from puts, takes, dones and cut, and the zero that join() must not miss. */
#include "harness.h"

#include "counts.h"
#include "procs.h"

static void put_n(jnq_queue *q, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        put_item(q, 1, i);
}

static void queued_and_unfinished_follow(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        CHECK_EQ(counts_tasks(q), base);
        CHECK_EQ(counts_queued(q), 0);
        CHECK_EQ(counts_unfinished(q), 0);
        for (uint64_t i = 0; i < 8; i++) {
            put_item(q, i, i);
            CHECK_EQ(counts_tasks(q), base + i + 1);
            CHECK_EQ(counts_queued(q), i + 1);
            CHECK_EQ(counts_unfinished(q), i + 1);
        }
        jnq_box box;
        for (uint64_t i = 0; i < 8; i++) {
            take_item(q, &box, i, i);
            CHECK_EQ(counts_queued(q), 7 - i);
            CHECK_EQ(counts_unfinished(q), 8);
        }
        for (uint64_t i = 0; i < 8; i++) {
            CHECK_EQ(counts_done(q, 1), JNQ_OK);
            CHECK_EQ(counts_unfinished(q), 7 - i);
        }
        CHECK_EQ(jnq_check(q), 0);
        drop_queue(q);
    }
}

static void done_is_all_or_none(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        CHECK_EQ(counts_done(q, 1), JNQ_TOO_MANY_DONE);
        put_n(q, 5);
        CHECK_EQ(counts_done(q, 6), JNQ_TOO_MANY_DONE);
        CHECK_EQ(counts_done(q, UINT64_MAX), JNQ_TOO_MANY_DONE);
        CHECK_EQ(counts_done(q, -base), base ? JNQ_TOO_MANY_DONE : JNQ_OK); /* would wrap to 0 */
        CHECK_EQ(counts_unfinished(q), 5);
        CHECK_EQ(counts_done(q, 3), JNQ_OK);
        CHECK_EQ(counts_unfinished(q), 2);
        CHECK_EQ(counts_done(q, 3), JNQ_TOO_MANY_DONE);
        CHECK_EQ(counts_done(q, 2), JNQ_OK);
        CHECK_EQ(counts_unfinished(q), 0);
        CHECK_EQ(counts_done(q, 1), JNQ_TOO_MANY_DONE);
        CHECK_EQ(q->sh->dones, base + 5);
        drop_queue(q);
    }
}

/* --- the edge -------------------------------------------------------------------------------------------------- */

static void joiner_sees_a_zero_that_was_left(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 2);
        uint64_t since = counts_join(q);
        CHECK(!counts_zero(q, since));
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        CHECK(!counts_zero(q, since));
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        CHECK(counts_zero(q, since));
        put_n(q, 1); /* the zero is over before the joiner looked */
        CHECK_EQ(counts_unfinished(q), 1);
        CHECK(counts_zero(q, since));
        drop_queue(q);
    }
}

static void joiner_sees_no_zero_before_its_time(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 1);
        uint64_t early = counts_join(q);
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        put_n(q, 1);
        uint64_t late = counts_join(q);
        CHECK(counts_zero(q, early));
        CHECK(!counts_zero(q, late));
        put_n(q, 1);
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        CHECK(!counts_zero(q, late));
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        put_n(q, 1);
        CHECK(counts_zero(q, late));
        drop_queue(q);
    }
}

static void joiner_of_an_empty_queue_returns(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        uint64_t since = 0;
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
        put_n(q, 1);
        since = 0;
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_TIMEOUT);
        CHECK_EQ(since, base + 1);
        CHECK_EQ(jnq_join(q, &since, event_now() + MILLISECOND), JNQ_TIMEOUT);
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        put_n(q, 1);
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
        drop_queue(q);
    }
}

/* A process made the count zero, and died before it could record it. */
static void next_put_records_the_zero_of_the_dead(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 3);
        uint64_t since = counts_join(q);
        store_sc(&q->sh->dones, base + 3);
        put_n(q, 1);
        CHECK(counts_zero(q, since));
        CHECK_EQ(q->sh->zero_at, base + 3);
        CHECK_EQ(q->sh->joining, 0);
        /* And so for the next joiner. */
        since = counts_join(q);
        CHECK(!counts_zero(q, since));
        put_n(q, 1); /* not a zero: it must not take the announcement down */
        CHECK_EQ(q->sh->joining, 1);
        store_sc(&q->sh->dones, base + 5);
        put_n(q, 2);
        CHECK(counts_zero(q, since));
        drop_queue(q);
    }
}

static void put_records_nothing_while_nobody_joins(void)
{
    jnq_queue *q = make_queue(0);
    put_n(q, 1);
    store_sc(&q->sh->dones, 1);
    put_n(q, 1);
    CHECK_EQ(q->sh->zero_at, 0);
    drop_queue(q);
}

/* Each joiner comes while something is unfinished, and must see the zero that follows, whatever is put after it. */
struct joiner {
    jnq_queue *q;
    pthread_barrier_t *barrier;
    unsigned rounds;
};

static void *join_each_round(void *arg)
{
    struct joiner *j = arg;
    for (unsigned round = 0; round < j->rounds; round++) {
        pthread_barrier_wait(j->barrier); /* one task is unfinished */
        uint64_t since = 0;
        int64_t deadline = event_now() + 20 * SECOND;
        int rc = jnq_join(j->q, &since, JNQ_NOW);
        CHECK_EQ(rc, JNQ_TIMEOUT);
        pthread_barrier_wait(j->barrier); /* all have come */
        while ((rc = jnq_join(j->q, &since, deadline)) == JNQ_INTERRUPTED)
            ;
        CHECK_EQ(rc, JNQ_OK);
        pthread_barrier_wait(j->barrier);
    }
    return NULL;
}

static void joiners_never_miss_a_zero(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 1);
        pthread_barrier_t barrier;
        CHECK(!pthread_barrier_init(&barrier, NULL, 3));
        struct joiner joiner = {.q = q, .barrier = &barrier, .rounds = scaled(200)};
        pthread_t threads[2] = {start_thread(join_each_round, &joiner), start_thread(join_each_round, &joiner)};
        for (unsigned round = 0; round < joiner.rounds; round++) {
            pthread_barrier_wait(&barrier);
            pthread_barrier_wait(&barrier);
            CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
            put_n(q, 1);
            pthread_barrier_wait(&barrier);
        }
        for (int i = 0; i < 2; i++)
            join_thread(threads[i]);
        pthread_barrier_destroy(&barrier);
        CHECK_EQ(counts_unfinished(q), 1);
        drop_queue(q);
    }
}

/* --- cut ------------------------------------------------------------------------------------------------------- */

static void cut_leaves_the_tasks_in_hand(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 10);
        jnq_box box;
        for (uint64_t i = 0; i < 4; i++)
            take_item(q, &box, 1, i);
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        uint64_t since = counts_join(q);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(q->sh->cut, base + 5);
        CHECK_EQ(counts_tasks(q), base + 4);
        CHECK_EQ(counts_queued(q), 0);
        CHECK_EQ(counts_unfinished(q), 3);
        CHECK_EQ(counts_done(q, 4), JNQ_TOO_MANY_DONE);
        CHECK(!counts_zero(q, since));
        CHECK_EQ(counts_done(q, 2), JNQ_OK);
        CHECK_EQ(jnq_unget(q, &box), JNQ_OK); /* discarded: counts as done */
        CHECK_EQ(counts_unfinished(q), 0);
        CHECK(counts_zero(q, since));
        CHECK_EQ(counts_done(q, 1), JNQ_TOO_MANY_DONE);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(q->sh->cut, base + 5);
        drop_queue(q);
    }
}

static void impossible_counts_are_seen(void)
{
    jnq_queue *q = make_queue(0);
    put_n(q, 3);
    CHECK(counts_plausible(q));
    uint64_t *const words[] = {&q->sh->takes, &q->sh->dones, &q->sh->cut};
    const uint64_t wrong[] = {4, 4, 1};
    for (int i = 0; i < 3; i++) {
        uint64_t before = *words[i], since = 0;
        *words[i] = wrong[i];
        CHECK(!counts_plausible(q));
        if (words[i] == &q->sh->takes)
            CHECK_EQ(jnq_join(q, &since, JNQ_FOREVER), JNQ_CORRUPT);
        *words[i] = before;
    }
    CHECK(counts_plausible(q));
    drop_queue(q);
}

static void cut_of_items_given_back(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 3);
        jnq_box boxes[2];
        for (uint64_t i = 0; i < 2; i++)
            take_item(q, &boxes[i], 1, i);
        CHECK_EQ(jnq_unget(q, &boxes[0]), JNQ_OK);
        CHECK_EQ(counts_queued(q), 2);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(counts_unfinished(q), 1);
        CHECK_EQ(counts_done(q, 1), JNQ_OK);
        CHECK_EQ(counts_unfinished(q), 0);
        drop_queue(q);
    }
}

/* Tasks may be reported done before they are taken, as with the stdlib. */
static void cut_of_more_than_is_unfinished(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_n(q, 3);
        uint64_t since = counts_join(q);
        CHECK_EQ(counts_done(q, 2), JNQ_OK);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(counts_tasks(q), base);
        CHECK_EQ(counts_unfinished(q), 0);
        CHECK(counts_zero(q, since));
        CHECK_EQ(counts_done(q, 1), JNQ_TOO_MANY_DONE);
        drop_queue(q);
    }
}

/* A task_done() that began before the cut and took effect after it may report more than are left: still a zero. */
static void zero_beyond_the_cut_is_a_zero(void)
{
    jnq_queue *q = make_queue(0);
    put_n(q, 3);
    jnq_box box;
    take_item(q, &box, 1, 0);
    CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK); /* one task is left */
    uint64_t since = 0;
    CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_TIMEOUT);
    store_sc(&q->sh->dones, 2);
    CHECK_EQ(counts_unfinished(q), 0);
    CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
    drop_queue(q);
}

/* --- figures while others change them --------------------------------------------------------------------------- */

struct changer {
    jnq_queue *q;
    uint32_t *stop;
    uint64_t limit;
};

static void *put_and_get(void *arg)
{
    struct changer *c = arg;
    for (unsigned round = 0; !load_sc(c->stop); round++) {
        jnq_box box;
        uint64_t bytes = round % 3 ? 3 : 20000;
        put_item(c->q, bytes, 0);
        CHECK_OP(jnq_get(c->q, &box, JNQ_NOW), >=, JNQ_LARGE); /* all put before they get: there is one */
        if (round % 2) {
            CHECK_EQ(jnq_unget(c->q, &box), JNQ_OK);
            CHECK_OP(jnq_get(c->q, &box, JNQ_NOW), >=, JNQ_LARGE);
        }
        jnq_release(&box);
        CHECK_EQ(jnq_task_done(c->q, 1), JNQ_OK);
    }
    return NULL;
}

static void *look(void *arg)
{
    struct changer *c = arg;
    while (!load_sc(c->stop)) {
        CHECK_OP(counts_queued(c->q), <=, c->limit);
        CHECK_OP(counts_unfinished(c->q), <=, c->limit);
    }
    return NULL;
}

static void figures_are_exact_at_every_moment(void)
{
    EACH_BASE(base)
    {
        uint32_t stop = 0;
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        struct changer c = {.q = q, .stop = &stop, .limit = 2};
        pthread_t threads[3] = {start_thread(put_and_get, &c), start_thread(put_and_get, &c), start_thread(look, &c)};
        nap((int64_t)scaled(100) * MILLISECOND);
        store_sc(&stop, 1);
        for (int i = 0; i < 3; i++)
            join_thread(threads[i]);
        CHECK_EQ(counts_queued(q), 0);
        CHECK_EQ(counts_unfinished(q), 0);
        drop_queue(q);
    }
}

static void *done_one_by_one(void *arg)
{
    struct changer *c = arg;
    for (uint64_t i = 0; i < c->limit; i++)
        CHECK_EQ(jnq_task_done(c->q, 1), JNQ_OK);
    return NULL;
}

static void dones_of_threads_add_up(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        struct changer c = {.q = q, .limit = scaled(10000)}, args[4] = {c, c, c, c};
        put_n(q, 4 * c.limit);
        in_threads(4, done_one_by_one, args, sizeof *args);
        CHECK_EQ(counts_unfinished(q), 0);
        CHECK_EQ(jnq_task_done(q, 1), JNQ_TOO_MANY_DONE);
        drop_queue(q);
    }
}

/* --- whose the tasks are (JNQ_RAISE) ------------------------------------------------------------------------------ */

#define ONE_REPORT (DONES + 1)

static void take_n(jnq_queue *q, uint64_t n)
{
    jnq_box box;
    for (uint64_t i = 0; i < n; i++) {
        CHECK_OP(jnq_get(q, &box, JNQ_NOW), >=, 0);
        jnq_release(&box);
    }
}

static void entry_knows_what_its_process_has(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        jnq_box box;
        put_n(q, 10);
        take_n(q, 3);
        take_n(other, 2);
        CHECK_EQ(q->me->takes, 3);
        CHECK_EQ(other->me->takes, 2);
        CHECK_EQ(jnq_get(q, &box, JNQ_NOW), 1);
        CHECK_EQ(q->me->takes, 4);
        CHECK_EQ(jnq_unget(q, &box), JNQ_OK); /* as if it had not been taken */
        CHECK_EQ(q->me->takes, 3);
        take_n(other, 1); /* from the front list */
        CHECK_EQ(q->me->takes, 3);
        CHECK_EQ(other->me->takes, 3);
        CHECK_EQ(jnq_task_done(q, 2), JNQ_OK);
        CHECK_EQ(jnq_task_done(other, 3), JNQ_OK);
        CHECK_EQ(q->me->dones, 2);
        CHECK_EQ(other->me->dones, 3);
        CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
        CHECK_EQ(counters(q).foreign, 0);
        take_n(q, 4);
        CHECK_EQ(jnq_task_done(q, 4), JNQ_OK);
        CHECK_EQ(counters(q).foreign, 0);
        jnq_detach(other);
        drop_queue(q);
    }
}

static void nothing_is_counted_if_nothing_depends_on_it(void)
{
    jnq_queue *q = make_mortal_queue(0, JNQ_IGNORE, 1), *other = second_handle(q);
    put_n(q, 2);
    take_n(q, 2);
    CHECK_EQ(jnq_task_done(other, 2), JNQ_OK);
    CHECK_EQ(q->me->takes, 2); /* a figure */
    CHECK_EQ(other->me->dones, 0);
    CHECK_EQ(counters(q).foreign, 0);
    jnq_detach(other);
    drop_queue(q);
}

static void report_of_anothers_task_is_foreign(void)
{
    EACH_BASE(base) for (uint64_t own = 0; own < 3; own++)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        put_n(q, 6);
        take_n(other, own);
        take_n(q, 6 - own);
        if (own)
            CHECK_EQ(jnq_task_done(other, own), JNQ_OK);
        CHECK_EQ(counters(q).foreign, 0);
        CHECK_EQ(jnq_task_done(other, 1), JNQ_OK);
        CHECK_EQ(counters(q).foreign, 1);
        CHECK_EQ(jnq_task_done(q, 5 - own), JNQ_OK); /* the count goes on as ever */
        CHECK_EQ(counts_unfinished(q), 0);
        CHECK_EQ(counters(q).foreign, 1); /* for good */
        jnq_detach(other);
        drop_queue(q);
    }
}

/* One report of more than it has in hand, part of it its own. */
static void report_of_too_many_of_ones_own_is_foreign(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    put_n(q, 4);
    take_n(q, 2);
    take_n(other, 2);
    CHECK_EQ(jnq_task_done(q, 3), JNQ_OK);
    CHECK_EQ(counters(q).foreign, 1);
    jnq_detach(other);
    drop_queue(q);
}

static void task_done_before_it_is_taken_is_foreign(void)
{
    jnq_queue *q = make_queue(0);
    put_n(q, 1);
    CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
    CHECK_EQ(counters(q).foreign, 1);
    drop_queue(q);
}

static void report_one_done(void *arg)
{
    CHECK_EQ(jnq_task_done(arg, 1), JNQ_OK);
    CHECK(!procs_entered(arg)); /* a report needs no entry */
}

static void enter_and_report_one_done(void *arg)
{
    put_item(arg, 1, 1);
    CHECK(procs_entered(arg));
    CHECK_EQ(jnq_task_done(arg, 1), JNQ_OK);
}

static void child_that_reports_its_parents_task_is_foreign(void)
{
    for (int entered = 0; entered < 2; entered++) {
        jnq_queue *q = make_queue(0);
        put_n(q, 2);
        take_n(q, 2);
        CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
        CHECK_EQ(counters(q).foreign, 0);
        join_child(start_child(entered ? enter_and_report_one_done : report_one_done, q));
        CHECK_EQ(counters(q).foreign, 1);
        CHECK_EQ(q->me->dones, 1); /* not ours */
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        drop_queue(q);
    }
}

static void too_many_are_not_foreign(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0), *other = second_handle(q);
        rebase(q, base);
        const uint64_t many[] = {1, 4, DONES, ONE_REPORT, (uint64_t)1 << 63, UINT64_MAX};
        for (int taken = 0; taken < 2; taken++) {
            for (unsigned i = (unsigned)taken; i < sizeof many / sizeof *many; i++) { /* then one may be reported */
                CHECK_EQ(jnq_task_done(q, many[i]), JNQ_TOO_MANY_DONE);
                CHECK_EQ(jnq_task_done(other, many[i]), JNQ_TOO_MANY_DONE);
                CHECK_EQ(q->me->dones, 0); /* as before */
                CHECK_EQ(other->me->dones, 0);
                CHECK_EQ(counters(q).foreign, 0);
            }
            if (!taken) {
                put_n(q, 3);
                take_n(q, 3);
            }
        }
        CHECK_EQ(jnq_task_done(q, 3), JNQ_OK);
        CHECK_EQ(jnq_task_done(q, 1), JNQ_TOO_MANY_DONE);
        CHECK_EQ(counters(q).foreign, 0);
        jnq_detach(other);
        drop_queue(q);
    }
}

static void *report_too_many(void *arg)
{
    struct changer *c = arg;
    while (!load_sc(c->stop))
        CHECK_EQ(jnq_task_done(c->q, 1000), JNQ_TOO_MANY_DONE);
    return NULL;
}

/* Nor do they make those of other threads foreign. */
static void too_many_of_a_thread_disturb_no_other(void)
{
    jnq_queue *q = make_queue(0);
    uint32_t stop = 0;
    struct changer c = {.q = q, .stop = &stop};
    pthread_t thread = start_thread(report_too_many, &c);
    for (unsigned i = 0; i < scaled(40000); i++) {
        put_n(q, 1);
        take_n(q, 1);
        CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
    }
    store_sc(&stop, 1);
    join_thread(thread);
    CHECK_EQ(counters(q).foreign, 0);
    drop_queue(q);
}

/* What a process that dies between the two halves of a report leaves: it is unsure, and counts as a holder. */
static void report_under_way_is_seen(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    jnq_holder holder;
    put_n(q, 1);
    take_n(other, 1);
    CHECK(procs_holds(q, other->owner));
    CHECK(!procs_holds(q, q->owner));
    for (int after = 0; after < 2; after++) { /* R3 */
        other->me->dones = 1 + ONE_REPORT;
        q->sh->dones = (uint64_t)after;
        CHECK(procs_holds(q, other->owner));
        CHECK_EQ(jnq_read_holder(q, other->owner, &holder), JNQ_OK);
        CHECK_EQ(holder.unsure, 1);
    }
    other->me->dones = 1;
    CHECK(!procs_holds(q, other->owner));
    CHECK_EQ(jnq_read_holder(q, other->owner, &holder), JNQ_OK);
    CHECK_EQ(holder.unsure, 0);
    CHECK_EQ(holder.tasks, 0);
    jnq_detach(other);
    drop_queue(q);
}

/* A report by the thread that did not take the task is no report by another process. */
static void threads_share_what_their_process_has(void)
{
    jnq_queue *q = make_queue(0);
    struct changer c = {.q = q, .limit = scaled(2000)}, args[4] = {c, c, c, c};
    put_n(q, 4 * c.limit);
    take_n(q, 4 * c.limit);
    in_threads(4, done_one_by_one, args, sizeof *args);
    CHECK_EQ(counts_unfinished(q), 0);
    CHECK_EQ(q->me->takes, 4 * c.limit);
    CHECK_EQ(q->me->dones, 4 * c.limit);
    CHECK_EQ(counters(q).foreign, 0);
    drop_queue(q);
}

static void *take_and_report(void *arg)
{
    struct changer *c = arg;
    for (uint64_t i = 0; i < c->limit; i++) {
        put_n(c->q, 1);
        take_n(c->q, 1);
        CHECK_EQ(jnq_task_done(c->q, 1), JNQ_OK);
    }
    return NULL;
}

static void threads_that_take_and_report_are_not_foreign(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    struct changer c = {.q = q, .limit = scaled(4000)}, args[4] = {c, c, c, c};
    args[3].q = other;
    in_threads(4, take_and_report, args, sizeof *args);
    CHECK_EQ(counters(q).foreign, 0);
    CHECK_EQ(q->me->dones, 3 * c.limit);
    CHECK_EQ(other->me->dones, c.limit);
    CHECK_EQ(q->me->takes + other->me->takes, 4 * c.limit);
    jnq_detach(other);
    drop_queue(q);
}

/* --- finished tasks ------------------------------------------------------------------------------------------------ */

/* As if so many tasks were dead letters; no cell is behind it, so nobody may walk the list. */
static void set_dead_letters(jnq_queue *q, uint64_t n) { store_sc(&q->sh->head.dead, n << (64 - LIST_BITS)); }

static void dead_letters_are_finished(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_mortal_queue(0, JNQ_REDELIVER, 1);
        rebase(q, base);
        put_n(q, 3);
        uint64_t since = counts_join(q);
        CHECK_EQ(counts_finished(q), base);
        set_dead_letters(q, 2);
        CHECK_EQ(counts_finished(q), base + 2);
        CHECK_EQ(counts_unfinished(q), 1);
        counts_announce(q, counts_finished(q)); /* no zero */
        CHECK(!counts_zero(q, since));
        set_dead_letters(q, 3);
        CHECK_EQ(counts_unfinished(q), 0);
        counts_announce(q, counts_finished(q));
        CHECK_EQ(q->sh->zero_at, base + 3);
        since = base + 3;
        store_sc(&q->sh->joining, 1);
        q->sh->zero_at = 0;
        put_n(q, 1); /* the zero that a dead process did not announce */
        CHECK_EQ(q->sh->zero_at, base + 3);
        CHECK(counts_zero(q, since));
        CHECK_EQ(counts_unfinished(q), 1);
        set_dead_letters(q, 0);
        jnq_box box;
        for (int i = 0; i < 4; i++) {
            CHECK_EQ(jnq_get(q, &box, JNQ_NOW), JNQ_LEASED);
            finish_item(q, &box);
        }
        drop_queue(q);
    }
}

static void cut_counts_dead_letters_as_done(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_mortal_queue(0, JNQ_REDELIVER, 1), *other = second_handle(q);
        rebase(q, base);
        put_n(q, 5);
        jnq_box box;
        CHECK_EQ(jnq_get(other, &box, JNQ_NOW), JNQ_LEASED);
        kill_handle(other, 1);
        CHECK_EQ(jnq_reap(q), JNQ_OK);
        CHECK_EQ(counters(q).dead_letters, 1);
        CHECK_EQ(counts_unfinished(q), 4);
        CHECK_EQ(jnq_get(q, &box, JNQ_NOW), JNQ_LEASED);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(counts_tasks(q), base + 2); /* the letter, and the task in hand */
        CHECK_EQ(counts_unfinished(q), 1);
        finish_item(q, &box);
        CHECK_EQ(counts_unfinished(q), 0);
        drop_queue(q);
    }
}

TESTS("counts", queued_and_unfinished_follow, done_is_all_or_none, joiner_sees_a_zero_that_was_left,
      joiner_sees_no_zero_before_its_time, joiner_of_an_empty_queue_returns, next_put_records_the_zero_of_the_dead,
      put_records_nothing_while_nobody_joins, joiners_never_miss_a_zero, cut_leaves_the_tasks_in_hand,
      impossible_counts_are_seen, cut_of_items_given_back, cut_of_more_than_is_unfinished, zero_beyond_the_cut_is_a_zero,
      figures_are_exact_at_every_moment, dones_of_threads_add_up, entry_knows_what_its_process_has,
      nothing_is_counted_if_nothing_depends_on_it, report_of_anothers_task_is_foreign,
      report_of_too_many_of_ones_own_is_foreign, task_done_before_it_is_taken_is_foreign,
      child_that_reports_its_parents_task_is_foreign, too_many_are_not_foreign, too_many_of_a_thread_disturb_no_other,
      report_under_way_is_seen, threads_share_what_their_process_has, threads_that_take_and_report_are_not_foreign,
      dead_letters_are_finished, cut_counts_dead_letters_as_done)
