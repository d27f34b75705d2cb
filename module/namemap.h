/* Domain names as keys: which of very many zones lie at or above a name.
 *
 * Threads: a map is immutable once filled. Ownership: keys are borrowed and must outlive the map. Limits: O(labels) per look-up, whatever the number
 * of keys. Standards: RFC 1035 2.3.3 (letter case: names are given in lower case).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NAMEMAP_LABELS = 128 };

#define NAMEMAP_NONE UINT32_MAX

/** A name in lower case, with all its suffixes. */
struct suffixes {
    uint8_t wire[255];
    uint32_t len;
    uint32_t count;               /* labels with the root: suffix 0 is the root, the last one the whole name */
    uint8_t at[NAMEMAP_LABELS];   /* where each begins */
    uint32_t hash[NAMEMAP_LABELS];
};

/** Fills *ret from an uncompressed wire name. @return false when it is longer than 255 octets */
bool suffixes_init(struct suffixes *ret, const uint8_t *wire, uint32_t len);

struct namemap {
    uint32_t mask;
    uint32_t *slots; /* entry + 1 */
    struct namemap_entry {
        const uint8_t *wire;
        uint32_t len;
        uint32_t hash;
        uint32_t value;
        uint32_t next; /* entry with the same key, in order of adding; NAMEMAP_NONE at the end */
        uint32_t last; /* of the first entry of a key: the last one */
    } *entries;
    uint32_t count;
};

/** Makes room for so many entries. @return false when out of memory */
bool namemap_init(struct namemap *map, size_t capacity);
void namemap_fini(struct namemap *map);

/** Adds a lower-case wire name; equal keys keep the order of adding. */
void namemap_add(struct namemap *map, const uint8_t *wire, uint32_t len, uint32_t value);

/** The first entry with this suffix of a name as its key, or NULL. */
const struct namemap_entry *namemap_find(const struct namemap *map, const struct suffixes *name, uint32_t suffix);

/** The next entry with the same key, or NULL. */
static inline const struct namemap_entry *namemap_next(const struct namemap *map, const struct namemap_entry *entry)
{
    return entry->next != NAMEMAP_NONE ? &map->entries[entry->next] : NULL;
}
