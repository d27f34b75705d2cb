/* The daemon's look at its own /health, once a second: how long an answer takes is CoreDNS's
 * measure of an overloaded process.
 *
 * Threads: one of its own while there is something to look at; probe_targets by main, probe_counts
 * by any. Ownership: plain values. Limits: PROBE_TARGETS addresses, 3 s for an answer.
 */
#pragma once

#include "address.h"

#include <stdint.h>

enum { PROBE_TARGETS = 8, PROBE_TIMES = 6 };

/** What is to be looked at from now on; with none the thread ends before the call returns. */
void probe_targets(const union address *targets, unsigned count);

struct probe_counts {
    uint64_t times[PROBE_TIMES]; /**< buckets, the last one is +Inf */
    uint64_t time_sum_ns;
    uint64_t failures;
};

extern const double probe_times[PROBE_TIMES - 1];

struct probe_counts probe_counts(void);
