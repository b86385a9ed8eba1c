/* callgrind_marks: what a program that callgrind runs tells it: from here, to here. Elsewhere they do nothing. */
#include <valgrind/callgrind.h>

/* Counting begins anew. */
void marks_begin(void);

/* What was counted since marks_begin() goes to a file of its own, under this name. */
void marks_end(const char *name);

void marks_begin(void)
{
    CALLGRIND_START_INSTRUMENTATION; /* the first time: whoever starts with --instr-atstart=no starts quickly */
    CALLGRIND_ZERO_STATS;
}

void marks_end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
