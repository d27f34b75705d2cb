/* Advice: what an operator is told when limits on connections do not fit each other, or the load.
 *
 * Threads: advice_on_stanza at create; advice_on_pool on the transport's timer. No lock may be held. Ownership: struct advice is embedded in a transport.
 * Limits: one line a minute for each pool.
 */
#pragma once

#include "config.h"
#include "pool.h"
#include "services.h"

struct transport_key;

/** What one pool's books said at the last look. */
struct advice {
    struct pool_counts last;
    uint64_t quiet_until_ns;
};

/** Logs a warning for each pair of options of a stanza that contradict each other. */
void advice_on_stanza(const struct services *services, const struct config_stanza *stanza);

/** Looks at what a pool has done since the last look, and logs a warning with the option to change and a value that would do.
 *  @param counts the pool's books, with the peak since the last look
 *  @param upstream its address  @param proto "udp", ... */
void advice_on_pool(struct advice *advice, const struct services *services, const struct transport_key *key,
                    const struct pool_counts *counts, const char *upstream, const char *proto, uint64_t now_ns);
