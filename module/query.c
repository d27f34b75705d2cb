/* The slab of queries, cancellation by handle, and delivery of completions.
 *
 * Happy path: query_alloc pops a slot, the query runs, query_deliver lays the completion out in the host's stride, calls done and pushes the
 * slot back with its generation moved on.
 *
 * Failure modes: no memory, or over a million in flight: query_alloc fails and serve answers SERVFAIL. A cancel that comes too late finds
 * another generation.
 */
#include "query.h"

#include "engine.h"
#include "instance.h"
#include "loop.h"
#include "race.h"

#include <stdlib.h>
#include <string.h>

void query_slab_init(struct query_slab *slab)
{
    pthread_mutex_init(&slab->mutex, NULL);
}

void query_slab_fini(struct query_slab *slab)
{
    for (uint32_t i = 0; i < slab->chunk_count; i++) {
        for (uint32_t j = 0; j < QUERY_CHUNK; j++) {
            race_free(atomic_load(&slab->chunks[i][j].kept_race));
        }
        free(slab->chunks[i]);
    }
    pthread_mutex_destroy(&slab->mutex);
}

static void grow_locked(struct query_slab *slab)
{
    if (slab->chunk_count == QUERY_CHUNKS) {
        return;
    }
    struct query *chunk = calloc(QUERY_CHUNK, sizeof(*chunk));
    if (chunk == NULL) {
        return;
    }
    for (uint32_t i = QUERY_CHUNK; i-- > 0;) {
        chunk[i].index = slab->chunk_count * QUERY_CHUNK + i;
        atomic_store_explicit(&chunk[i].word, 2, memory_order_relaxed);
        chunk[i].next_free = slab->free;
        slab->free = &chunk[i];
    }
    slab->chunks[slab->chunk_count++] = chunk;
}

static struct query *pop(struct query_slab *slab, struct fwd_instance *instance)
{
    pthread_mutex_lock(&slab->mutex);
    if (slab->free == NULL) {
        grow_locked(slab);
    }
    struct query *q = slab->free;
    if (q != NULL) {
        slab->free = q->next_free;
        q->instance = instance;
    }
    pthread_mutex_unlock(&slab->mutex);
    return q;
}

struct query *query_alloc(struct query_slab *slab, struct fwd_instance *instance, const uint8_t *wire, uint32_t len)
{
    uint8_t *heap = NULL;
    if (len > QUERY_INLINE) {
        heap = malloc(len);
        if (heap == NULL) {
            return NULL;
        }
    }
    struct query *q = pop(slab, instance);
    if (q == NULL) {
        free(heap);
        return NULL;
    }
    /* not `word`, `index`, `instance`, the race and the wire; x.home stays, as a late cancel may be reading it */
    memset(&q->first.x, 0, offsetof(struct exchange, word));
    memset(&q->first.query, 0, sizeof(q->first) - offsetof(struct attempt, query));
    memset(&q->race, 0, offsetof(struct query, heap) - offsetof(struct query, race));
    q->heap = heap;
    q->order = q->few;
    uint8_t *copy = heap != NULL ? heap : q->space;
    memcpy(copy, wire, len);
    q->first.query = q;
    q->first.x.wire = copy;
    q->first.x.wire_len = len;
    q->first.x.word = &q->word;
    return q;
}

void query_free(struct query_slab *slab, struct query *query)
{
    free(query->heap);
    query->heap = NULL;
    if (query->order != query->few) {
        free(query->order);
    }
    query->order = NULL;
    uint64_t word = atomic_load_explicit(&query->word, memory_order_relaxed);
    atomic_store(&query->word, (word | 1) + 1);
    pthread_mutex_lock(&slab->mutex);
    query->instance = NULL;
    query->next_free = slab->free;
    slab->free = query;
    pthread_mutex_unlock(&slab->mutex);
}

void query_drop(struct query *query)
{
    struct fwd_instance *instance = query->instance;
    query_free(&instance->engine->slab, query);
    instance_leave(instance);
}

/* The generation is cut to 32 bits in a handle: a slot comes round to the same one after four thousand million queries. */
uint64_t query_handle(const struct query *query)
{
    uint64_t generation = atomic_load_explicit(&query->word, memory_order_relaxed) >> 1;
    return (generation & UINT32_MAX) << 32 | (query->index + 1);
}

static struct query *slot_of(struct query_slab *slab, struct fwd_instance *instance, uint32_t index)
{
    pthread_mutex_lock(&slab->mutex);
    struct query *q = NULL;
    if (index / QUERY_CHUNK < slab->chunk_count) {
        q = &slab->chunks[index / QUERY_CHUNK][index % QUERY_CHUNK];
        q = q->instance == instance ? q : NULL;
    }
    pthread_mutex_unlock(&slab->mutex);
    return q;
}

bool query_cancel(struct query_slab *slab, struct fwd_instance *instance, uint64_t handle)
{
    uint32_t index = (uint32_t)handle - 1;
    struct query *q = slot_of(slab, instance, index);
    if (q == NULL) {
        return false;
    }
    uint64_t word = atomic_load(&q->word) & ~UINT64_C(1);
    if ((word >> 1 & UINT32_MAX) != handle >> 32 ||
        !atomic_compare_exchange_strong(&q->word, &word, word | 1)) {
        return false;
    }
    exchange_cancel(&q->first.x, word | 1);
    struct race *race = atomic_load(&q->kept_race);
    if (race != NULL) {
        race_cancel(race, word | 1);
    }
    return true;
}

void query_cancel_all(struct query_slab *slab, struct fwd_instance *instance)
{
    pthread_mutex_lock(&slab->mutex);
    uint32_t slots = slab->chunk_count * QUERY_CHUNK;
    pthread_mutex_unlock(&slab->mutex);
    for (uint32_t i = 0; i < slots; i++) {
        struct query *q = slot_of(slab, instance, i);
        if (q != NULL) {
            (void)query_cancel(slab, instance, query_handle(q));
        }
    }
}

bool query_same_host(const struct query *a, const struct query *b)
{
    const struct fwd_host *x = &a->instance->host, *y = &b->instance->host;
    return x == y || (x->done == y->done && x->arg == y->arg && x->completion_size == y->completion_size);
}

static void lay_out(const struct loop_done *done, uint32_t stride, uint64_t now, uint8_t *at)
{
    const struct query *q = done->query;
    bool answer = done->kind == FWD_KIND_ANSWER;
    struct fwd_completion c = {
        .struct_size = stride,
        .kind = done->kind,
        .token = q->token,
        .wire = done->wire,
        .wire_len = done->wire_len,
        .rcode = done->rcode,
        .error = answer || done->kind == FWD_KIND_NEXT ? FWD_OK : q->error,
        .proto = q->proto,
        .detail = answer || q->detail[0] == '\0' ? NULL : q->detail,
        .upstream = q->proxy != NULL ? q->proxy->text : NULL,
        .attempts = q->attempts,
        .elapsed_ns = now - q->start_ns,
    };
    c.detail_len = c.detail != NULL ? (uint32_t)strlen(c.detail) : 0;
    memset(at, 0, stride);
    memcpy(at, &c, stride < sizeof(c) ? stride : sizeof(c));
}

void query_deliver(const struct loop_done *batch, uint32_t count, uint8_t *space)
{
    struct fwd_host host = batch[0].query->instance->host;
    uint64_t now = services_mono(&batch[0].query->instance->services);
    for (uint32_t i = 0; i < count; i++) {
        lay_out(&batch[i], host.completion_size, now, space + (size_t)i * host.completion_size);
    }
    host.done(host.arg, (const struct fwd_completion *)space, count);
    for (uint32_t i = 0; i < count; i++) {
        struct query *q = batch[i].query;
        if (q->race != NULL) {
            race_delivered(q->race);
        } else {
            query_drop(q);
        }
    }
}
