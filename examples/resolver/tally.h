/* What is counted about the queries of one zone on one listening address: CoreDNS's coredns_dns_*
 * series with their labels and buckets.
 *
 * Threads: tally_count from any thread, without a lock: each writes to a sheet of its own lane
 * (lane.h). tally_take on the control thread; tally_sum from any. Ownership: tallies live as long
 * as the process, as totals must not start anew with a reload. Limits: RCODEs above
 * TALLY_RCODES - 2 share one count.
 */
#pragma once

#include "message.h"

#include <stddef.h>

enum {
    TALLY_TYPES = 20,
    TALLY_RCODES = 25,
    TALLY_TIMES = 17, /**< buckets, the last one is +Inf */
    TALLY_SIZES = 15,
};

struct tally_sizes {
    uint64_t buckets[TALLY_SIZES];
    uint64_t sum;
};

/** Counts, all uint64_t: a sheet is summed and read as an array of them. */
struct tally_counts {
    uint64_t requests[2][2][TALLY_TYPES]; /**< by TCP, IPv6, type */
    uint64_t dos;
    uint64_t responses[TALLY_RCODES][2]; /**< by RCODE, whether forward wrote the reply */
    uint64_t times[TALLY_TIMES];
    uint64_t time_sum_ns;
    struct tally_sizes asked[2]; /**< by TCP */
    struct tally_sizes replied[2];
};

struct tally;

/** The tally of a zone on an address, made at first; NULL when out of memory. */
struct tally *tally_take(const char *server, const char *zone);

/** All tallies, one after the other. */
struct tally *tally_first(void);
struct tally *tally_next(const struct tally *tally);
const char *tally_server(const struct tally *tally);
const char *tally_zone(const struct tally *tally);

/** What there is to count about one query. */
struct tally_event {
    const struct message *query;
    bool stream;
    bool ipv6;
    bool forwarded; /**< the reply is an upstream's */
    unsigned rcode;
    uint32_t replied; /**< octets that a plugin wrote; 0 when the server built the reply */
    uint64_t duration_ns;
};

void tally_count(struct tally *tally, const struct tally_event *event);

/** The counts of all lanes together; false when there was no query yet. */
bool tally_sum(const struct tally *tally, struct tally_counts *ret);

/** Label of a type's index, bounds of the buckets. */
extern const char *const tally_type_names[TALLY_TYPES];
extern const double tally_times[TALLY_TIMES - 1];
extern const uint32_t tally_sizes[TALLY_SIZES - 1];
