/* The zones of one listening address, and the choice of the server block for a query (case 93).
 *
 * Threads: built by main, then read by all without a lock. Ownership: entries point to server
 * blocks of the configuration; names are copied. Limits: the cost of a look-up grows with the labels of the name, not
 * with the number of zones.
 */
#pragma once

#include "../../module/namemap.h"
#include "name.h"

#include <stdalign.h>
#include <stddef.h>

struct server;
struct tally;

enum { ZONE_LINE = 64, ZONE_NEAR = ZONE_LINE - 3 * sizeof(void *) };

/** One line of cache: of very many zones none is cached when its query comes. */
struct zone {
    alignas(ZONE_LINE) const struct server *server;
    struct tally *tally; /**< NULL when its queries are not counted */
    uint8_t *name; /**< wire form, lower case; near if it fits */
    uint8_t near[ZONE_NEAR];
};

struct zone_table {
    struct namemap names; /**< values are indexes of zones */
    struct zone *zones;
    size_t count;
};

/** Makes room for capacity zones. False when out of memory. */
bool zone_table_init(struct zone_table *table, size_t capacity);
void zone_table_fini(struct zone_table *table);

/** Adds a zone; the first server block of a name stays. @param text a valid name. False when out of memory. */
bool zone_table_add(struct zone_table *table, const char *text, const struct server *server);

/** The zone whose server block serves a name: that of the longest suffix; for DS that of the
 * shortest one other than the root, because the parent side answers it. NULL when no zone matches.
 */
const struct zone *zone_choose(const struct zone_table *table, const uint8_t *name, bool is_ds);

/** Begins to fetch what zone_choose will look at. Worth it where namemap_is_large. @param name of the wire, whatever it is, with len octets behind it */
void zone_hint(const struct zone_table *table, const uint8_t *name, uint32_t len, struct namemap_hint *ret);

/** Fetches the rest, server blocks included, for several names at once. */
void zone_fetch(const struct zone_table *table, const struct namemap_hint *hints, uint32_t count);
