/* The zones of one listening address, and the choice of the server block for a query (case 93).
 *
 * Threads: built by main, then read by all without a lock. Ownership: entries point to server
 * blocks of the configuration, and to the names of their keys. Limits: the cost of a look-up grows with the labels of the name, not
 * with the number of zones.
 */
#pragma once

#include "name.h"

#include <stddef.h>

struct server;
struct tally;

struct zone {
    uint64_t hash; /**< 0: free slot */
    const uint8_t *name; /**< wire form */
    const struct server *server;
    struct tally *tally; /**< NULL when its queries are not counted */
};

struct zone_table {
    struct zone *slots;
    size_t mask; /**< slots - 1, a power of two less one */
    unsigned max_labels;
};

/** Makes room for count zones. False when out of memory. */
bool zone_table_init(struct zone_table *table, size_t count);
void zone_table_fini(struct zone_table *table);

/** Adds a zone, whose name must outlive the table; the first server block of a name stays. */
void zone_table_add(struct zone_table *table, const struct name *name, const struct server *server);

/** The zone whose server block serves a name: that of the longest suffix; for DS that of the
 * shortest one other than the root, because the parent side answers it. NULL when no zone matches.
 */
const struct zone *zone_choose(const struct zone_table *table, const uint8_t *name, bool is_ds);
