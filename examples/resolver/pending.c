/* The slab of pending queries.
 *
 * Happy path: take from the own free list; when it is empty fetch all that came back, else make a
 * chunk of records. Failure modes: out of memory or too many in flight: NULL, and the query is
 * answered SERVFAIL. Records that come back are pushed on a lock-free list that the owner only ever
 * takes whole, so there is no ABA problem.
 */
#include "pending.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_RECORDS = 63 };

struct pending_chunk {
    struct pending_chunk *next;
    struct pending records[CHUNK_RECORDS];
};

static bool slab_grow(struct pending_slab *slab)
{
    struct pending_chunk *chunk = slab->made < PENDING_MAX ? malloc(sizeof(*chunk)) : NULL;
    if (chunk == NULL) {
        return false;
    }
    chunk->next = slab->chunks;
    slab->chunks = chunk;
    slab->made += CHUNK_RECORDS;
    for (unsigned i = 0; i < CHUNK_RECORDS; i++) {
        chunk->records[i].home = slab;
        chunk->records[i].next = slab->free;
        slab->free = &chunk->records[i];
    }
    return true;
}

/** Takes a record. */
struct pending *pending_take(struct pending_slab *slab, const struct message *query)
{
    if (slab->free == NULL) {
        slab->free = atomic_exchange_explicit(&slab->returned, NULL, memory_order_acquire);
    }
    if (slab->free == NULL && !slab_grow(slab)) {
        return NULL;
    }
    struct pending *pending = slab->free;
    uint8_t *octets = pending->octets;
    pending->large = NULL;
    if (query->len > PENDING_INLINE) {
        octets = pending->large = malloc(query->len);
        if (octets == NULL) {
            return NULL;
        }
    }
    slab->free = pending->next;
    memcpy(octets, query->wire, query->len);
    pending->query = *query;
    pending->query.wire = octets;
    return pending;
}

/** Gives a record back. */
void pending_release(struct pending *pending)
{
    free(pending->large);
    struct pending_slab *slab = pending->home;
    struct pending *head = atomic_load_explicit(&slab->returned, memory_order_relaxed);
    do {
        pending->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&slab->returned, &head, pending,
                                                    memory_order_release, memory_order_relaxed));
}

/** Frees all records; none may be out. */
void pending_slab_fini(struct pending_slab *slab)
{
    while (slab->chunks != NULL) {
        struct pending_chunk *chunk = slab->chunks;
        slab->chunks = chunk->next;
        free(chunk);
    }
}
