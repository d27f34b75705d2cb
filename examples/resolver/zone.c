/* Zone choice by hash.
 *
 * Happy path: the hash of a name is built from its last label to its first, so one pass over the
 * labels gives the hash of every suffix, shortest first. Of very many zones what a query needs is in
 * no cache; where several queries came together, their zones are fetched at once. Failure modes: none
 * at look-up; out of memory when the table is made.
 */
#include "zone.h"

#include "../../module/pages.h"

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

static struct zone_slot *slot_find(const struct zone_table *table, uint64_t hash, const uint8_t *name)
{
    size_t i = hash & table->mask;
    uint32_t rest = (uint32_t)(hash >> 32);
    while (table->slots[i].zone != 0 &&
           (table->slots[i].hash != rest || !suffix_equal(table->zones[table->slots[i].zone - 1].name, name))) {
        i = (i + 1) & table->mask;
    }
    return &table->slots[i];
}

static const struct zone *zone_find(const struct zone_table *table, uint64_t hash, const uint8_t *name)
{
    const struct zone_slot *slot = slot_find(table, hash, name);
    return slot->zone != 0 ? &table->zones[slot->zone - 1] : NULL;
}

/** At most half full, so that a probe soon meets a free slot. */
bool zone_table_init(struct zone_table *table, size_t capacity)
{
    size_t slots = 4;
    while (slots < 2 * capacity) {
        slots *= 2;
    }
    *table = (struct zone_table){
        .slots = pages_zeroed(alignof(struct zone_slot), slots * sizeof(struct zone_slot)),
        .mask = slots - 1,
        .zones = pages_zeroed(alignof(struct zone), capacity * sizeof(struct zone)),
    };
    return table->slots != NULL && table->zones != NULL;
}

/** Frees the table. */
void zone_table_fini(struct zone_table *table)
{
    for (size_t i = 0; table->zones != NULL && i < table->count; i++) {
        if (table->zones[i].name != table->zones[i].near) {
            free(table->zones[i].name);
        }
    }
    free(table->slots);
    free(table->zones);
    *table = (struct zone_table){0};
}

/** Adds a zone. */
bool zone_table_add(struct zone_table *table, const char *text, const struct server *server)
{
    struct name name;
    uint8_t offsets[NAME_LABELS_MAX];
    (void)name_from_text(&name, text);
    unsigned labels = name_labels(name.wire, offsets);
    uint64_t hash = hash_start;
    for (unsigned i = labels; i-- > 0;) {
        hash = hash_label(hash, name.wire + offsets[i]);
    }
    struct zone_slot *slot = slot_find(table, hash, name.wire);
    if (slot->zone != 0) {
        return true;
    }
    struct zone *zone = &table->zones[table->count];
    zone->server = server;
    zone->name = name.len <= ZONE_NEAR ? zone->near : malloc(name.len);
    if (zone->name == NULL) {
        return false;
    }
    memcpy(zone->name, name.wire, name.len);
    *slot = (struct zone_slot){.hash = (uint32_t)(hash >> 32), .zone = (uint32_t)++table->count};
    table->max_labels = labels > table->max_labels ? labels : table->max_labels;
    table->depths[labels / 64] |= UINT64_C(1) << labels % 64;
    return true;
}

static bool has_depth(const struct zone_table *table, unsigned labels)
{
    return (table->depths[labels / 64] >> labels % 64 & 1) != 0;
}

/** Chooses. */
const struct zone *zone_choose(const struct zone_table *table, const uint8_t *name, bool is_ds)
{
    uint8_t offsets[NAME_LABELS_MAX];
    unsigned labels = name_labels(name, offsets);
    unsigned depth = labels < table->max_labels ? labels : table->max_labels;
    uint64_t hash = hash_start;
    const struct zone *chosen = zone_find(table, hash, (const uint8_t *)"");
    for (unsigned i = 1; i <= depth; i++) {
        const uint8_t *suffix = name + offsets[labels - i];
        hash = hash_label(hash, suffix);
        const struct zone *zone = has_depth(table, i) ? zone_find(table, hash, suffix) : NULL;
        if (zone != NULL && is_ds) {
            return zone;
        }
        chosen = zone != NULL ? zone : chosen;
    }
    return chosen;
}

/** More than the innermost caches hold. */
bool zone_table_is_large(const struct zone_table *table)
{
    return table->count > 4096;
}

/* As name_labels, of octets that nobody has looked at yet. */
static unsigned labels_within(const uint8_t *name, uint32_t len, uint8_t offsets[NAME_LABELS_MAX])
{
    unsigned count = 0;
    uint32_t at = 0;
    len = len < NAME_WIRE_MAX ? len : NAME_WIRE_MAX;
    while (at < len && name[at] != 0 && at + name[at] < len && count < NAME_LABELS_MAX - 1) {
        offsets[count++] = (uint8_t)at;
        at += name[at] + 1u;
    }
    return at < len && name[at] == 0 ? count : 0;
}

/** The slots. */
void zone_hint(const struct zone_table *table, const uint8_t *name, uint32_t len, struct zone_hint *ret)
{
    uint8_t offsets[NAME_LABELS_MAX];
    unsigned labels = labels_within(name, len, offsets);
    unsigned depth = labels < table->max_labels ? labels : table->max_labels;
    uint64_t hash = hash_start;
    ret->count = 0;
    for (unsigned i = 1; i <= depth; i++) {
        hash = hash_label(hash, name + offsets[labels - i]);
        if (has_depth(table, i)) {
            size_t slot = hash & table->mask;
            __builtin_prefetch(&table->slots[slot]);
            ret->slots[ret->count++ % ZONE_HINT_SLOTS] = slot; /* the longest suffixes are what is looked for */
        }
    }
    ret->count = ret->count < ZONE_HINT_SLOTS ? ret->count : ZONE_HINT_SLOTS;
}

static const struct zone *hinted(const struct zone_table *table, size_t slot)
{
    uint32_t zone = table->slots[slot].zone;
    return zone != 0 ? &table->zones[zone - 1] : NULL;
}

/** Zones, then server blocks. */
void zone_fetch(const struct zone_table *table, const struct zone_hint *hints, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < hints[i].count; j++) {
            __builtin_prefetch(hinted(table, hints[i].slots[j]));
        }
    }
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < hints[i].count; j++) {
            const struct zone *zone = hinted(table, hints[i].slots[j]);
            if (zone != NULL) {
                __builtin_prefetch(zone->server);
            }
        }
    }
}
