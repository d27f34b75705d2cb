/* Counters of one upstream address (the label `to`), for as long as the process lives: totals survive reloads.
 *
 * Threads: any; writers add to the shard of their thread, readers sum. Ownership: the process's registry; never freed (one per distinct
 * address ever configured). Standards: CoreDNS's coredns_proxy_* families, cases 66 and 80.
 */
#pragma once

#include "pool.h"
#include "wire.h"

#include <forward/abi.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SERIES_SHARDS = 8,
    SERIES_LEAST_NS = 250000, /**< upper bound of the first bucket */
    SERIES_BUCKETS = 16, /**< 0.25 ms doubled up to 8.192 s, as CoreDNS's TimeBuckets; one more for the rest */
    SERIES_RCODES = 25,  /**< the last one collects all rcodes that nobody has assigned, lest an upstream make 4,000 series */
    SERIES_PROTOS = FWD_PROTO_HTTPS + 1,
    SERIES_ERRORS = 40,
};

struct histogram {
    _Atomic uint64_t buckets[SERIES_BUCKETS + 1];
    _Atomic uint64_t sum_ns;
};

/** The sum of histograms. */
struct histogram_sum {
    uint64_t buckets[SERIES_BUCKETS + 1];
    uint64_t count;
    uint64_t sum_ns;
};

struct series_shard {
    _Alignas(64) _Atomic uint64_t drops[ANSWER_KINDS];
    _Atomic uint64_t errors[SERIES_ERRORS]; /* by negated FWD_ERR_* */
    _Atomic uint64_t stale;
    _Atomic uint64_t retransmits;
    _Atomic uint64_t handshakes[2]; /* full, resumed */
    _Atomic uint64_t health_failures;
    _Atomic(struct histogram *) duration[SERIES_RCODES]; /* made on first use */
    _Atomic(struct histogram *) waited;                  /* likewise */
};

/** A pool whose books are part of a series; embedded in its transport. */
struct series_pool {
    struct series_pool *next;
    struct pool *pool;
    uint32_t proto;
};

struct series {
    char *to;
    struct series_pool *pools;               /* guarded by the registry's mutex */
    struct pool_counts past[SERIES_PROTOS];  /* likewise: the totals of pools that are gone */
    struct series *next;
    struct series_shard shards[SERIES_SHARDS];
};

/** The series of an address; made on first use. NULL when out of memory. */
struct series *series_get(const char *to);

/** The newest registered series; walk with next. Entries are only ever added. */
struct series *series_first(void);

/** From here on the pool's books count. */
void series_join(struct series *series, struct series_pool *entry, struct pool *pool, uint32_t proto);

/** The pool is about to end; its totals stay. */
void series_leave(struct series *series, struct series_pool *entry);

/** The sum of the books of all pools of one FWD_PROTO_*, past ones included. */
void series_pool_counts(struct series *series, uint32_t proto, struct pool_counts *ret);

/** A message from the upstream that was no answer. */
void series_drop(struct series *series, enum wire_answer why);

/** An attempt that failed. */
void series_error(struct series *series, int error);

/** The word that stands for an error in labels, e.g. "timeout". */
const char *series_error_label(int error);

/** A retry at no charge. */
void series_stale(struct series *series);

/** A query was sent beside an attempt that had no answer in time. */
void series_retransmit(struct series *series);

/** A failed probe. */
void series_health_failure(struct series *series);

/** A successful attempt (case 80). */
void series_duration(struct series *series, uint32_t rcode, uint64_t took_ns);

/** Adds the durations of one rcode, or the waits for a connection, of all shards. */
void series_add_duration(const struct series *series, uint32_t rcode, struct histogram_sum *sum);
void series_add_waited(const struct series *series, struct histogram_sum *sum);

/** A quantile, as exact as a bucket is wide: within a factor of two.
 *  @param q above 0, at most 1
 *  @param[out] ret_from_ns,ret_to_ns the bounds of its bucket; to is UINT64_MAX in the last one
 *  @return the value in between if the bucket's observations lie evenly in it, as Prometheus's histogram_quantile has it; the lower bound in
 *          the last bucket. 0 when there is no observation */
uint64_t histogram_quantile(const struct histogram_sum *sum, double q, uint64_t *ret_from_ns, uint64_t *ret_to_ns);

/** A TLS handshake was completed. */
void series_handshake(struct series *series, bool resumed);

/** An exchange has waited so long for a connection. */
void series_waited(struct series *series, uint64_t took_ns);

/** Counters of the process that have no upstream. */
struct totals {
    _Atomic uint64_t healthcheck_broken;
    _Atomic uint64_t max_concurrent_rejects;
    _Atomic uint64_t lookups; /* of host names, again */
    _Atomic uint64_t lookup_failures;
};
extern struct totals totals;
