/* Which stanza a name goes to.
 *
 * Threads: match_init, match_add, match_fini with create and destroy; the rest any. Ownership: the tables are the instance's; names in them are its
 * configuration's. Standards: CoreDNS case 41.
 */
#pragma once

#include "instance.h"

/** Makes the index of FROMs, unless there is one stanza that takes whatever comes. @return false when out of memory */
bool match_init(struct fwd_instance *instance);

/** Adds a stanza, the last one first. @return false when out of memory */
bool match_add(struct stanza *stanza);

void match_fini(struct fwd_instance *instance);

/** The first stanza from index on that matches the name, or NULL. */
struct stanza *match_find(struct fwd_instance *instance, uint32_t from, const uint8_t *qname, uint32_t len);

/** Has the processor bring what a batch of queries will look at in a large index. */
void match_fetch(const struct fwd_instance *instance, const struct fwd_query *queries, uint32_t count);
