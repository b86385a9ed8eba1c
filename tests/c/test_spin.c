/* spin: who spins, for how long, and what is learnt from it.
 *
 * Linked with --wrap=event_now,--wrap=sched_getaffinity,--wrap=sched_yield: the clock advances by TICK when it is read,
 * as many CPUs are there as the test says, and a CPU that was offered comes back after as long as the test says. */
#include "harness.h"

#include <sched.h>

#include "procs.h"
#include "spin.h"

#define TICK 1000 /* so a spin makes as many looks as its budget has microseconds, times SPIN_LOOKS */
#define LONG_AGO 1

static int64_t fake_now; /* 0: the real one */
static int64_t tick = TICK;
static uint32_t fake_cpus;
static int64_t away = 300; /* how long an offered CPU is used */
static uint32_t offers;

int64_t __real_event_now(void);
int64_t __wrap_event_now(void);
int64_t __wrap_event_now(void)
{
    if (!load_relaxed(&fake_now))
        return __real_event_now();
    return load_relaxed(&tick) ? (int64_t)add_sc(&fake_now, tick) : load_relaxed(&fake_now);
}

int __real_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set)
{
    if (!fake_cpus)
        return __real_sched_getaffinity(pid, bytes, set);
    CPU_ZERO(set);
    for (uint32_t cpu = 0; cpu < fake_cpus; cpu++)
        CPU_SET(2 * cpu + 1, set);
    return 0;
}

int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
    if (load_relaxed(&tick))
        add_sc(&fake_now, away);
    add_sc(&offers, 1);
    return 0;
}

/* Another queue handle is there, so that somebody could serve us. Each call is a later time, at which the CPUs are
 * looked at again. */
static struct {
    jnq_queue *q, *other;
} stage;

static void set_stage(uint32_t cpus)
{
    static int64_t begin = 1000 * SECOND;
    stage.q = make_queue(0);
    stage.other = second_handle(stage.q);
    fake_now = begin += 10 * SECOND;
    tick = TICK;
    fake_cpus = cpus;
    away = 300;
    offers = 0;
}

static void clear_stage(void)
{
    fake_now = 0;
    fake_cpus = 0;
    jnq_detach(stage.other);
    drop_queue(stage.q);
}

static uint32_t slots_in_use(jnq_queue *q)
{
    uint32_t used = 0;
    for (int i = 0; i < SPIN_SLOTS; i++)
        used += load_sc(&q->sh->spinning[i]) != 0;
    return used;
}

static uint64_t looks;

static bool holds_after(struct jnq_queue *q, uint64_t needed)
{
    (void)q;
    return ++looks > needed;
}

#define NEVER UINT64_MAX

/* A wait in that direction of which so many looks are in vain. True if it was spun through. */
static bool spin_in(jnq_queue *q, enum jnq_wait in, uint64_t vain)
{
    looks = 0;
    return spin_until(q, in, holds_after, vain, JNQ_FOREVER, &(int64_t){event_now()});
}

static bool spin(jnq_queue *q, uint64_t vain) { return spin_in(q, JNQ_IN_GET, vain); }

/* A sleep that ended so long after the wait began, woken so long before. */
static void sleep_in(jnq_queue *q, enum jnq_wait in, int64_t waited, int64_t late)
{
    int64_t began = event_now();
    spin_slept(q, in, true, began, began + waited, began + waited + late);
}

static void ends_when_the_condition_holds(void)
{
    set_stage(2);
    for (uint64_t vain = 0; vain < 5; vain++) {
        CHECK(spin(stage.q, vain));
        CHECK_EQ(looks, vain + 1);
        CHECK_EQ(slots_in_use(stage.q), 0);
    }
    clear_stage();
}

static void gives_up_in_time(void)
{
    set_stage(2);
    CHECK(!spin(stage.q, NEVER));
    CHECK_OP(looks, >=, SPIN_LOOKS);
    CHECK_OP(looks, <=, SPIN_WAKE_NS / TICK * SPIN_LOOKS);
    CHECK_EQ(slots_in_use(stage.q), 0);
    clear_stage();
}

static void nobody_spins_on_one_cpu(void)
{
    set_stage(1);
    CHECK(!spin(stage.q, 0));
    CHECK_EQ(looks, 0);
    clear_stage();
}

static void cpus_are_counted_again(void)
{
    set_stage(1);
    CHECK(!spin(stage.q, 0));
    fake_cpus = 2;
    CHECK(!spin(stage.q, 0));
    fake_now += 2 * SECOND;
    CHECK(spin(stage.q, 0));
    clear_stage();
}

static void nobody_spins_alone(void)
{
    set_stage(2);
    jnq_detach(stage.other);
    CHECK(!spin(stage.q, 0));
    CHECK_EQ(looks, 0);
    stage.other = second_handle(stage.q);
    CHECK(spin(stage.q, 0));
    clear_stage();
}

/* Each spinner becomes one while all the others are spinning. */
static bool one_more_spins(struct jnq_queue *q, uint64_t others)
{
    CHECK_EQ(slots_in_use(q), others + 1);
    looks = others + 1;
    spin_until(q, JNQ_IN_GET, one_more_spins, others + 1, JNQ_FOREVER, &(int64_t){event_now()});
    CHECK_EQ(slots_in_use(q), others + 1);
    return true;
}

static void spinners_leave_a_cpu_free(void)
{
    for (uint32_t cpus = 1; cpus <= 12; cpus++) {
        set_stage(cpus);
        tick = 0;
        looks = 0;
        spin_until(stage.q, JNQ_IN_GET, one_more_spins, 0, JNQ_FOREVER, &(int64_t){event_now()});
        CHECK_EQ(looks, cpus - 1 < SPIN_SLOTS ? cpus - 1 : SPIN_SLOTS);
        CHECK_EQ(slots_in_use(stage.q), 0);
        clear_stage();
    }
}

/* The same with threads, all of which want to. */
#define THREADS 6
#define THREAD_CPUS 3
static uint32_t spinning, most;

static bool count_spinners(struct jnq_queue *q, uint64_t unused)
{
    (void)q, (void)unused;
    uint32_t now = add_sc(&spinning, 1);
    for (uint32_t seen = load_sc(&most); now > seen && !cas_sc(&most, &seen, now);)
        ;
    for (int i = 0; i < 100; i++)
        cpu_relax();
    sub_sc(&spinning, 1);
    return true;
}

static void *spin_often(void *arg)
{
    jnq_queue *q = *(jnq_queue **)arg;
    for (unsigned i = scaled(20000); i; i--)
        spin_until(q, JNQ_IN_GET, count_spinners, 0, JNQ_FOREVER, &(int64_t){event_now()});
    return NULL;
}

static void threads_leave_a_cpu_free(void)
{
    set_stage(THREAD_CPUS);
    tick = 0;
    spinning = most = 0;
    jnq_queue *handles[THREADS];
    for (int i = 0; i < THREADS; i++)
        handles[i] = i % 2 ? stage.q : stage.other;
    in_threads(THREADS, spin_often, handles, sizeof *handles);
    CHECK_OP(most, >=, 1);
    CHECK_OP(most, <, THREAD_CPUS);
    CHECK_EQ(slots_in_use(stage.q), 0);
    clear_stage();
}

/* --- slots --------------------------------------------------------------------------------------------------------- */

static bool die_spinning(struct jnq_queue *q, uint64_t unused)
{
    (void)q, (void)unused;
    die();
}

static void spin_and_die(void *arg)
{
    jnq_queue *q = arg;
    spin_until(q, JNQ_IN_GET, die_spinning, 0, JNQ_FOREVER, &(int64_t){event_now()});
}

static void slot_of_the_dead_expires(void)
{
    set_stage(2);
    join_dead_child(start_child(spin_and_die, stage.q));
    CHECK_EQ(slots_in_use(stage.q), 1);
    CHECK(!spin(stage.q, 0));
    CHECK_EQ(looks, 0);
    fake_now += SPIN_MAX_NS;
    CHECK(spin(stage.q, 0));
    CHECK_EQ(slots_in_use(stage.q), 0);
    clear_stage();
}

static void no_time_takes_a_slot_for_long(void)
{
    static const int64_t last[] = {-(int64_t)SECOND, -1, 0, 2 * SPIN_MAX_NS + 1, SECOND, INT64_MAX / 2};
    set_stage(2);
    tick = 0;
    for (unsigned i = 0; i < sizeof last / sizeof *last; i++) {
        stage.q->sh->spinning[0] = (uint64_t)(fake_now + last[i]);
        CHECK(spin(stage.q, 0));
    }
    for (int64_t left = 1; left <= SPIN_MAX_NS + 1; left += SPIN_MAX_NS) { /* a later spinner's, too */
        stage.q->sh->spinning[0] = (uint64_t)(fake_now + left);
        CHECK(!spin(stage.q, 0));
    }
    stage.q->sh->spinning[0] = UINT64_MAX;
    CHECK(spin(stage.q, 0));
    CHECK_EQ(stage.q->sh->spinning[0], 0);
    clear_stage();
}

static bool another_has_claimed(struct jnq_queue *q, uint64_t until)
{
    store_sc(&q->sh->spinning[0], until);
    return true;
}

/* Who was off its CPU until its time had passed does not give back what is now another's. */
static void only_its_own_slot_is_given_back(void)
{
    set_stage(2);
    uint64_t until = (uint64_t)fake_now + SPIN_MAX_NS;
    CHECK(spin_until(stage.q, JNQ_IN_GET, another_has_claimed, until, JNQ_FOREVER, &(int64_t){event_now()}));
    CHECK_EQ(stage.q->sh->spinning[0], until);
    clear_stage();
}

/* --- learning -------------------------------------------------------------------------------------------------------- */

static void long_waits_end_spinning(void)
{
    set_stage(2);
    for (int i = 0; i < 20; i++) {
        spin(stage.q, NEVER);
        sleep_in(stage.q, JNQ_IN_GET, MILLISECOND, SPIN_WAKE_NS);
    }
    CHECK(!spin(stage.q, 0));
    CHECK_EQ(looks, 0);
    CHECK(spin_in(stage.q, JNQ_IN_PUT, 0)); /* each direction learns for itself, */
    CHECK(spin(stage.other, 0));            /* and each handle */
    clear_stage();
}

static void short_sleeps_begin_it_again(void)
{
    set_stage(2);
    for (int i = 0; i < 100; i++)
        sleep_in(stage.q, JNQ_IN_GET, SECOND, SPIN_WAKE_NS);
    int sleeps = 0;
    while (!spin(stage.q, 0)) {
        sleep_in(stage.q, JNQ_IN_GET, 5000, SPIN_WAKE_NS);
        CHECK_OP(++sleeps, <, 20);
    }
    CHECK_OP(sleeps, >, 0);
    clear_stage();
}

static void ends_in_vain_teach_as_long_waits_do(void)
{
    set_stage(2);
    for (int i = 0; i < 10; i++) {
        int64_t now = event_now();
        spin_slept(stage.q, JNQ_IN_GET, false, now, now + 10, now + SECOND);
    }
    CHECK(!spin(stage.q, 0));
    clear_stage();
}

/* Where nobody knows when the waker was there, what a sleep usually costs is taken off. */
static void works_without_knowing_the_waker(void)
{
    set_stage(2);
    for (int i = 0; i < 10; i++) {
        int64_t now = event_now();
        spin_slept(stage.q, JNQ_IN_GET, true, now, i % 2 ? 0 : LONG_AGO, now + SPIN_WAKE_NS + 3000);
    }
    CHECK_EQ(stage.q->wake_ns, SPIN_WAKE_NS);
    CHECK(spin(stage.q, 2));
    for (int i = 0; i < 20; i++) {
        int64_t now = event_now();
        spin_slept(stage.q, JNQ_IN_GET, true, now, 0, now + 4 * SPIN_WAKE_NS);
    }
    CHECK(!spin(stage.q, 0));
    clear_stage();
}

/* Vain looks of a spin that gives up, if it spins at all. */
static uint64_t patience(jnq_queue *q)
{
    CHECK(!spin(q, NEVER));
    return looks;
}

static void budget_follows_the_waits(void)
{
    set_stage(2);
    for (int i = 0; i < 60; i++)
        CHECK(spin(stage.q, 0));
    uint64_t little = patience(stage.q);
    sleep_in(stage.q, JNQ_IN_GET, 15000, SPIN_WAKE_NS);
    uint64_t much = patience(stage.q);
    CHECK_OP(little, >=, SPIN_LOOKS);
    CHECK_OP(little, <=, 6 * SPIN_LOOKS);
    CHECK_OP(much, >=, 15 * SPIN_LOOKS);
    clear_stage();
}

/* What a spin may cost depends on what a sleep costs. */
static void budget_follows_the_cost_of_a_sleep(void)
{
    set_stage(2);
    uint64_t before = 0;
    for (int64_t late = 2000; late <= 90000; late *= 3) {
        for (int i = 0; i < 40; i++)
            sleep_in(stage.q, JNQ_IN_GET, late, late);
        uint64_t after = patience(stage.q);
        CHECK_OP(after, >, before);
        CHECK_OP(after, <=, SPIN_MAX_NS / TICK * SPIN_LOOKS);
        before = after;
    }
    sleep_in(stage.q, JNQ_IN_GET, 1000, SECOND); /* it waited for a CPU, not for the wake-up */
    CHECK_OP(stage.q->wake_ns, <, SPIN_MAX_NS);
    clear_stage();
}

/* Something is announced to be there after so long, which was taught to be what a unit takes. */
static void announce(jnq_queue *q, int64_t after)
{
    q->copy_ns = (uint32_t)after;
    spin_copying(q, 1);
}

static void what_is_coming_is_waited_for(void)
{
    set_stage(2);
    for (int i = 0; i < 20; i++)
        sleep_in(stage.q, JNQ_IN_GET, MILLISECOND, SPIN_WAKE_NS);
    CHECK(!spin(stage.q, 0));
    announce(stage.q, 80000);
    CHECK(spin(stage.q, 60 * SPIN_LOOKS));
    announce(stage.q, 80000);
    CHECK(spin(stage.q, 80 * SPIN_LOOKS)); /* it may be late, */
    announce(stage.q, 100000);
    CHECK(!spin(stage.q, NEVER)); /* but not for ever; */
    CHECK_OP(looks, <=, SPIN_MAX_NS / TICK * SPIN_LOOKS);
    announce(stage.q, 100000);
    CHECK(!spin(stage.q, 0)); /* then it is not believed once */
    announce(stage.q, 100000);
    CHECK(spin(stage.q, 0));
    announce(stage.q, SPIN_MAX_NS - 25000); /* too long */
    CHECK(!spin(stage.q, 0));
    announce(stage.q, SPIN_MAX_NS - 35000);
    CHECK(spin(stage.q, 0));
    announce(stage.q, 0); /* over */
    CHECK(!spin(stage.q, 0));
    stage.q->sh->coming = UINT64_MAX;
    CHECK(!spin(stage.q, 0));
    clear_stage();
}

/* Unless somebody else needs the CPU. */
static void what_is_coming_is_slept_through_where_others_work(void)
{
    set_stage(2);
    away = MILLISECOND;
    announce(stage.q, 100000);
    CHECK(!spin(stage.q, NEVER));
    for (int i = 0; i < 32; i++) {
        announce(stage.q, 100000);
        CHECK(!spin(stage.q, 0));
    }
    announce(stage.q, 100000);
    CHECK(spin(stage.q, 0));
    clear_stage();
}

/* Nobody waits for what is there already, nor past his deadline. */
static void what_has_come_is_not_coming(void)
{
    set_stage(2);
    for (int i = 0; i < 20; i++)
        sleep_in(stage.q, JNQ_IN_GET, MILLISECOND, SPIN_WAKE_NS);
    stage.q->copy_ns = 100000;
    int64_t began = spin_copying(stage.q, 1);
    fake_now = began + 20000;
    spin_copied(stage.q, 1, began);
    CHECK(!spin(stage.q, 0));
    CHECK_EQ(looks, 0);
    announce(stage.q, 100000);
    int64_t now = event_now(), deadline = now + 10000;
    CHECK(!spin_until(stage.q, JNQ_IN_GET, holds_after, NEVER, deadline, &now));
    CHECK_OP(now, >=, deadline);
    CHECK_OP(now, <, deadline + 20 * TICK);
    clear_stage();
}

static void copies_are_timed(void)
{
    set_stage(2);
    for (int i = 0; i < 20; i++) {
        int64_t began = spin_copying(stage.q, 100);
        fake_now = began + 100 * 300;
        spin_copied(stage.q, 100, began);
    }
    CHECK_OP(stage.q->copy_ns, >=, 290);
    CHECK_OP(stage.q->copy_ns, <=, 310 + TICK / 100);
    int64_t late = spin_copying(stage.q, 10); /* off its CPU */
    fake_now += SECOND;
    spin_copied(stage.q, 10, late);
    CHECK_OP(stage.q->copy_ns, <, 2000);
    int64_t now = spin_copying(stage.q, 200);
    CHECK_EQ((int64_t)stage.q->sh->coming, now + 200 * (int64_t)stage.q->copy_ns);
    clear_stage();
}

/* --- offering the CPU ---------------------------------------------------------------------------------------------- */

static void who_is_served_at_once_offers_nothing(void)
{
    set_stage(2);
    CHECK(spin(stage.q, 0));
    CHECK_EQ(offers, 0);
    CHECK(!spin(stage.q, NEVER));
    CHECK_OP(offers, >, 0);
    clear_stage();
}

static void a_used_offer_is_made_first(void)
{
    set_stage(2);
    away = 3000;
    CHECK(!spin(stage.q, NEVER));
    offers = 0;
    CHECK(spin(stage.q, 0));
    CHECK_EQ(offers, 1);
    CHECK(spin(stage.q, 0));
    CHECK_EQ(offers, 2);
    away = 300;
    CHECK(spin(stage.q, 0));
    CHECK_EQ(offers, 3);
    CHECK(spin(stage.q, 0));
    CHECK_EQ(offers, 3);
    clear_stage();
}

static void needed_cpu_is_left_alone(void)
{
    set_stage(2);
    away = 3 * MILLISECOND;
    CHECK(!spin(stage.q, NEVER));
    CHECK_EQ(offers, 1);
    CHECK_EQ(slots_in_use(stage.q), 0);
    for (int i = 0; i < 5; i++) {
        CHECK(!spin(stage.q, 0));
        CHECK_EQ(looks, 0);
        sleep_in(stage.q, JNQ_IN_GET, 1000, SPIN_WAKE_NS);
    }
    clear_stage();
}

TESTS("spin", ends_when_the_condition_holds, gives_up_in_time, nobody_spins_on_one_cpu, cpus_are_counted_again,
      nobody_spins_alone, spinners_leave_a_cpu_free, threads_leave_a_cpu_free, slot_of_the_dead_expires,
      no_time_takes_a_slot_for_long, only_its_own_slot_is_given_back, long_waits_end_spinning,
      short_sleeps_begin_it_again, ends_in_vain_teach_as_long_waits_do, works_without_knowing_the_waker,
      budget_follows_the_waits, budget_follows_the_cost_of_a_sleep, who_is_served_at_once_offers_nothing,
      what_is_coming_is_waited_for, what_is_coming_is_slept_through_where_others_work, what_has_come_is_not_coming,
      copies_are_timed, a_used_offer_is_made_first, needed_cpu_is_left_alone)
