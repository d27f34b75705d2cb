/* A proxy: one upstream of a stanza, the ABI's handle; and the set of those that a stanza has.
 *
 * Threads: open and close one at a time per stanza. Ownership: an open proxy has a use of its health state, and through it of its transport.
 */
#pragma once

#include "config.h"

#include <stdatomic.h>

struct health;
struct stanza;
struct transport;

struct fwd_proxy {
    struct stanza *stanza;
    const char *text;            /* its address as metrics and metadata name it; never freed */
    struct transport *transport; /* read it only with a set held that has this proxy */
    struct health *health;
};

struct proxy_set {
    uint32_t count;
    atomic_uint users; /* who hold it, where it can be exchanged */
    struct fwd_proxy **items;
};

/** Finds or makes the transport and the health state of an upstream of proxy->stanza.
 *  @return FWD_OK, FWD_ERR_CONFIG (its TLS files), FWD_ERR_NOMEM */
int proxy_open(struct fwd_proxy *proxy, const struct config_to *to, struct fwd_error *error);

/** Lets go of both; stanza and text stay, for whoever has the handle. */
void proxy_close(struct fwd_proxy *proxy);

/** The set that has this proxy, held until stanza_leave; NULL when it is no upstream of its stanza any more. Any thread. */
struct proxy_set *proxy_hold(struct fwd_proxy *proxy);
