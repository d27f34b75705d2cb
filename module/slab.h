/* Pieces of one size, for things of which there may be very many.
 *
 * Threads: any. Ownership: a piece is the caller's until he gives it back; chunks belong to the slab.
 */
#pragma once

#include <pthread.h>
#include <stddef.h>

struct slab_chunk;

struct slab {
    pthread_mutex_t mutex;
    size_t size;             /* of a piece; a multiple of SLAB_ALIGN */
    struct slab_chunk *open; /* those with room */
};

enum { SLAB_ALIGN = 128 };

#define SLAB_INIT(piece) {.mutex = PTHREAD_MUTEX_INITIALIZER, .size = (piece)}

/** A piece of zeros. @return NULL when out of memory */
void *slab_take(struct slab *slab);

/** Gives a piece back. */
void slab_give(struct slab *slab, void *piece);
