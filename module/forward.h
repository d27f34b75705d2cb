/* Forwarding: the way of one query through the stanzas and their upstreams.
 *
 * Threads: any; a query has one owner at a time. Standards: CoreDNS cases 41-59.
 */
#pragma once

#include "config.h"
#include "namemap.h"
#include "proxy.h"
#include "query.h"
#include "refresh.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>

enum { CACHE_LINE = 64 };

/** With very many stanzas none is in the cache when its query comes. So the first line has all that most queries look at, and the second one, which a
 *  processor fetches with it, the upstream if there is only one. */
struct stanza {
    alignas(2 * CACHE_LINE) const struct config_options *options;
    struct proxy_set set;    /* without refresh */
    struct fwd_proxy *item;  /* what set.items points to when there is one upstream */
    struct refresh *refresh; /* NULL unless host names are looked up again */
    struct namemap *except;  /* NULL without */
    atomic_uint turn;        /* round_robin */
    uint32_t index;

    alignas(CACHE_LINE) struct fwd_proxy only; /* the one upstream */
    _Atomic int64_t concurrent; /* only counted when max_concurrent is set */
    const struct config_stanza *config;
    struct fwd_instance *instance;
};

static_assert(sizeof(struct stanza) == 2 * CACHE_LINE, "a stanza is two lines of cache");

/** Has the processor bring a stanza, for a query that is about to come to it. */
static inline void stanza_fetch(const struct stanza *stanza)
{
    __builtin_prefetch(stanza);
    __builtin_prefetch(&stanza->only);
}

/** The upstreams that a stanza has now, held until stanza_leave. */
static inline struct proxy_set *stanza_take(struct stanza *stanza)
{
    return stanza->refresh == NULL ? &stanza->set : refresh_take(stanza->refresh);
}

/** Another user of a set that the caller holds. */
static inline void stanza_hold(const struct stanza *stanza, struct proxy_set *set)
{
    if (stanza->refresh != NULL) {
        atomic_fetch_add(&set->users, 1);
    }
}

static inline void stanza_leave(const struct stanza *stanza, struct proxy_set *set)
{
    if (stanza->refresh != NULL) {
        atomic_fetch_sub(&set->users, 1);
    }
}

/** Serves one query: writes verdict, rcode, error, handle and detail. The instance has been entered for it; the caller leaves it for every query
 *  that is not accepted. */
void forward_serve(struct fwd_instance *instance, struct fwd_query *query);

/** One attempt on one upstream (fwd.proxy/1 exchange). Same rules. */
void forward_exchange(struct fwd_proxy *proxy, struct fwd_query *query, uint32_t options);
