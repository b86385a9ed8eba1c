/* killer: ends any live process between any two of its steps, DEATHS times at the most; see kernel.pml. To be included
 * behind all shared variables. */
#ifndef SPARED
#define SPARED 0
#endif

inline kill(v)
{
    deaths_left--;
    live[v] = false;
    if
    :: asleep[v] -> asleep[v] = 0
    :: else -> awake--
    fi;
#if LOCKS
    l = 0;
    do
    :: l < LOCKS ->
        if
        :: owner[l] == v -> owner[l] = 0; orphan[l] = true
        :: else
        fi;
        l++
    :: else -> break
    od;
    l = 0;
#endif
    FORGET_LOCALS(v);
    ON_DEATH(v)
}

#define KILL(v) :: d_step { deaths_left > 0 && live[v] && v != SPARED -> kill(v) }

proctype killer()
{
    byte l;
end_killer:
    do
    KILL(1)
    KILL(2)
    KILL(3)
    KILL(4)
    KILL(5)
#if PROCESSES > 6
    KILL(6)
    KILL(7)
#endif
    od
}
