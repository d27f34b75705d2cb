/* One FIFO under one mutex, and who waits for it.
 *
 * Happy path: pool_take pops the front, the caller exchanges, pool_give pushes to the back. A node with a limit above 1 stays in reach while it
 * has room, so that several exchanges share it. With a budget (UDP) a take spends from it first and says POOL_OPEN: while the budget
 * lasts, every query has a source port of its own and the used socket is closed on return; when load exceeds it, the sockets it opened go
 * round through the FIFO, each for a bounded number of uses and a bounded time, and only the worn ones are replaced.
 *
 * Failure modes: expired nodes at the front are handed to the caller to close; a full pool refuses the node given; a stopped pool
 * refuses everything. At the limit of open or dialling nodes a taker waits; what is given back or lost goes to the first waiter, never past
 * him to a newcomer. A dial that fails takes all waiters with it, unless the upstream has shown since it began that it is there. A caller that
 * cannot open (no descriptors, no ports) may ask for an idle node instead; the waiters then stay with the nodes that there are, until one of
 * those is closed and something can be opened again.
 */
#include "pool.h"

#include <assert.h>
#include <stddef.h>

enum {
    SECOND_NS = 1000000000,
    ROUND = 256,      /* sockets that go round: more would only make each colder in the cache */
};

void pool_init(struct pool *pool, const struct pool_limits *limits)
{
    *pool = (struct pool){.limits = *limits};
    pthread_mutex_init(&pool->mutex, NULL);
}

void pool_fini(struct pool *pool)
{
    assert(pool->first_waiter == NULL && pool->counts.open == 0 && pool->counts.idle == 0);
    pthread_mutex_destroy(&pool->mutex);
}

/* --- the lists ---------------------------------------------------------------------------------------------------- */

static void unlink_locked(struct pool *pool, struct pool_node *node)
{
    struct pool_list *list = &pool->lists[node->place];
    if (node->place == PLACE_OUT) {
        return;
    }
    *(node->prev != NULL ? &node->prev->next : &list->front) = node->next;
    *(node->next != NULL ? &node->next->prev : &list->back) = node->prev;
    node->prev = node->next = NULL;
    pool->counts.idle -= node->place == PLACE_IDLE;
    node->place = PLACE_OUT;
}

static void push_locked(struct pool *pool, struct pool_node *node, enum pool_place place)
{
    struct pool_list *list = &pool->lists[place];
    node->prev = list->back;
    node->next = NULL;
    *(list->back != NULL ? &list->back->next : &list->front) = node;
    list->back = node;
    node->place = place;
    pool->counts.idle += place == PLACE_IDLE;
}

static struct pool_node *front_of(const struct pool *pool, enum pool_place place)
{
    return pool->lists[place].front;
}

static void pin(struct pool_node *node)
{
    atomic_fetch_add_explicit(&node->pins, 1, memory_order_relaxed);
}

/* Exchanges in the books on this node: a spare one's place is nobody's. */
static uint32_t in_flight_on(const struct pool_node *node)
{
    return node->counted && !node->spare ? node->used : 0;
}

/* Puts a node that is going to be closed to its reason's account, once. */
static void count_out_locked(struct pool *pool, struct pool_node *node, uint64_t *reason)
{
    node->retired = true;
    if (node->counted && !node->closing) {
        node->closing = true;
        pool->counts.closing++;
        pool->counts.dialling -= node->dialling;
        node->dialling = false;
        (*reason)++;
    }
}

/* Moves an idle or spare node out of the books and onto the chain of what is to be closed. */
static void discard_locked(struct pool *pool, struct pool_node *node, struct pool_node **chain, uint64_t *reason)
{
    unlink_locked(pool, node);
    count_out_locked(pool, node, reason);
    pin(node);
    node->next = *chain;
    *chain = node;
}

/* --- what may be used --------------------------------------------------------------------------------------------- */

static bool too_old(const struct pool_node *node, uint64_t now_ns)
{
    return now_ns > node->until_ns;
}

static bool expired(const struct pool *pool, const struct pool_node *node, uint64_t now_ns)
{
    uint64_t idle_ns = node->idle_ns > 0 && node->idle_ns < pool->limits.expire_ns ? node->idle_ns : pool->limits.expire_ns;
    /* 0 means never again, even within the same nanosecond (case 29) */
    return idle_ns == 0 || now_ns > node->used_ns + idle_ns;
}

static uint64_t token_ns(const struct pool *pool)
{
    return SECOND_NS / pool->limits.fresh_per_s;
}

/* The budget is a moment: when it will be whole again. Spending moves it on by the time in which one token comes back. */
static bool budget_spend_locked(struct pool *pool, uint64_t now_ns)
{
    if (pool->budget_ns < now_ns) {
        pool->budget_ns = now_ns;
    }
    if (pool->budget_ns + token_ns(pool) > now_ns + SECOND_NS) {
        return false;
    }
    pool->budget_ns += token_ns(pool);
    return true;
}

/* While more than half of the budget is there, the next takes will open their own: keeping this node would only hold a descriptor. */
static bool budget_plenty_locked(const struct pool *pool, uint64_t now_ns)
{
    return pool->budget_ns + token_ns(pool) <= now_ns + SECOND_NS / 2;
}

static uint32_t max_idle(const struct pool_limits *limits)
{
    if (limits->fresh_per_s == 0) {
        return limits->max_idle;
    }
    /* two at least, so that they can take turns */
    uint32_t most = limits->fresh_per_s < 2 ? 2 : limits->fresh_per_s > ROUND ? ROUND : limits->fresh_per_s;
    return limits->max_idle == 0 || limits->max_idle > most ? most : limits->max_idle;
}

/* Takes come faster than the budget, and enough sockets lie idle: opening more would cost every query and help few, so they go round. How fast
 * takes come is seen from how long the front has rested: each of those behind it was given back since. @param out 1 for a node that is just coming
 * back, else 0 */
static bool goes_round_locked(const struct pool *pool, uint32_t out, uint64_t now_ns)
{
    const struct pool_node *front = front_of(pool, PLACE_IDLE);
    uint32_t idle = pool->counts.idle;
    return front != NULL && idle + out >= max_idle(&pool->limits) / 2 && now_ns < front->used_ns + idle * token_ns(pool);
}

static bool wants_fresh_locked(struct pool *pool, uint64_t now_ns)
{
    if (pool->limits.fresh_per_s == 0) {
        return false;
    }
    const struct pool_node *front = front_of(pool, PLACE_IDLE);
    /* two successive queries never share a port, even when the budget is spent */
    bool same = front != NULL && front == pool->last_given && pool->limits.max_idle != 1;
    return (!goes_round_locked(pool, 0, now_ns) && budget_spend_locked(pool, now_ns)) || same;
}

static bool may_open_locked(const struct pool *pool)
{
    const struct pool_limits *limits = &pool->limits;
    return (limits->max_open == 0 || pool->counts.open < limits->max_open) &&
           (limits->max_dialling == 0 || pool->counts.dialling < limits->max_dialling);
}

static void count_open_locked(struct pool *pool)
{
    pool->counts.open++;
    pool->counts.dialling++;
}

static void note_peak_locked(struct pool *pool)
{
    uint32_t wanted = pool->counts.open - pool->counts.closing - pool->counts.idle + pool->counts.waiting;
    if (wanted > pool->counts.peak) {
        pool->counts.peak = wanted;
    }
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

/* Whether one more exchange may join those on a node in use. */
static bool has_room(const struct pool *pool, const struct pool_node *node)
{
    uint32_t max_uses = pool->limits.max_uses;
    return node->used < node->limit && !node->retired && (max_uses == 0 || node->uses + node->used < max_uses);
}

/* Takes one place of a node that has room. */
static void use_locked(struct pool *pool, struct pool_node *node)
{
    unlink_locked(pool, node);
    pin(node);
    node->used++;
    pool->counts.in_flight++;
    if (has_room(pool, node)) {
        push_locked(pool, node, PLACE_SHARED);
    }
    pool->counts.hits++;
    note_peak_locked(pool);
}

/* A node in use that has room; those that have become too old take no more. */
static struct pool_node *shared_locked(struct pool *pool, uint64_t now_ns)
{
    struct pool_node *node;
    while ((node = front_of(pool, PLACE_SHARED)) != NULL && too_old(node, now_ns)) {
        unlink_locked(pool, node);
        node->retired = true;
    }
    return node;
}

static struct pool_node *idle_locked(struct pool *pool, uint64_t now_ns, struct pool_node **close)
{
    struct pool_node *node;
    while ((node = front_of(pool, PLACE_IDLE)) != NULL) {
        if (expired(pool, node, now_ns)) {
            discard_locked(pool, node, close, &pool->counts.expired);
        } else if (too_old(node, now_ns)) {
            discard_locked(pool, node, close, &pool->counts.aged);
        } else {
            break;
        }
    }
    return node;
}

static enum pool_take take_locked(struct pool *pool, uint64_t now_ns, bool fresh, struct pool_node **ret_node,
                                  struct pool_node **ret_close)
{
    if (pool->stopped) {
        return POOL_STOPPED;
    }
    bool queue = pool->first_waiter != NULL; /* nobody goes past who waits */
    if (!queue && !fresh && !wants_fresh_locked(pool, now_ns)) {
        struct pool_node *node = shared_locked(pool, now_ns);
        if (node == NULL) {
            node = idle_locked(pool, now_ns, ret_close);
        }
        if (node != NULL) {
            use_locked(pool, node);
            *ret_node = node;
            return POOL_HIT;
        }
    }
    if (!queue && may_open_locked(pool)) {
        count_open_locked(pool);
        note_peak_locked(pool);
        pool->counts.misses++;
        return POOL_OPEN;
    }
    /* at the limit an idle node is better than waiting, even where a fresh one was wanted */
    struct pool_node *node = queue ? NULL : idle_locked(pool, now_ns, ret_close);
    if (node != NULL && !fresh) {
        use_locked(pool, node);
        *ret_node = node;
        return POOL_HIT;
    }
    if (pool->limits.never_wait) {
        pool->counts.refused++;
        return POOL_REFUSED;
    }
    return POOL_WAIT;
}

enum pool_take pool_take(struct pool *pool, uint64_t now_ns, bool fresh, struct pool_node **ret_node,
                         struct pool_node **ret_close)
{
    *ret_close = NULL;
    pthread_mutex_lock(&pool->mutex);
    enum pool_take result = take_locked(pool, now_ns, fresh, ret_node, ret_close);
    if (pool->limits.min_idle > 0) {
        bool low = pool->counts.idle + pool->counts.dialling < pool->limits.min_idle;
        atomic_store_explicit(&pool->low, low, memory_order_relaxed);
    }
    pthread_mutex_unlock(&pool->mutex);
    return result;
}

struct pool_node *pool_take_instead(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    struct pool_node *node = front_of(pool, PLACE_IDLE);
    if (node != NULL) {
        use_locked(pool, node);
        pool->counts.misses--;
        pool->counts.open--;
        pool->counts.dialling--;
        pool->counts.open_failed++;
    }
    pthread_mutex_unlock(&pool->mutex);
    return node;
}

void pool_adopt(struct pool *pool, struct pool_node *node, enum pool_adopted how, uint64_t now_ns, uint16_t random)
{
    const struct pool_limits *limits = &pool->limits;
    uint64_t shorter = limits->max_age_ns / 100 * limits->age_jitter / 65536 * random;
    pthread_mutex_lock(&pool->mutex);
    node->counted = true;
    node->shareable = node->limit > 1;
    node->dialling = how != ADOPT_READY;
    node->spare = how == ADOPT_SPARE;
    node->epoch = pool->epoch;
    node->used = 1;
    node->used_ns = now_ns;
    node->until_ns = limits->max_age_ns > 0 ? now_ns + limits->max_age_ns - shorter : UINT64_MAX;
    pool->counts.dialling -= how == ADOPT_READY;
    pool->counts.in_flight += !node->spare;
    pool->counts.dials++;
    if (node->spare) {
        push_locked(pool, node, PLACE_SPARE);
    } else if (has_room(pool, node)) {
        push_locked(pool, node, PLACE_SHARED); /* others may join while it dials */
    }
    pthread_mutex_unlock(&pool->mutex);
}

void pool_disown(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    unlink_locked(pool, node);
    pool->counts.dialling += !node->dialling;
    pool->counts.in_flight -= in_flight_on(node);
    pool->counts.dials--;
    node->counted = node->dialling = false;
    pthread_mutex_unlock(&pool->mutex);
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

static struct pool_waiter *pop_locked(struct pool *pool)
{
    struct pool_waiter *waiter = pool->first_waiter;
    if (waiter != NULL) {
        pool->first_waiter = waiter->next;
        *(waiter->next != NULL ? &waiter->next->prev : &pool->last_waiter) = NULL;
        waiter->prev = waiter->next = NULL;
        waiter->queued = false;
        pool->counts.waiting--;
    }
    return waiter;
}

/* Something may be opened again: for the first who waits. */
static struct pool_waiter *turn_to_open_locked(struct pool *pool)
{
    if (pool->stopped || pool->first_waiter == NULL || !may_open_locked(pool) || (pool->starved && pool->counts.open > pool->counts.closing)) {
        return NULL;
    }
    count_open_locked(pool);
    pool->counts.misses++;
    return pop_locked(pool);
}

static bool must_wait_locked(const struct pool *pool)
{
    return pool->first_waiter != NULL ||
           (front_of(pool, PLACE_IDLE) == NULL && front_of(pool, PLACE_SHARED) == NULL && !may_open_locked(pool));
}

bool pool_wait(struct pool *pool, struct pool_waiter *waiter, bool again)
{
    pthread_mutex_lock(&pool->mutex);
    bool wait = !pool->stopped && must_wait_locked(pool);
    if (wait) {
        waiter->prev = again ? NULL : pool->last_waiter;
        waiter->next = again ? pool->first_waiter : NULL;
        *(waiter->prev != NULL ? &waiter->prev->next : &pool->first_waiter) = waiter;
        *(waiter->next != NULL ? &waiter->next->prev : &pool->last_waiter) = waiter;
        waiter->queued = true;
        pool->counts.waiting++;
        pool->counts.waits += !again;
        note_peak_locked(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    return wait;
}

bool pool_unwait(struct pool *pool, struct pool_waiter *waiter)
{
    pthread_mutex_lock(&pool->mutex);
    bool queued = waiter->queued;
    if (queued) {
        *(waiter->prev != NULL ? &waiter->prev->next : &pool->first_waiter) = waiter->next;
        *(waiter->next != NULL ? &waiter->next->prev : &pool->last_waiter) = waiter->prev;
        waiter->prev = waiter->next = NULL;
        waiter->queued = false;
        pool->counts.waiting--;
    }
    pthread_mutex_unlock(&pool->mutex);
    return queued;
}

struct pool_waiter *pool_open_failed(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->counts.open--;
    pool->counts.dialling--;
    pool->counts.open_failed++;
    pool->starved = true; /* a thousand waiters must not fail one after the other while there are connections to serve them */
    struct pool_waiter *waiter = turn_to_open_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

struct pool_waiter *pool_ready(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    pool->counts.dialling -= node->dialling;
    node->dialling = false;
    pool->epoch++;
    struct pool_waiter *waiter = turn_to_open_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

struct pool_waiter *pool_dial_failed(struct pool *pool, const struct pool_node *node)
{
    struct pool_waiter *first = NULL;
    pthread_mutex_lock(&pool->mutex);
    if (node->dialling && node->epoch == pool->epoch && pool->first_waiter != NULL) {
        first = pool->first_waiter;
        pool->first_waiter = pool->last_waiter = NULL;
        pool->counts.waiting = 0;
        pool->epoch++;
    }
    for (struct pool_waiter *waiter = first; waiter != NULL; waiter = waiter->next) {
        waiter->prev = NULL;
        waiter->queued = false;
    }
    pthread_mutex_unlock(&pool->mutex);
    return first;
}

struct pool_waiter *pool_next(struct pool *pool, uint64_t now_ns, struct pool_node **ret_node)
{
    struct pool_waiter *waiter = NULL;
    *ret_node = NULL;
    pthread_mutex_lock(&pool->mutex);
    if (!pool->stopped && pool->first_waiter != NULL) {
        *ret_node = shared_locked(pool, now_ns);
        if (*ret_node != NULL) {
            use_locked(pool, *ret_node);
            waiter = pop_locked(pool);
        } else {
            waiter = turn_to_open_locked(pool);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

/* --- giving back -------------------------------------------------------------------------------------------------- */

/* Why a node without exchanges must be closed: the account of the reason, or NULL when it may stay. */
static uint64_t *why_close_locked(struct pool *pool, const struct pool_node *node, bool success, uint64_t now_ns)
{
    const struct pool_limits *limits = &pool->limits;
    struct pool_counts *counts = &pool->counts;
    uint32_t most = max_idle(limits);
    if (pool->stopped || !success) {
        return pool->stopped ? &counts->stopped : &counts->died;
    }
    if (limits->expire_ns == 0) { /* never reused, however soon (case 29) */
        return &counts->expired;
    }
    if (limits->max_uses > 0 && node->uses >= limits->max_uses) {
        return &counts->used_up;
    }
    if (node->retired || too_old(node, now_ns)) {
        return &counts->aged;
    }
    if (limits->fresh_per_s > 0 && budget_plenty_locked(pool, now_ns) && !goes_round_locked(pool, 1, now_ns)) {
        return &counts->renewed;
    }
    return most > 0 && counts->idle >= most ? &counts->overflow : NULL;
}

/* The place is free; it is the first waiter's if the node is still good for him. */
static bool pass_on_locked(struct pool *pool, struct pool_node *node, bool success)
{
    bool healthy = !pool->stopped && !node->retired && (success || node->used > 0);
    bool reusable = pool->limits.expire_ns > 0 || node->used > 0;
    return pool->first_waiter != NULL && healthy && reusable;
}

static enum pool_gave give_locked(struct pool *pool, struct pool_node *node, bool success, uint64_t now_ns,
                                  struct pool_waiter **ret_waiter)
{
    const struct pool_limits *limits = &pool->limits;
    pool->counts.in_flight -= in_flight_on(node) > 0; /* closed nodes have been counted out */
    pool->epoch += success && !node->spare && !node->dialling;
    node->used--;
    node->uses += !node->spare;
    node->spare = false;
    node->used_ns = now_ns;
    unlink_locked(pool, node);
    node->retired |= too_old(node, now_ns) || (limits->max_uses > 0 && node->uses + node->used >= limits->max_uses);
    if (pass_on_locked(pool, node, success)) {
        *ret_waiter = pop_locked(pool);
        use_locked(pool, node);
        return GAVE_WAITER;
    }
    if (node->used > 0) {
        if (has_room(pool, node)) {
            push_locked(pool, node, PLACE_SHARED);
        }
        return GAVE_KEPT;
    }
    uint64_t *reason = why_close_locked(pool, node, success, now_ns);
    pool->last_given = reason == NULL ? node : NULL;
    if (reason != NULL) {
        count_out_locked(pool, node, reason);
        return GAVE_CLOSE;
    }
    push_locked(pool, node, PLACE_IDLE);
    return GAVE_KEPT;
}

enum pool_gave pool_give(struct pool *pool, struct pool_node *node, bool success, uint64_t now_ns,
                         struct pool_waiter **ret_waiter)
{
    pthread_mutex_lock(&pool->mutex);
    enum pool_gave gave = give_locked(pool, node, success, now_ns, ret_waiter);
    pthread_mutex_unlock(&pool->mutex);
    return gave;
}

void pool_retire(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    if (!node->retired) {
        node->retired = true;
        if (node->place == PLACE_SHARED) {
            unlink_locked(pool, node);
        } else if (node->place == PLACE_IDLE) {
            node->until_ns = 0; /* the next take or sweep finds it too old */
        }
    }
    pthread_mutex_unlock(&pool->mutex);
}

void pool_bound_idle(struct pool *pool, struct pool_node *node, uint64_t idle_ns)
{
    pthread_mutex_lock(&pool->mutex);
    node->idle_ns = idle_ns;
    pool->bounded = true;
    pthread_mutex_unlock(&pool->mutex);
}

void pool_set_limit(struct pool *pool, struct pool_node *node, uint32_t limit)
{
    pthread_mutex_lock(&pool->mutex);
    node->limit = limit;
    if (node->used > 0 && node->place != PLACE_SPARE) {
        unlink_locked(pool, node);
        if (has_room(pool, node)) {
            push_locked(pool, node, PLACE_SHARED);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
}

bool pool_lost(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    unlink_locked(pool, node);
    count_out_locked(pool, node, pool->stopped ? &pool->counts.stopped : &pool->counts.died);
    bool awaited = pool->first_waiter != NULL;
    pthread_mutex_unlock(&pool->mutex);
    return awaited;
}

struct pool_waiter *pool_closed(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    if (node->counted) {
        pool->counts.open--;
        pool->counts.closing--;
        pool->counts.in_flight -= in_flight_on(node);
        pool->starved = false; /* what it held is free again */
        node->counted = node->closing = false;
    }
    struct pool_waiter *waiter = turn_to_open_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

/* --- tidying ------------------------------------------------------------------------------------------------------ */

struct pool_node *pool_sweep(struct pool *pool, uint64_t now_ns, uint64_t spare_since_ns)
{
    struct pool_node *close = NULL, *node;
    pthread_mutex_lock(&pool->mutex);
    while ((node = front_of(pool, PLACE_IDLE)) != NULL && expired(pool, node, now_ns)) {
        discard_locked(pool, node, &close, &pool->counts.expired);
    }
    /* the FIFO is in order of last use, not of age (case 69), nor of what servers keep */
    node = pool->limits.max_age_ns > 0 || pool->bounded ? front_of(pool, PLACE_IDLE) : NULL;
    for (struct pool_node *next; node != NULL; node = next) {
        next = node->next;
        if (expired(pool, node, now_ns)) {
            discard_locked(pool, node, &close, &pool->counts.expired);
        } else if (too_old(node, now_ns)) {
            discard_locked(pool, node, &close, &pool->counts.aged);
        }
    }
    while ((node = front_of(pool, PLACE_SPARE)) != NULL && node->used_ns < spare_since_ns) {
        discard_locked(pool, node, &close, &pool->counts.died);
    }
    pool->starved = false;
    pool->counts.peak = 0;
    note_peak_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return close;
}

struct pool_node *pool_stop(struct pool *pool)
{
    static const enum pool_place places[] = {PLACE_IDLE, PLACE_SPARE};
    struct pool_node *close = NULL, *node;
    pthread_mutex_lock(&pool->mutex);
    pool->stopped = true;
    for (uint32_t i = 0; i < 2; i++) {
        while ((node = front_of(pool, places[i])) != NULL) {
            discard_locked(pool, node, &close, &pool->counts.stopped);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return close;
}

/* Spare nodes that hang in their dials, which nobody waits for, must not keep queries from dialling. */
static bool may_open_spare_locked(const struct pool *pool)
{
    uint32_t most = pool->limits.max_dialling;
    return may_open_locked(pool) && (most < 2 || pool->counts.dialling < most / 2);
}

uint32_t pool_missing(struct pool *pool)
{
    uint32_t missing = 0;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->stopped && pool->counts.idle + pool->counts.dialling < pool->limits.min_idle && may_open_spare_locked(pool)) {
        count_open_locked(pool);
        missing++;
    }
    pthread_mutex_unlock(&pool->mutex);
    return missing;
}

bool pool_all_open(struct pool *pool)
{
    struct pool_counts counts;
    pool_get_counts(pool, &counts);
    return pool->limits.max_open > 0 && counts.open >= pool->limits.max_open;
}

void pool_get_counts(struct pool *pool, struct pool_counts *ret)
{
    pthread_mutex_lock(&pool->mutex);
    *ret = pool->counts;
    pthread_mutex_unlock(&pool->mutex);
}
