/* One FIFO under one mutex, and who waits for it.
 *
 * Happy path: pool_take pops the front, the caller exchanges, pool_give pushes to the back. A node with a limit above 1 stays in reach while it
 * has room, so that several exchanges share it. With a budget (UDP) a take spends from it first and says POOL_OPEN: while the budget
 * lasts, every query has a source port of its own and the used socket is closed on return; when load exhausts it, the sockets it opened go
 * round through the FIFO, each for a bounded number of uses and a bounded time.
 *
 * Failure modes: expired nodes at the front are handed to the caller to close; a full pool refuses the node given; a stopped pool
 * refuses everything. At the limit of open or dialling nodes a taker waits; what is given back or lost goes to the first waiter, never past
 * him to a newcomer. A caller that cannot open (no descriptors, no ports) may ask for an idle node instead.
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
    assert(pool->front == NULL && pool->shared_front == NULL && pool->first_waiter == NULL && pool->counts.open == 0);
    pthread_mutex_destroy(&pool->mutex);
}

/* --- the lists ---------------------------------------------------------------------------------------------------- */

static void unlink_locked(struct pool *pool, struct pool_node *node)
{
    bool idle = node->place == PLACE_IDLE;
    if (node->place == PLACE_OUT) {
        return;
    }
    *(node->prev != NULL ? &node->prev->next : idle ? &pool->front : &pool->shared_front) = node->next;
    *(node->next != NULL ? &node->next->prev : idle ? &pool->back : &pool->shared_back) = node->prev;
    node->prev = node->next = NULL;
    node->place = PLACE_OUT;
    pool->counts.idle -= idle;
}

static void push_locked(struct pool *pool, struct pool_node *node, enum pool_place place)
{
    bool idle = place == PLACE_IDLE;
    struct pool_node **front = idle ? &pool->front : &pool->shared_front;
    struct pool_node **back = idle ? &pool->back : &pool->shared_back;
    node->prev = *back;
    node->next = NULL;
    *(*back != NULL ? &(*back)->next : front) = node;
    *back = node;
    node->place = place;
    pool->counts.idle += idle;
}

static void pin(struct pool_node *node)
{
    atomic_fetch_add_explicit(&node->pins, 1, memory_order_relaxed);
}

static void count_out_locked(struct pool *pool, struct pool_node *node)
{
    if (node->counted) {
        node->counted = false;
        pool->counts.open--;
        pool->counts.dialling -= node->dialling;
        node->dialling = false;
    }
}

/* Moves an idle node out of the books and onto the chain of what is to be closed. */
static void discard_locked(struct pool *pool, struct pool_node *node, struct pool_node **chain, uint64_t *reason)
{
    unlink_locked(pool, node);
    count_out_locked(pool, node);
    (*reason)++;
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
    /* 0 means never again, even within the same nanosecond (case 29) */
    return pool->limits.expire_ns == 0 || now_ns > node->used_ns + pool->limits.expire_ns;
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

static bool wants_fresh_locked(struct pool *pool, uint64_t now_ns)
{
    if (pool->limits.fresh_per_s == 0) {
        return false;
    }
    /* two successive queries never share a port, even when the budget is spent */
    return budget_spend_locked(pool, now_ns) || (pool->front == pool->last_given && pool->limits.max_idle != 1);
}

static bool may_open_locked(const struct pool *pool)
{
    const struct pool_limits *limits = &pool->limits;
    return (limits->max_open == 0 || pool->counts.open < limits->max_open) &&
           (limits->max_dialling == 0 || pool->counts.dialling < limits->max_dialling);
}

static void count_open_locked(struct pool *pool)
{
    pool->counts.misses++;
    pool->counts.open++;
    pool->counts.dialling++;
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

/* Takes one place of a node that has room. */
static void use_locked(struct pool *pool, struct pool_node *node)
{
    unlink_locked(pool, node);
    pin(node);
    node->used++;
    if (node->used < node->limit && !node->retired) {
        push_locked(pool, node, PLACE_SHARED);
    }
    pool->counts.hits++;
}

/* A node in use that has room; those that have become too old take no more. */
static struct pool_node *shared_locked(struct pool *pool, uint64_t now_ns)
{
    struct pool_node *node;
    while ((node = pool->shared_front) != NULL && too_old(node, now_ns)) {
        unlink_locked(pool, node);
        node->retired = true;
    }
    return node;
}

static struct pool_node *idle_locked(struct pool *pool, uint64_t now_ns, struct pool_node **close)
{
    struct pool_node *node;
    while ((node = pool->front) != NULL) {
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
    pthread_mutex_unlock(&pool->mutex);
    return result;
}

struct pool_node *pool_take_instead(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    struct pool_node *node = pool->front;
    if (node != NULL) {
        use_locked(pool, node);
        pool->counts.misses--;
        pool->counts.open--;
        pool->counts.dialling--;
    }
    pthread_mutex_unlock(&pool->mutex);
    return node;
}

void pool_adopt(struct pool *pool, struct pool_node *node, bool ready, uint64_t now_ns, uint16_t random)
{
    const struct pool_limits *limits = &pool->limits;
    uint64_t shorter = limits->max_age_ns / 100 * limits->age_jitter / 65536 * random;
    pthread_mutex_lock(&pool->mutex);
    node->counted = true;
    node->shareable = node->limit > 1;
    node->dialling = !ready;
    node->used = 1;
    node->used_ns = now_ns;
    node->until_ns = limits->max_age_ns > 0 ? now_ns + limits->max_age_ns - shorter : UINT64_MAX;
    pool->counts.dialling -= ready;
    if (node->limit > 1) {
        push_locked(pool, node, PLACE_SHARED); /* others may join while it dials */
    }
    pthread_mutex_unlock(&pool->mutex);
}

void pool_disown(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    unlink_locked(pool, node);
    pool->counts.dialling += !node->dialling;
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
    if (pool->stopped || pool->first_waiter == NULL || !may_open_locked(pool)) {
        return NULL;
    }
    count_open_locked(pool);
    return pop_locked(pool);
}

bool pool_wait(struct pool *pool, struct pool_waiter *waiter)
{
    pthread_mutex_lock(&pool->mutex);
    bool wait = !pool->stopped &&
                (pool->first_waiter != NULL || (pool->front == NULL && pool->shared_front == NULL && !may_open_locked(pool)));
    if (wait) {
        waiter->prev = pool->last_waiter;
        waiter->next = NULL;
        *(pool->last_waiter != NULL ? &pool->last_waiter->next : &pool->first_waiter) = waiter;
        pool->last_waiter = waiter;
        waiter->queued = true;
        pool->counts.waiting++;
        pool->counts.waits++;
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
    struct pool_waiter *waiter = turn_to_open_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

struct pool_waiter *pool_ready(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    pool->counts.dialling -= node->dialling;
    node->dialling = false;
    struct pool_waiter *waiter = turn_to_open_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

/* --- giving back -------------------------------------------------------------------------------------------------- */

/* True when a node without exchanges may stay; else its closing is put to its reason's account. */
static bool keep_locked(struct pool *pool, const struct pool_node *node, bool success, uint64_t now_ns)
{
    const struct pool_limits *limits = &pool->limits;
    uint32_t max_idle = limits->max_idle;
    if (limits->fresh_per_s > 0) {
        /* two at least, so that they can take turns */
        uint32_t most = limits->fresh_per_s < 2 ? 2 : limits->fresh_per_s > ROUND ? ROUND : limits->fresh_per_s;
        max_idle = max_idle == 0 || max_idle > most ? most : max_idle;
    }
    if (pool->stopped || !success) {
        return false;
    }
    if (limits->expire_ns == 0) { /* never reused, however soon (case 29) */
        pool->counts.expired++;
        return false;
    }
    if (limits->max_uses > 0 && node->uses >= limits->max_uses) {
        pool->counts.used_up++;
        return false;
    }
    if (node->retired || too_old(node, now_ns) || (limits->fresh_per_s > 0 && budget_plenty_locked(pool, now_ns))) {
        pool->counts.aged++;
        return false;
    }
    if (max_idle > 0 && pool->counts.idle >= max_idle) {
        pool->counts.overflow++;
        return false;
    }
    return true;
}

static enum pool_gave give_locked(struct pool *pool, struct pool_node *node, bool success, uint64_t now_ns,
                                  struct pool_waiter **ret_waiter)
{
    const struct pool_limits *limits = &pool->limits;
    node->used--;
    node->uses++;
    node->used_ns = now_ns;
    if (too_old(node, now_ns) || (limits->max_uses > 0 && node->uses + node->used >= limits->max_uses)) {
        unlink_locked(pool, node);
        node->retired = true;
    }
    bool healthy = !pool->stopped && !node->retired && (success || node->used > 0);
    if (healthy && limits->expire_ns > 0 && pool->first_waiter != NULL) {
        *ret_waiter = pop_locked(pool);
        use_locked(pool, node);
        return GAVE_WAITER;
    }
    if (node->used > 0) {
        if (node->place == PLACE_OUT && !node->retired && node->used < node->limit) {
            push_locked(pool, node, PLACE_SHARED);
        }
        return GAVE_KEPT;
    }
    unlink_locked(pool, node);
    bool keep = keep_locked(pool, node, success, now_ns);
    pool->last_given = keep ? node : NULL;
    if (!keep) {
        count_out_locked(pool, node);
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

void pool_set_limit(struct pool *pool, struct pool_node *node, uint32_t limit)
{
    pthread_mutex_lock(&pool->mutex);
    if (node->limit != limit && !node->retired && node->used > 0) {
        unlink_locked(pool, node);
        node->limit = limit;
        if (node->used < limit) {
            push_locked(pool, node, PLACE_SHARED);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
}

struct pool_waiter *pool_lost(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    unlink_locked(pool, node);
    node->retired = true;
    pool->counts.died += node->counted;
    count_out_locked(pool, node);
    struct pool_waiter *waiter = turn_to_open_locked(pool);
    pthread_mutex_unlock(&pool->mutex);
    return waiter;
}

/* --- tidying ------------------------------------------------------------------------------------------------------ */

struct pool_node *pool_sweep(struct pool *pool, uint64_t now_ns)
{
    struct pool_node *close = NULL;
    pthread_mutex_lock(&pool->mutex);
    while (pool->front != NULL && expired(pool, pool->front, now_ns)) {
        discard_locked(pool, pool->front, &close, &pool->counts.expired);
    }
    if (pool->limits.max_age_ns > 0) {
        /* the FIFO is in order of last use, not of age (case 69) */
        for (struct pool_node *node = pool->front, *next; node != NULL; node = next) {
            next = node->next;
            if (too_old(node, now_ns)) {
                discard_locked(pool, node, &close, &pool->counts.aged);
            }
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return close;
}

struct pool_node *pool_stop(struct pool *pool)
{
    struct pool_node *close = NULL;
    uint64_t stopped = 0;
    pthread_mutex_lock(&pool->mutex);
    pool->stopped = true;
    while (pool->front != NULL) {
        discard_locked(pool, pool->front, &close, &stopped);
    }
    pthread_mutex_unlock(&pool->mutex);
    return close;
}

uint32_t pool_missing(struct pool *pool, uint32_t want)
{
    uint32_t missing = 0;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->stopped && pool->counts.idle + pool->counts.dialling < want && may_open_locked(pool)) {
        count_open_locked(pool);
        missing++;
    }
    pthread_mutex_unlock(&pool->mutex);
    return missing;
}

void pool_get_counts(struct pool *pool, struct pool_counts *ret)
{
    pthread_mutex_lock(&pool->mutex);
    *ret = pool->counts;
    pthread_mutex_unlock(&pool->mutex);
}
