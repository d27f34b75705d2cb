/* Pieces of one size in chunks of a huge page each.
 *
 * Happy path: a piece comes from a chunk with room, what was given back first. A chunk lies at a multiple of its size, so that a piece tells where
 * its chunk begins. Whoever looks at one of very many pieces finds its page in the TLB; and things made at the same time lie together, so that
 * chunks become empty together too, and then go.
 *
 * Failure modes: NULL when there is no memory for another chunk. One piece that stays keeps its chunk; its other pieces are used again. What uses a
 * piece after it was given back is found by AddressSanitizer, as it would be after free.
 */
#include "slab.h"

#include "pages.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, len)
#define ASAN_UNPOISON_MEMORY_REGION(at, len)
#endif

struct slab_chunk {
    alignas(SLAB_ALIGN) struct slab_chunk *next; /* of those with room */
    struct slab_chunk *prev;
    void *given;  /* back: each begins with a pointer to the next one */
    size_t fresh; /* where what was never taken begins */
    size_t live;  /* pieces taken */
};

static bool has_room(const struct slab *slab, const struct slab_chunk *chunk)
{
    return chunk->given != NULL || PAGES_HUGE - chunk->fresh >= slab->size;
}

static void link_chunk(struct slab *slab, struct slab_chunk *chunk)
{
    chunk->prev = NULL;
    chunk->next = slab->open;
    if (chunk->next != NULL) {
        chunk->next->prev = chunk;
    }
    slab->open = chunk;
}

static void unlink_chunk(struct slab *slab, struct slab_chunk *chunk)
{
    *(chunk->prev != NULL ? &chunk->prev->next : &slab->open) = chunk->next;
    if (chunk->next != NULL) {
        chunk->next->prev = chunk->prev;
    }
}

static struct slab_chunk *open_chunk(struct slab *slab)
{
    if (slab->open == NULL) {
        struct slab_chunk *chunk = pages_get(PAGES_HUGE, PAGES_HUGE);
        if (chunk == NULL) {
            return NULL;
        }
        *chunk = (struct slab_chunk){.fresh = sizeof(*chunk)};
        ASAN_POISON_MEMORY_REGION(chunk + 1, PAGES_HUGE - sizeof(*chunk));
        link_chunk(slab, chunk);
    }
    return slab->open;
}

static void *take_from(const struct slab *slab, struct slab_chunk *chunk)
{
    void *piece = chunk->given;
    if (piece != NULL) {
        memcpy(&chunk->given, piece, sizeof(chunk->given));
    } else {
        piece = (char *)chunk + chunk->fresh;
        chunk->fresh += slab->size;
    }
    chunk->live++;
    ASAN_UNPOISON_MEMORY_REGION(piece, slab->size);
    return piece;
}

void *slab_take(struct slab *slab)
{
    void *piece = NULL;
    pthread_mutex_lock(&slab->mutex);
    struct slab_chunk *chunk = open_chunk(slab);
    if (chunk != NULL) {
        piece = take_from(slab, chunk);
        if (!has_room(slab, chunk)) {
            unlink_chunk(slab, chunk);
        }
    }
    pthread_mutex_unlock(&slab->mutex);
    return piece != NULL ? memset(piece, 0, slab->size) : NULL;
}

void slab_give(struct slab *slab, void *piece)
{
    struct slab_chunk *chunk = (struct slab_chunk *)((uintptr_t)piece & ~(uintptr_t)(PAGES_HUGE - 1));
    pthread_mutex_lock(&slab->mutex);
    if (!has_room(slab, chunk)) {
        link_chunk(slab, chunk);
    }
    memcpy(piece, &chunk->given, sizeof(chunk->given));
    ASAN_POISON_MEMORY_REGION((char *)piece + sizeof(chunk->given), slab->size - sizeof(chunk->given));
    chunk->given = piece;
    bool empty = --chunk->live == 0;
    if (empty) {
        unlink_chunk(slab, chunk);
    }
    pthread_mutex_unlock(&slab->mutex);
    if (empty) {
        free(chunk);
    }
}
