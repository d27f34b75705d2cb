/* Counting queries.
 *
 * Happy path: a query's end adds to some ten numbers of the thread's own sheet, which is made when
 * the thread first counts for that tally. Failure modes: no memory for a sheet: that query is not
 * counted. Threads beyond the lanes share the last sheet, with atomic additions.
 */
#include "tally.h"

#include "lane.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { COUNTS = sizeof(struct tally_counts) / sizeof(uint64_t), FIRST_SLOTS = 64 };

struct sheet {
    _Atomic uint64_t counts[COUNTS]; /* a struct tally_counts */
};

/* The sheets of a tally, by lane; the last one is shared. */
struct binder {
    _Atomic(struct sheet *) sheets[LANES + 1];
};

struct tally {
    _Atomic(struct tally *) next;
    struct tally *same_slot;
    uint64_t hash;
    char *server;
    char *zone;
    _Atomic(struct binder *) binder; /* made with the first query: most of many zones have none */
};

const char *const tally_type_names[TALLY_TYPES] = {
    "other", "A",     "NS",   "CNAME",  "SOA",   "PTR",  "MX",    "TXT",  "AAAA", "SRV",
    "DS",    "RRSIG", "NSEC", "DNSKEY", "NSEC3", "SVCB", "HTTPS", "IXFR", "AXFR", "ANY",
};
static const uint16_t types[TALLY_TYPES] = {
    0, 1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 46, 47, 48, 50, 64, 65, 251, 252, 255,
};
const double tally_times[TALLY_TIMES - 1] = {
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032,
    0.064,   0.128,  0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
};
const uint32_t tally_sizes[TALLY_SIZES - 1] = {
    0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16000, 32000, 48000, 64000,
};

static _Atomic(struct tally *) tallies;
/* an index for tally_take, the control thread's alone */
static struct tally **slots;
static size_t slot_count;
static size_t tally_total;

static uint64_t key_hash(const char *server, const char *zone)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    const char *const parts[2] = {server, zone};
    for (size_t i = 0; i < 2; i++) {
        for (const char *c = parts[i]; *c != '\0'; c++) {
            hash = (hash ^ (unsigned char)*c) * 0x100000001b3ull;
        }
        hash *= 0x100000001b3ull;
    }
    return hash;
}

static bool slots_grow(void)
{
    if (tally_total < slot_count) {
        return true;
    }
    size_t count = slot_count == 0 ? FIRST_SLOTS : 4 * slot_count;
    struct tally **grown = calloc(count, sizeof(struct tally *));
    if (grown == NULL) {
        return false;
    }
    for (struct tally *tally = tally_first(); tally != NULL; tally = tally_next(tally)) {
        struct tally **slot = &grown[tally->hash & (count - 1)];
        tally->same_slot = *slot;
        *slot = tally;
    }
    free(slots);
    slots = grown;
    slot_count = count;
    return true;
}

/** Finds or makes. */
struct tally *tally_take(const char *server, const char *zone)
{
    if (!slots_grow()) {
        return NULL;
    }
    uint64_t hash = key_hash(server, zone);
    struct tally **slot = &slots[hash & (slot_count - 1)];
    for (struct tally *tally = *slot; tally != NULL; tally = tally->same_slot) {
        if (tally->hash == hash && strcmp(tally->server, server) == 0 &&
            strcmp(tally->zone, zone) == 0) {
            return tally;
        }
    }
    struct tally *tally = calloc(1, sizeof(*tally));
    char *own_server = strdup(server);
    char *own_zone = strdup(zone);
    if (tally == NULL || own_server == NULL || own_zone == NULL) {
        free(tally);
        free(own_server);
        free(own_zone);
        return NULL;
    }
    tally->hash = hash;
    tally->server = own_server;
    tally->zone = own_zone;
    tally->same_slot = *slot;
    *slot = tally;
    tally_total++;
    atomic_store(&tally->next, atomic_load(&tallies));
    atomic_store(&tallies, tally);
    return tally;
}

/** The list's beginning. */
struct tally *tally_first(void)
{
    return atomic_load(&tallies);
}

/** The list's next. */
struct tally *tally_next(const struct tally *tally)
{
    return atomic_load(&tally->next);
}

/** Label server. */
const char *tally_server(const struct tally *tally)
{
    return tally->server;
}

/** Label zone. */
const char *tally_zone(const struct tally *tally)
{
    return tally->zone;
}

static struct binder *binder_take(struct tally *tally)
{
    struct binder *binder = atomic_load_explicit(&tally->binder, memory_order_acquire);
    if (binder != NULL) {
        return binder;
    }
    struct binder *made = calloc(1, sizeof(*made));
    if (made == NULL || atomic_compare_exchange_strong(&tally->binder, &binder, made)) {
        return made;
    }
    free(made); /* another thread came first */
    return binder;
}

static struct sheet *sheet_take(struct tally *tally, unsigned lane)
{
    struct binder *binder = binder_take(tally);
    if (binder == NULL) {
        return NULL;
    }
    struct sheet *sheet = atomic_load_explicit(&binder->sheets[lane], memory_order_acquire);
    if (sheet != NULL) {
        return sheet;
    }
    struct sheet *made = aligned_alloc(64, (sizeof(*made) + 63) / 64 * 64);
    if (made == NULL) {
        return NULL;
    }
    memset(made, 0, sizeof(*made));
    if (atomic_compare_exchange_strong(&binder->sheets[lane], &sheet, made)) {
        return made;
    }
    free(made); /* of two threads in the shared lane one came first */
    return sheet;
}

static unsigned type_index(uint16_t type)
{
    for (unsigned i = 1; i < TALLY_TYPES && types[i] <= type; i++) {
        if (types[i] == type) {
            return i;
        }
    }
    return 0;
}

static unsigned time_bucket(uint64_t ns)
{
    unsigned bucket = 0;
    for (uint64_t bound = 250000; bucket < TALLY_TIMES - 1 && ns > bound; bound *= 2) {
        bucket++;
    }
    return bucket;
}

static unsigned size_bucket(uint32_t size)
{
    unsigned bucket = 0;
    while (bucket < TALLY_SIZES - 1 && size > tally_sizes[bucket]) {
        bucket++;
    }
    return bucket;
}

/* Adds to the count that lies at a member of struct tally_counts. */
static void add(struct sheet *sheet, bool shared, size_t offset, uint64_t n)
{
    _Atomic uint64_t *count = &sheet->counts[offset / sizeof(uint64_t)];
    if (shared) {
        atomic_fetch_add_explicit(count, n, memory_order_relaxed);
        return;
    }
    uint64_t before = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, before + n, memory_order_relaxed);
}

#define AT(member) offsetof(struct tally_counts, member)
#define ITEM(member, index) (AT(member) + (index) * sizeof(uint64_t))

static void sizes_add(struct sheet *sheet, bool shared, size_t at, uint32_t size)
{
    add(sheet, shared, at + size_bucket(size) * sizeof(uint64_t), 1);
    add(sheet, shared, at + offsetof(struct tally_sizes, sum), size);
}

/** Counts. */
void tally_count(struct tally *tally, const struct tally_event *event)
{
    unsigned lane = lane_mine();
    bool shared = lane == LANES;
    struct sheet *sheet = sheet_take(tally, lane);
    if (sheet == NULL) {
        return;
    }
    unsigned way = (event->stream * 2u + event->ipv6) * TALLY_TYPES;
    unsigned rcode = event->rcode < TALLY_RCODES - 1 ? event->rcode : TALLY_RCODES - 1;
    size_t sizes = event->stream * sizeof(struct tally_sizes);
    add(sheet, shared, ITEM(requests, way + type_index(event->query->qtype)), 1);
    if ((event->query->opt_ttl & 0x8000) != 0) {
        add(sheet, shared, AT(dos), 1);
    }
    add(sheet, shared, ITEM(responses, rcode * 2 + event->forwarded), 1);
    add(sheet, shared, ITEM(times, time_bucket(event->duration_ns)), 1);
    add(sheet, shared, AT(time_sum_ns), event->duration_ns);
    sizes_add(sheet, shared, AT(asked) + sizes, event->query->len);
    sizes_add(sheet, shared, AT(replied) + sizes, event->replied);
}

/** Sums. */
bool tally_sum(const struct tally *tally, struct tally_counts *ret)
{
    uint64_t sums[COUNTS] = {0};
    bool any = false;
    struct binder *binder = atomic_load_explicit(&tally->binder, memory_order_acquire);
    for (unsigned lane = 0; binder != NULL && lane <= LANES; lane++) {
        struct sheet *sheet = atomic_load_explicit(&binder->sheets[lane], memory_order_acquire);
        for (size_t i = 0; sheet != NULL && i < COUNTS; i++) {
            sums[i] += atomic_load_explicit(&sheet->counts[i], memory_order_relaxed);
        }
        any |= sheet != NULL;
    }
    memcpy(ret, sums, sizeof(sums));
    return any;
}
