/*
 * The density of a program in which some coordinates are multiples of scales that others set
 * (stanflow/flow/noncentering.py), for the loops that call BridgeStan's functions themselves: these
 * have the same signatures, and a `struct noncentered` in the model's place.
 */
#include "bridgestan.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct noncentered {
  log_density_gradient_fn log_density_gradient;
  log_density_fn log_density;
  const void* model;
  int64_t dim;
  int64_t rows;                   /* coordinates that are moved */
  int64_t columns;                /* parents of each */
  const int64_t* moved;           /* [rows], parents before those that they are parents of */
  const int64_t* parents;         /* [rows][columns] */
  const double* scale_weights;    /* [rows][columns] */
  const double* location_weights; /* [rows][columns] */
  const double* log_scale;        /* [rows] */
  const double* location;         /* [rows] */
};

/* Turn u, in place, into z; keep the scales, [rows], and return the log-determinant. */
static double place(const struct noncentered* self, double* z, double* scale) {
  double log_det = 0;
  for (int64_t row = 0; row < self->rows; ++row) {
    double log_scale = self->log_scale[row], location = self->location[row];
    for (int64_t k = row * self->columns; k < (row + 1) * self->columns; ++k) {
      log_scale += self->scale_weights[k] * z[self->parents[k]];
      location += self->location_weights[k] * z[self->parents[k]];
    }
    scale[row] = exp(log_scale);
    z[self->moved[row]] = location + scale[row] * z[self->moved[row]];
    log_det += log_scale;
  }
  return log_det;
}

static void pull_back(const struct noncentered* self, const double* u, const double* scale,
                      double* gradient) {
  for (int64_t row = self->rows - 1; row >= 0; --row) {
    const double of_location = gradient[self->moved[row]];
    const double of_u = of_location * scale[row];
    const double of_log_scale = of_u * u[self->moved[row]] + 1;
    gradient[self->moved[row]] = of_u;
    for (int64_t k = row * self->columns; k < (row + 1) * self->columns; ++k)
      gradient[self->parents[k]] +=
          self->location_weights[k] * of_location + self->scale_weights[k] * of_log_scale;
  }
}

static int evaluate(const struct noncentered* self, bool propto, bool jacobian, const double* u,
                    double* value, double* gradient, char** error) {
  const size_t dim = (size_t)self->dim;
  double* z = malloc((dim + (size_t)self->rows) * sizeof *z);
  if (z == NULL) return 1;
  double* scale = z + dim;
  memcpy(z, u, dim * sizeof *z);
  const double log_det = place(self, z, scale);
  const int failed =
      gradient != NULL
          ? self->log_density_gradient(self->model, propto, jacobian, z, value, gradient, error)
          : self->log_density(self->model, propto, jacobian, z, value, error);
  if (!failed) {
    *value += log_det;
    if (gradient != NULL) pull_back(self, u, scale, gradient);
  }
  free(z);
  return failed;
}

int stanflow_noncentered_log_density_gradient(const void* self, bool propto, bool jacobian,
                                              const double* u, double* value, double* gradient,
                                              char** error) {
  return evaluate(self, propto, jacobian, u, value, gradient, error);
}

int stanflow_noncentered_log_density(const void* self, bool propto, bool jacobian, const double* u,
                                     double* value, char** error) {
  return evaluate(self, propto, jacobian, u, value, NULL, error);
}
