/* Threads that help with work that comes in parts; one pool for all of this library.
 *
 * OpenMP's would have to be waited for even where they come too late: beside other work on the cores,
 * a step of 5 ms then takes 30. The caller takes parts itself from the start, and waits only for
 * helpers that have taken one. Helpers without work sleep.
 *
 * Where torch's large matrix products take turns with the passes here, torch's OpenMP threads are on
 * the cores already, and to wake others each time would take a fifth of the time: they can be
 * shared. */
#pragma once

#include <stdint.h>

/* Run work(data), which takes parts until none is left, on up to so many threads. One call at a time
 * has help; what others call meanwhile runs on their own threads alone. */
void stanflow_with_help(void (*work)(void *), void *data, int64_t threads);

/* GOMP_parallel of an OpenMP runtime: function, data, threads, flags. */
typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);

/* Let the threads of an OpenMP runtime help from now on; those here where parallel is NULL. */
void stanflow_share_threads(parallel_fn parallel);
