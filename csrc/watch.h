/* watch: the thread that looks after the pipes of ready.h in a process that has asked for one, and for dead processes
 * meanwhile: those who sleep in poll(2) do neither.
 *
 * It holds none of the shared locks while it sleeps, gets no signals, and ends with the last handle that is watched.
 *
 * Fork: watch_lock is held over it, so the list is whole in the child, where there is no thread until somebody asks. */
#ifndef JNQ_WATCH_H
#define JNQ_WATCH_H

#include "layout.h"

/* Looks after this handle from now on. Returns JNQ_OK, or an errno if there cannot be a thread. */
int watch_begin(struct jnq_queue *q);

/* Before the handle is closed. */
void watch_end(struct jnq_queue *q);

#endif
