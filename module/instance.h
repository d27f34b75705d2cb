/* An instance: all forward stanzas of one server block, chained in file order.
 *
 *   CREATED -> STARTED -> DRAINING -> STOPPED
 *
 * Threads: create, start, stop, destroy one at a time; the rest any. Ownership: owns its stanzas, uses its configuration, which others may use
 * as well, and transports and health states of its engine.
 */
#pragma once

#include "config.h"
#include "forward.h"
#include "services.h"

#include <stdatomic.h>

struct engine;

enum instance_state { INSTANCE_CREATED, INSTANCE_STARTED, INSTANCE_DRAINING, INSTANCE_STOPPED };

/** With very many instances none is in the cache when its query comes, so what that looks at lies side by side: here, and in the stanzas behind. */
struct fwd_instance {
    alignas(2 * CACHE_LINE) atomic_int state;
    atomic_uint in_flight; /* accepted and not yet delivered, those that serve has in hand, and one for each serve of several */
    uint32_t stanza_count;
    bool races;     /* a stanza has retransmit */
    bool first_all; /* the first stanza takes whatever comes */
    struct engine *engine;
    struct fwd_host host; /* in the same line as what a completion looks at */
    struct services services;

    alignas(CACHE_LINE) const struct config *config; /* perhaps shared with other instances */
    struct arena arena;   /* what the stanzas need besides */
    struct namemap index; /* FROMs; values are the indexes of their stanzas. Empty where the only stanza takes all */
    struct fwd_proxy **proxies; /* of all stanzas without refresh, one after the other */
    uint32_t proxy_count;
    uint32_t refresh_count; /* stanzas whose upstreams may change */
    atomic_uint busy;       /* refreshes that have not ended */
    bool in_slab;

    struct stanza stanzas[];
};

/** FWD_ERR_UNSUPPORTED with the place when the configuration asks for what this version cannot do, else FWD_OK. */
int instance_supported(const struct config *config, struct fwd_error *error);

/** The same for a number of upstreams. @param pointer JSON pointer of the stanza's TOs */
int instance_count_supported(uint32_t count, const char *pointer, struct fwd_error *error);

/** See fwd.forward/1 create. */
int instance_create(const struct fwd_host *host, const char *config, size_t len, struct fwd_instance **ret,
                    struct fwd_error *error);

/** See fwd.forward/1. */
int instance_start(struct fwd_instance *instance, struct fwd_error *error);
int instance_cancel(struct fwd_instance *instance, uint64_t handle);
int instance_stop(struct fwd_instance *instance, uint64_t drain_ns);
void instance_destroy(struct fwd_instance *instance);
int instance_poll_fd(struct fwd_instance *instance, uint32_t loop);
int instance_run(struct fwd_instance *instance, uint32_t loop);

/** Takes count queries in hand. @return false when the instance is not started */
bool instance_enter(struct fwd_instance *instance, uint32_t count);

/** One query less; the instance may be gone when this returns. */
void instance_leave(struct fwd_instance *instance);

/** A refresh has ended; the instance may be gone when this returns. */
void instance_rest(struct fwd_instance *instance);

/** fwd.proxy/1 count and at. */
uint32_t instance_proxies(struct fwd_instance *instance);
struct fwd_proxy *instance_proxy(struct fwd_instance *instance, uint32_t index);
