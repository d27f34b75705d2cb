/* The pool: idle connections of one kind to one upstream, first in, first out.
 *
 * A node is idle (in the FIFO) or out; whoever took it owns it until he gives it back or says that it is lost. The pool opens and
 * closes nothing itself: it tells its caller to, so no system call happens under its mutex.
 *
 * Threads: any; one mutex, a leaf lock held for a few pointer writes. Ownership: nodes are embedded in connections. Standards: RFC 5452
 * 9.2 (source ports), RFC 7766 6.2.3 (idle time); CoreDNS cases 63-70.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct pool_node {
    struct pool_node *prev, *next; /* guarded by the pool's mutex while idle; chains what a call returns to be closed */
    uint64_t born_ns;
    uint64_t used_ns;
    uint32_t uses;
    bool idle;
    bool counted; /* among pool.open */
};

struct pool_limits {
    uint64_t expire_ns;  /**< idle for longer: closed (case 66) */
    uint64_t max_age_ns; /**< older: closed; 0 no limit */
    uint32_t max_idle;   /**< most idle nodes; 0 unlimited (case 67) */
    uint32_t max_uses;   /**< exchanges of one node; 0 no limit */
    uint32_t fresh_per_s; /**< budget of takes per second that open although one is idle; 0 none. With a budget at most that many stay idle */
};

struct pool_counts {
    uint32_t idle;
    uint32_t open; /**< idle and out */
    uint64_t hits, misses, expired, aged, overflow, died;
};

struct pool {
    struct pool_limits limits;
    pthread_mutex_t mutex;
    /* guarded by mutex */
    struct pool_node *front, *back;
    const struct pool_node *last_given; /* never dereferenced */
    uint64_t budget_ns;                 /* when the budget will be whole again */
    bool stopped;
    struct pool_counts counts;
};

enum pool_take {
    POOL_HIT,     /**< a node was taken */
    POOL_OPEN,    /**< open one; it is counted already: pool_adopt it, or tell pool_open_failed */
    POOL_STOPPED, /**< take after stop (case 70) */
};

void pool_init(struct pool *pool, const struct pool_limits *limits);

/** The pool must be empty: stopped, and everything lost or given back. */
void pool_fini(struct pool *pool);

/** Takes the oldest idle node that is still good.
 *  @param fresh do not use an idle node
 *  @param[out] ret_node the node with POOL_HIT
 *  @param[out] ret_close chain of expired nodes that the caller closes, in every case; may be NULL */
enum pool_take pool_take(struct pool *pool, uint64_t now_ns, bool fresh, struct pool_node **ret_node,
                         struct pool_node **ret_close);

/** Takes an idle node whatever the budget says, for a caller that could not open one. NULL when there is none. It cancels a POOL_OPEN. */
struct pool_node *pool_take_instead(struct pool *pool);

/** A POOL_OPEN became this node. */
void pool_adopt(struct pool_node *node, uint64_t now_ns);

/** A POOL_OPEN came to nothing. */
void pool_open_failed(struct pool *pool);

/** Gives a node back after a successful exchange. @return true when it is idle now, false when the caller must close it */
bool pool_give(struct pool *pool, struct pool_node *node, uint64_t now_ns);

/** Takes a particular node out if it is idle: its peer closed it. @return true when the caller owns it now */
bool pool_seize(struct pool *pool, struct pool_node *node);

/** An owned node is being closed for a reason of its own. Idempotent. */
void pool_lost(struct pool *pool, struct pool_node *node);

/** Takes out all that is expired or too old, to be closed by the caller; NULL when nothing is (case 68). */
struct pool_node *pool_sweep(struct pool *pool, uint64_t now_ns);

/** Stops the pool and takes out everything idle, to be closed by the caller (case 70). */
struct pool_node *pool_stop(struct pool *pool);

void pool_get_counts(struct pool *pool, struct pool_counts *ret);
