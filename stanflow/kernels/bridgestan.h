/* Signatures of BridgeStan's functions that the loops call, from its own bridgestan.h (version 2),
 * so that no header of Python, Stan or BridgeStan is needed. */
#pragma once

#include <stdbool.h>

typedef int (*log_density_gradient_fn)(const void* model, bool propto, bool jacobian,
                                       const double* theta_unc, double* value, double* gradient,
                                       char** error);
typedef int (*log_density_fn)(const void* model, bool propto, bool jacobian,
                              const double* theta_unc, double* value, char** error);
