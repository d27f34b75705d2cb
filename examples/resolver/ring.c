/* The ring.
 *
 * Happy path: the producer writes a slot, then moves the head; the consumer reads it, then moves
 * the tail. Failure modes: full, empty, no memory when it is made.
 */
#include "ring.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

struct ring {
    alignas(64) _Atomic size_t head; /* written by the producer */
    alignas(64) _Atomic size_t tail; /* written by the consumer */
    size_t mask;
    struct frame slots[];
};

/** Makes a ring; its pages are touched only as far as they are used. */
struct ring *ring_create(size_t frames)
{
    size_t slots = 2;
    while (slots < frames) {
        slots *= 2;
    }
    size_t size = sizeof(struct ring) + slots * sizeof(struct frame);
    struct ring *ring = aligned_alloc(64, (size + 63) / 64 * 64);
    if (ring != NULL) {
        atomic_init(&ring->head, 0);
        atomic_init(&ring->tail, 0);
        ring->mask = slots - 1;
    }
    return ring;
}

/** Frees. */
void ring_destroy(struct ring *ring)
{
    struct frame frame;
    while (ring != NULL && ring_pop(ring, &frame)) {
        free(frame.data);
    }
    free(ring);
}

/** Adds. */
bool ring_push(struct ring *ring, struct frame frame)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) > ring->mask) {
        return false;
    }
    ring->slots[head & ring->mask] = frame;
    atomic_store(&ring->head, head + 1); /* ordered before the producer's look at who sleeps */
    return true;
}

/** Takes. */
bool ring_pop(struct ring *ring, struct frame *ret)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail == atomic_load(&ring->head)) { /* ordered behind the consumer's saying that it sleeps */
        return false;
    }
    *ret = ring->slots[tail & ring->mask];
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}
