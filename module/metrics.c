/* Metrics.
 *
 * Happy path: the shards of every upstream are summed into a JSON document, an array of families; the Prometheus text is written from that
 * document, so the two forms cannot differ. As in CoreDNS a series with labels exists from its first use on.
 *
 * Failure modes: out of memory: FWD_ERR_NOMEM, nothing is pushed.
 */
#include "metrics.h"

#include "metrics_defs.h"
#include "rcode.h"
#include "series.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum family {
    BROKEN,
    REJECTS,
    LOOKUPS,
    LOOKUPS_FAILED,
    DURATION,
    HEALTH_FAILURES,
    HITS,
    MISSES,
    ERRORS,
    DROPS,
    STALE,
    RETRANSMITS,
    HANDSHAKES,
    WAITED,
    CONNS,
    WAITING,
    DIALS,
    DIALS_FAILED,
    REUSES,
    WAITS,
    REFUSED,
    CLOSES,
    FAMILIES,
};

const struct metric_def metric_defs[FAMILIES] = {
    [BROKEN] = {"coredns_forward_healthcheck_broken_total", "counter",
                "Counter of the number of complete failures of the healthchecks.", {NULL}},
    [REJECTS] = {"coredns_forward_max_concurrent_rejects_total", "counter",
                 "Counter of the number of queries rejected because the concurrent queries were at maximum.", {NULL}},
    [LOOKUPS] = {"fwd_host_lookups_total", "counter", "Lookups of host names among the upstreams after the first one.", {NULL}},
    [LOOKUPS_FAILED] = {"fwd_host_lookup_failures_total", "counter", "Those of them that gave no address.", {NULL}},
    [DURATION] = {"coredns_proxy_request_duration_seconds", "histogram",
                  "Histogram of the time each request took.", {"proxy_name", "to", "rcode"}},
    [HEALTH_FAILURES] = {"coredns_proxy_healthcheck_failures_total", "counter",
                         "Counter of the number of failed healthchecks.", {"proxy_name", "to"}},
    [HITS] = {"coredns_proxy_conn_cache_hits_total", "counter",
              "Counter of connection cache hits per upstream and protocol.", {"proxy_name", "to", "proto"}},
    [MISSES] = {"coredns_proxy_conn_cache_misses_total", "counter",
                "Counter of connection cache misses per upstream and protocol.", {"proxy_name", "to", "proto"}},
    [ERRORS] = {"fwd_proxy_errors_total", "counter", "Attempts that failed, by error.", {"to", "error"}},
    [DROPS] = {"fwd_proxy_dropped_replies_total", "counter",
               "Messages from an upstream that were no answer to a query in flight, by reason.", {"to", "reason"}},
    [STALE] = {"fwd_proxy_stale_retries_total", "counter",
               "Exchanges repeated at no charge because a reused connection had been closed.", {"to"}},
    [RETRANSMITS] = {"fwd_proxy_retransmits_total", "counter",
                     "Queries sent to an upstream because another attempt had no answer in the time of retransmit.", {"to"}},
    [HANDSHAKES] = {"fwd_proxy_tls_handshakes_total", "counter", "TLS handshakes completed, and whether they resumed a session.",
                    {"to", "resumed"}},
    [WAITED] = {"fwd_proxy_conn_wait_seconds", "histogram", "Time that queries waited for a connection at a limit.", {"to"}},
    [CONNS] = {"fwd_proxy_conns", "gauge", "Connections open now, by state.", {"to", "proto", "state"}},
    [WAITING] = {"fwd_proxy_conn_waiting", "gauge", "Queries that wait for a connection now.", {"to", "proto"}},
    [DIALS] = {"fwd_proxy_conn_dials_total", "counter", "Connections opened, spare ones included.", {"to", "proto"}},
    [DIALS_FAILED] = {"fwd_proxy_conn_shortages_total", "counter",
                      "Connections that could not be opened for want of a descriptor, port or buffer.", {"to", "proto"}},
    [REUSES] = {"fwd_proxy_conn_reuses_total", "counter", "Queries sent on a connection that was there.", {"to", "proto"}},
    [WAITS] = {"fwd_proxy_conn_waits_total", "counter", "Queries that had to wait for a connection at a limit.", {"to", "proto"}},
    [REFUSED] = {"fwd_proxy_conn_refused_total", "counter", "Queries refused at a limit because conn_wait is 0s.", {"to", "proto"}},
    [CLOSES] = {"fwd_proxy_conn_closes_total", "counter", "Connections closed, by reason.", {"to", "proto", "reason"}},
};
const size_t metric_defs_count = FAMILIES;

static const char *const proto_labels[SERIES_PROTOS] = {"", "udp", "tcp", "tcp-tls", "https"};

static const char *const drop_labels[ANSWER_KINDS] = {
    [ANSWER_GOOD] = "",       [ANSWER_SHORT] = "short",       [ANSWER_ID] = "id",
    [ANSWER_NO_QR] = "qr",    [ANSWER_OPCODE] = "opcode",     [ANSWER_QUESTION] = "question",
    [ANSWER_MALFORMED] = "malformed", [ANSWER_BARE] = "no_question",
};

/* --- collecting --------------------------------------------------------------------------------------------------- */

struct collector {
    json_t *samples[FAMILIES];
    bool failed;
};

static void add_sample(struct collector *c, enum family family, const char *const *labels, json_t *value)
{
    json_t *named = json_object();
    for (uint32_t i = 0; i < 4 && metric_defs[family].labels[i] != NULL; i++) {
        c->failed |= json_object_set_new(named, metric_defs[family].labels[i], json_string(labels[i])) != 0;
    }
    c->failed |= json_object_set_new(value, "labels", named) != 0;
    c->failed |= json_array_append_new(c->samples[family], value) != 0;
}

static void add_counter(struct collector *c, enum family family, const char *const *labels, uint64_t n)
{
    json_t *value = json_object();
    c->failed |= json_object_set_new(value, "value", json_integer((json_int_t)n)) != 0;
    add_sample(c, family, labels, value);
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Sum over the shards of the counter at this offset. */
static uint64_t sum(const struct series *s, size_t offset)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < SERIES_SHARDS; i++) {
        total += load((const _Atomic uint64_t *)((const char *)&s->shards[i] + offset));
    }
    return total;
}

static void add_if_used(struct collector *c, enum family family, const char *const *labels, const struct series *s,
                        size_t offset)
{
    uint64_t n = sum(s, offset);
    if (n > 0) {
        add_counter(c, family, labels, n);
    }
}

/* NULL when there is no observation, or out of memory. */
static json_t *histogram_json(const struct histogram_sum *sum)
{
    uint64_t total = 0;
    if (sum->count == 0) {
        return NULL;
    }
    json_t *buckets = json_array();
    double bound = SERIES_LEAST_NS / 1e9;
    for (uint32_t b = 0; b < SERIES_BUCKETS; b++, bound *= 2) {
        total += sum->buckets[b];
        (void)json_array_append_new(buckets, json_pack("{s:f, s:I}", "le", bound, "count", (json_int_t)total));
    }
    if (json_array_size(buckets) != SERIES_BUCKETS) {
        json_decref(buckets);
        return NULL;
    }
    return json_pack("{s:o, s:f, s:I}", "buckets", buckets, "sum", (double)sum->sum_ns / 1e9, "count", (json_int_t)sum->count);
}

static void add_histogram(struct collector *c, enum family family, const char *const *labels, const struct histogram_sum *sum)
{
    json_t *value = histogram_json(sum);
    if (value != NULL) {
        add_sample(c, family, labels, value);
    }
}

json_t *metrics_waited(const struct series *series)
{
    struct histogram_sum sum = {.count = 0};
    series_add_waited(series, &sum);
    return histogram_json(&sum);
}

static void collect_duration(struct collector *c, const struct series *s, uint32_t rcode)
{
    char number[16];
    (void)snprintf(number, sizeof(number), "%u", (unsigned)rcode);
    const char *name = rcode_mnemonic((int)rcode);
    if (rcode == SERIES_RCODES - 1) {
        name = "other";
    }
    const char *const labels[] = {"forward", s->to, name != NULL ? name : number};
    struct histogram_sum sum = {.count = 0};
    series_add_duration(s, rcode, &sum);
    add_histogram(c, DURATION, labels, &sum);
}

static void add_count_if_used(struct collector *c, enum family family, const char *const *labels, uint64_t n)
{
    if (n > 0) {
        add_counter(c, family, labels, n);
    }
}

/* The books of the pools of one kind. */
static void collect_pools(struct collector *c, struct series *s, uint32_t proto)
{
    struct pool_counts n;
    series_pool_counts(s, proto, &n);
    const char *const cache[] = {"forward", s->to, proto_labels[proto]};
    const char *const labels[] = {s->to, proto_labels[proto]};
    const struct {
        const char *label;
        uint64_t count;
    } states[] = {{"idle", n.idle}, {"dialling", n.dialling}, {"active", n.open - n.closing - n.idle - n.dialling}},
      closes[] = {{"idle_limit", n.overflow}, {"expire", n.expired}, {"max_age", n.aged},  {"uses", n.used_up},
                  {"port_budget", n.renewed}, {"error", n.died},     {"stop", n.stopped}};
    if (n.dials + n.open_failed + n.hits + n.misses + n.waits + n.refused == 0) {
        return;
    }
    for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
        add_counter(c, CONNS, (const char *const[]){s->to, proto_labels[proto], states[i].label}, states[i].count);
    }
    for (size_t i = 0; i < sizeof(closes) / sizeof(*closes); i++) {
        add_count_if_used(c, CLOSES, (const char *const[]){s->to, proto_labels[proto], closes[i].label}, closes[i].count);
    }
    add_counter(c, WAITING, labels, n.waiting);
    add_count_if_used(c, HITS, cache, n.hits);
    add_count_if_used(c, MISSES, cache, n.misses);
    add_count_if_used(c, DIALS, labels, n.dials);
    add_count_if_used(c, DIALS_FAILED, labels, n.open_failed);
    add_count_if_used(c, REUSES, labels, n.hits);
    add_count_if_used(c, WAITS, labels, n.waits);
    add_count_if_used(c, REFUSED, labels, n.refused);
}

static void collect_series(struct collector *c, struct series *s)
{
    for (uint32_t rcode = 0; rcode < SERIES_RCODES; rcode++) {
        collect_duration(c, s, rcode);
    }
    add_if_used(c, HEALTH_FAILURES, (const char *const[]){"forward", s->to}, s, offsetof(struct series_shard, health_failures));
    for (uint32_t p = 1; p < SERIES_PROTOS; p++) {
        collect_pools(c, s, p);
    }
    for (uint32_t e = 1; e < SERIES_ERRORS; e++) {
        const char *const labels[] = {s->to, series_error_label(-(int)e)};
        add_if_used(c, ERRORS, labels, s, offsetof(struct series_shard, errors) + e * sizeof(uint64_t));
    }
    for (uint32_t d = 1; d < ANSWER_KINDS; d++) {
        const char *const labels[] = {s->to, drop_labels[d]};
        add_if_used(c, DROPS, labels, s, offsetof(struct series_shard, drops) + d * sizeof(uint64_t));
    }
    for (uint32_t resumed = 0; resumed < 2; resumed++) {
        const char *const labels[] = {s->to, resumed != 0 ? "true" : "false"};
        add_if_used(c, HANDSHAKES, labels, s, offsetof(struct series_shard, handshakes) + resumed * sizeof(uint64_t));
    }
    struct histogram_sum waited = {.count = 0};
    series_add_waited(s, &waited);
    add_histogram(c, WAITED, (const char *const[]){s->to}, &waited);
    add_if_used(c, STALE, (const char *const[]){s->to}, s, offsetof(struct series_shard, stale));
    add_if_used(c, RETRANSMITS, (const char *const[]){s->to}, s, offsetof(struct series_shard, retransmits));
}

/* [{"name", "type", "help", "samples": [...]}, ...], or NULL when out of memory. */
static json_t *collect(void)
{
    struct collector c = {.failed = false};
    json_t *families = json_array();
    for (uint32_t i = 0; i < FAMILIES; i++) {
        c.samples[i] = json_array();
        json_t *family = json_pack("{s:s, s:s, s:s, s:O?}", "name", metric_defs[i].name, "type", metric_defs[i].type,
                                   "help", metric_defs[i].help, "samples", c.samples[i]);
        c.failed |= c.samples[i] == NULL || json_array_append_new(families, family) != 0;
    }
    if (!c.failed) {
        add_counter(&c, BROKEN, NULL, load(&totals.healthcheck_broken));
        add_counter(&c, REJECTS, NULL, load(&totals.max_concurrent_rejects));
        add_counter(&c, LOOKUPS, NULL, load(&totals.lookups));
        add_counter(&c, LOOKUPS_FAILED, NULL, load(&totals.lookup_failures));
        for (struct series *s = series_first(); s != NULL; s = s->next) {
            collect_series(&c, s);
        }
    }
    for (uint32_t i = 0; i < FAMILIES; i++) {
        json_decref(c.samples[i]);
    }
    if (c.failed) {
        json_decref(families);
        return NULL;
    }
    return families;
}

/* --- Prometheus text ---------------------------------------------------------------------------------------------- */

static void write_labels(FILE *out, const json_t *sample, const char *le)
{
    const char *name;
    json_t *value;
    const char *separator = "{";
    json_object_foreach(json_object_get(sample, "labels"), name, value) {
        fprintf(out, "%s%s=\"", separator, name);
        for (const char *p = json_string_value(value); *p != '\0'; p++) {
            fputs(*p == '\\' ? "\\\\" : *p == '"' ? "\\\"" : *p == '\n' ? "\\n" : (char[]){*p, '\0'}, out);
        }
        fputc('"', out);
        separator = ",";
    }
    if (le != NULL) {
        fprintf(out, "%sle=\"%s\"", separator, le);
        separator = ",";
    }
    fputs(*separator == ',' ? "} " : " ", out);
}

static void write_bucket(FILE *out, const char *name, const json_t *sample, const char *le, json_int_t count)
{
    fprintf(out, "%s_bucket", name);
    write_labels(out, sample, le);
    fprintf(out, "%" JSON_INTEGER_FORMAT "\n", count);
}

static void write_histogram(FILE *out, const char *name, const json_t *sample)
{
    size_t i;
    json_t *bucket;
    json_array_foreach(json_object_get(sample, "buckets"), i, bucket) {
        char le[32];
        (void)snprintf(le, sizeof(le), "%.10g", json_real_value(json_object_get(bucket, "le")));
        write_bucket(out, name, sample, le, json_integer_value(json_object_get(bucket, "count")));
    }
    json_int_t count = json_integer_value(json_object_get(sample, "count"));
    write_bucket(out, name, sample, "+Inf", count);
    fprintf(out, "%s_sum", name);
    write_labels(out, sample, NULL);
    fprintf(out, "%.9g\n%s_count", json_real_value(json_object_get(sample, "sum")), name);
    write_labels(out, sample, NULL);
    fprintf(out, "%" JSON_INTEGER_FORMAT "\n", count);
}

static void write_family(FILE *out, const json_t *family)
{
    const char *name = json_string_value(json_object_get(family, "name"));
    const json_t *samples = json_object_get(family, "samples");
    size_t i;
    json_t *sample;
    if (json_array_size(samples) == 0) {
        return;
    }
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, json_string_value(json_object_get(family, "help")), name,
            json_string_value(json_object_get(family, "type")));
    json_array_foreach(samples, i, sample) {
        if (json_object_get(sample, "buckets") != NULL) {
            write_histogram(out, name, sample);
        } else {
            fputs(name, out);
            write_labels(out, sample, NULL);
            fprintf(out, "%" JSON_INTEGER_FORMAT "\n", json_integer_value(json_object_get(sample, "value")));
        }
    }
}

static char *to_prometheus(const json_t *families, size_t *ret_len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_len);
    if (out == NULL) {
        return NULL;
    }
    size_t i;
    json_t *family;
    json_array_foreach(families, i, family) {
        write_family(out, family);
    }
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

int metrics_write(uint32_t format, fwd_sink_fn sink, void *sink_arg)
{
    if (format != FWD_METRICS_PROMETHEUS && format != FWD_METRICS_JSON) {
        return FWD_ERR_ARG;
    }
    json_t *families = collect();
    if (families == NULL) {
        return FWD_ERR_NOMEM;
    }
    size_t len = 0;
    char *text = format == FWD_METRICS_JSON ? json_dumps(families, JSON_COMPACT) : to_prometheus(families, &len);
    json_decref(families);
    if (text == NULL) {
        return FWD_ERR_NOMEM;
    }
    if (format == FWD_METRICS_JSON) {
        len = strlen(text);
    }
    int r = sink(sink_arg, text, len);
    free(text);
    return r < 0 ? r : FWD_OK;
}
