/* The passes of layers.c for one generation of processors in one precision: REAL, INTEGER of its
 * width, NAME(x) with the suffix of both. */

typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef INTEGER NAME(integers) __attribute__((vector_size(VECTOR_BYTES)));
#define VECTOR NAME(vector)
#define INTEGERS NAME(integers)
#define LANES ((int64_t)(VECTOR_BYTES / REAL_BYTES))
#define IS_FLOAT (REAL_BYTES == 4)

/* Do something for the vectors of `count` numbers: the first is number j, `left` are from there. All
 * but the last are whole, which the compiler sees. */
#define FOR_EACH_VECTOR(count, j, left, body) \
    do { \
        int64_t j = 0; \
        for (; j + LANES <= (count); j += LANES) { \
            const int64_t left = LANES; \
            body; \
        } \
        if (j < (count)) { \
            const int64_t left = (count) - j; \
            body; \
        } \
    } while (0)

INLINE VECTOR NAME(broadcast)(REAL value)
{
    VECTOR zero = {0};
    return zero + value;
}

/* Load up to LANES numbers; lanes beyond `count` are zero. */
INLINE VECTOR NAME(load)(const REAL *from, int64_t count)
{
    VECTOR v = {0};
    if (count >= LANES)
        memcpy(&v, from, VECTOR_BYTES);
    else
        memcpy(&v, from, (size_t)count * sizeof(REAL));
    return v;
}

INLINE void NAME(store)(REAL *to, VECTOR v, int64_t count)
{
    if (count >= LANES)
        memcpy(to, &v, VECTOR_BYTES);
    else
        memcpy(to, &v, (size_t)count * sizeof(REAL));
}

INLINE VECTOR NAME(select)(INTEGERS mask, VECTOR yes, VECTOR no)
{
    return (VECTOR)((mask & (INTEGERS)yes) | (~mask & (INTEGERS)no));
}

#define SIGN_BIT ((INTEGER)(UINT64_C(1) << (8 * sizeof(REAL) - 1)))

INLINE VECTOR NAME(absolute)(VECTOR x)
{
    return (VECTOR)((INTEGERS)x & ~SIGN_BIT);
}

INLINE VECTOR NAME(with_sign_of)(VECTOR magnitude, VECTOR x)
{
    return (VECTOR)((INTEGERS)magnitude | ((INTEGERS)x & SIGN_BIT));
}

/* The larger of the two, or NaN if either is. */
INLINE VECTOR NAME(larger)(VECTOR a, VECTOR b)
{
    return NAME(select)((a >= b) | (a != a), a, b);
}

INLINE REAL NAME(sum)(VECTOR v)
{
    REAL total = 0;
#if VECTOR_BYTES > 16
    typedef REAL half __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef REAL quarter __attribute__((vector_size(VECTOR_BYTES / 4)));
    half a, b;
    memcpy(&a, &v, sizeof a);
    memcpy(&b, (const char *)&v + sizeof a, sizeof b);
    a += b;
    quarter c, d;
    memcpy(&c, &a, sizeof c);
    memcpy(&d, (const char *)&a + sizeof c, sizeof d);
    c += d;
    for (int64_t i = 0; i < LANES / 4; ++i)
        total += c[i];
#else
    for (int64_t i = 0; i < LANES; ++i)
        total += v[i];
#endif
    return total;
}

/* Every second lane of two vectors, one after the other. */
#if VECTOR_BYTES / REAL_BYTES == 16
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif VECTOR_BYTES / REAL_BYTES == 8
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15
#elif VECTOR_BYTES / REAL_BYTES == 4
#define EVENS 0, 2, 4, 6
#define ODDS 1, 3, 5, 7
#else
#define EVENS 0, 2
#define ODDS 1, 3
#endif
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (INTEGERS){__VA_ARGS__})
#endif

/* sum[n] = the sum of v[n]'s lanes, for n < count: so many vectors as there are lanes at once, by
 * adding neighbours, or where few are left one by one. */
INLINE void NAME(sum_each)(int count, const VECTOR *v, REAL *sum)
{
    for (int from = 0; from < count; from += LANES) {
        const int some = count - from < LANES ? count - from : (int)LANES;
        if (2 * some <= LANES) {
            for (int n = 0; n < some; ++n)
                sum[from + n] = NAME(sum)(v[from + n]);
            continue;
        }
        VECTOR w[VECTOR_BYTES / REAL_BYTES];
        for (int n = 0; n < LANES; ++n)
            w[n] = n < some ? v[from + n] : NAME(broadcast)(0);
        for (int left = LANES; left > 1; left /= 2)
            for (int n = 0; n < left / 2; ++n)
                w[n] = SHUFFLE(w[2 * n], w[2 * n + 1], EVENS)
                       + SHUFFLE(w[2 * n], w[2 * n + 1], ODDS);
        NAME(store)(sum + from, w[0], some);
    }
}
#undef EVENS
#undef ODDS
#undef SHUFFLE

/* The largest lane, or NaN if one is. */
INLINE REAL NAME(largest_lane)(VECTOR v)
{
    REAL most = 0;
    for (int64_t l = 0; l < LANES; ++l)
        most = v[l] > most || v[l] != v[l] ? v[l] : most;
    return most;
}

/* Load up to LANES weights of log q. */
INLINE VECTOR NAME(load_weights)(const double *from, int64_t count)
{
    VECTOR v = {0};
    for (int64_t l = 0; l < LANES && l < count; ++l)
        v[l] = (REAL)from[l];
    return v;
}

/* Horner's rule, coefficients from the highest power down. */
#define POLYNOMIAL(x, ...) \
    NAME(polynomial)((x), (const REAL[]){__VA_ARGS__}, \
                     (int)(sizeof((const REAL[]){__VA_ARGS__}) / sizeof(REAL)))
INLINE VECTOR NAME(polynomial)(VECTOR x, const REAL *coefficients, int count)
{
    VECTOR value = NAME(broadcast)(coefficients[0]);
    for (int i = 1; i < count; ++i)
        value = value * x + coefficients[i];
    return value;
}

/* exp(x) - 1, accurate near 0: x = n log 2 + r, |r| <= log(2) / 2, exp(r) - 1 by a polynomial that
 * interpolates (exp(r) - 1 - r) / r^2 at Chebyshev nodes. Returns exp(r) - 1 and sets *power to 2^n.
 * Beyond +-limit they are those at the limit. */
INLINE VECTOR NAME(expm1_reduced)(VECTOR x, VECTOR *power)
{
    const REAL limit = IS_FLOAT ? (REAL)87.0 : (REAL)708.0;
    const REAL round = IS_FLOAT ? (REAL)12582912.0 : (REAL)6755399441055744.0; /* 1.5 * 2^p */
    x = NAME(select)(x > limit, NAME(broadcast)(limit), x);
    x = NAME(select)(x < -limit, NAME(broadcast)(-limit), x);
    VECTOR shifted = x * (REAL)1.4426950408889634074 + round;
    VECTOR n = shifted - round;
    /* log 2 in two pieces, the first with trailing zeros so that n times it is exact */
    VECTOR r = IS_FLOAT ? (x - n * (REAL)0.693359375) - n * (REAL)-2.12194440054690583e-4
                        : (x - n * (REAL)0.693147180369123816490)
                              - n * (REAL)1.90821492927058770002e-10;
    VECTOR p = IS_FLOAT
        ? POLYNOMIAL(r, (REAL)0.0013926176119935579, (REAL)0.0083631730745137109,
                     (REAL)0.041666554662050534, (REAL)0.16666577025597988, (REAL)0.5)
        : POLYNOMIAL(r, (REAL)2.09146793765839351e-9, (REAL)2.5105206373957011116e-8,
                     (REAL)2.7557273661348636219e-7, (REAL)2.7557255425746434282e-6,
                     (REAL)2.4801587325533363819e-5, (REAL)1.9841269874800491981e-4,
                     (REAL)1.3888888888883752417e-3, (REAL)8.333333333326140884e-3,
                     (REAL)4.1666666666666669752e-2, (REAL)1.6666666666666670986e-1, (REAL)0.5);
    const int mantissa = IS_FLOAT ? 23 : 52, bias = IS_FLOAT ? 127 : 1023;
    INTEGERS exponent = (INTEGERS)shifted - (INTEGERS)NAME(broadcast)(round);
    *power = (VECTOR)((exponent + bias) << mantissa);
    return p * r * r + r;
}

INLINE VECTOR NAME(exponential)(VECTOR x)
{
    const REAL limit = IS_FLOAT ? (REAL)87.0 : (REAL)708.0;
    VECTOR power, reduced = NAME(expm1_reduced)(x, &power);
    VECTOR value = power * reduced + power;
    value = NAME(select)(x > limit, NAME(broadcast)((REAL)__builtin_inf()), value);
    value = NAME(select)(x < -limit, NAME(broadcast)((REAL)0), value);
    return NAME(select)(x != x, x, value);
}

INLINE VECTOR NAME(expm1)(VECTOR x)
{
    VECTOR power, reduced = NAME(expm1_reduced)(x, &power);
    return NAME(select)(x != x, x, power * reduced + (power - (REAL)1));
}

INLINE VECTOR NAME(tanh)(VECTOR x)
{
    VECTOR e = NAME(expm1)(NAME(absolute)(x) * (REAL)-2);
    return NAME(with_sign_of)(-e / (e + (REAL)2), x);
}

/* atan(x): |x| is brought to [-tan(pi/8), tan(pi/8)] by atan(x) = pi/2 + atan(-1/x) or
 * pi/4 + atan((x-1)/(x+1)); there (atan(x)/x - 1)/x^2 is a polynomial in x^2 that interpolates at
 * Chebyshev nodes. */
INLINE VECTOR NAME(arctangent)(VECTOR x)
{
    VECTOR a = NAME(absolute)(x), one = NAME(broadcast)((REAL)1);
    INTEGERS large = a > (REAL)2.41421356237309504880, middle = a > (REAL)0.41421356237309504880;
    VECTOR numerator = NAME(select)(large, -one, NAME(select)(middle, a - one, a));
    VECTOR denominator = NAME(select)(large, a, NAME(select)(middle, a + one, one));
    VECTOR r = numerator / denominator, z = r * r, zero = {0};
    VECTOR start = NAME(select)(large, NAME(broadcast)((REAL)1.57079632679489661923),
                                NAME(select)(middle, NAME(broadcast)((REAL)0.78539816339744830962),
                                             zero));
    VECTOR p = IS_FLOAT
        ? POLYNOMIAL(z, (REAL)-0.064519282081217488, (REAL)0.10743731490791083,
                     (REAL)-0.142639555979846400, (REAL)0.19999540483648963,
                     (REAL)-0.33333331761168520)
        : POLYNOMIAL(z, (REAL)-0.019176887119062258989, (REAL)0.039231658295587191303,
                     (REAL)-0.050854497379402598613, (REAL)0.058581489128022098816,
                     (REAL)-0.066645114473819480001, (REAL)0.076921831908260865637,
                     (REAL)-0.090909045781239018905, (REAL)0.11111111015256361727,
                     (REAL)-0.14285714284666542922, (REAL)0.19999999999995520678,
                     (REAL)-0.3333333333333333016);
    VECTOR value = start + (p * z * r + r);
    return NAME(with_sign_of)(value, x);
}

/* s(u) and ds/du; see clamp.py. */
INLINE VECTOR NAME(clamped)(int64_t kind, VECTOR u, REAL positive, REAL negative, VECTOR *slope)
{
    VECTOR zero = {0}, one = NAME(broadcast)((REAL)1);
    if (kind == NO_CLAMP) {
        *slope = one;
        return u;
    }
    VECTOR alpha = NAME(select)(u >= zero, NAME(broadcast)(positive), NAME(broadcast)(negative));
    VECTOR ratio = u * NAME(select)(u >= zero, NAME(broadcast)((REAL)1 / positive),
                                    NAME(broadcast)((REAL)1 / negative));
    if (kind == TANH_CLAMP) {
        VECTOR t = NAME(tanh)(ratio);
        *slope = one - t * t;
        return alpha * t;
    }
    const REAL two_over_pi = (REAL)0.63661977236758134308;
    *slope = two_over_pi / (one + ratio * ratio);
    return two_over_pi * alpha * NAME(arctangent)(ratio);
}

/* phi(x) = x / (1 + |x|), and phi'(x). */
INLINE VECTOR NAME(softsign)(VECTOR x, VECTOR *slope)
{
    VECTOR one = NAME(broadcast)((REAL)1);
    VECTOR r = one / (one + NAME(absolute)(x));
    *slope = r * r;
    return x * r;
}

/* Where the parameters and gradients of the local conditioner of moved coordinate i are. */
struct NAME(local) {
    const REAL *linear_u, *linear_t, *weight_u, *weight_t, *inner_slope, *inner_offset;
};

INLINE struct NAME(local) NAME(local_of)(const struct coupling *layer, int64_t i)
{
    int64_t nk = layer->moved * layer->partners, k = i * layer->partners;
    int64_t nkm = nk * layer->features, km = k * layer->features;
    const REAL *linear = layer->linear, *weight = layer->weight, *inner = layer->inner;
    return (struct NAME(local)){linear + k, linear + nk + k, weight + km, weight + nkm + km,
                                inner + km, inner + nkm + km};
}

/* Add the local conditioner of moved coordinate i to u and t of the columns from `first` on; and,
 * where wanted, write du/dx and dt/dx for each partner to jacobian_u and jacobian_t,
 * (K, MOST_COLUMNS). */
INLINE void NAME(add_local)(const struct coupling *layer, int64_t i,
                            int64_t first, int64_t count, REAL *u, REAL *t, REAL *jacobian_u,
                            REAL *jacobian_t)
{
    struct NAME(local) local = NAME(local_of)(layer, i);
    for (int64_t k = 0; k < layer->partners; ++k) {
        int64_t partner = layer->partner[i * layer->partners + k];
        if (partner < 0)
            continue;
        const REAL *x_row = (const REAL *)layer->kept + partner * layer->batch + first;
        FOR_EACH_VECTOR(count, j, left, {
            VECTOR x = NAME(load)(x_row + j, left);
            VECTOR du = NAME(broadcast)(local.linear_u[k]);
            VECTOR dt = NAME(broadcast)(local.linear_t[k]);
            VECTOR add_u = x * du;
            VECTOR add_t = x * dt;
            for (int64_t m = k * layer->features; m < (k + 1) * layer->features; ++m) {
                VECTOR slope;
                VECTOR phi = NAME(softsign)(
                    x * local.inner_slope[m] + local.inner_offset[m], &slope);
                slope *= local.inner_slope[m];
                add_u += phi * local.weight_u[m];
                add_t += phi * local.weight_t[m];
                du += slope * local.weight_u[m];
                dt += slope * local.weight_t[m];
            }
            NAME(store)(u + j, NAME(load)(u + j, LANES) + add_u, LANES);
            NAME(store)(t + j, NAME(load)(t + j, LANES) + add_t, LANES);
            if (jacobian_u != NULL) {
                NAME(store)(jacobian_u + k * MOST_COLUMNS + j, du, LANES);
                NAME(store)(jacobian_t + k * MOST_COLUMNS + j, dt, LANES);
            }
        });
    }
}

/* u and t of moved coordinate i in `count` columns from `first` on, biases and local conditioner
 * included. */
INLINE void NAME(raw)(const struct coupling *layer, int64_t i, int64_t first,
                      int64_t count, REAL *u, REAL *t, REAL *jacobian_u, REAL *jacobian_t)
{
    const REAL *output = layer->output, *bias = layer->bias;
    const REAL *from_u = output + i * layer->batch + first;
    const REAL *from_t = from_u + layer->moved * layer->batch;
    for (int64_t j = 0; j < count; j += LANES) {
        NAME(store)(u + j, NAME(load)(from_u + j, count - j) + bias[i], LANES);
        NAME(store)(t + j, NAME(load)(from_t + j, count - j) + bias[layer->moved + i], LANES);
    }
    if (layer->partners > 0)
        NAME(add_local)(layer, i, first, count, u, t, jacobian_u, jacobian_t);
}

/* What one call of a pass works on. */
struct NAME(task) {
    const struct coupling *layer;
    REAL *points, *score, *cotangent;
    const double *log_q_weight; /* (B,) */
    atomic_int_fast64_t next;   /* the next part */
};

/* Take the next part: the moved coordinates from *begin to before *end, or of whatever there are
 * `rows` of. Returns its number, -1 when all are taken. */
INLINE int64_t NAME(next_part)(struct NAME(task) *task, int64_t rows, int64_t *begin, int64_t *end)
{
    const int64_t part = atomic_fetch_add(&task->next, 1), parts = task->layer->parts;
    *begin = part * rows / parts;
    *end = (part + 1) * rows / parts;
    return part < parts ? part : -1;
}

static void NAME(run)(void (*work)(void *), struct NAME(task) *task)
{
    atomic_init(&task->next, 0);
    stanflow_with_help(work, task, task->layer->parts);
}

/* Where a part adds what belongs to partners, whose rows other parts may add to as well: one part
 * to a matrix of its own, (D - n, B), several to one each. */
INLINE REAL *NAME(back_of)(const struct coupling *layer, int64_t part)
{
    const int64_t numbers = layer->n_kept * layer->batch;
    REAL *back = (REAL *)layer->back + part * numbers;
    memset(back, 0, (size_t)numbers * sizeof(REAL));
    return back;
}

/* points[kept rows] += the sum of the parts' matrices. */
INLINE void NAME(add_back_rows)(const struct coupling *layer, REAL *points, int64_t begin,
                                int64_t end)
{
    const int64_t batch = layer->batch, numbers = layer->n_kept * batch;
    for (int64_t a = begin; a < end; ++a) {
        REAL *to = points + layer->kept_rows[a] * batch;
        for (int64_t part = 0; part < layer->parts; ++part) {
            const REAL *from = (const REAL *)layer->back + part * numbers + a * batch;
            for (int64_t j = 0; j < batch; j += LANES)
                NAME(store)(to + j,
                            NAME(load)(to + j, batch - j) + NAME(load)(from + j, batch - j),
                            batch - j);
        }
    }
}

INLINE void NAME(push_parts)(struct NAME(task) *task, int64_t clamp)
{
    const struct coupling *layer = task->layer;
    const int64_t n = layer->moved, batch = layer->batch, partners = layer->partners;
    const REAL positive = (REAL)layer->positive, negative = (REAL)layer->negative;
    REAL u[MOST_COLUMNS], t[MOST_COLUMNS];
    REAL jacobian_u[MOST_PARTNERS * MOST_COLUMNS], jacobian_t[MOST_PARTNERS * MOST_COLUMNS];
    int64_t part, begin, end;
    while ((part = NAME(next_part)(task, n, &begin, &end)) >= 0) {
        REAL *log_det = (REAL *)layer->log_det + part * batch;
        REAL *back = task->score != NULL && partners > 0 ? NAME(back_of)(layer, part) : NULL;
        VECTOR largest = {0};
        memset(log_det, 0, (size_t)batch * sizeof(REAL));
        for (int64_t i = begin; i < end; ++i)
            for (int64_t first = 0; first < batch; first += MOST_COLUMNS) {
                const int64_t count
                    = batch - first < MOST_COLUMNS ? batch - first : (int64_t)MOST_COLUMNS;
                NAME(raw)(layer, i, first, count, u, t, jacobian_u, jacobian_t);
                const int64_t at = layer->rows[i] * batch + first, own = i * batch + first;
                REAL *scale_row = (REAL *)layer->scale + own, *gain_row = (REAL *)layer->gain + own;
                REAL *u_row = (REAL *)layer->output + own, *t_row = u_row + n * batch;
                for (int64_t j = 0; j < count; j += LANES) {
                    const int64_t left = count - j;
                    VECTOR slope;
                    VECTOR s = NAME(clamped)(clamp, NAME(load)(u + j, LANES), positive, negative,
                                             &slope);
                    VECTOR scale = NAME(exponential)(s);
                    VECTOR stretched = NAME(load)(task->points + at + j, left) * scale;
                    VECTOR y = stretched + NAME(load)(t + j, LANES);
                    NAME(store)(task->points + at + j, y, left);
                    REAL *sum = log_det + first + j;
                    NAME(store)(sum, NAME(load)(sum, left) + s, left);
                    if (left < LANES) /* lanes beyond the batch hold t's bias */
                        y = NAME(load)(task->points + at + j, left);
                    largest = NAME(larger)(NAME(absolute)(y), largest);
                    NAME(store)(scale_row + j, scale, left);
                    NAME(store)(gain_row + j, stretched * slope, left);
                    if (layer->slope != NULL)
                        NAME(store)((REAL *)layer->slope + own + j, slope, left);
                    if (task->score != NULL) {
                        VECTOR d = NAME(load)(task->score + at + j, left) / scale;
                        VECTOR cotangent_u = (d * stretched + (REAL)1) * slope;
                        NAME(store)(task->score + at + j, d, left);
                        NAME(store)(u_row + j, cotangent_u, left);
                        NAME(store)(t_row + j, d, left);
                    }
                }
                if (back == NULL)
                    continue;
                for (int64_t k = 0; k < partners; ++k) {
                    const int64_t partner = layer->partner[i * partners + k];
                    if (partner < 0)
                        continue;
                    REAL *to = back + partner * batch + first;
                    for (int64_t j = 0; j < count; j += LANES) {
                        const int64_t left = count - j, jk = k * MOST_COLUMNS + j;
                        VECTOR through
                            = NAME(load)(u_row + j, left) * NAME(load)(jacobian_u + jk, LANES)
                              + NAME(load)(t_row + j, left) * NAME(load)(jacobian_t + jk, LANES);
                        NAME(store)(to + j, NAME(load)(to + j, left) - through, left);
                    }
                }
            }
        ((REAL *)layer->largest)[part] = NAME(largest_lane)(largest);
    }
}

INLINE void NAME(restore_parts)(struct NAME(task) *task, int64_t clamp)
{
    const struct coupling *layer = task->layer;
    const int64_t n = layer->moved, batch = layer->batch;
    const REAL positive = (REAL)layer->positive, negative = (REAL)layer->negative;
    REAL u[MOST_COLUMNS], t[MOST_COLUMNS];
    int64_t begin, end;
    while (NAME(next_part)(task, n, &begin, &end) >= 0)
        for (int64_t i = begin; i < end; ++i)
            for (int64_t first = 0; first < batch; first += MOST_COLUMNS) {
                const int64_t count
                    = batch - first < MOST_COLUMNS ? batch - first : (int64_t)MOST_COLUMNS;
                NAME(raw)(layer, i, first, count, u, t, NULL, NULL);
                const int64_t at = layer->rows[i] * batch + first, own = i * batch + first;
                REAL *scale_row = (REAL *)layer->scale + own, *gain_row = (REAL *)layer->gain + own;
                for (int64_t j = 0; j < count; j += LANES) {
                    const int64_t left = count - j;
                    VECTOR slope;
                    VECTOR scale = NAME(exponential)(NAME(clamped)(
                        clamp, NAME(load)(u + j, LANES), positive, negative, &slope));
                    VECTOR stretched
                        = NAME(load)(task->points + at + j, left) - NAME(load)(t + j, LANES);
                    NAME(store)(task->points + at + j, stretched / scale, left);
                    NAME(store)(scale_row + j, scale, left);
                    NAME(store)(gain_row + j, stretched * slope, left);
                    if (layer->slope != NULL)
                        NAME(store)((REAL *)layer->slope + own + j, slope, left);
                }
            }
}

/* What pull needs of the local conditioner of a moved coordinate and one of its partners. */
struct NAME(pair) {
    const REAL *x, *cotangent_u, *cotangent_t; /* (B,) */
    REAL *back;                                /* (B,): to the partner's cotangent */
    int64_t batch;
};

/* The linear terms' part of pull. */
INLINE void NAME(pull_linear)(struct NAME(pair) pair, REAL of_u, REAL of_t, REAL *gradient_u,
                              REAL *gradient_t)
{
    VECTOR sum_u = {0}, sum_t = {0};
    FOR_EACH_VECTOR(pair.batch, j, left, {
        VECTOR x = NAME(load)(pair.x + j, left);
        VECTOR gu = NAME(load)(pair.cotangent_u + j, left);
        VECTOR gt = NAME(load)(pair.cotangent_t + j, left);
        sum_u += gu * x;
        sum_t += gt * x;
        NAME(store)(pair.back + j, NAME(load)(pair.back + j, left) + gu * of_u + gt * of_t, left);
    });
    *gradient_u = NAME(sum)(sum_u);
    *gradient_t = NAME(sum)(sum_t);
}

/* Features taken at once, so that the sums of all stay in the registers, and what each has. */
#define FEATURES 2
#define OF_FEATURE 4

/* The part of `features` features from `m` on; gradient[OF_FEATURE * n + .] gets those of feature
 * m + n: of v of u and of t, of g and of h. */
INLINE void NAME(pull_features)(int features, struct NAME(pair) pair, struct NAME(local) local,
                                int64_t m, REAL *gradient)
{
    VECTOR sum[OF_FEATURE * FEATURES];
    for (int n = 0; n < OF_FEATURE * features; ++n)
        sum[n] = NAME(broadcast)(0);
    FOR_EACH_VECTOR(pair.batch, j, left, {
        VECTOR x = NAME(load)(pair.x + j, left);
        VECTOR gu = NAME(load)(pair.cotangent_u + j, left);
        VECTOR gt = NAME(load)(pair.cotangent_t + j, left);
        VECTOR back = NAME(load)(pair.back + j, left);
        for (int n = 0; n < features; ++n) {
            VECTOR slope;
            VECTOR phi = NAME(softsign)(x * local.inner_slope[m + n] + local.inner_offset[m + n],
                                        &slope);
            VECTOR through = (gu * local.weight_u[m + n] + gt * local.weight_t[m + n]) * slope;
            sum[OF_FEATURE * n] += gu * phi;
            sum[OF_FEATURE * n + 1] += gt * phi;
            sum[OF_FEATURE * n + 2] += through * x;
            sum[OF_FEATURE * n + 3] += through;
            back += through * local.inner_slope[m + n];
        }
        NAME(store)(pair.back + j, back, left);
    });
    NAME(sum_each)(OF_FEATURE * features, sum, gradient);
}

/* The local conditioner's part of pull for moved coordinate i: its gradients, and cotangents of its
 * partners added to `back`. */
INLINE void NAME(pull_local)(const struct coupling *layer, int64_t i,
                             const REAL *cotangent_u, const REAL *cotangent_t, REAL *back)
{
    const int64_t batch = layer->batch, nk = layer->moved * layer->partners;
    const int64_t features = layer->features, nkm = nk * features;
    struct NAME(local) local = NAME(local_of)(layer, i);
    for (int64_t k = 0; k < layer->partners; ++k) {
        const int64_t ik = i * layer->partners + k, partner = layer->partner[ik];
        REAL *linear = (REAL *)layer->linear_gradient + ik;
        REAL *weight = (REAL *)layer->weight_gradient + ik * features;
        REAL *inner = (REAL *)layer->inner_gradient + ik * features;
        if (partner < 0) {
            linear[0] = linear[nk] = 0;
            for (int64_t m = 0; m < features; ++m)
                weight[m] = weight[nkm + m] = inner[m] = inner[nkm + m] = 0;
            continue;
        }
        const struct NAME(pair) pair = {(const REAL *)layer->kept + partner * batch, cotangent_u,
                                        cotangent_t, back + partner * batch, batch};
        NAME(pull_linear)(pair, local.linear_u[k], local.linear_t[k], linear, linear + nk);
        for (int64_t m = 0; m < features; m += FEATURES) {
            const int64_t some = features - m < FEATURES ? features - m : FEATURES;
            REAL gradient[OF_FEATURE * FEATURES];
            if (some == FEATURES)
                NAME(pull_features)(FEATURES, pair, local, k * features + m, gradient);
            else
                NAME(pull_features)(1, pair, local, k * features + m, gradient);
            for (int64_t n = 0; n < some; ++n) {
                weight[m + n] = gradient[OF_FEATURE * n];
                weight[nkm + m + n] = gradient[OF_FEATURE * n + 1];
                inner[m + n] = gradient[OF_FEATURE * n + 2];
                inner[nkm + m + n] = gradient[OF_FEATURE * n + 3];
            }
        }
    }
}

INLINE void NAME(pull_parts)(struct NAME(task) *task)
{
    const struct coupling *layer = task->layer;
    const int64_t n = layer->moved, batch = layer->batch;
    REAL *bias_gradient = layer->bias_gradient;
    int64_t part, begin, end;
    while ((part = NAME(next_part)(task, n, &begin, &end)) >= 0) {
        REAL *back = layer->partners > 0 ? NAME(back_of)(layer, part) : NULL;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t own = i * batch;
            REAL *cotangent = task->cotangent + layer->rows[i] * batch;
            REAL *u_row = (REAL *)layer->output + own, *t_row = u_row + n * batch;
            VECTOR bias_u = {0}, bias_t = {0};
            FOR_EACH_VECTOR(batch, j, left, {
                VECTOR c = NAME(load)(cotangent + j, left);
                VECTOR gu = c * NAME(load)((const REAL *)layer->gain + own + j, left);
                if (task->log_q_weight != NULL) {
                    VECTOR weight = NAME(load_weights)(task->log_q_weight + j, left);
                    gu -= weight * NAME(load)((const REAL *)layer->slope + own + j, left);
                }
                NAME(store)(u_row + j, gu, left);
                NAME(store)(t_row + j, c, left);
                bias_u += gu;
                bias_t += c;
                c *= NAME(load)((const REAL *)layer->scale + own + j, left);
                NAME(store)(cotangent + j, c, left);
            });
            bias_gradient[i] = NAME(sum)(bias_u);
            bias_gradient[n + i] = NAME(sum)(bias_t);
            if (back != NULL)
                NAME(pull_local)(layer, i, u_row, t_row, back);
        }
    }
}

#define WITH_CLAMP(call) \
    do { \
        if (layer->clamp == SOFT_CLAMP) { \
            const int64_t clamp = SOFT_CLAMP; \
            call; \
        } else if (layer->clamp == TANH_CLAMP) { \
            const int64_t clamp = TANH_CLAMP; \
            call; \
        } else { \
            const int64_t clamp = NO_CLAMP; \
            call; \
        } \
    } while (0)

static void NAME(push_work)(void *data)
{
    struct NAME(task) *task = data;
    const struct coupling *layer = task->layer;
    WITH_CLAMP(NAME(push_parts)(task, clamp));
}

static void NAME(restore_work)(void *data)
{
    struct NAME(task) *task = data;
    const struct coupling *layer = task->layer;
    WITH_CLAMP(NAME(restore_parts)(task, clamp));
}

static void NAME(pull_work)(void *data)
{
    NAME(pull_parts)(data);
}

static void NAME(add_back_work)(void *data)
{
    struct NAME(task) *task = data;
    int64_t begin, end;
    while (NAME(next_part)(task, task->layer->n_kept, &begin, &end) >= 0)
        NAME(add_back_rows)(task->layer, task->points, begin, end);
}

static void NAME(add_back)(const struct coupling *layer, REAL *points)
{
    struct NAME(task) task = {.layer = layer, .points = points};
    NAME(run)(NAME(add_back_work), &task);
}

static void NAME(push)(const struct coupling *layer, void *points, void *score, double *log_q)
{
    struct NAME(task) task = {.layer = layer, .points = points, .score = score};
    NAME(run)(NAME(push_work), &task);
    for (int64_t part = 0; part < layer->parts; ++part)
        for (int64_t j = 0; j < layer->batch; ++j)
            log_q[j] -= ((const REAL *)layer->log_det)[part * layer->batch + j];
    if (score != NULL && layer->partners > 0)
        NAME(add_back)(layer, score);
}

static void NAME(restore)(const struct coupling *layer, void *points)
{
    struct NAME(task) task = {.layer = layer, .points = points};
    NAME(run)(NAME(restore_work), &task);
}

static void NAME(pull)(const struct coupling *layer, void *cotangent, const double *log_q_weight)
{
    struct NAME(task) task
        = {.layer = layer, .cotangent = cotangent, .log_q_weight = log_q_weight};
    NAME(run)(NAME(pull_work), &task);
    if (layer->partners > 0)
        NAME(add_back)(layer, cotangent);
}

#include "network_passes.h"
#include "sinh_arcsinh_passes.h"
#include "elementwise_passes.h"
#include "chain_passes.h"
#include "step_passes.h"

static const struct passes NAME(passes)
    = {NAME(push),     NAME(restore),         NAME(pull),
       NAME(activate), NAME(pull_activation), NAME(network_push),
       NAME(network_pull), NAME(bend_push),       NAME(bend_pull),
       NAME(chain_push),   NAME(chain_pull),      NAME(step_gradient),
       NAME(adam)};

#undef VECTOR
#undef INTEGERS
#undef LANES
#undef FOR_EACH_VECTOR
#undef IS_FLOAT
#undef POLYNOMIAL
#undef SIGN_BIT
#undef WITH_CLAMP
#undef FEATURES
#undef OF_FEATURE
