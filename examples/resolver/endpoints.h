/* The directives that are about the process more than about queries: prometheus, health, ready,
 * reload.
 *
 * Threads: made by main, then read by all. Ownership: endpoints_fini frees.
 */
#pragma once

#include "text.h"

struct tokens;

struct endpoints {
    char *metrics; /**< HOST:PORT, NULL without the directive; so are the other two */
    char *health;
    char *ready;
    char *metrics_tls; /**< the web configuration of metrics; NULL: plain HTTP */
    int64_t lameduck_ns;
    int64_t reload_ns; /**< how often the Corefile is looked at, 0 never */
};

/** Each reads all lines of its directive in a server block. */
bool prometheus_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure);
bool health_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure);
bool ready_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure);
bool reload_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure);

void endpoints_fini(struct endpoints *endpoints);
