/* The HTTP addresses: /metrics, /health, /ready, /forward.
 *
 * Threads: opened, changed and closed by main; each address is served by a thread of its own, which
 * reads the service. Ownership: web_fini closes everything. Limits: WEB_CONNECTIONS clients at a
 * time and address, 5 s for each to say something; plain HTTP.
 */
#pragma once

#include "config.h"

#include <stdatomic.h>

enum { WEB_CONNECTIONS = 64 };

/** What an address serves, as bits. */
enum { WEB_METRICS = 1, WEB_HEALTH = 2, WEB_READY = 4 };

struct service;

struct web {
    struct service *service;
    struct web_site *sites;
    atomic_bool ready; /**< what /ready says */
};

void web_init(struct web *web, struct service *service);

/** Opens the addresses of a configuration that are not open yet. False when one of health's cannot
 * be opened; what else cannot be is only logged, as in CoreDNS. web_settle must follow. */
bool web_stage(struct web *web, const struct config *config, struct failure *failure);

/** Serves what was staged, or with keep what was served before, and closes the other addresses. */
void web_settle(struct web *web, bool keep);

void web_fini(struct web *web);
