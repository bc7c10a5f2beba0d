/* The passes of layers.c in both precisions, for one generation of processors: PROCESSOR(x) with
 * its suffix, VECTOR_BYTES the size of its vectors. */

#define REAL float
#define REAL_BYTES 4
#define INTEGER int32_t
#define NAME(name) PROCESSOR(name##_f32)
#include "coupling_passes.h"
#undef REAL
#undef REAL_BYTES
#undef INTEGER
#undef NAME

#define REAL double
#define REAL_BYTES 8
#define INTEGER int64_t
#define NAME(name) PROCESSOR(name##_f64)
#include "coupling_passes.h"
#undef REAL
#undef REAL_BYTES
#undef INTEGER
#undef NAME
