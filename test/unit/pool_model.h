/* A model of the pool: arrays, searched from end to end, in which every rule of pool.h is one plain line.
 *
 * Threads: one. There is one model; what it stands for is known by its index.
 */
#pragma once

#include "pool.h"

#define SECOND UINT64_C(1000000000)

enum { NODES = 40, WAITERS = 24 };

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

extern struct model {
    struct pool_limits limits;
    struct model_node nodes[NODES];
    int queue[WAITERS]; /* waiters in order */
    int queued;
    uint64_t budget_ns, order, epoch;
    int last_given;
    uint64_t shared_fate; /* waiters that ended with a dial */
    uint32_t opening; /* POOL_OPENs that are nobody's node yet */
    bool stopped, starved;
    uint64_t now;
    struct pool_counts counts;
} model;

uint32_t model_open(void); /* in the books */
uint32_t model_closing(void);
uint32_t model_dialling(void);
uint32_t model_in_flight(void);
uint32_t model_idle(void);
bool model_may_open(void);
bool model_aged(int i);
bool model_expired(int i);

/** The front of the idle or of the shared ones, and the next of the shared ones that is good; -1 when there is none. */
int model_front(bool idle);
int model_shared(void);

/** A node leaves its list, or takes its place among the shared ones if it has room. */
void model_unlist(int i);
void model_share(int i);

/** Takes a place on a node that has room. */
void model_use(int i);

/** A node is going to be closed. @param reason the count that it goes into, if it is in none yet */
void model_close(int i, uint64_t *reason);

/** The first waiter leaves the queue. */
int model_pop(void);

/** As the pool's functions. Nodes and waiters are numbers, -1 none.
 *  @param[out] closed mask of the nodes that are to be closed */
enum pool_take model_take(bool fresh, int *ret, uint64_t *closed);
enum pool_gave model_give(int i, bool success, int *ret_waiter);
bool model_wait(int w, bool again);

/** Who may open now; -1 nobody. */
int model_turn(void);
