/* The pool: the connections of one kind to one upstream; the idle ones first in, first out.
 *
 * A node is idle (in the FIFO, perhaps still dialling for somebody who did not wait for it), shared (in use, with room for more exchanges; only where its limit is above 1), spare (dialled ahead of need, not
 * ready yet) or out. Whoever takes a node holds one of its places until he gives it back. The pool opens and closes nothing itself: it tells its caller to, so no system call
 * happens under its mutex. At its limits it keeps a queue of waiters, served in order of arrival by whoever gives something back. Where nothing will be
 * given back, because the upstream does not let itself be dialled, they all leave the queue together with the dial that shows it.
 *
 * Threads: any; one mutex, held for a few pointer writes. Every operation is O(1) but pool_sweep, pool_stop and what they close, and pool_dial_failed.
 * Ownership: nodes are embedded in connections, waiters in exchanges. Standards: RFC 5452 9.2 (source ports), RFC 7766 6.2 (reuse, limits, idle time);
 * CoreDNS cases 63-70.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum pool_place { PLACE_OUT, PLACE_IDLE, PLACE_SHARED, PLACE_SPARE, POOL_PLACES };

struct pool_node {
    atomic_uint pins; /* who may still use what the node belongs to; the pool adds one, under its mutex, for whomever it hands the node to */
    /* guarded by the pool's mutex */
    struct pool_node *prev, *next; /* in its list; chains what a call returns to be closed */
    enum pool_place place;
    uint32_t used;    /* places taken */
    uint32_t uses;    /* exchanges so far */
    bool counted;     /* among pool.open */
    bool closing;     /* among pool.closing */
    bool dialling;    /* among pool.dialling */
    bool retired;     /* takes no more; closed when the last place is given back */
    bool spare;       /* dialled ahead of need: the first give is no use of it */
    uint64_t epoch;   /* pool.epoch when it was dialled */
    uint64_t used_ns;
    uint64_t until_ns; /* when it is too old; UINT64_MAX never */
    uint64_t idle_ns;  /* how long it may stay idle, if that is less than expire; 0 as long as any */
    uint32_t limit;    /* places, at least 1; set before pool_adopt */
    bool shareable;    /* limit was above 1 when it was adopted; never changes */
};

struct pool_limits {
    uint64_t expire_ns;   /**< idle for longer: closed (case 66) */
    uint64_t max_age_ns;  /**< older: closed; 0 no limit */
    uint32_t age_jitter;  /**< per cent of max_age by which a node's own limit is shortened at random */
    uint32_t max_idle;    /**< most idle nodes; 0 unlimited (case 67) */
    uint32_t min_idle;    /**< idle nodes that pool_missing keeps ready */
    uint32_t max_uses;    /**< exchanges of one node; 0 no limit */
    uint32_t max_open;    /**< most nodes, dialling and in use ones included; 0 no limit */
    uint32_t max_dialling; /**< most nodes that are not ready yet; 0 no limit */
    bool never_wait;      /**< at a limit: POOL_REFUSED instead of POOL_WAIT */
    uint32_t fresh_per_s; /**< budget of takes per second that open although one is idle; 0 none. With a budget at most that many, and 256, stay idle */
};

struct pool_counts {
    uint32_t idle;
    uint32_t open; /**< idle, in use, dialling and closing */
    uint32_t closing; /**< nobody's any more, but not closed yet */
    uint32_t dialling;
    uint32_t waiting;
    uint32_t in_flight; /**< places taken: exchanges, several on a shared node */
    uint32_t peak; /**< most in use, dialling and waiting at once since the last sweep */
    uint64_t hits;
    uint64_t misses;      /**< takes for which one was to be opened */
    uint64_t dials;       /**< nodes opened, spare ones included */
    uint64_t open_failed; /**< that could not be: no descriptor, no port */
    uint64_t waits, refused;
    /* closed, each node once, by reason */
    uint64_t expired, aged, used_up;
    uint64_t overflow; /**< max_idle were idle already */
    uint64_t renewed;  /**< the budget has a fresh one for the next take */
    uint64_t died;     /**< by the peer, an error or a time-out */
    uint64_t stopped;
};

/** An exchange that waits its turn. */
struct pool_waiter {
    struct pool_waiter *prev, *next; /* guarded by the pool's mutex */
    bool queued;
};

struct pool {
    struct pool_limits limits;
    pthread_mutex_t mutex;
    /* guarded by mutex */
    struct pool_list {
        struct pool_node *front, *back;
    } lists[POOL_PLACES];
    struct pool_waiter *first_waiter, *last_waiter;
    const struct pool_node *last_given; /* never dereferenced */
    uint64_t budget_ns;                 /* when the budget will be whole again */
    bool stopped;
    bool bounded; /* some nodes may stay idle for less time than others */
    bool starved; /* opening failed while others were open: those serve the waiters until one of them is closed */
    uint64_t epoch; /* ends when the upstream shows that it is there, and when a dial has failed for those who waited */
    struct pool_counts counts;
    atomic_bool low; /* a hint: fewer than min_idle were idle or coming at the last take */
};

enum pool_take {
    POOL_HIT,     /**< a place on a node was taken */
    POOL_OPEN,    /**< open one; it is counted already: pool_adopt it, or tell pool_open_failed */
    POOL_WAIT,    /**< a limit is reached: pool_wait */
    POOL_REFUSED, /**< a limit is reached, and waiting is off */
    POOL_STOPPED, /**< take after stop (case 70) */
};

void pool_init(struct pool *pool, const struct pool_limits *limits);

/** The pool must be empty: stopped, everything lost or given back, nobody waiting. */
void pool_fini(struct pool *pool);

/** Ends one pin. */
static inline void pool_unpin(struct pool_node *node)
{
    atomic_fetch_sub_explicit(&node->pins, 1, memory_order_release);
}

/** Takes a place: on a node in use that has room, else on the oldest idle node that is still good, else on a new one.
 *  @param fresh only on a new one
 *  @param[out] ret_node the node with POOL_HIT, pinned
 *  @param[out] ret_close chain of expired nodes, pinned, that the caller closes, in every case; may be NULL */
enum pool_take pool_take(struct pool *pool, uint64_t now_ns, bool fresh, struct pool_node **ret_node,
                         struct pool_node **ret_close);

/** Takes an idle node whatever the budget says, for a caller that could not open one. It cancels the POOL_OPEN. NULL when there is none, and the
 *  POOL_OPEN stands. */
struct pool_node *pool_take_instead(struct pool *pool);

enum pool_adopted {
    ADOPT_READY,
    ADOPT_DIALLING, /**< pool_ready must follow */
    ADOPT_SPARE,    /**< likewise, and then pool_give */
};

/** A POOL_OPEN became this node, one place of which is the caller's. When several fit on it, pool_next should follow.
 *  @param random a random number, for the jitter of its age */
void pool_adopt(struct pool *pool, struct pool_node *node, enum pool_adopted how, uint64_t now_ns, uint16_t random);

/** Undoes pool_adopt: the node could not be used after all, and is a POOL_OPEN of the caller again. */
void pool_disown(struct pool *pool, struct pool_node *node);

/** A POOL_OPEN came to nothing. @return the waiter whose turn it is now, with a POOL_OPEN of its own; or NULL */
struct pool_waiter *pool_open_failed(struct pool *pool);

/** A dialled node is ready. @return as pool_open_failed */
struct pool_waiter *pool_ready(struct pool *pool, struct pool_node *node);

/** The dial of a node, or its handshake, has failed; pool_lost follows. Whoever waits would fare no better, unless since it began another node has
 *  become ready, an exchange has succeeded, or another dial has failed for those who waited then: who waits now has only come since.
 *  @return all waiters, chained by next, out of the queue and the caller's; NULL when they stay */
struct pool_waiter *pool_dial_failed(struct pool *pool, const struct pool_node *node);

/** Queues a waiter after POOL_WAIT.
 *  @param again it has had its turn, in vain: before all others
 *  @return false when the limit is not reached any more: take again */
bool pool_wait(struct pool *pool, struct pool_waiter *waiter, bool again);

/** Takes a waiter out of the queue. @return false when its turn has come already: somebody else is serving it */
bool pool_unwait(struct pool *pool, struct pool_waiter *waiter);

/** Whose turn it is, if another waiter can be served: after one has been, and after something has made room.
 *  @param[out] ret_node where he has a pinned place; NULL when he has a POOL_OPEN of his own */
struct pool_waiter *pool_next(struct pool *pool, uint64_t now_ns, struct pool_node **ret_node);

enum pool_gave {
    GAVE_KEPT,   /**< the pool has it */
    GAVE_WAITER, /**< *ret_waiter has taken the place and a pin: serve it on this node */
    GAVE_CLOSE,  /**< the caller closes it */
};

/** Gives a place back.
 *  @param success the exchange was fully successful; else an idle node is closed (case 79), and a shared one goes on */
enum pool_gave pool_give(struct pool *pool, struct pool_node *node, bool success, uint64_t now_ns,
                         struct pool_waiter **ret_waiter);

/** The node takes no more; it is closed when its last place is given back. */
void pool_retire(struct pool *pool, struct pool_node *node);

/** Changes how many places a node has; pool_next should follow. */
void pool_set_limit(struct pool *pool, struct pool_node *node, uint32_t limit);

/** A node may not stay idle for longer than this, expire allowing; the last one counts. */
void pool_bound_idle(struct pool *pool, struct pool_node *node, uint64_t idle_ns);

/** A node is going to be closed, wherever it is: nobody gets it any more. Idempotent. @return whether somebody waits, who may be served by pool_closed */
bool pool_lost(struct pool *pool, struct pool_node *node);

/** It is closed: only now may another be opened in its place. After pool_lost. @return as pool_open_failed */
struct pool_waiter *pool_closed(struct pool *pool, struct pool_node *node);

/** Takes out all that is expired or too old, pinned, to be closed by the caller; NULL when nothing is (case 68).
 *  @param spare_since_ns spare nodes that have dialled since before this are given up too */
struct pool_node *pool_sweep(struct pool *pool, uint64_t now_ns, uint64_t spare_since_ns);

/** Stops the pool and takes out everything idle and spare, pinned, to be closed by the caller (case 70). */
struct pool_node *pool_stop(struct pool *pool);

/** How many nodes must be opened now for min_idle of them to be idle; they are counted as POOL_OPENs of the caller. Where dials are limited half of them
 *  stay for those who ask, so there may be more to open when these are ready. */
uint32_t pool_missing(struct pool *pool);

/** Whether as many nodes are open as may be. */
bool pool_all_open(struct pool *pool);

void pool_get_counts(struct pool *pool, struct pool_counts *ret);
