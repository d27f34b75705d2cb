/* The pool alone: how long one take and give last, with 1 to 8 threads and 0 to 10,000 idle nodes.
 *
 *   pool_bench [-q]
 *
 * Happy path: every thread takes a node and gives it back until the time is up; prints a table of
 * pairs per second and nanoseconds per pair, the median of five slices. With 0 idle nodes every
 * take says POOL_OPEN, and what is measured is adopt and loss.
 */
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS_MAX = 8, NODES_MAX = 10000 };

struct shared {
    struct pool pool;
    struct pool_node nodes[NODES_MAX + THREADS_MAX];
    atomic_bool stop;
    bool keep;
};

enum { SLICES = 5 };

struct thread {
    pthread_t id;
    struct shared *shared;
    struct pool_node *spare;
    uint64_t pairs;
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *run(void *arg)
{
    struct thread *thread = arg;
    struct shared *shared = thread->shared;
    uint64_t now = now_ns();
    while (!atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        struct pool_node *node = NULL, *expired = NULL;
        struct pool_waiter *waiter;
        if (pool_take(&shared->pool, now, false, &node, &expired) == POOL_OPEN) {
            node = thread->spare;
            node->limit = 1;
            pool_adopt(&shared->pool, node, ADOPT_READY, now, 0);
        } else {
            pool_unpin(node);
        }
        if (shared->keep) {
            (void)pool_give(&shared->pool, node, true, now, &waiter);
        } else {
            pool_lost(&shared->pool, node);
            (void)pool_closed(&shared->pool, node);
        }
        thread->pairs++;
    }
    return NULL;
}

/** One slice: so many threads and idle nodes for so long. @return pairs per second */
static double slice(struct shared *shared, unsigned threads, unsigned idle, uint64_t duration_ns)
{
    static const struct pool_limits limits = {.expire_ns = UINT64_MAX / 2};
    struct thread workers[THREADS_MAX];
    uint64_t pairs = 0, start = now_ns();
    pool_init(&shared->pool, &limits);
    atomic_store(&shared->stop, false);
    shared->keep = idle > 0;
    memset(shared->nodes, 0, sizeof(shared->nodes));
    for (unsigned i = 0; i < idle; i++) {
        struct pool_node *node = NULL, *expired = NULL;
        (void)pool_take(&shared->pool, start, true, &node, &expired);
        shared->nodes[i].limit = 1;
        pool_adopt(&shared->pool, &shared->nodes[i], ADOPT_READY, start, 0);
    }
    for (unsigned i = 0; i < idle; i++) {
        struct pool_waiter *waiter;
        (void)pool_give(&shared->pool, &shared->nodes[i], true, start, &waiter);
    }
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct thread){.shared = shared, .spare = &shared->nodes[NODES_MAX + i]};
        if (pthread_create(&workers[i].id, NULL, run, &workers[i]) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
    nanosleep(&(struct timespec){.tv_nsec = (long)duration_ns}, NULL);
    atomic_store(&shared->stop, true);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(workers[i].id, NULL);
        pairs += workers[i].pairs;
    }
    double rate = (double)pairs * 1e9 / (double)(now_ns() - start);
    for (struct pool_node *node = pool_stop(&shared->pool), *next; node != NULL; node = next) {
        next = node->next;
        (void)pool_closed(&shared->pool, node);
    }
    pool_fini(&shared->pool);
    return rate;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void measure(struct shared *shared, unsigned threads, unsigned idle, uint64_t duration_ns)
{
    double rates[SLICES];
    for (unsigned i = 0; i < SLICES; i++) {
        rates[i] = slice(shared, threads, idle, duration_ns / SLICES);
    }
    qsort(rates, SLICES, sizeof(*rates), compare);
    printf("| %u | %u | %.1f | %.0f |\n", threads, idle, rates[SLICES / 2] / 1e6,
           1e9 / rates[SLICES / 2]);
    fflush(stdout);
}

static void empty(struct pool *pool, struct pool_node *nodes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        pool_lost(pool, &nodes[i]);
        (void)pool_closed(pool, &nodes[i]);
    }
    pool_fini(pool);
}

/** One row: so many waiters for 16 nodes. */
static void measure_waiting(struct shared *shared, struct pool_waiter *waiters, unsigned count, uint64_t duration_ns)
{
    enum { OPEN = 16, CHUNK = 1000 };
    static const struct pool_limits limits = {.expire_ns = UINT64_MAX / 2, .max_open = OPEN};
    struct pool *pool = &shared->pool;
    struct pool_node *node = NULL, *expired = NULL;
    struct pool_waiter *waiter = NULL;
    uint64_t start = now_ns(), turns = 0, cancels = 0, at = 0;
    pool_init(pool, &limits);
    memset(shared->nodes, 0, sizeof(shared->nodes));
    memset(waiters, 0, count * sizeof(*waiters));
    for (unsigned i = 0; i < OPEN; i++) {
        (void)pool_take(pool, start, false, &node, &expired);
        shared->nodes[i].limit = 1;
        pool_adopt(pool, &shared->nodes[i], ADOPT_READY, start, 0);
    }
    for (unsigned i = 0; i < count; i++) {
        (void)pool_wait(pool, &waiters[i], false);
    }
    while (now_ns() - start < duration_ns) {
        for (unsigned i = 0; i < CHUNK; i++, turns++) {
            (void)pool_give(pool, &shared->nodes[turns % OPEN], true, start, &waiter);
            (void)pool_take(pool, start, false, &node, &expired);
            (void)pool_wait(pool, waiter, false);
        }
    }
    double turn_ns = (double)(now_ns() - start) / (double)turns;
    start = now_ns();
    while (now_ns() - start < duration_ns) {
        for (unsigned i = 0; i < CHUNK; i++, cancels++) {
            at = (at + 7919) % count;
            (void)pool_unwait(pool, &waiters[at]);
            (void)pool_wait(pool, &waiters[at], false);
        }
    }
    printf("| %u | %.0f | %.0f |\n", count, turn_ns, (double)(now_ns() - start) / (double)cancels);
    fflush(stdout);
    for (unsigned i = 0; i < count; i++) {
        (void)pool_unwait(pool, &waiters[i]);
    }
    empty(pool, shared->nodes, OPEN);
}

int main(int argc, char **argv)
{
    static const unsigned thread_counts[] = {1, 2, 4, 8};
    static const unsigned idle_counts[] = {0, 10, 100, 10000};
    struct shared *shared = calloc(1, sizeof(*shared));
    uint64_t duration_ns = argc > 1 && strcmp(argv[1], "-q") == 0 ? 50000000 : 500000000;
    if (shared == NULL) {
        return 1;
    }
    printf("| threads | idle | million take+give per second | ns per pair |\n|---|---|---|---|\n");
    for (unsigned t = 0; t < sizeof(thread_counts) / sizeof(*thread_counts); t++) {
        for (unsigned i = 0; i < sizeof(idle_counts) / sizeof(*idle_counts); i++) {
            measure(shared, thread_counts[t], idle_counts[i], duration_ns);
        }
    }
    static const unsigned waiter_counts[] = {1, 100, 10000};
    struct pool_waiter *waiters = calloc(10000, sizeof(*waiters));
    if (waiters == NULL) {
        free(shared);
        return 1;
    }
    printf("\n| waiters | ns per give that serves one, take and wait | ns per cancel and wait |\n|---|---|---|\n");
    for (unsigned i = 0; i < sizeof(waiter_counts) / sizeof(*waiter_counts); i++) {
        measure_waiting(shared, waiters, waiter_counts[i], duration_ns);
    }
    free(waiters);
    free(shared);
    return 0;
}
