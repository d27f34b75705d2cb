/* The pool under a clock that the test moves: order, limits, the budget of ports, stop; and that no
 * node has two owners. */
#include "pool.h"

#include "suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define MS UINT64_C(1000000)
#define EXPIRE (10 * SECOND)

static struct pool pool;
static struct pool_node nodes[64];
static unsigned opened;
static uint64_t now;

static void open_pool(const struct pool_limits *limits)
{
    pool_init(&pool, limits);
    memset(nodes, 0, sizeof(nodes));
    opened = 0;
    now = 1000 * SECOND;
}

static void open_plain(void)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE});
}

static void lose(struct pool_node *node)
{
    pool_lost(&pool, node);
    ck_assert_ptr_null(pool_closed(&pool, node));
}

/** Books what a call returned to be closed. @return how many */
static unsigned close_chain(struct pool_node *chain)
{
    unsigned count = 0;
    while (chain != NULL) {
        struct pool_node *next = chain->next;
        ck_assert_int_eq(chain->place, PLACE_OUT);
        pool_unpin(chain);
        lose(chain);
        chain = next;
        count++;
    }
    return count;
}

static void close_pool(void)
{
    (void)close_chain(pool_stop(&pool));
    struct pool_counts counts;
    pool_get_counts(&pool, &counts);
    ck_assert_uint_eq(counts.idle, 0);
    ck_assert_uint_eq(counts.open, 0);
    pool_fini(&pool);
}

/** What was opened becomes a node for one exchange at a time. */
static void adopt(struct pool_node *node)
{
    node->limit = 1;
    pool_adopt(&pool, node, ADOPT_READY, now, 0);
}

/** Takes a node, opening one where the pool says so. */
static struct pool_node *take(void)
{
    struct pool_node *node = NULL, *chain = NULL;
    enum pool_take what = pool_take(&pool, now, false, &node, &chain);
    (void)close_chain(chain);
    ck_assert_int_ne(what, POOL_STOPPED);
    if (what == POOL_OPEN) {
        ck_assert_uint_lt(opened, 64);
        node = &nodes[opened++];
        adopt(node);
    }
    return node;
}

static bool give(struct pool_node *node)
{
    struct pool_waiter *waiter = NULL;
    enum pool_gave gave = pool_give(&pool, node, true, now, &waiter);
    ck_assert_int_ne(gave, GAVE_WAITER);
    if (gave == GAVE_CLOSE) {
        lose(node);
    }
    return gave == GAVE_KEPT;
}

static struct pool_counts counts(void)
{
    struct pool_counts result;
    pool_get_counts(&pool, &result);
    return result;
}

/** Takes `count` new nodes and gives them back in order. */
static void fill(unsigned count)
{
    struct pool_node *taken[64];
    for (unsigned i = 0; i < count; i++) {
        taken[i] = take();
    }
    for (unsigned i = 0; i < count; i++) {
        (void)give(taken[i]);
    }
}

/* case 65: first in, first out. */
START_TEST(fifo_case_65)
{
    open_plain();
    fill(5);
    ck_assert_uint_eq(counts().idle, 5);
    for (unsigned i = 0; i < 20; i++) {
        struct pool_node *node = take();
        ck_assert_ptr_eq(node, &nodes[i % 5]);
        ck_assert(give(node));
    }
    ck_assert_uint_eq(counts().misses, 5);
    ck_assert_uint_eq(counts().hits, 20);
    close_pool();
}
END_TEST

/* case 66: idle for expire: good; one nanosecond longer: closed, and so are all before the first
 * good one. */
START_TEST(expire_case_66)
{
    open_plain();
    fill(3);
    now += EXPIRE;
    ck_assert_ptr_eq(take(), &nodes[0]);
    now += 1;
    ck_assert_ptr_eq(take(), &nodes[3]);
    ck_assert_uint_eq(counts().expired, 2);
    ck_assert_uint_eq(counts().open, 2);
    lose(&nodes[0]);
    lose(&nodes[3]);
    close_pool();
}
END_TEST

/* case 29: expire 0 means never again, even at the same instant. */
START_TEST(expire_0_case_29)
{
    open_pool(&(struct pool_limits){.expire_ns = 0});
    fill(1);
    struct pool_node *node = take();
    ck_assert_ptr_eq(node, &nodes[1]);
    lose(node);
    close_pool();
}
END_TEST

/* case 66: use keeps a node from expiring, not from ageing. */
START_TEST(max_age_case_66)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .max_age_ns = 25 * SECOND});
    struct pool_node *node = take();
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(give(node));
        now += 8 * SECOND;
        ck_assert_ptr_eq(take(), node);
    }
    ck_assert(give(node));
    now += SECOND + 1;
    ck_assert_ptr_eq(take(), &nodes[1]);
    ck_assert_uint_eq(counts().aged, 1);
    /* too old on return: not kept */
    now += 26 * SECOND;
    ck_assert(!give(&nodes[1]));
    ck_assert_uint_eq(counts().aged, 2);
    close_pool();
}
END_TEST

/* case 67: a full pool refuses; 0 is no limit (fifo above). */
START_TEST(max_idle_case_67)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .max_idle = 2});
    fill(5);
    ck_assert_uint_eq(counts().idle, 2);
    ck_assert_uint_eq(counts().open, 2);
    ck_assert_uint_eq(counts().overflow, 3);
    close_pool();
}
END_TEST

START_TEST(max_uses)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .max_uses = 3});
    struct pool_node *node = take();
    ck_assert(give(node));
    ck_assert_ptr_eq(take(), node);
    ck_assert(give(node));
    ck_assert_ptr_eq(take(), node);
    ck_assert(!give(node));
    ck_assert_uint_eq(counts().used_up, 1);
    close_pool();
}
END_TEST

/* cases 68, 69: the janitor takes the expired ones at the front, and the aged ones wherever they
 * are. */
START_TEST(sweep_case_68_69)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .max_age_ns = 20 * SECOND});
    fill(1);
    now += 9 * SECOND;
    struct pool_node *oldest = take();
    fill(1);
    ck_assert(give(oldest));
    ck_assert_ptr_null(pool_sweep(&pool, now, 0));
    now += 9 * SECOND;
    struct pool_node *young = take();
    ck_assert_ptr_eq(young, &nodes[1]);
    ck_assert_ptr_eq(take(), oldest);
    ck_assert(give(young));
    ck_assert(give(oldest)); /* behind the younger one */
    now += 3 * SECOND;
    ck_assert_uint_eq(close_chain(pool_sweep(&pool, now, 0)), 1);
    ck_assert_uint_eq(counts().aged, 1);
    ck_assert_uint_eq(counts().idle, 1);
    now += 8 * SECOND;
    ck_assert_uint_eq(close_chain(pool_sweep(&pool, now, 0)), 1);
    ck_assert_uint_eq(counts().expired + counts().aged, 2);
    close_pool();
}
END_TEST

/* case 70: after stop take says so every time and what comes back is closed. */
START_TEST(stop_case_70)
{
    struct pool_node *node = NULL, *chain = NULL;
    open_plain();
    fill(3);
    struct pool_node *out = take();
    ck_assert_uint_eq(close_chain(pool_stop(&pool)), 2);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(pool_take(&pool, now, false, &node, &chain), POOL_STOPPED);
        ck_assert_ptr_null(chain);
    }
    ck_assert(!give(out));
    close_pool();
}
END_TEST

/* fresh: an idle node is not used. */
START_TEST(fresh)
{
    struct pool_node *node = NULL, *chain = NULL;
    open_plain();
    fill(2);
    ck_assert_int_eq(pool_take(&pool, now, true, &node, &chain), POOL_OPEN);
    ck_assert_uint_eq(counts().idle, 2);
    ck_assert_uint_eq(counts().open, 3);
    pool_open_failed(&pool);
    ck_assert_uint_eq(counts().open, 2);
    close_pool();
}
END_TEST

/* Who cannot open takes what there is, and the numbers stay right. */
START_TEST(take_instead)
{
    struct pool_node *node = NULL, *chain = NULL;
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .fresh_per_s = 4});
    for (unsigned i = 0; i < 4; i++) {
        (void)take();
    }
    ck_assert(give(&nodes[0]));
    ck_assert(give(&nodes[1]));
    now += SECOND;
    ck_assert_int_eq(pool_take(&pool, now, false, &node, &chain), POOL_OPEN);
    ck_assert_ptr_eq(pool_take_instead(&pool), &nodes[0]);
    ck_assert_int_eq(pool_take(&pool, now, false, &node, &chain), POOL_OPEN);
    ck_assert_ptr_eq(pool_take_instead(&pool), &nodes[1]);
    ck_assert_int_eq(pool_take(&pool, now, false, &node, &chain), POOL_OPEN);
    ck_assert_ptr_null(pool_take_instead(&pool));
    ck_assert_ptr_null(pool_open_failed(&pool));
    ck_assert_uint_eq(counts().open, 4);
    ck_assert_uint_eq(counts().hits, 2);
    for (unsigned i = 0; i < 4; i++) {
        lose(&nodes[i]);
    }
    close_pool();
}
END_TEST

/* A node that is lost leaves the FIFO wherever it is; it is booked once however often it is said.
 */
/* --- waiting for those who dial ----------------------------------------------------------------- */

static struct pool_waiter queue[4];

static struct pool_node *dial(void)
{
    struct pool_node *node, *close;
    ck_assert_int_eq(pool_take(&pool, now, false, &node, &close), POOL_OPEN);
    ck_assert_uint_lt(opened, 64);
    node = &nodes[opened++];
    node->limit = 1;
    pool_adopt(&pool, node, ADOPT_DIALLING, now, 0);
    return node;
}

static void wait_here(struct pool_waiter *waiter)
{
    struct pool_node *node, *close;
    ck_assert_int_eq(pool_take(&pool, now, false, &node, &close), POOL_WAIT);
    ck_assert(pool_wait(&pool, waiter, false));
}

/** Two places to dial, both taken; then two waiters. */
static void open_dialling(struct pool_node *dials[2])
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .max_dialling = 2});
    memset(queue, 0, sizeof(queue));
    dials[0] = dial();
    dials[1] = dial();
    wait_here(&queue[0]);
    wait_here(&queue[1]);
}

/** Closes a node; the first of who waits has its place, and opens nothing. */
static void close_and_turn(struct pool_node *node, struct pool_waiter *expected)
{
    ck_assert(pool_lost(&pool, node) == (expected != NULL));
    ck_assert_ptr_eq(pool_closed(&pool, node), expected);
}

/* All who wait end with the dial, in their order, and nobody else can have them. The other dial, which began before they
 * came, is no second verdict: who comes after the first has a turn of his own. */
START_TEST(failed_dial_ends_waiters)
{
    struct pool_node *dials[2];
    open_dialling(dials);
    struct pool_waiter *ended = pool_dial_failed(&pool, dials[0]);
    ck_assert_ptr_eq(ended, &queue[0]);
    ck_assert_ptr_eq(ended->next, &queue[1]);
    ck_assert_ptr_null(ended->next->next);
    ck_assert(!pool_unwait(&pool, &queue[0]));
    ck_assert(!pool_unwait(&pool, &queue[1]));
    wait_here(&queue[2]);
    wait_here(&queue[3]);
    ck_assert_ptr_null(pool_dial_failed(&pool, dials[1]));
    close_and_turn(dials[1], &queue[2]);
    struct pool_node *third = &nodes[opened++];
    third->limit = 1;
    pool_adopt(&pool, third, ADOPT_DIALLING, now, 0);
    ck_assert_ptr_eq(pool_dial_failed(&pool, third), &queue[3]);
    lose(dials[0]);
    lose(third);
    close_pool();
}
END_TEST

/* One that has become ready meanwhile serves them, and so does one whose exchange has succeeded. */
START_TEST(failed_dial_beside_a_good_one)
{
    struct pool_node *dials[2];
    open_dialling(dials);
    ck_assert_ptr_eq(pool_ready(&pool, dials[0]), &queue[0]);
    struct pool_node *third = &nodes[opened++];
    third->limit = 1;
    pool_adopt(&pool, third, ADOPT_DIALLING, now, 0);
    ck_assert_ptr_null(pool_dial_failed(&pool, dials[1]));
    struct pool_waiter *waiter = NULL;
    ck_assert_int_eq(pool_give(&pool, dials[0], true, now, &waiter), GAVE_WAITER);
    ck_assert_ptr_eq(waiter, &queue[1]);
    pool_unpin(dials[0]);
    wait_here(&queue[2]);
    ck_assert_ptr_null(pool_dial_failed(&pool, third));
    ck_assert(pool_unwait(&pool, &queue[2]));
    for (unsigned i = 0; i < opened; i++) {
        lose(&nodes[i]);
    }
    close_pool();
}
END_TEST

/* A node that is ready, or given up already, has no dial that could fail. */
START_TEST(failed_dial_of_nobody)
{
    struct pool_node *dials[2];
    open_dialling(dials);
    ck_assert(pool_lost(&pool, dials[0]));
    ck_assert_ptr_null(pool_dial_failed(&pool, dials[0]));
    ck_assert(pool_unwait(&pool, &queue[0]));
    ck_assert(pool_unwait(&pool, &queue[1]));
    ck_assert_ptr_null(pool_closed(&pool, dials[0]));
    lose(dials[1]);
    close_pool();
}
END_TEST

/* Spare nodes may hang in half of the dials; the others are for those who ask. */
START_TEST(spares_leave_room)
{
    static const struct {
        uint32_t max_dialling, spares;
    } rooms[] = {{0, 10}, {1, 1}, {2, 1}, {7, 3}, {256, 10}};
    for (unsigned i = 0; i < sizeof(rooms) / sizeof(*rooms); i++) {
        open_pool(&(struct pool_limits){
            .expire_ns = EXPIRE, .min_idle = 10, .max_dialling = rooms[i].max_dialling});
        ck_assert_uint_eq(pool_missing(&pool), rooms[i].spares);
        for (unsigned k = 0; k < rooms[i].spares; k++) {
            ck_assert_ptr_null(pool_open_failed(&pool));
        }
        close_pool();
    }
}
END_TEST

START_TEST(lost)
{
    open_plain();
    fill(3);
    lose(&nodes[1]);
    lose(&nodes[1]);
    ck_assert_uint_eq(counts().died, 1);
    ck_assert_uint_eq(counts().open, 2);
    ck_assert_ptr_eq(take(), &nodes[0]);
    ck_assert_ptr_eq(take(), &nodes[2]);
    lose(&nodes[0]);
    lose(&nodes[2]);
    close_pool();
}
END_TEST

/* --- the budget ------------------------------------------------------------------------------ */

/** Asks one query after the other, step_ns apart. @return how many nodes were opened; checks that
 * none follows itself */
static unsigned ask(unsigned count, uint64_t step_ns)
{
    struct pool_node *last = NULL;
    unsigned opens = 0;
    for (unsigned i = 0; i < count; i++) {
        struct pool_node *node = NULL, *chain = NULL;
        if (pool_take(&pool, now, false, &node, &chain) == POOL_OPEN) {
            node = calloc(1, sizeof(*node));
            adopt(node);
            opens++;
        }
        while (chain != NULL) {
            struct pool_node *next = chain->next;
            lose(chain);
            free(chain);
            chain = next;
        }
        ck_assert_msg(node != last, "query %u came from the same node as the one before", i);
        last = node;
        if (!give(node)) {
            /* a new one could get its address; the comparison above needs another */
            last = NULL;
            free(node);
        }
        now += step_ns;
    }
    return opens;
}

static void close_asked(void)
{
    struct pool_node *chain = pool_stop(&pool);
    while (chain != NULL) {
        struct pool_node *next = chain->next;
        lose(chain);
        free(chain);
        chain = next;
    }
    pool_fini(&pool);
}

/* RFC 5452 9.2: below the budget every query opens. */
START_TEST(budget_below)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .fresh_per_s = 1000});
    ck_assert_uint_eq(ask(3000, 2 * MS), 3000);
    ck_assert_uint_eq(counts().idle, 0);
    close_asked();
}
END_TEST

/* Above it no more than the budget is opened, once, and what there is goes round: half of what may lie idle at least. */
START_TEST(budget_above)
{
    static const uint32_t budgets[] = {1, 2, 3, 10, 100, 1000};
    for (size_t i = 0; i < sizeof(budgets) / sizeof(*budgets); i++) {
        open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .fresh_per_s = budgets[i]});
        unsigned opens = ask(20000, SECOND / 4000); /* 5 s at 4,000/s */
        unsigned round = budgets[i] < 2 ? 2 : budgets[i] > 256 ? 256 : budgets[i];
        ck_assert_msg(opens >= round / 2 && opens <= budgets[i] + 3, "budget %u: %u opened",
                      budgets[i], opens);
        ck_assert_uint_ge(counts().idle, round / 2);
        ck_assert_uint_le(counts().idle, budgets[i] < 2 ? 2 : budgets[i]);
        close_asked();
    }
}
END_TEST

/* After a pause the budget is whole again, not more. */
START_TEST(budget_after_a_pause)
{
    open_pool(&(struct pool_limits){.expire_ns = EXPIRE, .fresh_per_s = 100});
    (void)ask(200, 0);
    now += 3600 * SECOND;
    unsigned opens = ask(300, 0);
    ck_assert_uint_ge(opens, 100);
    ck_assert_uint_le(opens, 102);
    close_asked();
}
END_TEST

/* --- threads --------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
};

static atomic_uint owners[64];

/** @return NULL, or what went wrong */
static void *use(void *arg)
{
    static char two_owners[] = "a node had two owners";
    (void)arg;
    for (unsigned i = 0; i < 20000; i++) {
        struct pool_node *node = NULL, *chain = NULL;
        if (pool_take(&pool, now, false, &node, &chain) != POOL_HIT) {
            pool_open_failed(&pool);
            continue;
        }
        atomic_uint *owner = &owners[node - nodes];
        if (atomic_fetch_add(owner, 1) != 0) {
            return two_owners;
        }
        atomic_fetch_sub(owner, 1);
        struct pool_waiter *waiter = NULL;
        pool_unpin(node);
        (void)pool_give(&pool, node, true, now, &waiter);
    }
    return NULL;
}

START_TEST(one_owner)
{
    struct worker workers[4];
    open_plain();
    fill(6);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, use, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        void *fault;
        pthread_join(workers[i].thread, &fault);
        ck_assert_msg(fault == NULL, "%s", (const char *)fault);
    }
    ck_assert_uint_eq(counts().idle, 6);
    ck_assert_uint_eq(counts().open, 6);
    close_pool();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("pool");
    tcase_add_test(tcase, fifo_case_65);
    tcase_add_test(tcase, expire_case_66);
    tcase_add_test(tcase, expire_0_case_29);
    tcase_add_test(tcase, max_age_case_66);
    tcase_add_test(tcase, max_idle_case_67);
    tcase_add_test(tcase, max_uses);
    tcase_add_test(tcase, sweep_case_68_69);
    tcase_add_test(tcase, stop_case_70);
    tcase_add_test(tcase, fresh);
    tcase_add_test(tcase, take_instead);
    tcase_add_test(tcase, failed_dial_ends_waiters);
    tcase_add_test(tcase, failed_dial_beside_a_good_one);
    tcase_add_test(tcase, failed_dial_of_nobody);
    tcase_add_test(tcase, spares_leave_room);
    tcase_add_test(tcase, lost);
    tcase_add_test(tcase, budget_below);
    tcase_add_test(tcase, budget_above);
    tcase_add_test(tcase, budget_after_a_pause);
    tcase_add_test(tcase, one_owner);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
