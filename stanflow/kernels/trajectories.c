/*
 * Hamiltonian trajectories of many points of a Stan model's density, each from its start to its end
 * by one thread: between two gradients there is nothing to wait for. As in rows.c, the model is
 * reached only through BridgeStan's functions, and rows are independent.
 */
#include "bridgestan.h"
#include "rows.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Mirrored by `_Trajectories` in stanflow/sampling/trajectories.py. */
struct trajectories {
  log_density_gradient_fn log_density_gradient;
  const void* model;
  int64_t rows, dim;
  int64_t steps;       /* leapfrog steps of each, at least 1 */
  int64_t threads;
  const double* scale; /* [dim]: the unit of each coordinate, of unit mass; 0 holds it */
  const double* step;  /* [rows]: their size */
  double* z;           /* in, out [rows][dim] */
  double* momentum;    /* in, out [rows][dim] */
  double* gradient;    /* in, out [rows][dim] */
  double* log_density; /* out [rows] */
  bool* accepted;      /* out [rows]: whether all densities and gradients on the way were finite */
  int64_t* evaluated;  /* out [rows]: how many these were */
};

static void kick(const struct trajectories* t, double step, const double* gradient,
                 double* momentum) {
  for (int64_t i = 0; i < t->dim; ++i) momentum[i] += 0.5 * step * (gradient[i] * t->scale[i]);
}

static void run_row(const void* data, size_t row) {
  const struct trajectories* t = data;
  const double step = t->step[row];
  double* z = t->z + row * (size_t)t->dim;
  double* momentum = t->momentum + row * (size_t)t->dim;
  double* gradient = t->gradient + row * (size_t)t->dim;
  double* log_density = t->log_density + row;
  bool ok = true;
  int64_t done = 0;
  for (; done < t->steps && ok; ++done) {
    kick(t, step, gradient, momentum);
    for (int64_t i = 0; i < t->dim; ++i) z[i] += t->scale[i] * (step * momentum[i]);
    ok = all_finite(z, (size_t)t->dim)
         && t->log_density_gradient(t->model, true, true, z, log_density, gradient, NULL) == 0
         && isfinite(*log_density) && all_finite(gradient, (size_t)t->dim);
    if (ok) kick(t, step, gradient, momentum);
  }
  t->accepted[row] = ok;
  t->evaluated[row] = done;
}

PUBLIC void stanflow_trajectories(const struct trajectories* t) {
  stanflow_for_each_row(run_row, t, (size_t)t->rows, (int)t->threads);
}
