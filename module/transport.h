/* A transport: how one upstream is reached, and its pools.
 *
 * Shared by identity: all proxies of all instances of an engine with the same key use one transport, so a reload keeps warm connections.
 *
 * Threads: any. Ownership: reference-counted (proxies, conns, the janitor); the engine's registry holds no reference.
 * Standards: CoreDNS cases 63-72.
 */
#pragma once

#include "conn.h"
#include "pool.h"
#include "series.h"

#include <stdatomic.h>

struct engine;
struct health;

/** What makes two transports the same. Compared octet by octet: zero it before filling. */
struct transport_key {
    struct fwd_addr addr;
    struct fwd_addr source; /**< family 0 when the kernel chooses */
    uint32_t proto;         /**< FWD_PROTO_UDP for plain DNS (UDP and TCP) */
    uint32_t port_budget;
    uint64_t expire_ns;
    uint64_t max_age_ns;
    uint64_t max_idle;
};

struct transport {
    struct transport_key key; /* immutable */
    struct engine *engine;
    struct transport *next_in_bucket; /* guarded by the engine's mutex */
    uint32_t users;                   /* guarded by the engine's mutex */
    struct health *healths;           /* likewise */
    atomic_uint refs;
    struct series *series;
    struct pool udp, stream;
    atomic_uint next_loop;
    _Atomic uint64_t dial_avg_ns;
    struct timer janitor;
    struct loop *janitor_loop;
    atomic_bool stopped;
};

enum { EXCHANGE_ONE_SHOT = 1 }; /**< a new conn, never pooled: probes (case 83) */

/** Makes a transport with one reference and starts its janitor. @param to its name in metrics. @return NULL when out of memory */
struct transport *transport_create(struct engine *engine, const struct transport_key *key, const char *to);

struct transport *transport_ref(struct transport *transport);
void transport_unref(struct transport *transport);

/** No user is left: stops the pools and closes what is idle, and drops the creator's reference. */
void transport_stop(struct transport *transport);

/** The pool of a FWD_PROTO_*: udp, or the one that tcp and tls share (case 63). */
static inline struct pool *transport_pool(struct transport *transport, uint32_t proto)
{
    return proto == FWD_PROTO_UDP ? &transport->udp : &transport->stream;
}

/** Starts an exchange on a pooled or new conn, on the calling thread.
 *  @param proto FWD_PROTO_UDP or FWD_PROTO_TCP
 *  @param flags EXCHANGE_*
 *  @return true when it is in flight: x->end will be called, perhaps already, and x may not be touched any more; false when it failed at once
 *          and *ret_outcome says how */
bool transport_exchange(struct transport *transport, struct exchange *x, uint32_t proto, uint32_t flags,
                        struct outcome *ret_outcome);

/** How long a dial may take now (case 71), nanoseconds. */
uint64_t transport_dial_timeout(struct transport *transport);

/** A dial took this long, or failed after it. */
void transport_observe_dial(struct transport *transport, uint64_t took_ns);
