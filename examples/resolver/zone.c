/* Zone choice.
 *
 * Happy path: the module's map of names finds each suffix of a name that is a zone. Of very many
 * zones what a query needs is in no cache; where several queries came together, theirs is fetched at
 * once. Failure modes: none at look-up; out of memory when the table is made.
 */
#include "zone.h"

#include "../../module/pages.h"

#include <stdlib.h>
#include <string.h>

/** Makes room. */
bool zone_table_init(struct zone_table *table, size_t capacity)
{
    *table = (struct zone_table){
        .zones = pages_zeroed(alignof(struct zone), capacity * sizeof(struct zone)),
    };
    if (table->zones == NULL || !namemap_init(&table->names, capacity)) {
        return false;
    }
    table->names.items = (const char *)table->zones;
    table->names.item_size = sizeof(struct zone);
    return true;
}

/** Frees the table. */
void zone_table_fini(struct zone_table *table)
{
    for (size_t i = 0; table->zones != NULL && i < table->count; i++) {
        if (table->zones[i].name != table->zones[i].near) {
            free(table->zones[i].name);
        }
    }
    namemap_fini(&table->names);
    free(table->zones);
    *table = (struct zone_table){0};
}

/** Adds a zone. */
bool zone_table_add(struct zone_table *table, const char *text, const struct server *server)
{
    struct name name;
    struct suffixes suffixes;
    (void)name_from_text(&name, text);
    (void)suffixes_init(&suffixes, name.wire, name.len);
    if (namemap_find(&table->names, &suffixes, suffixes.count - 1) != NAMEMAP_NONE) {
        return true;
    }
    struct zone *zone = &table->zones[table->count];
    zone->server = server;
    zone->name = name.len <= ZONE_NEAR ? zone->near : malloc(name.len);
    if (zone->name == NULL) {
        return false;
    }
    memcpy(zone->name, name.wire, name.len);
    namemap_add(&table->names, (uint32_t)table->count++, zone->name, name.len);
    return true;
}

/* @return octets of the name with its root label, 0 when it does not end within len */
static uint32_t name_length(const uint8_t *name, uint32_t len)
{
    uint32_t at = 0;
    len = len < NAME_WIRE_MAX ? len : NAME_WIRE_MAX;
    while (at < len && name[at] != 0) {
        at += name[at] + 1u;
    }
    return at < len ? at + 1 : 0;
}

/* As most tables are. */
static bool has_root_only(const struct zone_table *table)
{
    return table->count == 1 && table->zones[0].name[0] == 0;
}

/** Chooses. */
const struct zone *zone_choose(const struct zone_table *table, const uint8_t *name, bool is_ds)
{
    struct suffixes suffixes;
    const struct zone *chosen = NULL;
    if (has_root_only(table)) {
        return &table->zones[0];
    }
    if (!suffixes_init(&suffixes, name, name_length(name, NAME_WIRE_MAX))) {
        return NULL;
    }
    for (uint32_t i = 0; i < suffixes.count; i++) {
        uint32_t found = namemap_find(&table->names, &suffixes, i);
        if (found != NAMEMAP_NONE) {
            chosen = &table->zones[found];
            if (is_ds && i > 0) {
                break;
            }
        }
    }
    return chosen;
}

/** The slots. */
void zone_hint(const struct zone_table *table, const uint8_t *name, uint32_t len, struct namemap_hint *ret)
{
    struct suffixes suffixes;
    ret->count = 0;
    if (suffixes_init(&suffixes, name, name_length(name, len))) {
        namemap_hint(&table->names, &suffixes, ret);
    }
}

/** Zones, then server blocks. */
void zone_fetch(const struct zone_table *table, const struct namemap_hint *hints, uint32_t count)
{
    namemap_fetch(&table->names, hints, count);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < hints[i].count; j++) {
            uint32_t zone = namemap_hinted(&table->names, &hints[i], j);
            if (zone != NAMEMAP_NONE) {
                __builtin_prefetch(table->zones[zone].server);
            }
        }
    }
}
