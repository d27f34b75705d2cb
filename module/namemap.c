/* A hash table of domain names.
 *
 * Happy path: suffixes_init folds a name and hashes it from its end, so that one pass gives the hash of every suffix; namemap_find looks one of them up.
 * Of a large map what a query needs is in no cache: where several queries come together, theirs is fetched at once, slots first, then entries and items.
 *
 * Failure modes: out of memory when the map is made. A name with more labels than 127 does not exist.
 */
#include "namemap.h"

#include "pages.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t FNV_OFFSET = 0x811c9dc5, FNV_PRIME = 0x01000193;

static uint32_t step(uint32_t hash, uint8_t octet)
{
    return (hash ^ octet) * FNV_PRIME;
}

/* FNV-1a leaves the low bits weak on short keys. */
static uint32_t spread(uint32_t hash)
{
    hash ^= hash >> 15;
    hash *= 0x2c1b3c6dU;
    return hash ^ hash >> 12;
}

bool suffixes_init(struct suffixes *ret, const uint8_t *wire, uint32_t len)
{
    uint8_t starts[NAMEMAP_LABELS];
    uint32_t labels = 0;
    if (len == 0 || len > sizeof(ret->wire)) {
        return false;
    }
    for (uint32_t at = 0; at < len && labels < NAMEMAP_LABELS; at += 1U + wire[at]) {
        starts[labels++] = (uint8_t)at;
    }
    ret->len = len;
    ret->count = labels;
    uint32_t hash = FNV_OFFSET;
    for (uint32_t i = len; i-- > 0;) {
        uint8_t c = wire[i];
        c = c >= 'A' && c <= 'Z' ? c | 0x20 : c; /* label lengths are no letters */
        ret->wire[i] = c;
        hash = step(hash, c);
        if (labels > 0 && starts[labels - 1] == i) {
            labels--;
            ret->at[ret->count - 1 - labels] = (uint8_t)i;
            ret->hash[ret->count - 1 - labels] = spread(hash);
        }
    }
    return true;
}

bool namemap_init(struct namemap *map, size_t capacity)
{
    size_t slots = 4;
    while (slots < capacity * 2) {
        slots *= 2;
    }
    *map = (struct namemap){.mask = (uint32_t)slots - 1};
    map->slots = pages_zeroed(alignof(max_align_t), slots * sizeof(*map->slots) + capacity * sizeof(*map->entries));
    map->entries = map->slots != NULL ? (struct namemap_entry *)(map->slots + slots) : NULL;
    return map->slots != NULL;
}

void namemap_fini(struct namemap *map)
{
    free(map->slots);
    *map = (struct namemap){.mask = 0};
}

static uint32_t hash_of(const uint8_t *wire, uint32_t len)
{
    uint32_t hash = FNV_OFFSET;
    for (uint32_t i = len; i-- > 0;) {
        hash = step(hash, wire[i]);
    }
    return spread(hash);
}

static uint32_t depth_of(const uint8_t *wire)
{
    uint32_t depth = 0;
    for (; *wire != 0; wire += 1U + *wire) {
        depth++;
    }
    return depth;
}

static const uint8_t *wire_of(const struct namemap_entry *entry)
{
    const uint8_t *wire = entry->wire;
    if (entry->len > sizeof(entry->wire)) {
        memcpy(&wire, entry->wire, sizeof(wire));
    }
    return wire;
}

static void set_wire(struct namemap_entry *entry, const uint8_t *wire, uint32_t len)
{
    entry->len = (uint8_t)len;
    if (len > sizeof(entry->wire)) {
        memcpy(entry->wire, &wire, sizeof(wire));
    } else {
        memcpy(entry->wire, wire, len);
    }
}

enum { LINE = 64 };

static void fetch_item(const struct namemap *map, uint32_t value)
{
    for (size_t at = 0; map->items != NULL && at < map->item_size; at += LINE) {
        __builtin_prefetch(map->items + value * map->item_size + at);
    }
}

/* The slot where a key stands or would stand. The hash beside it spares a look at most entries of other keys. */
static struct namemap_slot *slot_of(const struct namemap *map, const uint8_t *wire, uint32_t len, uint32_t hash)
{
    uint32_t i = hash & map->mask;
    for (; map->slots[i].entry != 0; i = (i + 1) & map->mask) {
        if (map->slots[i].hash == hash) {
            const struct namemap_entry *entry = &map->entries[map->slots[i].entry - 1];
            fetch_item(map, map->slots[i].entry - 1);
            if (entry->len == len && memcmp(wire_of(entry), wire, len) == 0) {
                break;
            }
        }
    }
    return &map->slots[i];
}

void namemap_add(struct namemap *map, uint32_t value, const uint8_t *wire, uint32_t len)
{
    uint32_t hash = hash_of(wire, len), depth = depth_of(wire);
    struct namemap_slot *slot = slot_of(map, wire, len, hash);
    map->entries[value].next = slot->entry != 0 ? slot->entry - 1 : NAMEMAP_NONE;
    set_wire(&map->entries[value], wire, len);
    *slot = (struct namemap_slot){.hash = hash, .entry = value + 1};
    map->depths[depth / 64] |= UINT64_C(1) << depth % 64;
}

static bool has_depth(const struct namemap *map, uint32_t labels)
{
    return (map->depths[labels / 64] >> labels % 64 & 1) != 0;
}

uint32_t namemap_find(const struct namemap *map, const struct suffixes *name, uint32_t suffix)
{
    if (!has_depth(map, suffix)) {
        return NAMEMAP_NONE;
    }
    uint32_t at = name->at[suffix];
    const struct namemap_slot *slot = slot_of(map, name->wire + at, name->len - at, name->hash[suffix]);
    return slot->entry != 0 ? slot->entry - 1 : NAMEMAP_NONE;
}

bool namemap_is_large(const struct namemap *map)
{
    return map->mask >= 2 * 4096;
}

/* The root's is always in the cache. */
void namemap_hint(const struct namemap *map, const struct suffixes *name, struct namemap_hint *ret)
{
    ret->count = 0;
    for (uint32_t i = name->count; i-- > 1 && ret->count < NAMEMAP_HINTS;) {
        if (has_depth(map, i)) {
            uint32_t slot = name->hash[i] & map->mask;
            __builtin_prefetch(&map->slots[slot]);
            ret->slots[ret->count++] = slot;
        }
    }
}

uint32_t namemap_hinted(const struct namemap *map, const struct namemap_hint *hint, uint32_t i)
{
    uint32_t entry = map->slots[hint->slots[i]].entry;
    return entry != 0 ? entry - 1 : NAMEMAP_NONE;
}

void namemap_fetch(const struct namemap *map, const struct namemap_hint *hints, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < hints[i].count; j++) {
            uint32_t value = namemap_hinted(map, &hints[i], j);
            if (value != NAMEMAP_NONE) {
                __builtin_prefetch(&map->entries[value]);
                fetch_item(map, value);
            }
        }
    }
}
