/* event: what both doors have in common. */
#define _GNU_SOURCE
#include "event.h"

#include <time.h>

#include "atomics.h"
#include "event_door.h"

int64_t event_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t event_coarse_now(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#else
    return event_now();
#endif
}

uint64_t event_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void event_pause(int64_t ns)
{
    struct timespec span = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&span, NULL);
}

uint32_t event_prepare(struct jnq_event *ev)
{
    uint32_t e = load_sc(&ev->seq); /* before the announcement: whoever answers that has moved seq */
    add_sc(&ev->announced, 2);
    return e;
}

void event_deepen(struct jnq_event *ev) { set_bits_sc(&ev->announced, EVENT_DEEP); }

bool event_is_deep(struct jnq_event *ev) { return load_sc(&ev->announced) & EVENT_DEEP; }

void event_alert(struct jnq_event *ev)
{
    if (!event_is_deep(ev))
        return;
    clear_bits_sc(&ev->announced, EVENT_DEEP);
    add_sc(&ev->seq, 1);
    door_wake_all(ev);
}

/* Apart, so that what every put and get does stays small. */
__attribute__((noinline)) static void answer(struct jnq_event *ev, uint32_t announced, uint64_t n)
{
    add_sc(&ev->seq, 1);
    if (!door_wake(ev, n))
        store_sc(&ev->answered, announced);
}

bool event_notify(struct jnq_event *ev, uint64_t n)
{
    uint32_t announced = load_sc(&ev->announced);
    if (announced == load_sc(&ev->answered))
        return false;
    answer(ev, announced, n);
    return true;
}

void event_notify_all(struct jnq_event *ev)
{
    if (load_sc(&ev->announced) == load_sc(&ev->answered))
        return;
    add_sc(&ev->seq, 1);
    door_wake_all(ev);
}
