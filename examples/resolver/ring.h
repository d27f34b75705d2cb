/* A bounded queue from one thread to one other, without a lock.
 *
 * Threads: ring_push by one, ring_pop by one. Ownership: frames are malloc'ed; the ring's until
 * popped. Limits: as many frames as ring_create was told, rounded up to a power of two.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
    uint8_t *data;
    size_t len;
};

struct ring;

struct ring *ring_create(size_t frames);

/** Frees with what is in it; NULL is allowed. */
void ring_destroy(struct ring *ring);

/** False when it is full: the frame stays the caller's. */
bool ring_push(struct ring *ring, struct frame frame);
bool ring_pop(struct ring *ring, struct frame *ret);
