/* Writing /metrics.
 *
 * Happy path: family by family, each over all tallies; a series with labels is there from its first
 * use on, as in CoreDNS. Failure modes: out of memory sets out->failed, and the page is a 500.
 */
#include "scrape.h"

#include "mnemonic.h"
#include "probe.h"
#include "process_stats.h"
#include "service.h"
#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sums of one tally, taken once per scrape. */
struct summed {
    const struct tally *tally;
    struct tally_counts counts;
};

struct sums {
    struct summed *rows;
    size_t count;
};

static bool sums_take(struct sums *sums)
{
    size_t cap = 0;
    for (const struct tally *t = tally_first(); t != NULL; t = tally_next(t)) {
        if (sums->count == cap) {
            cap = cap == 0 ? 16 : 2 * cap;
            struct summed *rows = reallocarray(sums->rows, cap, sizeof(*rows));
            if (rows == NULL) {
                return false;
            }
            sums->rows = rows;
        }
        sums->rows[sums->count].tally = t;
        sums->count += tally_sum(t, &sums->rows[sums->count].counts);
    }
    return true;
}

static void family(struct text *out, const char *name, const char *type, const char *help)
{
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value; a name in text form has no line ends. */
static void escaped(struct text *out, const char *value)
{
    for (; *value != '\0'; value++) {
        bool special = *value == '\\' || *value == '"';
        text_append(out, "\\", special);
        text_append(out, value, 1);
    }
}

/* The name and the labels that all series of a tally have. */
static void series(struct text *out, const char *name, const struct summed *row)
{
    text_printf(out, "%s{server=\"%s\",zone=\"", name, tally_server(row->tally));
    escaped(out, tally_zone(row->tally));
    text_append(out, "\",view=\"\"", 9);
}

static void requests_write(struct text *out, const struct sums *sums)
{
    static const char name[] = "coredns_dns_requests_total";
    family(out, name, "counter", "Counter of DNS requests made per zone, protocol and family.");
    for (size_t i = 0; i < sums->count; i++) {
        for (unsigned n = 0; n < 4 * TALLY_TYPES; n++) {
            unsigned way = n / TALLY_TYPES;
            unsigned type = n % TALLY_TYPES;
            uint64_t count = sums->rows[i].counts.requests[way / 2][way % 2][type];
            if (count > 0) {
                series(out, name, &sums->rows[i]);
                text_printf(out, ",proto=\"%s\",family=\"%u\",type=\"%s\"} %llu\n",
                            way / 2 ? "tcp" : "udp", way % 2 + 1, tally_type_names[type],
                            (unsigned long long)count);
            }
        }
    }
}

static void dos_write(struct text *out, const struct sums *sums)
{
    static const char name[] = "coredns_dns_do_requests_total";
    family(out, name, "counter", "Counter of DNS requests with DO bit set per zone.");
    for (size_t i = 0; i < sums->count; i++) {
        if (sums->rows[i].counts.dos > 0) {
            series(out, name, &sums->rows[i]);
            text_printf(out, "} %llu\n", (unsigned long long)sums->rows[i].counts.dos);
        }
    }
}

static void responses_write(struct text *out, const struct sums *sums)
{
    static const char name[] = "coredns_dns_responses_total";
    family(out, name, "counter", "Counter of response status codes.");
    for (size_t i = 0; i < sums->count; i++) {
        for (unsigned n = 0; n < 2 * TALLY_RCODES; n++) {
            uint64_t count = sums->rows[i].counts.responses[n / 2][n % 2];
            if (count == 0) {
                continue;
            }
            char buffer[MNEMONIC_MAX];
            const char *rcode = rcode_name(n / 2, buffer);
            bool number = rcode[0] >= '0' && rcode[0] <= '9';
            series(out, name, &sums->rows[i]);
            text_printf(out, ",rcode=\"%s%s\",plugin=\"%s\"} %llu\n", number ? "RCODE" : "",
                        n / 2 < TALLY_RCODES - 1 ? rcode : "other", n % 2 ? "forward" : "",
                        (unsigned long long)count);
        }
    }
}

static void times_write(struct text *out, const struct sums *sums)
{
    static const char name[] = "coredns_dns_request_duration_seconds";
    family(out, name, "histogram",
           "Histogram of the time (in seconds) each request took per zone.");
    for (size_t i = 0; i < sums->count; i++) {
        const struct summed *row = &sums->rows[i];
        uint64_t total = 0;
        for (unsigned b = 0; b < TALLY_TIMES; b++) {
            total += row->counts.times[b];
            series(out, "coredns_dns_request_duration_seconds_bucket", row);
            if (b < TALLY_TIMES - 1) {
                text_printf(out, ",le=\"%g\"} %llu\n", tally_times[b], (unsigned long long)total);
            } else {
                text_printf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)total);
            }
        }
        series(out, "coredns_dns_request_duration_seconds_sum", row);
        text_printf(out, "} %.9g\n", (double)row->counts.time_sum_ns / 1e9);
        series(out, "coredns_dns_request_duration_seconds_count", row);
        text_printf(out, "} %llu\n", (unsigned long long)total);
    }
}

/* Both histograms of sizes; offset says which. */
static void sizes_write(struct text *out, const struct sums *sums, const char *name,
                        const char *help, size_t offset)
{
    family(out, name, "histogram", help);
    char part[64];
    for (size_t i = 0; i < 2 * sums->count; i++) {
        const struct summed *row = &sums->rows[i / 2];
        const struct tally_sizes *sizes =
            (const struct tally_sizes *)((const char *)&row->counts + offset) + i % 2;
        const char *proto = i % 2 ? "tcp" : "udp";
        uint64_t total = 0;
        for (unsigned b = 0; b < TALLY_SIZES; b++) {
            total += sizes->buckets[b];
        }
        if (total == 0) {
            continue;
        }
        (void)snprintf(part, sizeof(part), "%s_bucket", name);
        uint64_t below = 0;
        for (unsigned b = 0; b < TALLY_SIZES; b++) {
            char bound[16] = "+Inf";
            if (b < TALLY_SIZES - 1) {
                (void)snprintf(bound, sizeof(bound), "%u", tally_sizes[b]);
            }
            below += sizes->buckets[b];
            series(out, part, row);
            text_printf(out, ",proto=\"%s\",le=\"%s\"} %llu\n", proto, bound,
                        (unsigned long long)below);
        }
        (void)snprintf(part, sizeof(part), "%s_sum", name);
        series(out, part, row);
        text_printf(out, ",proto=\"%s\"} %llu\n", proto, (unsigned long long)sizes->sum);
        (void)snprintf(part, sizeof(part), "%s_count", name);
        series(out, part, row);
        text_printf(out, ",proto=\"%s\"} %llu\n", proto, (unsigned long long)total);
    }
}

static void number_write(struct text *out, const char *name, const char *type, const char *help,
                         uint64_t value)
{
    family(out, name, type, help);
    text_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

/* Which plugins each zone of a server block with prometheus has. */
static void plugins_write(const struct server *server, const char *label, const char *zone,
                          struct text *out)
{
    const struct {
        const char *name;
        bool there;
    } plugins[] = {
        {"prometheus", true},
        {"errors", server->errors.there},
        {"log", server->has_log},
        {"dnstap", server->taps != NULL},
        {"forward", server->has_forward},
        {"metadata", server->metadata.count > 0},
    };
    for (size_t i = 0; i < sizeof(plugins) / sizeof(plugins[0]); i++) {
        if (plugins[i].there) {
            text_printf(out, "coredns_plugin_enabled{server=\"%s\",zone=\"", label);
            escaped(out, zone);
            text_printf(out, "\",view=\"\",name=\"%s\"} 1\n", plugins[i].name);
        }
    }
}

static void epoch_write(const struct epoch *epoch, struct text *out)
{
    family(out, "coredns_plugin_enabled", "gauge",
           "A metric that indicates whether a plugin is enabled on per server and zone basis.");
    for (size_t g = 0; g < epoch->site_count; g++) {
        const struct site *site = &epoch->sites[g];
        char label[SITE_LABEL_MAX];
        char text[NAME_TEXT_MAX];
        site_label(site, label);
        for (size_t i = 0; i < site->zones.count; i++) {
            const struct zone *zone = &site->zones.zones[i];
            if (zone->tally != NULL) {
                name_to_text(zone->name, text);
                plugins_write(zone->server, label, text, out);
            }
        }
    }
}

static void service_write(struct service *service, struct text *out)
{
    const struct epoch *epoch = service_hold(service);
    if (epoch != NULL && epoch->site_count > 0) {
        epoch_write(epoch, out);
    }
    number_write(out, "coredns_reload_failed_total", "counter",
                 "Counter of the number of failed reload attempts.", service->reloads_failed);
    if (service->reload_hash[0] != '\0') {
        static const char name[] = "coredns_reload_version_info";
        family(out, name, "gauge",
               "A metric with a constant '1' value labeled by hash, and value which type of hash "
               "generated.");
        text_printf(out, "%s{hash=\"sha512\",value=\"%s\"} 1\n", name, service->reload_hash);
    }
    service_let_go(service);
}

static void health_write(struct text *out)
{
    const struct probe_counts counts = probe_counts();
    static const char name[] = "coredns_health_request_duration_seconds";
    family(out, name, "histogram", "Histogram of the time (in seconds) each request took.");
    uint64_t total = 0;
    for (unsigned b = 0; b < PROBE_TIMES - 1; b++) {
        total += counts.times[b];
        text_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, probe_times[b],
                    (unsigned long long)total);
    }
    total += counts.times[PROBE_TIMES - 1];
    text_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", name,
                (unsigned long long)total, name, (double)counts.time_sum_ns / 1e9, name,
                (unsigned long long)total);
    number_write(out, "coredns_health_request_failures_total", "counter",
                 "The number of times the health check failed.", counts.failures);
}

/** Writes the document. */
void scrape_write(struct service *service, struct text *out)
{
    struct sums sums = {0};
    if (!sums_take(&sums) ||
        service->module->forward->metrics(NULL, FWD_METRICS_PROMETHEUS, text_sink, out) < 0) {
        out->failed = true;
    }
    family(out, "coredns_build_info", "gauge",
           "A metric with a constant '1' value labeled by version, revision, and goversion from "
           "which CoreDNS was built.");
    text_printf(out,
                "coredns_build_info{version=\"fwd-resolver-%s\",revision=\"\",goversion=\"\"} 1\n",
                PROJECT_VERSION);
    if (sums.count > 0) {
        requests_write(out, &sums);
        dos_write(out, &sums);
        times_write(out, &sums);
        sizes_write(out, &sums, "coredns_dns_request_size_bytes",
                    "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
                    offsetof(struct tally_counts, asked));
        sizes_write(out, &sums, "coredns_dns_response_size_bytes",
                    "Size of the returned response in bytes.",
                    offsetof(struct tally_counts, replied));
        responses_write(out, &sums);
    }
    free(sums.rows);
    number_write(out, "coredns_panics_total", "counter",
                 "A metrics that counts the number of panics.", 0);
    service_write(service, out);
    health_write(out);
    number_write(out, "fwd_dnstap_dropped_messages_total", "counter",
                 "Messages for dnstap that a full queue or a missing collector made be dropped.",
                 tap_dropped());
    process_stats_write(out);
}
