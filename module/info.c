/* The info document.
 *
 * Happy path: {"state", "io_threads", "in_flight", "config": {...}, "upstreams": [{...}], "names": [{...}]} is built from the effective
 * configuration and the transports and pushed to the sink. What their members mean stands in abi/forward-abi.json. latency and conn_wait are of all
 * transports to that address since the process began, as the metrics are.
 *
 * Failure modes: out of memory: FWD_ERR_NOMEM, nothing is pushed.
 */
#include "info.h"

#include "engine.h"
#include "instance.h"
#include "metrics.h"
#include "transport.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *pool_json(const struct pool_counts *c)
{
    json_t *closed = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "idle_limit", (json_int_t)c->overflow, "expire",
                               (json_int_t)c->expired, "max_age", (json_int_t)c->aged, "uses", (json_int_t)c->used_up, "port_budget",
                               (json_int_t)c->renewed, "error", (json_int_t)c->died, "stop", (json_int_t)c->stopped);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "open", (json_int_t)c->open, "idle",
                     (json_int_t)c->idle, "active", (json_int_t)(c->open - c->closing - c->idle), "in_flight",
                     (json_int_t)c->in_flight, "dialling", (json_int_t)c->dialling, "waiting", (json_int_t)c->waiting, "hits",
                     (json_int_t)c->hits, "misses", (json_int_t)c->misses, "dials", (json_int_t)c->dials, "shortages",
                     (json_int_t)c->open_failed, "waits", (json_int_t)c->waits, "refused", (json_int_t)c->refused, "closed",
                     closed);
}

static const char *transport_name(uint32_t proto)
{
    return proto == FWD_PROTO_TLS ? "tls" : proto == FWD_PROTO_HTTPS ? "https" : "dns";
}

static const char *health_state(const struct fwd_proxy *proxy)
{
    if (health_down(proxy->health, proxy->stanza->options->max_fails)) {
        return "down";
    }
    return atomic_load(&proxy->health->probing) ? "probing" : "up";
}

/* RFC 3339, in UTC. */
static void moment_print(uint64_t real_ns, char *text, size_t size)
{
    time_t seconds = (time_t)(real_ns / 1000000000);
    struct tm tm;
    char date[32];
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
    (void)snprintf(text, size, "%s.%03uZ", date, (unsigned)(real_ns / 1000000 % 1000));
}

/* NULL (in a document: null) when nothing has failed. */
static json_t *fault_json(struct fault_book *book)
{
    struct fault fault;
    char at[48];
    fault_get(book, &fault);
    if (fault.error == FWD_OK) {
        return NULL;
    }
    moment_print(fault.real_ns, at, sizeof(at));
    return json_pack("{s:s, s:s, s:s, s:s, s:f, s:s}", "at", at, "phase", fault_phase(fault.phase), "proto", fault_proto(fault.proto),
                     "error", series_error_label(fault.error), "elapsed", (double)fault.elapsed_ns / 1e9, "text", fault.text);
}

static json_t *quantile_json(const struct histogram_sum *sum, double q)
{
    uint64_t from, to;
    double value = (double)histogram_quantile(sum, q, &from, &to) / 1e9;
    json_t *bound = to != UINT64_MAX ? json_real((double)to / 1e9) : NULL;
    return json_pack("{s:f, s:f, s:o?}", "value", value, "from", (double)from / 1e9, "to", bound);
}

/* Of all answers, whatever their RCODE; NULL when there was none. */
static json_t *latency_json(const struct series *series)
{
    struct histogram_sum sum = {.count = 0};
    for (uint32_t rcode = 0; rcode < SERIES_RCODES; rcode++) {
        series_add_duration(series, rcode, &sum);
    }
    if (sum.count == 0) {
        return NULL;
    }
    return json_pack("{s:I, s:f, s:o, s:o, s:o}", "count", (json_int_t)sum.count, "mean",
                     (double)sum.sum_ns / 1e9 / (double)sum.count, "p50", quantile_json(&sum, 0.5), "p90", quantile_json(&sum, 0.9),
                     "p99", quantile_json(&sum, 0.99));
}

static json_t *upstream_json(const struct fwd_proxy *proxy)
{
    struct transport *t = proxy->transport;
    struct health *h = proxy->health;
    struct pool_counts udp, tcp;
    pool_get_counts(&t->udp, &udp);
    pool_get_counts(&t->stream, &tcp);
    return json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:o?, s:o?, s:o?, s:I, s:I, s:{s:o, s:o}, s:o*}", "stanza",
                     (int)proxy->stanza->index, "addr", proxy->text, "transport", transport_name(t->key.proto), "state",
                     health_state(proxy), "fails", (json_int_t)health_fails(h), "probes", (json_int_t)atomic_load(&h->probes),
                     "last_error", fault_json(&t->fault), "last_probe_error", fault_json(&h->fault), "latency",
                     latency_json(t->series), "in_flight", (json_int_t)udp.in_flight + tcp.in_flight, "ports",
                     (json_int_t)udp.open + tcp.open, "pools", "udp", pool_json(&udp), "tcp", pool_json(&tcp), "conn_wait",
                     metrics_waited(t->series));
}

static bool add_upstreams(json_t *upstreams, struct stanza *stanza)
{
    bool added = true;
    struct proxy_set *set = stanza_take(stanza);
    for (uint32_t i = 0; added && i < set->count; i++) {
        added = json_array_append_new(upstreams, upstream_json(set->items[i])) == 0;
    }
    stanza_leave(stanza, set);
    return added;
}

static json_t *name_json(uint32_t stanza, const struct renewal *name)
{
    return json_pack("{s:i, s:s, s:I, s:I, s:I}", "stanza", (int)stanza, "name", name->host->name, "addresses",
                     (json_int_t)atomic_load(&name->addresses), "lookups", (json_int_t)atomic_load(&name->lookups), "failures",
                     (json_int_t)atomic_load(&name->failures));
}

static bool add_names(json_t *names, const struct stanza *stanza)
{
    bool added = true;
    for (uint32_t i = 0; stanza->refresh != NULL && added && i < stanza->refresh->count; i++) {
        added = json_array_append_new(names, name_json(stanza->index, &stanza->refresh->names[i])) == 0;
    }
    return added;
}

int info_write(struct fwd_instance *instance, fwd_sink_fn sink, void *sink_arg)
{
    static const char *const states[] = {"created", "started", "draining", "stopped"};
    json_t *config = config_to_json(instance->config);
    json_t *upstreams = json_array(), *names = json_array();
    bool added = true;
    for (uint32_t i = 0; added && i < instance->stanza_count; i++) {
        added = add_upstreams(upstreams, &instance->stanzas[i]) && add_names(names, &instance->stanzas[i]);
    }
    /* o steals the references, also when it fails */
    json_t *doc = json_pack("{s:s, s:i, s:i, s:o, s:o, s:o}", "state", states[atomic_load(&instance->state)], "io_threads",
                            (int)instance->config->io_threads, "in_flight", (int)atomic_load(&instance->in_flight), "config",
                            config, "upstreams", upstreams, "names", names);
    char *text = doc != NULL && added ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    if (text == NULL) {
        return FWD_ERR_NOMEM;
    }
    int r = sink(sink_arg, text, strlen(text));
    free(text);
    return r < 0 ? r : FWD_OK;
}
