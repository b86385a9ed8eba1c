/* queue: jnq.h as a whole, as one process with threads sees it; every state is whole in between, with each
 * of the modes. */
#include "harness.h"

#include "heap.h"

static const uint64_t sizes[] = {0, 1, 48, 49, 8175, 8176, 8177, 65536, 65537, 131073, 5 << 20};
#define SIZES (sizeof sizes / sizeof *sizes)

static void is_whole(jnq_queue *q) { CHECK_EQ(jnq_check(q), 0); }

static int try_put(jnq_queue *q, uint64_t bytes, int64_t deadline)
{
    char *payload = calloc(1, bytes + 1);
    int rc = jnq_put(q, payload, bytes, deadline);
    free(payload);
    return rc;
}

/* Leaves the task in hand. */
static int64_t try_get(jnq_queue *q, int64_t deadline)
{
    jnq_box box;
    int64_t rc = jnq_get(q, &box, deadline);
    CHECK_EQ(box.taken, is_item(rc));
    jnq_release(&box);
    return rc;
}

static bool redelivers(void) { return mode == JNQ_REDELIVER; }

/* Calls again what was only interrupted, with the same deadline. */
#define PATIENTLY(call)                                                                                                \
    __extension__({                                                                                                    \
        int64_t patient_;                                                                                              \
        while ((patient_ = (call)) == JNQ_INTERRUPTED)                                                                 \
            ;                                                                                                          \
        patient_;                                                                                                      \
    })

/* --- items -------------------------------------------------------------------------------------------------------- */

static void take_integer(jnq_queue *q, jnq_box *box, int64_t value)
{
    int64_t answer = jnq_get(q, box, JNQ_NOW);
    CHECK_EQ(box->form, JNQ_INTEGER);
    CHECK_EQ(box->bytes, sizeof value);
    CHECK(!memcmp(box->payload, &value, sizeof value));
    if (redelivers()) {
        CHECK_EQ(answer, JNQ_LEASED);
        return;
    }
    CHECK_EQ(answer, sizeof value);
}

static void integers_come_back(void)
{
    static const int64_t values[] = {0, 1, -1, 255, INT64_MIN, INT64_MAX};
    enum { VALUES = sizeof values / sizeof *values };
    jnq_queue *q = make_queue(0);
    jnq_box box;
    for (int i = 0; i < VALUES; i++) {
        CHECK_EQ(jnq_put_integer(q, values[i], JNQ_FOREVER), JNQ_OK);
        put_item(q, 5, (uint64_t)i);
    }
    for (int i = 0; i < VALUES; i++) {
        take_integer(q, &box, values[i]);
        CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
        take_integer(q, &box, values[i]);
        finish_item(q, &box);
        get_item(q, 5, (uint64_t)i);
        is_whole(q);
    }
    CHECK_EQ(jnq_get(q, &box, JNQ_NOW), JNQ_EMPTY);
    drop_queue(q);
}

static void every_size_comes_back_whole(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        for (uint64_t i = 0; i < SIZES; i++) {
            put_item(q, sizes[i], i);
            is_whole(q);
            CHECK_EQ(jnq_qsize(q), i + 1);
        }
        for (uint64_t i = 0; i < SIZES; i++) {
            get_item(q, sizes[i], i);
            is_whole(q);
            CHECK_EQ(jnq_unfinished(q), SIZES - 1 - i);
        }
        CHECK_EQ(try_get(q, JNQ_NOW), JNQ_EMPTY);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

static void box_says_where_the_payload_is(void)
{
    jnq_queue *q = make_queue(0);
    jnq_box box;
    put_item(q, JNQ_INLINE_BYTES, 1);
    put_item(q, JNQ_INLINE_BYTES + 1, 2);
    take_item(q, &box, JNQ_INLINE_BYTES, 1);
    struct jnq_cell *cell = redelivers() ? unit_at(q, box.lease) : NULL;
    CHECK(box.payload == (redelivers() ? cell->record.payload : box.copy));
    CHECK_EQ(box.unit, 0);
    finish_item(q, &box);
    take_item(q, &box, JNQ_INLINE_BYTES + 1, 2);
    cell = redelivers() ? unit_at(q, box.lease) : NULL;
    CHECK(box.payload == unit_at(q, redelivers() ? cell->record.extent.unit : box.unit));
    CHECK_EQ(box.unit != 0, !redelivers());
    CHECK_OP(counters(q).used_bytes, >, idle_bytes(q));
    is_whole(q);
    uint64_t lease = box.lease, number = box.number;
    const char *payload = box.payload;
    jnq_release(&box);
    CHECK_EQ(box.taken, 0);
    jnq_release(&box); /* an empty box is allowed */
    if (redelivers()) {
        CHECK(filled(payload, JNQ_INLINE_BYTES + 1, 2)); /* it ends no lease */
        CHECK_EQ(jnq_finish(q, lease, number), JNQ_OK);
    }
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    drop_queue(q);
}

static void random_steps_follow_a_model(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    enum { MOST = 300 };
    static struct {
        uint64_t bytes, name;
    } model[MOST], taken;
    uint64_t random = random_state(0), n = 0, unfinished = 0, name = 0;
    jnq_box box;
    for (unsigned i = 0; i < scaled(4000); i++) {
        jnq_queue *side = below(&random, 2) ? q : other;
        bool up = i % 500 < 250;
        if (n < MOST && below(&random, 100) < (up ? 70 : 30)) {
            uint64_t bytes = below(&random, 50) ? below(&random, 300) : sizes[below(&random, SIZES - 1)];
            put_item(side, bytes, ++name);
            model[n].bytes = bytes;
            model[n++].name = name;
            unfinished++;
        } else if (n) {
            taken = model[0];
            take_item(side, &box, taken.bytes, taken.name);
            if (below(&random, 4)) {
                finish_item(side, &box);
                unfinished--;
                memmove(model, model + 1, --n * sizeof *model);
            } else {
                CHECK_EQ(jnq_unget(side, &box), JNQ_OK);
                CHECK_EQ(box.taken, 0);
            }
        } else {
            CHECK_EQ(try_get(side, JNQ_NOW), JNQ_EMPTY);
        }
        CHECK_EQ(jnq_qsize(q), n);
        CHECK_EQ(jnq_unfinished(other), unfinished);
        is_whole(side);
    }
    for (uint64_t i = 0; i < n; i++)
        get_item(q, model[i].bytes, model[i].name);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    jnq_detach(other);
    drop_queue(q);
}

static void unget_restores_order(void)
{
    jnq_queue *q = make_queue(0);
    for (uint64_t i = 0; i < SIZES; i++)
        put_item(q, sizes[i], i);
    static jnq_box boxes[SIZES];
    for (uint64_t i = 0; i < SIZES; i++)
        take_item(q, &boxes[i], sizes[i], i);
    CHECK_EQ(jnq_qsize(q), 0);
    for (uint64_t i = SIZES; i--;) {
        CHECK_EQ(jnq_unget(q, &boxes[i]), JNQ_OK);
        CHECK_EQ(boxes[i].taken, 0);
        CHECK_EQ(jnq_unget(q, &boxes[i]), JNQ_OK); /* empty: nothing happens */
        is_whole(q);
    }
    CHECK_EQ(jnq_qsize(q), SIZES);
    CHECK_EQ(jnq_unfinished(q), SIZES);
    put_item(q, 1, 99);
    for (uint64_t i = 0; i < SIZES; i++)
        get_item(q, sizes[i], i);
    get_item(q, 1, 99);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    drop_queue(q);
}

static void rebox_makes_a_box_for_unget(void)
{
    jnq_queue *q = make_queue(0);
    jnq_box box;
    char payload[100];
    put_item(q, sizeof payload, 5);
    put_item(q, 1, 6);
    take_item(q, &box, sizeof payload, 5);
    if (!redelivers()) { /* a lease stays in its box */
        memcpy(payload, box.payload, sizeof payload);
        jnq_release(&box);
        jnq_rebox(q, &box, JNQ_PICKLE, payload, sizeof payload);
    }
    CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
    get_item(q, sizeof payload, 5);
    get_item(q, 1, 6);
    drop_queue(q);
}

/* --- bounds and deadlines ----------------------------------------------------------------------------------------------- */

static void bounded_queue_is_full(void)
{
    for (uint64_t maxsize = 1; maxsize <= 9; maxsize += 4) {
        EACH_BASE(base)
        {
            jnq_queue *q = make_queue(maxsize);
            rebase(q, base);
            CHECK_EQ(jnq_maxsize(q), maxsize);
            for (uint64_t i = 0; i < maxsize; i++)
                put_item(q, i % 2 ? 20000 : 3, i);
            CHECK_EQ(try_put(q, 3, JNQ_NOW), JNQ_FULL);
            CHECK_EQ(try_put(q, 20000, JNQ_NOW), JNQ_FULL);
            CHECK_EQ(try_put(q, 200000, JNQ_NOW), JNQ_FULL);
            is_whole(q);
            jnq_box box;
            take_item(q, &box, 3, 0);
            put_item(q, 1, 77); /* in its place; so an item given back may be one too many */
            CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
            CHECK_EQ(jnq_qsize(q), maxsize + 1);
            CHECK_EQ(try_put(q, 3, JNQ_NOW), JNQ_FULL);
            get_item(q, 3, 0);
            CHECK_EQ(try_put(q, 3, JNQ_NOW), JNQ_FULL);
            is_whole(q);
            CHECK_EQ(counters(q).processes, 1);
            drop_queue(q);
        }
    }
}

static void deadlines_come_not_early(void)
{
    jnq_queue *q = make_queue(1);
    uint64_t since = 0;
    for (int64_t ms = 1; ms <= 700; ms = ms * 7 + 20) { /* within a slice, over slices, and over what a call sleeps */
        int64_t deadline = event_now() + ms * MILLISECOND;
        CHECK_EQ(PATIENTLY(try_get(q, deadline)), JNQ_EMPTY);
        CHECK_OP(event_now(), >=, deadline);
        put_item(q, 1, 1);
        deadline = event_now() + ms * MILLISECOND;
        CHECK_EQ(PATIENTLY(try_put(q, ms % 2 ? 1 : 100000, deadline)), JNQ_FULL);
        CHECK_OP(event_now(), >=, deadline);
        deadline = event_now() + ms * MILLISECOND;
        since = 0;
        CHECK_EQ(PATIENTLY(jnq_join(q, &since, deadline)), JNQ_TIMEOUT);
        CHECK_OP(event_now(), >=, deadline);
        get_item(q, 1, 1);
        is_whole(q);
    }
    CHECK_EQ(try_get(q, 1), JNQ_EMPTY); /* long ago */
    put_item(q, 1, 1);
    CHECK_EQ(try_put(q, 1, 1), JNQ_FULL);
    CHECK_EQ(try_put(q, 100000, 1), JNQ_FULL);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    drop_queue(q);
}

/* --- waiters ------------------------------------------------------------------------------------------------------------ */

enum what { GET, PUT_SMALL, PUT_LARGE, JOIN };

struct waiter {
    jnq_queue *q;
    enum what what;
    uint32_t tid;
    uint32_t interrupts;
    int result;
};

static int once(struct waiter *w, uint64_t *since)
{
    switch (w->what) {
    case GET:
        return (int)try_get(w->q, JNQ_FOREVER);
    case PUT_SMALL:
        return try_put(w->q, 3, JNQ_FOREVER);
    case PUT_LARGE:
        return try_put(w->q, 20000, JNQ_FOREVER);
    case JOIN:
        break;
    }
    return jnq_join(w->q, since, JNQ_FOREVER);
}

static void *wait_in_thread(void *arg)
{
    struct waiter *w = arg;
    uint64_t since = 0;
    store_sc(&w->tid, (uint32_t)own_tid());
    while ((w->result = once(w, &since)) == JNQ_INTERRUPTED)
        add_sc(&w->interrupts, 1);
    return NULL;
}

static pthread_t start_waiter(struct waiter *w, jnq_queue *q, enum what what)
{
    *w = (struct waiter){.q = q, .what = what};
    pthread_t thread = start_thread(wait_in_thread, w);
    until_asleep(&w->tid);
    return thread;
}

static void waiters_are_woken(void)
{
    for (unsigned round = 0; round < scaled(40); round++) {
        struct waiter w;
        jnq_queue *q = make_queue(1);
        pthread_t thread = start_waiter(&w, q, GET);
        put_item(q, 7, 1);
        join_thread(thread);
        CHECK_EQ(w.result, redelivers() ? JNQ_LEASED : 7);
        put_item(q, 3, 1);
        thread = start_waiter(&w, q, round % 2 ? PUT_SMALL : PUT_LARGE);
        get_item(q, 3, 1);
        join_thread(thread);
        CHECK_EQ(w.result, JNQ_OK);
        drop_queue(q);
        q = make_queue(1);
        jnq_box box;
        put_item(q, 1, 2);
        take_item(q, &box, 1, 2);
        thread = start_waiter(&w, q, GET); /* an item given back is an item */
        CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
        join_thread(thread);
        CHECK_EQ(w.result, redelivers() ? JNQ_LEASED : 1);
        drop_queue(q);
        q = make_queue(1);
        put_item(q, 1, 2);
        thread = start_waiter(&w, q, JOIN);
        get_item(q, 1, 2);
        join_thread(thread);
        CHECK_EQ(w.result, JNQ_OK);
        drop_queue(q);
    }
}

static void handle(int signal) { (void)signal; }

static void signals_interrupt_and_nothing_happened(void)
{
    struct sigaction action = {.sa_handler = handle}, before;
    CHECK(!sigaction(SIGUSR1, &action, &before));
    for (int what = GET; what <= JOIN; what++) {
        struct waiter w;
        jnq_queue *q = make_queue(1);
        if (what != GET)
            put_item(q, 9, 1);
        jnq_counters was = counters(q);
        pthread_t thread = start_waiter(&w, q, (enum what)what);
        while (load_sc(&w.interrupts) < 3) {
            pthread_kill(thread, SIGUSR1);
            nap(MILLISECOND);
        }
        is_whole(q);
        jnq_counters is = counters(q);
        CHECK_EQ(is.puts, was.puts);
        CHECK_EQ(is.takes, was.takes);
        if (what == GET)
            put_item(q, 9, 1);
        else
            get_item(q, 9, 1);
        join_thread(thread);
        CHECK(w.result >= 0 || is_item(w.result));
        drop_queue(q);
    }
    CHECK(!sigaction(SIGUSR1, &before, NULL));
}

/* --- shutdown --------------------------------------------------------------------------------------------------------------- */

static void shutdown_refuses_puts_and_drains(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        for (uint64_t i = 0; i < SIZES; i++)
            put_item(q, sizes[i], i);
        CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
        CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
        for (uint64_t i = 0; i < SIZES; i++)
            CHECK_EQ(try_put(q, sizes[i], i % 2 ? JNQ_NOW : JNQ_FOREVER), JNQ_SHUTDOWN);
        is_whole(q);
        for (uint64_t i = 0; i < SIZES; i++) {
            jnq_box box;
            take_item(q, &box, sizes[i], i);
            CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
            get_item(q, sizes[i], i);
            is_whole(q);
        }
        CHECK_EQ(try_get(q, JNQ_NOW), JNQ_SHUTDOWN);
        CHECK_EQ(try_get(q, JNQ_FOREVER), JNQ_SHUTDOWN);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

static void immediate_shutdown_discards(void)
{
    EACH_BASE(base) for (int given_back = 0; given_back < 2; given_back++)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        for (int more = 0; more < 20; more++)
            for (uint64_t i = 0; i < SIZES - 1; i++)
                put_item(q, sizes[i], i);
        static jnq_box boxes[SIZES];
        for (uint64_t i = 0; i < SIZES - 1; i++)
            take_item(q, &boxes[i], sizes[i], i);
        if (given_back)
            CHECK_EQ(jnq_unget(q, &boxes[7]), JNQ_OK);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        is_whole(q);
        CHECK_EQ(jnq_qsize(q), 0);
        uint64_t held = SIZES - 1 - (uint64_t)given_back;
        CHECK_EQ(jnq_unfinished(q), held);
        CHECK_EQ(try_get(q, JNQ_FOREVER), JNQ_SHUTDOWN);
        CHECK_EQ(try_put(q, 1, JNQ_FOREVER), JNQ_SHUTDOWN);
        CHECK_EQ(try_put(q, 100000, JNQ_FOREVER), JNQ_SHUTDOWN);
        for (uint64_t i = 0; i < SIZES - 1; i++) {
            if (!boxes[i].taken)
                continue;
            CHECK(filled(boxes[i].payload, sizes[i], i)); /* what was in hand stays */
            if (i % 2) {
                CHECK_EQ(jnq_unget(q, &boxes[i]), JNQ_OK); /* discarded, and done */
            } else {
                finish_item(q, &boxes[i]);
            }
            CHECK_EQ(jnq_unfinished(q), --held);
            is_whole(q);
        }
        uint64_t since = 0;
        CHECK_EQ(jnq_join(q, &since, JNQ_NOW), JNQ_OK);
        if (!redelivers())
            CHECK_EQ(jnq_task_done(q, 1), JNQ_TOO_MANY_DONE);
        CHECK_EQ(counters(q).used_bytes, BLOCK_BYTES);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        drop_queue(q);
    }
}

static void shutdown_wakes_every_waiter(void)
{
    for (int immediate = 0; immediate < 2; immediate++) {
        for (int what = GET; what <= JOIN; what++) {
            struct waiter w[3];
            pthread_t threads[3];
            jnq_queue *q = make_queue(1);
            if (what != GET)
                put_item(q, 3, 1);
            for (int i = 0; i < 3; i++)
                threads[i] = start_waiter(&w[i], q, (enum what)what);
            CHECK_EQ(jnq_shutdown(q, immediate), JNQ_OK);
            if (what == JOIN && !immediate)
                get_item(q, 3, 1);
            for (int i = 0; i < 3; i++) {
                join_thread(threads[i]);
                CHECK_EQ(w[i].result, what == JOIN ? JNQ_OK : JNQ_SHUTDOWN);
            }
            drop_queue(q);
        }
    }
}

/* --- tasks, memory, forks ------------------------------------------------------------------------------------------------ */

static void join_waits_for_all(void)
{
    jnq_queue *q = make_queue(0);
    struct waiter w[3];
    pthread_t threads[3];
    for (unsigned round = 0; round < scaled(20); round++) {
        for (uint64_t i = 0; i < 10; i++)
            put_item(q, 10, i);
        for (int i = 0; i < 3; i++)
            threads[i] = start_waiter(&w[i], q, JOIN);
        for (uint64_t i = 0; i < 10; i++) {
            CHECK_OP(jnq_unfinished(q), >, 0);
            get_item(q, 10, i);
        }
        put_item(q, 1, 1); /* the zero is over, but it was */
        for (int i = 0; i < 3; i++)
            join_thread(threads[i]);
        get_item(q, 1, 1);
    }
    drop_queue(q);
}

static void no_memory_leaves_the_queue_as_before(void)
{
    jnq_queue *q = make_small_queue(0, 4 << 20);
    for (int round = 0; round < 3; round++) {
        uint64_t n = 0, bytes = round % 2 ? 100000 : 8177;
        int rc;
        char *payload = malloc(bytes);
        fill(payload, bytes, 0);
        while (!(rc = jnq_put(q, payload, bytes, JNQ_NOW)))
            n++;
        free(payload);
        CHECK_EQ(rc, JNQ_NO_MEMORY);
        CHECK_OP(n, >, 10);
        CHECK_EQ(jnq_qsize(q), n);
        is_whole(q);
        while (n--)
            get_item(q, bytes, 0);
        CHECK_EQ(try_get(q, JNQ_NOW), JNQ_EMPTY);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    }
    under_test = q;
    drop_queue(q);
}

struct held {
    jnq_queue *q;
    jnq_box box;
    int how;
};

/* In the ways that there are, but once: a box is ended once. */
static void end_the_parents_box(void *arg)
{
    struct held *held = arg;
    if (held->how & 1)
        put_item(held->q, 4, 4); /* enters: now there are two owners */
    if (held->how & 2)
        jnq_release(&held->box);
    else
        CHECK_EQ(jnq_unget(held->q, &held->box), JNQ_OK);
    CHECK_EQ(held->box.taken, 0);
    if (held->how & 1)
        get_item(held->q, 4, 4);
}

static void box_is_the_parents(void)
{
    static struct held held;
    held.q = make_queue(0);
    for (uint64_t bytes = 10; bytes <= 100000; bytes *= 100) {
        put_item(held.q, bytes, 1);
        take_item(held.q, &held.box, bytes, 1);
        for (held.how = 0; held.how < 4; held.how++)
            join_child(start_child(end_the_parents_box, &held));
        is_whole(held.q);
        CHECK_EQ(jnq_qsize(held.q), 0);
        CHECK(filled(held.box.payload, bytes, 1));
        CHECK_EQ(jnq_unget(held.q, &held.box), JNQ_OK);
        get_item(held.q, bytes, 1);
    }
    CHECK_EQ(jnq_reap(held.q), JNQ_OK);
    CHECK_EQ(counters(held.q).processes, 1);
    CHECK_EQ(counters(held.q).used_bytes, idle_bytes(held.q));
    drop_queue(held.q);
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

static void measured_queue_keeps_figures(void)
{
    jnq_queue *q = make_queue(2);
    put_item(q, 10, 1); /* before: not counted */
    CHECK_EQ(counters(q).put_bytes + counters(q).backlog, 0);
    get_item(q, 10, 1);
    jnq_measure(q);
    jnq_queue *other = second_handle(q);
    put_item(q, 10, 1);
    put_item(other, 100000, 2);
    CHECK_EQ(try_put(q, 7, JNQ_NOW), JNQ_FULL);
    get_item(q, 10, 1);
    CHECK_EQ(jnq_put_integer(other, 5, JNQ_NOW), JNQ_OK);
    CHECK_EQ(counters(q).put_bytes, 10 + 100000 + sizeof(int64_t));
    CHECK_EQ(counters(q).backlog, 2);
    int fd = dup(jnq_fileno(q));
    jnq_detach(other);
    drop_queue(q);
    jnq_counters c; /* the figures outlive all who had the queue, and to look at them takes no part in it */
    jnq_queue *picture;
    CHECK_EQ(jnq_look(fd, &picture), JNQ_OK);
    jnq_glance(picture, &c);
    jnq_forget(picture);
    CHECK_EQ(c.puts, 4);
    CHECK_EQ(c.put_bytes, 10 + 100000 + sizeof(int64_t));
    CHECK_EQ(c.backlog, 2);
    CHECK_EQ(c.processes, 0);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    CHECK_EQ(jnq_look(fd, &picture), EBADF);
}

static void waits_are_counted_for_good(void)
{
    jnq_queue *q = make_queue(1), *other = second_handle(q);
    put_item(q, 10, 1);
    for (int in = 0; in < JNQ_WAITS; in++)
        CHECK_EQ(counters(q).blocked_ns[in], 0);
    CHECK_EQ(PATIENTLY(jnq_put(other, "", 0, event_now() + 20 * MILLISECOND)), JNQ_FULL);
    uint64_t blocked = counters(q).blocked_ns[JNQ_IN_PUT];
    CHECK_OP(blocked, >=, 18 * MILLISECOND);
    CHECK_EQ(counters(q).blocked_ns[JNQ_IN_GET] + counters(q).blocked_ns[JNQ_IN_JOIN], 0);
    kill_handle(other, (uint32_t)getpid());
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_EQ(counters(q).blocked_ns[JNQ_IN_PUT], blocked);
    other = second_handle(q); /* takes the dead one's entry */
    CHECK_EQ(PATIENTLY(jnq_put(other, "", 0, event_now() + 20 * MILLISECOND)), JNQ_FULL);
    CHECK_OP(counters(q).blocked_ns[JNQ_IN_PUT], >=, blocked + 18 * MILLISECOND);
    jnq_detach(other);
    CHECK_OP(counters(q).blocked_ns[JNQ_IN_PUT], >=, blocked + 18 * MILLISECOND);
    get_item(q, 10, 1);
    drop_queue(q);
}

static void peak_of_memory_stays(void)
{
    jnq_queue *q = make_queue(0);
    uint64_t idle = counters(q).used_bytes;
    CHECK_OP(counters(q).peak_bytes, <=, idle + 4 * q->sh->unit_bytes);
    put_item(q, 1000000, 1);
    uint64_t full = counters(q).used_bytes;
    CHECK_OP(full, >=, idle + 1000000);
    get_item(q, 1000000, 1);
    CHECK_EQ(counters(q).used_bytes, idle);
    CHECK_OP(counters(q).peak_bytes, >=, full);
    CHECK_OP(counters(q).peak_bytes, <=, full + 4 * q->sh->unit_bytes); /* with a lease */
    drop_queue(q);
}

/* --- batches --------------------------------------------------------------------------------------------------------- */

static uint64_t small_at(uint64_t number)
{
    static const uint64_t smalls[] = {0, 1, 8, 9, 100, 1000};
    return smalls[number % (sizeof smalls / sizeof *smalls)];
}

/* Items from `number` on. */
static void pack_items(struct packed *batch, uint64_t n, uint64_t number)
{
    batch->bytes = batch->items = 0;
    for (uint64_t i = 0; i < n; i++)
        pack_item(batch, small_at(number + i), number + i);
}

static void put_batch(jnq_queue *q, uint64_t n, uint64_t number)
{
    struct packed batch;
    uint64_t put = 0;
    pack_items(&batch, n, number);
    CHECK_EQ(jnq_put_batch(q, batch.start, n, &put, JNQ_NOW), JNQ_OK);
    CHECK_EQ(put, n);
}

/* Takes items from `number` on, and reports none. Gives how many, or why none; singly with JNQ_REDELIVER. */
static int64_t get_batch(jnq_queue *q, uint64_t most, uint64_t number)
{
    static _Alignas(8) char batch[16384];
    CHECK(!redelivers());
    int64_t n = jnq_get_batch(q, batch, sizeof batch, most, JNQ_NOW);
    const char *at = batch;
    for (int64_t i = 0; i < n; i++)
        at = next_packed(at, small_at(number + (uint64_t)i), number + (uint64_t)i);
    return n;
}

/* The same for all that is there, and each is reported. */
static void get_all(jnq_queue *q, uint64_t n, uint64_t number)
{
    CHECK_EQ(jnq_qsize(q), n);
    while (n) {
        if (redelivers() || n % 2) {
            get_item(q, small_at(number), number);
            number++;
            n--;
        } else {
            int64_t got = get_batch(q, 1 + n / 3, number);
            CHECK_OP(got, >, 0);
            CHECK_EQ(jnq_task_done(q, (uint64_t)got), JNQ_OK);
            number += (uint64_t)got;
            n -= (uint64_t)got;
        }
        is_whole(q);
    }
}

static void batches_come_back(void)
{
    EACH_BASE(base) for (uint64_t n = 1; n < 60; n += 7)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        for (uint64_t round = 0; round < 12; round++) {
            put_batch(q, n, round * n);
            is_whole(q);
        }
        get_all(q, 12 * n, 0);
        CHECK_EQ(jnq_unfinished(q), 0);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
    jnq_queue *q = make_queue(1);
    uint64_t put = 0;
    put_item(q, 1, 1);
    CHECK_EQ(jnq_put_batch(q, NULL, 0, &put, JNQ_FOREVER), JNQ_OK); /* nothing is always there */
    drop_queue(q);
}

static void full_queue_takes_a_part(void)
{
    EACH_BASE(base)
    for (uint64_t maxsize = 1; maxsize <= 25; maxsize += 6)
        for (uint64_t there = 0; there <= maxsize; there += 3) {
            jnq_queue *q = make_queue(maxsize);
            rebase(q, base);
            if (there)
                put_batch(q, there, 0);
            struct packed batch;
            pack_items(&batch, 30, there);
            for (int again = 0; again < 2; again++) {
                uint64_t put = 0, room = again ? 0 : maxsize - there;
                CHECK_EQ(jnq_put_batch(q, batch.start, 30, &put, again ? event_now() + MILLISECOND : JNQ_NOW),
                         JNQ_FULL);
                CHECK_EQ(put, room);
                CHECK_EQ(jnq_qsize(q), maxsize);
                is_whole(q);
            }
            get_all(q, maxsize, 0);
            drop_queue(q);
        }
}

struct batcher {
    jnq_queue *q;
    struct packed batch;
    uint64_t put;
    int result;
    uint32_t tid, interrupts;
};

/* Goes on with what is left when it was interrupted. */
static void *put_in_thread(void *arg)
{
    struct batcher *b = arg;
    const char *rest = b->batch.start;
    store_sc(&b->tid, (uint32_t)own_tid());
    for (;;) {
        uint64_t put = 0;
        b->result = jnq_put_batch(b->q, rest, b->batch.items - b->put, &put, JNQ_FOREVER);
        for (uint64_t i = 0; i < put; i++)
            rest = next_packed(rest, small_at(b->put + i), b->put + i);
        b->put += put;
        if (b->result != JNQ_INTERRUPTED)
            return NULL;
        add_sc(&b->interrupts, 1);
    }
}

static pthread_t start_batcher(struct batcher *b, jnq_queue *q, uint64_t n)
{
    memset(b, 0, sizeof *b);
    b->q = q;
    pack_items(&b->batch, n, 0);
    pthread_t thread = start_thread(put_in_thread, b);
    until_asleep(&b->tid);
    return thread;
}

static void batch_waits_for_room(void)
{
    static struct batcher b;
    jnq_queue *q = make_queue(3);
    pthread_t thread = start_batcher(&b, q, 40);
    for (uint64_t number = 0; number < 40; number++) {
        jnq_box box;
        int64_t rc;
        CHECK_OP(jnq_qsize(q), <=, 3);
        while ((rc = jnq_get(q, &box, JNQ_FOREVER)) == JNQ_INTERRUPTED)
            ;
        CHECK(is_item(rc));
        CHECK_EQ(box.bytes, small_at(number));
        CHECK(filled(box.payload, box.bytes, number));
        finish_item(q, &box);
    }
    join_thread(thread);
    CHECK_EQ(b.result, JNQ_OK);
    CHECK_EQ(b.put, 40);
    is_whole(q);
    drop_queue(q);
}

static void shutdown_ends_a_batch_midway(void)
{
    for (int immediate = 0; immediate < 2; immediate++) {
        static struct batcher b;
        jnq_queue *q = make_queue(3);
        pthread_t thread = start_batcher(&b, q, 40);
        get_item(q, small_at(0), 0); /* which a fourth may follow */
        CHECK_EQ(jnq_shutdown(q, immediate), JNQ_OK);
        join_thread(thread);
        CHECK_EQ(b.result, JNQ_SHUTDOWN);
        CHECK(b.put == 3 || b.put == 4);
        CHECK_EQ(jnq_qsize(q), immediate ? 0 : b.put - 1);
        CHECK_EQ(jnq_unfinished(q), immediate ? 0 : b.put - 1);
        if (!immediate)
            get_all(q, b.put - 1, 1);
        uint64_t put = 0;
        CHECK_EQ(jnq_put_batch(q, b.batch.start, 2, &put, JNQ_FOREVER), JNQ_SHUTDOWN);
        CHECK_EQ(put, 0);
        CHECK_EQ(try_get(q, JNQ_FOREVER), JNQ_SHUTDOWN);
        is_whole(q);
        drop_queue(q);
    }
}

static void signal_leaves_a_part_of_a_batch(void)
{
    static struct batcher b;
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGUSR1, &action, NULL);
    jnq_queue *q = make_queue(4);
    pthread_t thread = start_batcher(&b, q, 6);
    while (!load_sc(&b.interrupts)) {
        pthread_kill(thread, SIGUSR1);
        nap(MILLISECOND);
    }
    CHECK_EQ(jnq_qsize(q), 4);
    get_all(q, 4, 0);
    join_thread(thread);
    CHECK_EQ(b.result, JNQ_OK);
    CHECK_EQ(b.put, 6);
    get_all(q, 2, 4);
    drop_queue(q);
}

static void no_memory_leaves_a_part_of_a_batch(void)
{
    jnq_queue *q = make_small_queue(0, 4 << 20);
    struct packed batch;
    uint64_t all = 0, put = 0;
    int rc = JNQ_OK;
    pack_items(&batch, 60, 0);
    while (!rc) {
        put = 0;
        rc = jnq_put_batch(q, batch.start, 60, &put, JNQ_NOW);
        all += put;
    }
    CHECK_EQ(rc, JNQ_NO_MEMORY);
    CHECK_OP(put, <, 60);
    CHECK_EQ(jnq_qsize(q), all);
    is_whole(q);
    for (uint64_t i = 0; i < all; i++)
        get_item(q, small_at(i % 60), i % 60);
    put_batch(q, 60, 0);
    get_all(q, 60, 0);
    drop_queue(q);
}

/* What was given back, and what lies in an extent, is for jnq_get(); so is the end. */
static void batch_leaves_some_to_get(void)
{
    if (redelivers())
        return;
    jnq_queue *q = make_queue(0);
    jnq_box box;
    CHECK_EQ(get_batch(q, 5, 0), JNQ_EMPTY);
    CHECK_EQ(jnq_get_batch(q, NULL, 0, 5, event_now() + MILLISECOND), JNQ_EMPTY);
    put_batch(q, 5, 0);
    take_item(q, &box, small_at(0), 0);
    CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
    CHECK_EQ(get_batch(q, 5, 0), 0);
    get_item(q, small_at(0), 0);
    CHECK_EQ(get_batch(q, 2, 1), 2);
    CHECK_EQ(get_batch(q, 2, 3), 2);
    put_item(q, 20000, 1);
    put_batch(q, 2, 0);
    CHECK_EQ(get_batch(q, 5, 0), 0);
    get_item(q, 20000, 1);
    CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
    CHECK_EQ(get_batch(q, 5, 0), 2);
    int64_t rc = get_batch(q, 5, 0);
    CHECK(rc == 0 || rc == JNQ_SHUTDOWN);
    CHECK_EQ(jnq_task_done(q, 6), JNQ_OK);
    CHECK_EQ(jnq_unfinished(q), 0);
    is_whole(q);
    drop_queue(q);
}

static uint64_t tasks_in_hand(jnq_queue *q)
{
    jnq_holder holder;
    CHECK_EQ(jnq_read_holder(q, 1, &holder), JNQ_OK);
    return holder.tasks;
}

/* Of a chunk each item is a task of its own: it is counted, leased, given back and finished alone. */
static void items_of_a_chunk_are_tasks(void)
{
    EACH_BASE(base)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        jnq_box boxes[6];
        uint64_t counted = mode != JNQ_IGNORE;
        put_batch(q, 12, 0);
        for (uint64_t i = 0; i < 6; i++) {
            take_item(q, &boxes[i], small_at(i), i);
            CHECK_EQ(boxes[i].form, JNQ_PICKLE);
            CHECK_EQ(boxes[i].lease != 0, redelivers());
            if (redelivers())
                CHECK_EQ(boxes[i].number, base + i);
            CHECK_EQ(tasks_in_hand(q), counted * (i + 1));
            is_whole(q);
        }
        CHECK_EQ(jnq_unget(q, &boxes[4]), JNQ_OK);
        CHECK_EQ(jnq_unget(q, &boxes[1]), JNQ_OK);
        CHECK_EQ(tasks_in_hand(q), counted * 4);
        is_whole(q);
        finish_item(q, &boxes[3]);
        finish_item(q, &boxes[0]);
        CHECK_EQ(tasks_in_hand(q), counted * 2);
        CHECK_EQ(jnq_unfinished(q), 10);
        get_item(q, small_at(1), 1);
        get_item(q, small_at(4), 4);
        finish_item(q, &boxes[5]);
        finish_item(q, &boxes[2]);
        if (!redelivers()) {
            CHECK_EQ(get_batch(q, 4, 6), 4);
            CHECK_EQ(tasks_in_hand(q), counted * 4);
            CHECK_EQ(jnq_task_done(q, 3), JNQ_OK);
            CHECK_EQ(tasks_in_hand(q), counted);
            CHECK_EQ(jnq_task_done(q, 1), JNQ_OK);
            get_all(q, 2, 10);
        } else {
            get_all(q, 6, 6);
        }
        CHECK_EQ(jnq_unfinished(q), 0);
        CHECK_EQ(counters(q).foreign, 0);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

static void shutdown_discards_the_rest_of_a_chunk(void)
{
    EACH_BASE(base) for (uint64_t taken = 0; taken <= 12; taken++)
    {
        jnq_queue *q = make_queue(0);
        rebase(q, base);
        jnq_box boxes[12];
        put_batch(q, 12, 0);
        put_item(q, 20000, 1);
        for (uint64_t i = 0; i < taken; i++)
            take_item(q, &boxes[i], small_at(i), i);
        CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(jnq_unfinished(q), taken);
        CHECK_EQ(try_get(q, JNQ_NOW), JNQ_SHUTDOWN);
        is_whole(q);
        for (uint64_t i = 0; i < taken; i++)
            finish_item(q, &boxes[i]);
        CHECK_EQ(jnq_unfinished(q), 0);
        is_whole(q);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

static void measured_queue_counts_a_batch_as_its_items(void)
{
    jnq_queue *q = make_queue(20);
    jnq_measure(q);
    uint64_t bytes = 0, put = 0;
    for (uint64_t i = 0; i < 20; i++)
        bytes += small_at(i);
    struct packed batch;
    pack_items(&batch, 30, 0);
    CHECK_EQ(jnq_put_batch(q, batch.start, 30, &put, JNQ_NOW), JNQ_FULL);
    CHECK_EQ(counters(q).put_bytes, bytes);
    CHECK_EQ(counters(q).backlog, 20);
    get_all(q, 20, 0);
    put_batch(q, 2, 0);
    CHECK_EQ(counters(q).put_bytes, bytes + small_at(0) + small_at(1));
    CHECK_EQ(counters(q).backlog, 20);
    drop_queue(q);
}

static void pieces_arrive_one_after_the_other(void)
{
    static char text[JNQ_INLINE_BYTES + 300000];
    jnq_queue *q = make_queue(0);
    for (uint64_t i = 0; i < SIZES; i++) {
        if (sizes[i] > sizeof text)
            continue;
        fill(text, sizes[i], i);
        for (uint64_t n = 1; n <= 5; n++) {
            jnq_piece pieces[7] = {{NULL, 0}};
            uint64_t off = 0;
            for (uint64_t k = 0; k < n; k++) { /* empty ones in between */
                uint64_t end = k == n - 1 ? sizes[i] : off + (sizes[i] - off) / (n - k);
                pieces[1 + k] = (jnq_piece){text + off, end - off};
                off = end;
            }
            pieces[0].start = pieces[n + 1].start = text;
            CHECK_EQ(jnq_put_pieces(q, JNQ_BYTES, pieces, n + 2, JNQ_NOW), JNQ_OK);
            jnq_box box;
            CHECK(is_item(jnq_get(q, &box, JNQ_NOW)));
            CHECK_EQ(box.form, JNQ_BYTES);
            CHECK_EQ(box.bytes, sizes[i]);
            CHECK(filled(box.payload, sizes[i], i));
            finish_item(q, &box);
            is_whole(q);
        }
    }
    jnq_box box;
    CHECK_EQ(jnq_put_pieces(q, JNQ_NONE, NULL, 0, JNQ_NOW), JNQ_OK);
    CHECK(is_item(jnq_get(q, &box, JNQ_NOW)));
    CHECK_EQ(box.bytes, 0);
    CHECK_EQ(box.form, JNQ_NONE);
    finish_item(q, &box);
    CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
    drop_queue(q);
}

/* A copy is put back; what the box holds stays, and is the box's. */
static void copy_is_given_back(void)
{
    for (int cut = 0; cut < 2; cut++) {
        jnq_queue *q = make_queue(0);
        jnq_box box, other;
        put_item(q, 20000, 1);
        put_item(q, 5, 2);
        take_item(q, &box, 20000, 1);
        if (cut)
            CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
        CHECK_EQ(jnq_unget_copy(q, &box), JNQ_OK);
        is_whole(q);
        CHECK_EQ(jnq_qsize(q), cut ? 0 : 2);
        CHECK_EQ(jnq_unfinished(q), cut ? 0 : 2);
        if (!redelivers()) {
            CHECK(box.taken);
            fill((char *)(uintptr_t)box.payload, 20000, 7);
        }
        if (!cut) {
            take_item(q, &other, 20000, 1);
            CHECK(redelivers() || other.unit != box.unit);
            if (!redelivers())
                CHECK(filled(box.payload, 20000, 7));
            finish_item(q, &other);
            get_item(q, 5, 2);
        }
        jnq_release(&box);
        is_whole(q);
        CHECK_EQ(counters(q).used_bytes, idle_bytes(q));
        drop_queue(q);
    }
}

TESTS_IN_ALL_MODES("queue", integers_come_back, every_size_comes_back_whole, box_says_where_the_payload_is,
                   random_steps_follow_a_model, unget_restores_order, rebox_makes_a_box_for_unget,
                   bounded_queue_is_full, deadlines_come_not_early, waiters_are_woken,
                   signals_interrupt_and_nothing_happened, shutdown_refuses_puts_and_drains,
                   immediate_shutdown_discards, shutdown_wakes_every_waiter, join_waits_for_all,
                   no_memory_leaves_the_queue_as_before, box_is_the_parents, measured_queue_keeps_figures,
                   waits_are_counted_for_good, peak_of_memory_stays, batches_come_back, full_queue_takes_a_part,
                   batch_waits_for_room, shutdown_ends_a_batch_midway, signal_leaves_a_part_of_a_batch,
                   no_memory_leaves_a_part_of_a_batch, batch_leaves_some_to_get, items_of_a_chunk_are_tasks,
                   shutdown_discards_the_rest_of_a_chunk, measured_queue_counts_a_batch_as_its_items,
                   pieces_arrive_one_after_the_other, copy_is_given_back)
