/* Memory that is freed all at once: a parser's strings and records.
 *
 * Threads: one at a time per arena. Ownership: everything handed out belongs to the arena.
 */
#pragma once

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *head; /**< zero-initialise */
};

/** Aligned, uninitialised. @return NULL when out of memory */
void *arena_alloc(struct arena *arena, size_t size);

/** As arena_alloc, for count elements of zeros. */
void *arena_zeroed(struct arena *arena, size_t count, size_t size);

/** Copy of len octets, ended with NUL. @return NULL when out of memory */
char *arena_copy(struct arena *arena, const char *text, size_t len);

/** Formatted text. @return NULL when out of memory */
char *arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Frees everything; the arena is as new. */
void arena_free(struct arena *arena);
