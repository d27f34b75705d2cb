/* Host services, and what stands in for the absent ones.
 *
 * Happy path: create asks the host for each id once; later calls go through the table, or to clock_gettime, or nowhere (log).
 *
 * Failure modes: a host gives a table shorter than the one it was asked for: treated as absent, so an old host keeps working.
 */
#include "services.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define SERVICE(host, type, id, last)                                                              \
    ((const struct type *)service_get(host, id, (uint32_t)(offsetof(struct type, last) + sizeof(void (*)(void)))))

static const void *service_get(const struct fwd_host *host, const char *id, uint32_t need)
{
    if (host->get_service == NULL) {
        return NULL;
    }
    const void *table = host->get_service(host->arg, id);
    /* every table begins with its struct_size */
    return table != NULL && *(const uint32_t *)table >= need ? table : NULL;
}

void services_get(struct services *services, const struct fwd_host *host)
{
    *services = (struct services){
        .log = SERVICE(host, fwd_log, "fwd.log/1", write),
        .clock = SERVICE(host, fwd_clock, "fwd.clock/1", real_ns),
        .random = SERVICE(host, fwd_random, "fwd.random/1", fill),
        .tap = SERVICE(host, fwd_tap, "fwd.tap/1", tap),
        .trace = SERVICE(host, fwd_trace, "fwd.trace/1", span),
        .thread = SERVICE(host, fwd_thread, "fwd.thread/1", stop),
    };
}

bool services_share_threads(const struct services *a, const struct services *b)
{
    return a->clock == b->clock && a->random == b->random && a->thread == b->thread && a->log == b->log;
}

static uint64_t system_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

uint64_t services_mono(const struct services *services)
{
    const struct fwd_clock *clock = services->clock;
    return clock != NULL ? clock->mono_ns(clock->arg) : system_ns(CLOCK_MONOTONIC);
}

uint64_t services_real(const struct services *services)
{
    const struct fwd_clock *clock = services->clock;
    return clock != NULL ? clock->real_ns(clock->arg) : system_ns(CLOCK_REALTIME);
}

void services_log(const struct services *services, uint32_t level, const char *format, ...)
{
    if (services->log == NULL) {
        return;
    }
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (n < 0) {
        return;
    }
    uint32_t len = (size_t)n < sizeof(line) ? (uint32_t)n : (uint32_t)sizeof(line) - 1;
    services->log->write(services->log->arg, level, line, len);
}
