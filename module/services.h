/* What the host offers: log, clock, random, tap, trace, thread hooks. All optional; here is what stands in for an absent one.
 *
 * Threads: any; a struct services is immutable once filled. Ownership: the tables are the host's and outlive the instance.
 */
#pragma once

#include <forward/abi.h>
#include <stdbool.h>
#include <stdint.h>

struct services {
    const struct fwd_log *log;
    const struct fwd_clock *clock;
    const struct fwd_random *random;
    const struct fwd_tap *tap;
    const struct fwd_trace *trace;
    const struct fwd_thread *thread;
};

/** Asks the host once for every service; a table that is too short for its functions, or lacks one, counts as absent. */
void services_get(struct services *services, const struct fwd_host *host);

/** True when threads of the module may be shared by instances with these two: the tables that threads use are the same. */
bool services_share_threads(const struct services *a, const struct services *b);

/** Monotonic nanoseconds. */
uint64_t services_mono(const struct services *services);

/** Wall clock, nanoseconds since 1970. */
uint64_t services_real(const struct services *services);

/** One log line of the given FWD_LEVEL_*, cut at 1 KiB. Never call it with a lock held. */
void services_log(const struct services *services, uint32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
