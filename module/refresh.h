/* Looking the host names of a stanza up again while it runs (option resolve_interval), and the exchange of its upstreams when they have
 * other addresses.
 *
 * There are two sets of upstreams: queries take the current one, and the other is filled when a change is due and nobody holds it any more. Upstreams
 * that stay keep their transports, with connections and health; those that are gone are closed when the last query has left their set.
 *
 * Threads: create, start, stop and destroy as the instance's; refresh_take any; all else the thread of one loop. Ownership: the stanza's; every
 * upstream that it has ever had is kept as a handle, because a host may hold one, and costs some 100 octets. Limits: two changes that
 * follow each other within the life of a query (5 s) become one.
 */
#pragma once

#include "loop.h"
#include "proxy.h"
#include "query.h"
#include "resolve.h"

struct handle;

/** A host name that is looked up again and again. */
struct renewal {
    struct host_name *host;
    struct lookup lookup;
    bool asking;
    uint64_t due_ns;
    atomic_uint addresses; /* how many it has */
    atomic_uint failures;  /* in a row */
    _Atomic uint64_t lookups;
};

struct refresh {
    struct stanza *stanza;
    struct loop *loop;
    struct timer timer; /* between start and end: queued, firing, or its firing is being worked off */
    bool firing;        /* guarded by loop->lock: expired, and not worked off yet */
    bool stopping;      /* likewise */
    struct loop_watch watch;

    struct proxy_set sets[2];
    struct fwd_proxy *items[2][QUERY_MAX_UPSTREAMS];
    atomic_uint current; /* which set */

    uint64_t exchange_ns; /* when there may be something to do with the sets; UINT64_MAX there is not */
    bool stale;           /* names may have other addresses than the current set */
    bool stuck;           /* and to open them has failed */
    struct handle *handles;
    struct host_name *hosts;
    uint32_t count; /* of hosts and names */
    struct renewal names[];
};

/** Looks the names up for the first time and opens their upstreams. Blocks as resolve_hosts. @param pointer JSON pointer of the TOs
 *  @return FWD_OK, FWD_ERR_CONFIG, FWD_ERR_UNSUPPORTED (too many upstreams), FWD_ERR_NOMEM */
int refresh_create(struct stanza *stanza, const char *pointer, struct refresh **ret, struct fwd_error *error);

/** Begins to look up again. */
void refresh_start(struct refresh *refresh);

/** Has it end on its loop, which then calls instance_rest. */
void refresh_stop(struct refresh *refresh);

/** It has ended, or was never started, and nobody holds a set. NULL is allowed. */
void refresh_destroy(struct refresh *refresh);

/** The current set, held until stanza_leave. */
struct proxy_set *refresh_take(struct refresh *refresh);
