#define _POSIX_C_SOURCE 200809L

#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

enum { MOST_HELPERS = 255 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wanted, left;
    void (*work)(void *); /* NULL where there is none */
    void *data;
    int may_join, inside; /* helpers that may take it up, and that have */
    int started;
} helpers = {.lock = PTHREAD_MUTEX_INITIALIZER,
             .wanted = PTHREAD_COND_INITIALIZER,
             .left = PTHREAD_COND_INITIALIZER};

static void *help(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&helpers.lock);
    for (;;) {
        while (helpers.work == NULL || helpers.may_join == 0)
            pthread_cond_wait(&helpers.wanted, &helpers.lock);
        void (*work)(void *) = helpers.work;
        void *data = helpers.data;
        --helpers.may_join;
        ++helpers.inside;
        pthread_mutex_unlock(&helpers.lock);
        work(data);
        pthread_mutex_lock(&helpers.lock);
        if (--helpers.inside == 0)
            pthread_cond_broadcast(&helpers.left); /* another thread may have begun, and wait, too */
    }
    return NULL;
}

/* A forked process has no helpers, whatever the lock's state was. */
static void forget_helpers(void)
{
    pthread_mutex_init(&helpers.lock, NULL);
    pthread_cond_init(&helpers.wanted, NULL);
    pthread_cond_init(&helpers.left, NULL);
    helpers.work = NULL;
    helpers.may_join = helpers.inside = helpers.started = 0;
}

static void start_helpers(int64_t count)
{
    static int prepared;
    if (!prepared)
        prepared = pthread_atfork(NULL, NULL, forget_helpers) == 0;
    sigset_t all, before; /* signals are for the threads of the program around this */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    while (helpers.started < count && helpers.started < MOST_HELPERS
           && pthread_create(&thread, NULL, help, NULL) == 0) {
        pthread_detach(thread);
        ++helpers.started;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static parallel_fn parallel_of_others;

void stanflow_share_threads(parallel_fn parallel)
{
    parallel_of_others = parallel;
}

void stanflow_with_help(void (*work)(void *), void *data, int64_t threads)
{
    if (threads > 1 && parallel_of_others != NULL) {
        parallel_of_others(work, data, (unsigned)threads, 0);
        return;
    }
    int helped = 0;
    if (threads > 1) {
        pthread_mutex_lock(&helpers.lock);
        helped = helpers.work == NULL && helpers.inside == 0;
        if (helped) {
            start_helpers(threads - 1);
            helpers.work = work;
            helpers.data = data;
            helpers.may_join = (int)(threads - 1);
            pthread_cond_broadcast(&helpers.wanted);
        }
        pthread_mutex_unlock(&helpers.lock);
    }
    work(data);
    if (!helped)
        return;
    pthread_mutex_lock(&helpers.lock);
    helpers.work = NULL;
    while (helpers.inside > 0)
        pthread_cond_wait(&helpers.left, &helpers.lock);
    pthread_mutex_unlock(&helpers.lock);
}
