/* The passes of a sinh-arcsinh layer, y = sinh(delta (asinh(m + a x) + epsilon)), coordinate by
 * coordinate; formulas: see sinh_arcsinh.py. Only x is kept of a push, the rest is made anew.
 * Included by coupling_passes.h. */

/* log(x) for x > 0: x = m 2^e, m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(s), s = (m-1) / (m+1), by
 * its series: |s| < 0.172. */
INLINE VECTOR NAME(logarithm)(VECTOR x)
{
    const int mantissa = IS_FLOAT ? 23 : 52;
    const REAL largest = IS_FLOAT ? (REAL)3.4028234663852886e38 : (REAL)1.7976931348623157e308;
    VECTOR half_root = NAME(broadcast)((REAL)0.70710678118654752440);
    INTEGERS exponent = ((INTEGERS)x - (INTEGERS)half_root) >> mantissa;
    VECTOR m = (VECTOR)((INTEGERS)x - (exponent << mantissa));
    VECTOR e = __builtin_convertvector(exponent, VECTOR);
    VECTOR s = (m - (REAL)1) / (m + (REAL)1), z = s * s;
    VECTOR p = IS_FLOAT
        ? POLYNOMIAL(z, (REAL)(1.0 / 9), (REAL)(1.0 / 7), (REAL)(1.0 / 5), (REAL)(1.0 / 3))
        : POLYNOMIAL(z, (REAL)(1.0 / 21), (REAL)(1.0 / 19), (REAL)(1.0 / 17), (REAL)(1.0 / 15),
                     (REAL)(1.0 / 13), (REAL)(1.0 / 11), (REAL)(1.0 / 9), (REAL)(1.0 / 7),
                     (REAL)(1.0 / 5), (REAL)(1.0 / 3));
    VECTOR log_m = (s + s * z * p) * (REAL)2;
    VECTOR value = IS_FLOAT
        ? e * (REAL)0.693359375 + (log_m - e * (REAL)2.12194440054690583e-4)
        : e * (REAL)0.693147180369123816490 + (log_m + e * (REAL)1.90821492927058770002e-10);
    return NAME(select)((x <= largest) & (x > (REAL)0), value, x);
}

INLINE VECTOR NAME(square_root)(VECTOR x)
{
    VECTOR root;
    for (int64_t l = 0; l < LANES; ++l)
        root[l] = IS_FLOAT ? (REAL)__builtin_sqrtf((float)x[l]) : (REAL)__builtin_sqrt(x[l]);
    return root;
}

/* The parameters of one coordinate, and what follows from them, in all lanes. */
struct NAME(bend) {
    VECTOR m, a, delta, epsilon, clamp_slope;
    REAL log_a_delta;
};

INLINE struct NAME(bend) NAME(bend_of)(const struct sinh_arcsinh *layer, int64_t clamp, int64_t i)
{
    struct NAME(bend) bend;
    const REAL log_scale = ((const REAL *)layer->log_scale)[i];
    VECTOR log_delta = NAME(clamped)(clamp, NAME(broadcast)(((const REAL *)layer->raw_tail)[i]),
                                     (REAL)layer->positive, (REAL)layer->negative,
                                     &bend.clamp_slope);
    bend.m = NAME(broadcast)(((const REAL *)layer->location)[i]);
    bend.a = NAME(exponential)(NAME(broadcast)(log_scale));
    bend.delta = NAME(exponential)(log_delta);
    bend.epsilon = NAME(broadcast)(((const REAL *)layer->skewness)[i]);
    bend.log_a_delta = log_scale + log_delta[0];
    return bend;
}

/* What both directions need at x. */
struct NAME(bent) {
    VECTOR v, root, w, y, cosh;
};

INLINE struct NAME(bent) NAME(bent_at)(const struct NAME(bend) *bend, VECTOR x)
{
    struct NAME(bent) at;
    at.v = bend->m + bend->a * x;
    at.root = NAME(square_root)(at.v * at.v + (REAL)1);
    VECTOR arsinh
        = NAME(with_sign_of)(NAME(logarithm)(NAME(absolute)(at.v) + at.root), at.v);
    at.w = (arsinh + bend->epsilon) * bend->delta;
    VECTOR grown = NAME(exponential)(at.w), shrunk = (REAL)1 / grown;
    at.y = (grown - shrunk) * (REAL)0.5;
    at.cosh = (grown + shrunk) * (REAL)0.5;
    return at;
}

INLINE void NAME(push_bends)(const struct sinh_arcsinh *layer, int64_t clamp, REAL *points,
                             REAL *score, double *log_q)
{
    const int64_t batch = layer->batch;
    REAL *log_det = layer->log_det;
    memset(log_det, 0, (size_t)batch * sizeof(REAL));
    memcpy(layer->x, points, (size_t)(layer->dim * batch) * sizeof(REAL));
    double common = 0;
    for (int64_t i = 0; i < layer->dim; ++i) {
        const struct NAME(bend) bend = NAME(bend_of)(layer, clamp, i);
        common += bend.log_a_delta;
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t left = batch - j, own = i * batch + j;
            const struct NAME(bent) at = NAME(bent_at)(&bend, NAME(load)(points + own, left));
            VECTOR slope = at.cosh / at.root;
            NAME(store)(points + own, at.y, left);
            NAME(store)(log_det + j, NAME(load)(log_det + j, left) + NAME(logarithm)(slope), left);
            if (score == NULL)
                continue;
            VECTOR change = (at.y / at.cosh * bend.delta - at.v / at.root) / at.root * bend.a;
            VECTOR s = (NAME(load)(score + own, left) - change) / (slope * bend.a * bend.delta);
            NAME(store)(score + own, s, left);
        }
    }
    for (int64_t j = 0; j < batch; ++j)
        log_q[j] -= log_det[j] + common;
}

INLINE void NAME(pull_bends)(const struct sinh_arcsinh *layer, int64_t clamp, REAL *cotangent,
                             const double *log_q_weight)
{
    const int64_t batch = layer->batch;
    const double total_weight = total_of(log_q_weight, batch);
    for (int64_t i = 0; i < layer->dim; ++i) {
        const struct NAME(bend) bend = NAME(bend_of)(layer, clamp, i);
        VECTOR on_delta = {0}, on_epsilon = {0}, on_m = {0}, on_a = {0};
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t left = batch - j, own = i * batch + j;
            const struct NAME(bent) at
                = NAME(bent_at)(&bend, NAME(load)((const REAL *)layer->x + own, left));
            VECTOR c = NAME(load)(cotangent + own, left) * at.cosh, weight = {0};
            if (log_q_weight != NULL) {
                weight = NAME(load_weights)(log_q_weight + j, left);
                c -= weight * at.y / at.cosh;
            }
            on_delta += c * at.w;
            c *= bend.delta;
            on_epsilon += c;
            c = c / at.root + weight * at.v / (at.root * at.root);
            on_m += c;
            on_a += c * (at.v - bend.m);
            NAME(store)(cotangent + own, c * bend.a, left);
        }
        const REAL weights = (REAL)total_weight;
        ((REAL *)layer->raw_tail_gradient)[i] = (NAME(sum)(on_delta) - weights) * bend.clamp_slope[0];
        ((REAL *)layer->skewness_gradient)[i] = NAME(sum)(on_epsilon);
        ((REAL *)layer->location_gradient)[i] = NAME(sum)(on_m);
        ((REAL *)layer->log_scale_gradient)[i] = NAME(sum)(on_a) - weights;
    }
}

static void NAME(bend_push)(const struct sinh_arcsinh *layer, void *points, void *score,
                            double *log_q)
{
    WITH_CLAMP(NAME(push_bends)(layer, clamp, points, score, log_q));
}

static void NAME(bend_pull)(const struct sinh_arcsinh *layer, void *cotangent,
                            const double *log_q_weight)
{
    WITH_CLAMP(NAME(pull_bends)(layer, clamp, cotangent, log_q_weight));
}
