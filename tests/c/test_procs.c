/* procs: an entry lives as long as its process, however that ends, and no entry is lost; it tells people what its process
 * does. */
#include "harness.h"

#include "lock.h"
#include "procs.h"
#include "recover.h"

static struct jnq_proc *entry(jnq_queue *q, uint32_t owner)
{
    return (struct jnq_proc *)at(q, q->sh->procs_off) + (owner - 1);
}

static void lock_procs(jnq_queue *q) { CHECK_EQ(recover_lock_procs(q, event_now() + 10 * SECOND), JNQ_OK); }

static void unlock_procs(jnq_queue *q) { lock_release(&q->sh->procs.lock); }

static bool dead(jnq_queue *q, uint32_t owner)
{
    lock_procs(q);
    bool answer = procs_dead(q, owner);
    unlock_procs(q);
    return answer;
}

static bool known(jnq_queue *q, uint32_t owner)
{
    lock_procs(q);
    bool answer = procs_known(q, owner);
    unlock_procs(q);
    return answer;
}

static void creator_is_entered_and_alive(void)
{
    jnq_queue *q = make_queue(0);
    CHECK(procs_entered(q));
    CHECK_EQ(q->owner, 1);
    CHECK_EQ(entry(q, 1)->pid, getpid());
    CHECK(known(q, 1));
    CHECK(!dead(q, 1));
    CHECK(!known(q, 0));
    CHECK(!known(q, 2));
    CHECK(!known(q, UINT32_MAX));
    CHECK_EQ(counters(q).processes, 1);
    drop_queue(q);
}

static void each_handle_has_its_entry(void)
{
    jnq_queue *q = make_queue(0), *others[5];
    for (uint32_t i = 0; i < 5; i++) {
        others[i] = second_handle(q);
        CHECK_EQ(others[i]->owner, i + 2);
    }
    CHECK_EQ(counters(q).processes, 6);
    jnq_detach(others[2]);
    CHECK_EQ(counters(q).processes, 5);
    CHECK(!known(q, 4));
    CHECK(!dead(q, 4)); /* not in use is not dead */
    others[2] = second_handle(q);
    CHECK_EQ(others[2]->owner, 4);
    for (int i = 0; i < 5; i++)
        jnq_detach(others[i]);
    CHECK_EQ(counters(q).processes, 1);
    CHECK_EQ(counters(q).deaths, 0);
    drop_queue(q);
}

static void reused_pid_is_told_apart(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    CHECK(!dead(q, 2));
    entry(q, 2)->start--; /* an earlier process of our pid */
    CHECK(dead(q, 2));
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK(!known(q, 2));
    CHECK_EQ(counters(q).deaths, 1);
    CHECK_EQ(counters(q).processes, 1);
    other->fork = 0; /* as after a fork: enters itself anew */
    put_item(other, 1, 1);
    CHECK_EQ(other->owner, 2);
    CHECK(!dead(q, 2));
    jnq_detach(other);
    drop_queue(q);
}

static void unknown_start_is_alive(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    entry(q, 2)->start = UINT64_MAX;
    CHECK(!dead(q, 2));
    jnq_detach(other);
    drop_queue(q);
}

/* --- how a process can be ------------------------------------------------------------------------------------------ */

struct child {
    jnq_queue *q;
    uint32_t owner;
    uint32_t go;
};

static void enter_and_wait(void *arg)
{
    struct child *child = arg;
    CHECK(!procs_entered(child->q)); /* the entry of the parent is not ours */
    put_item(child->q, 1, 1);
    CHECK(procs_entered(child->q));
    store_sc(&child->owner, child->q->owner);
    while (!load_sc(&child->go))
        nap(MILLISECOND);
}

static pid_t enter_child(jnq_queue *q, struct child *child)
{
    *child = (struct child){.q = q};
    pid_t pid = start_child(enter_and_wait, child);
    while (!load_sc(&child->owner))
        nap(MILLISECOND / 10);
    return pid;
}

static void child_of_a_fork_gets_its_own_entry(void)
{
    jnq_queue *q = make_queue(0);
    struct child *child = shared_memory(sizeof *child);
    pid_t pid = enter_child(q, child);
    CHECK_EQ(child->owner, 2);
    CHECK_EQ(q->owner, 1);
    CHECK_EQ(entry(q, 2)->pid, pid);
    CHECK(!dead(q, 2));
    CHECK(procs_entered(q));
    kill_child(pid);
    CHECK(dead(q, 2));
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK(!known(q, 2));
    munmap(child, sizeof *child);
    drop_queue(q);
}

static void zombie_is_dead_and_stopped_is_alive(void)
{
    jnq_queue *q = make_queue(0);
    struct child *child = shared_memory(sizeof *child);
    pid_t pid = enter_child(q, child);
    int status;
    kill(pid, SIGSTOP);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK_EQ(state_of(pid), 'T');
    CHECK(!dead(q, 2));
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK(known(q, 2));
    kill(pid, SIGKILL);
    siginfo_t info;
    CHECK(!waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT)); /* it stays a zombie */
    CHECK_EQ(state_of(pid), 'Z');
    CHECK(dead(q, 2));
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK(!known(q, 2));
    CHECK_EQ(wait_status(pid), SIGKILL);
    munmap(child, sizeof *child);
    drop_queue(q);
}

static void *wait_to_go(void *arg)
{
    struct child *child = arg;
    while (!load_sc(&child->go))
        nap(MILLISECOND);
    _exit(0);
}

static void end_main_thread(void *arg)
{
    struct child *child = arg;
    put_item(child->q, 1, 1);
    start_thread(wait_to_go, arg);
    store_sc(&child->owner, child->q->owner);
    syscall(SYS_exit, 0); /* of this thread alone */
}

static void process_whose_main_thread_ended_is_alive(void)
{
    jnq_queue *q = make_queue(0);
    struct child *child = shared_memory(sizeof *child);
    *child = (struct child){.q = q};
    pid_t pid = start_child(end_main_thread, child);
    while (state_of(pid) != 'Z')
        nap(MILLISECOND / 10);
    CHECK_EQ(child->owner, 2);
    CHECK(!dead(q, 2));
    store_sc(&child->go, 1);
    join_child(pid);
    CHECK(dead(q, 2));
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    munmap(child, sizeof *child);
    drop_queue(q);
}

static void rename_and_wait(void *arg)
{
    prctl(PR_SET_NAME, ") Z 1 (2) 3");
    enter_and_wait(arg);
}

static void name_of_a_process_says_nothing(void)
{
    jnq_queue *q = make_queue(0);
    struct child *child = shared_memory(sizeof *child);
    *child = (struct child){.q = q};
    pid_t pid = start_child(rename_and_wait, child);
    while (!load_sc(&child->owner))
        nap(MILLISECOND / 10);
    CHECK(!dead(q, 2));
    store_sc(&child->go, 1);
    join_child(pid);
    CHECK(dead(q, 2));
    munmap(child, sizeof *child);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    drop_queue(q);
}

/* --- many ------------------------------------------------------------------------------------------------------------ */

static void put_and_die(void *arg)
{
    put_item(arg, 1, 1);
    die();
}

static void entries_of_killed_children_are_reused(void)
{
    jnq_queue *q = make_queue(0);
    unsigned children = scaled(2000);
    for (unsigned i = 0; i < children; i++)
        join_dead_child(start_child(put_and_die, q));
    CHECK_OP(procs_count(q), <=, 8);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_EQ(counters(q).processes, 1);
    CHECK_EQ(counters(q).deaths, children);
    CHECK_EQ(jnq_qsize(q), children);
    drop_queue(q);
}

/* All die at once; their entries are reused before the table grows by as many again. */
static void entries_of_a_killed_crowd_are_reused(void)
{
    jnq_queue *q = make_queue(0);
    unsigned crowd = scaled(200);
    pid_t *pids = calloc(crowd, sizeof *pids);
    struct child *child = shared_memory(sizeof *child);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < crowd; i++)
            pids[i] = enter_child(q, child);
        for (unsigned i = 0; i < crowd; i++)
            kill_child(pids[i]);
    }
    CHECK_OP(procs_count(q), <=, 2 * crowd);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_EQ(counters(q).processes, 1);
    free(pids);
    munmap(child, sizeof *child);
    drop_queue(q);
}

static void full_table_is_crowded(void)
{
    jnq_queue *q = make_queue(0), *other;
    lock_procs(q);
    for (uint32_t owner = 2; owner <= PROCS_MAX; owner++) {
        q->fork = 0;
        CHECK_EQ(procs_enter(q), JNQ_OK);
        CHECK_EQ(q->owner, owner);
        if (owner > 300) { /* the rest in one step: each entry looks at all before it */
            for (uint32_t i = owner + 1; i <= PROCS_MAX; i++)
                *entry(q, i) = *entry(q, owner);
            q->sh->procs.count = PROCS_MAX;
            break;
        }
    }
    unlock_procs(q);
    int fd = dup(jnq_fileno(q));
    CHECK_EQ(jnq_attach(fd, &other), JNQ_CROWDED);
    lock_procs(q);
    entry(q, 4711)->start--;
    unlock_procs(q);
    CHECK_EQ(jnq_attach(fd, &other), JNQ_OK); /* looks for the dead before it gives up */
    CHECK_EQ(other->owner, 4711);
    jnq_detach(other);
    drop_queue(q);
}

static void *enter_in_thread(void *arg)
{
    jnq_queue *q = arg;
    put_item(q, 1, 1);
    CHECK(procs_entered(q));
    return NULL;
}

static void put_from_elsewhere(void *arg)
{
    jnq_queue *q = arg;
    jnq_box box;
    CHECK_EQ(jnq_put(q, "x", 1, JNQ_FOREVER), JNQ_NAMESPACE);
    CHECK_EQ(jnq_get(q, &box, JNQ_FOREVER), JNQ_NAMESPACE);
    CHECK_EQ(jnq_shutdown(q, 0), JNQ_NAMESPACE);
    CHECK_EQ(jnq_reap(q), JNQ_NAMESPACE);
    CHECK_EQ(jnq_check(q), JNQ_NAMESPACE);
}

static void other_namespaces_are_refused(void)
{
    jnq_queue *q = make_queue(0);
    if (!q->sh->pids || !q->sh->times) {
        drop_queue(q);
        return; /* this system does not tell */
    }
    uint64_t *const words[] = {&q->sh->pids, &q->sh->times};
    for (int i = 0; i < 2; i++) {
        jnq_queue *other;
        ++*words[i];
        CHECK_EQ(jnq_attach(jnq_fileno(q), &other), JNQ_NAMESPACE);
        join_child(start_child(put_from_elsewhere, q));
        CHECK_EQ(jnq_put(q, "x", 1, JNQ_NOW), JNQ_OK); /* who is in is in */
        *words[i] = 0;                                 /* unknown */
        CHECK_EQ(jnq_attach(dup(jnq_fileno(q)), &other), JNQ_OK);
        jnq_detach(other);
    }
    CHECK_EQ(counters(q).deaths, 0);
    drop_queue(q);
}

static void threads_enter_once(void)
{
    for (unsigned round = 0; round < scaled(100); round++) {
        jnq_queue *q = make_queue(0);
        q->fork = 0;
        pthread_t threads[3];
        for (int i = 0; i < 3; i++)
            threads[i] = start_thread(enter_in_thread, q);
        CHECK_OP(counters(q).processes, <=, 2); /* figures may be read while others enter */
        for (int i = 0; i < 3; i++)
            join_thread(threads[i]);
        CHECK_EQ(q->owner, 2); /* 1 is the creator's, who never left it */
        CHECK_EQ(counters(q).processes, 2);
        drop_queue(q);
    }
}

/* --- what people want to know ---------------------------------------------------------------------------------------- */

static jnq_holder holder_of(jnq_queue *q, uint32_t owner)
{
    jnq_holder holder;
    CHECK_EQ(jnq_read_holder(q, owner, &holder), JNQ_OK);
    return holder;
}

static void holders_are_numbered_through(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q), *third = second_handle(q);
    jnq_holder holder;
    jnq_detach(other);
    CHECK_EQ(jnq_read_holder(q, 0, &holder), JNQ_TIMEOUT);
    CHECK_EQ(jnq_read_holder(q, 1, &holder), JNQ_OK);
    CHECK_EQ(holder.pid, getpid());
    CHECK_EQ(holder.dead, 0);
    CHECK_EQ(holder.tasks, 0);
    CHECK_EQ(holder.oldest_ns, 0);
    CHECK_EQ(jnq_read_holder(q, 2, &holder), JNQ_EMPTY);
    CHECK_EQ(jnq_read_holder(q, 3, &holder), JNQ_OK);
    CHECK_EQ(jnq_read_holder(q, 4, &holder), JNQ_TIMEOUT);
    CHECK_EQ(jnq_read_holder(q, UINT32_MAX, &holder), JNQ_TIMEOUT);
    third->me->start--;
    CHECK_EQ(holder_of(q, 3).dead, 1); /* though nobody has looked for the dead */
    third->me->start++;
    jnq_depart(third, 1);
    CHECK_EQ(holder_of(q, 3).exit, EXIT_FAILED);
    jnq_depart(third, 0); /* the first announcement counts */
    CHECK_EQ(holder_of(q, 3).exit, EXIT_FAILED);
    jnq_depart(q, 0);
    CHECK_EQ(holder_of(q, 1).exit, EXIT_CLEAN);
    jnq_detach(third);
    drop_queue(q);
}

static void name_is_that_of_the_next_entry(void)
{
    char longest[2 * JNQ_NAME_BYTES];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    jnq_name_process("first");
    jnq_queue *q = make_queue(0);
    jnq_name_process(longest);
    jnq_queue *other = second_handle(q);
    jnq_name_process("");
    jnq_queue *third = second_handle(q);
    CHECK(!strcmp(holder_of(q, 1).name, "first"));
    CHECK_EQ(strlen(holder_of(q, 2).name), JNQ_NAME_BYTES - 1);
    CHECK(!strncmp(holder_of(q, 2).name, longest, JNQ_NAME_BYTES - 1));
    CHECK(!strcmp(holder_of(q, 3).name, "")); /* nothing of the one before */
    jnq_detach(other);
    jnq_name_process("a");
    other = second_handle(q);
    CHECK(!strcmp(holder_of(q, 2).name, "a"));
    jnq_name_process("");
    jnq_detach(third);
    jnq_detach(other);
    drop_queue(q);
}

static void is_waiting(jnq_queue *q, enum jnq_wait in, uint32_t threads, int64_t since, int64_t before)
{
    jnq_holder holder = holder_of(q, q->owner);
    for (int i = JNQ_IN_GET; i <= JNQ_IN_JOIN; i++)
        CHECK_EQ(holder.waiting[i], i == (int)in ? threads : 0);
    CHECK_OP(holder.waiting_ns[in], >=, threads ? before - since : 0);
    CHECK_OP(holder.waiting_ns[in], <=, threads ? event_now() - since : 0);
}

static void waits_are_counted_and_timed(void)
{
    for (int in = JNQ_IN_GET; in <= JNQ_IN_JOIN; in++) {
        jnq_queue *q = make_queue(0);
        enum jnq_wait wait = (enum jnq_wait)in;
        int64_t now = event_now(), first = now - 10 * SECOND;
        is_waiting(q, wait, 0, 0, now);
        procs_wait(q, wait, first);
        is_waiting(q, wait, 1, first, now);
        procs_wait(q, wait, first + SECOND);
        is_waiting(q, wait, 2, first, now); /* the first of them */
        procs_wait_end(q, wait, first + 2 * SECOND);
        is_waiting(q, wait, 1, first, now);
        procs_wait_end(q, wait, first + 3 * SECOND);
        is_waiting(q, wait, 0, 0, now);
        procs_wait(q, wait, first + 3 * SECOND + MILLISECOND); /* it has only run signal handlers */
        is_waiting(q, wait, 1, first, now);
        procs_wait_end(q, wait, first + 4 * SECOND);
        procs_wait(q, wait, first + 5 * SECOND); /* another wait */
        is_waiting(q, wait, 1, first + 5 * SECOND, now);
        procs_wait_end(q, wait, first + 6 * SECOND);
        procs_call_end(q, wait);
        procs_wait(q, wait, first + 6 * SECOND + 1); /* another call, though it follows at once */
        is_waiting(q, wait, 1, first + 6 * SECOND + 1, now);
        procs_wait_end(q, wait, first + 7 * SECOND);
        drop_queue(q);
    }
}

struct waiter {
    jnq_queue *q;
    int in;
};

static void *wait_once(void *arg)
{
    struct waiter *w = arg;
    uint64_t since = 0;
    jnq_box box;
    int64_t rc;
    do
        rc = w->in == JNQ_IN_GET   ? jnq_get(w->q, &box, JNQ_FOREVER)
             : w->in == JNQ_IN_PUT ? jnq_put(w->q, "", 0, JNQ_FOREVER)
                                   : jnq_join(w->q, &since, JNQ_FOREVER);
    while (rc == JNQ_INTERRUPTED);
    CHECK_OP(rc, >=, JNQ_OK);
    return NULL;
}

static void threads_that_wait_are_seen(void)
{
    for (int in = JNQ_IN_GET; in <= JNQ_IN_JOIN; in++) {
        jnq_queue *q = make_queue(1);
        if (in != JNQ_IN_GET)
            put_item(q, 0, 0);
        struct waiter w = {q, in};
        pthread_t threads[2] = {start_thread(wait_once, &w), start_thread(wait_once, &w)};
        while (holder_of(q, 1).waiting[in] < 2)
            nap(MILLISECOND / 10);
        for (int i = 0; i < 2; i++)
            if (in == JNQ_IN_GET)
                put_item(q, 0, 0);
            else if (in == JNQ_IN_PUT)
                wait_once(&(struct waiter){q, JNQ_IN_GET});
            else if (!i)
                get_item(q, 0, 0);
        for (int i = 0; i < 2; i++)
            join_thread(threads[i]);
        is_waiting(q, (enum jnq_wait)in, 0, 0, 0);
        drop_queue(q);
    }
}

/* join() needs no entry. Another thread of the process may get it one meanwhile. */
static void join_in_a_crowd(void *arg)
{
    struct waiter w = {arg, JNQ_IN_JOIN};
    uint32_t room = w.q->procs_max;
    w.q->procs_max = 1;
    pthread_t thread = start_thread(wait_once, &w);
    uint32_t announced = load_sc(&w.q->sh->zero.announced);
    while (load_sc(&w.q->sh->zero.announced) == announced)
        nap(MILLISECOND / 10);
    CHECK(!procs_entered(w.q));
    store_relaxed(&w.q->procs_max, room);
    get_item(w.q, 0, 0);
    CHECK(procs_entered(w.q));
    join_thread(thread);
    is_waiting(w.q, JNQ_IN_JOIN, 0, 0, 0);
}

static void wait_that_began_without_an_entry_ends_without_it(void)
{
    jnq_queue *q = make_queue(0);
    put_item(q, 0, 0);
    join_child(start_child(join_in_a_crowd, q));
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    drop_queue(q);
}

static void join_once(void *arg) { wait_once(&(struct waiter){arg, JNQ_IN_JOIN}); }

static void joiner_that_has_done_nothing_else_is_seen(void)
{
    jnq_queue *q = make_queue(0);
    put_item(q, 0, 0);
    uint32_t announced = load_sc(&q->sh->zero.announced);
    pid_t child = start_child(join_once, q);
    while (load_sc(&q->sh->zero.announced) == announced) /* it is as good as asleep */
        nap(MILLISECOND / 10);
    CHECK_EQ(holder_of(q, 2).pid, child);
    CHECK_EQ(holder_of(q, 2).waiting[JNQ_IN_JOIN], 1);
    get_item(q, 0, 0);
    join_child(child);
    CHECK_EQ(counters(q).waiting[JNQ_IN_JOIN], 0);
    CHECK_OP(counters(q).wakes, >=, 1);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    CHECK_OP(counters(q).wakes, >=, 1); /* it has left what it counted */
    drop_queue(q);
}

static void wait_and_be_killed(void *arg)
{
    jnq_box box;
    for (;;)
        jnq_get(arg, &box, JNQ_FOREVER);
}

static void who_was_killed_asleep_waits_no_more(void)
{
    jnq_queue *q = make_queue(0);
    pid_t child = start_child(wait_and_be_killed, q);
    while (!counters(q).waiting[JNQ_IN_GET])
        nap(MILLISECOND / 10);
    kill(child, SIGKILL);
    siginfo_t info;
    CHECK(!waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
    CHECK_EQ(counters(q).waiting[JNQ_IN_GET], 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(counters(q).waiting[JNQ_IN_GET], 0);
    CHECK_EQ(jnq_reap(q), JNQ_OK);
    drop_queue(q);
}

static void items_are_counted_for_each_process(void)
{
    for (int on_death = JNQ_IGNORE; on_death <= JNQ_REDELIVER; on_death++) {
        jnq_queue *q = make_mortal_queue(0, on_death, 3), *other = second_handle(q);
        jnq_box boxes[3];
        for (uint64_t i = 0; i < 3; i++)
            put_item(other, 0, i);
        put_item(q, 0, 3);
        for (uint64_t i = 0; i < 3; i++)
            take_item(q, &boxes[i], 0, i);
        CHECK_EQ(jnq_unget(q, &boxes[2]), JNQ_OK);
        CHECK_EQ(holder_of(q, 1).puts, 1);
        CHECK_EQ(holder_of(q, 1).gets, 2);
        CHECK_EQ(holder_of(q, 1).tasks, on_death ? 2 : 0);
        CHECK_EQ(holder_of(q, 2).puts, 3);
        CHECK_EQ(holder_of(q, 2).gets, 0);
        jnq_detach(other);
        other = second_handle(q);
        CHECK_EQ(holder_of(q, 2).puts, 0);
        finish_item(q, &boxes[0]);
        finish_item(q, &boxes[1]);
        jnq_detach(other);
        drop_queue(q);
    }
}

static void activity_is_noted_now_and_then(void)
{
    jnq_queue *q = make_mortal_queue(0, JNQ_IGNORE, 3);
    uint64_t now = (uint64_t)event_coarse_now();
    CHECK_OP(holder_of(q, 1).idle_ns, <=, (uint64_t)event_now() - now + SECOND);
    q->me->active_ns = now - 100 * (uint64_t)SECOND;
    for (uint64_t i = 1; i < SEEN_EVERY; i++)
        put_item(q, 0, i);
    CHECK_OP(holder_of(q, 1).idle_ns, >, 99 * SECOND);
    put_item(q, 0, 0);
    CHECK_OP(holder_of(q, 1).idle_ns, <, 99 * SECOND);
    q->me->active_ns = now - 100 * (uint64_t)SECOND;
    jnq_box box;
    for (uint64_t i = 0; i < SEEN_EVERY; i++) {
        CHECK_OP(jnq_get(q, &box, JNQ_NOW), >=, 0);
        jnq_release(&box);
    }
    CHECK_OP(holder_of(q, 1).idle_ns, <, 99 * SECOND);
    jnq_task_done(q, SEEN_EVERY);
    drop_queue(q);
}

static void age_is_that_of_the_oldest_task(void)
{
    for (int on_death = JNQ_RAISE; on_death <= JNQ_REDELIVER; on_death++) {
        jnq_queue *q = make_mortal_queue(0, on_death, 1);
        enum { TASKS = 20 };
        static jnq_box boxes[TASKS];
        for (uint64_t i = 0; i < TASKS; i++)
            put_item(q, 0, 0);
        int64_t now = event_now();
        for (uint64_t i = 0; i < TASKS; i++) {
            take_item(q, &boxes[i], 0, 0);
            uint64_t *taken_ns = &q->me->taken_ns[i % PROC_TAKEN];
            CHECK_OP(*taken_ns, >, now - SECOND);
            CHECK_OP(*taken_ns, <=, event_now());
            *taken_ns = (uint64_t)(now - (int64_t)(TASKS - i) * SECOND); /* as if they were taken second by second */
        }
        for (uint64_t tasks = TASKS; tasks; tasks--) {
            jnq_holder holder = holder_of(q, 1);
            uint64_t known = tasks < PROC_TAKEN ? tasks : PROC_TAKEN;
            CHECK_EQ(holder.tasks, tasks);
            CHECK_OP(holder.oldest_ns, >=, known * SECOND);
            CHECK_OP(holder.oldest_ns, <, (known + 1) * SECOND);
            finish_item(q, &boxes[TASKS - tasks]);
        }
        CHECK_EQ(holder_of(q, 1).tasks, 0);
        CHECK_EQ(holder_of(q, 1).oldest_ns, 0);
        drop_queue(q);
    }
}

static void entry_forgets_its_last_process(void)
{
    jnq_queue *q = make_queue(0), *other = second_handle(q);
    jnq_box box;
    put_item(q, 0, 0);
    put_item(q, 0, 0);
    take_item(other, &box, 0, 0);
    CHECK_EQ(jnq_task_done(other, 1), JNQ_OK);
    procs_wait(other, JNQ_IN_PUT, event_now());
    jnq_depart(other, 0);
    jnq_detach(other);
    other = second_handle(q);
    CHECK_EQ(other->owner, 2);
    CHECK_EQ(other->me->takes, 0);
    CHECK_EQ(other->me->dones, 0);
    CHECK_EQ(other->me->exit, 0);
    is_waiting(other, JNQ_IN_PUT, 0, 0, 0);
    get_item(q, 0, 0);
    jnq_detach(other);
    drop_queue(q);
}

static void graves_are_no_processes(void)
{
    jnq_queue *q = make_queue(0);
    put_item(q, 0, 0); /* else they would be forgotten by the next to enter */
    lock_procs(q);
    for (uint32_t owner = 2; owner <= GRAVES_MAX + 2; owner++) {
        q->fork = 0;
        CHECK_EQ(procs_enter(q), JNQ_OK);
    }
    for (uint32_t owner = 1; owner <= GRAVES_MAX; owner++) {
        CHECK(procs_bury(q, owner));
        CHECK(procs_is_grave(q, owner));
        CHECK(!procs_known(q, owner));
        CHECK(!procs_dead(q, owner));
        CHECK_EQ(q->sh->procs.graves, owner);
    }
    CHECK(!procs_bury(q, GRAVES_MAX + 1)); /* too many */
    CHECK(procs_known(q, GRAVES_MAX + 1));
    unlock_procs(q);
    CHECK_EQ(counters(q).processes, 2);
    CHECK_EQ(holder_of(q, 1).dead, 1);
    CHECK_EQ(holder_of(q, GRAVES_MAX + 1).dead, 0);
    jnq_queue *next = second_handle(q); /* does not take the place of a grave */
    CHECK_EQ(next->owner, GRAVES_MAX + 3);
    lock_procs(q);
    procs_forget(q);
    procs_remove(q, GRAVES_MAX + 1);
    unlock_procs(q);
    CHECK_EQ(q->sh->procs.graves, 0);
    CHECK(!procs_is_grave(q, 1));
    jnq_holder holder;
    CHECK_EQ(jnq_read_holder(q, 1, &holder), JNQ_EMPTY);
    CHECK_EQ(counters(q).processes, 2);
    jnq_detach(next);
    next = second_handle(q);
    CHECK_EQ(next->owner, 1);
    jnq_detach(next);
    get_item(q, 0, 0);
    drop_queue(q);
}

TESTS("procs", creator_is_entered_and_alive, each_handle_has_its_entry, reused_pid_is_told_apart,
      unknown_start_is_alive, child_of_a_fork_gets_its_own_entry, zombie_is_dead_and_stopped_is_alive,
      process_whose_main_thread_ended_is_alive, name_of_a_process_says_nothing, entries_of_killed_children_are_reused,
      entries_of_a_killed_crowd_are_reused, full_table_is_crowded, other_namespaces_are_refused, threads_enter_once,
      holders_are_numbered_through, name_is_that_of_the_next_entry, waits_are_counted_and_timed,
      threads_that_wait_are_seen, wait_that_began_without_an_entry_ends_without_it,
      joiner_that_has_done_nothing_else_is_seen, who_was_killed_asleep_waits_no_more,
      items_are_counted_for_each_process, activity_is_noted_now_and_then, age_is_that_of_the_oldest_task,
      entry_forgets_its_last_process, graves_are_no_processes)
