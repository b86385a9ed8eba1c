/* procs: an entry lives as long as its process, however that ends, and no entry is lost. */
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

TESTS("procs", creator_is_entered_and_alive, each_handle_has_its_entry, reused_pid_is_told_apart,
      unknown_start_is_alive, child_of_a_fork_gets_its_own_entry, zombie_is_dead_and_stopped_is_alive,
      process_whose_main_thread_ended_is_alive, name_of_a_process_says_nothing, entries_of_killed_children_are_reused,
      entries_of_a_killed_crowd_are_reused, full_table_is_crowded, other_namespaces_are_refused, threads_enter_once)
