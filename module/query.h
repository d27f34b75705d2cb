/* A query: one client question on its way through the stanzas and upstreams of an instance, and the memory of all queries.
 *
 * Owner: serve's thread until an exchange is in flight, then the I/O thread that ends it; never two (with several in flight race.h says who). Memory is type-stable: a slot is
 * reused but not freed while the engine lives, and `word` counts its uses, so a handle of an ended query is recognised.
 *
 * Threads: slab any; delivery on the loop's thread. Limits: about 1 KiB per query in flight; wire beyond 256 octets is allocated.
 */
#pragma once

#include "exchange.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct fwd_instance;
struct fwd_proxy;
struct loop_done;
struct proxy_set;
struct query;
struct race;
struct stanza;

enum {
    QUERY_INLINE = 256,
    QUERY_DETAIL = 224,
    QUERY_FEW = 16,
    QUERY_MAX_UPSTREAMS = 255, /* of a stanza, after expansion of files and host names */
    QUERY_CHUNK = 128,
    QUERY_CHUNKS = 8192,
    QUERY_COMPLETION_MAX = 256, /* largest fwd_host.completion_size; an appended field may go unfilled, never out of bounds */
};

/** One attempt at an upstream in a query's name. */
struct attempt {
    struct exchange x;
    struct query *query;
    struct fwd_proxy *proxy;
    const struct stanza *stanza; /* that it was made for */
    struct proxy_set *set;       /* likewise; held while it is out in a race, as it may outlive its query's use of it */
    uint32_t free_retries;
    bool retry_tcp; /* it goes over TCP because of TC (case 50) */
    bool out;       /* in flight; only looked at in a race */
};

struct query {
    _Atomic uint64_t word; /* generation << 1 | canceled */
    uint32_t index;
    struct query *next_free;       /* guarded by the slab's mutex */
    struct fwd_instance *instance; /* written under the slab's mutex; NULL while free */
    _Atomic(struct race *) kept_race; /* the slot's; stays with it */
    struct attempt first;             /* the only one unless there is a race */

    struct race *race; /* NULL when there is one attempt at a time (option retransmit) */
    uint64_t token;
    uint64_t start_ns;
    uint64_t now_ns; /* when its owner last looked at the clock */
    uint64_t limit_ns; /* absolute: the end of the present stanza's budget */
    uint64_t real_ns; /* wall clock at serve; only when there is a tap or a trace */
    struct fwd_addr client;
    uint32_t options; /* FWD_EXCHANGE_* of fwd.proxy/1 */
    uint16_t client_id;
    bool client_tcp;
    bool single; /* fwd.proxy/1: one attempt, no failover */

    /* progress through the current stanza */
    struct stanza *stanza;
    struct proxy_set *set;   /* what it chooses from, held; NULL once it has ended */
    struct fwd_proxy *proxy; /* of the last attempt; NULL when none was made */
    bool counted;            /* in stanza->concurrent */
    uint8_t *order; /* few, or allocated */
    uint8_t few[QUERY_FEW];
    uint8_t at;
    uint8_t fails;     /* down ones met since the list was begun (case 47) */
    uint8_t failovers; /* case 55 */
    uint32_t errors;   /* what max_connect_attempts counts (case 45) */
    uint32_t attempts; /* exchanges in all */

    int error; /* of the last failed attempt */
    uint32_t proto;
    char detail[QUERY_DETAIL];

    uint8_t *heap; /* wire that does not fit */
    uint8_t space[QUERY_INLINE];
};

struct query_slab {
    pthread_mutex_t mutex;
    struct query *free;
    struct query *chunks[QUERY_CHUNKS];
    uint32_t chunk_count;
};

void query_slab_init(struct query_slab *slab);
void query_slab_fini(struct query_slab *slab);

/** A query of this instance with its wire copied; everything else zero. NULL when out of memory. */
struct query *query_alloc(struct query_slab *slab, struct fwd_instance *instance, const uint8_t *wire, uint32_t len);

/** Gives the memory back; handles to it are void from here on. */
void query_free(struct query_slab *slab, struct query *query);

/** Frees a query that has been delivered, and takes it off its instance. */
void query_drop(struct query *query);

/** The name of a query for the host: slot and generation. */
uint64_t query_handle(const struct query *query);

/** Sets the canceled bit of the query that handle means and detaches its exchanges. @return false when it has ended */
bool query_cancel(struct query_slab *slab, struct fwd_instance *instance, uint64_t handle);

/** Cancels every query of an instance. */
void query_cancel_all(struct query_slab *slab, struct fwd_instance *instance);

/** True when both queries are delivered to the same done callback with the same argument. */
bool query_same_host(const struct query *a, const struct query *b);

/** Calls the host with a batch and frees its queries. @param space LOOP_BATCH x QUERY_COMPLETION_MAX octets */
void query_deliver(const struct loop_done *batch, uint32_t count, uint8_t *space);
