/* One FIFO under one mutex.
 *
 * Happy path: pool_take pops the front, the caller exchanges, pool_give pushes to the back. With a budget (UDP) a take spends from
 * it first and says POOL_OPEN: while the budget lasts, every query has a source port of its own and the used socket is closed on
 * return; when load exhausts it, the sockets it opened go round through the FIFO, each for a bounded number of uses and a bounded time.
 *
 * Failure modes: expired nodes at the front are handed to the caller to close; a full pool refuses the node given; a stopped pool
 * refuses everything. A caller that cannot open (no descriptors, no ports) may ask for an idle node instead.
 */
#include "pool.h"

#include <assert.h>
#include <stddef.h>

enum { SECOND_NS = 1000000000 };

void pool_init(struct pool *pool, const struct pool_limits *limits)
{
    *pool = (struct pool){.limits = *limits};
    pthread_mutex_init(&pool->mutex, NULL);
}

void pool_fini(struct pool *pool)
{
    assert(pool->front == NULL && pool->counts.open == 0);
    pthread_mutex_destroy(&pool->mutex);
}

static void unlink_locked(struct pool *pool, struct pool_node *node)
{
    *(node->prev != NULL ? &node->prev->next : &pool->front) = node->next;
    *(node->next != NULL ? &node->next->prev : &pool->back) = node->prev;
    node->prev = node->next = NULL;
    node->idle = false;
    pool->counts.idle--;
}

/* Moves a node out of the books and onto the chain of what is to be closed. */
static void discard_locked(struct pool *pool, struct pool_node *node, struct pool_node **chain, uint64_t *reason)
{
    unlink_locked(pool, node);
    node->counted = false;
    pool->counts.open--;
    (*reason)++;
    node->next = *chain;
    *chain = node;
}

static bool too_old(const struct pool *pool, const struct pool_node *node, uint64_t now_ns)
{
    return pool->limits.max_age_ns > 0 && now_ns > node->born_ns + pool->limits.max_age_ns;
}

static bool expired(const struct pool *pool, const struct pool_node *node, uint64_t now_ns)
{
    /* 0 means never again, even within the same nanosecond (case 29) */
    return pool->limits.expire_ns == 0 || now_ns > node->used_ns + pool->limits.expire_ns;
}

/* The budget is a moment: when it will be whole again. Spending moves it on by the time in which one token comes back. */
static bool budget_spend_locked(struct pool *pool, uint64_t now_ns)
{
    uint64_t token_ns = SECOND_NS / pool->limits.fresh_per_s;
    if (pool->budget_ns < now_ns) {
        pool->budget_ns = now_ns;
    }
    if (pool->budget_ns + token_ns > now_ns + SECOND_NS) {
        return false;
    }
    pool->budget_ns += token_ns;
    return true;
}

/* While more than half of the budget is there, the next takes will open their own: keeping this node would only hold a descriptor. */
static bool budget_plenty_locked(const struct pool *pool, uint64_t now_ns)
{
    uint64_t token_ns = SECOND_NS / pool->limits.fresh_per_s;
    return pool->budget_ns + token_ns <= now_ns + SECOND_NS / 2;
}

static bool wants_fresh_locked(struct pool *pool, uint64_t now_ns)
{
    if (pool->limits.fresh_per_s == 0) {
        return false;
    }
    /* two successive queries never share a port, even when the budget is spent */
    return budget_spend_locked(pool, now_ns) || (pool->front == pool->last_given && pool->limits.max_idle != 1);
}

static struct pool_node *front_locked(struct pool *pool, uint64_t now_ns, struct pool_node **close)
{
    struct pool_node *node;
    while ((node = pool->front) != NULL) {
        if (expired(pool, node, now_ns)) {
            discard_locked(pool, node, close, &pool->counts.expired);
        } else if (too_old(pool, node, now_ns)) {
            discard_locked(pool, node, close, &pool->counts.aged);
        } else {
            unlink_locked(pool, node);
            break;
        }
    }
    return node;
}

enum pool_take pool_take(struct pool *pool, uint64_t now_ns, bool fresh, struct pool_node **ret_node,
                         struct pool_node **ret_close)
{
    *ret_close = NULL;
    pthread_mutex_lock(&pool->mutex);
    enum pool_take result = POOL_OPEN;
    if (pool->stopped) {
        result = POOL_STOPPED;
    } else if (!fresh && !wants_fresh_locked(pool, now_ns)) {
        struct pool_node *node = front_locked(pool, now_ns, ret_close);
        if (node != NULL) {
            *ret_node = node;
            result = POOL_HIT;
        }
    }
    if (result == POOL_HIT) {
        pool->counts.hits++;
    } else if (result == POOL_OPEN) {
        pool->counts.misses++;
        pool->counts.open++;
    }
    pthread_mutex_unlock(&pool->mutex);
    return result;
}

struct pool_node *pool_take_instead(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->counts.open--;
    struct pool_node *node = pool->front;
    if (node != NULL) {
        unlink_locked(pool, node);
        pool->counts.misses--;
        pool->counts.hits++;
    }
    pthread_mutex_unlock(&pool->mutex);
    return node;
}

void pool_adopt(struct pool_node *node, uint64_t now_ns)
{
    *node = (struct pool_node){.born_ns = now_ns, .used_ns = now_ns, .counted = true};
}

void pool_open_failed(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->counts.open--;
    pthread_mutex_unlock(&pool->mutex);
}

/* Tells whether a node given back may stay, and counts it out if not. */
static bool keep_locked(struct pool *pool, struct pool_node *node, uint64_t now_ns)
{
    const struct pool_limits *limits = &pool->limits;
    uint32_t max_idle = limits->max_idle;
    if (limits->fresh_per_s > 0) {
        /* two at least, so that they can take turns */
        uint32_t most = limits->fresh_per_s > 2 ? limits->fresh_per_s : 2;
        max_idle = max_idle == 0 || max_idle > most ? most : max_idle;
    }
    if (pool->stopped) {
        return false;
    }
    if (too_old(pool, node, now_ns) || (limits->max_uses > 0 && node->uses >= limits->max_uses) ||
        (limits->fresh_per_s > 0 && budget_plenty_locked(pool, now_ns))) {
        pool->counts.aged++;
        return false;
    }
    if (max_idle > 0 && pool->counts.idle >= max_idle) {
        pool->counts.overflow++;
        return false;
    }
    return true;
}

bool pool_give(struct pool *pool, struct pool_node *node, uint64_t now_ns)
{
    node->uses++;
    node->used_ns = now_ns;
    pthread_mutex_lock(&pool->mutex);
    bool keep = keep_locked(pool, node, now_ns);
    if (keep) {
        node->prev = pool->back;
        node->next = NULL;
        *(pool->back != NULL ? &pool->back->next : &pool->front) = node;
        pool->back = node;
        node->idle = true;
        pool->counts.idle++;
    } else {
        node->counted = false;
        pool->counts.open--;
    }
    pool->last_given = keep ? node : NULL;
    pthread_mutex_unlock(&pool->mutex);
    return keep;
}

bool pool_seize(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    bool was_idle = node->idle;
    if (was_idle) {
        unlink_locked(pool, node);
    }
    pthread_mutex_unlock(&pool->mutex);
    return was_idle;
}

void pool_lost(struct pool *pool, struct pool_node *node)
{
    pthread_mutex_lock(&pool->mutex);
    if (node->counted) {
        node->counted = false;
        pool->counts.open--;
        pool->counts.died++;
    }
    pthread_mutex_unlock(&pool->mutex);
}

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
            if (too_old(pool, node, now_ns)) {
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

void pool_get_counts(struct pool *pool, struct pool_counts *ret)
{
    pthread_mutex_lock(&pool->mutex);
    *ret = pool->counts;
    pthread_mutex_unlock(&pool->mutex);
}
