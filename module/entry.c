/* The ABI's edge: the exported symbol, the interface tables, and the checks of what the host hands in.
 *
 * Happy path: fwd_module_entry gives the module table, get_interface the others; each function checks its arguments and calls the noun it belongs to.
 *
 * Failure modes: NULL or a struct below its minimum size: FWD_ERR_ARG or FWD_ERR_ABI, nothing touched. Everything else is the noun's.
 */
#include "config.h"
#include "cork.h"
#include "corefile.h"
#include "describe.h"
#include "error.h"
#include "forward.h"
#include "health.h"
#include "info.h"
#include "instance.h"
#include "loop.h"
#include "match.h"
#include "metrics.h"
#include "query.h"
#include "stanza.h"
#include "transport.h"

#include <stdlib.h>
#include <string.h>

static int arg_error(struct fwd_error *error, const char *what)
{
    return error_set(error, FWD_ERR_ARG, NULL, "%s", what);
}

/* Pushes a document and drops it. */
static int push_json(json_t *doc, fwd_sink_fn sink, void *sink_arg, struct fwd_error *error)
{
    char *text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    if (text == NULL) {
        return error_set(error, FWD_ERR_NOMEM, NULL, "%s", error_text(FWD_ERR_NOMEM));
    }
    int r = sink(sink_arg, text, strlen(text));
    free(text);
    return r < 0 ? r : FWD_OK;
}

/* --- fwd.forward/1 ------------------------------------------------------------------------------------------------ */

static int32_t forward_corefile_to_json(const struct fwd_directive *directive, fwd_sink_fn sink, void *sink_arg,
                                        struct fwd_error *error)
{
    if (directive == NULL || sink == NULL) {
        return arg_error(error, "corefile_to_json: directive and sink are needed");
    }
    if (directive->struct_size < FWD_DIRECTIVE_MIN_SIZE) {
        return error_set(error, FWD_ERR_ABI, NULL, "%s", error_text(FWD_ERR_ABI));
    }
    json_t *doc;
    int r = stanza_parse(directive, &doc, error);
    if (doc == NULL) {
        return r;
    }
    int pushed = push_json(doc, sink, sink_arg, r < 0 ? NULL : error);
    return r < 0 ? r : pushed;
}

static int32_t forward_check(const char *config, uint64_t len, struct fwd_error *error)
{
    if (config == NULL) {
        return arg_error(error, "check: a configuration is needed");
    }
    struct config *parsed;
    int r = config_parse(config, (size_t)len, &parsed, error);
    if (r == 0) {
        r = instance_supported(parsed, error);
        config_destroy(parsed);
    }
    return r;
}

static int32_t forward_create(const struct fwd_host *host, const char *config, uint64_t len,
                              struct fwd_instance **ret_instance, struct fwd_error *error)
{
    if (host == NULL || config == NULL || ret_instance == NULL) {
        return arg_error(error, "create: host, config and ret_instance are needed");
    }
    if (host->struct_size < FWD_HOST_MIN_SIZE || host->completion_size < FWD_COMPLETION_MIN_SIZE ||
        host->completion_size > QUERY_COMPLETION_MAX) {
        return error_set(error, FWD_ERR_ABI, NULL, "%s", error_text(FWD_ERR_ABI));
    }
    if (host->done == NULL) {
        return arg_error(error, "create: host.done is needed");
    }
    return instance_create(host, config, (size_t)len, ret_instance, error);
}

static int32_t forward_start(struct fwd_instance *instance, struct fwd_error *error)
{
    return instance != NULL ? instance_start(instance, error) : arg_error(error, "start: an instance is needed");
}

static int32_t forward_match(struct fwd_instance *instance, const uint8_t *qname, uint32_t len)
{
    if (instance == NULL || qname == NULL || wire_name_len(qname, len) != len) {
        return FWD_ERR_ARG;
    }
    return match_find(instance, 0, qname, len) != NULL;
}

static int32_t forward_serve_batch(struct fwd_instance *instance, struct fwd_query *queries, uint32_t count)
{
    if (instance == NULL || (queries == NULL && count > 0)) {
        return FWD_ERR_ARG;
    }
    if (count == 0) {
        return FWD_OK;
    }
    uint32_t stride = queries->struct_size;
    if (stride < FWD_QUERY_MIN_SIZE) {
        return FWD_ERR_ABI;
    }
    stanza_fetch(&instance->stanzas[0]); /* the only one of many an instance */
    match_fetch(instance, queries, count);
    bool several = count > 1;
    if (!instance_enter(instance, count + several)) { /* one for this call itself: all queries may have ended before what it kept is sent */
        return FWD_ERR_STATE;
    }
    cork_begin(several);
    for (uint32_t i = 0; i < count; i++) {
        struct fwd_query *query = (struct fwd_query *)((char *)queries + (size_t)i * stride);
        forward_serve(instance, query);
        if (query->verdict != FWD_VERDICT_ACCEPTED) {
            instance_leave(instance);
        }
    }
    cork_end();
    if (several) {
        instance_leave(instance);
    }
    return FWD_OK;
}

static int32_t forward_cancel(struct fwd_instance *instance, uint64_t handle)
{
    return instance != NULL ? instance_cancel(instance, handle) : FWD_ERR_ARG;
}

static int32_t forward_stop(struct fwd_instance *instance, uint64_t drain_ns)
{
    return instance != NULL ? instance_stop(instance, drain_ns) : FWD_ERR_ARG;
}

static int32_t forward_info(struct fwd_instance *instance, fwd_sink_fn sink, void *sink_arg)
{
    return instance != NULL && sink != NULL ? info_write(instance, sink, sink_arg) : FWD_ERR_ARG;
}

static int32_t forward_metrics(struct fwd_instance *instance, uint32_t format, fwd_sink_fn sink, void *sink_arg)
{
    return sink != NULL ? metrics_write(format, sink, sink_arg) : FWD_ERR_ARG;
}

static int32_t forward_poll_fd(struct fwd_instance *instance, uint32_t loop)
{
    return instance != NULL ? instance_poll_fd(instance, loop) : FWD_ERR_ARG;
}

static int32_t forward_run(struct fwd_instance *instance, uint32_t loop)
{
    return instance != NULL ? instance_run(instance, loop) : FWD_ERR_ARG;
}

static const struct fwd_forward forward_table = {
    .struct_size = sizeof(forward_table),
    .corefile_to_json = forward_corefile_to_json,
    .check = forward_check,
    .create = forward_create,
    .start = forward_start,
    .match = forward_match,
    .serve = forward_serve_batch,
    .cancel = forward_cancel,
    .stop = forward_stop,
    .destroy = instance_destroy,
    .info = forward_info,
    .metrics = forward_metrics,
    .poll_fd = forward_poll_fd,
    .run = forward_run,
};

/* --- fwd.proxy/1 -------------------------------------------------------------------------------------------------- */

static uint32_t proxies_count(struct fwd_instance *instance)
{
    return instance != NULL ? instance_proxies(instance) : 0;
}

static struct fwd_proxy *proxies_at(struct fwd_instance *instance, uint32_t index)
{
    return instance != NULL ? instance_proxy(instance, index) : NULL;
}

static const char *proxies_addr(struct fwd_proxy *proxy)
{
    return proxy != NULL ? proxy->text : NULL;
}

static uint32_t proxies_fails(struct fwd_proxy *proxy)
{
    struct proxy_set *set = proxy != NULL ? proxy_hold(proxy) : NULL;
    if (set == NULL) {
        return 0;
    }
    uint32_t fails = health_fails(proxy->health);
    stanza_leave(proxy->stanza, set);
    return fails;
}

static int32_t proxies_down(struct fwd_proxy *proxy)
{
    struct proxy_set *set = proxy != NULL ? proxy_hold(proxy) : NULL;
    if (set == NULL) {
        return proxy != NULL;
    }
    bool down = health_down(proxy->health, proxy->stanza->options->max_fails);
    stanza_leave(proxy->stanza, set);
    return down;
}

static int32_t proxies_healthcheck(struct fwd_proxy *proxy)
{
    if (proxy == NULL) {
        return FWD_ERR_ARG;
    }
    if (atomic_load(&proxy->stanza->instance->state) != INSTANCE_STARTED) {
        return FWD_ERR_STATE;
    }
    struct proxy_set *set = proxy_hold(proxy);
    if (set == NULL) {
        return FWD_ERR_STATE;
    }
    health_check(proxy->health);
    stanza_leave(proxy->stanza, set);
    return FWD_OK;
}

static int32_t proxies_exchange(struct fwd_proxy *proxy, struct fwd_query *query, uint32_t options)
{
    if (proxy == NULL || query == NULL || (options & ~(uint32_t)(FWD_EXCHANGE_FORCE_TCP | FWD_EXCHANGE_PREFER_UDP)) != 0) {
        return FWD_ERR_ARG;
    }
    if (query->struct_size < FWD_QUERY_MIN_SIZE) {
        return FWD_ERR_ABI;
    }
    struct fwd_instance *instance = proxy->stanza->instance;
    if (!instance_enter(instance, 1)) {
        return FWD_ERR_STATE;
    }
    cork_begin(false);
    forward_exchange(proxy, query, options);
    cork_end();
    if (query->verdict != FWD_VERDICT_ACCEPTED) {
        instance_leave(instance);
    }
    return FWD_OK;
}

static int32_t proxies_pool_stats(struct fwd_proxy *proxy, uint32_t proto, struct fwd_pool_stats *stats)
{
    if (proxy == NULL || stats == NULL || proto == FWD_PROTO_NONE || proto > FWD_PROTO_HTTPS) {
        return FWD_ERR_ARG;
    }
    uint32_t size = stats->struct_size;
    if (size < FWD_POOL_STATS_MIN_SIZE) {
        return FWD_ERR_ABI;
    }
    struct proxy_set *set = proxy_hold(proxy);
    if (set == NULL) {
        return FWD_ERR_STATE;
    }
    struct pool_counts c;
    pool_get_counts(transport_pool(proxy->transport, proto), &c);
    stanza_leave(proxy->stanza, set);
    struct fwd_pool_stats full = {
        .struct_size = size,
        .idle = c.idle,
        .active = c.open - c.closing - c.idle,
        .hits = c.hits,
        .misses = c.misses,
        .expired = c.expired,
        .aged = c.aged + c.used_up + c.renewed,
        .overflow = c.overflow,
        .died = c.died,
    };
    memcpy(stats, &full, size < sizeof(full) ? size : sizeof(full));
    return FWD_OK;
}

static const struct fwd_proxies proxies_table = {
    .struct_size = sizeof(proxies_table),
    .count = proxies_count,
    .at = proxies_at,
    .addr = proxies_addr,
    .fails = proxies_fails,
    .down = proxies_down,
    .healthcheck = proxies_healthcheck,
    .exchange = proxies_exchange,
    .pool_stats = proxies_pool_stats,
};

/* --- fwd.corefile/1 ----------------------------------------------------------------------------------------------- */

static int32_t corefile_parse_text(const char *text, uint64_t len, const char *file, fwd_sink_fn sink, void *sink_arg,
                                   struct fwd_error *error)
{
    if (text == NULL || file == NULL || sink == NULL) {
        return arg_error(error, "parse: text, file and sink are needed");
    }
    struct jsontext doc;
    int r = corefile_read(text, (size_t)len, file, &doc, error);
    if (r < 0 && r != FWD_ERR_SYNTAX) {
        return r;
    }
    int pushed = sink(sink_arg, doc.data, doc.len);
    jsontext_free(&doc);
    return r < 0 ? r : pushed < 0 ? pushed : FWD_OK;
}

static const struct fwd_corefile corefile_table = {
    .struct_size = sizeof(corefile_table),
    .parse = corefile_parse_text,
};

/* --- the module --------------------------------------------------------------------------------------------------- */

static const void *get_interface(const char *id)
{
    static const struct {
        const char *id;
        const void *table;
    } interfaces[] = {
        {FWD_FORWARD_ID, &forward_table},
        {FWD_PROXIES_ID, &proxies_table},
        {FWD_COREFILE_ID, &corefile_table},
    };
    for (size_t i = 0; id != NULL && i < sizeof(interfaces) / sizeof(interfaces[0]); i++) {
        if (strcmp(interfaces[i].id, id) == 0) {
            return interfaces[i].table;
        }
    }
    return NULL;
}

FWD_EXPORT const struct fwd_module *fwd_module_entry(uint32_t abi_major)
{
    static const struct fwd_module module = {
        .struct_size = sizeof(module),
        .abi_version = FWD_ABI_VERSION,
        .describe = describe_text,
        .strerror = error_text,
        .get_interface = get_interface,
    };
    return abi_major == FWD_ABI_MAJOR ? &module : NULL;
}
