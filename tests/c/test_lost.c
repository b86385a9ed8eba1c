/* lost: who can tell that tasks are lost with the dead (JNQ_RAISE), and what becomes of the tasks of one who leaves.
 *
 * Part of recover.c; processes die by kill_handle() here, at no random instant. */
#include "harness.h"

#include "lock.h"
#include "note.h"
#include "procs.h"
#include "recover.h"

static jnq_queue *queue_of(int on_death, uint64_t items)
{
    jnq_queue *q = make_mortal_queue(0, on_death, 9);
    for (uint64_t i = 0; i < items; i++)
        put_item(q, 1, i);
    return q;
}

static void take_n(jnq_queue *q, uint64_t n)
{
    jnq_box box;
    for (uint64_t i = 0; i < n; i++) {
        CHECK(is_item(jnq_get(q, &box, JNQ_NOW)));
        jnq_release(&box);
    }
}

/* A process that takes so many and dies; `exit`: 0, or what it announced. */
static void take_and_die(jnq_queue *q, uint64_t n, int exit)
{
    jnq_queue *other = second_handle(q);
    take_n(other, n);
    if (exit)
        jnq_depart(other, exit == EXIT_FAILED);
    kill_handle(other, 4711);
}

/* All who can tell say the same. */
static bool lost(jnq_queue *q)
{
    uint64_t since = 0;
    bool answer = recover_lost(q);
    int rc = jnq_join(q, &since, JNQ_NOW);
    CHECK_EQ(rc, answer ? JNQ_LOST : jnq_unfinished(q) ? JNQ_TIMEOUT : JNQ_OK);
    CHECK_EQ(jnq_check(q), 0);
    return answer;
}

static void reap(jnq_queue *q) { CHECK_EQ(jnq_reap(q), JNQ_OK); }

static void tasks_of_the_dead_alone_are_lost(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        put_item(q, 1, 0);
        CHECK(!lost(q)); /* queued */
        take_and_die(q, 1, 0);
        CHECK(!lost(q)); /* not found yet */
        reap(q);
        CHECK_EQ(q->sh->procs.graves, 1);
        CHECK(lost(q));
        put_item(q, 1, 1);
        CHECK(!lost(q)); /* queued: there is something to wait for */
        take_n(q, 1);
        CHECK(!lost(q)); /* in a living hand */
        CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
        CHECK(lost(q));
        CHECK_EQ(counters(q).foreign, 0);
        drop_queue(q);
    }
}

static void given_back_is_not_lost(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 2), *other = second_handle(q);
    jnq_box box;
    take_and_die(q, 1, 0);
    reap(q);
    take_item(other, &box, 1, 1);
    CHECK(!lost(q));
    CHECK_EQ(jnq_unget(other, &box), JNQ_OK);
    CHECK(!lost(q));
    get_item(q, 1, 1);
    CHECK(lost(q));
    jnq_detach(other);
    CHECK(lost(q));
    drop_queue(q);
}

static void nothing_unfinished_is_nothing_lost(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 3);
    take_and_die(q, 2, 0);
    reap(q);
    get_item(q, 1, 2);
    CHECK(lost(q));
    CHECK_EQ(jnq_task_done(q, 2), JNQ_OK); /* on behalf of the dead: all can be finished so */
    CHECK(!lost(q));
    CHECK_EQ(jnq_unfinished(q), 0);
    drop_queue(q);
}

/* What a process with no task unreported leaves is no grave. */
static void death_without_tasks_loses_nothing(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 2), *other = second_handle(q);
    get_item(other, 1, 0);
    kill_handle(other, 4711);
    reap(q);
    CHECK_EQ(q->sh->procs.graves, 0);
    CHECK(!lost(q));
    get_item(q, 1, 1);
    drop_queue(q);
}

/* It may have been reported done, or not: without living holders it was not. */
static void death_in_a_report_leaves_a_grave(void)
{
    for (int after = 0; after < 2; after++) {
        jnq_queue *q = queue_of(JNQ_RAISE, 2), *other = second_handle(q);
        jnq_holder holder;
        take_n(other, 1);
        other->me->dones = 1 + (DONES + 1);
        q->sh->dones = (uint64_t)after;
        kill_handle(other, 4711);
        reap(q);
        CHECK_EQ(q->sh->procs.graves, 1);
        CHECK_EQ(jnq_read_holder(q, 2, &holder), JNQ_OK);
        CHECK_EQ(holder.unsure, 1);
        CHECK_EQ(holder.dead, 1);
        CHECK(!lost(q)); /* queued */
        take_n(q, 1);
        CHECK(!lost(q)); /* in hand */
        CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
        CHECK_EQ(lost(q), !after);
        drop_queue(q);
    }
}

static void foreign_reports_make_it_untellable(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 3), *other = second_handle(q);
    take_n(q, 1);
    take_and_die(q, 2, 0);
    reap(q);
    CHECK(!lost(q));
    CHECK_EQ(jnq_task_done(other, 1), JNQ_OK); /* ours, or that of the dead? */
    CHECK_EQ(counters(q).foreign, 1);
    CHECK(!lost(q));
    CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
    CHECK(!lost(q));
    CHECK_EQ(jnq_unfinished(q), 1);
    jnq_detach(other);
    drop_queue(q);
}

static void only_this_mode_says_so(void)
{
    jnq_queue *q = queue_of(JNQ_IGNORE, 1);
    take_and_die(q, 1, 0);
    reap(q);
    CHECK_EQ(q->sh->procs.graves, 0);
    CHECK(!lost(q));
    CHECK_EQ(counters(q).processes, 1);
    drop_queue(q);
    q = queue_of(JNQ_REDELIVER, 1);
    take_and_die(q, 1, 0);
    reap(q);
    CHECK_EQ(q->sh->procs.graves, 0);
    CHECK(!lost(q));
    get_item(q, 1, 0);
    drop_queue(q);
}

/* In order: it handed its tasks on, in a way that cannot be seen, or it forgot them. */
static void end_in_order_is_foreign(void)
{
    for (int exit = 0; exit <= EXIT_FAILED; exit++) {
        jnq_queue *q = queue_of(JNQ_RAISE, 1);
        take_and_die(q, 1, exit);
        reap(q);
        CHECK_EQ(counters(q).foreign, exit == EXIT_CLEAN);
        CHECK_EQ(q->sh->procs.graves, exit != EXIT_CLEAN);
        CHECK_EQ(lost(q), exit != EXIT_CLEAN);
        drop_queue(q);
    }
    jnq_queue *q = queue_of(JNQ_RAISE, 1), *other = second_handle(q);
    get_item(other, 1, 0);
    jnq_depart(other, 0);
    kill_handle(other, 4711); /* it had none in hand */
    reap(q);
    CHECK_EQ(counters(q).foreign, 0);
    drop_queue(q);
}

static void graves_are_limited_and_forgotten(void)
{
    enum { DEATHS = GRAVES_MAX + 5 };
    jnq_queue *q = queue_of(JNQ_RAISE, DEATHS);
    jnq_holder holder;
    for (int i = 0; i < DEATHS; i++) {
        take_and_die(q, 1, 0);
        reap(q);
        CHECK_EQ(q->sh->procs.graves, i < GRAVES_MAX ? i + 1 : GRAVES_MAX);
    }
    CHECK(lost(q)); /* all the same */
    CHECK_EQ(counters(q).processes, 1);
    CHECK_EQ(counters(q).deaths, DEATHS);
    for (uint32_t owner = 2; owner < GRAVES_MAX + 2; owner++) {
        CHECK_EQ(jnq_read_holder(q, owner, &holder), JNQ_OK);
        CHECK_EQ(holder.dead, 1);
        CHECK_EQ(holder.tasks, 1);
    }
    CHECK_EQ(jnq_read_holder(q, GRAVES_MAX + 2, &holder), JNQ_EMPTY);
    CHECK_EQ(jnq_task_done(q, DEATHS - 1), JNQ_OK);
    reap(q);
    CHECK_EQ(q->sh->procs.graves, GRAVES_MAX); /* one may still be theirs */
    CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
    reap(q);
    CHECK_EQ(q->sh->procs.graves, 0);
    CHECK_EQ(jnq_read_holder(q, 2, &holder), JNQ_EMPTY);
    drop_queue(q);
}

/* The flag of the graves may lag behind the table, if who dug one died. */
static void graves_may_lag(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 1), *other = second_handle(q);
    take_n(other, 1);
    q->sh->procs.graves = 1; /* it was about to be one */
    CHECK(!lost(q));
    kill_handle(other, 4711);
    CHECK(!lost(q));
    reap(q);
    CHECK_EQ(q->sh->procs.graves, 1);
    CHECK(lost(q));
    drop_queue(q);
}

static void busy_locks_are_no_answer(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 1);
    take_and_die(q, 1, 0);
    reap(q);
    CHECK_EQ(recover_lock_head(q, 0), JNQ_OK);
    CHECK(!recover_lost(q));
    lock_release(&q->sh->head.lock);
    CHECK_EQ(recover_lock_procs(q, 0), JNQ_OK);
    CHECK(!recover_lost(q));
    lock_release(&q->sh->procs.lock);
    CHECK(lost(q));
    drop_queue(q);
}

struct work {
    jnq_queue *q;
    uint32_t rounds;
};

static void *work_in_rounds(void *arg)
{
    struct work *work = arg;
    while (load_sc(&work->rounds)) {
        put_item(work->q, 0, 0);
        get_item(work->q, 0, 0);
        sub_sc(&work->rounds, 1);
    }
    return NULL;
}

/* A grave whose tasks are all done, and a task that is put, taken and reported done while others look. */
static void task_reported_meanwhile_is_not_lost(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 2), *other = second_handle(q);
    take_n(other, 1);
    other->me->dones = 1 + (DONES + 1); /* it died right after R3 */
    q->sh->dones = 1;
    kill_handle(other, 4711);
    reap(q);
    take_n(q, 1);
    CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
    CHECK_EQ(q->sh->procs.graves, 1); /* until the next look for the dead */
    struct work work = {q, scaled(200000)};
    pthread_t thread = start_thread(work_in_rounds, &work);
    while (load_sc(&work.rounds))
        CHECK(!recover_lost(q));
    join_thread(thread);
    drop_queue(q);
}

static void *join_and_lose(void *arg)
{
    uint64_t since = 0;
    int rc;
    while ((rc = jnq_join(arg, &since, JNQ_FOREVER)) == JNQ_INTERRUPTED)
        ;
    CHECK_EQ(rc, JNQ_LOST);
    return NULL;
}

/* A joiner looks for the dead itself, and tells the others. */
static void waiting_joiners_are_told(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 1);
    jnq_holder holder;
    pthread_t threads[3];
    jnq_queue *other = second_handle(q);
    take_n(other, 1);
    for (int i = 0; i < 3; i++)
        threads[i] = start_thread(join_and_lose, q);
    do
        CHECK_EQ(jnq_read_holder(q, 1, &holder), JNQ_OK);
    while (holder.waiting[JNQ_IN_JOIN] < 3);
    kill_handle(other, 4711);
    for (int i = 0; i < 3; i++)
        join_thread(threads[i]);
    drop_queue(q);
}

/* --- leaving with tasks in hand ----------------------------------------------------------------------------------------------- */

static void who_leaves_with_tasks(void)
{
    for (int on_death = JNQ_IGNORE; on_death <= JNQ_REDELIVER; on_death++) {
        for (int exit = 0; exit <= EXIT_FAILED; exit++) {
            for (uint64_t tasks = 0; tasks < 2; tasks++) {
                jnq_queue *q = queue_of(on_death, 2), *other = second_handle(q);
                take_n(other, tasks);
                if (exit)
                    jnq_depart(other, exit == EXIT_FAILED);
                bool raises = on_death == JNQ_RAISE && tasks, stays = raises && exit == EXIT_FAILED;
                bool comes_back = on_death == JNQ_REDELIVER && tasks;
                struct jnq_proc *entry = procs_entry(q, other->owner);
                jnq_detach(other);
                CHECK_EQ(counters(q).processes, stays ? 2 : 1);
                CHECK_EQ(counters(q).foreign, raises && !stays);
                CHECK_EQ(counters(q).redeliveries, comes_back);
                CHECK_EQ(counters(q).deaths, 0);
                CHECK_EQ(jnq_qsize(q), comes_back ? 2 : 2 - tasks);
                CHECK(!lost(q));
                if (stays) { /* its tasks are lost when it is dead */
                    take_n(q, 1);
                    CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
                    CHECK(!lost(q));
                    entry->start--;
                    reap(q);
                    CHECK_EQ(counters(q).processes, 1);
                    CHECK_EQ(counters(q).foreign, 0);
                    CHECK(lost(q));
                }
                drop_queue(q);
            }
        }
    }
}

/* After all are finished there is nothing in hand, whatever the figures say. */
static void who_leaves_when_all_is_finished(void)
{
    jnq_queue *q = queue_of(JNQ_RAISE, 2), *other = second_handle(q);
    take_n(other, 2);
    q->sh->dones = 2; /* as if somebody had reported them */
    jnq_detach(other);
    CHECK_EQ(counters(q).foreign, 0);
    CHECK_EQ(counters(q).processes, 1);
    drop_queue(q);
}

/* Takes the only task, and dies before its figure says so. */
static void take_and_die_unsaid(void *arg)
{
    jnq_queue *q = arg;
    put_item(q, 0, 0);
    CHECK_EQ(recover_lock_head(q, event_now() + SECOND), JNQ_OK);
    struct jnq_note *note = &q->sh->head.note;
    note->owner = q->owner;
    note->word = (uint64_t)((char *)&q->sh->takes - q->base);
    note->value = 1;
    note->unit = 0;
    note->takes = 1;
    note->kind = NOTE_TAKE;
    store_sc(&q->sh->takes, 1);
    die();
}

/* Its entry does not look as if it had a task: but the lock that it held does, to whoever looks for the dead. */
static void task_taken_by_one_who_died_of_it_is_found(void)
{
    jnq_queue *q = make_queue(0), *idle[8];
    for (int i = 0; i < 8; i++)
        idle[i] = second_handle(q);
    join_dead_child(start_child(take_and_die_unsaid, q));
    q->sh->procs.rover = 0; /* far from the dead one's entry */
    CHECK_EQ(recover_reap(q, 1, event_now() + SECOND), JNQ_OK);
    CHECK_EQ(q->sh->procs.graves, 1);
    CHECK(recover_lost(q));
    for (int i = 0; i < 8; i++)
        jnq_detach(idle[i]);
    drop_queue(q);
}

TESTS("lost", tasks_of_the_dead_alone_are_lost, task_taken_by_one_who_died_of_it_is_found, given_back_is_not_lost,
      nothing_unfinished_is_nothing_lost, death_without_tasks_loses_nothing, death_in_a_report_leaves_a_grave,
      foreign_reports_make_it_untellable, only_this_mode_says_so, end_in_order_is_foreign,
      graves_are_limited_and_forgotten, graves_may_lag, busy_locks_are_no_answer, task_reported_meanwhile_is_not_lost,
      waiting_joiners_are_told, who_leaves_with_tasks, who_leaves_when_all_is_finished)
