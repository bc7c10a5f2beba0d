/* Rows shared among threads, as many as their cost is worth. */
#pragma once

#include <stddef.h>

void stanflow_for_each_row(void (*run_row)(const void *arguments, size_t row),
                           const void *arguments, size_t n_rows, int n_threads);
