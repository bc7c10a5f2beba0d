/* The passes of the layers at the end of a flow, coordinate by coordinate: LOFT and the affine layer.
 * Formulas: see loft.py and affine.py. Included by coupling_passes.h. */

static void NAME(loft_push)(const struct loft *layer, REAL *points, REAL *score, double *log_q)
{
    const int64_t batch = layer->batch;
    const REAL tau = (REAL)layer->tau;
    const VECTOR zero = {0};
    for (int64_t i = 0; i < layer->dim; ++i)
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t left = batch - j, own = i * batch + j;
            VECTOR x = NAME(load)(points + own, left), size = NAME(absolute)(x);
            VECTOR beyond = NAME(select)(size <= tau, zero, size - tau);
            VECTOR inverse_slope = beyond + (REAL)1;
            NAME(store)((REAL *)layer->inverse_slope + own, NAME(with_sign_of)(inverse_slope, x),
                        left);
            if (NAME(sum)(beyond) == (REAL)0)
                continue;
            VECTOR stretch = NAME(logarithm)(inverse_slope);
            VECTOR inside = NAME(select)(size <= tau, size, NAME(broadcast)(tau));
            NAME(store)(points + own, NAME(with_sign_of)(stretch + inside, x), left);
            for (int64_t l = 0; l < LANES && l < left; ++l)
                log_q[j + l] += stretch[l];
            if (score == NULL)
                continue;
            VECTOR outside = NAME(select)(beyond > zero,
                                          NAME(with_sign_of)(NAME(broadcast)((REAL)1), x), zero);
            VECTOR s = NAME(load)(score + own, left);
            NAME(store)(score + own, s * inverse_slope + outside, left);
        }
}

static void NAME(loft_pull)(const struct loft *layer, REAL *cotangent, const double *log_q_weight)
{
    const int64_t batch = layer->batch;
    for (int64_t i = 0; i < layer->dim; ++i)
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t left = batch - j, own = i * batch + j;
            VECTOR kept = NAME(load)((const REAL *)layer->inverse_slope + own, left);
            VECTOR inverse_slope = NAME(absolute)(kept), zero = {0};
            VECTOR c = NAME(load)(cotangent + own, left);
            if (log_q_weight != NULL) {
                VECTOR weight = NAME(load_weights)(log_q_weight + j, left);
                VECTOR signed_weight = NAME(select)(kept > zero, weight, -weight);
                c += NAME(select)(inverse_slope > (REAL)1, signed_weight, zero);
            }
            NAME(store)(cotangent + own, c / inverse_slope, left);
        }
}

static void NAME(affine_push)(const struct shift_scale *layer, REAL *points, REAL *score,
                              double *log_q)
{
    const int64_t batch = layer->batch;
    double log_det = 0;
    memcpy(layer->x, points, (size_t)(layer->dim * batch) * sizeof(REAL));
    for (int64_t i = 0; i < layer->dim; ++i) {
        const REAL log_scale = ((const REAL *)layer->log_scale)[i];
        const VECTOR scale = NAME(exponential)(NAME(broadcast)(log_scale));
        const VECTOR shift = NAME(broadcast)(((const REAL *)layer->shift)[i]);
        log_det += log_scale;
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t left = batch - j, own = i * batch + j;
            NAME(store)(points + own, NAME(load)(points + own, left) * scale + shift, left);
            if (score != NULL)
                NAME(store)(score + own, NAME(load)(score + own, left) / scale, left);
        }
    }
    for (int64_t j = 0; j < batch; ++j)
        log_q[j] -= log_det;
}

static void NAME(affine_pull)(const struct shift_scale *layer, REAL *cotangent,
                              const double *log_q_weight)
{
    const int64_t batch = layer->batch;
    const double weights = total_of(log_q_weight, batch);
    for (int64_t i = 0; i < layer->dim; ++i) {
        const VECTOR scale
            = NAME(exponential)(NAME(broadcast)(((const REAL *)layer->log_scale)[i]));
        VECTOR on_shift = {0}, on_log_scale = {0};
        for (int64_t j = 0; j < batch; j += LANES) {
            const int64_t left = batch - j, own = i * batch + j;
            VECTOR c = NAME(load)(cotangent + own, left);
            on_shift += c;
            c *= scale;
            on_log_scale += c * NAME(load)((const REAL *)layer->x + own, left);
            NAME(store)(cotangent + own, c, left);
        }
        ((REAL *)layer->shift_gradient)[i] = NAME(sum)(on_shift);
        ((REAL *)layer->log_scale_gradient)[i] = NAME(sum)(on_log_scale) - (REAL)weights;
    }
}
