/* ready, watch: the pipes tell poll(2) what the queue is like whenever nobody is in a call, whoever has changed it, and
 * a moment after somebody has died. */
#include "harness.h"

#include <poll.h>

#include "ready.h"
#include "watch.h"

static int ask(jnq_queue *q, enum jnq_wait what)
{
    int fd = -1;
    CHECK_EQ(jnq_pollable(q, what, &fd), JNQ_OK);
    CHECK_OP(fd, >=, 0);
    return fd;
}

static bool says(int fd, short event)
{
    struct pollfd one = {.fd = fd, .events = event};
    CHECK_OP(poll(&one, 1, 0), >=, 0);
    CHECK(!(one.revents & POLLNVAL));
    return one.revents & event;
}

/* As event_sleep() would: within the promised time. */
static bool will_say(int fd, short event)
{
    struct pollfd one = {.fd = fd, .events = event};
    CHECK_OP(poll(&one, 1, 10000), >=, 0);
    return one.revents & event;
}

static void until_it_says(int fd, short event, bool what)
{
    while (says(fd, event) != what)
        nap(MILLISECOND);
}

struct asked {
    int get, put, join;
};

static struct asked ask_all(jnq_queue *q)
{
    return (struct asked){ask(q, JNQ_IN_GET), ask(q, JNQ_IN_PUT), ask(q, JNQ_IN_JOIN)};
}

#define CHECK_SAYS(fds, get_, put_, join_)                                                                             \
    do {                                                                                                               \
        CHECK_EQ(says((fds).get, POLLIN), get_);                                                                       \
        CHECK_EQ(says((fds).put, POLLOUT), put_);                                                                      \
        CHECK_EQ(says((fds).join, POLLIN), join_);                                                                     \
    } while (0)

static void says_what_the_queue_is_like(void)
{
    jnq_queue *q = make_queue(2);
    struct asked fds = ask_all(q);
    CHECK_SAYS(fds, false, true, true);
    put_item(q, 8, 0);
    CHECK_SAYS(fds, true, true, false);
    put_item(q, 9000, 1);
    CHECK_SAYS(fds, true, false, false);
    get_item(q, 8, 0);
    CHECK_SAYS(fds, true, true, false);
    jnq_box box;
    take_item(q, &box, 9000, 1);
    CHECK_SAYS(fds, false, true, false);
    CHECK_EQ(jnq_unget(q, &box), JNQ_OK);
    CHECK_SAYS(fds, true, true, false);
    get_item(q, 9000, 1);
    CHECK_SAYS(fds, false, true, true);
    put_item(q, 8, 2);
    put_item(q, 8, 3);
    CHECK_SAYS(fds, true, false, false);
    CHECK_EQ(jnq_shutdown(q, 0), JNQ_OK);
    CHECK_SAYS(fds, true, true, false);
    CHECK_EQ(jnq_shutdown(q, 1), JNQ_OK);
    CHECK_SAYS(fds, true, true, true);
    drop_queue(q);
}

static void says_what_it_was_like_before(void)
{
    jnq_queue *q = make_queue(1);
    put_item(q, 8, 0);
    struct asked fds = ask_all(q);
    CHECK_SAYS(fds, true, false, false);
    CHECK_EQ(ask(q, JNQ_IN_GET), fds.get);
    get_item(q, 8, 0);
    CHECK_SAYS(fds, false, true, true);
    drop_queue(q);
}

/* The program has closed what it does not know, and something else has the number now. */
static void outlives_its_descriptor(void)
{
    jnq_queue *q = make_queue(0);
    int fd = ask(q, JNQ_IN_GET), other = fresh_memfd();
    CHECK_EQ(dup2(other, fd), fd);
    put_item(q, 8, 0);
    get_item(q, 8, 0);
    put_item(q, 8, 1);
    nap(2 * EVENT_SLICE_NS);
    struct stat file;
    CHECK_EQ(fstat(fd, &file), 0);
    CHECK_EQ(file.st_size, 0);
    int again = ask(q, JNQ_IN_GET);
    CHECK_OP(again, !=, fd);
    CHECK(says(again, POLLIN));
    get_item(q, 8, 1);
    CHECK(!says(again, POLLIN));
    drop_queue(q);
    CHECK_EQ(fstat(fd, &file), 0); /* not ours to close */
    close(fd);
    close(other);
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Threads of watch.h in this process. */
static unsigned watchers(void)
{
    unsigned n = 0;
    char path[300], name[20] = "";
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fgets(name, sizeof name, file))
            n += !strcmp(name, "joinq\n");
        if (file)
            fclose(file);
    }
    closedir(dir);
    return n;
}

/* ThreadSanitizer can fork only then. */
static void until_unwatched(void)
{
    while (watchers())
        nap(MILLISECOND);
}

static void leaves_nothing(void)
{
    unsigned before = descriptors();
    for (int i = 0; i < 20; i++) {
        jnq_queue *q = make_queue(1), *other = second_handle(q);
        ask_all(q);
        ask_all(other);
        put_item(other, 8, 0);
        CHECK_OP(watchers(), >=, 1); /* more: the last queue's is just ending */
        jnq_detach(other);
        drop_queue(q);
    }
    CHECK_EQ(descriptors(), before);
    until_unwatched();
}

/* --- other processes ------------------------------------------------------------------------------------ */

struct pair {
    jnq_queue *q;
    uint32_t turn; /* counts; even: the parent's */
    bool attaches;
};

static void until_turn(struct pair *pair, uint32_t turn)
{
    while (load_sc(&pair->turn) != turn)
        nap(10000);
}

static jnq_queue *of_child(struct pair *pair) { return pair->attaches ? second_handle(pair->q) : pair->q; }

static void put_and_get_in_turn(void *arg)
{
    struct pair *pair = arg;
    jnq_queue *q = of_child(pair);
    until_turn(pair, 1);
    put_item(q, 8, 0);
    add_sc(&pair->turn, 1);
    until_turn(pair, 3);
    get_item(q, 8, 1);
    add_sc(&pair->turn, 1);
}

static void sees_other_processes(void)
{
    for (int attaches = 0; attaches < 2; attaches++) {
        struct pair *pair = shared_memory(sizeof *pair);
        *pair = (struct pair){.q = make_queue(1), .attaches = attaches};
        until_unwatched();
        pid_t child = start_child(put_and_get_in_turn, pair);
        struct asked fds = ask_all(pair->q);
        add_sc(&pair->turn, 1);
        until_turn(pair, 2);
        CHECK_SAYS(fds, true, false, false);
        get_item(pair->q, 8, 0);
        CHECK_SAYS(fds, false, true, true);
        put_item(pair->q, 8, 1);
        CHECK_SAYS(fds, true, false, false);
        add_sc(&pair->turn, 1);
        until_turn(pair, 4);
        CHECK_SAYS(fds, false, true, true);
        join_child(child);
        drop_queue(pair->q);
        munmap(pair, sizeof *pair);
    }
}

static void ask_in_turn(void *arg)
{
    struct pair *pair = arg;
    jnq_queue *q = of_child(pair);
    until_turn(pair, 1);
    int fd = ask(q, JNQ_IN_GET);
    add_sc(&pair->turn, 1);
    CHECK(will_say(fd, POLLIN));
    add_sc(&pair->turn, 1);
    until_turn(pair, 5);
    die();
}

#define NOBODY 65534

static void ask_and_end(void *q) { ask(q, JNQ_IN_GET); }

static void outlive_a_zombie(void *unused)
{
    (void)unused;
    siginfo_t end;
    if (!geteuid()) {
        CHECK_EQ(setuid(NOBODY), 0);
        prctl(PR_SET_DUMPABLE, 1);
    }
    jnq_queue *q = make_queue(1);
    pid_t child = start_child(ask_and_end, q);
    CHECK_EQ(waitid(P_PID, (id_t)child, &end, WEXITED | WNOWAIT), 0);
    int fd = ask(q, JNQ_IN_GET);
    CHECK_EQ(q->sh->ready[JNQ_IN_GET].pid, (uint32_t)getpid());
    jnq_queue *other = second_handle(q);
    put_item(other, 8, 0);
    CHECK(says(fd, POLLIN));
    CHECK_EQ(other->ends[JNQ_IN_GET].refused, 0);
    jnq_detach(other);
    join_child(child);
    drop_queue(q);
}

/* For all but root, who is dead and not waited for looks like somebody whose descriptors are none of their business. */
static void outlives_a_maker_that_nobody_waits_for(void)
{
    until_unwatched();
    join_child(start_child(outlive_a_zombie, NULL));
}

/* He who made the pipe is dead: it is to be found elsewhere, or made anew. */
static void outlives_its_maker(void)
{
    for (int first = 0; first < 2; first++) {
        struct pair *pair = shared_memory(sizeof *pair);
        *pair = (struct pair){.q = make_queue(0), .attaches = true};
        until_unwatched();
        pid_t child = start_child(ask_in_turn, pair);
        add_sc(&pair->turn, 1);
        until_turn(pair, 2);
        int fd = first ? ask(pair->q, JNQ_IN_GET) : -1;
        put_item(pair->q, 8, 0);
        CHECK(!first || says(fd, POLLIN));
        until_turn(pair, 3);
        get_item(pair->q, 8, 0);
        store_sc(&pair->turn, 5);
        join_dead_child(child);
        if (!first) {
            put_item(pair->q, 8, 1); /* nobody is there to see it */
            get_item(pair->q, 8, 1);
            put_item(pair->q, 8, 2);
            get_item(pair->q, 8, 2);
            fd = ask(pair->q, JNQ_IN_GET);
        }
        jnq_queue *other = second_handle(pair->q);
        put_item(other, 8, 3);
        CHECK(first ? will_say(fd, POLLIN) : says(fd, POLLIN));
        get_item(other, 8, 3);
        until_it_says(fd, POLLIN, false);
        put_item(other, 8, 4);
        CHECK(says(fd, POLLIN));
        jnq_detach(other);
        get_item(pair->q, 8, 4);
        drop_queue(pair->q);
        munmap(pair, sizeof *pair);
    }
}

/* A death between the step and the pipe: the change is seen a little later. */
static void shows_what_the_dead_have_not(void)
{
    jnq_queue *q = make_queue(0);
    int fd = ask(q, JNQ_IN_GET);
    store_sc(&q->sh->asked, 0); /* as if the next put died in ready_changed() */
    put_item(q, 8, 0);
    CHECK(will_say(fd, POLLIN));
    store_sc(&q->sh->asked, 0);
    get_item(q, 8, 0);
    until_it_says(fd, POLLIN, false);
    drop_queue(q);
}

static void take_one_and_die(void *arg)
{
    jnq_box box;
    take_item(arg, &box, 8, 0);
    die();
}

/* Nobody is in a call: who sleeps in poll(2) is told of what the dead leave to others. */
static void redelivers_to_pollers(void)
{
    jnq_queue *q = make_mortal_queue(0, JNQ_REDELIVER, 10);
    put_item(q, 8, 0);
    until_unwatched();
    join_dead_child(start_child(take_one_and_die, q));
    int fd = ask(q, JNQ_IN_GET);
    CHECK(will_say(fd, POLLIN));
    get_item(q, 8, 0);
    drop_queue(q);
}

/* --- concurrency ---------------------------------------------------------------------------------------- */

#define ACTORS 3

struct crowd {
    jnq_queue *q[ACTORS];
    struct asked fds;
    uint32_t number, arrived, round;
    uint32_t rounds;
};

static void meet(struct crowd *crowd, uint32_t round)
{
    if (add_sc(&crowd->arrived, 1) == (ACTORS + 1) * (2 * round + 1))
        return;
    while (load_sc(&crowd->arrived) < (ACTORS + 1) * (2 * round + 1))
        sched_yield();
}

static void part(struct crowd *crowd, uint32_t round)
{
    add_sc(&crowd->arrived, 1);
    while (load_sc(&crowd->arrived) < (ACTORS + 1) * (2 * round + 2))
        sched_yield();
}

static void act(struct crowd *crowd)
{
    uint32_t number = add_sc(&crowd->number, 1) - 1;
    jnq_queue *q = crowd->q[number];
    uint64_t random = random_state(number);
    jnq_box box;
    for (uint32_t round = 0; round < crowd->rounds; round++) {
        for (uint64_t n = below(&random, 8); n; n--) {
            if (below(&random, 2)) {
                int rc = jnq_put_integer(q, 1, JNQ_NOW);
                CHECK(!rc || rc == JNQ_FULL);
            } else if (is_item(jnq_get(q, &box, JNQ_NOW))) {
                finish_item(q, &box);
            }
        }
        meet(crowd, round);
        part(crowd, round);
    }
}

static void *act_in_thread(void *arg)
{
    act(arg);
    return NULL;
}

static void act_in_process(void *arg) { act(arg); }

/* When all stand still, the pipes are right. */
static void judge(struct crowd *crowd)
{
    jnq_queue *q = crowd->q[0];
    for (uint32_t round = 0; round < crowd->rounds; round++) {
        meet(crowd, round);
        jnq_counters c = counters(q);
        if (says(crowd->fds.get, POLLIN) != (c.queued > 0) || says(crowd->fds.put, POLLOUT) != (c.queued < 2) ||
            says(crowd->fds.join, POLLIN) != !c.unfinished) {
            /* A changer may have left it, after a millisecond, to one who was not running: he does it now. */
            until_it_says(crowd->fds.get, POLLIN, c.queued > 0);
            until_it_says(crowd->fds.put, POLLOUT, c.queued < 2);
            until_it_says(crowd->fds.join, POLLIN, !c.unfinished);
        }
        part(crowd, round);
    }
}

static void is_right_among_threads(void)
{
    struct crowd crowd = {.rounds = scaled(3000)};
    pthread_t actors[ACTORS];
    crowd.q[0] = make_queue(2);
    for (int i = 1; i < ACTORS; i++) /* ThreadSanitizer knows no order through another mapping */
        crowd.q[i] = i % 2 || THREADS_WATCHED ? crowd.q[0] : second_handle(crowd.q[0]);
    crowd.fds = ask_all(crowd.q[0]);
    for (int i = 0; i < ACTORS; i++)
        actors[i] = start_thread(act_in_thread, &crowd);
    judge(&crowd);
    for (int i = 0; i < ACTORS; i++)
        join_thread(actors[i]);
    for (int i = 1; i < ACTORS; i++)
        if (crowd.q[i] != crowd.q[0])
            jnq_detach(crowd.q[i]);
    drop_queue(crowd.q[0]);
}

static void is_right_among_processes(void)
{
    struct crowd *crowd = shared_memory(sizeof *crowd);
    pid_t actors[ACTORS];
    *crowd = (struct crowd){.rounds = scaled(3000)};
    for (int i = 0; i < ACTORS; i++)
        crowd->q[i] = i ? crowd->q[0] : make_queue(2);
    until_unwatched();
    for (int i = 0; i < ACTORS; i++)
        actors[i] = start_child(act_in_process, crowd);
    crowd->fds = ask_all(crowd->q[0]);
    judge(crowd);
    for (int i = 0; i < ACTORS; i++)
        join_child(actors[i]);
    drop_queue(crowd->q[0]);
    munmap(crowd, sizeof *crowd);
}

/* --- foreign writes -------------------------------------------------------------------------------------- */

/* Nobody who does that asks for an order among threads: the watcher may be reading. */
__attribute__((no_sanitize("thread"))) static void write_foreign_words(struct jnq_ready *r, uint64_t *random, int fd)
{
    char *byte = (char *)&r->shown + below(random, sizeof *r - offsetof(struct jnq_ready, shown));
    *byte = (char)next_random(random);
    if (fd >= 0) {
        r->pid = (uint32_t)getpid();
        r->fd = (uint32_t)fd;
    }
}

/* Whatever stands there, no other descriptor is touched, and asking again is answered. */
static void survives_foreign_words(void)
{
    int pipe_of_another[2], fd;
    CHECK_EQ(pipe(pipe_of_another), 0);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t random = random_state(i);
        jnq_queue *q = make_queue(1);
        ask_all(q);
        write_foreign_words(&q->sh->ready[below(&random, JNQ_WAITS)], &random, i % 2 ? pipe_of_another[1] : -1);
        put_item(q, 8, 0);
        get_item(q, 8, 0);
        ready_look(q);
        CHECK_EQ(jnq_pollable(q, (int)below(&random, JNQ_WAITS), &fd), JNQ_OK);
        CHECK(!says(pipe_of_another[0], POLLIN));
        drop_queue(q);
    }
    close(pipe_of_another[0]);
    close(pipe_of_another[1]);
}

TESTS("ready", says_what_the_queue_is_like, says_what_it_was_like_before, outlives_its_descriptor, leaves_nothing,
      sees_other_processes, outlives_its_maker,
      outlives_a_maker_that_nobody_waits_for, redelivers_to_pollers, shows_what_the_dead_have_not,
      is_right_among_processes, is_right_among_threads, survives_foreign_words)
