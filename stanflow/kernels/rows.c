/*
 * The loop over draws: one call evaluates a whole batch of unconstrained draws of a Stan model
 * across threads. The model is reached only through BridgeStan's C functions, whose addresses
 * the caller passes, so this file needs no header of Python, Stan or BridgeStan.
 *
 * Conventions, for every function below:
 *   - Arrays are row-major and contiguous, and belong to the caller; none is kept after the call.
 *   - Rows are independent: a row that fails is marked and disturbs no other, and no result
 *     depends on the number of threads.
 *   - `status` holds one of `enum row_status` a row; the return value counts the rows that are
 *     not ROW_OK. Error messages are not made (BridgeStan's error pointer is null): the code is
 *     enough to reject a draw, and one call through bridgestan.StanModel explains a row.
 *   - Any number of threads may call at once. The pool serves one call at a time; a call that
 *     finds it taken runs on its own thread alone.
 */
#define _POSIX_C_SOURCE 200809L

#include "bridgestan.h"
#include "rows.h"
#include "threads.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* More signatures of BridgeStan's functions (see bridgestan.h). */
typedef struct bs_model bs_model;
typedef struct bs_rng bs_rng;
typedef int (*param_constrain_fn)(const bs_model*, bool include_tp, bool include_gq,
                                  const double* theta_unc, double* theta, bs_rng*, char** error);
typedef bs_rng* (*rng_construct_fn)(unsigned int seed, char** error);
typedef void (*rng_destruct_fn)(bs_rng*);

enum row_status {
  ROW_OK = 0,
  ROW_THREW = 1,
  ROW_DENSITY_NOT_FINITE = 2,
  ROW_GRADIENT_NOT_FINITE = 3,
};

/* ---- Rows, shared among threads --------------------------------------------------------------
 * Threads are kept between calls: a thread's first gradient allocates Stan's autodiff arena, which
 * costs more than a small batch. */

typedef struct job {
  void (*run_row)(const void* arguments, size_t row);
  const void* arguments;
  size_t n_rows;
  size_t chunk;
  atomic_size_t next_row;
} job;

static void run_rows(void* data) {
  job* j = data;
  for (;;) {
    const size_t first = atomic_fetch_add_explicit(&j->next_row, j->chunk, memory_order_relaxed);
    if (first >= j->n_rows) return;
    const size_t last = first + j->chunk < j->n_rows ? first + j->chunk : j->n_rows;
    for (size_t row = first; row < last; ++row) j->run_row(j->arguments, row);
  }
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Waking a thread costs some tens of microseconds: less work than this is done alone. */
static const double WORTH_WAKING_SECONDS = 200e-6;

/* Threads take rows in chunks of about this much work: long beside taking one, short beside the
 * wait for the last. */
static const double CHUNK_SECONDS = 20e-6;

/* Runs the first rows on the calling thread, until it is known what a row costs; returns how many
 * rows were run and sets the seconds that one takes. */
static size_t run_first_rows(const job* j, double* seconds_per_row) {
  size_t done = 0;
  for (size_t block = 1; done < j->n_rows; block *= 2) {
    const size_t last = done + block < j->n_rows ? done + block : j->n_rows;
    const double start = seconds_now();
    for (size_t row = done; row < last; ++row) j->run_row(j->arguments, row);
    const double elapsed = seconds_now() - start;
    *seconds_per_row = elapsed / (double)(last - done);
    done = last;
    if (elapsed > 10e-6) break;
  }
  return done;
}

void stanflow_for_each_row(void (*run_row)(const void*, size_t), const void* arguments,
                           size_t n_rows, int n_threads) {
  job j = {.run_row = run_row, .arguments = arguments, .n_rows = n_rows, .chunk = 1};
  double seconds_per_row = 0;
  const size_t done = n_threads > 1 ? run_first_rows(&j, &seconds_per_row) : 0;
  atomic_init(&j.next_row, done);
  if (n_threads == 1 || seconds_per_row * (double)(n_rows - done) < WORTH_WAKING_SECONDS) {
    j.chunk = n_rows > 0 ? n_rows : 1;
    run_rows(&j);
    return;
  }
  const double rows_per_chunk = CHUNK_SECONDS / seconds_per_row;
  j.chunk = rows_per_chunk > 1 ? (size_t)rows_per_chunk : 1;
  stanflow_with_help(run_rows, &j, n_threads);
}

static size_t count_failures(const uint8_t* status, size_t n_rows) {
  size_t failures = 0;
  for (size_t row = 0; row < n_rows; ++row) failures += status[row] != ROW_OK;
  return failures;
}

/* ---- Log density, with its gradient or without ------------------------------------------------------------- */

typedef struct gradient_arguments {
  log_density_gradient_fn log_density_gradient;
  const bs_model* model;
  bool propto;
  bool jacobian;
  size_t dim;
  const double* z;
  double* log_density;
  double* gradient;
  uint8_t* status;
} gradient_arguments;

static void gradient_row(const void* arguments, size_t row) {
  const gradient_arguments* a = arguments;
  double* gradient = a->gradient + row * a->dim;
  const int rc = a->log_density_gradient(a->model, a->propto, a->jacobian, a->z + row * a->dim,
                                         &a->log_density[row], gradient, NULL);
  if (rc != 0) {
    a->log_density[row] = NAN;
    for (size_t i = 0; i < a->dim; ++i) gradient[i] = NAN;
    a->status[row] = ROW_THREW;
  } else if (!isfinite(a->log_density[row])) {
    a->status[row] = ROW_DENSITY_NOT_FINITE;
  } else {
    a->status[row] = all_finite(gradient, a->dim) ? ROW_OK : ROW_GRADIENT_NOT_FINITE;
  }
}

/*
 * Log densities and gradients of a batch.
 *
 * log_density_gradient  address of bs_log_density_gradient of the library that holds `model`
 * model                 the model; it must be safe to use from n_threads threads at once
 * propto, jacobian      as in bridgestan.h
 * n_rows, dim           B draws of D unconstrained parameters
 * z                     in,  (B, D)
 * log_density           out, (B); NaN where the row threw
 * gradient              out, (B, D); NaN where the row threw
 * status                out, (B)
 * n_threads             1 runs on the calling thread alone
 */
PUBLIC size_t stanflow_log_density_gradient(log_density_gradient_fn log_density_gradient,
                                            const bs_model* model, bool propto, bool jacobian,
                                            size_t n_rows, size_t dim, const double* z,
                                            double* log_density, double* gradient, uint8_t* status,
                                            int n_threads) {
  const gradient_arguments arguments = {log_density_gradient, model, propto, jacobian, dim, z,
                                        log_density, gradient, status};
  stanflow_for_each_row(gradient_row, &arguments, n_rows, n_threads);
  return count_failures(status, n_rows);
}

typedef struct density_arguments {
  log_density_fn log_density_of;
  const bs_model* model;
  bool propto;
  bool jacobian;
  size_t dim;
  const double* z;
  double* log_density;
} density_arguments;

static void density_row(const void* arguments, size_t row) {
  const density_arguments* a = arguments;
  double* log_density = a->log_density + row;
  const int rc = a->log_density_of(a->model, a->propto, a->jacobian, a->z + row * a->dim,
                                   log_density, NULL);
  if (rc != 0) *log_density = NAN;
}

/*
 * Log densities of a batch.
 *
 * log_density_of        address of bs_log_density of the library that holds `model`
 * model, propto, jacobian, n_rows, dim, z, log_density, n_threads
 *                       as above
 */
PUBLIC void stanflow_log_density(log_density_fn log_density_of, const bs_model* model, bool propto,
                                 bool jacobian, size_t n_rows, size_t dim, const double* z,
                                 double* log_density, int n_threads) {
  const density_arguments arguments = {log_density_of, model, propto, jacobian,
                                       dim, z, log_density};
  stanflow_for_each_row(density_row, &arguments, n_rows, n_threads);
}

/* ---- Constraining ------------------------------------------------------------------------- */

typedef struct constrain_arguments {
  param_constrain_fn param_constrain;
  rng_construct_fn rng_construct;
  rng_destruct_fn rng_destruct;
  const bs_model* model;
  bool include_tp;
  bool include_gq;
  size_t dim;
  size_t n_values;
  const double* z;
  const uint32_t* seeds;
  double* values;
  uint8_t* status;
} constrain_arguments;

static void constrain_row(const void* arguments, size_t row) {
  const constrain_arguments* a = arguments;
  double* values = a->values + row * a->n_values;
  bs_rng* rng = a->include_gq ? a->rng_construct(a->seeds[row], NULL) : NULL;
  const bool ready = rng != NULL || !a->include_gq;
  const int rc = ready ? a->param_constrain(a->model, a->include_tp, a->include_gq,
                                            a->z + row * a->dim, values, rng, NULL)
                       : -1;
  if (rng != NULL) a->rng_destruct(rng);
  if (rc != 0)
    for (size_t i = 0; i < a->n_values; ++i) values[i] = NAN;
  a->status[row] = rc == 0 ? ROW_OK : ROW_THREW;
}

/*
 * Constrained parameters of a batch, with transformed parameters and generated quantities.
 *
 * param_constrain, rng_construct, rng_destruct
 *                       addresses of the functions bs_param_constrain, bs_rng_construct and
 *                       bs_rng_destruct of the library that holds `model`
 * model                 as above
 * include_tp, include_gq  as in bridgestan.h
 * n_rows, dim, n_values B draws of D unconstrained parameters, each giving n_values numbers
 * z                     in,  (B, D)
 * seeds                 in,  (B): each row has a generator of its own; unused, and may be null,
 *                       without generated quantities
 * values                out, (B, n_values); NaN where the row threw
 * status                out, (B): ROW_OK or ROW_THREW
 * n_threads             1 runs on the calling thread alone
 */
PUBLIC size_t stanflow_constrain(param_constrain_fn param_constrain, rng_construct_fn rng_construct,
                                 rng_destruct_fn rng_destruct, const bs_model* model,
                                 bool include_tp, bool include_gq, size_t n_rows, size_t dim,
                                 size_t n_values, const double* z, const uint32_t* seeds,
                                 double* values, uint8_t* status, int n_threads) {
  const constrain_arguments arguments = {param_constrain, rng_construct, rng_destruct, model,
                                         include_tp, include_gq, dim, n_values,
                                         z, seeds, values, status};
  stanflow_for_each_row(constrain_row, &arguments, n_rows, n_threads);
  return count_failures(status, n_rows);
}

/* A print callback (see bs_set_print_callback) that discards what the program prints. */
PUBLIC void stanflow_discard_output(const char* text, size_t size) {
  (void)text;
  (void)size;
}
