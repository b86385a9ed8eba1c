/* event_door: what a door must provide beyond event_init() and event_sleep(). Included by event*.c only. */
#ifndef JNQ_EVENT_DOOR_H
#define JNQ_EVENT_DOOR_H

#include <stdbool.h>

#include "event.h"

/* Wakes up to n sleepers whose seq is old. Returns false if it is certain that nobody slept. */
bool door_wake(struct jnq_event *ev, uint64_t n);

/* Wakes every sleeper whose seq is old. */
void door_wake_all(struct jnq_event *ev);

#endif
