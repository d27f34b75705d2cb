/* The pool alone with many threads, each of which checks what must hold whatever the others do. walk.h says how to have it go on for longer.
 *
 * Happy path: each thread takes, opens or waits, uses and gives back. Failure: the first thread that sees a rule broken writes down which, and
 * all end.
 */
#include "pool.h"

#include "suite.h"
#include "walk.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NOW UINT64_C(1000000000000)

enum { THREADS = 8, MAX_OPEN = 3, SHARED = 2 };

static struct pool pool;

/* A node that lives while it is pinned or in the pool, and who is on it. */
static struct shared_node {
    struct pool_node node;
    atomic_uint users;
    atomic_bool taken;
} shared_nodes[THREADS * 4 + MAX_OPEN];

/* A thread's waiter: whoever pops it writes what was granted and says so. */
static struct turn {
    struct pool_waiter waiter;
    struct pool_node *node;
    atomic_int given; /* 0 not yet, 1 a place on node, 2 a POOL_OPEN, 3 a dial has failed */
} turns[THREADS];

static atomic_uint open_now;
static const char *_Atomic fault;
static atomic_ulong waited, canceled, failed;

static void require(bool holds, const char *what)
{
    if (!holds) {
        atomic_store(&fault, what);
    }
}

static void grant(struct pool_waiter *waiter, struct pool_node *node)
{
    struct turn *turn = (struct turn *)waiter;
    if (waiter != NULL) {
        turn->node = node;
        atomic_store(&turn->given, node != NULL ? 1 : 2);
    }
}

static void end_node(struct pool_node *node)
{
    struct shared_node *mine = (struct shared_node *)node;
    pool_lost(&pool, node);
    atomic_fetch_sub(&open_now, 1);
    grant(pool_closed(&pool, node), NULL);
    /* whoever was handed it just before is still pinned */
    while (atomic_load(&node->pins) > 0) {
        usleep(0);
    }
    atomic_store(&mine->taken, false);
}

static void serve_others(void)
{
    struct pool_node *node;
    struct pool_waiter *waiter;
    while ((waiter = pool_next(&pool, NOW, &node)) != NULL) {
        grant(waiter, node);
    }
}

static void fail_dial(struct pool_node *node)
{
    struct pool_waiter *waiter = pool_dial_failed(&pool, node);
    while (waiter != NULL) {
        struct turn *turn = (struct turn *)waiter;
        waiter = waiter->next; /* the turn's thread may queue up again */
        atomic_fetch_add(&failed, 1);
        atomic_store(&turn->given, 3);
    }
    end_node(node);
}

static struct pool_node *open_node(struct random *r)
{
    if (below(r, 16) == 0) {
        grant(pool_open_failed(&pool), NULL);
        return NULL;
    }
    for (uint32_t i = 0;; i = (i + 1) % (sizeof(shared_nodes) / sizeof(*shared_nodes))) {
        bool free = false;
        if (atomic_compare_exchange_strong(&shared_nodes[i].taken, &free, true)) {
            struct pool_node *node = &shared_nodes[i].node;
            memset(node, 0, sizeof(*node));
            node->limit = below(r, 2) == 0 ? 1 : SHARED;
            require(atomic_fetch_add(&open_now, 1) < MAX_OPEN, "more nodes than max_open");
            pool_adopt(&pool, node, ADOPT_DIALLING, NOW, 0);
            if (node->limit == 1 && below(r, 16) == 0) { /* nobody else is on it */
                fail_dial(node);
                return NULL;
            }
            grant(pool_ready(&pool, node), NULL);
            return node;
        }
    }
}

/* Waits for its turn, or gives up. @return a place, or NULL */
static struct pool_node *await(struct turn *turn, struct random *r)
{
    atomic_store(&turn->given, 0);
    if (!pool_wait(&pool, &turn->waiter, below(r, 8) == 0)) {
        return NULL;
    }
    atomic_fetch_add(&waited, 1);
    if (below(r, 4) == 0 && pool_unwait(&pool, &turn->waiter)) {
        atomic_fetch_add(&canceled, 1);
        return NULL;
    }
    for (uint32_t spins = 0; atomic_load(&turn->given) == 0; spins++) {
        usleep(spins > 100 ? 100 : 0);
        if (spins > 200000) {
            require(false, "a waiter was forgotten");
            return NULL;
        }
    }
    if (atomic_load(&turn->given) == 3) {
        return NULL;
    }
    if (atomic_load(&turn->given) == 2) {
        return open_node(r);
    }
    pool_unpin(turn->node);
    return turn->node;
}

static void use_and_give(struct pool_node *node, struct random *r)
{
    struct shared_node *mine = (struct shared_node *)node;
    struct pool_waiter *waiter;
    require(atomic_fetch_add(&mine->users, 1) < node->limit, "more users on a node than it has places");
    if (below(r, 4) == 0) {
        sched_yield(); /* so that the others want it meanwhile, on however few cores */
    }
    atomic_fetch_sub(&mine->users, 1);
    switch (pool_give(&pool, node, node->shareable || below(r, 20) != 0, NOW, &waiter)) {
    case GAVE_WAITER:
        grant(waiter, node);
        serve_others();
        break;
    case GAVE_CLOSE:
        end_node(node);
        break;
    case GAVE_KEPT:
        break;
    }
}

static void *work(void *arg)
{
    struct turn *turn = arg;
    struct random r = {.state = walk.seed + (uint64_t)(turn - turns) * 977};
    for (uint64_t i = 0; i < walk.steps / THREADS && atomic_load(&fault) == NULL; i++) {
        struct pool_node *node = NULL, *chain;
        switch (pool_take(&pool, NOW, below(&r, 32) == 0, &node, &chain)) {
        case POOL_HIT:
            pool_unpin(node);
            break;
        case POOL_OPEN:
            node = open_node(&r);
            break;
        default:
            node = await(turn, &r);
            break;
        }
        if (node != NULL) {
            use_and_give(node, &r);
        }
    }
    return NULL;
}

/* Whatever the threads do: no more nodes than max_open, no more users on a node than places, and nobody waits for ever. */
START_TEST(many_threads)
{
    pthread_t threads[THREADS];
    pool_init(&pool, &(struct pool_limits){
                         .expire_ns = 1000000000, .max_idle = 3, .max_open = MAX_OPEN, .max_dialling = 2, .max_uses = 50});
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &turns[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    const char *what = atomic_load(&fault);
    ck_assert_msg(what == NULL, "%s", what);
    for (struct pool_node *node = pool_stop(&pool), *next; node != NULL; node = next) {
        next = node->next;
        pool_unpin(node);
        end_node(node);
    }
    struct pool_counts c;
    pool_get_counts(&pool, &c);
    ck_assert_uint_eq(c.open, 0);
    ck_assert_uint_eq(c.idle, 0);
    ck_assert_uint_eq(c.dialling, 0);
    ck_assert_uint_eq(c.waiting, 0);
    ck_assert_uint_eq(c.dials, c.died + c.used_up + c.overflow + c.expired + c.aged + c.stopped);
    ck_assert_uint_gt(atomic_load(&waited), 0);
    ck_assert_uint_gt(atomic_load(&failed), 0);
    if (walk.steps > WALK_STEPS) {
        (void)fprintf(stderr, "# %d threads: %llu hits, %lu waits, %lu canceled, %lu ended by a dial, %llu nodes\n", THREADS,
                      (unsigned long long)c.hits, atomic_load(&waited), atomic_load(&canceled), atomic_load(&failed),
                      (unsigned long long)c.dials);
    }
    pool_fini(&pool);
}
END_TEST

int main(int argc, char **argv)
{
    walk_read(argc, argv);
    Suite *suite = suite_create("pool threads");
    TCase *tcase = tcase_create("threads");
    tcase_add_test(tcase, many_threads);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
