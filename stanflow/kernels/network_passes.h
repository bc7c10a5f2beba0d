/* The conditioner network's passes: activations between matrix products done elsewhere, and, for
 * networks with few inputs and outputs and one hidden layer, the whole network. There matrix products
 * are too thin for a matrix library; done by columns they stay in the first cache. Included by
 * coupling_passes.h. */

INLINE VECTOR NAME(relu)(VECTOR x)
{
    VECTOR zero = {0};
    return NAME(select)((x > zero) | (x != x), x, zero);
}

/* The derivative, from the value. */
INLINE VECTOR NAME(relu_slope)(VECTOR h)
{
    VECTOR zero = {0};
    return NAME(select)(h > zero, NAME(broadcast)((REAL)1), zero);
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
            VECTOR c = NAME(load)((const REAL *)cotangent + at, left)
                       * NAME(relu_slope)(NAME(load)((const REAL *)hidden + at, left));
            NAME(store)((REAL *)cotangent + at, c, left);
            total += c;
        }
        if (bias_gradient != NULL)
            ((REAL *)bias_gradient)[i] = NAME(sum)(total);
    }
}

#define STRIP 4 /* vectors worked on at a time: enough independent sums to keep the processor busy */
#define STRIP_COLUMNS (STRIP * LANES)

/* sum over p < count of weights[p * stride] * rows[p * batch], for a strip of columns. */
INLINE void NAME(product)(VECTOR *sum, const REAL *weights, int64_t stride, const REAL *rows,
                          int64_t batch, int64_t count, int64_t columns)
{
    if (columns >= STRIP_COLUMNS) {
        for (int64_t p = 0; p < count; ++p)
            for (int l = 0; l < STRIP; ++l)
                sum[l] += NAME(load)(rows + p * batch + l * LANES, LANES) * weights[p * stride];
        return;
    }
    for (int64_t p = 0; p < count; ++p)
        for (int64_t l = 0; l * LANES < columns; ++l)
            sum[l] += NAME(load)(rows + p * batch + l * LANES, columns - l * LANES)
                      * weights[p * stride];
}

INLINE REAL NAME(dot)(const REAL *a, const REAL *b, int64_t batch)
{
    VECTOR sum[STRIP] = {{0}};
    int64_t j = 0;
    for (; j + STRIP_COLUMNS <= batch; j += STRIP_COLUMNS)
        for (int l = 0; l < STRIP; ++l)
            sum[l] += NAME(load)(a + j + l * LANES, LANES) * NAME(load)(b + j + l * LANES, LANES);
    for (; j < batch; j += LANES)
        sum[0] += NAME(load)(a + j, batch - j) * NAME(load)(b + j, batch - j);
    return NAME(sum)((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE void NAME(network_push_columns)(const struct network *net, int64_t first, int64_t columns)
{
    const int64_t units = net->hidden_units, batch = net->batch;
    const REAL *input_weight = net->input_weight, *bias = net->input_bias;
    const REAL *output_weight = net->output_weight, *kept = (const REAL *)net->kept + first;
    REAL *hidden = (REAL *)net->hidden + first, *output = (REAL *)net->output + first;
    for (int64_t j = 0; j < 2 * units; ++j) {
        VECTOR sum[STRIP] = {{0}};
        NAME(product)(sum, input_weight + j * net->n_kept, 1, kept, batch, net->n_kept, columns);
        for (int64_t l = 0; l * LANES < columns; ++l)
            NAME(store)(hidden + j * batch + l * LANES, NAME(relu)(sum[l] + bias[j]),
                        columns - l * LANES);
    }
    for (int64_t i = 0; i < 2 * net->n_moved; ++i) {
        const REAL *from = i < net->n_moved ? hidden : hidden + units * batch;
        VECTOR sum[STRIP] = {{0}};
        NAME(product)(sum, output_weight + i * units, 1, from, batch, units, columns);
        for (int64_t l = 0; l * LANES < columns; ++l)
            NAME(store)(output + i * batch + l * LANES, sum[l], columns - l * LANES);
    }
}

static void NAME(network_push)(const struct network *net, const void *points)
{
    for (int64_t a = 0; a < net->n_kept; ++a)
        memcpy((REAL *)net->kept + a * net->batch,
               (const REAL *)points + net->kept_rows[a] * net->batch,
               (size_t)net->batch * sizeof(REAL));
    for (int64_t first = 0; first < net->batch; first += STRIP_COLUMNS)
        NAME(network_push_columns)(net, first,
                                   net->batch - first < STRIP_COLUMNS ? net->batch - first
                                                                      : STRIP_COLUMNS);
}

/* The cotangents of the hidden units before their activation, (2, H, B), and what they add to those
 * of the inputs, for a strip of columns. */
INLINE void NAME(network_back_columns)(const struct network *net, REAL *points, int64_t first,
                                       int64_t columns)
{
    const int64_t units = net->hidden_units, batch = net->batch, n = net->n_moved;
    for (int64_t j = 0; j < 2 * units; ++j) {
        const int64_t of_t = j >= units, unit = of_t ? j - units : j;
        const REAL *weight = (const REAL *)net->output_weight + of_t * n * units + unit;
        const REAL *from = (const REAL *)net->output + of_t * n * batch + first;
        const REAL *hidden = (const REAL *)net->hidden + j * batch + first;
        REAL *to = (REAL *)net->hidden_cotangent + j * batch + first;
        VECTOR sum[STRIP] = {{0}};
        NAME(product)(sum, weight, units, from, batch, n, columns);
        for (int64_t l = 0; l * LANES < columns; ++l) {
            const int64_t left = columns - l * LANES;
            VECTOR h = NAME(load)(hidden + l * LANES, left);
            NAME(store)(to + l * LANES, sum[l] * NAME(relu_slope)(h), left);
        }
    }
    for (int64_t a = 0; a < net->n_kept; ++a) {
        REAL *to = points + net->kept_rows[a] * batch + first;
        VECTOR sum[STRIP] = {{0}};
        NAME(product)(sum, (const REAL *)net->input_weight + a, net->n_kept,
                      (const REAL *)net->hidden_cotangent + first, batch, 2 * units, columns);
        for (int64_t l = 0; l * LANES < columns; ++l) {
            const int64_t left = columns - l * LANES;
            NAME(store)(to + l * LANES,
                        NAME(load)(to + l * LANES, left) + sum[l] * (REAL)net->sign, left);
        }
    }
}

static void NAME(network_pull)(const struct network *net, void *points)
{
    const int64_t units = net->hidden_units, batch = net->batch, n = net->n_moved;
    for (int64_t first = 0; first < batch; first += STRIP_COLUMNS)
        NAME(network_back_columns)(net, points, first,
                                   batch - first < STRIP_COLUMNS ? batch - first : STRIP_COLUMNS);
    if (net->input_weight_gradient == NULL)
        return;
    REAL *input_weight = net->input_weight_gradient, *input_bias = net->input_bias_gradient;
    REAL *output_weight = net->output_weight_gradient;
    for (int64_t j = 0; j < 2 * units; ++j) {
        const int64_t of_t = j >= units, unit = of_t ? j - units : j;
        const REAL *cotangent = (const REAL *)net->hidden_cotangent + j * batch;
        const REAL *hidden = (const REAL *)net->hidden + j * batch;
        VECTOR total = {0};
        for (int64_t l = 0; l < batch; l += LANES)
            total += NAME(load)(cotangent + l, batch - l);
        input_bias[j] = NAME(sum)(total);
        for (int64_t a = 0; a < net->n_kept; ++a)
            input_weight[j * net->n_kept + a]
                = NAME(dot)(cotangent, (const REAL *)net->kept + a * batch, batch);
        for (int64_t i = of_t * n; i < (of_t + 1) * n; ++i)
            output_weight[i * units + unit]
                = NAME(dot)(hidden, (const REAL *)net->output + i * batch, batch);
    }
}

#undef STRIP
#undef STRIP_COLUMNS
