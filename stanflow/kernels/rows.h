/* What the loops over rows have in common. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#if defined(_WIN32)
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

static inline bool all_finite(const double* x, size_t n) {
  /* 0 * x is NaN for any x that is not finite, so the sum tells without a branch a number. */
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += 0 * x[i];
  return sum == 0;
}

/* Rows are shared among threads, as many as their cost is worth. */
void stanflow_for_each_row(void (*run_row)(const void *arguments, size_t row),
                           const void *arguments, size_t n_rows, int n_threads);
