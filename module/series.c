/* The registry of upstream counters.
 *
 * Happy path: a transport gets its series once, at creation; the hot path adds to atomics of the calling thread's shard, which no other
 * busy thread writes. Pools keep their own books, which are summed when somebody asks.
 *
 * Failure modes: no memory for a histogram: that observation is lost, nothing else. More threads than shards: two share one, and the counts stay exact.
 */
#include "series.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct totals totals;

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct series *) registry;

static atomic_uint next_shard;
static _Thread_local uint32_t own_shard; /* index + 1 */

static struct series_shard *shard_of(struct series *series)
{
    if (own_shard == 0) {
        own_shard = atomic_fetch_add(&next_shard, 1) % SERIES_SHARDS + 1;
    }
    return &series->shards[own_shard - 1];
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

struct series *series_first(void)
{
    return atomic_load(&registry);
}

static struct series *find(const char *to)
{
    struct series *s = series_first();
    while (s != NULL && strcmp(s->to, to) != 0) {
        s = s->next;
    }
    return s;
}

static struct series *make(const char *to)
{
    struct series *s = aligned_alloc(64, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->to = strdup(to);
    if (s->to == NULL) {
        free(s);
        return NULL;
    }
    s->next = atomic_load(&registry);
    atomic_store(&registry, s);
    return s;
}

struct series *series_get(const char *to)
{
    pthread_mutex_lock(&registry_mutex);
    struct series *s = find(to);
    if (s == NULL) {
        s = make(to);
    }
    pthread_mutex_unlock(&registry_mutex);
    return s;
}

/* Adds the totals, not what is open now. */
static void add_totals(struct pool_counts *sum, const struct pool_counts *c)
{
    sum->hits += c->hits;
    sum->misses += c->misses;
    sum->dials += c->dials;
    sum->open_failed += c->open_failed;
    sum->waits += c->waits;
    sum->refused += c->refused;
    sum->expired += c->expired;
    sum->aged += c->aged;
    sum->used_up += c->used_up;
    sum->overflow += c->overflow;
    sum->renewed += c->renewed;
    sum->died += c->died;
    sum->stopped += c->stopped;
}

void series_join(struct series *series, struct series_pool *entry, struct pool *pool, uint32_t proto)
{
    pthread_mutex_lock(&registry_mutex);
    *entry = (struct series_pool){.next = series->pools, .pool = pool, .proto = proto};
    series->pools = entry;
    pthread_mutex_unlock(&registry_mutex);
}

void series_leave(struct series *series, struct series_pool *entry)
{
    struct pool_counts c;
    pthread_mutex_lock(&registry_mutex);
    struct series_pool **at = &series->pools;
    while (*at != entry) {
        at = &(*at)->next;
    }
    *at = entry->next;
    pool_get_counts(entry->pool, &c);
    add_totals(&series->past[entry->proto], &c);
    pthread_mutex_unlock(&registry_mutex);
}

void series_pool_counts(struct series *series, uint32_t proto, struct pool_counts *ret)
{
    pthread_mutex_lock(&registry_mutex);
    *ret = series->past[proto];
    for (const struct series_pool *entry = series->pools; entry != NULL; entry = entry->next) {
        struct pool_counts c;
        if (entry->proto != proto) {
            continue;
        }
        pool_get_counts(entry->pool, &c);
        add_totals(ret, &c);
        ret->open += c.open;
        ret->closing += c.closing;
        ret->idle += c.idle;
        ret->dialling += c.dialling;
        ret->waiting += c.waiting;
    }
    pthread_mutex_unlock(&registry_mutex);
}

void series_drop(struct series *series, enum wire_answer why)
{
    add(&shard_of(series)->drops[why], 1);
}

void series_error(struct series *series, int error)
{
    uint32_t i = error < 0 && -error < SERIES_ERRORS ? (uint32_t)-error : 0;
    add(&shard_of(series)->errors[i], 1);
}

const char *series_error_label(int error)
{
    switch (error) {
    case FWD_ERR_TIMEOUT:
        return "timeout";
    case FWD_ERR_REFUSED:
        return "refused";
    case FWD_ERR_UNREACHABLE:
        return "unreachable";
    case FWD_ERR_RESET:
        return "reset";
    case FWD_ERR_CLOSED:
        return "closed";
    case FWD_ERR_SEND:
        return "send";
    case FWD_ERR_EXHAUSTED:
        return "exhausted";
    case FWD_ERR_BAD_REPLY:
        return "bad_reply";
    case FWD_ERR_TLS_HANDSHAKE:
        return "tls_handshake";
    case FWD_ERR_TLS_VERIFY:
        return "tls_verify";
    case FWD_ERR_HTTP:
        return "http";
    case FWD_ERR_STOPPED:
        return "stopped";
    default:
        return "other";
    }
}

void series_stale(struct series *series)
{
    add(&shard_of(series)->stale, 1);
}

void series_retransmit(struct series *series)
{
    add(&shard_of(series)->retransmits, 1);
}

void series_handshake(struct series *series, bool resumed)
{
    add(&shard_of(series)->handshakes[resumed], 1);
}

void series_health_failure(struct series *series)
{
    add(&shard_of(series)->health_failures, 1);
}

/* Two threads may share a shard, so the first histogram in wins. */
static struct histogram *histogram_at(_Atomic(struct histogram *) *at)
{
    struct histogram *h = atomic_load_explicit(at, memory_order_acquire);
    if (h != NULL) {
        return h;
    }
    struct histogram *made = calloc(1, sizeof(*made));
    if (made == NULL || atomic_compare_exchange_strong(at, &h, made)) {
        return made;
    }
    free(made);
    return h;
}

static void observe(_Atomic(struct histogram *) *at, uint64_t took_ns)
{
    struct histogram *h = histogram_at(at);
    if (h == NULL) {
        return;
    }
    uint32_t bucket = 0;
    for (uint64_t bound = SERIES_LEAST_NS; bucket < SERIES_BUCKETS && took_ns > bound; bound *= 2) {
        bucket++;
    }
    add(&h->buckets[bucket], 1);
    add(&h->sum_ns, took_ns);
}

void series_duration(struct series *series, uint32_t rcode, uint64_t took_ns)
{
    observe(&shard_of(series)->duration[rcode < SERIES_RCODES ? rcode : SERIES_RCODES - 1], took_ns);
}

void series_waited(struct series *series, uint64_t took_ns)
{
    observe(&shard_of(series)->waited, took_ns);
}

static void histogram_add(_Atomic(struct histogram *) const *at, struct histogram_sum *sum)
{
    struct histogram *h = atomic_load_explicit(at, memory_order_acquire);
    for (uint32_t b = 0; h != NULL && b <= SERIES_BUCKETS; b++) {
        uint64_t n = atomic_load_explicit(&h->buckets[b], memory_order_relaxed);
        sum->buckets[b] += n;
        sum->count += n;
    }
    sum->sum_ns += h != NULL ? atomic_load_explicit(&h->sum_ns, memory_order_relaxed) : 0;
}

void series_add_duration(const struct series *series, uint32_t rcode, struct histogram_sum *sum)
{
    for (uint32_t i = 0; i < SERIES_SHARDS; i++) {
        histogram_add(&series->shards[i].duration[rcode], sum);
    }
}

void series_add_waited(const struct series *series, struct histogram_sum *sum)
{
    for (uint32_t i = 0; i < SERIES_SHARDS; i++) {
        histogram_add(&series->shards[i].waited, sum);
    }
}

uint64_t histogram_quantile(const struct histogram_sum *sum, double q, uint64_t *ret_from_ns, uint64_t *ret_to_ns)
{
    double rank = q * (double)sum->count;
    uint64_t below = 0, from = 0, to = SERIES_LEAST_NS;
    uint32_t b = 0;
    while (b < SERIES_BUCKETS && (double)(below + sum->buckets[b]) < rank) {
        below += sum->buckets[b++];
        from = to;
        to *= 2;
    }
    *ret_from_ns = from;
    *ret_to_ns = b < SERIES_BUCKETS ? to : UINT64_MAX;
    if (b == SERIES_BUCKETS || sum->buckets[b] == 0) {
        return from;
    }
    return from + (uint64_t)((double)(to - from) * (rank - (double)below) / (double)sum->buckets[b]);
}
