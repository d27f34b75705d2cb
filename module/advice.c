/* Warnings about limits that do not fit.
 *
 * Happy path: nothing is said. At create the options of a stanza are compared with each other; later each pool's books are looked at
 * every ten seconds: when connections are opened and closed again for want of a higher limit, or queries are refused or wait because of
 * one, the line says how often, which option does it, and the value that the load just seen would need.
 *
 * Failure modes: none; without a log service nothing is computed in vain that costs anything.
 */
#include "advice.h"

#include "resolve.h"
#include "transport.h"

#include <inttypes.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    QUIET_S = 60,
    MANY = 100,      /* of what should be rare, between two looks */
    ONE_IN = 10,     /* of all takes: that is worth a line */
    CLOSES_WANTED = 10,
};

#define warn(services, ...) services_log(services, FWD_LEVEL_WARNING, "forward: " __VA_ARGS__)

void advice_on_stanza(const struct services *services, const struct config_stanza *stanza)
{
    const struct config_options *options = stanza->options;
    uint64_t max_idle = options->max_idle_conns;
    uint64_t most = options->max_conns > 0 ? options->max_conns : options->max_concurrent;
    const char *from = stanza->from.text;
    if (max_idle > 0 && max_idle < most) {
        warn(services,
             "%s: max_idle_conns %" PRIu64 " is below %s %" PRIu64 ": under load up to %" PRIu64
             " connections per upstream are opened and closed again and again; max_idle_conns %" PRIu64 " would keep them",
             from, max_idle, options->max_conns > 0 ? "max_conns" : "max_concurrent", most, most - max_idle, most);
    }
    if (options->min_idle_conns > 0 && options->expire_ns == 0) {
        warn(services, "%s: min_idle_conns %" PRIu32 " has no effect: expire 0s keeps no connection", from, options->min_idle_conns);
    } else if (max_idle > 0 && options->min_idle_conns > max_idle) {
        warn(services, "%s: min_idle_conns %" PRIu32 " is above max_idle_conns %" PRIu64 ": only %" PRIu64 " are kept ready", from,
             options->min_idle_conns, max_idle, max_idle);
    }
    if (options->resolve_interval_ns > 0 && !resolve_has_names(stanza)) {
        warn(services, "%s: resolve_interval has no effect: no upstream is a host name", from);
    }
    if (options->resolve_hold_ns > 0 && options->resolve_interval_ns == 0) {
        warn(services, "%s: resolve_hold has no effect without resolve_interval", from);
    }
    if (options->max_age_jitter > 0 && options->max_age_ns == 0) {
        warn(services, "%s: max_age_jitter %" PRIu32 " has no effect without max_age", from, options->max_age_jitter);
    }
}

/* What happened between two looks. */
struct span {
    uint64_t takes, overflow, used_up, never_kept, open_failed, waits, refused;
};

static struct span span_of(const struct pool_counts *now, const struct pool_counts *last)
{
    return (struct span){
        .takes = now->hits + now->misses - last->hits - last->misses,
        .overflow = now->overflow - last->overflow,
        .used_up = now->used_up - last->used_up,
        .never_kept = now->expired - last->expired,
        .open_failed = now->open_failed - last->open_failed,
        .waits = now->waits - last->waits,
        .refused = now->refused - last->refused,
    };
}

static bool often(uint64_t count, uint64_t takes)
{
    return count >= MANY && count * ONE_IN > takes;
}

/* Churn: connections that are closed although they could be used again. */
static bool on_closes(const struct services *services, const struct transport_key *key, const struct pool_counts *counts,
                      const struct span *span, const char *upstream, const char *proto)
{
    if (key->max_idle > 0 && counts->peak > key->max_idle && often(span->overflow, span->takes)) {
        warn(services,
             "%s %s: %" PRIu64 " connections were closed after use because max_idle_conns is %" PRIu64 ", while up to %" PRIu32
             " were in use at once; max_idle_conns %" PRIu32 " would keep them",
             upstream, proto, span->overflow, key->max_idle, counts->peak, counts->peak);
    } else if (key->expire_ns == 0 && often(span->never_kept, span->takes)) {
        warn(services, "%s %s: %" PRIu64 " connections were closed after one use because expire is 0s; expire 10s would keep them",
             upstream, proto, span->never_kept);
    } else if (key->max_uses > 0 && often(span->used_up, span->takes)) {
        warn(services,
             "%s %s: %" PRIu64 " connections were closed because max_conn_uses is %" PRIu32 "; max_conn_uses %" PRIu64
             " would close one a second",
             upstream, proto, span->used_up, key->max_uses, span->used_up * key->max_uses / CLOSES_WANTED);
    } else {
        return false;
    }
    return true;
}

/* Queries that did not get a connection, or not at once. */
static bool on_shortage(const struct services *services, const struct transport_key *key, const struct pool_counts *counts,
                        const struct span *span, const char *upstream, const char *proto)
{
    if (span->open_failed > 0) {
        uint32_t had = counts->open > 0 ? counts->open : 1;
        warn(services,
             "%s %s: %" PRIu64 " connections could not be opened for want of descriptors or ports; with max_conns %" PRIu32
             " queries would wait for one instead",
             upstream, proto, span->open_failed, had);
    } else if (key->max_open > 0 && counts->peak > key->max_open && (span->refused > 0 || often(span->waits, span->takes))) {
        warn(services,
             "%s %s: %" PRIu64 " queries were refused and %" PRIu64 " had to wait because max_conns is %" PRIu32 ", while up to %" PRIu32
             " wanted a connection at once; max_conns %" PRIu32 " would do",
             upstream, proto, span->refused, span->waits, key->max_open, counts->peak, counts->peak);
    } else {
        return false;
    }
    return true;
}

void advice_on_pool(struct advice *advice, const struct services *services, const struct transport_key *key,
                    const struct pool_counts *counts, const char *upstream, const char *proto, uint64_t now_ns)
{
    struct span span = span_of(counts, &advice->last);
    advice->last = *counts;
    if (services->log == NULL || now_ns < advice->quiet_until_ns) {
        return;
    }
    /* churn first: it is often what the shortage comes of */
    if (on_closes(services, key, counts, &span, upstream, proto) || on_shortage(services, key, counts, &span, upstream, proto)) {
        advice->quiet_until_ns = now_ns + QUIET_S * SECOND_NS;
    }
}
