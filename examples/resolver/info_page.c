/* Writing what the module's info says.
 *
 * Happy path: the current epoch is held, its instances asked one after the other, the document or
 * the table written. A row of the table is an upstream: its health, the quantiles of its latency
 * (exact to a factor of two: the module's buckets double), exchanges in flight, ports in use, and of
 * each pool the idle and the busy connections, hits and misses; below it the last errors.
 * Failure modes: out of memory sets out->failed. Members that a newer module adds to an upstream
 * are printed below its line as they are.
 */
#include "info_page.h"

#include "service.h"

#include <stdlib.h>
#include <string.h>

/* The module's document about a server block; JSON null when it does not forward. */
static json_t *forward_info(const struct service *service, const struct server *server)
{
    if (server->instance == NULL) {
        return json_null();
    }
    struct text text = {0};
    json_t *info = NULL;
    if (service->module->forward->info(server->instance, text_sink, &text) >= 0) {
        info = json_loadb(text.data, text.len, 0, NULL);
    }
    text_fini(&text);
    return info;
}

static json_t *servers_info(struct service *service)
{
    json_t *servers = json_array();
    const struct epoch *epoch = service_hold(service);
    size_t count = epoch != NULL && epoch->config != NULL ? epoch->config->count : 0;
    for (size_t s = 0; s < count; s++) {
        const struct server *server = &epoch->config->servers[s];
        json_array_append_new(servers, json_pack("{s:o, s:o, s:o}", "zones", zones_to_json(server),
                                                 "listen", listen_to_json(server), "forward",
                                                 forward_info(service, server)));
    }
    service_let_go(service);
    return servers;
}

/** JSON. */
void info_page_json(struct service *service, struct text *out)
{
    json_t *document = json_pack("{s:o}", "servers", servers_info(service));
    char *text = document != NULL ? json_dumps(document, JSON_INDENT(2)) : NULL;
    if (text != NULL) {
        text_append(out, text, strlen(text));
        text_append(out, "\n", 1);
    }
    out->failed |= text == NULL;
    free(text);
    json_decref(document);
}

static long long number(const json_t *object, const char *name)
{
    return (long long)json_integer_value(json_object_get(object, name));
}

static void strings_print(const json_t *array, struct text *out)
{
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item)
    {
        text_printf(out, "%s%s", i > 0 ? " " : "", json_string_value(item));
    }
}

static void pool_print(const json_t *pool, struct text *out)
{
    text_printf(out, "  %6lld %6lld %9lld %9lld", number(pool, "idle"), number(pool, "active"),
                number(pool, "hits"), number(pool, "misses"));
}

/* What the columns do not show. */
static void rest_print(json_t *upstream, struct text *out)
{
    static const char *const shown[] = {
        "stanza",  "addr",      "transport", "state", "fails",      "probes",
        "latency", "in_flight", "ports",     "pools", "last_error", "last_probe_error",
    };
    const char *name;
    json_t *value;
    json_object_foreach(upstream, name, value)
    {
        bool known = json_is_null(value);
        for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
            known |= strcmp(name, shown[i]) == 0;
        }
        char *text = known ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        if (text != NULL) {
            text_printf(out, "          %s %s\n", name, text);
        }
        free(text);
    }
}

static void quantile_print(const json_t *latency, const char *name, struct text *out)
{
    const json_t *quantile = json_object_get(latency, name);
    if (quantile == NULL) {
        text_printf(out, " %8s", "-");
        return;
    }
    double seconds = json_real_value(json_object_get(quantile, "value"));
    text_printf(out, " %8.2f", seconds * 1000);
}

static void fault_print(const json_t *fault, const char *name, struct text *out)
{
    if (!json_is_object(fault)) {
        return;
    }
    text_printf(out, "          %s %s %s\n", name, json_string_value(json_object_get(fault, "at")),
                json_string_value(json_object_get(fault, "text")));
}

static void upstream_print(json_t *upstream, struct text *out)
{
    const json_t *pools = json_object_get(upstream, "pools");
    const json_t *latency = json_object_get(upstream, "latency");
    text_printf(out, "  %6lld  %-28s %-5s %-7s %5lld %6lld", number(upstream, "stanza") + 1,
                json_string_value(json_object_get(upstream, "addr")),
                json_string_value(json_object_get(upstream, "transport")),
                json_string_value(json_object_get(upstream, "state")), number(upstream, "fails"),
                number(upstream, "probes"));
    quantile_print(latency, "p50", out);
    quantile_print(latency, "p90", out);
    quantile_print(latency, "p99", out);
    text_printf(out, "  %9lld %6lld", number(upstream, "in_flight"), number(upstream, "ports"));
    pool_print(json_object_get(pools, "udp"), out);
    pool_print(json_object_get(pools, "tcp"), out);
    text_append(out, "\n", 1);
    fault_print(json_object_get(upstream, "last_error"), "last error", out);
    fault_print(json_object_get(upstream, "last_probe_error"), "last probe error", out);
    rest_print(upstream, out);
}

/** A host name that is looked up again (resolve_interval). */
static void name_print(const json_t *name, struct text *out)
{
    text_printf(out, "  %6lld  %s: %lld addresses, looked up again %lld times, %lld failures in a row\n",
                number(name, "stanza") + 1, json_string_value(json_object_get(name, "name")),
                number(name, "addresses"), number(name, "lookups"), number(name, "failures"));
}

static void server_print(const json_t *server, struct text *out)
{
    strings_print(json_object_get(server, "zones"), out);
    text_append(out, " on ", 4);
    strings_print(json_object_get(server, "listen"), out);
    const json_t *forward = json_object_get(server, "forward");
    if (json_is_null(forward)) {
        text_printf(out, ": does not forward\n");
        return;
    }
    text_printf(out, ": %s, %lld in flight\n", json_string_value(json_object_get(forward, "state")),
                number(forward, "in_flight"));
    text_printf(out,
                "  %6s  %-28s %-5s %-7s %5s %6s %8s %8s %8s  %9s %6s  %6s %6s %9s %9s"
                "  %6s %6s %9s %9s\n",
                "stanza", "upstream", "kind", "state", "fails", "probes", "p50 ms", "p90", "p99",
                "in flight", "ports", "udp", "busy", "hits", "misses", "tcp", "busy", "hits",
                "misses");
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(forward, "upstreams"), i, item)
    {
        upstream_print(item, out);
    }
    json_array_foreach(json_object_get(forward, "names"), i, item)
    {
        name_print(item, out);
    }
}

/** A table. */
void info_page_text(struct service *service, struct text *out)
{
    json_t *servers = servers_info(service);
    size_t i;
    const json_t *server;
    json_array_foreach(servers, i, server)
    {
        server_print(server, out);
    }
    out->failed |= servers == NULL;
    json_decref(servers);
}
