/* The gradient of a whole training step of a small flow, from the base's noise to the parameters, and
 * Adam. Formulas: see base.py, gradients.py and optimizers.py. Included by coupling_passes.h. */

/* cos(2 pi u) for u in [0, 1]: -sin(2 pi (1/4 - |u - 1/2|)), by the sine's series. */
INLINE VECTOR NAME(cosine_of_turn)(VECTOR u)
{
    VECTOR y = ((REAL)0.25 - NAME(absolute)(u - (REAL)0.5)) * (REAL)6.28318530717958647693;
    VECTOR z = y * y;
    VECTOR p = IS_FLOAT
        ? POLYNOMIAL(z, (REAL)(-1.0 / 39916800), (REAL)(1.0 / 362880), (REAL)(-1.0 / 5040),
                     (REAL)(1.0 / 120), (REAL)(-1.0 / 6))
        : POLYNOMIAL(z, (REAL)(1.0 / 51090942171709440000.0), (REAL)(-1.0 / 121645100408832000.0),
                     (REAL)(1.0 / 355687428096000.0), (REAL)(-1.0 / 1307674368000.0),
                     (REAL)(1.0 / 6227020800.0), (REAL)(-1.0 / 39916800), (REAL)(1.0 / 362880),
                     (REAL)(-1.0 / 5040), (REAL)(1.0 / 120), (REAL)(-1.0 / 6));
    return -(y + y * z * p);
}

/* Base points of a part's columns, their log density, and its score where one is carried. */
static void NAME(draw_base)(const struct step *step, const struct step_part *part, uint64_t key,
                            REAL *score)
{
    const int64_t columns = part->chain->columns, first = part->chain->first;
    REAL *points = part->chain->points, *noise = part->noise;
    REAL radius[MOST_COLUMNS], turn[MOST_COLUMNS];
    memset(part->log_q, 0, (size_t)columns * sizeof(double));
    for (int64_t i = 0; i < step->dim; ++i) {
        const struct student_t *t = step->base + i;
        const REAL nu = (REAL)t->nu, root = (REAL)t->root, slope = (REAL)(-(t->nu + 1) / t->root);
        double density[MOST_COLUMNS] = {0};
        for (int64_t from = 0; from < columns; from += MOST_COLUMNS) {
            const int64_t count = columns - from < MOST_COLUMNS ? columns - from : MOST_COLUMNS;
            for (int64_t j = 0; j < count; ++j) {
                const uint64_t at = 2 * (uint64_t)(i * step->batch + first + from + j);
                radius[j] = (REAL)(1 - uniform(key, at));
                turn[j] = (REAL)uniform(key, at + 1);
            }
            for (int64_t j = 0; j < count; j += LANES) {
                const int64_t left = count - j, own = i * columns + from + j;
                VECTOR r = -NAME(logarithm)(NAME(load)(radius + j, LANES));
                r = NAME(select)(r < LEAST_EXPONENTIAL, NAME(broadcast)((REAL)LEAST_EXPONENTIAL),
                                 r);
                VECTOR cosine = NAME(cosine_of_turn)(NAME(load)(turn + j, LANES));
                VECTOR e, d, s;
                if (t->nu > 0) {
                    VECTOR w = r * ((REAL)2 / nu);
                    VECTOR x = NAME(square_root)(NAME(expm1)(w)) * cosine;
                    VECTOR one_and_square = x * x + (REAL)1;
                    NAME(store)(noise + own, w, left);
                    s = x / one_and_square * slope;
                    d = NAME(logarithm)(one_and_square) * (REAL)(-0.5 * (t->nu + 1));
                    e = x * root;
                } else {
                    e = NAME(square_root)(r * (REAL)2) * cosine;
                    s = -e;
                    d = e * e * (REAL)-0.5;
                }
                NAME(store)(points + own, e, left);
                if (score != NULL)
                    NAME(store)(score + own, s, left);
                for (int64_t l = 0; l < LANES && l < left; ++l)
                    density[j + l] = d[l];
            }
            for (int64_t j = 0; j < count; ++j)
                part->log_q[from + j] += density[j] + t->constant;
        }
    }
}

/* Spread out one coordinate of a part's draw, or two of every second one, up to threefold. */
static void NAME(spread_out)(const struct step *step, const struct step_part *part, uint64_t key,
                             REAL *score)
{
    const int64_t columns = part->chain->columns, dim = step->dim;
    REAL *points = part->chain->points;
    for (int64_t j = 0; j < columns && part->chain->first + j < step->tails; ++j) {
        const int64_t draw = part->chain->first + j;
        const uint64_t at = 2 * (uint64_t)(dim * step->batch) + 3 * (uint64_t)draw;
        const double factor = 1 + (MOST_SPREAD - 1) * uniform(key, at);
        int64_t row = (int64_t)(uniform(key, at + 1) * (double)dim);
        for (int again = 0; again <= (dim > 1 && draw % 2 == 0); ++again) {
            const struct student_t *t = step->base + row;
            const double before = points[row * columns + j];
            const double after = (REAL)(before * factor);
            part->log_q[j] += t->nu > 0
                ? 0.5 * (t->nu + 1)
                      * log((t->nu + before * before) / (t->nu + after * after))
                : 0.5 * (before * before - after * after);
            points[row * columns + j] = (REAL)after;
            score[row * columns + j] = (REAL)(t->nu > 0 ? -(t->nu + 1) * after
                                                              / (t->nu + after * after)
                                                        : -after);
            const int64_t further = 1 + (int64_t)(uniform(key, at + 2) * (double)(dim - 1));
            row = (row + further) % dim;
        }
    }
}

/* What one call works on. */
struct NAME(step_task) {
    const struct step *step;
    uint64_t key;
    int with_score;
    int pulled;    /* whether parts whose draws are all accepted are at the parameters already */
    int draw_back; /* whether draws that were not accepted are drawn back to the others */
    atomic_int_fast64_t next; /* the next part */
};

/* The target at one draw: log p - log q, its gradient taken from the score, and whether both are
 * finite. */
static void NAME(evaluate_row)(const void *data, size_t draw)
{
    const struct NAME(step_task) *task = data;
    const struct step *step = task->step;
    const struct step_part *part = step->part;
    while ((int64_t)draw >= part->chain->first + part->chain->columns)
        ++part;
    const int64_t columns = part->chain->columns, j = (int64_t)draw - part->chain->first;
    const int64_t dim = step->dim;
    const REAL *points = (const REAL *)part->chain->points + j;
    REAL *score = (REAL *)part->chain->score + j;
    double *u = step->rows + 3 * dim * (int64_t)draw, *z = u + dim, *gradient = z + dim;
    for (int64_t i = 0; i < dim; ++i)
        u[i] = points[i * columns];
    for (int64_t i = 0; i < dim; ++i) {
        double scaled = u[i];
        if (step->factor != NULL) {
            scaled = 0;
            for (int64_t k = 0; k <= i; ++k)
                scaled += step->factor[i * dim + k] * u[k];
        }
        z[i] = step->location[i] + step->scale[i] * scaled;
    }
    double log_p = 0, total = 0;
    const int failed
        = task->with_score
              ? step->log_density_gradient(step->model, 1, 1, z, &log_p, gradient, NULL)
              : step->log_density(step->model, 1, 1, z, &log_p, NULL);
    const double log_ratio = log_p + step->log_det - part->log_q[j];
    for (int64_t i = 0; i < dim && task->with_score; ++i)
        total += gradient[i] *= step->scale[i];
    for (int64_t i = 0; i < dim && task->with_score; ++i) {
        double g = gradient[i];
        if (step->factor != NULL) {
            g = 0;
            for (int64_t k = i; k < dim; ++k)
                g += step->factor[k * dim + i] * gradient[k];
        }
        score[i * columns] -= (REAL)g;
        total += score[i * columns];
    }
    step->log_ratio[draw] = log_ratio;
    step->accepted[draw] = failed == 0 && isfinite(log_ratio) && isfinite(total);
}

/* A part's draws, from the base to the target's point. */
static void NAME(push_part)(const struct NAME(step_task) *task, const struct step_part *part)
{
    const struct step *step = task->step;
    const int64_t numbers = step->dim * part->chain->columns;
    REAL *score = task->with_score ? part->chain->score : NULL, *base = part->base;
    NAME(draw_base)(step, part, task->key, score);
    if (task->with_score && step->tails > 0)
        NAME(spread_out)(step, part, task->key, score);
    memcpy(base, part->chain->points, (size_t)numbers * sizeof(REAL));
    VECTOR largest = {0};
    FOR_EACH_VECTOR(numbers, j, left, {
        largest = NAME(larger)(NAME(absolute)(NAME(load)(base + j, left)), largest);
    });
    *(REAL *)part->largest = NAME(largest_lane)(largest);
    NAME(push_links)(part->chain, step->layers, score, part->log_q);
}

/* The gradient with respect to the base's degrees of freedom. */
static void NAME(pull_base)(const struct step *step, const struct step_part *part,
                            const REAL *cotangent)
{
    const int64_t columns = part->chain->columns;
    for (int64_t i = 0; i < step->dim; ++i) {
        const double nu = step->base[i].nu;
        VECTOR sum = {0};
        for (int64_t j = 0; j < columns; j += LANES) {
            const int64_t left = columns - j, own = i * columns + j;
            VECTOR w = NAME(load)((const REAL *)part->noise + own, left);
            VECTOR share = w / NAME(expm1)(-w) + (REAL)1;
            VECTOR c = NAME(load)(cotangent + own, left)
                       * NAME(load)((const REAL *)part->base + own, left) * share;
            for (int64_t l = left; l < LANES; ++l)
                c[l] = 0;
            sum += c;
        }
        ((REAL *)part->base_gradient)[i] = NAME(sum)(sum) * (REAL)((nu - 1) / (2 * nu));
    }
}

static int NAME(all_accepted)(const struct step *step, const struct step_part *part)
{
    return memchr(step->accepted + part->chain->first, 0, (size_t)part->chain->columns) == NULL;
}

/* Find centre and spread of the flow's own draws that were accepted. Returns whether there are
 * enough, and others to draw back to them. */
static int NAME(find_centre)(const struct step *step)
{
    int64_t inside = 0, outside = 0;
    for (int64_t j = step->tails; j < step->batch; ++j)
        *(step->accepted[j] ? &inside : &outside) += 1;
    if (outside == 0 || inside < FEWEST_TO_DRAW_BACK_TO)
        return 0;
    for (int64_t i = 0; i < step->dim; ++i) {
        double mean = 0, square = 0;
        for (const struct step_part *part = step->part; part < step->part + step->parts; ++part)
            for (int64_t j = 0; j < part->chain->columns; ++j) {
                const int64_t draw = part->chain->first + j;
                if (draw >= step->tails && step->accepted[draw])
                    mean += ((REAL *)part->chain->points)[i * part->chain->columns + j];
            }
        mean /= (double)inside;
        for (const struct step_part *part = step->part; part < step->part + step->parts; ++part)
            for (int64_t j = 0; j < part->chain->columns; ++j) {
                const int64_t draw = part->chain->first + j;
                const double x = ((REAL *)part->chain->points)[i * part->chain->columns + j] - mean;
                if (draw >= step->tails && step->accepted[draw])
                    square += x * x;
            }
        step->centre[i] = mean;
        step->spread[i] = sqrt(square / (double)(inside - 1));
    }
    return 1;
}

/* Take a part's derivatives back to the parameters: those of draws that were not accepted are zero,
 * or draw the flow's own back to those that were; those that are too long are shortened. */
static void NAME(pull_part)(const struct step *step, const struct step_part *part, int draw_back)
{
    const int64_t columns = part->chain->columns, dim = step->dim;
    REAL *cotangent = part->chain->score;
    for (int64_t j = 0; j < columns; ++j) {
        const int64_t draw = part->chain->first + j;
        if (!step->accepted[draw]) {
            for (int64_t i = 0; i < dim; ++i) {
                REAL force = 0;
                if (draw_back && draw >= step->tails) {
                    const double sd = step->spread[i];
                    const double x = ((REAL *)part->chain->points)[i * columns + j];
                    const double away = (x - step->centre[i]) / sd;
                    force = (REAL)(FORCE_BACK / sd * away / sqrt(1 + away * away));
                    force = isfinite(force) ? force : 0;
                }
                cotangent[i * columns + j] = force;
            }
            continue;
        }
        double square = 0;
        for (int64_t i = 0; i < dim; ++i)
            square += (double)cotangent[i * columns + j] * cotangent[i * columns + j];
        const double norm = sqrt(square);
        for (int64_t i = 0; norm > step->longest && i < dim; ++i)
            cotangent[i * columns + j] *= (REAL)(step->longest / norm);
    }
    NAME(pull_links)(part->chain, step->layers, cotangent, NULL);
    if (part->base_gradient != NULL)
        NAME(pull_base)(step, part, cotangent);
}

INLINE const struct step_part *NAME(next_step_part)(struct NAME(step_task) *task)
{
    const int64_t part = atomic_fetch_add(&task->next, 1);
    return part < task->step->parts ? task->step->part + part : NULL;
}

static void NAME(step_push_work)(void *data)
{
    struct NAME(step_task) *task = data;
    for (const struct step_part *part; (part = NAME(next_step_part)(task)) != NULL;)
        NAME(push_part)(task, part);
}

/* From the base to the parameters without a wait for other parts, unless draws are to be drawn back:
 * what is kept of a part's layers is then still near. */
static void NAME(there_and_back_work)(void *data)
{
    struct NAME(step_task) *task = data;
    const struct step *step = task->step;
    for (const struct step_part *part; (part = NAME(next_step_part)(task)) != NULL;) {
        NAME(push_part)(task, part);
        for (int64_t j = 0; j < part->chain->columns; ++j)
            NAME(evaluate_row)(task, (size_t)(part->chain->first + j));
        if (task->with_score && NAME(all_accepted)(step, part))
            NAME(pull_part)(step, part, 0);
    }
}

static void NAME(step_pull_work)(void *data)
{
    struct NAME(step_task) *task = data;
    const struct step *step = task->step;
    for (const struct step_part *part; (part = NAME(next_step_part)(task)) != NULL;)
        if (!task->pulled || !NAME(all_accepted)(step, part))
            NAME(pull_part)(step, part, task->draw_back);
}

static void NAME(run_step)(void (*work)(void *), struct NAME(step_task) *task)
{
    const struct step *step = task->step;
    atomic_init(&task->next, 0);
    stanflow_with_help(work, task, step->threads < step->parts ? step->threads : step->parts);
}

static int64_t NAME(step_gradient)(const struct step *step, uint64_t key, int with_gradient)
{
    struct NAME(step_task) task = {.step = step, .key = key, .with_score = with_gradient};
    for (int64_t i = 0; i < step->dim; ++i)
        if (step->log_degrees_minus_one != NULL) {
            const double nu = 1 + exp((double)((const REAL *)step->log_degrees_minus_one)[i]);
            step->base[i] = student_t_of(nu);
        }
    if (step->threads <= step->parts) {
        NAME(run_step)(NAME(there_and_back_work), &task);
        task.pulled = with_gradient;
    } else {
        NAME(run_step)(NAME(step_push_work), &task);
        stanflow_for_each_row(NAME(evaluate_row), &task, (size_t)step->batch, (int)step->threads);
    }
    int64_t accepted = 0;
    for (int64_t j = 0; j < step->batch; ++j)
        accepted += step->accepted[j];
    if (!with_gradient)
        return accepted;
    const int64_t numbers = step->parameters;
    if (accepted == 0) {
        memset(*step->gradients, 0, (size_t)numbers * sizeof(REAL));
        return 0;
    }
    if (!task.pulled || accepted < step->batch) {
        task.draw_back = NAME(find_centre)(step);
        NAME(run_step)(NAME(step_pull_work), &task);
    }
    const REAL share = (REAL)(1.0 / (double)accepted);
    REAL *total = step->gradients[0];
    for (int64_t p = 0; p < numbers; p += LANES) {
        VECTOR sum = NAME(load)(total + p, numbers - p);
        for (int64_t part = 1; part < step->parts; ++part)
            sum += NAME(load)((const REAL *)step->gradients[part] + p, numbers - p);
        NAME(store)(total + p, sum * share, numbers - p);
    }
    return accepted;
}

static double NAME(adam)(const struct adam *adam, double rate, double steps)
{
    const int64_t numbers = adam->parameters;
    REAL *parameter = adam->parameter, *gradient = adam->gradient;
    REAL *mean = adam->mean, *mean_square = adam->mean_square;
    double square = 0;
    for (int64_t from = 0; from < numbers; from += MOST_COLUMNS) {
        VECTOR sum = {0};
        for (int64_t p = from; p < numbers && p < from + MOST_COLUMNS; p += LANES) {
            VECTOR g = NAME(load)(gradient + p, numbers - p);
            sum += g * g;
        }
        square += NAME(sum)(sum);
    }
    const double norm = sqrt(square);
    if (!isfinite(norm))
        return NAN;
    const REAL shorten = (REAL)(norm > adam->longest ? adam->longest / norm : 1);
    const REAL beta1 = (REAL)(1 - adam->beta1), beta2 = (REAL)adam->beta2;
    const REAL size = (REAL)(rate / (1 - pow(adam->beta1, steps)));
    const REAL root = (REAL)(1 / sqrt(1 - pow(adam->beta2, steps))), epsilon = (REAL)adam->epsilon;
    for (int64_t p = 0; p < numbers; p += LANES) {
        const int64_t left = numbers - p;
        VECTOR g = NAME(load)(gradient + p, left) * shorten;
        NAME(store)(gradient + p, g, left);
        VECTOR m = NAME(load)(mean + p, left);
        VECTOR v = NAME(load)(mean_square + p, left) * beta2;
        m += (g - m) * beta1;
        v += g * g * ((REAL)1 - beta2);
        NAME(store)(mean + p, m, left);
        NAME(store)(mean_square + p, v, left);
        VECTOR move = m * size / (NAME(square_root)(v) * root + epsilon);
        NAME(store)(parameter + p, NAME(load)(parameter + p, left) - move, left);
    }
    return norm;
}
