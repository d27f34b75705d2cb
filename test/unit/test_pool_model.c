/* The pool against a model of it (pool_model.c). walk.h says how to have it go on for longer.
 *
 * Happy path: a random operation is done on both; what it returns and all books are compared. A world with new limits begins every
 * thousand steps. Failure: the test says seed, world and step, which repeat it.
 */
#include "pool_model.h"
#include "suite.h"
#include "walk.h"

#include <stdio.h>
#include <string.h>

enum { WORLD_STEPS = 1000 };

static struct pool pool;
static struct pool_node nodes[NODES];
static struct pool_waiter waiters[WAITERS];
static bool waiting[WAITERS];
static uint32_t pins[NODES];

/* --- comparing ---------------------------------------------------------------------------------------------------- */

static uint64_t world, step;

#define same(real, modelled)                                                                                           \
    do {                                                                                                               \
        uint64_t real_ = (uint64_t)(real), modelled_ = (uint64_t)(modelled);                                           \
        if (real_ != modelled_) {                                                                                      \
            ck_abort_msg("seed %llu world %llu step %llu: %s is %llu, in the model %llu", (unsigned long long)walk.seed,    \
                         (unsigned long long)world, (unsigned long long)step, #real, (unsigned long long)real_,        \
                         (unsigned long long)modelled_);                                                               \
        }                                                                                                              \
    } while (0)

static int index_of(const struct pool_node *node)
{
    return node == NULL ? -1 : (int)(node - nodes);
}

static int waiter_of(const struct pool_waiter *waiter)
{
    return waiter == NULL ? -1 : (int)(waiter - waiters);
}

static void compare_books(void)
{
    struct pool_counts c;
    const struct pool_counts *m = &model.counts;
    pool_get_counts(&pool, &c);
    same(c.open, model_open());
    same(c.idle, model_idle());
    same(c.closing, model_closing());
    same(c.dialling, model_dialling());
    same(c.waiting, model.queued);
    same(c.in_flight, model_in_flight());
    same(c.hits, m->hits);
    same(c.misses, m->misses);
    same(c.dials, m->dials);
    same(c.open_failed, m->open_failed);
    same(c.waits, m->waits);
    same(c.refused, m->refused);
    same(c.expired, m->expired);
    same(c.aged, m->aged);
    same(c.used_up, m->used_up);
    same(c.overflow, m->overflow);
    same(c.renewed, m->renewed);
    same(c.died, m->died);
    same(c.stopped, m->stopped);
    if (model.limits.max_open > 0) {
        ck_assert_uint_le(c.open, model.limits.max_open);
    }
    if (model.limits.max_dialling > 0) {
        ck_assert_uint_le(c.dialling, model.limits.max_dialling);
    }
    for (int i = 0; i < NODES; i++) {
        same(atomic_load(&nodes[i].pins), pins[i]);
    }
}

/* --- one step on both --------------------------------------------------------------------------------------------- */

static struct random rnd;
static bool ending;

/* A random node in one of the states of the mask, of which the test holds so many places at least; -1 when there is none. */
static int some_node_with(unsigned states, uint32_t places)
{
    int at = (int)below(&rnd, NODES);
    for (int i = 0; i < NODES; i++, at = (at + 1) % NODES) {
        const struct model_node *n = &model.nodes[at];
        if ((states >> n->state & 1) != 0 && n->used >= places && !n->closing) {
            return at;
        }
    }
    return -1;
}

static int some_node(unsigned states)
{
    return some_node_with(states, 1);
}

static int free_node(void)
{
    for (int i = 0; i < NODES; i++) {
        if (model.nodes[i].state == GONE) {
            return i;
        }
    }
    return -1;
}

static void unpin(int i)
{
    pool_unpin(&nodes[i]);
    pins[i]--;
}

static void took(int i)
{
    same(atomic_load(&nodes[i].pins), ++pins[i]);
    unpin(i);
}

static void served(int waiter)
{
    if (waiter >= 0) {
        waiting[waiter] = false;
    }
}

/* Tells both that a node is gone, perhaps only later that it is closed. */
static void lose(int i)
{
    same(pool_lost(&pool, &nodes[i]), model.queued > 0);
    model_close(i, model.stopped ? &model.counts.stopped : &model.counts.died);
    if (below(&rnd, 4) == 0 && !ending) {
        return;
    }
    int real = waiter_of(pool_closed(&pool, &nodes[i]));
    model.nodes[i] = (struct model_node){0};
    model.starved = false;
    int turn = model_turn();
    same(real, turn);
    served(turn);
}

static void close_chain(struct pool_node *chain, uint64_t expected)
{
    uint64_t closed = 0;
    struct pool_node *next;
    for (struct pool_node *node = chain; node != NULL; node = node->next) {
        closed |= UINT64_C(1) << index_of(node);
    }
    same(closed, expected);
    for (; chain != NULL; chain = next) {
        next = chain->next;
        int i = index_of(chain);
        pins[i]++;
        unpin(i);
        lose(i);
    }
}

static void queue_up(bool again)
{
    for (int w = 0; w < WAITERS; w++) {
        if (!waiting[w]) {
            bool modelled = model_wait(w, again);
            same(pool_wait(&pool, &waiters[w], again), modelled);
            waiting[w] = modelled;
            return;
        }
    }
}

static void step_take(bool fresh)
{
    struct pool_node *node = NULL, *chain = NULL;
    uint64_t closed = 0;
    int modelled;
    enum pool_take what = model_take(fresh, &modelled, &closed);
    same(pool_take(&pool, model.now, fresh, &node, &chain), what);
    same(index_of(what == POOL_HIT ? node : NULL), modelled);
    if (what == POOL_HIT) {
        took(modelled);
    }
    close_chain(chain, closed);
    if (what == POOL_WAIT && below(&rnd, 4) != 0) {
        queue_up(below(&rnd, 8) == 0);
    }
}

static void fail_open(void)
{
    int real = waiter_of(pool_open_failed(&pool));
    model.opening--;
    model.counts.open_failed++;
    model.starved = true;
    int turn = model_turn();
    same(real, turn);
    served(turn);
}

static void step_opened(void)
{
    int i = free_node();
    if (model.opening == 0) {
        return;
    }
    if (i < 0 || below(&rnd, 8) == 0) {
        fail_open();
        return;
    }
    static const enum pool_adopted hows[] = {ADOPT_READY, ADOPT_DIALLING, ADOPT_DIALLING, ADOPT_SPARE};
    enum pool_adopted how = hows[below(&rnd, 4)];
    uint32_t limit = below(&rnd, 2) == 0 ? 1 : 1 + below(&rnd, 4);
    nodes[i] = (struct pool_node){.limit = limit};
    pool_adopt(&pool, &nodes[i], how, model.now, 0);
    model.opening--;
    model.counts.dials++;
    model.nodes[i] = (struct model_node){
        .state = how == ADOPT_READY ? READY : how == ADOPT_SPARE ? SPARE : DIALLING,
        .in_books = true,
        .fresh_spare = how == ADOPT_SPARE,
        .used = 1,
        .limit = limit,
        .epoch = model.epoch,
        .used_ns = model.now,
        .until_ns = model.limits.max_age_ns > 0 ? model.now + model.limits.max_age_ns : UINT64_MAX,
    };
    if (how != ADOPT_SPARE) {
        model_share(i);
    }
}

static void step_disown(void)
{
    int i = some_node(1u << DIALLING | 1u << SPARE | 1u << READY);
    if (i < 0 || model.nodes[i].used > 1 || !model.nodes[i].in_books || model.nodes[i].uses > 0) {
        return;
    }
    pool_disown(&pool, &nodes[i]);
    model.nodes[i] = (struct model_node){0};
    model.opening++;
    model.counts.dials--;
    fail_open();
}

static void step_instead(void)
{
    int front = model_front(true);
    if (model.opening == 0) {
        return;
    }
    same(index_of(pool_take_instead(&pool)), front);
    if (front >= 0) {
        model.opening--;
        model.counts.misses--;
        model.counts.open_failed++;
        model_use(front);
        took(front);
    }
}

static void give(int i, bool success)
{
    struct pool_waiter *real = NULL;
    int waiter = -1;
    enum pool_gave gave = model_give(i, success, &waiter);
    same(pool_give(&pool, &nodes[i], success, model.now, &real), gave);
    same(waiter_of(real), waiter);
    served(waiter);
    if (gave == GAVE_WAITER) {
        took(i);
    } else if (gave == GAVE_CLOSE) {
        lose(i);
    }
}

static void step_ready(void)
{
    int i = some_node_with(1u << DIALLING | 1u << SPARE, 0); /* whoever dialled it may be gone */
    if (i < 0) {
        return;
    }
    int real = waiter_of(pool_ready(&pool, &nodes[i]));
    bool spare = model.nodes[i].state == SPARE;
    model.nodes[i].state = READY;
    model.epoch++;
    int turn = model_turn();
    same(real, turn);
    served(turn);
    if (spare) {
        give(i, true);
    }
}

/* Sometimes of a node that is ready, or being closed: it shows nothing then. */
static void step_dial_failed(void)
{
    int i = below(&rnd, 4) == 0 ? (int)below(&rnd, NODES) : some_node_with(1u << DIALLING | 1u << SPARE, 0);
    const struct model_node *n = &model.nodes[i < 0 ? 0 : i];
    if (i < 0 || n->state == GONE) {
        return;
    }
    bool dials = n->state != READY && !n->closing;
    bool all = dials && n->epoch == model.epoch && model.queued > 0;
    struct pool_waiter *waiter = pool_dial_failed(&pool, &nodes[i]);
    for (; all && model.queued > 0; waiter = waiter->next) {
        int w = model_pop();
        same(waiter_of(waiter), w);
        served(w);
        model.shared_fate++;
    }
    same(waiter_of(waiter), -1);
    model.epoch += all;
    if (dials) {
        lose(i);
    }
}

static void step_give(void)
{
    int i = some_node(below(&rnd, 8) == 0 ? 1u << DIALLING : 1u << READY);
    if (i >= 0) {
        give(i, below(&rnd, 10) != 0);
    }
}

static void step_next(void)
{
    struct pool_node *node;
    int real = waiter_of(pool_next(&pool, model.now, &node));
    int waiter = -1, on = -1;
    if (!model.stopped && model.queued > 0) {
        on = model_shared();
        if (on >= 0) {
            waiter = model_pop();
            model_use(on);
        } else {
            waiter = model_turn();
        }
    }
    same(real, waiter);
    same(index_of(node), on);
    if (on >= 0) {
        took(on);
    }
    served(waiter);
}

static void step_unwait(void)
{
    int w = (int)below(&rnd, WAITERS);
    bool queued = false;
    for (int i = 0; i < model.queued; i++) {
        if (model.queue[i] == w) {
            queued = true;
            model.queued--;
            memmove(model.queue + i, model.queue + i + 1, (size_t)(model.queued - i) * sizeof(int));
        }
    }
    same(pool_unwait(&pool, &waiters[w]), queued);
    same(queued, waiting[w]);
    waiting[w] = false;
}

static void step_change(void)
{
    int i = some_node(1u << READY | 1u << DIALLING);
    if (i < 0) {
        return;
    }
    if (below(&rnd, 3) == 0) {
        pool_retire(&pool, &nodes[i]);
        model.nodes[i].retired = true;
        model_unlist(i);
        return;
    }
    if (below(&rnd, 3) == 0) {
        uint64_t idle_ns = (1 + below(&rnd, 8)) * SECOND / 2;
        pool_bound_idle(&pool, &nodes[i], idle_ns);
        model.nodes[i].idle_ns = idle_ns;
        return;
    }
    uint32_t limit = 1 + below(&rnd, 5);
    pool_set_limit(&pool, &nodes[i], limit);
    model.nodes[i].limit = limit;
    model_share(i);
}

static void step_lost(void)
{
    int i = (int)below(&rnd, NODES);
    if (model.nodes[i].state != GONE) {
        lose(i);
    }
}

static void step_sweep(void)
{
    uint64_t closed = 0, patience = model.now - (1 + below(&rnd, 4)) * SECOND;
    for (int i = 0; i < NODES; i++) {
        struct model_node *n = &model.nodes[i];
        bool stuck = n->state == SPARE && n->used_ns < patience && !n->closing;
        bool over = n->idle && model_expired(i);
        if (over || (n->idle && model_aged(i)) || stuck) {
            model_close(i, stuck ? &model.counts.died : over ? &model.counts.expired : &model.counts.aged);
            closed |= UINT64_C(1) << i;
        }
    }
    model.starved = false;
    close_chain(pool_sweep(&pool, model.now, patience), closed);
}

static void step_stop(void)
{
    uint64_t closed = 0;
    model.stopped = true;
    for (int i = 0; i < NODES; i++) {
        if (model.nodes[i].idle || (model.nodes[i].state == SPARE && !model.nodes[i].closing)) {
            model_close(i, &model.counts.stopped);
            closed |= UINT64_C(1) << i;
        }
    }
    close_chain(pool_stop(&pool), closed);
}

static void step_missing(void)
{
    uint32_t missing = 0, most = model.limits.max_dialling;
    while (!model.stopped && model_idle() + model_dialling() < model.limits.min_idle && model_may_open() &&
           (most < 2 || model_dialling() < most / 2)) {
        model.opening++;
        missing++;
    }
    same(pool_missing(&pool), missing);
}

static void any_step(void)
{
    uint32_t dice = below(&rnd, 1000);
    model.now += below(&rnd, 3) == 0 ? below(&rnd, 1000000000) / 4 : 0;
    if (dice < 300) {
        step_take(dice < 20);
    } else if (dice < 480) {
        step_opened();
    } else if (dice < 600) {
        step_ready();
    } else if (dice < 850) {
        step_give();
    } else if (dice < 880) {
        step_unwait();
    } else if (dice < 895) {
        step_lost();
    } else if (dice < 910) {
        step_dial_failed();
    } else if (dice < 930) {
        step_next();
    } else if (dice < 950) {
        step_change();
    } else if (dice < 965) {
        step_sweep();
    } else if (dice < 980) {
        step_missing();
    } else if (dice < 990) {
        step_instead();
    } else if (dice < 999) {
        step_disown();
    } else if (below(&rnd, 4) == 0) {
        step_stop();
    }
}

static uint32_t maybe(uint32_t most)
{
    return below(&rnd, 2) == 0 ? 0 : 1 + below(&rnd, most);
}

static void begin_world(void)
{
    model = (struct model){
        .last_given = -1,
        .limits = {
            .expire_ns = below(&rnd, 12) == 0 ? 0 : (1 + below(&rnd, 8)) * SECOND,
            .max_age_ns = maybe(10) * SECOND,
            .max_idle = maybe(8),
            .min_idle = maybe(6),
            .max_uses = maybe(12),
            .max_open = maybe(20),
            .max_dialling = maybe(6),
            .never_wait = below(&rnd, 6) == 0,
            .fresh_per_s = below(&rnd, 4) == 0 ? 1 + below(&rnd, 12) : 0,
        },
    };
    memset(nodes, 0, sizeof(nodes));
    memset(waiters, 0, sizeof(waiters));
    memset(waiting, 0, sizeof(waiting));
    memset(pins, 0, sizeof(pins));
    model.now = 1000 * SECOND;
    ending = false;
    pool_init(&pool, &model.limits);
}

static void end_world(void)
{
    ending = true;
    step_stop();
    for (int w = 0; w < WAITERS; w++) {
        (void)pool_unwait(&pool, &waiters[w]);
    }
    model.queued = 0;
    for (int i = 0; i < NODES; i++) {
        if (model.nodes[i].state != GONE) {
            lose(i);
        }
    }
    while (model.opening > 0) {
        fail_open();
    }
    compare_books();
    pool_fini(&pool);
}

START_TEST(same_as_the_model)
{
    struct pool_counts total = {0};
    uint64_t shared_fate = 0;
    rnd.state = walk.seed;
    for (step = 0, world = 0; step < walk.steps; world++) {
        begin_world();
        for (uint32_t i = 0; i < WORLD_STEPS && step < walk.steps; i++, step++) {
            any_step();
            compare_books();
        }
        end_world();
        total.hits += model.counts.hits;
        total.waits += model.counts.waits;
        total.refused += model.counts.refused;
        total.overflow += model.counts.overflow;
        total.used_up += model.counts.used_up;
        total.renewed += model.counts.renewed;
        shared_fate += model.shared_fate;
    }
    /* the walk goes where the rules are */
    ck_assert(total.hits > 0 && total.waits > 0 && total.overflow > 0 && total.used_up > 0 && total.renewed > 0 && shared_fate > 0);
    if (walk.steps > WALK_STEPS) {
        (void)fprintf(stderr, "# %llu steps, %llu worlds: %llu hits, %llu waits, %llu of them ended by a dial\n", (unsigned long long)step,
                      (unsigned long long)world, (unsigned long long)total.hits, (unsigned long long)total.waits,
                      (unsigned long long)shared_fate);
    }
}
END_TEST

int main(int argc, char **argv)
{
    walk_read(argc, argv);
    Suite *suite = suite_create("pool model");
    TCase *tcase = tcase_create("model");
    tcase_add_test(tcase, same_as_the_model);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
