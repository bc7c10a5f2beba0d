/* The conditioner network's passes: activations between matrix products done elsewhere, and, for
 * networks with few inputs and outputs and one hidden layer, the whole network. There matrix products
 * are too thin for a matrix library; done by columns they stay in the first cache. Included by
 * coupling_passes.h. */

INLINE VECTOR NAME(relu)(VECTOR x)
{
    VECTOR zero = {0};
    return NAME(select)(x <= zero, zero, x);
}

/* x where the unit's value h is positive, else 0: times the derivative. Where x is not a number there
 * is none. */
INLINE VECTOR NAME(pull_relu)(VECTOR x, VECTOR h)
{
    VECTOR zero = {0};
    return NAME(select)((h > zero) | (x != x), x, zero);
}

struct NAME(activation_task) {
    const struct activation *units;
    atomic_int_fast64_t next; /* the next part */
};

/* Take the next part of the units; returns whether there was one. */
INLINE int NAME(next_units)(struct NAME(activation_task) *task, int64_t *begin, int64_t *end)
{
    const int64_t part = atomic_fetch_add(&task->next, 1), parts = task->units->parts;
    *begin = part * task->units->units / parts;
    *end = (part + 1) * task->units->units / parts;
    return part < parts;
}

static void NAME(activate_work)(void *data)
{
    struct NAME(activation_task) *task = data;
    const int64_t batch = task->units->batch;
    int64_t begin, end;
    while (NAME(next_units)(task, &begin, &end))
        for (int64_t i = begin; i < end; ++i) {
            REAL *hidden = (REAL *)task->units->hidden + i * batch;
            const REAL bias = ((const REAL *)task->units->bias)[i];
            FOR_EACH_VECTOR(batch, j, left, {
                NAME(store)(hidden + j, NAME(relu)(NAME(load)(hidden + j, left) + bias), left);
            });
        }
}

static void NAME(pull_activation_work)(void *data)
{
    struct NAME(activation_task) *task = data;
    const int64_t batch = task->units->batch;
    REAL *bias_gradient = task->units->bias_gradient;
    int64_t begin, end;
    while (NAME(next_units)(task, &begin, &end))
        for (int64_t i = begin; i < end; ++i) {
            const REAL *hidden = (const REAL *)task->units->hidden + i * batch;
            REAL *cotangent = (REAL *)task->units->cotangent + i * batch;
            VECTOR total = {0};
            FOR_EACH_VECTOR(batch, j, left, {
                VECTOR c = NAME(pull_relu)(NAME(load)(cotangent + j, left),
                                           NAME(load)(hidden + j, left));
                NAME(store)(cotangent + j, c, left);
                total += c;
            });
            if (bias_gradient != NULL)
                bias_gradient[i] = NAME(sum)(total);
        }
}

static void NAME(activate)(const struct activation *units)
{
    struct NAME(activation_task) task = {.units = units};
    atomic_init(&task.next, 0);
    stanflow_with_help(NAME(activate_work), &task, units->parts);
}

static void NAME(pull_activation)(const struct activation *units)
{
    struct NAME(activation_task) task = {.units = units};
    atomic_init(&task.next, 0);
    stanflow_with_help(NAME(pull_activation_work), &task, units->parts);
}

/* Products are made in tiles that stay in the registers: so many rows, times a strip of so many
 * vectors. */
#define TILE 4
#define STRIP (VECTOR_BYTES == 64 ? 4 : 2)
#define STRIP_COLUMNS (STRIP * LANES)

/* A matrix whose element (i, p) is at weights[i * row + p * column]. */
struct NAME(matrix) {
    const REAL *weights;
    int64_t row, column;
};

/* Some columns of a (rows, B) matrix, a strip or what is left of one; `whole` is known to the
 * compiler. */
struct NAME(strip) {
    int whole;
    int64_t first, columns;
};

/* How many numbers of its vector l there are. */
INLINE int64_t NAME(numbers_of)(struct NAME(strip) strip, int l)
{
    if (strip.whole)
        return LANES;
    const int64_t left = strip.columns - l * LANES;
    return left < 0 ? 0 : left;
}

/* sum[i] = the sum over p < count of matrix (i, p) times row p of a (count, B) matrix, for `tile`
 * rows i and a strip of columns. */
INLINE void NAME(product)(VECTOR sum[TILE][STRIP], int tile, struct NAME(matrix) matrix,
                          const REAL *rows, int64_t batch, int64_t count,
                          struct NAME(strip) strip)
{
    for (int i = 0; i < tile; ++i)
        for (int l = 0; l < STRIP; ++l)
            sum[i][l] = NAME(broadcast)(0);
    rows += strip.first;
    for (int64_t p = 0; p < count; ++p) {
        VECTOR x[STRIP];
        for (int l = 0; l < STRIP; ++l)
            x[l] = NAME(load)(rows + p * batch + l * LANES, NAME(numbers_of)(strip, l));
        for (int i = 0; i < tile; ++i)
            for (int l = 0; l < STRIP; ++l)
                sum[i][l] += x[l] * matrix.weights[i * matrix.row + p * matrix.column];
    }
}

/* Call `call` with `tile` the constant TILE while so many rows are left, then with what is left. */
#define FOR_EACH_TILE(count, i, call) \
    do { \
        int64_t i = 0; \
        for (; i + TILE <= (count); i += TILE) { \
            enum { tile = TILE }; \
            call; \
        } \
        for (; i < (count); ++i) { \
            enum { tile = 1 }; \
            call; \
        } \
    } while (0)

/* Call `call` for each strip of `batch` columns. */
#define FOR_EACH_STRIP(batch, strip, call) \
    do { \
        int64_t first = 0; \
        for (; first + STRIP_COLUMNS <= (batch); first += STRIP_COLUMNS) { \
            const struct NAME(strip) strip = {1, first, STRIP_COLUMNS}; \
            call; \
        } \
        if (first < (batch)) { \
            const struct NAME(strip) strip = {0, first, (batch) - first}; \
            call; \
        } \
    } while (0)

INLINE void NAME(push_hidden)(const struct network *net, int tile, int64_t j,
                              struct NAME(strip) strip)
{
    const int64_t batch = net->batch;
    const struct NAME(matrix) weights
        = {(const REAL *)net->input_weight + j * net->n_kept, net->n_kept, 1};
    const REAL *bias = (const REAL *)net->input_bias + j;
    REAL *hidden = (REAL *)net->hidden + j * batch + strip.first;
    VECTOR sum[TILE][STRIP];
    NAME(product)(sum, tile, weights, net->kept, batch, net->n_kept, strip);
    for (int i = 0; i < tile; ++i)
        for (int l = 0; l < STRIP; ++l)
            NAME(store)(hidden + i * batch + l * LANES, NAME(relu)(sum[i][l] + bias[i]),
                        NAME(numbers_of)(strip, l));
}

INLINE void NAME(push_output)(const struct network *net, int tile, int64_t of_t, int64_t i,
                              struct NAME(strip) strip)
{
    const int64_t units = net->hidden_units, batch = net->batch, row = of_t * net->n_moved + i;
    const struct NAME(matrix) weights = {(const REAL *)net->output_weight + row * units, units, 1};
    REAL *output = (REAL *)net->output + row * batch + strip.first;
    VECTOR sum[TILE][STRIP];
    NAME(product)(sum, tile, weights, (const REAL *)net->hidden + of_t * units * batch, batch,
                  units, strip);
    for (int k = 0; k < tile; ++k)
        for (int l = 0; l < STRIP; ++l)
            NAME(store)(output + k * batch + l * LANES, sum[k][l], NAME(numbers_of)(strip, l));
}

INLINE void NAME(push_strip)(const struct network *net, struct NAME(strip) strip)
{
    FOR_EACH_TILE(2 * net->hidden_units, j, NAME(push_hidden)(net, tile, j, strip));
    for (int64_t of_t = 0; of_t < 2; ++of_t)
        FOR_EACH_TILE(net->n_moved, i, NAME(push_output)(net, tile, of_t, i, strip));
}

static void NAME(network_push)(const struct network *net, const void *points)
{
    for (int64_t a = 0; a < net->n_kept; ++a)
        memcpy((REAL *)net->kept + a * net->batch,
               (const REAL *)points + net->kept_rows[a] * net->batch,
               (size_t)net->batch * sizeof(REAL));
    FOR_EACH_STRIP(net->batch, strip, NAME(push_strip)(net, strip));
}

/* The cotangents of some hidden units before their activation. Their values come from far where many
 * layers are kept, so they are read row by row. */
INLINE void NAME(pull_hidden_strip)(const struct network *net, int tile, int64_t of_t, int64_t unit,
                              struct NAME(strip) strip)
{
    const int64_t units = net->hidden_units, batch = net->batch, n = net->n_moved;
    const int64_t at = (of_t * units + unit) * batch + strip.first;
    const struct NAME(matrix) weights
        = {(const REAL *)net->output_weight + of_t * n * units + unit, 1, units};
    const REAL *hidden = (const REAL *)net->hidden + at;
    REAL *cotangent = (REAL *)net->hidden_cotangent + at;
    VECTOR sum[TILE][STRIP];
    NAME(product)(sum, tile, weights, (const REAL *)net->output + of_t * n * batch, batch, n, strip);
    for (int i = 0; i < tile; ++i)
        for (int l = 0; l < STRIP; ++l) {
            const int64_t own = i * batch + l * LANES, numbers = NAME(numbers_of)(strip, l);
            NAME(store)(cotangent + own,
                        NAME(pull_relu)(sum[i][l], NAME(load)(hidden + own, numbers)), numbers);
        }
}

INLINE void NAME(pull_hidden)(const struct network *net, int tile, int64_t of_t, int64_t unit)
{
    FOR_EACH_STRIP(net->batch, strip, NAME(pull_hidden_strip)(net, tile, of_t, unit, strip));
}

/* What they add to the cotangents of some inputs. */
INLINE void NAME(pull_kept_tile)(const struct network *net, int tile, int64_t a, REAL *points,
                                 struct NAME(strip) strip)
{
    const int64_t batch = net->batch;
    const struct NAME(matrix) weights = {(const REAL *)net->input_weight + a, 1, net->n_kept};
    const REAL sign = (REAL)net->sign;
    VECTOR sum[TILE][STRIP];
    NAME(product)(sum, tile, weights, net->hidden_cotangent, batch, 2 * net->hidden_units, strip);
    for (int i = 0; i < tile; ++i) {
        REAL *to = points + net->kept_rows[a + i] * batch + strip.first;
        for (int l = 0; l < STRIP; ++l) {
            const int64_t numbers = NAME(numbers_of)(strip, l);
            NAME(store)(to + l * LANES,
                        NAME(load)(to + l * LANES, numbers) + sum[i][l] * sign, numbers);
        }
    }
}

INLINE void NAME(pull_kept)(const struct network *net, REAL *points, struct NAME(strip) strip)
{
    FOR_EACH_TILE(net->n_kept, a, NAME(pull_kept_tile)(net, tile, a, points, strip));
}

/* Scalar products of `tile` rows of one (rows, B) matrix with `others` rows of another:
 * to[i * row + k * column]. */
INLINE void NAME(dots)(int tile, int others, const REAL *one, const REAL *other, int64_t batch,
                       REAL *to, int64_t row, int64_t column)
{
    VECTOR sum[TILE * STRIP];
    for (int n = 0; n < tile * others; ++n)
        sum[n] = NAME(broadcast)(0);
    FOR_EACH_VECTOR(batch, j, left, {
        VECTOR y[STRIP];
        for (int k = 0; k < others; ++k)
            y[k] = NAME(load)(other + k * batch + j, left);
        for (int i = 0; i < tile; ++i) {
            const VECTOR x = NAME(load)(one + i * batch + j, left);
            for (int k = 0; k < others; ++k)
                sum[i * others + k] += x * y[k];
        }
    });
    REAL dot[TILE * STRIP];
    NAME(sum_each)(tile * others, sum, dot);
    for (int i = 0; i < tile; ++i)
        for (int k = 0; k < others; ++k)
            to[i * row + k * column] = dot[i * others + k];
}

INLINE void NAME(dots_with_all)(int tile, const REAL *one, const REAL *others, int64_t count,
                                int64_t batch, REAL *to, int64_t row, int64_t column)
{
    int64_t k = 0;
    for (; k + STRIP <= count; k += STRIP)
        NAME(dots)(tile, STRIP, one, others + k * batch, batch, to + k * column, row, column);
    for (; k < count; ++k)
        NAME(dots)(tile, 1, one, others + k * batch, batch, to + k * column, row, column);
}

INLINE void NAME(weight_gradients)(const struct network *net, int tile, int64_t of_t, int64_t unit)
{
    const int64_t units = net->hidden_units, batch = net->batch, n = net->n_moved;
    const int64_t j = of_t * units + unit;
    const REAL *cotangent = (const REAL *)net->hidden_cotangent + j * batch;
    VECTOR total[TILE];
    for (int i = 0; i < tile; ++i)
        total[i] = NAME(broadcast)(0);
    FOR_EACH_VECTOR(batch, l, left, {
        for (int i = 0; i < tile; ++i)
            total[i] += NAME(load)(cotangent + i * batch + l, left);
    });
    NAME(sum_each)(tile, total, (REAL *)net->input_bias_gradient + j);
    NAME(dots_with_all)(tile, cotangent, net->kept, net->n_kept, batch,
                        (REAL *)net->input_weight_gradient + j * net->n_kept, net->n_kept, 1);
    NAME(dots_with_all)(tile, (const REAL *)net->hidden + j * batch,
                        (const REAL *)net->output + of_t * n * batch, n, batch,
                        (REAL *)net->output_weight_gradient + of_t * n * units + unit, 1, units);
}

static void NAME(network_pull)(const struct network *net, void *points)
{
    for (int64_t of_t = 0; of_t < 2; ++of_t)
        FOR_EACH_TILE(net->hidden_units, unit, NAME(pull_hidden)(net, tile, of_t, unit));
    FOR_EACH_STRIP(net->batch, strip, NAME(pull_kept)(net, points, strip));
    for (int64_t of_t = 0; of_t < 2 && net->input_weight_gradient != NULL; ++of_t)
        FOR_EACH_TILE(net->hidden_units, unit, NAME(weight_gradients)(net, tile, of_t, unit));
}

#undef TILE
#undef STRIP
#undef STRIP_COLUMNS
#undef FOR_EACH_TILE
#undef FOR_EACH_STRIP
