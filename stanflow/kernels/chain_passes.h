/* Runs of small layers, end to end: some columns at a time, which stay in the first cache and which
 * threads take one part after another. Each part has its links' buffers and gradients for itself, so
 * no result depends on which thread took which. Included by coupling_passes.h. */

/* What one call of a pass works on. */
struct NAME(chain_task) {
    const struct chain *chain;
    REAL *points, *score;
    double *log_q;
    const double *log_q_weight; /* (B,) */
    atomic_int_fast64_t next;   /* the next part */
};

INLINE const struct chain_part *NAME(next_chain_part)(struct NAME(chain_task) *task)
{
    const int64_t part = atomic_fetch_add(&task->next, 1);
    return part < task->chain->parts ? task->chain->part + part : NULL;
}

/* Copy a part's columns of a (D, B) matrix to a matrix of their own, or back. */
INLINE void NAME(take_columns)(const struct chain *chain, const struct chain_part *part, REAL *to,
                               const REAL *from)
{
    for (int64_t i = 0; i < chain->dim; ++i)
        memcpy(to + i * part->columns, from + i * chain->batch + part->first,
               (size_t)part->columns * sizeof(REAL));
}

INLINE void NAME(put_columns)(const struct chain *chain, const struct chain_part *part, REAL *to,
                              const REAL *from)
{
    for (int64_t i = 0; i < chain->dim; ++i)
        memcpy(to + i * chain->batch + part->first, from + i * part->columns,
               (size_t)part->columns * sizeof(REAL));
}

/* A part's points, and their score where there is one, through all layers. */
static void NAME(push_links)(const struct chain_part *part, int64_t layers, REAL *score,
                             double *log_q)
{
    REAL *points = part->points;
    for (const struct link *link = part->links; link < part->links + layers; ++link)
        if (link->bend != NULL)
            NAME(bend_push)(link->bend, points, score, log_q);
        else if (link->loft != NULL)
            NAME(loft_push)(link->loft, points, score, log_q);
        else if (link->affine != NULL)
            NAME(affine_push)(link->affine, points, score, log_q);
        else {
            NAME(network_push)(link->forward, points);
            NAME(push)(link->coupling, points, score, log_q);
            if (score != NULL)
                NAME(network_pull)(link->forward, score);
        }
}

/* A part's cotangent back through all layers. */
static void NAME(pull_links)(const struct chain_part *part, int64_t layers, REAL *cotangent,
                             const double *weight)
{
    for (const struct link *link = part->links + layers; link-- > part->links;)
        if (link->bend != NULL)
            NAME(bend_pull)(link->bend, cotangent, weight);
        else if (link->loft != NULL)
            NAME(loft_pull)(link->loft, cotangent, weight);
        else if (link->affine != NULL)
            NAME(affine_pull)(link->affine, cotangent, weight);
        else {
            NAME(pull)(link->coupling, cotangent, weight);
            NAME(network_pull)(link->backward, cotangent);
        }
}

static void NAME(chain_push_work)(void *data)
{
    struct NAME(chain_task) *task = data;
    const struct chain *chain = task->chain;
    for (const struct chain_part *part; (part = NAME(next_chain_part)(task)) != NULL;) {
        REAL *score = task->score == NULL ? NULL : part->score;
        NAME(take_columns)(chain, part, part->points, task->points);
        if (score != NULL)
            NAME(take_columns)(chain, part, score, task->score);
        NAME(push_links)(part, chain->layers, score, task->log_q + part->first);
        NAME(put_columns)(chain, part, task->points, part->points);
        if (score != NULL)
            NAME(put_columns)(chain, part, task->score, score);
    }
}

static void NAME(chain_pull_work)(void *data)
{
    struct NAME(chain_task) *task = data;
    const struct chain *chain = task->chain;
    for (const struct chain_part *part; (part = NAME(next_chain_part)(task)) != NULL;) {
        const double *weight = task->log_q_weight == NULL ? NULL : task->log_q_weight + part->first;
        NAME(take_columns)(chain, part, part->points, task->points);
        NAME(pull_links)(part, chain->layers, part->points, weight);
        NAME(put_columns)(chain, part, task->points, part->points);
    }
}

static void NAME(run_chain)(void (*work)(void *), struct NAME(chain_task) *task)
{
    const struct chain *chain = task->chain;
    atomic_init(&task->next, 0);
    stanflow_with_help(work, task, chain->threads < chain->parts ? chain->threads : chain->parts);
}

static void NAME(chain_push)(const struct chain *chain, void *points, void *score, double *log_q)
{
    struct NAME(chain_task) task
        = {.chain = chain, .points = points, .score = score, .log_q = log_q};
    NAME(run_chain)(NAME(chain_push_work), &task);
}

static void NAME(chain_pull)(const struct chain *chain, void *cotangent, const double *log_q_weight)
{
    struct NAME(chain_task) task
        = {.chain = chain, .points = cotangent, .log_q_weight = log_q_weight};
    NAME(run_chain)(NAME(chain_pull_work), &task);
}
