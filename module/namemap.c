/* A hash table of domain names.
 *
 * Happy path: suffixes_init folds a name and hashes it from its end, so that one pass gives the hash of every suffix; namemap_find looks one of them up.
 *
 * Failure modes: out of memory when the map is made. A name with more labels than 127 does not exist.
 */
#include "namemap.h"

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
    uint32_t slots = 16;
    while (slots < capacity * 2) {
        slots *= 2;
    }
    *map = (struct namemap){.mask = slots - 1};
    map->slots = calloc(slots, sizeof(*map->slots));
    map->entries = calloc(capacity + 1, sizeof(*map->entries));
    return map->slots != NULL && map->entries != NULL;
}

void namemap_fini(struct namemap *map)
{
    free(map->slots);
    free(map->entries);
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

/* The slot where a key stands or would stand. */
static uint32_t *slot_of(const struct namemap *map, const uint8_t *wire, uint32_t len, uint32_t hash)
{
    uint32_t i = hash & map->mask;
    while (map->slots[i] != 0) {
        const struct namemap_entry *entry = &map->entries[map->slots[i] - 1];
        if (entry->hash == hash && entry->len == len && memcmp(entry->wire, wire, len) == 0) {
            break;
        }
        i = (i + 1) & map->mask;
    }
    return &map->slots[i];
}

void namemap_add(struct namemap *map, const uint8_t *wire, uint32_t len, uint32_t value)
{
    uint32_t hash = hash_of(wire, len);
    uint32_t *slot = slot_of(map, wire, len, hash);
    uint32_t index = map->count++;
    map->entries[index] = (struct namemap_entry){
        .wire = wire, .len = len, .hash = hash, .value = value, .next = NAMEMAP_NONE, .last = index};
    if (*slot == 0) {
        *slot = index + 1;
        return;
    }
    struct namemap_entry *first = &map->entries[*slot - 1];
    map->entries[first->last].next = index;
    first->last = index;
}

const struct namemap_entry *namemap_find(const struct namemap *map, const struct suffixes *name, uint32_t suffix)
{
    uint32_t at = name->at[suffix];
    uint32_t slot = *slot_of(map, name->wire + at, name->len - at, name->hash[suffix]);
    return slot != 0 ? &map->entries[slot - 1] : NULL;
}
