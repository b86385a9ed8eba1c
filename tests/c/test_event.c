/* event: a wake-up is lost neither between sleepers and wakers nor between two wakers. Both doors must pass.
 *
 * Where time would have to show that a wake-up was lost, a result shows it: sleepers have a deadline far away and must
 * not see EVENT_TIMEOUT.
 *
 * Linked with --wrap=door_wake, so that a test can step in while a waker is about to wake. */
#include "harness.h"

#include "event_door.h"

#define FAR (10 * SECOND)

static const uint32_t seqs[] = {0, UINT32_MAX - 2};

static struct jnq_event *fresh_event(uint32_t seq)
{
    struct jnq_event *ev = shared_memory(sizeof *ev);
    CHECK_EQ(event_init(ev), 0);
    ev->seq = ev->all = seq;
    return ev;
}

static void drop_event(struct jnq_event *ev) { munmap(ev, sizeof *ev); }

static _Thread_local void (*in_wake)(void); /* called once, when this thread is next about to wake */

bool __real_door_wake(struct jnq_event *ev, uint64_t n);
bool __wrap_door_wake(struct jnq_event *ev, uint64_t n);
bool __wrap_door_wake(struct jnq_event *ev, uint64_t n)
{
    void (*step_in)(void) = in_wake;
    in_wake = NULL;
    if (step_in)
        step_in();
    return __real_door_wake(ev, n);
}

/* --- one thread ------------------------------------------------------------------------------------------------- */

static void timeout_comes_not_early(void)
{
    for (int i = 0; i < 2; i++) {
        struct jnq_event *ev = fresh_event(seqs[i]);
        int64_t until = event_now() + 5 * MILLISECOND;
        uint32_t e = event_prepare(ev);
        CHECK_EQ(event_sleep(ev, e, until), EVENT_TIMEOUT);
        CHECK_OP(event_now(), >=, until);
        CHECK_EQ(event_sleep(ev, event_prepare(ev), 1), EVENT_TIMEOUT);
        drop_event(ev);
    }
}

static void coarse_clock_lags_a_little(void)
{
    for (int i = 0; i < 1000; i++) {
        int64_t before = event_now(), coarse = event_coarse_now();
        CHECK_OP(coarse, <=, event_now());
        CHECK_OP(coarse, >, before - SECOND / 10);
    }
}

static void wake_after_prepare_ends_the_sleep(void)
{
    for (int i = 0; i < 2; i++) {
        struct jnq_event *ev = fresh_event(seqs[i]);
        for (int k = 0; k < 10; k++) {
            uint32_t e = event_prepare(ev);
            if (k % 2)
                event_notify(ev, 1);
            else
                event_notify_all(ev);
            CHECK_EQ(event_sleep(ev, e, event_now() + FAR), EVENT_WOKEN);
        }
        drop_event(ev);
    }
}

static void notify_without_sleeper_only_looks(void)
{
    struct jnq_event *ev = fresh_event(0);
    event_notify(ev, 1);
    event_notify_all(ev);
    CHECK_EQ(ev->seq, 0);
    drop_event(ev);
}

/* A sleeper that went away costs a bounded number of wakes, and leaves no store of tokens. */
static void sleepers_that_left_cost_little(void)
{
    struct jnq_event *ev = fresh_event(0);
    for (int k = 0; k < 1000; k++) {
        event_prepare(ev);
        event_notify(ev, 1);
    }
    uint32_t seq = ev->seq;
    for (int k = 0; k < 1000; k++)
        event_notify(ev, 1);
    CHECK_OP(ev->seq - seq, <=, 100);
#ifdef JNQ_DOOR_SEM
    int tokens;
    CHECK(!sem_getvalue(&ev->sem, &tokens));
    CHECK_OP(tokens, <=, 100);
#endif
    drop_event(ev);
}

/* --- sleepers in threads -------------------------------------------------------------------------------------------- */

/* Takes one of the published items, for which it sleeps if need be, as queue.c does. */
struct sleeper {
    struct jnq_event *ev;
    uint64_t *published;
    uint64_t *taken;
    uint32_t tid; /* once it is about to sleep */
    uint32_t timeouts;
    uint32_t interrupts;
    uint32_t done;
};

static bool take_one(struct sleeper *s)
{
    for (uint64_t taken = load_sc(s->taken); taken < load_sc(s->published);)
        if (cas_sc(s->taken, &taken, taken + 1))
            return true;
    return false;
}

static void *take_sleeping(void *arg)
{
    struct sleeper *s = arg;
    int64_t until = event_now() + FAR;
    while (!take_one(s)) {
        uint32_t e = event_prepare(s->ev);
        if (load_sc(s->taken) < load_sc(s->published))
            continue;
        store_sc(&s->tid, (uint32_t)own_tid());
        switch (event_sleep(s->ev, e, until)) {
        case EVENT_TIMEOUT:
            s->timeouts++;
            until += FAR;
            break;
        case EVENT_INTERRUPTED:
            add_sc(&s->interrupts, 1);
            break;
        case EVENT_WOKEN:
            break;
        }
    }
    store_sc(&s->done, 1);
    return NULL;
}

#define SLEEPERS 3
static struct {
    struct jnq_event *ev;
    uint64_t published, taken;
    struct sleeper sleepers[SLEEPERS];
    pthread_t threads[SLEEPERS];
} stage;

static void put_to_sleep(uint32_t seq)
{
    memset(&stage, 0, sizeof stage);
    stage.ev = fresh_event(seq);
    for (int i = 0; i < SLEEPERS; i++) {
        stage.sleepers[i] = (struct sleeper){.ev = stage.ev, .published = &stage.published, .taken = &stage.taken};
        stage.threads[i] = start_thread(take_sleeping, &stage.sleepers[i]);
        until_asleep(&stage.sleepers[i].tid);
    }
}

static void all_got_through(void)
{
    for (int i = 0; i < SLEEPERS; i++) {
        join_thread(stage.threads[i]);
        CHECK_EQ(stage.sleepers[i].timeouts, 0);
    }
    CHECK_EQ(stage.taken, SLEEPERS);
    drop_event(stage.ev);
}

static void publish(void) { add_sc(&stage.published, 1); }

static void notify(void) { event_notify(stage.ev, 1); }

static void notify_all(void) { event_notify_all(stage.ev); }

static void each_notify_wakes_one(void)
{
    for (unsigned round = 0; round < scaled(200); round++) {
        put_to_sleep(seqs[round % 2]);
        for (int i = 0; i < SLEEPERS; i++) {
            publish();
            notify();
        }
        all_got_through();
    }
}

static void notify_of_many_wakes_as_many(void)
{
    for (unsigned round = 0; round < scaled(40); round++) {
        put_to_sleep(seqs[round % 2]);
        add_sc(&stage.published, SLEEPERS);
        event_notify(stage.ev, SLEEPERS);
        all_got_through();
    }
}

static void notify_all_wakes_all(void)
{
    for (unsigned round = 0; round < scaled(40); round++) {
        put_to_sleep(seqs[round % 2]);
        add_sc(&stage.published, SLEEPERS);
        notify_all();
        all_got_through();
    }
}

/* The first two publish before either looks whether somebody sleeps. */
static void wakers_do_not_rely_on_each_other(void)
{
    for (int i = 0; i < 2; i++) {
        put_to_sleep(seqs[i]);
        publish();
        publish();
        in_wake = notify;
        notify();
        publish();
        notify();
        all_got_through();
    }
}

static void notify_all_does_not_rely_on_notify(void)
{
    for (int i = 0; i < 2; i++) {
        put_to_sleep(seqs[i]);
        add_sc(&stage.published, SLEEPERS);
        in_wake = notify_all;
        notify();
        all_got_through();
    }
}

static void handle(int signal) { (void)signal; }

static void signal_interrupts_the_sleep(void)
{
    struct sigaction action = {.sa_handler = handle}, before;
    CHECK(!sigaction(SIGUSR1, &action, &before));
    put_to_sleep(0);
    struct sleeper *s = &stage.sleepers[1];
    while (!load_sc(&s->interrupts)) { /* one that comes before the sleep proper interrupts nothing */
        pthread_kill(stage.threads[1], SIGUSR1);
        nap(MILLISECOND / 10);
    }
    add_sc(&stage.published, SLEEPERS);
    notify_all();
    all_got_through();
    CHECK(!sigaction(SIGUSR1, &before, NULL));
}

/* Several wakers meet several sleepers at any point of each other's way; in each round, each publishes one item and
 * each takes one. */
#define PAIRS 3
struct pair {
    pthread_barrier_t *barrier;
    struct sleeper sleeper;
    unsigned rounds;
    bool wakes;
};

static void *meet(void *arg)
{
    struct pair *p = arg;
    struct sleeper *s = &p->sleeper;
    for (unsigned round = 0; round < p->rounds; round++) {
        pthread_barrier_wait(p->barrier);
        if (p->wakes) {
            add_sc(s->published, 1);
            event_notify(s->ev, 1);
        } else {
            take_sleeping(s);
            CHECK_EQ(s->timeouts, 0);
        }
    }
    return NULL;
}

static void sleepers_and_wakers_meet(void)
{
    for (int i = 0; i < 2; i++) {
        struct jnq_event *ev = fresh_event(seqs[i]);
        uint64_t published = 0, taken = 0;
        unsigned rounds = scaled(8000);
        pthread_barrier_t barrier;
        CHECK(!pthread_barrier_init(&barrier, NULL, 2 * PAIRS));
        struct pair pairs[2 * PAIRS];
        for (int k = 0; k < 2 * PAIRS; k++)
            pairs[k] = (struct pair){
                .barrier = &barrier,
                .sleeper = {.ev = ev, .published = &published, .taken = &taken},
                .rounds = rounds,
                .wakes = k % 2,
            };
        in_threads(2 * PAIRS, meet, pairs, sizeof *pairs);
        CHECK_EQ(taken, published);
        CHECK_EQ(taken, rounds * PAIRS);
        pthread_barrier_destroy(&barrier);
        drop_event(ev);
    }
}

/* --- sleepers in processes ------------------------------------------------------------------------------------------- */

struct shared_event {
    struct jnq_event ev;
    uint64_t published, taken;
};

static void sleep_in_child(void *arg)
{
    struct shared_event *shared = arg;
    struct sleeper s = {.ev = &shared->ev, .published = &shared->published, .taken = &shared->taken};
    take_sleeping(&s);
    CHECK_EQ(s.timeouts, 0);
}

/* Sleepers killed in their sleep take no wake-up with them: one that comes after their death. */
static void killed_sleepers_take_no_wake_up(void)
{
    for (unsigned round = 0; round < scaled(20); round++) {
        struct shared_event *shared = shared_memory(sizeof *shared);
        CHECK_EQ(event_init(&shared->ev), 0);
        pid_t lost[2], kept[2];
        for (int i = 0; i < 2; i++) {
            lost[i] = start_child(sleep_in_child, shared);
            kept[i] = start_child(sleep_in_child, shared);
        }
        for (int i = 0; i < 2; i++)
            while (state_of(lost[i]) != 'S' || state_of(kept[i]) != 'S')
                nap(MILLISECOND / 10);
        for (int i = 0; i < 2; i++)
            kill_child(lost[i]);
        for (int i = 0; i < 2; i++) {
            add_sc(&shared->published, 1);
            event_notify(&shared->ev, 1);
        }
        for (int i = 0; i < 2; i++)
            join_child(kept[i]);
        munmap(shared, sizeof *shared);
    }
}

TESTS("event", timeout_comes_not_early, coarse_clock_lags_a_little, wake_after_prepare_ends_the_sleep,
      notify_without_sleeper_only_looks, sleepers_that_left_cost_little, each_notify_wakes_one,
      notify_of_many_wakes_as_many, notify_all_wakes_all, wakers_do_not_rely_on_each_other,
      notify_all_does_not_rely_on_notify, signal_interrupts_the_sleep, sleepers_and_wakers_meet,
      killed_sleepers_take_no_wake_up)
