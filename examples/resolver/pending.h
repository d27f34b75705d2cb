/* A client's query while the module has it: all that a reply, a log line and the client's socket
 * need.
 *
 * Threads: the worker that owns a slab takes records from it; any thread gives them back.
 * Ownership: a record belongs to who holds its token. Limits: PENDING_MAX records per worker,
 * PENDING_INLINE octets of query without an allocation.
 */
#pragma once

#include "address.h"
#include "message.h"

#include <stdatomic.h>

enum { PENDING_INLINE = 192, PENDING_MAX = 1 << 17 };

struct port;
struct server;
struct tally;
struct tcp_conn;

/** Who asked, and at which of our addresses. */
struct client {
    union address remote;
    union address local; /**< of family AF_UNSPEC when the socket itself says it */
};

struct pending {
    struct pending *next; /**< in a free list */
    struct pending_slab *home;
    const struct server *server;
    struct tally *tally;     /**< NULL when it is not counted */
    struct tcp_conn *conn;   /**< NULL for UDP */
    const struct port *port; /**< the listening socket that it came by */
    uint64_t start_ns;       /**< when it was read */
    uint64_t wall_ns;        /**< the same as wall-clock time, for dnstap */
    struct client client;
    struct message query;
    uint8_t *large; /**< the query when it is longer than PENDING_INLINE */
    uint8_t octets[PENDING_INLINE];
};

struct pending_chunk;

struct pending_slab {
    struct pending *free;               /**< the owner's */
    _Atomic(struct pending *) returned; /**< pushed by all, taken whole by the owner */
    struct pending_chunk *chunks;
    unsigned made;
};

/** A record with a copy of the query in it; NULL when out of memory or over the limit. */
struct pending *pending_take(struct pending_slab *slab, const struct message *query);
void pending_release(struct pending *pending);
void pending_slab_fini(struct pending_slab *slab);
