#define _GNU_SOURCE
#include "watch.h"

#include <signal.h>

#include "procs.h"
#include "ready.h"
#include "recover.h"

static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;
static struct jnq_queue *watched; /* a list */
static bool watching;             /* the thread is there */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void before_fork(void) { pthread_mutex_lock(&watch_lock); }

static void in_parent(void) { pthread_mutex_unlock(&watch_lock); }

static void in_child(void)
{
    watching = false;
    pthread_mutex_unlock(&watch_lock);
}

static void handle_forks(void) { pthread_atfork(before_fork, in_parent, in_child); }

static void *watch(void *unused)
{
    (void)unused;
    for (bool more = true; more;) {
        event_pause(EVENT_SLICE_NS);
        pthread_mutex_lock(&watch_lock);
        for (struct jnq_queue *q = watched; q; q = q->next_watched) {
            recover_tick(q, event_now());
            ready_look(q);
        }
        more = watching = watched;
        pthread_mutex_unlock(&watch_lock);
    }
    return NULL;
}

/* Signals are for the program's threads. */
static int begin_thread(void)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return rc;
#ifdef __linux__
    pthread_setname_np(thread, "joinq");
#endif
    pthread_detach(thread);
    return 0;
}

int watch_begin(struct jnq_queue *q)
{
    int rc = 0;
    pthread_once(&once, handle_forks);
    pthread_mutex_lock(&watch_lock);
    if (!watching)
        rc = begin_thread();
    watching = !rc;
    if (!rc && !q->watched) {
        q->watched = true;
        q->next_watched = watched;
        watched = q;
    }
    pthread_mutex_unlock(&watch_lock);
    return rc;
}

void watch_end(struct jnq_queue *q)
{
    if (!q->watched)
        return;
    pthread_mutex_lock(&watch_lock);
    struct jnq_queue **link = &watched;
    while (*link != q)
        link = &(*link)->next_watched;
    *link = q->next_watched;
    pthread_mutex_unlock(&watch_lock);
}
