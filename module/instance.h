/* An instance: all forward stanzas of one server block, chained in file order.
 *
 *   CREATED -> STARTED -> DRAINING -> STOPPED
 *
 * Threads: create, start, stop, destroy one at a time; the rest any. Ownership: owns its configuration and stanzas, uses transports and health
 * states of its engine.
 */
#pragma once

#include "config.h"
#include "forward.h"
#include "services.h"

#include <stdatomic.h>

struct engine;

enum instance_state { INSTANCE_CREATED, INSTANCE_STARTED, INSTANCE_DRAINING, INSTANCE_STOPPED };

struct fwd_instance {
    struct fwd_host host;
    struct services services;
    struct engine *engine;
    struct config *config;
    uint32_t stanza_count;
    struct stanza *stanzas;
    struct namemap index; /* FROMs, where there are many stanzas */
    uint32_t proxy_count;
    struct fwd_proxy *proxies; /* of all stanzas, one after the other */
    struct fwd_proxy **items;  /* what the stanzas' sets point to */
    atomic_int state;
    atomic_uint in_flight; /* accepted and not yet delivered, and those that serve has in hand */
};

/** FWD_ERR_UNSUPPORTED with the place when the configuration asks for what this version cannot do, else FWD_OK. */
int instance_supported(const struct config *config, struct fwd_error *error);

/** See fwd.forward/1 create. */
int instance_create(const struct fwd_host *host, const char *config, size_t len, struct fwd_instance **ret,
                    struct fwd_error *error);

/** See fwd.forward/1. */
int instance_start(struct fwd_instance *instance, struct fwd_error *error);
int instance_cancel(struct fwd_instance *instance, uint64_t handle);
int instance_stop(struct fwd_instance *instance, uint64_t drain_ns);
void instance_destroy(struct fwd_instance *instance);
int instance_poll_fd(struct fwd_instance *instance);
int instance_run(struct fwd_instance *instance);

/** Takes count queries in hand. @return false when the instance is not started */
bool instance_enter(struct fwd_instance *instance, uint32_t count);

/** One query less; the instance may be gone when this returns. */
void instance_leave(struct fwd_instance *instance);

/** The first stanza from index on that matches the name (case 41), or NULL. */
struct stanza *instance_match(struct fwd_instance *instance, uint32_t from, const uint8_t *qname, uint32_t len);
