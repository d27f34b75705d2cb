/* A proxy: one upstream of a stanza, the ABI's handle; and the set of those that a stanza has.
 *
 * Threads: open and close one at a time per stanza. Ownership: an open proxy has a use of its health state, and through it of its transport.
 */
#pragma once

#include "config.h"

struct health;
struct stanza;
struct transport;

struct fwd_proxy {
    struct stanza *stanza;
    const char *text; /* its address as metrics and metadata name it; never freed */
    struct transport *transport;
    struct health *health;
};

struct proxy_set {
    uint32_t count;
    struct fwd_proxy **items;
};

/** Finds or makes the transport and the health state of an upstream. @return FWD_OK, FWD_ERR_CONFIG (its TLS files), FWD_ERR_NOMEM */
int proxy_open(struct fwd_proxy *proxy, struct stanza *stanza, const struct config_to *to, struct fwd_error *error);

/** Lets go of both. */
void proxy_close(struct fwd_proxy *proxy);
