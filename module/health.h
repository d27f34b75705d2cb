/* Health of an upstream: how many probes in a row have failed, and the loop of probes that runs while it is failing.
 *
 * Shared by proxies with the same transport and probe settings. idle -> probing -> (waiting -> probing)* -> idle
 *
 * Threads: any. Ownership: reference-counted (users, and the running probe loop). Standards: CoreDNS cases 83-88.
 */
#pragma once

#include "config.h"
#include "exchange.h"
#include "fault.h"

#include <stdatomic.h>

struct engine;
struct transport;

struct health {
    struct engine *engine;
    struct transport *transport; /* one user */
    struct health *next;         /* in transport->healths; guarded by the engine's mutex, as is users */
    uint32_t users;
    atomic_uint refs;

    struct fault_book fault; /* of probes */
    uint64_t interval_ns;
    uint32_t proto;
    bool no_rec;

    atomic_uint fails;
    atomic_uint probes; /* sent */
    atomic_bool probing;
    atomic_bool stopped;
    _Atomic uint64_t word;
    struct exchange x;
    struct timer again;
    uint32_t probe_len;
    uint8_t probe[WIRE_HEADER + WIRE_MAX_NAME + 4];
};

/** The health state of a transport under a stanza's options, made on first use, with one more user. Takes over the caller's use of the
 *  transport. @return NULL when out of memory, and the use is the caller's still */
struct health *health_use(struct engine *engine, struct transport *transport, const struct config_options *options);

/** One user less; the last one stops probing and leaves the transport. */
void health_leave(struct health *health);

/** Starts probing unless it goes on already (case 87). */
void health_check(struct health *health);

/** Failed probes in a row. */
static inline uint32_t health_fails(const struct health *health)
{
    return atomic_load_explicit(&health->fails, memory_order_relaxed);
}

/** Case 86; with max_fails 0 never (case 48). */
static inline bool health_down(const struct health *health, uint32_t max_fails)
{
    return max_fails > 0 && health_fails(health) > max_fails;
}
