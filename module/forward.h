/* Forwarding: the way of one query through the stanzas and their upstreams.
 *
 * Threads: any; a query has one owner at a time. Standards: CoreDNS cases 41-59.
 */
#pragma once

#include "config.h"
#include "namemap.h"
#include "proxy.h"
#include "query.h"

#include <stdatomic.h>

struct stanza {
    const struct config_stanza *config;
    struct fwd_instance *instance;
    uint32_t index;
    struct proxy_set set;
    struct namemap except; /* where there are many */
    atomic_uint turn;              /* round_robin */
    _Atomic int64_t concurrent;    /* only counted when max_concurrent is set */
};

/** Serves one query: writes verdict, rcode, error, handle and detail. The instance has been entered for it; the caller leaves it for every query
 *  that is not accepted. */
void forward_serve(struct fwd_instance *instance, struct fwd_query *query);

/** One attempt on one upstream (fwd.proxy/1 exchange). Same rules. */
void forward_exchange(struct fwd_proxy *proxy, struct fwd_query *query, uint32_t options);
