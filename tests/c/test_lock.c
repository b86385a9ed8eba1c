/* lock: excludes threads and processes, and reports an owner that died as often as it takes to repair. */
#include "harness.h"

#include "lock.h"

struct guarded {
    pthread_mutex_t lock;
    uint64_t count; /* plain: the lock is what makes it right */
    uint64_t orphaned;
    unsigned turns;
};

static struct guarded *fresh_lock(void)
{
    struct guarded *g = shared_memory(sizeof *g);
    CHECK_EQ(lock_init(&g->lock), 0);
    return g;
}

static void drop_lock(struct guarded *g) { munmap(g, sizeof *g); }

static void count_up(void *arg)
{
    struct guarded *g = arg;
    for (unsigned i = 0; i < g->turns; i++) {
        CHECK_EQ(lock_until(&g->lock, event_now() + 60 * SECOND), LOCK_HELD);
        uint64_t before = g->count;
        if (i % 64 == 0)
            sched_yield(); /* so that others try while it is held */
        g->count = before + 1;
        lock_release(&g->lock);
    }
}

static void *count_up_in_thread(void *arg)
{
    count_up(*(struct guarded **)arg);
    return NULL;
}

static void excludes_threads(void)
{
    struct guarded *g = fresh_lock(), *args[4] = {g, g, g, g};
    g->turns = scaled(20000);
    in_threads(4, count_up_in_thread, args, sizeof *args);
    CHECK_EQ(g->count, 4 * g->turns);
    drop_lock(g);
}

static void excludes_processes(void)
{
    struct guarded *g = fresh_lock();
    g->turns = scaled(20000);
    pid_t children[4];
    for (int i = 0; i < 4; i++)
        children[i] = start_child(count_up, g);
    for (int i = 0; i < 4; i++)
        join_child(children[i]);
    CHECK_EQ(g->count, 4 * g->turns);
    drop_lock(g);
}

static void die_holding(void *arg)
{
    struct guarded *g = arg;
    enum lock_result held = lock_until(&g->lock, event_now() + 60 * SECOND);
    CHECK(held != LOCK_BUSY);
    store_sc(&g->orphaned, held == LOCK_ORPHANED);
    die();
}

static void die_before_release(void *arg)
{
    struct guarded *g = arg;
    enum lock_result held = lock_until(&g->lock, event_now() + 60 * SECOND);
    CHECK_EQ(held, LOCK_ORPHANED);
    lock_repaired(&g->lock);
    die();
}

static void owner_killed_is_reported(void)
{
    struct guarded *g = fresh_lock();
    for (int i = 0; i < 20; i++) {
        join_dead_child(start_child(die_holding, g));
        CHECK_EQ(g->orphaned, 0);
        CHECK_EQ(lock_until(&g->lock, 0), LOCK_ORPHANED);
        lock_repaired(&g->lock);
        lock_release(&g->lock);
        CHECK_EQ(lock_until(&g->lock, 0), LOCK_HELD);
        lock_release(&g->lock);
    }
    drop_lock(g);
}

static void repairer_killed_is_reported_again(void)
{
    struct guarded *g = fresh_lock();
    for (int i = 0; i < 5; i++) {
        join_dead_child(start_child(die_holding, g));
        for (int k = 0; k < 3; k++) {
            join_dead_child(start_child(die_holding, g));
            CHECK_EQ(g->orphaned, 1);
        }
        join_dead_child(start_child(die_before_release, g));
        CHECK_EQ(lock_until(&g->lock, 0), LOCK_ORPHANED);
        lock_repaired(&g->lock);
        lock_release(&g->lock);
    }
    drop_lock(g);
}

static void die_in_a_thread_of(void *arg)
{
    struct guarded *g = arg;
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_HELD);
}

static void *hold_and_end(void *arg)
{
    die_in_a_thread_of(arg);
    return NULL;
}

static void hold_in_a_thread_that_ends(void *arg) { join_thread(start_thread(hold_and_end, arg)); }

/* A thread that ends with the lock is as dead as a process. In a child: the sanitizers object to it. */
static void owner_thread_that_ended_is_reported(void)
{
    struct guarded *g = fresh_lock();
    join_child(start_child(hold_in_a_thread_that_ends, g));
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_ORPHANED);
    lock_repaired(&g->lock);
    lock_release(&g->lock);
    drop_lock(g);
}

struct holder {
    struct guarded *g;
    uint32_t holds, release;
};

static void *hold(void *arg)
{
    struct holder *h = arg;
    CHECK_EQ(lock_until(&h->g->lock, 0), LOCK_HELD);
    store_sc(&h->holds, 1);
    while (!load_sc(&h->release))
        nap(MILLISECOND);
    lock_release(&h->g->lock);
    return NULL;
}

static void busy_until_the_deadline(void)
{
    struct guarded *g = fresh_lock();
    struct holder h = {.g = g};
    pthread_t thread = start_thread(hold, &h);
    while (!load_sc(&h.holds))
        nap(MILLISECOND);
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_BUSY);
    CHECK_EQ(lock_until(&g->lock, 1), LOCK_BUSY); /* long ago */
    int64_t deadline = event_now() + 20 * MILLISECOND;
    CHECK_EQ(lock_until(&g->lock, deadline), LOCK_BUSY);
    CHECK_OP(event_now(), >=, deadline);
    store_sc(&h.release, 1);
    CHECK_EQ(lock_until(&g->lock, event_now() + 60 * SECOND), LOCK_HELD);
    lock_release(&g->lock);
    join_thread(thread);
    drop_lock(g);
}

static void stop_holding(void *arg)
{
    struct guarded *g = arg;
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_HELD);
    raise(SIGSTOP);
    g->count++;
    lock_release(&g->lock);
}

static void stopped_owner_keeps_it(void)
{
    struct guarded *g = fresh_lock();
    pid_t pid = start_child(stop_holding, g);
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(lock_until(&g->lock, event_now() + 10 * MILLISECOND), LOCK_BUSY);
    CHECK(!lock_is_forged(&g->lock, sizeof *g));
    kill(pid, SIGCONT);
    join_child(pid);
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_HELD);
    CHECK_EQ(g->count, 1);
    lock_release(&g->lock);
    drop_lock(g);
}

static void end_at_once(void *arg) { (void)arg; }

/* Whoever was written into it as the owner: nobody, one who has ended, one who has nothing to do with it. */
static void forged_owner_is_known(void)
{
#ifdef __GLIBC__
    struct guarded *g = fresh_lock();
    const uint64_t little = sizeof *g, much = (uint64_t)1 << 60;
    pid_t ended = start_child(end_at_once, g);
    join_child(ended);
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_HELD);
    CHECK(!lock_is_forged(&g->lock, little)); /* it is ours */
    int *word = &g->lock.__data.__lock, held = *word;
    const int forged[] = {ended, 0x3ffffffe, (int)0x80000000};
    for (int i = 0; i < 3; i++) {
        *word = forged[i];
        CHECK_EQ(lock_until(&g->lock, 0), LOCK_BUSY);
        CHECK(lock_is_forged(&g->lock, little));
    }
    *word = getppid();
    CHECK(lock_is_forged(&g->lock, much));
    *word = held;
    lock_release(&g->lock);
    CHECK(!lock_is_forged(&g->lock, much)); /* free */
    drop_lock(g);
#endif
}

static void other_mutex_is_refused(void)
{
#ifdef __GLIBC__
    struct guarded *g = fresh_lock();
    int *kind = &g->lock.__data.__kind, before = *kind;
    for (int bit = 0; bit < 32; bit++) {
        *kind = before ^ (int)(1u << bit);
        CHECK_EQ(lock_until(&g->lock, 0), LOCK_BROKEN);
    }
    *kind = before;
    CHECK_EQ(lock_until(&g->lock, 0), LOCK_HELD);
    lock_release(&g->lock);
    drop_lock(g);
#endif
}

/* Owners killed at any instant: what the lock guards is always seen whole, or reported as orphaned. */
static void change_both(void *arg)
{
    struct guarded *g = arg;
    for (;;) {
        enum lock_result held = lock_until(&g->lock, event_now() + 60 * SECOND);
        CHECK(held != LOCK_BUSY);
        if (held == LOCK_ORPHANED) {
            g->orphaned = g->count;
            lock_repaired(&g->lock);
        }
        CHECK_EQ(g->count, g->orphaned);
        g->count++;
        g->orphaned++;
        lock_release(&g->lock);
    }
}

static void killed_at_any_instant(void)
{
    struct guarded *g = fresh_lock();
    uint64_t random = random_state(0), before = 0;
    for (unsigned round = 0; round < scaled(100); round++) {
        pid_t children[2] = {start_child(change_both, g), start_child(change_both, g)};
        while (load_relaxed(&g->count) == before)
            sched_yield();
        nap((int64_t)below(&random, MILLISECOND));
        kill_child(children[0]);
        kill_child(children[1]);
        before = load_relaxed(&g->count);
    }
    drop_lock(g);
}

TESTS("lock", excludes_threads, excludes_processes, owner_killed_is_reported, repairer_killed_is_reported_again,
      owner_thread_that_ended_is_reported, busy_until_the_deadline, stopped_owner_keeps_it, forged_owner_is_known,
      other_mutex_is_refused, killed_at_any_instant)
