/* The monotonic clock.
 *
 * Threads: any.
 */
#pragma once

#include <stdint.h>
#include <time.h>

enum { SECOND_NS = 1000000000 };

/** Nanoseconds since some start. */
static inline uint64_t clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}
