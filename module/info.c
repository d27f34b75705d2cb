/* The info document.
 *
 * Happy path: {"state", "io_threads", "in_flight", "config": {...}, "upstreams": [{"stanza", "addr", "transport", "down", "fails", "probes",
 * "pools": {"udp": {...}, "tcp": {...}}, "conn_wait": {...}}]} is built from the effective configuration and the transports and pushed to the
 * sink. conn_wait is the histogram of waits at a limit, once there was one, of all transports to that address.
 *
 * Failure modes: out of memory: FWD_ERR_NOMEM, nothing is pushed.
 */
#include "info.h"

#include "engine.h"
#include "instance.h"
#include "metrics.h"
#include "transport.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *pool_json(struct pool *pool)
{
    struct pool_counts c;
    pool_get_counts(pool, &c);
    json_t *closed = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "idle_limit", (json_int_t)c.overflow, "expire",
                               (json_int_t)c.expired, "max_age", (json_int_t)c.aged, "uses", (json_int_t)c.used_up, "port_budget",
                               (json_int_t)c.renewed, "error", (json_int_t)c.died, "stop", (json_int_t)c.stopped);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "open", (json_int_t)c.open, "idle",
                     (json_int_t)c.idle, "active", (json_int_t)(c.open - c.closing - c.idle), "dialling", (json_int_t)c.dialling,
                     "waiting", (json_int_t)c.waiting, "hits", (json_int_t)c.hits, "misses", (json_int_t)c.misses, "dials",
                     (json_int_t)c.dials, "shortages", (json_int_t)c.open_failed, "waits", (json_int_t)c.waits, "refused",
                     (json_int_t)c.refused, "closed", closed);
}

static const char *transport_name(uint32_t proto)
{
    return proto == FWD_PROTO_TLS ? "tls" : proto == FWD_PROTO_HTTPS ? "https" : "dns";
}

static json_t *upstream_json(const struct fwd_proxy *proxy)
{
    struct transport *t = proxy->transport;
    const struct health *h = proxy->health;
    return json_pack("{s:i, s:s, s:s, s:b, s:I, s:I, s:b, s:{s:o, s:o}, s:o*}", "stanza", (int)proxy->stanza->index, "addr",
                     proxy->text, "transport", transport_name(t->key.proto), "down",
                     health_down(h, proxy->stanza->config->max_fails), "fails", (json_int_t)health_fails(h), "probes",
                     (json_int_t)atomic_load(&h->probes), "probing", (int)atomic_load(&h->probing), "pools", "udp",
                     pool_json(&t->udp), "tcp", pool_json(&t->stream), "conn_wait", metrics_waited(t->series));
}

static json_t *upstreams_json(const struct fwd_instance *instance)
{
    json_t *upstreams = json_array();
    for (uint32_t i = 0; i < instance->proxy_count; i++) {
        if (json_array_append_new(upstreams, upstream_json(&instance->proxies[i])) != 0) {
            json_decref(upstreams);
            return NULL;
        }
    }
    return upstreams;
}

int info_write(struct fwd_instance *instance, fwd_sink_fn sink, void *sink_arg)
{
    static const char *const states[] = {"created", "started", "draining", "stopped"};
    json_t *config = config_to_json(instance->config);
    json_t *upstreams = upstreams_json(instance);
    /* o steals both references, also when it fails */
    json_t *doc = json_pack("{s:s, s:i, s:i, s:o, s:o}", "state", states[atomic_load(&instance->state)], "io_threads",
                            (int)instance->config->io_threads, "in_flight", (int)atomic_load(&instance->in_flight), "config",
                            config, "upstreams", upstreams);
    char *text = doc != NULL ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    if (text == NULL) {
        return FWD_ERR_NOMEM;
    }
    int r = sink(sink_arg, text, strlen(text));
    free(text);
    return r < 0 ? r : FWD_OK;
}
