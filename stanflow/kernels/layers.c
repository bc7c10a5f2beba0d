/* The passes of affine coupling and sinh-arcsinh layers, fused, and of runs of them, for float and
 * double.
 *
 * Matrices are row-major with one coordinate (or hidden unit) a row and one draw a column: a
 * moved coordinate and its partners are then whole rows, and a layer's parameters are scalars that
 * meet contiguous numbers. The moved coordinates are split into parts, which threads take one by
 * one; what parts add up between them is added in their order, so that no result depends on which
 * thread took which.
 *
 * Arithmetic is written with the compiler's vector extensions (gcc, clang). With gcc on x86-64 the
 * passes are compiled for three generations of processors, and the processor at hand chooses.
 * Formulas: see coupling.py. Nothing here allocates, and nothing is kept between calls.
 */

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bridgestan.h"
#include "rows.h"
#include "threads.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEVERAL_PROCESSORS 1
#else
#define SEVERAL_PROCESSORS 0
#endif
#define INLINE static inline __attribute__((always_inline))

/* Columns worked on at a time, and partners: what the stack of a thread holds. config.py keeps to
 * the latter. */
enum { MOST_COLUMNS = 128, MOST_PARTNERS = 16 };

enum clamp { SOFT_CLAMP, TANH_CLAMP, NO_CLAMP };

/* One layer with its buffers. Rows are those of a (D, B) matrix of points; n is the number of
 * moved coordinates, K of partners, M of features a partner. All memory belongs to the caller.
 * REAL is float or double, by the suffix of the function called. */
struct coupling {
    int64_t moved;               /* n */
    int64_t n_kept;              /* D - n */
    int64_t batch;               /* B */
    int64_t parts;               /* of the moved coordinates; so many threads are asked for */
    const int64_t *rows;         /* (n,): where the moved coordinates are */

    int64_t clamp;               /* enum clamp */
    double positive, negative;   /* its thresholds */

    void *output;                /* (2, n, B): the network's raw scale u and shift t, biases left
                                    out; afterwards, but for restore, the cotangents of u and t */
    const void *bias;            /* (2, n) */
    void *bias_gradient;         /* (2, n) */
    void *scale;                 /* (n, B): exp(s) */
    void *gain;                  /* (n, B): b exp(s) ds/du */
    void *slope;                 /* (n, B): ds/du; NULL where only path gradients are wanted */
    void *log_det;               /* (parts, B): each part's share of the log-determinants */
    void *largest;               /* (parts,): each part's largest |y| */

    int64_t partners;            /* K; with 0 the rest is not looked at */
    int64_t features;            /* M */
    const void *kept;            /* (D - n, B): the kept coordinates' values */
    const int64_t *kept_rows;    /* (D - n,): where they are */
    const int64_t *partner;      /* (n, K): a partner's row of kept, -1 for none */
    const void *linear;          /* (2, n, K): w of u and of t */
    const void *weight;          /* (2, n, K, M): v of u and of t */
    const void *inner;           /* (2, n, K, M): slope g and offset h of each feature */
    void *linear_gradient, *weight_gradient, *inner_gradient;
    void *back;                  /* (parts, D - n, B): what each part adds to the kept rows */
};

/* The two networks of a layer, of u and of t, with one hidden layer of H units each. */
struct network {
    int64_t n_kept, n_moved;     /* inputs, and outputs of each network */
    int64_t hidden_units;        /* H */
    int64_t batch;               /* B */
    void *kept;                  /* (n_kept, B): the inputs of the last push */
    const int64_t *kept_rows;    /* (n_kept,): where they are in a (D, B) matrix of points */
    const void *input_weight;    /* (2, H, n_kept) */
    const void *input_bias;      /* (2, H) */
    const void *output_weight;   /* (2, n_moved, H) */
    void *hidden;                /* (2, H, B): the units' values */
    void *output;                /* (2, n_moved, B): u and t without biases, or their cotangents */
    void *hidden_cotangent;      /* (2, H, B) */
    double sign;                 /* pull adds so many times the inputs' cotangents to their rows */
    void *input_weight_gradient; /* NULL where no gradients are wanted */
    void *input_bias_gradient, *output_weight_gradient;
};

/* Hidden units between matrix products done elsewhere. */
struct activation {
    int64_t units, batch;        /* of both networks; B */
    int64_t parts;               /* of the units; so many threads are asked for */
    void *hidden;                /* (units, B): before relu, and after */
    void *cotangent;             /* (units, B): after relu, and before */
    const void *bias;            /* (units,) */
    void *bias_gradient;         /* NULL where no gradients are wanted */
};

/* A sinh-arcsinh layer; parameters and their gradients are (D,). */
struct sinh_arcsinh {
    int64_t dim, batch;          /* D, B */
    int64_t clamp;               /* enum clamp, of log delta */
    double positive, negative;   /* its thresholds */
    const void *location, *log_scale, *skewness, *raw_tail;
    void *location_gradient, *log_scale_gradient, *skewness_gradient, *raw_tail_gradient;
    void *x;                     /* (D, B): the inputs of the last push */
    void *log_det;               /* (B,) */
};

/* LOFT. */
struct loft {
    int64_t dim, batch;          /* D, B */
    double tau;
    void *inverse_slope;         /* (D, B): 1 / g'(x) of the last push, with the sign of x */
};

/* The affine layer; parameters and their gradients are (D,). */
struct shift_scale {
    int64_t dim, batch;          /* D, B */
    const void *log_scale, *shift;
    void *log_scale_gradient, *shift_gradient;
    void *x;                     /* (D, B): the inputs of the last push */
};

/* A layer of a chain, one of these: a coupling and its network, without gradients and with; a
 * sinh-arcsinh layer; LOFT; an affine layer. */
struct link {
    const struct coupling *coupling;
    const struct network *forward, *backward;
    const struct sinh_arcsinh *bend;
    const struct loft *loft;
    const struct shift_scale *affine;
};

/* Some columns of a chain's points. */
struct chain_part {
    int64_t first, columns;
    const struct link *links;    /* (layers,), with buffers for so many columns */
    void *points, *score;        /* (D, columns): room; score is NULL where none is carried */
};

/* A run of small layers. */
struct chain {
    int64_t dim, batch;          /* D, B */
    int64_t layers;
    int64_t parts;               /* of the columns */
    int64_t threads;             /* that may take them */
    const struct chain_part *part;
};

/* A coordinate of the base: Student-t with nu degrees of freedom, or normal where nu is 0. */
struct student_t {
    double nu, root;             /* nu and its square root */
    double constant;             /* log density at 0 */
};

/* Some columns of a step's draws. */
struct step_part {
    const struct chain_part *chain;
    void *noise, *base;          /* (D, columns): 2 r / nu (see base.py), and base points */
    double *log_q;               /* (columns,) */
    void *largest;               /* (1,): the base's largest |e| */
    void *base_gradient;         /* (D,): that of log_degrees_minus_one; NULL for a normal base */
};

/* A step of a flow that is one chain, towards the path gradient of -ELBO. */
struct step {
    int64_t dim, batch, layers;  /* D, B */
    int64_t parts, threads;      /* of the columns; that may take them, and rows */
    const struct step_part *part;
    const void *log_degrees_minus_one; /* (D,): of the base; NULL for a normal one */
    struct student_t *base;      /* (D,): room, and for a normal base what it is */
    int64_t tails;               /* draws that are spread out, the first ones */
    double longest;              /* a draw's derivative is shortened to it */

    log_density_gradient_fn log_density_gradient;
    log_density_fn log_density;
    const void *model;           /* safe to use from so many threads at once */
    const double *location, *scale; /* (D,): the model's z is location + scale * (F u) */
    const double *factor;        /* (D, D): F, lower-triangular; NULL for the identity */
    double log_det;              /* of du to dz */

    double *rows;                /* (B, 3 D): room */
    double *log_ratio;           /* (B,): log p - log q */
    uint8_t *accepted;           /* (B,): whether that and the gradient are finite */
    double *centre, *spread;     /* (D,): room */
    int64_t parameters;          /* P */
    void *const *gradients;      /* (parts,), of (P,) each: the first gets the sum */
};

/* Adam on P parameters; see optimizers.py. */
struct adam {
    int64_t parameters;          /* P */
    void *parameter, *gradient, *mean, *mean_square; /* (P,) */
    double beta1, beta2, epsilon;
    double longest;              /* longer gradients are shortened to it */
};

/* As in base.py and gradients.py. */
#define MOST_SPREAD 3.0
#define LEAST_EXPONENTIAL 1e-20f
#define FORCE_BACK 2.0
enum { FEWEST_TO_DRAW_BACK_TO = 8 };

static struct student_t student_t_of(double nu)
{
    const double half = nu / 2, pi = 3.14159265358979323846;
    return (struct student_t){nu, sqrt(nu),
                              lgamma(half + 0.5) - lgamma(half) - 0.5 * log(2 * pi * half)};
}

/* A number in [0, 1) that follows from a key and an index: SplitMix64 (Steele, Lea and Flood 2014,
 * "Fast splittable pseudorandom number generators", OOPSLA) by its counter. */
INLINE double uniform(uint64_t key, uint64_t index)
{
    uint64_t x = key + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return (double)(x >> 11) * 0x1p-53;
}

/* The sum of all weights of log q, 0 where there are none. */
INLINE double total_of(const double *weights, int64_t batch)
{
    double total = 0;
    for (int64_t j = 0; weights != NULL && j < batch; ++j)
        total += weights[j];
    return total;
}

/* The passes for one generation of processors and one precision. */
struct passes {
    void (*push)(const struct coupling *, void *, void *, double *);
    void (*restore)(const struct coupling *, void *);
    void (*pull)(const struct coupling *, void *, const double *);
    void (*activate)(const struct activation *);
    void (*pull_activation)(const struct activation *);
    void (*network_push)(const struct network *, const void *);
    void (*network_pull)(const struct network *, void *);
    void (*bend_push)(const struct sinh_arcsinh *, void *, void *, double *);
    void (*bend_pull)(const struct sinh_arcsinh *, void *, const double *);
    void (*chain_push)(const struct chain *, void *, void *, double *);
    void (*chain_pull)(const struct chain *, void *, const double *);
    int64_t (*step_gradient)(const struct step *, uint64_t, int);
    double (*adam)(const struct adam *, double, double);
};

#if SEVERAL_PROCESSORS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
#define PROCESSOR(name) name##_avx512
#define VECTOR_BYTES 64
#include "precisions.h"
#undef PROCESSOR
#undef VECTOR_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define PROCESSOR(name) name##_avx2
#define VECTOR_BYTES 32
#include "precisions.h"
#undef PROCESSOR
#undef VECTOR_BYTES
#pragma GCC pop_options
#endif

#define PROCESSOR(name) name##_any
#define VECTOR_BYTES 16
#include "precisions.h"

static const struct passes *passes(int in_double)
{
#if SEVERAL_PROCESSORS
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512bw"))
        return in_double ? &passes_f64_avx512 : &passes_f32_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return in_double ? &passes_f64_avx2 : &passes_f32_avx2;
#endif
    return in_double ? &passes_f64_any : &passes_f32_any;
}

/* The functions of the library, for float (suffix f32) and double (f64).
 *
 * push: move points, (D, B), in place from a layer's input to its output; fill scale, gain and
 * slope; subtract the log-determinants from log_q, (B,). Unless score is NULL, carry it, (D, B),
 * along as far as elementwise work and the local conditioner go, and leave in `output` the
 * cotangents that the network is still to pull back.
 *
 * restore: move points in place from a layer's output back to its input; fill scale, gain, slope.
 *
 * pull: take cotangent, (D, B), in place from a layer's output back to its input as far as
 * elementwise work and the local conditioner go; leave in `output` the cotangents of u and t; write
 * the gradients of biases and local conditioner. log_q_weight, (B,), is the cotangent of log_q; it
 * needs `slope`, and is NULL for path gradients.
 *
 * activate: hidden in place: relu(hidden + bias).
 *
 * pull_activation: cotangent in place: times relu's derivative, which follows from its values in
 * hidden. Unless it is NULL, bias_gradient gets the sums over draws.
 *
 * network_push: from the kept rows of points, (D, B), to kept, hidden and output. network_pull: from
 * the cotangents in output to those of the kept rows, and to gradients where they are wanted.
 *
 * bend_push, bend_pull: push and pull of a sinh-arcsinh layer. chain_push, chain_pull: of a chain.
 *
 * step_gradient: draw a batch, fill log_ratio and accepted, and, where with_gradient, write the
 * gradient of -ELBO, all zero where no draw is accepted. The key decides the draws, whatever the
 * threads. Returns how many draws are accepted. Without gradients no draw is spread out.
 *
 * adam: shorten the gradient where it is too long, and move the parameters by the rate, unless it is
 * not finite; `steps` counts this one, too. Returns the gradient's norm, NaN where it is not finite.
 */
#define FUNCTIONS(REAL, suffix, in_double) \
    void stanflow_push_##suffix(const struct coupling *layer, REAL *points, REAL *score, \
                                double *log_q) \
    { \
        passes(in_double)->push(layer, points, score, log_q); \
    } \
    void stanflow_restore_##suffix(const struct coupling *layer, REAL *points) \
    { \
        passes(in_double)->restore(layer, points); \
    } \
    void stanflow_pull_##suffix(const struct coupling *layer, REAL *cotangent, \
                                const double *log_q_weight) \
    { \
        passes(in_double)->pull(layer, cotangent, log_q_weight); \
    } \
    void stanflow_activate_##suffix(const struct activation *units) \
    { \
        passes(in_double)->activate(units); \
    } \
    void stanflow_pull_activation_##suffix(const struct activation *units) \
    { \
        passes(in_double)->pull_activation(units); \
    } \
    void stanflow_network_push_##suffix(const struct network *network, const REAL *points) \
    { \
        passes(in_double)->network_push(network, points); \
    } \
    void stanflow_network_pull_##suffix(const struct network *network, REAL *points) \
    { \
        passes(in_double)->network_pull(network, points); \
    } \
    void stanflow_bend_push_##suffix(const struct sinh_arcsinh *layer, REAL *points, REAL *score, \
                                     double *log_q) \
    { \
        passes(in_double)->bend_push(layer, points, score, log_q); \
    } \
    void stanflow_bend_pull_##suffix(const struct sinh_arcsinh *layer, REAL *cotangent, \
                                     const double *log_q_weight) \
    { \
        passes(in_double)->bend_pull(layer, cotangent, log_q_weight); \
    } \
    void stanflow_chain_push_##suffix(const struct chain *chain, REAL *points, REAL *score, \
                                      double *log_q) \
    { \
        passes(in_double)->chain_push(chain, points, score, log_q); \
    } \
    void stanflow_chain_pull_##suffix(const struct chain *chain, REAL *cotangent, \
                                      const double *log_q_weight) \
    { \
        passes(in_double)->chain_pull(chain, cotangent, log_q_weight); \
    } \
    int64_t stanflow_step_gradient_##suffix(const struct step *step, uint64_t key, \
                                            int with_gradient) \
    { \
        return passes(in_double)->step_gradient(step, key, with_gradient); \
    } \
    double stanflow_adam_##suffix(const struct adam *adam, double rate, double steps) \
    { \
        return passes(in_double)->adam(adam, rate, steps); \
    }

FUNCTIONS(float, f32, 0)
FUNCTIONS(double, f64, 1)
