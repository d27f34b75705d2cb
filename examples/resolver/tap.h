/* The `dnstap` directive: a copy of every message to clients and upstreams for a collector.
 *
 * Threads: tap_client and tap_forwarder from any thread that answers queries, without a lock and
 * without waiting; what a full queue does not take is dropped and counted. Parsed, started and
 * ended by main. Ownership: a server block owns its list. Limits: Unix sockets, TCP and
 * TLS.
 */
#pragma once

#include "log_format.h"

#include <forward/abi.h>

struct tokens;

struct tap;

/** Reads the dnstap lines of a server block. */
bool tap_parse(const struct tokens *tokens, struct tap **ret, struct failure *failure);

/** Starts the threads that connect or listen, and write. @param generation of the configuration */
bool tap_start(struct tap *list, uint64_t generation, struct failure *failure);

/** Writes what is queued, for a second at most, and frees. */
void tap_fini(struct tap *list);

/** A message to or from a client. event->reply is NULL for a query. */
void tap_client(struct tap *list, const struct log_event *event, uint64_t query_time_ns);

/** The fwd.tap/1 event of a query of ours; event is what is known of that. */
void tap_forwarder(struct tap *list, const struct log_event *event,
                   const struct fwd_tap_event *tapped);

/** Nanoseconds since 1970. */
uint64_t tap_now(void);

/** Messages dropped since the process began. */
uint64_t tap_dropped(void);
