/* Writing what the module's info says.
 *
 * Happy path: the current epoch is held, its instances asked one after the other, the document or
 * the table written.
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
    static const char *const shown[] = {"stanza", "addr",    "transport", "down",
                                        "fails",  "probing", "probes",    "pools"};
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
            text_printf(out, "            %s %s\n", name, text);
        }
        free(text);
    }
}

static void upstream_print(json_t *upstream, struct text *out)
{
    const json_t *pools = json_object_get(upstream, "pools");
    bool down = json_is_true(json_object_get(upstream, "down"));
    bool probing = json_is_true(json_object_get(upstream, "probing"));
    text_printf(out, "  %6lld  %-28s %-5s %-7s %5lld %6lld", number(upstream, "stanza") + 1,
                json_string_value(json_object_get(upstream, "addr")),
                json_string_value(json_object_get(upstream, "transport")),
                down      ? "down"
                : probing ? "probing"
                          : "up",
                number(upstream, "fails"), number(upstream, "probes"));
    pool_print(json_object_get(pools, "udp"), out);
    pool_print(json_object_get(pools, "tcp"), out);
    text_append(out, "\n", 1);
    rest_print(upstream, out);
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
    text_printf(out, "  %6s  %-28s %-5s %-7s %5s %6s  %6s %6s %9s %9s  %6s %6s %9s %9s\n", "stanza",
                "upstream", "kind", "state", "fails", "probes", "udp", "busy", "hits", "misses",
                "tcp", "busy", "hits", "misses");
    size_t i;
    json_t *upstream;
    json_array_foreach(json_object_get(forward, "upstreams"), i, upstream)
    {
        upstream_print(upstream, out);
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
