/* A transport: how one upstream is reached, and its pools.
 *
 * Shared by identity: all proxies of all instances of an engine with the same key use one transport, so a reload keeps warm connections.
 *
 * Threads: any. Ownership: reference-counted (users, conns, its timers); the engine's registry holds no reference.
 * Standards: CoreDNS cases 63-72.
 */
#pragma once

#include "advice.h"
#include "conn.h"
#include "fault.h"
#include "pool.h"
#include "series.h"

#include <stdatomic.h>

struct engine;
struct health;
struct tls;

/** What makes two transports the same. Compared octet by octet: zero it before filling. */
struct transport_key {
    struct fwd_addr addr;
    struct fwd_addr source; /**< family 0 when the kernel chooses */
    struct tls *tls;        /**< how it proves who it is; NULL for plain DNS */
    uint32_t proto;         /**< FWD_PROTO_UDP for plain DNS (UDP and TCP), FWD_PROTO_TLS, FWD_PROTO_HTTPS */
    uint32_t port_budget;
    uint64_t expire_ns;
    uint64_t max_age_ns;
    uint64_t max_idle;
    uint64_t max_wait_ns; /**< for a connection; UINT64_MAX as long as the query lives, 0 never */
    uint64_t connect_timeout_ns;   /**< 0: adaptive (case 71) */
    uint64_t handshake_timeout_ns; /**< of TLS */
    uint64_t keepalive_ns;         /**< TCP keepalive idle time; 0 off */
    uint32_t places;               /**< exchanges in flight on one TCP or TLS connection */
    uint32_t max_open;
    uint32_t max_dialling;
    uint32_t min_idle;
    uint32_t max_uses;
    uint32_t age_jitter;
    uint16_t padding; /**< block length of queries over TLS and HTTPS; 0 off */
    bool edns_keepalive;
    bool doh_get;
    uint8_t reserved[4];
};

/** No local port was left a moment ago. */
struct shortage {
    _Atomic uint64_t until_ns;
    atomic_int sys_errno;
};

struct transport {
    struct transport_key key; /* immutable */
    struct engine *engine;
    struct transport *next_in_bucket; /* guarded by the engine's mutex */
    uint32_t users;                   /* likewise */
    struct health *healths;           /* likewise */
    atomic_uint refs;
    struct series *series;
    struct fault_book fault; /* of attempts */
    struct series_pool books[2];
    struct advice advice[2]; /* the janitor's */
    char *authority; /* of DoH requests */
    struct pool udp, stream;
    atomic_uint next_loop;
    _Atomic uint64_t dial_avg_ns;
    _Atomic uint64_t cut_ns; /* when a shared connection was last cut off with several in flight */
    _Atomic uint64_t closed_ns; /* when the peer last closed a connection that it had answered on */
    struct loop *timer_loop;
    struct timer janitor;
    struct timer refill;
    atomic_bool refilling;
    struct shortage shortages[2]; /* of TCP, of UDP ports */
    _Atomic uint64_t refill_ns; /* no spare conn is opened before */
    atomic_bool stopped;
};

enum { EXCHANGE_ONE_SHOT = 1 }; /**< a new conn, never pooled: probes (case 83) */

/** Makes a transport with one reference and starts its janitor. The engine's mutex is held. @param to its name in metrics.
 *  @return NULL when out of memory */
struct transport *transport_create(struct engine *engine, const struct transport_key *key, const char *to);

struct transport *transport_ref(struct transport *transport);
void transport_unref(struct transport *transport);

/** No user is left: stops the pools and closes what is idle, and drops the creator's reference. */
void transport_stop(struct transport *transport);

/** The pool of a FWD_PROTO_*: udp, or the one that all streams share (case 63). */
static inline struct pool *transport_pool(struct transport *transport, uint32_t proto)
{
    return proto == FWD_PROTO_UDP ? &transport->udp : &transport->stream;
}

/** Starts an exchange on a pooled or new conn, on the calling thread.
 *  @param proto FWD_PROTO_UDP or FWD_PROTO_TCP for plain DNS; an encrypted transport goes its own way whatever is asked (case 64)
 *  @param flags EXCHANGE_*
 *  @param now_ns the clock
 *  @return true when it is in flight or waits for a connection: x->end will be called, perhaps already, and x may not be touched any more; false
 *          when it failed at once and *ret_outcome says how */
bool transport_exchange(struct transport *transport, struct exchange *x, uint32_t proto, uint32_t flags, uint64_t now_ns,
                        struct outcome *ret_outcome);

/** Has the refill timer fire soon, but not before refill_ns, unless it is about to, or nothing is to be kept ready. Any thread. */
void transport_want_refill(struct transport *transport);

/** A conn of the pool is ready, or has just been closed: what follows for those who wait. */
void transport_ready(struct transport *transport, struct conn *conn);
void transport_closed(struct transport *transport, struct conn *conn);

/** A conn of the pool is going to be closed: nobody gets it any more. @return whether somebody waits for one */
bool transport_lost(struct transport *transport, struct conn *conn);

/** How many exchanges a new conn may carry at once. */
uint32_t transport_places(struct transport *transport, uint32_t proto);

/** A peer closed a conn with several exchanges in flight: for a while fewer are put on one. */
void transport_note_cut(struct transport *transport);

/** A peer closed a conn that it had answered on. Any thread. */
void transport_note_close(struct transport *transport, uint64_t now_ns);

/** Whether it has done so since then. */
bool transport_closed_since(const struct transport *transport, uint64_t since_ns);

/** Whether a pool has other conns than those that are being closed. */
bool transport_has_others(struct transport *transport, uint32_t proto);

/** How long a dial may take now (case 71), nanoseconds. */
uint64_t transport_dial_timeout(struct transport *transport);

/** How long a TLS handshake may take, nanoseconds. */
uint64_t transport_handshake_timeout(const struct transport *transport);

/** How long a dial or handshake must have gone on, nanoseconds, for its time-out to say something about the upstream: its limit, but a second at most. */
uint64_t transport_least_patience(const struct transport *transport, enum phase phase);

/** A dial took this long, or failed after it. */
void transport_observe_dial(struct transport *transport, uint64_t took_ns);
