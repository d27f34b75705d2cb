/* The pool against a model of it: arrays, searched from end to end, in which every rule of pool.h is one plain line; and the pool alone with many
 * threads, each of which checks what must hold whatever the others do.
 *
 *   unit_pool_model [STEPS [SEED]]     (20,000 steps unless the argument or FWD_MODEL_STEPS says otherwise)
 *   CK_FORK=no CK_DEFAULT_TIMEOUT=0 unit_pool_model 10000000
 *
 * Happy path: a random operation is done on both; what it returns and all books are compared. A world with new limits begins every
 * thousand steps. Failure: the test says seed, world and step, which repeat it.
 */
#include "pool.h"

#include "suite.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

enum { NODES = 40, WAITERS = 24, WORLD_STEPS = 1000, STEPS = 20000, THREADS = 8 };

static uint64_t steps_wanted = STEPS;
static uint64_t seed = 1;

struct random {
    uint64_t state;
};

static uint32_t below(struct random *r, uint32_t n)
{
    r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(r->state >> 33) % n;
}

/* --- the model ---------------------------------------------------------------------------------------------------- */

enum state { GONE, DIALLING, SPARE, READY };

struct model_node {
    enum state state;
    bool in_books; /* counted as open */
    bool closing;
    bool retired, fresh_spare;
    uint32_t used, uses, limit;
    uint64_t used_ns, until_ns, idle_ns, epoch;
    uint64_t order; /* in its list: the smaller is the nearer to the front; 0 in none */
    bool idle;
};

static struct model {
    struct pool_limits limits;
    struct model_node nodes[NODES];
    int queue[WAITERS]; /* waiters in order */
    int queued;
    uint64_t budget_ns, order, epoch;
    int last_given;
    uint64_t shared_fate; /* waiters that ended with a dial */
    uint32_t opening; /* POOL_OPENs that are nobody's node yet */
    bool stopped, starved;
    struct pool_counts counts;
} model;

static struct pool pool;
static struct pool_node nodes[NODES];
static struct pool_waiter waiters[WAITERS];
static bool waiting[WAITERS];
static uint64_t now;
static uint32_t pins[NODES];

static uint32_t model_open(void)
{
    uint32_t open = model.opening;
    for (int i = 0; i < NODES; i++) {
        open += model.nodes[i].in_books;
    }
    return open;
}

static uint32_t model_dialling(void)
{
    uint32_t dialling = model.opening;
    for (int i = 0; i < NODES; i++) {
        dialling += model.nodes[i].in_books && !model.nodes[i].closing && model.nodes[i].state != READY;
    }
    return dialling;
}

static uint32_t model_in_flight(void)
{
    uint32_t in_flight = 0;
    for (int i = 0; i < NODES; i++) {
        const struct model_node *n = &model.nodes[i];
        in_flight += n->in_books && !n->fresh_spare ? n->used : 0;
    }
    return in_flight;
}

static uint32_t model_idle(void)
{
    uint32_t idle = 0;
    for (int i = 0; i < NODES; i++) {
        idle += model.nodes[i].idle;
    }
    return idle;
}

static bool model_room(const struct model_node *n)
{
    return !n->retired && n->used < n->limit && (model.limits.max_uses == 0 || n->used + n->uses < model.limits.max_uses);
}

static bool model_may_open(void)
{
    return (model.limits.max_open == 0 || model_open() < model.limits.max_open) &&
           (model.limits.max_dialling == 0 || model_dialling() < model.limits.max_dialling);
}

/* The front of the idle or of the shared ones. */
static int model_front(bool idle)
{
    int front = -1;
    for (int i = 0; i < NODES; i++) {
        const struct model_node *n = &model.nodes[i];
        if (n->order != 0 && n->idle == idle && (front < 0 || n->order < model.nodes[front].order)) {
            front = i;
        }
    }
    return front;
}

static void model_unlist(int i)
{
    model.nodes[i].order = 0;
    model.nodes[i].idle = false;
}

static void model_list(int i, bool idle)
{
    model.nodes[i].order = ++model.order;
    model.nodes[i].idle = idle;
}

static void model_share(int i)
{
    model_unlist(i);
    if (model_room(&model.nodes[i])) {
        model_list(i, false);
    }
}

static void model_use(int i)
{
    model.nodes[i].used++;
    model.counts.hits++;
    model_share(i);
}

static void model_close(int i, uint64_t *reason)
{
    model_unlist(i);
    model.nodes[i].retired = true;
    if (!model.nodes[i].closing) {
        model.nodes[i].closing = true;
        (*reason)++;
    }
}

static uint32_t model_closing(void)
{
    uint32_t closing = 0;
    for (int i = 0; i < NODES; i++) {
        closing += model.nodes[i].closing;
    }
    return closing;
}

static bool model_aged(int i)
{
    return now > model.nodes[i].until_ns;
}

static bool model_expired(int i)
{
    uint64_t own = model.nodes[i].idle_ns, most = model.limits.expire_ns;
    return most == 0 || now > model.nodes[i].used_ns + (own > 0 && own < most ? own : most);
}

static bool model_spend(void)
{
    uint64_t token = SECOND / model.limits.fresh_per_s;
    if (model.budget_ns < now) {
        model.budget_ns = now;
    }
    bool there = model.budget_ns + token <= now + SECOND;
    model.budget_ns += there ? token : 0;
    return there;
}

static uint32_t model_most(void)
{
    const struct pool_limits *l = &model.limits;
    uint32_t budget = l->fresh_per_s == 0 ? UINT32_MAX : l->fresh_per_s < 2 ? 2 : l->fresh_per_s;
    return l->max_idle == 0 || l->max_idle > budget ? budget : l->max_idle;
}

/* More takes than the budget allows, and at least half of what may be idle is. */
static bool model_goes_round(uint32_t out)
{
    int front = model_front(true);
    uint32_t most = model_most() > 256 ? 256 : model_most();
    return front >= 0 && model_idle() + out >= most / 2 &&
           now < model.nodes[front].used_ns + model_idle() * (SECOND / model.limits.fresh_per_s);
}

/* The first idle node that is good; those before it are closed and set in the mask. */
static int model_good_idle(uint64_t *closed)
{
    int i;
    while ((i = model_front(true)) >= 0 && (model_expired(i) || model_aged(i))) {
        model_close(i, model_expired(i) ? &model.counts.expired : &model.counts.aged);
        *closed |= UINT64_C(1) << i;
    }
    return i;
}

static int model_shared(void)
{
    int i;
    while ((i = model_front(false)) >= 0 && model_aged(i)) {
        model.nodes[i].retired = true;
        model_unlist(i);
    }
    return i;
}

static enum pool_take model_take(bool fresh, int *ret, uint64_t *closed)
{
    *ret = -1;
    if (model.stopped) {
        return POOL_STOPPED;
    }
    if (model.queued == 0) {
        bool own = fresh || (model.limits.fresh_per_s > 0 &&
                             ((!model_goes_round(0) && model_spend()) || (model_front(true) >= 0 && model_front(true) == model.last_given && model.limits.max_idle != 1)));
        if (!own) {
            *ret = model_shared();
            *ret = *ret >= 0 ? *ret : model_good_idle(closed);
        }
        if (*ret < 0 && model_may_open()) {
            model.opening++;
            model.counts.misses++;
            return POOL_OPEN;
        }
        if (*ret < 0) {
            int idle = model_good_idle(closed);
            *ret = fresh ? -1 : idle;
        }
        if (*ret >= 0) {
            model_use(*ret);
            return POOL_HIT;
        }
    }
    model.counts.refused += model.limits.never_wait;
    return model.limits.never_wait ? POOL_REFUSED : POOL_WAIT;
}

static int model_pop(void)
{
    int first = model.queue[0];
    model.queued--;
    memmove(model.queue, model.queue + 1, (size_t)model.queued * sizeof(int));
    return first;
}

/* Who may open now; -1 nobody. */
static int model_turn(void)
{
    if (model.stopped || model.queued == 0 || !model_may_open() || (model.starved && model_open() > model_closing())) {
        return -1;
    }
    model.opening++;
    model.counts.misses++;
    return model_pop();
}

static bool model_wait(int w, bool again)
{
    if (model.stopped || (model.queued == 0 && (model_front(true) >= 0 || model_front(false) >= 0 || model_may_open()))) {
        return false;
    }
    int at = again ? 0 : model.queued;
    memmove(model.queue + at + 1, model.queue + at, (size_t)(model.queued - at) * sizeof(int));
    model.queue[at] = w;
    model.queued++;
    model.counts.waits += !again;
    return true;
}

static uint64_t *model_why_close(int i, bool success)
{
    const struct pool_limits *l = &model.limits;
    const struct model_node *n = &model.nodes[i];
    if (model.stopped) {
        return &model.counts.stopped;
    }
    if (!success) {
        return &model.counts.died;
    }
    if (l->expire_ns == 0) {
        return &model.counts.expired;
    }
    if (l->max_uses > 0 && n->uses >= l->max_uses) {
        return &model.counts.used_up;
    }
    if (n->retired) {
        return &model.counts.aged;
    }
    if (l->fresh_per_s > 0 && model.budget_ns + SECOND / l->fresh_per_s <= now + SECOND / 2 && !model_goes_round(1)) {
        return &model.counts.renewed;
    }
    return model_idle() >= model_most() ? &model.counts.overflow : NULL;
}

static enum pool_gave model_give(int i, bool success, int *ret_waiter)
{
    struct model_node *n = &model.nodes[i];
    model_unlist(i);
    model.epoch += success && n->state == READY && !n->fresh_spare;
    n->used--;
    n->uses += !n->fresh_spare;
    n->fresh_spare = false;
    n->used_ns = now;
    if (model_aged(i) || (model.limits.max_uses > 0 && n->uses + n->used >= model.limits.max_uses)) {
        n->retired = true;
    }
    bool shared = n->used > 0;
    if (model.queued > 0 && !model.stopped && !n->retired && (success || shared) && (model.limits.expire_ns > 0 || shared)) {
        *ret_waiter = model_pop();
        model_use(i);
        return GAVE_WAITER;
    }
    if (shared) {
        model_share(i);
        return GAVE_KEPT;
    }
    uint64_t *reason = model_why_close(i, success);
    model.last_given = reason == NULL ? i : -1;
    if (reason != NULL) {
        model_close(i, reason);
        return GAVE_CLOSE;
    }
    model_list(i, true);
    return GAVE_KEPT;
}

/* --- comparing ---------------------------------------------------------------------------------------------------- */

static uint64_t world, step;

#define same(real, modelled)                                                                                           \
    do {                                                                                                               \
        uint64_t real_ = (uint64_t)(real), modelled_ = (uint64_t)(modelled);                                           \
        if (real_ != modelled_) {                                                                                      \
            ck_abort_msg("seed %llu world %llu step %llu: %s is %llu, in the model %llu", (unsigned long long)seed,    \
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
    same(pool_take(&pool, now, fresh, &node, &chain), what);
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
    pool_adopt(&pool, &nodes[i], how, now, 0);
    model.opening--;
    model.counts.dials++;
    model.nodes[i] = (struct model_node){
        .state = how == ADOPT_READY ? READY : how == ADOPT_SPARE ? SPARE : DIALLING,
        .in_books = true,
        .fresh_spare = how == ADOPT_SPARE,
        .used = 1,
        .limit = limit,
        .epoch = model.epoch,
        .used_ns = now,
        .until_ns = model.limits.max_age_ns > 0 ? now + model.limits.max_age_ns : UINT64_MAX,
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
    same(pool_give(&pool, &nodes[i], success, now, &real), gave);
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
    int real = waiter_of(pool_next(&pool, now, &node));
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
    uint64_t closed = 0, patience = now - (1 + below(&rnd, 4)) * SECOND;
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
    close_chain(pool_sweep(&pool, now, patience), closed);
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
    now += below(&rnd, 3) == 0 ? below(&rnd, 1000000000) / 4 : 0;
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
    now = 1000 * SECOND;
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
    rnd.state = seed;
    for (step = 0, world = 0; step < steps_wanted; world++) {
        begin_world();
        for (uint32_t i = 0; i < WORLD_STEPS && step < steps_wanted; i++, step++) {
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
    if (steps_wanted > STEPS) {
        (void)fprintf(stderr, "# %llu steps, %llu worlds: %llu hits, %llu waits, %llu of them ended by a dial\n", (unsigned long long)step,
                      (unsigned long long)world, (unsigned long long)total.hits, (unsigned long long)total.waits,
                      (unsigned long long)shared_fate);
    }
}
END_TEST

/* --- many threads ------------------------------------------------------------------------------------------------- */

enum { MAX_OPEN = 3, SHARED = 2 };

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
    while ((waiter = pool_next(&pool, now, &node)) != NULL) {
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
            pool_adopt(&pool, node, ADOPT_DIALLING, now, 0);
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
    switch (pool_give(&pool, node, node->shareable || below(r, 20) != 0, now, &waiter)) {
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
    struct random r = {.state = seed + (uint64_t)(turn - turns) * 977};
    for (uint64_t i = 0; i < steps_wanted / THREADS && atomic_load(&fault) == NULL; i++) {
        struct pool_node *node = NULL, *chain;
        switch (pool_take(&pool, now, below(&r, 32) == 0, &node, &chain)) {
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
    now = 1000 * SECOND;
    pool_init(&pool, &(struct pool_limits){
                         .expire_ns = SECOND, .max_idle = 3, .max_open = MAX_OPEN, .max_dialling = 2, .max_uses = 50});
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
    if (steps_wanted > STEPS) {
        (void)fprintf(stderr, "# %d threads: %llu hits, %lu waits, %lu canceled, %lu ended by a dial, %llu nodes\n", THREADS,
                      (unsigned long long)c.hits, atomic_load(&waited), atomic_load(&canceled), atomic_load(&failed),
                      (unsigned long long)c.dials);
    }
    pool_fini(&pool);
}
END_TEST

int main(int argc, char **argv)
{
    const char *steps = argc > 1 ? argv[1] : getenv("FWD_MODEL_STEPS");
    if (steps != NULL) {
        steps_wanted = strtoull(steps, NULL, 10);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 10);
    }
    Suite *suite = suite_create("pool model");
    TCase *tcase = tcase_create("model");
    tcase_add_test(tcase, same_as_the_model);
    tcase_add_test(tcase, many_threads);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
