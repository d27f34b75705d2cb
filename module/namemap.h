/* Domain names as keys: which of very many zones lie at or above a name.
 *
 * Threads: a map is immutable once filled. Ownership: keys are borrowed and must outlive the map, as must items. Limits: O(labels) per look-up, whatever the number
 * of keys, and mostly one access to memory that is not cached for each. Standards: RFC 1035 2.3.3 (letter case: names are given in lower case).
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

/** A key, whose value is its place in the map. Two are a line of cache. */
struct namemap_entry {
    uint32_t next; /* value of the next entry with the same key; NAMEMAP_NONE at the end */
    uint8_t len;
    uint8_t wire[27]; /* what is longer lies elsewhere: its address */
};

struct namemap {
    uint32_t mask;
    uint64_t depths[NAMEMAP_LABELS / 64]; /* bit n: there is a key of n labels beside the root */
    struct namemap_slot {
        uint32_t hash;
        uint32_t entry; /* its first one's value + 1; 0 in a free slot */
    } *slots;
    struct namemap_entry *entries;
    const char *items; /* what values are indexes of, of so many octets each, fetched while a key is compared; NULL: nothing */
    size_t item_size;
};

/** Makes room for the values below capacity. @return false when out of memory */
bool namemap_init(struct namemap *map, size_t capacity);
void namemap_fini(struct namemap *map);

/** Gives a lower-case wire name a value. Values come in falling order, so that of equal keys the lowest is found first. */
void namemap_add(struct namemap *map, uint32_t value, const uint8_t *wire, uint32_t len);

/** The lowest value that has this suffix of a name as its key, or NAMEMAP_NONE. */
uint32_t namemap_find(const struct namemap *map, const struct suffixes *name, uint32_t suffix);

enum { NAMEMAP_HINTS = 4 };

/** Where the look-ups of a name will begin: those of its longest suffixes that have as many labels as a key. */
struct namemap_hint {
    uint32_t slots[NAMEMAP_HINTS];
    uint32_t count;
};

/** Whether the map is too large for the innermost caches, so that fetching ahead pays. */
bool namemap_is_large(const struct namemap *map);

/** Begins to fetch what looking a name up will need. */
void namemap_hint(const struct namemap *map, const struct suffixes *name, struct namemap_hint *ret);

/** Fetches the rest, the items included, for several names at once: the waits for memory overlap. */
void namemap_fetch(const struct namemap *map, const struct namemap_hint *hints, uint32_t count);

/** The value that a hint leads to, most likely the one that will be found; NAMEMAP_NONE when there is none. @param i below hint->count */
uint32_t namemap_hinted(const struct namemap *map, const struct namemap_hint *hint, uint32_t i);

/** The next value with the same key, or NAMEMAP_NONE. */
static inline uint32_t namemap_next(const struct namemap *map, uint32_t value)
{
    return map->entries[value].next;
}
