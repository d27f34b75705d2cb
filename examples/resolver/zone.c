/* Zone choice by hash.
 *
 * Happy path: the hash of a name is built from its last label to its first, so one pass over the
 * labels gives the hash of every suffix, shortest first. Failure modes: none at look-up; out of
 * memory when the table is made.
 */
#include "zone.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t hash_start = 0xcbf29ce484222325ull; /* FNV-1a */

static uint64_t hash_label(uint64_t hash, const uint8_t *label)
{
    for (unsigned i = 0; i <= label[0]; i++) {
        hash = (hash ^ octet_lower(label[i])) * 0x100000001b3ull;
    }
    return hash;
}

static bool suffix_equal(const uint8_t *a, const uint8_t *b)
{
    for (;;) {
        for (unsigned i = 0; i <= a[0]; i++) {
            if (octet_lower(a[i]) != octet_lower(b[i])) {
                return false;
            }
        }
        if (a[0] == 0) {
            return true;
        }
        b += a[0] + 1;
        a += a[0] + 1;
    }
}

static struct zone *slot_find(const struct zone_table *table, uint64_t hash, const uint8_t *name)
{
    size_t i = hash & table->mask;
    while (table->slots[i].hash != 0 &&
           (table->slots[i].hash != hash || !suffix_equal(table->slots[i].name, name))) {
        i = (i + 1) & table->mask;
    }
    return &table->slots[i];
}

/** At most half full, so that a probe soon meets a free slot. */
bool zone_table_init(struct zone_table *table, size_t count)
{
    size_t slots = 4;
    while (slots < 2 * count) {
        slots *= 2;
    }
    *table = (struct zone_table){.slots = calloc(slots, sizeof(struct zone)), .mask = slots - 1};
    return table->slots != NULL;
}

/** Frees the table. */
void zone_table_fini(struct zone_table *table)
{
    free(table->slots);
    *table = (struct zone_table){0};
}

/** Adds a zone. */
void zone_table_add(struct zone_table *table, const struct name *name, const struct server *server)
{
    uint8_t offsets[NAME_LABELS_MAX];
    unsigned labels = name_labels(name->wire, offsets);
    uint64_t hash = hash_start;
    for (unsigned i = labels; i-- > 0;) {
        hash = hash_label(hash, name->wire + offsets[i]);
    }
    hash += hash == 0;
    struct zone *slot = slot_find(table, hash, name->wire);
    if (slot->hash != 0) {
        return;
    }
    *slot = (struct zone){.hash = hash, .name = name->wire, .server = server};
    table->max_labels = labels > table->max_labels ? labels : table->max_labels;
}

/** Chooses. */
const struct zone *zone_choose(const struct zone_table *table, const uint8_t *name, bool is_ds)
{
    uint8_t offsets[NAME_LABELS_MAX];
    unsigned labels = name_labels(name, offsets);
    unsigned depth = labels < table->max_labels ? labels : table->max_labels;
    const struct zone *root = slot_find(table, hash_start, (const uint8_t *)"");
    const struct zone *chosen = root->server != NULL ? root : NULL;
    uint64_t hash = hash_start;
    for (unsigned i = 1; i <= depth; i++) {
        const uint8_t *suffix = name + offsets[labels - i];
        hash = hash_label(hash, suffix);
        const struct zone *zone = slot_find(table, hash + (hash == 0), suffix);
        if (zone->server != NULL && is_ds) {
            return zone;
        }
        chosen = zone->server != NULL ? zone : chosen;
    }
    return chosen;
}
