/* instructions_core: operations of the C core alone, for instructions.py: `instructions_core N`.
 *
 * It marks ("name 0 count") how often each was done. The core is a library of its own, so that callgrind tells its
 * instructions from those of this program; it is called in the part "operations", and nowhere else. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "jnq.h"

void marks_begin(void);
void marks_end(const char *name);

static jnq_queue *queue;
static jnq_box box;
static const char payload[20] = "twenty bytes of it.";

/* --- operations ------------------------------------------------------------------------------------------------ */

static int64_t put_integer(void) { return jnq_put_integer(queue, 1000, JNQ_FOREVER); }

static int64_t put_bytes(void) { return jnq_put(queue, payload, sizeof payload, JNQ_FOREVER); }

static int64_t get(void) { return jnq_get(queue, &box, JNQ_FOREVER); }

static int64_t task_done(void) { return jnq_task_done(queue, 1); }

static const struct {
    const char *name;
    int64_t (*operate)(void);
    int64_t answer;
} operations[] = {
    {"core put int", put_integer, JNQ_OK},
    {"core get int", get, sizeof(int64_t)},
    {"core task_done int", task_done, JNQ_OK},
    {"core put 20 bytes", put_bytes, JNQ_OK},
    {"core get 20 bytes", get, sizeof payload},
    {"core task_done 20 bytes", task_done, JNQ_OK},
};
#define OPERATIONS (sizeof operations / sizeof *operations)
#define TURN 3 /* put, get and task_done follow each other, so that the queue is empty again */

static void make_queue(void)
{
    int fd = memfd_create("instructions", MFD_CLOEXEC);
    if (fd < 0 || jnq_create(fd, 0, JNQ_RAISE, 3, &queue) != JNQ_OK) {
        fprintf(stderr, "no queue\n");
        exit(1);
    }
}

/* --- what is done with them -------------------------------------------------------------------------------------- */

static void repeat(size_t operation, unsigned long n)
{
    for (unsigned long i = 0; i < n; i++)
        if (operations[operation].operate() != operations[operation].answer) {
            fprintf(stderr, "%s fails\n", operations[operation].name);
            exit(1);
        }
}

int main(int argc, char **argv)
{
    unsigned long n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    if (!n)
        return 2;
    make_queue();
    static const unsigned long times[] = {1, 1, 2}; /* the first warms up, and its figure is replaced */
    for (size_t first = 0; first < OPERATIONS; first += TURN)
        for (size_t t = 0; t < sizeof times / sizeof *times; t++)
            for (size_t i = first; i < first + TURN; i++) {
                char name[100];
                snprintf(name, sizeof name, "%s 0 %lu", operations[i].name, times[t] * n);
                marks_begin();
                repeat(i, times[t] * n);
                marks_end(name);
            }
    jnq_detach(queue);
    return 0;
}
