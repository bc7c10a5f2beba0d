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

static void NAME(activate)(int64_t rows, int64_t batch, void *hidden, const void *bias)
{
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < batch; j += LANES) {
            REAL *at = (REAL *)hidden + i * batch + j;
            VECTOR x = NAME(load)(at, batch - j) + ((const REAL *)bias)[i];
            NAME(store)(at, NAME(relu)(x), batch - j);
        }
}

static void NAME(pull_activation)(int64_t rows, int64_t batch, void *cotangent, const void *hidden,
                                  void *bias_gradient)
{
    for (int64_t i = 0; i < rows; ++i) {
        VECTOR total = {0};
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t at = i * batch + j, left = batch - j;
            VECTOR c = NAME(pull_relu)(NAME(load)((const REAL *)cotangent + at, left),
                                       NAME(load)((const REAL *)hidden + at, left));
            NAME(store)((REAL *)cotangent + at, c, left);
            total += c;
        }
        if (bias_gradient != NULL)
            ((REAL *)bias_gradient)[i] = NAME(sum)(total);
    }
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

/* sum[i] += sum over p < count of matrix (i, p) times row p of a (count, B) matrix, for `tile` rows i
 * and a strip of columns. */
INLINE void NAME(product)(VECTOR sum[TILE][STRIP], int tile, struct NAME(matrix) matrix,
                          const REAL *rows, int64_t batch, int64_t count, int64_t columns)
{
    if (columns >= STRIP_COLUMNS) {
        for (int64_t p = 0; p < count; ++p) {
            VECTOR x[STRIP];
            for (int l = 0; l < STRIP; ++l)
                x[l] = NAME(load)(rows + p * batch + l * LANES, LANES);
            for (int i = 0; i < tile; ++i)
                for (int l = 0; l < STRIP; ++l)
                    sum[i][l] += x[l] * matrix.weights[i * matrix.row + p * matrix.column];
        }
        return;
    }
    for (int64_t p = 0; p < count; ++p)
        for (int i = 0; i < tile; ++i)
            for (int64_t l = 0; l * LANES < columns; ++l)
                sum[i][l] += NAME(load)(rows + p * batch + l * LANES, columns - l * LANES)
                             * matrix.weights[i * matrix.row + p * matrix.column];
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

INLINE void NAME(push_hidden)(const struct network *net, int tile, int64_t j, int64_t first,
                              int64_t columns)
{
    const int64_t batch = net->batch;
    const struct NAME(matrix) weights
        = {(const REAL *)net->input_weight + j * net->n_kept, net->n_kept, 1};
    VECTOR sum[TILE][STRIP] = {{{0}}};
    NAME(product)(sum, tile, weights, (const REAL *)net->kept + first, batch, net->n_kept, columns);
    for (int i = 0; i < tile; ++i)
        for (int64_t l = 0; l * LANES < columns; ++l)
            NAME(store)((REAL *)net->hidden + (j + i) * batch + first + l * LANES,
                        NAME(relu)(sum[i][l] + ((const REAL *)net->input_bias)[j + i]),
                        columns - l * LANES);
}

INLINE void NAME(push_output)(const struct network *net, int tile, int64_t of_t, int64_t i,
                              int64_t first, int64_t columns)
{
    const int64_t units = net->hidden_units, batch = net->batch, n = net->n_moved;
    const struct NAME(matrix) weights
        = {(const REAL *)net->output_weight + (of_t * n + i) * units, units, 1};
    VECTOR sum[TILE][STRIP] = {{{0}}};
    NAME(product)(sum, tile, weights, (const REAL *)net->hidden + of_t * units * batch + first,
                  batch, units, columns);
    for (int row = 0; row < tile; ++row)
        for (int64_t l = 0; l * LANES < columns; ++l)
            NAME(store)((REAL *)net->output + (of_t * n + i + row) * batch + first + l * LANES,
                        sum[row][l], columns - l * LANES);
}

INLINE int64_t NAME(strip_of)(int64_t batch, int64_t first)
{
    return batch - first < STRIP_COLUMNS ? batch - first : STRIP_COLUMNS;
}

static void NAME(network_push)(const struct network *net, const void *points)
{
    for (int64_t a = 0; a < net->n_kept; ++a)
        memcpy((REAL *)net->kept + a * net->batch,
               (const REAL *)points + net->kept_rows[a] * net->batch,
               (size_t)net->batch * sizeof(REAL));
    for (int64_t first = 0; first < net->batch; first += STRIP_COLUMNS) {
        const int64_t columns = NAME(strip_of)(net->batch, first);
        FOR_EACH_TILE(2 * net->hidden_units, j, NAME(push_hidden)(net, tile, j, first, columns));
        for (int64_t of_t = 0; of_t < 2; ++of_t)
            FOR_EACH_TILE(net->n_moved, i, NAME(push_output)(net, tile, of_t, i, first, columns));
    }
}

/* The cotangents of some hidden units before their activation. */
INLINE void NAME(pull_hidden)(const struct network *net, int tile, int64_t of_t, int64_t unit,
                              int64_t first, int64_t columns)
{
    const int64_t units = net->hidden_units, batch = net->batch, n = net->n_moved;
    const struct NAME(matrix) weights
        = {(const REAL *)net->output_weight + of_t * n * units + unit, 1, units};
    VECTOR sum[TILE][STRIP] = {{{0}}};
    NAME(product)(sum, tile, weights, (const REAL *)net->output + of_t * n * batch + first, batch, n,
                  columns);
    for (int i = 0; i < tile; ++i)
        for (int64_t l = 0; l * LANES < columns; ++l) {
            const int64_t left = columns - l * LANES;
            const int64_t at = (of_t * units + unit + i) * batch + first + l * LANES;
            VECTOR h = NAME(load)((const REAL *)net->hidden + at, left);
            NAME(store)((REAL *)net->hidden_cotangent + at, NAME(pull_relu)(sum[i][l], h), left);
        }
}

/* What they add to the cotangents of some inputs. */
INLINE void NAME(pull_kept)(const struct network *net, int tile, int64_t a, REAL *points,
                            int64_t first, int64_t columns)
{
    const int64_t batch = net->batch;
    const struct NAME(matrix) weights = {(const REAL *)net->input_weight + a, 1, net->n_kept};
    VECTOR sum[TILE][STRIP] = {{{0}}};
    NAME(product)(sum, tile, weights, (const REAL *)net->hidden_cotangent + first, batch,
                  2 * net->hidden_units, columns);
    for (int i = 0; i < tile; ++i) {
        REAL *to = points + net->kept_rows[a + i] * batch + first;
        for (int64_t l = 0; l * LANES < columns; ++l) {
            const int64_t left = columns - l * LANES;
            NAME(store)(to + l * LANES,
                        NAME(load)(to + l * LANES, left) + sum[i][l] * (REAL)net->sign, left);
        }
    }
}

/* Scalar products of `tile` rows of one (rows, B) matrix with `others` rows of another:
 * to[i * row + k * column]. */
INLINE void NAME(dots)(int tile, int others, const REAL *one, const REAL *other, int64_t batch,
                       REAL *to, int64_t row, int64_t column)
{
    VECTOR sum[TILE][STRIP] = {{{0}}};
    for (int64_t j = 0; j < batch; j += LANES) {
        VECTOR y[STRIP];
        for (int k = 0; k < others; ++k)
            y[k] = NAME(load)(other + k * batch + j, batch - j);
        for (int i = 0; i < tile; ++i) {
            VECTOR x = NAME(load)(one + i * batch + j, batch - j);
            for (int k = 0; k < others; ++k)
                sum[i][k] += x * y[k];
        }
    }
    for (int i = 0; i < tile; ++i)
        for (int k = 0; k < others; ++k)
            to[i * row + k * column] = NAME(sum)(sum[i][k]);
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
    for (int i = 0; i < tile; ++i) {
        VECTOR total = {0};
        for (int64_t l = 0; l < batch; l += LANES)
            total += NAME(load)(cotangent + i * batch + l, batch - l);
        ((REAL *)net->input_bias_gradient)[j + i] = NAME(sum)(total);
    }
    NAME(dots_with_all)(tile, cotangent, net->kept, net->n_kept, batch,
                        (REAL *)net->input_weight_gradient + j * net->n_kept, net->n_kept, 1);
    NAME(dots_with_all)(tile, (const REAL *)net->hidden + j * batch,
                        (const REAL *)net->output + of_t * n * batch, n, batch,
                        (REAL *)net->output_weight_gradient + of_t * n * units + unit, 1, units);
}

static void NAME(network_pull)(const struct network *net, void *points)
{
    for (int64_t first = 0; first < net->batch; first += STRIP_COLUMNS) {
        const int64_t columns = NAME(strip_of)(net->batch, first);
        for (int64_t of_t = 0; of_t < 2; ++of_t)
            FOR_EACH_TILE(net->hidden_units, unit,
                          NAME(pull_hidden)(net, tile, of_t, unit, first, columns));
        FOR_EACH_TILE(net->n_kept, a, NAME(pull_kept)(net, tile, a, points, first, columns));
    }
    for (int64_t of_t = 0; of_t < 2 && net->input_weight_gradient != NULL; ++of_t)
        FOR_EACH_TILE(net->hidden_units, unit, NAME(weight_gradients)(net, tile, of_t, unit));
}

#undef TILE
#undef STRIP
#undef STRIP_COLUMNS
#undef FOR_EACH_TILE
